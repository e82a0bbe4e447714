"""A model from one layout to another: space is checked first, memory stays small, and nothing is half written."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
from collections.abc import Callable, Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxrefine.artefacts.atomic import new_directory, write_json
from jaxrefine.artefacts.progress import progress
from jaxrefine.config import unknown_name
from jaxrefine.conversion import parity
from jaxrefine.conversion.apply import READABLE, by_path, nested
from jaxrefine.conversion.classification import architecture, is_classifier
from jaxrefine.conversion.exporting import outgoing
from jaxrefine.conversion.inspection import size
from jaxrefine.conversion.pretrained import copy_tokenizer, load_pretrained, stored_dtype
from jaxrefine.conversion.sources import Source, open_source
from jaxrefine.conversion.writing import CONFIG, check_replaceable, write_model
from jaxrefine.models.config import TransformerConfig
from jaxrefine.typing import Params

TARGETS = ("hf", "orbax")
ORBAX = "params"
"""Where an Orbax checkpoint is, beside config.json."""
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
    verify: bool = False,
    say: Callable[[str], None] = lambda _: None,
) -> Converted:
    """Converts a model directory.

    Args:
      source: in Hugging Face's layout (safetensors or .bin, single or sharded) or Meta's (consolidated.*.pth).
      destination: a new directory, an empty one, or a model directory, which is replaced.
      to: "hf", or "orbax": config.json with an Orbax checkpoint of our own parameters in ``params``.
      dtype: of the stored weights; None keeps the source's.
      verify: reads the result and compares its logits with those of transformers, where torch is installed.
      say: gets each step in words.

    Raises:
      FileNotFoundError: no model in ``source``.
      ValueError: an unknown target or dtype, not enough disk space, a source that is malformed, a destination that
        is no model directory; nothing is written.
    """
    if to not in TARGETS:
        raise ValueError(unknown_name(to, TARGETS, "target"))
    if dtype is not None and dtype not in READABLE:
        raise ValueError(unknown_name(dtype, READABLE, "dtype"))
    if destination.resolve() == source.resolve():
        raise ValueError(f"{destination} is the source; convert to another directory")
    check_replaceable(destination)
    with open_source(source) as opened:
        count = sum(leaf.size for leaf in opened.leaves.values())
        needed = sum(
            leaf.size * (leaf.dtype if dtype is None else jnp.dtype(dtype)).itemsize for leaf in opened.leaves.values()
        )
        check_space(destination, needed)
        say(f"{opened.family.model_type}: {count:,} parameters, {size(needed)} to write")
        if to == "hf":
            _write_hf(opened, source, destination, dtype)
        else:
            _write_orbax(opened, source, destination, dtype)
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


def attributes_of(source: Source, dtype: DTypeLike | None) -> dict[str, Any]:
    """config.json of a source's model, its weights stored in a dtype."""
    extra = source.family.extra(source.attributes)
    attributes = source.family.to_hf(source.config, dtype=stored_dtype(source.leaves, dtype), extra=extra)
    if source.classifier:
        attributes["architectures"] = [architecture(attributes, source.family.model_type)]
    return attributes


def _write_hf(source: Source, directory: pathlib.Path, destination: pathlib.Path, dtype: str | None) -> None:
    rules = source.family.rules(source.config)
    shapes = {path: leaf.shape for path, leaf in source.leaves.items()}
    total = sum(len(one.names) for one in outgoing(rules, shapes, source.family.model_type))

    def watch(tensors: Iterator[tuple[str, np.ndarray]]) -> Iterator[tuple[str, np.ndarray]]:
        with progress(total, "converting", unit="tensors") as bar:
            for one in tensors:
                yield one
                bar.advance()

    write_model(
        destination,
        attributes_of(source, dtype),
        rules,
        source.leaves,
        model_type=source.family.model_type,
        dtype=dtype,
        finish=lambda unfinished: copy_tokenizer(directory, unfinished),
        watch=watch,
    )


def _write_orbax(source: Source, directory: pathlib.Path, destination: pathlib.Path, dtype: str | None) -> None:
    import orbax.checkpoint as ocp

    leaves = {}
    for path in progress(list(source.leaves), "reading", unit="parameters"):
        leaves[path] = jnp.asarray(np.asarray(source.leaves[path]), None if dtype is None else jnp.dtype(dtype))
    with new_directory(destination) as unfinished:
        write_json(unfinished / CONFIG, attributes_of(source, dtype))
        with ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save((unfinished / ORBAX).resolve(), nested(leaves))
        copy_tokenizer(directory, unfinished)


def load_orbax(directory: pathlib.Path) -> Params:
    """The parameters that ``convert(…, to="orbax")`` wrote; config.json beside them has their config.

    Raises:
      FileNotFoundError: no such checkpoint.
    """
    import orbax.checkpoint as ocp

    if not (directory / ORBAX).is_dir():
        raise FileNotFoundError(f"{directory / ORBAX}: no Orbax checkpoint")
    with ocp.StandardCheckpointer() as checkpointer:
        return checkpointer.restore((directory / ORBAX).resolve())


def _verified(source: Source, directory: pathlib.Path, destination: pathlib.Path, to: str) -> dict[str, Any]:
    """The parity of what was written, or why it was not measured."""
    if not isinstance(source.config, TransformerConfig) or is_classifier(source.attributes):
        return {"remark": "no parity: next-token logits are compared, which a model with this head does not give"}
    if not parity.has_torch():
        return {"remark": "no parity: torch is not installed, so transformers cannot compute"}
    reference = directory if source.layout == "Hugging Face" else destination
    if reference == destination and to != "hf":
        return {"remark": "no parity: transformers reads neither the source's layout nor the destination's"}
    params = load_orbax(destination) if to == "orbax" else load_pretrained(destination)[1]
    leaves = {path: jnp.asarray(leaf, jnp.float32) for path, leaf in by_path(params).items()}
    return {"parity": parity.compare(source.config, nested(leaves), reference)}
