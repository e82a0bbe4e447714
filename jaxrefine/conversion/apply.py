"""Weight rules applied: which tensor fills which parameter, decided before a value is read."""

from __future__ import annotations

import functools
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from jaxrefine.config import unknown_name
from jaxrefine.conversion.tensors import Tensor
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.weights import Family, Rule
from jaxrefine.typing import Params

READABLE = ("float32", "bfloat16", "float16")
"""Dtypes that a checkpoint's weights may have."""

Assignment = dict[str, tuple[Rule, list[Tensor]]]
"""Our parameter's path -> its rule and the tensors of its layers, in order (one tensor where nothing is stacked)."""


def abstract_params(config: TransformerConfig | EncoderConfig) -> Params:
    """The parameters of the decoder or encoder as shapes: a nested dict of ``ShapeDtypeStruct``, in fp32."""
    return jax.tree.map(lambda leaf: leaf, _traced(config))  # a tree of the caller's own


@functools.lru_cache(maxsize=32)
def _traced(config: TransformerConfig | EncoderConfig) -> Params:
    slot = jax.ShapeDtypeStruct((1, 1), jnp.int32)
    model = Encoder(config) if isinstance(config, EncoderConfig) else Decoder(config, attention="dense")

    def init(*row: jax.Array) -> Any:
        return model.init(jax.random.key(0), *row, method="trunk")["params"]

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


def chosen_rules(rules: Sequence[Rule], paths: Iterable[str], model_type: str) -> dict[str, Rule]:
    """The rule of each parameter, by its path; where parameters share a tensor, they fill it.

    Raises:
      ValueError: a parameter without a rule, or a tensor that the parts leave open or fill twice.
    """
    by_ours = {rule.ours: rule for rule in rules}
    for path in paths:
        if path not in by_ours:
            raise ValueError(f"{model_type} has no weight rule for {unknown_name(path, by_ours, 'parameter')}")
    chosen = {path: by_ours[path] for path in paths}
    for theirs, sharing in sharing_rules(chosen.values()).items():
        parts = [rule.part for rule in sharing if rule.part is not None]
        stops = sorted((part.start, part.stop) for part in parts)
        whole = {(part.axis, part.groups, part.size) for part in parts}
        ends = [0, *(stop for _, stop in stops)]
        covered = not parts or (len(whole) == 1 and [start for start, _ in stops] == ends[:-1])
        if len(sharing) != max(len(parts), 1) or not covered or (parts and ends[-1] != parts[0].size):
            raise ValueError(
                f"{model_type}: the weight rules of {theirs!r} do not cover it once: "
                + ", ".join(f"{rule.ours} has {rule.part}" for rule in sharing)
            )
    return chosen


def sharing_rules(rules: Iterable[Rule]) -> dict[str, list[Rule]]:
    """The rules by the name of their tensor, in their order."""
    shared: dict[str, list[Rule]] = {}
    for rule in rules:
        shared.setdefault(rule.theirs, []).append(rule)
    return shared


def assign(
    family: Family,
    rules: Sequence[Rule],
    shapes: Mapping[str, tuple[int, ...]],
    tensors: Mapping[str, Tensor],
    where: str,
) -> Assignment:
    """Which tensors fill which parameter; nothing is left over and nothing is missing, before a value is read.

    Args:
      family: what it ignores, its prefix.
      rules: its rules for the config, and those of heads.
      shapes: of our parameters, by path.
      tensors: of the checkpoint, by name.
      where: the directory that errors name.

    Raises:
      ValueError: a tensor without a place, a parameter without a tensor, a wrong shape or dtype, a tied head that
        differs from the embedding; names the tensor, its file, what was expected and the nearest.
    """
    chosen = chosen_rules(rules, shapes, family.model_type)
    names = {path: rule.names(shapes[path]) for path, rule in chosen.items()}
    wanted = dict.fromkeys(name for path in shapes for name in names[path])
    found = _canonical(family, rules, tensors)
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
        passed_over = any(re.fullmatch(pattern, name) for pattern in family.optional)
        if name not in wanted and not passed_over and not _is_tied_head(family, name, found):
            raise ValueError(f"tensor {tensor} is left over: {_no_place(family, rules, name, shapes, set(wanted))}")
    for path, rule in chosen.items():
        for name in names[path]:
            _check(found[name], rule, shapes[path])
    return {path: (rule, [found[name] for name in names[path]]) for path, rule in chosen.items()}


def _canonical(family: Family, rules: Sequence[Rule], tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors by the names that rules use: with the prefix that base checkpoints lack, without what is ignored."""
    found: dict[str, Tensor] = {}
    for given, tensor in tensors.items():
        name = given
        for pattern, replacement in family.renamed:
            name = re.sub(pattern, replacement, name)
        if any(re.fullmatch(pattern, name) for pattern in family.ignored):
            continue
        full = name
        if not any(rule.layer(name) is not None for rule in rules) and not name.startswith(family.prefix):
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


def _no_place(
    family: Family, rules: Sequence[Rule], name: str, shapes: Mapping[str, tuple[int, ...]], wanted: set[str]
) -> str:
    for rule in rules:
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
    expected = rule.their_shape(shape)
    if tensor.shape != expected:
        raise ValueError(
            f"tensor {tensor} has shape {list(tensor.shape)}; the config wants {list(expected)} for {rule.ours!r}"
            + ("" if rule.part is None else " and what else it holds")
        )
    if tensor.dtype not in READABLE:
        raise ValueError(f"tensor {tensor} has dtype {tensor.dtype}; allowed: {', '.join(READABLE)}")
