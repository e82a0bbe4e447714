"""Weight rules applied: which tensor fills which parameter, one parameter read at a time, and the way back."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import DTypeLike

from jaxrefine.config import unknown_name
from jaxrefine.conversion.tensors import Tensor
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.weights import Family, Rule
from jaxrefine.typing import Params

READABLE = ("float32", "bfloat16", "float16")
"""Dtypes that a checkpoint's weights may have."""

Assignment = dict[str, list[Tensor]]
"""Our parameter's path -> the tensors of its layers, in order (one tensor where nothing is stacked)."""


def abstract_params(config: TransformerConfig) -> Params:
    """The decoder's parameters as shapes: a nested dict of ``ShapeDtypeStruct``, in fp32."""
    slot = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    decoder = Decoder(config, attention="dense")

    def init(*row: jax.Array) -> Any:
        return decoder.init(jax.random.key(0), *row, method="trunk")["params"]

    return jax.eval_shape(init, slot, slot, slot)


def by_path(tree: Params) -> dict[str, Any]:
    """The leaves of a nested dict by their path, as ``layers/attention/query/kernel``."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {jax.tree_util.keystr(path, simple=True, separator="/"): leaf for path, leaf in leaves}


def nested(leaves: Mapping[str, Any]) -> dict[str, Any]:
    """The nested dict of leaves by path.

    >>> nested({"norm/scale": 1, "head/kernel": 2})
    {'norm': {'scale': 1}, 'head': {'kernel': 2}}
    """
    tree: dict[str, Any] = {}
    for path, leaf in leaves.items():
        *rooms, name = path.split("/")
        room = tree
        for step in rooms:
            room = room.setdefault(step, {})
        room[name] = leaf
    return tree


def assign(
    family: Family, shapes: Mapping[str, tuple[int, ...]], tensors: Mapping[str, Tensor], where: str
) -> Assignment:
    """Which tensors fill which parameter; nothing is left over and nothing is missing, before a value is read.

    Args:
      family: its rules, what it ignores, its prefix.
      shapes: of our parameters, by path.
      tensors: of the checkpoint, by name.
      where: the directory that errors name.

    Raises:
      ValueError: a tensor without a place, a parameter without a tensor, a wrong shape or dtype, a tied head that
        differs from the embedding; names the tensor, its file, what was expected and the nearest.
    """
    rules = {rule.ours: rule for rule in family.rules}
    for path in shapes:
        if path not in rules:
            raise ValueError(f"{family.model_type} has no weight rule for {unknown_name(path, rules, 'parameter')}")
    wanted = {
        name: (path, layer) for path, shape in shapes.items() for layer, name in enumerate(_names(rules[path], shape))
    }
    found = _canonical(family, tensors)
    missing = [name for name in wanted if name not in found]
    if missing:
        files = sorted({tensor.file.name for tensor in tensors.values()})
        raise ValueError(
            f"{where}: tensor {missing[0]!r} is missing from {', '.join(files[:3]) or 'an empty checkpoint'}"
            + (f" and {len(files) - 3} other files" if len(files) > 3 else "")
            + (f", {len(missing) - 1} more are missing" if len(missing) > 1 else "")
            + _nearest(missing[0], set(found) - set(wanted))
        )
    for name, tensor in found.items():
        if name not in wanted and not _is_tied_head(family, name, found):
            raise ValueError(f"tensor {tensor} is left over: {_no_place(family, name, shapes, set(wanted))}")
    assignment: Assignment = {path: [] for path in shapes}
    for name, (path, _) in wanted.items():
        _check(found[name], rules[path], shapes[path])
        assignment[path].append(found[name])
    return assignment


def _names(rule: Rule, shape: tuple[int, ...]) -> list[str]:
    return [rule.name(layer) for layer in range(shape[0])] if rule.stacked else [rule.theirs]


def _canonical(family: Family, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that rules use: with the prefix that base checkpoints lack, without what is ignored."""
    found: dict[str, Tensor] = {}
    for name, tensor in tensors.items():
        if any(re.fullmatch(pattern, name) for pattern in family.ignored):
            continue
        full = name
        if not any(rule.layer(name) is not None for rule in family.rules) and not name.startswith(family.prefix):
            full = family.prefix + name
        if full in found:
            raise ValueError(f"tensor {tensor} and tensor {found[full]} are the same parameter {full!r}")
        found[full] = tensor
    return found


def _is_tied_head(family: Family, name: str, found: Mapping[str, Tensor]) -> bool:
    """Whether a left-over tensor is the head of a tied model, equal to its embedding; unequal is an error."""
    if family.tied is None or name != family.tied[0] or family.tied[1] not in found:
        return False
    head, embedding = found[name], found[family.tied[1]]
    if (head.shape, head.dtype) != (embedding.shape, embedding.dtype) or not _equal(head, embedding):
        raise ValueError(
            f"the config ties head and embedding, but tensor {head} differs from tensor {embedding}; "
            "set tie_word_embeddings to false, or remove the head"
        )
    return True


def _equal(one: Tensor, other: Tensor, rows: int = 4096) -> bool:
    """Bit equality, a few rows at a time."""
    rest = (slice(None),) * (len(one.shape) - 1)
    for start in range(0, one.shape[0], rows):
        part = (slice(start, min(start + rows, one.shape[0])), *rest)
        if one.read(part).tobytes() != other.read(part).tobytes():
            return False
    return True


def _no_place(family: Family, name: str, shapes: Mapping[str, tuple[int, ...]], wanted: set[str]) -> str:
    for rule in family.rules:
        layer = rule.layer(name)
        if layer is None:
            continue
        if rule.ours not in shapes:
            return f"the config makes no parameter {rule.ours!r}"
        return f"layer {layer} of a model with {shapes[rule.ours][0]} layers"
    return f"no such tensor in a {family.model_type}{_nearest(name, wanted)}"


def _nearest(name: str, allowed: set[str]) -> str:
    message = unknown_name(name, allowed, "tensor")
    return f"; nearest: {message.partition('did you mean ')[2].partition('?')[0]}" if "did you mean" in message else ""


def _check(tensor: Tensor, rule: Rule, shape: tuple[int, ...]) -> None:
    expected = shape[1:] if rule.stacked else shape
    given = tensor.shape
    if rule.transform is not None and len(given) == len(expected):
        probe = np.broadcast_to(np.zeros((), np.bool_), given)
        given = rule.transform.load(probe).shape
    if given != expected:
        raise ValueError(
            f"tensor {tensor} has shape {list(tensor.shape)}; the config wants {list(expected)} for {rule.ours!r}"
            + (" after its transform" if rule.transform is not None else "")
        )
    if tensor.dtype not in READABLE:
        raise ValueError(f"tensor {tensor} has dtype {tensor.dtype}; allowed: {', '.join(READABLE)}")


def read_parameter(
    tensors: Sequence[Tensor],
    rule: Rule,
    shape: tuple[int, ...],
    dtype: DTypeLike | None,
    sharding: jax.sharding.Sharding | None,
) -> jax.Array:
    """One parameter onto its devices, from the slices of the file that this process's devices hold.

    Args:
      tensors: one a layer, or one.
      rule: theirs to ours.
      shape: of the whole parameter.
      dtype: of the result; None keeps the file's, if all layers have the same.
      sharding: None puts it on the default device.

    Returns:
      The array, on its devices: at most this parameter was staged in host memory.
    """
    kinds = sorted({tensor.dtype for tensor in tensors})
    if dtype is None and len(kinds) > 1:
        raise ValueError(f"tensor {tensors[0]} and its like in other layers have dtypes {', '.join(kinds)}; give one")
    target = jnp.dtype(kinds[0] if dtype is None else dtype)
    staged: dict[tuple[tuple[int, int, int], ...], np.ndarray] = {}

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        index = (slice(None),) * len(shape) if index is None else index
        spans = tuple(one.indices(size) for one, size in zip(index, shape, strict=True))
        if spans not in staged:
            staged[spans] = _read_span(tensors, rule, tuple(slice(*span) for span in spans), target)
        return staged[spans]

    if sharding is None:
        array = jax.device_put(part(None))
    else:
        array = jax.make_array_from_callback(shape, sharding, part)
    return jax.block_until_ready(array)


def _read_span(tensors: Sequence[Tensor], rule: Rule, index: tuple[slice, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Part of a parameter, in memory of its own, cast on the way."""
    own = np.empty(tuple(len(range(one.start, one.stop)) for one in index), dtype)
    if not rule.stacked:
        own[...] = _read_layer(tensors[0], rule, index)
        return own
    for row, layer in enumerate(range(index[0].start, index[0].stop)):
        own[row] = _read_layer(tensors[layer], rule, index[1:])
    return own


def _read_layer(tensor: Tensor, rule: Rule, index: tuple[slice, ...]) -> np.ndarray:
    if rule.transform is None:
        return tensor.read(index)
    return rule.transform.load(tensor.read((slice(None),) * len(tensor.shape)))[index]


def exported_names(family: Family, shapes: Mapping[str, tuple[int, ...]]) -> dict[str, list[str]]:
    """Their tensors' names for each of our parameters.

    Raises:
      ValueError: a parameter without a rule.
    """
    rules = {rule.ours: rule for rule in family.rules}
    for path in shapes:
        if path not in rules:
            raise ValueError(f"{family.model_type} has no weight rule for {unknown_name(path, rules, 'parameter')}")
    return {rule.ours: _names(rule, shapes[rule.ours]) for rule in family.rules if rule.ours in shapes}


def export(family: Family, params: Mapping[str, Any], dtype: DTypeLike | None) -> Iterator[tuple[str, np.ndarray]]:
    """Their tensors, contiguous, from our parameters by path; one stacked parameter is in host memory at a time.

    Raises:
      ValueError: a value that the dtype cannot hold; names the tensor.
    """
    rules = {rule.ours: rule for rule in family.rules}
    names = exported_names(family, {path: np.shape(leaf) for path, leaf in params.items()})
    for path, of_layers in names.items():
        whole = _fetch(params[path])
        for layer, name in enumerate(of_layers):
            value = whole[layer] if rules[path].stacked else whole
            transform = rules[path].transform
            yield name, _cast(value if transform is None else transform.save(value), dtype, name)


def _fetch(array: Any) -> np.ndarray:
    """The whole array in host memory, on every process."""
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return np.asarray(multihost_utils.process_allgather(array, tiled=True))
    return np.asarray(array)


def _cast(value: np.ndarray, dtype: DTypeLike | None, name: str) -> np.ndarray:
    target = value.dtype if dtype is None else jnp.dtype(dtype)
    if target.name not in READABLE:
        raise ValueError(
            f"parameter of tensor {name!r} is to be written as {target.name}; allowed: {', '.join(READABLE)}"
        )
    with np.errstate(over="ignore"):
        cast = np.ascontiguousarray(value.astype(target))
    if target.name == "float16" and not np.isfinite(cast).all() and np.isfinite(value).all():
        raise ValueError(
            f"tensor {name!r} holds {np.abs(value).max()}, more than float16 can; write bfloat16 or float32"
        )
    return cast
