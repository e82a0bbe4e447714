"""Weight rules applied backwards: our parameters as the tensors of their checkpoints, a few in memory at a time."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import DTypeLike

from jaxrefine.conversion.apply import READABLE, chosen_rules, sharing_rules
from jaxrefine.conversion.reading import fill
from jaxrefine.models.weights import Rule


@dataclasses.dataclass(frozen=True)
class Outgoing:
    """One tensor of theirs, or one a layer, and the rules of the parameters that it is made of."""

    names: tuple[str, ...]
    shape: tuple[int, ...]
    """Of each."""
    rules: tuple[Rule, ...]


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

    One stacked parameter is in host memory at a time; of those that share a tensor, one layer.

    Raises:
      ValueError: a value that the dtype cannot hold; names the tensor.
    """
    for one in outgoing(rules, {path: np.shape(leaf) for path, leaf in params.items()}, model_type):
        rule = one.rules[0]
        shape = np.shape(params[rule.ours])
        if rule.part is None:
            whole = _fetch(params[rule.ours])
            for name, place in zip(one.names, np.ndindex(shape[: rule.num_stacked]), strict=True):
                yield name, cast(_saved(rule, whole[place]), dtype, name)
            continue
        for name, place in zip(one.names, np.ndindex(shape[: rule.num_stacked]), strict=True):
            yield name, _merged(one, {rule.ours: _fetch(params[rule.ours][place]) for rule in one.rules}, dtype, name)


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


def _fetch(array: Any) -> np.ndarray:
    """The whole array in host memory, on every process."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def cast(value: np.ndarray, dtype: DTypeLike | None, name: str) -> np.ndarray:
    """A contiguous copy in that dtype, or in its own.

    Raises:
      ValueError: a dtype that is not for weights, a value that the dtype cannot hold; names the tensor.
    """
    target = value.dtype if dtype is None else jnp.dtype(dtype)
    if target.name not in READABLE:
        raise ValueError(
            f"parameter of tensor {name!r} is to be written as {target.name}; allowed: {', '.join(READABLE)}"
        )
    with np.errstate(over="ignore"):
        filled = np.empty(value.shape, target)
        fill(filled, value)
    if target.name == "float16" and not np.isfinite(filled).all() and np.isfinite(value).all():
        raise ValueError(
            f"tensor {name!r} holds {np.abs(value).max()}, more than float16 can; write bfloat16 or float32"
        )
    return filled
