"""A model from one layout to another: space is checked first, memory stays small, and nothing is half written."""

from __future__ import annotations

import dataclasses
import math
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrefine.artefacts.atomic import new_directory, write_json
from jaxrefine.artefacts.integrity import check_directory
from jaxrefine.artefacts.progress import progress
from jaxrefine.config import unknown_name
from jaxrefine.conversion import parity
from jaxrefine.conversion.apply import READABLE, by_path, nested
from jaxrefine.conversion.classification import is_classifier
from jaxrefine.conversion.exporting import cast, outgoing
from jaxrefine.conversion.inspection import size
from jaxrefine.conversion.orbax import Incoming, load_orbax, save_orbax
from jaxrefine.conversion.palm import write_palm
from jaxrefine.conversion.pretrained import copy_tokenizer, load_pretrained
from jaxrefine.conversion.retargeting import attributes_of, retargeted
from jaxrefine.conversion.scorer import SCORER, SCORER_CONFIG
from jaxrefine.conversion.sources import HUGGING_FACE, PALM_SUFFIX, Source, open_source
from jaxrefine.conversion.writing import CONFIG, Tensors, check_replaceable, write_model
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.palm import PALM

TARGETS = ("hf", "orbax", "palm")
_SLACK = 1 << 20


@dataclasses.dataclass(frozen=True)
class Converted:
    """What a conversion did."""

    num_params: int
    num_bytes: int
    parity: parity.Parity | None
    remark: str
    """Why there is no parity, or nothing."""


def convert(
    source: pathlib.Path,
    destination: pathlib.Path,
    *,
    to: str = "hf",
    dtype: str | None = None,
    family: str | None = None,
    fold: bool = False,
    stated: Mapping[str, Any] | None = None,
    verify: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Converted:
    """Converts a model.

    Args:
      source: a directory in Hugging Face's layout (safetensors or .bin, single or sharded), in Meta's
        (consolidated.*.pth) or in ours with Orbax, or a PaLM's .pt file.
      destination: a new directory, an empty one, or a model directory, which is replaced; with to="palm" a .pt file.
      to: "hf"; "orbax": config.json with an Orbax checkpoint of our own parameters in ``params``; "palm": the public
        implementation's state dict.
      dtype: of the stored weights; None keeps the source's.
      family: whose layout the result has, if not the source's: a key of ``jaxrefine.models.families.FAMILIES``.
      fold: moves scales of embeddings, scores and logits into the weights, which a GPT-2 has no other place for.
      stated: what nothing in the source's files tells, see ``jaxrefine.conversion.sources.STATED``.
      verify: reads the result and compares its logits with those of transformers, where torch is installed.
      say: gets each step in words.

    Raises:
      FileNotFoundError: no model in ``source``.
      ValueError: an unknown target, dtype or family, a target that has no place for the model, not enough disk space,
        a source that is malformed, a destination that is no model directory; nothing is written. A result that
        transformers cannot load, which stays.
      DamagedError: a source with a manifest of ours is not what was written there; nothing is written.
    """
    if to not in TARGETS:
        raise ValueError(unknown_name(to, TARGETS, "target"))
    if dtype is not None and dtype not in READABLE:
        raise ValueError(unknown_name(dtype, READABLE, "dtype"))
    _check_paths(source, destination, to)
    if source.is_dir():
        check_directory(source)
    with open_source(source, stated) as opened:
        opened = retargeted(opened, family, fold=fold, dtype=dtype, where=str(source))
        _check_target(opened, source, to)
        attributes = attributes_of(opened, dtype)
        needed = sum(_bytes(leaf, dtype) for leaf in opened.leaves.values())
        check_space(destination, needed + (_bytes(opened.leaves["embed/embedding"], dtype) if to == "palm" else 0))
        count = sum(leaf.size for leaf in opened.leaves.values())
        say(f"{opened.family.model_type}: {count:,} parameters, {size(needed)} to write")
        if to == "palm":
            assert isinstance(opened.config, TransformerConfig)
            write_palm(destination, opened.config, opened.leaves, dtype=dtype, watch=_watch(opened))
        else:
            write = _write_hf if to == "hf" else _write_orbax
            write(opened, attributes, source, destination, dtype)
        converted = Converted(count, needed, None, "")
        if not verify:
            return converted
        return dataclasses.replace(converted, **_verified(opened, source, destination, to))


def check_space(destination: pathlib.Path, needed: int) -> None:
    """Refuses to begin what the disk cannot hold.

    Raises:
      ValueError: names the directory, what is needed and what is free.
    """
    there = next(parent for parent in (destination, *destination.resolve().parents) if parent.exists())
    free = shutil.disk_usage(there).free
    if needed + _SLACK > free:
        raise ValueError(f"{destination}: {size(needed)} are needed, {size(free)} are free; nothing was written")


def _check_paths(source: pathlib.Path, destination: pathlib.Path, to: str) -> None:
    resolved = destination.resolve()
    if resolved == source.resolve():
        raise ValueError(f"{destination} is the source; convert to another place")
    if resolved in source.resolve().parents:
        raise ValueError(f"{destination} holds the source {source}, and would be replaced; convert to another place")
    is_file = destination.suffix == PALM_SUFFIX
    if to == "palm" and (not is_file or destination.is_dir()):
        raise ValueError(f"{destination}: a PaLM is written as one file; allowed: a name that ends in {PALM_SUFFIX}")
    if to != "palm":
        if is_file:
            raise ValueError(f"{destination}: a directory is written to {to}; --to palm writes a {PALM_SUFFIX} file")
        check_replaceable(destination)


def _check_target(source: Source, path: pathlib.Path, to: str) -> None:
    name = source.family.model_type
    if to == "hf" and name == PALM.model_type:
        raise ValueError(
            f"{path}: transformers has no PaLM, so there is no layout of Hugging Face's for it; allowed: --to palm, "
            '--to orbax; save_pretrained(…, family="palm") writes a directory that load_pretrained reads'
        )
    if to == "palm" and name != PALM.model_type:
        raise ValueError(
            f"{path}: a {name} has mechanisms that a PaLM's file has no place for; allowed: --to hf, orbax"
        )


def _bytes(leaf: Any, dtype: str | None) -> int:
    return math.prod(leaf.shape) * (leaf.dtype if dtype is None else jnp.dtype(dtype)).itemsize


def _watch(source: Source) -> Callable[[Tensors], Tensors]:
    """Shows how many tensors are written."""
    shapes = {path: leaf.shape for path, leaf in source.leaves.items()}
    rules = source.family.rules(source.config)
    total = sum(len(one.names) for one in outgoing(rules, shapes, source.family.model_type))

    def watch(tensors: Tensors) -> Iterator[tuple[str, np.ndarray]]:
        with progress(total, "converting", unit="tensors") as bar:
            for one in tensors:
                yield one
                bar.advance()

    return watch


def _copy_beside(source: pathlib.Path, directory: pathlib.Path) -> None:
    """The tokenizer, and a scorer that was saved with the model."""
    if not source.is_dir():
        return
    copy_tokenizer(source, directory)
    for name in (SCORER, SCORER_CONFIG):
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)


def _write_hf(
    source: Source, attributes: dict[str, Any], path: pathlib.Path, destination: pathlib.Path, dtype: str | None
) -> None:
    write_model(
        destination,
        attributes,
        source.family.rules(source.config),
        source.leaves,
        model_type=source.family.model_type,
        dtype=dtype,
        finish=lambda unfinished: _copy_beside(path, unfinished),
        watch=_watch(source),
    )


def _write_orbax(
    source: Source, attributes: dict[str, Any], path: pathlib.Path, destination: pathlib.Path, dtype: str | None
) -> None:
    with progress(len(source.leaves), "converting", unit="parameters") as bar:

        def incoming(name: str) -> Incoming:
            leaf = source.leaves[name]

            def make() -> np.ndarray:
                array = cast(np.asarray(leaf), dtype, name)
                bar.advance()
                return array

            return Incoming(make, tuple(leaf.shape), jnp.dtype(leaf.dtype if dtype is None else dtype))

        with new_directory(destination) as unfinished:
            write_json(unfinished / CONFIG, attributes)
            save_orbax(unfinished, {name: incoming(name) for name in source.leaves})
            _copy_beside(path, unfinished)


def _verified(source: Source, path: pathlib.Path, destination: pathlib.Path, to: str) -> dict[str, Any]:
    """The parity of what was written, or why it was not measured."""
    if not isinstance(source.config, TransformerConfig) or is_classifier(source.attributes):
        return {"remark": "no parity: next-token logits are compared, which a model with this head does not give"}
    if not parity.has_torch():
        return {"remark": "no parity: torch is not installed, so transformers cannot compute"}
    known = parity.is_known(source.attributes.get("model_type"))
    if source.layout == HUGGING_FACE and known:
        reference = path
    elif to == "hf" and parity.is_known(source.family.model_type):
        reference = destination
    else:
        return {"remark": f"no parity: transformers reads neither {path} nor {destination}"}
    params = load_orbax(destination) if to == "orbax" else load_pretrained(destination)[1]
    leaves = {name: jnp.asarray(leaf, jnp.float32) for name, leaf in by_path(params).items()}
    try:
        return {"parity": parity.compare(source.config, nested(leaves), reference)}
    except ValueError as error:
        raise ValueError(f"{destination}: written, not verified: {error}") from error
