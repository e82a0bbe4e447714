"""Adapters in the layout of the peft library, in and out: adapter_config.json and adapter_model.safetensors.

A checkpoint that keeps queries, keys and values in one tensor has one adapter for the three. Ours are apart; written,
they become one of three times the rank with zeros between them, unless all three read through the same A. Either way
the product is the same to the bit.
"""

from __future__ import annotations

import dataclasses
import math
import os
import pathlib
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file

from jaxrefine.artefacts.atomic import new_directory, read_json, write_json
from jaxrefine.config import unknown_name
from jaxrefine.conversion.apply import abstract_params, by_path, nested
from jaxrefine.conversion.tensors import open_torch
from jaxrefine.conversion.writing import check_replaceable, write_safetensors
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.families import family_of
from jaxrefine.models.families.attributes import flag, integer, number
from jaxrefine.models.lora import LoraConfig, linear_maps
from jaxrefine.models.weights import LAYER, TRANSPOSE, Family, Part
from jaxrefine.typing import Params

CONFIG = "adapter_config.json"
SAFETENSORS, TORCH = "adapter_model.safetensors", "adapter_model.bin"
_PREFIX = "base_model.model."

_READ = """
    alpha_pattern bias init_lora_weights lora_alpha lora_dropout modules_to_save peft_type r rank_pattern use_rslora
"""
_HARMLESS = """
    auto_mapping base_model_name_or_path corda_config ensure_weight_tying eva_config exclude_modules fan_in_fan_out
    inference_mode layers_pattern layers_to_transform loftq_config lora_ga_config megatron_config megatron_core
    peft_version qalora_group_size revision runtime_config target_modules task_type
"""
"""Where an adapter is from; which maps it has and of what rank, the tensors themselves say."""

_BEGINNINGS = (None, True, False, "gaussian", "orthogonal", "eva")
"""Values of init_lora_weights that leave the base as it was."""


@dataclasses.dataclass(frozen=True)
class LoadedAdapters:
    """What ``load_adapters`` found."""

    lora: LoraConfig
    adapters: Params
    """As ``init_adapters`` makes them; r may differ from map to map."""
    saved: dict[str, np.ndarray]
    """Whole tensors that were trained beside them (``modules_to_save``), such as ``score.weight``, by their name."""


@dataclasses.dataclass(frozen=True)
class _Map:
    """One of our maps in one module of theirs."""

    name: str
    shape: tuple[int, ...]
    part: Part | None


def _modules(config: TransformerConfig | EncoderConfig, family: Family) -> dict[str, list[_Map]]:
    """Our linear maps by the name of their module, which may hold ``{layer}``."""
    maps = linear_maps(abstract_params(config))
    modules: dict[str, list[_Map]] = {}
    for rule in family.rules(config):
        name = rule.ours.removeprefix("layers/").removesuffix("/kernel")
        if not rule.ours.endswith("/kernel") or name not in maps:
            continue
        if rule.transform not in (None, TRANSPOSE) or (
            rule.part is not None and rule.part.axis != (rule.transform is not None)
        ):
            raise ValueError(f"{family.model_type}: {rule.theirs} is no linear map that an adapter can be laid beside")
        modules.setdefault(rule.theirs.removesuffix(".weight"), []).append(_Map(name, maps[name], rule.part))
    return modules


def save_adapters(
    directory: str | os.PathLike[str],
    config: TransformerConfig | EncoderConfig,
    adapters: Params,
    lora: LoraConfig,
    *,
    family: str,
    base: str | None = None,
    saved: Mapping[str, Any] | None = None,
    task_type: str = "CAUSAL_LM",
) -> pathlib.Path:
    """Writes adapters as ``peft.PeftModel.from_pretrained`` loads them; the directory appears whole or not at all.

    Args:
      directory: its name; a directory of adapters is replaced, any other that is not empty is refused.
      config: of the model.
      adapters: trained.
      lora: their scale.
      family: whose layout, a key of ``jaxrefine.models.families.FAMILIES`` or ``ENCODERS``.
      base: name or directory of the model they belong to, for whoever loads them.
      saved: whole tensors that belong to them, such as ``{"score.weight": [1 D]}`` of a reward model.
      task_type: peft's word for the kind of model: CAUSAL_LM, SEQ_CLS.

    Returns:
      The directory.

    Raises:
      ValueError: a family without a model in transformers, an adapter that fits no map, a directory of other things.
    """
    directory = pathlib.Path(directory)
    described = family_of(family, "save_adapters")
    check_replaceable(directory, CONFIG, "directory of adapters")
    tensors: dict[str, np.ndarray] = {}
    ranks: dict[str, int] = {}
    alphas: dict[str, float] = {}
    targets = []
    for module, maps in _outgoing(config, described, adapters):
        a, b = _fused(maps)
        target = module.rpartition(LAYER + ".")[2]
        rank = a.shape[-2]
        alpha = lora.scale * (math.sqrt(rank) if lora.rank_stabilized else rank)
        targets.append(target)
        if rank != lora.rank:
            ranks[target] = rank
        if alpha != lora.alpha:
            alphas[target] = alpha
        layers = range(a.shape[0]) if LAYER in module else [None]
        for layer in layers:
            name = _PREFIX + module.replace(LAYER, str(layer))
            tensors[f"{name}.lora_A.weight"] = a if layer is None else a[layer]
            tensors[f"{name}.lora_B.weight"] = b if layer is None else b[layer]
    for name, value in (saved or {}).items():
        tensors[_PREFIX + name] = np.asarray(value, np.float32)
    attributes = {
        "peft_type": "LORA",
        "task_type": task_type,
        "base_model_name_or_path": base,
        "r": lora.rank,
        "lora_alpha": lora.alpha,
        "lora_dropout": lora.dropout,
        "use_rslora": lora.rank_stabilized,
        "rank_pattern": ranks,
        "alpha_pattern": alphas,
        "target_modules": targets,
        "modules_to_save": sorted({name.rpartition(".")[0] for name in saved}) if saved else None,
        "bias": "none",
        "fan_in_fan_out": any(rule.transform is TRANSPOSE for rule in described.rules(config)),
        "inference_mode": True,
    }
    tensors = {name: np.ascontiguousarray(value) for name, value in tensors.items()}
    with new_directory(directory) as unfinished:
        write_json(unfinished / CONFIG, attributes)
        layout = {name: (value.dtype, value.shape) for name, value in tensors.items()}
        write_safetensors(unfinished / SAFETENSORS, layout, iter(tensors.items()))
    return directory


_Adapter = tuple[_Map, np.ndarray | None, np.ndarray | None]


def _outgoing(
    config: TransformerConfig | EncoderConfig, family: Family, adapters: Params
) -> Iterator[tuple[str, list[_Adapter]]]:
    """Each of their modules that has an adapter, with A and B of each of our maps in it."""
    leaves = {path.removeprefix("layers/"): np.asarray(leaf, np.float32) for path, leaf in by_path(adapters).items()}
    modules = _modules(config, family)
    known = {one.name: one.shape for maps in modules.values() for one in maps}
    for path, leaf in leaves.items():
        name, _, which = path.rpartition("/")
        if name not in known or which not in ("a", "b"):
            raise ValueError(unknown_name(path, [f"{one}/{leaf}" for one in known for leaf in "ab"], "adapter"))
        axis, size = (-1, known[name][-1]) if which == "a" else (-2, known[name][-2])
        if leaf.ndim != len(known[name]) or leaf.shape[axis] != size:
            raise ValueError(f"adapter {path} has shape {list(leaf.shape)}; the map is {list(known[name])}")
    for module, maps in modules.items():
        found = [(one, leaves.get(f"{one.name}/a"), leaves.get(f"{one.name}/b")) for one in maps]
        if any(a is not None for _, a, _ in found):
            yield module, found


def _fused(maps: Sequence[_Adapter]) -> tuple[np.ndarray, np.ndarray]:
    """A and B of a module, from those of the maps in it."""
    present = [(one, a, b) for one, a, b in maps if a is not None and b is not None]
    if maps[0][0].part is None:
        return present[0][1], present[0][2]
    first = present[0][1]
    shared = len(present) == len(maps) and all(np.array_equal(first, a) for _, a, _ in present)
    a = first if shared else np.concatenate([a for _, a, _ in present], axis=-2)
    part = maps[0][0].part
    b = np.zeros((*first.shape[:-2], part.groups * part.size, a.shape[-2]), np.float32)
    column = 0
    for one, _, own in present:
        assert one.part is not None
        rank, row = own.shape[-1], 0
        for start, stop in one.part.spans(0, one.part.width):
            b[..., start:stop, column : column + rank] = own[..., row : row + stop - start, :]
            row += stop - start
        column += 0 if shared else rank
    return a, b


def load_adapters(
    directory: str | os.PathLike[str], config: TransformerConfig | EncoderConfig, *, family: str
) -> LoadedAdapters:
    """Adapters that peft wrote, or ``save_adapters``.

    Args:
      directory: with adapter_config.json, and adapter_model.safetensors or .bin.
      config: of the model they belong to.
      family: its layout, a key of ``FAMILIES`` or ``ENCODERS``.

    Returns:
      Adapters in fp32; a layer that has none where others have one gets zeros. Where modules count with another scale
      than the rest, B holds the difference.

    Raises:
      FileNotFoundError: no config or no weights.
      ValueError: another kind of adapter, an attribute that changes the computation and is not known, a tensor without
        a place or of a wrong shape; names the file and the key or tensor.
    """
    directory = pathlib.Path(directory)
    described = family_of(family, "load_adapters")
    where = directory / CONFIG
    if not where.is_file():
        raise FileNotFoundError(f"{where}: no such file; peft writes it beside the weights")
    attributes = read_json(where)
    lora = _read_config(attributes, str(where))
    modules = _modules(config, described)
    file, tensors = _read_tensors(directory)
    pairs: dict[tuple[str, int], dict[str, np.ndarray]] = {}
    saved: dict[str, np.ndarray] = {}
    to_save = tuple(attributes.get("modules_to_save") or ())
    for given, value in tensors.items():
        name = given.removeprefix(_PREFIX)
        match = re.fullmatch(r"(.*)\.lora_(A|B)(\.default)?\.weight", name)
        if match is None:
            if not any(f".{module}." in f".{name}" for module in to_save):
                raise ValueError(f"{file}: tensor {given!r} is no adapter of a linear map, nor in modules_to_save")
            saved[name] = value
            continue
        pairs.setdefault(_placed(match[1], modules, described, file), {})[match[2]] = value
    adapters: dict[str, np.ndarray] = {}
    for module, maps in modules.items():
        of_layers = {layer: pair for (name, layer), pair in pairs.items() if name == module}
        if of_layers:
            adapters |= _taken_apart(module, maps, of_layers, attributes, lora, str(file))
    if not adapters:
        raise ValueError(f"{file}: no adapters in it")
    names = tuple(sorted({re.sub("^layers/|/[ab]$", "", path) for path in adapters}))
    lora = dataclasses.replace(lora, targets=tuple(re.escape(name) for name in names))
    return LoadedAdapters(lora, nested({path: jnp.asarray(leaf) for path, leaf in adapters.items()}), saved)


def _read_config(attributes: Any, where: str) -> LoraConfig:
    if not isinstance(attributes, dict) or attributes.get("peft_type") != "LORA":
        given = attributes.get("peft_type") if isinstance(attributes, dict) else type(attributes).__name__
        raise ValueError(f"{where}: peft_type is {given!r}; allowed: 'LORA'")
    for key, value in attributes.items():
        if key not in (_READ + _HARMLESS).split() and value not in (None, False, {}, []):
            raise ValueError(f"{where}: {key} = {value!r} changes what adapters compute, and is not supported")
    if attributes.get("bias", "none") != "none":
        raise ValueError(f"{where}: bias = {attributes['bias']!r}; allowed: 'none'")
    if (begun := attributes.get("init_lora_weights")) not in _BEGINNINGS:
        raise ValueError(
            f"{where}: init_lora_weights = {begun!r} changes the base too; save the adapters converted to plain LoRA"
        )
    for pattern in attributes.get("alpha_pattern") or {}:
        if not re.fullmatch(r"\^?[\w.\\]+\$?", pattern):
            raise ValueError(f"{where}: alpha_pattern {pattern!r}; allowed: names of modules")
    return LoraConfig(
        rank=integer(attributes, "r", where, 8),
        alpha=number(attributes, "lora_alpha", where, 8.0),
        dropout=number(attributes, "lora_dropout", where, 0.0),
        rank_stabilized=flag(attributes, "use_rslora", where, False),
    )


def _read_tensors(directory: pathlib.Path) -> tuple[pathlib.Path, dict[str, np.ndarray]]:
    """The file of the weights, and all of them in fp32: adapters are small."""
    path = directory / SAFETENSORS
    if path.is_file():
        try:
            found = load_file(path)
        except SafetensorError as error:
            raise ValueError(f"{path}: no complete safetensors file: {error}") from error
    elif (directory / TORCH).is_file():
        path = directory / TORCH
        found = {name: one.read((slice(None),) * len(one.shape)) for name, one in open_torch(path).items()}
    else:
        raise FileNotFoundError(f"{directory}: no adapters' weights; allowed: {SAFETENSORS}, {TORCH}")
    return path, {name: np.asarray(value, np.float32) for name, value in found.items()}


def _placed(module: str, modules: Mapping[str, Sequence[_Map]], family: Family, file: pathlib.Path) -> tuple[str, int]:
    """Which of ``modules`` a name means, and its layer."""
    name = f"{module}.weight"
    for pattern, replacement in family.renamed:
        name = re.sub(pattern, replacement, name)
    name = name.removesuffix(".weight")
    for candidate in (name, family.prefix + name):
        for one in modules:
            pattern = re.escape(one).replace(re.escape(LAYER), r"(?P<layer>0|[1-9]\d*)")
            if match := re.fullmatch(pattern, candidate):
                return one, int(match["layer"]) if LAYER in one else 0
    allowed = [one.replace(LAYER, "0") for one in modules]
    raise ValueError(f"{file}: {unknown_name(module, allowed, 'module with an adapter')}")


def _taken_apart(
    module: str,
    maps: Sequence[_Map],
    pairs: Mapping[int, Mapping[str, np.ndarray]],
    attributes: Mapping[str, Any],
    lora: LoraConfig,
    file: str,
) -> dict[str, np.ndarray]:
    """A and B of our maps, by path, from those of their module in each layer."""
    stacked = LAYER in module
    num_layers = maps[0].shape[0] if stacked else 1
    part = maps[0].part
    outputs = maps[0].shape[-2] if part is None else part.groups * part.size
    inputs = maps[0].shape[-1]
    rank = max(pair["A"].shape[0] for pair in pairs.values() if "A" in pair) if pairs else 0
    a, b = np.zeros((num_layers, rank, inputs), np.float32), np.zeros((num_layers, outputs, rank), np.float32)
    for layer, pair in pairs.items():
        name = module.replace(LAYER, str(layer))
        if layer >= num_layers:
            raise ValueError(f"{file}: {name} is layer {layer} of a model with {num_layers} layers")
        if set(pair) != {"A", "B"}:
            raise ValueError(f"{file}: {name} has lora_{next(iter(pair))} alone; A and B belong together")
        own = pair["A"].shape[0]
        if pair["A"].shape != (own, inputs) or pair["B"].shape != (outputs, own):
            raise ValueError(
                f"{file}: {name} has A {list(pair['A'].shape)} and B {list(pair['B'].shape)}; the map is "
                f"{[outputs, inputs]}"
            )
        a[layer, :own] = pair["A"]
        b[layer, :, :own] = pair["B"] * np.float32(_scale(name, own, attributes, lora) / lora.scale)
    found: dict[str, np.ndarray] = {}
    for one in maps:
        rows = b if one.part is None else np.concatenate(
            [b[:, start:stop] for start, stop in one.part.spans(0, one.part.width)], axis=1
        )  # fmt: skip
        path = f"layers/{one.name}" if stacked else one.name
        found |= {f"{path}/a": a if stacked else a[0], f"{path}/b": rows if stacked else rows[0]}
    return found


def _scale(module: str, rank: int, attributes: Mapping[str, Any], lora: LoraConfig) -> float:
    """The scale of one module: alpha may be given for it alone."""
    alpha = lora.alpha
    for pattern, own in (attributes.get("alpha_pattern") or {}).items():
        if re.fullmatch(rf"(.*\.)?({pattern})", module):
            alpha = float(own)
            break
    return alpha / (math.sqrt(rank) if lora.rank_stabilized else rank)
