"""Weight rules applied backwards: our parameters as the tensors of their checkpoints, a few in memory at a time."""

from __future__ import annotations

import dataclasses
import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec
from jax.typing import DTypeLike

from jaxrefine.conversion.apply import READABLE, chosen_rules, sharing_rules
from jaxrefine.conversion.reading import fill
from jaxrefine.models.weights import Rule

_GATHERED_BYTES = 1 << 28
"""What each device holds of a parameter beside its own share, at most, while it is written."""


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """One tensor of theirs, or one a layer, and the rules of the parameters that it is made of."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    """Of each."""
    rules: tuple[Rule, ...]

    def places(self, params: Mapping[str, Any]) -> Iterator[tuple[str, tuple[int, ...]]]:
        """Each tensor's name, and where its layer is on the stacked axes of the parameters."""
        rule = self.rules[0]
        stacked = np.shape(params[rule.ours])[: rule.num_stacked]
        return zip(self.names, np.ndindex(stacked), strict=True)


def outgoing(rules: Sequence[Rule], shapes: Mapping[str, tuple[int, ...]], model_type: str) -> list[Outgoing]:
    """All tensors that parameters of these shapes become, in the order of the rules.

    Raises:
      ValueError: a parameter without a rule, or rules that do not fill a tensor.
    """
    chosen = chosen_rules(rules, shapes, model_type)
    ordered = [rule for rule in rules if rule.ours in chosen]
    return [
        Outgoing(
            tuple(sharing[0].names(shapes[sharing[0].ours])),
            sharing[0].their_shape(shapes[sharing[0].ours]),
            tuple(sharing),
        )
        for sharing in sharing_rules(ordered).values()
    ]


def export(
    rules: Sequence[Rule], params: Mapping[str, Any], dtype: DTypeLike | None, model_type: str
) -> Iterator[tuple[str, np.ndarray]]:
    """Their tensors, contiguous, from our parameters by path.

    Of parameters on devices, one tensor is in host memory at a time; of what lies in files, one stacked parameter, or
    where several share a tensor, one layer.

    Raises:
      ValueError: a value that the dtype cannot hold; names the tensor.
    """
    for one in outgoing(rules, {path: np.shape(leaf) for path, leaf in params.items()}, model_type):
        leaves = {rule.ours: params[rule.ours] for rule in one.rules}
        if one.rules[0].part is None:
            leaves = {path: leaf if is_spread(leaf) else np.asarray(leaf) for path, leaf in leaves.items()}
        for name, place in one.places(leaves):
            values = {path: fetched(leaf, place) for path, leaf in leaves.items()}
            yield name, finished(one, values, dtype, name)
        del leaves, values  # before the next ones are read


def finished(one: Outgoing, values: Mapping[str, Any], dtype: DTypeLike | None, name: str) -> np.ndarray:
    """A tensor of theirs from the layer of each parameter that it is made of.

    Raises:
      ValueError: a value that the dtype cannot hold; names the tensor.
    """
    rule = one.rules[0]
    if rule.part is None:
        return cast(_saved(rule, values[rule.ours]), dtype, name)
    return _merged(one, values, dtype, name)


def _saved(rule: Rule, value: np.ndarray) -> np.ndarray:
    return value if rule.transform is None else rule.transform.save(value)


def _merged(one: Outgoing, values: Mapping[str, np.ndarray], dtype: DTypeLike | None, name: str) -> np.ndarray:
    """The tensor that several parameters fill."""
    pieces = [cast(_saved(rule, values[rule.ours]), dtype, name) for rule in one.rules]
    kinds = sorted({piece.dtype.name for piece in pieces})
    if len(kinds) > 1:
        raise ValueError(f"the parameters of tensor {name!r} have dtypes {', '.join(kinds)}; give one")
    merged = np.empty(one.shape, pieces[0].dtype)
    for rule, piece in zip(one.rules, pieces, strict=True):
        part = rule.part
        assert part is not None
        before, after = one.shape[: part.axis], one.shape[part.axis + 1 :]
        room = merged.reshape(*before, part.groups, part.size, *after)
        columns = (slice(None),) * (len(before) + 1) + (slice(part.start, part.stop),)
        room[columns] = piece.reshape(*before, part.groups, part.stop - part.start, *after)
    return merged


def is_spread(leaf: Any) -> bool:
    """Whether a parameter is fetched by parts: on several devices, or on one whose memory is not the host's."""
    if not isinstance(leaf, jax.Array):
        return False
    devices: list[Any] = list(leaf.sharding.device_set)
    return len(devices) > 1 or devices[0].platform != "cpu"


def fetched(leaf: Any, place: tuple[int, ...], *, keep: bool = True) -> np.ndarray | None:
    """One layer of a parameter in host memory; all processes that hold a part of it must ask for it.

    The devices gather at most ``_GATHERED_BYTES`` of it at a time, and what they gathered is dropped: never is a whole
    parameter on one device, nor a copy of it kept on the host.

    Args:
      leaf: the parameter, in whatever holds it.
      place: index into its stacked axes; () is all of it.
      keep: whether this process is to have it; one that only takes part gets None.
    """
    if not is_spread(leaf):
        if not keep:
            return None
        # indexing a jax.Array is a computation, and of one on the host its NumPy view is free
        return np.asarray((np.asarray(leaf) if isinstance(leaf, jax.Array) else leaf)[place])
    own = leaf.shape[len(place) :]
    rows = own[0] if own else 1
    step = max(1, _GATHERED_BYTES * rows // max(math.prod(own) * leaf.dtype.itemsize, 1))
    filled = np.empty(own, leaf.dtype) if keep else None
    sharding = leaf.sharding
    where = NamedSharding(sharding.mesh, PartitionSpec()) if isinstance(sharding, NamedSharding) else None
    for start in range(0, rows, step):
        part = _gathered(
            leaf, np.array(place, np.int32), np.int32(start), num_rows=min(step, rows - start), where=where
        )
        if filled is None:
            part.block_until_ready()  # one at a time, on the devices too
        elif own:
            filled[start : start + step] = part.addressable_data(0) if where is not None else part
        else:
            filled[...] = part.addressable_data(0) if where is not None else part
    return filled


@functools.partial(jax.jit, static_argnames=("num_rows", "where"))
def _gathered(array: Any, place: Any, start: Any, *, num_rows: int, where: NamedSharding | None) -> jax.Array:
    """Rows of one layer, on every device."""
    for axis in range(place.shape[0]):
        array = jax.lax.dynamic_index_in_dim(array, place[axis], keepdims=False)
    if array.ndim:
        array = jax.lax.dynamic_slice_in_dim(array, start, num_rows)
    return jnp.asarray(array) if where is None else jax.lax.with_sharding_constraint(array, where)


def cast(value: np.ndarray, dtype: DTypeLike | None, name: str) -> np.ndarray:
    """Contiguous in that dtype, or in its own; a copy where it is not so already.

    Raises:
      ValueError: a dtype that is not for weights, a value that the dtype cannot hold; names the tensor.
    """
    target = value.dtype if dtype is None else jnp.dtype(dtype)
    if target.name not in READABLE:
        raise ValueError(
            f"parameter of tensor {name!r} is to be written as {target.name}; allowed: {', '.join(READABLE)}"
        )
    if value.dtype == target and value.flags.c_contiguous:
        return value
    with np.errstate(over="ignore"):
        filled = np.empty(value.shape, target)
        fill(filled, value)
    if target.name == "float16" and not np.isfinite(filled).all() and np.isfinite(value).all():
        raise ValueError(
            f"tensor {name!r} holds {np.abs(value).max()}, more than float16 can; write bfloat16 or float32"
        )
    return filled
