"""Model directories written: config.json and safetensors, one tensor in memory at a time, whole or not at all."""

from __future__ import annotations

import math
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxrefine.artefacts.atomic import write_json
from jaxrefine.artefacts.integrity import INTEGRITY, write_integrity
from jaxrefine.conversion.exporting import Outgoing, export, outgoing
from jaxrefine.conversion.safetensors_files import Layout, Tensors, write_safetensors
from jaxrefine.conversion.tensors import INDEX, SAFETENSORS
from jaxrefine.conversion.together import shared_directory, write_together
from jaxrefine.models.weights import Rule

CONFIG = "config.json"
MAX_SHARD_BYTES = 5_000_000_000


def write_model(
    directory: pathlib.Path,
    attributes: Mapping[str, Any],
    rules: Sequence[Rule],
    leaves: Mapping[str, Any],
    *,
    model_type: str,
    dtype: DTypeLike | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    finish: Callable[[pathlib.Path], None] = lambda _: None,
    watch: Callable[[Tensors], Tensors] = lambda tensors: tensors,
) -> None:
    """Writes a model directory with the manifest of its files; it appears whole or not at all.

    Args:
      directory: its name; a model directory of that name is replaced, any other non-empty directory is refused.
      attributes: of config.json.
      rules: of the family.
      leaves: our parameters by path: arrays, or what gives them when it is indexed or made an array.
      model_type: what errors name.
      dtype: of the stored weights; None keeps that of the parameters.
      max_shard_bytes: larger models become several files with an index.
      finish: gets the unfinished directory last, to put more into it.
      watch: gets the tensors as they are written, to show progress.

    Raises:
      ValueError: a limit that is not positive, a value that the dtype cannot hold, a directory that is no model's.
    """
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes is {max_shard_bytes}; it must be positive")
    check_replaceable(directory)
    shapes = {path: np.shape(leaf) for path, leaf in leaves.items()}
    files = plan(outgoing(rules, shapes, model_type), leaves, dtype, max_shard_bytes)
    with shared_directory(directory) as unfinished:
        if jax.process_count() == 1:
            tensors = watch(export(rules, leaves, dtype, model_type))
            for file, layout in files:
                write_safetensors(unfinished / file, layout, tensors)
            for name, _ in tensors:  # none is left; asking ends whoever watches
                raise AssertionError(f"tensor {name!r} is in no file")
        else:
            write_together(unfinished, files, outgoing(rules, shapes, model_type), leaves, dtype)
        if jax.process_index():
            return
        write_json(unfinished / CONFIG, attributes)
        if len(files) > 1:
            weight_map = {name: file for file, layout in files for name in layout}
            index = {"metadata": {"total_size": total_bytes(files)}, "weight_map": weight_map}
            write_json(unfinished / (SAFETENSORS + INDEX), index)
        finish(unfinished)
        held = {name: (dtype.name, shape) for _, layout in files for name, (dtype, shape) in layout.items()}
        write_integrity(unfinished / INTEGRITY, unfinished, leaves=held)


def check_replaceable(directory: pathlib.Path, holds: str = CONFIG, what: str = "model directory") -> None:
    """What the directory replaces is nothing, empty, or of its own kind.

    Args:
      directory: to be written.
      holds: the file that one of its kind has.
      what: the kind.

    Raises:
      ValueError: it is anything else.
    """
    empty = not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))
    if not empty and not (directory / holds).is_file():
        raise ValueError(f"{directory} is there and holds no {holds}: it is no {what}, and is not replaced")


def plan(
    tensors: Sequence[Outgoing], leaves: Mapping[str, Any], dtype: DTypeLike | None, max_shard_bytes: int
) -> list[tuple[str, Layout]]:
    """The files to write, in order: (file name, what it holds, in the order of export)."""
    shards: list[Layout] = [{}]
    size = 0
    for one in tensors:
        stored = jnp.dtype(leaves[one.rules[0].ours].dtype if dtype is None else dtype)
        more = math.prod(one.shape) * stored.itemsize
        for name in one.names:
            if shards[-1] and size + more > max_shard_bytes:
                shards.append({})
                size = 0
            shards[-1][name] = (stored, one.shape)
            size += more
    if len(shards) == 1:
        return [(SAFETENSORS, shards[0])]
    stem, suffix = os.path.splitext(SAFETENSORS)
    return [(f"{stem}-{i:05d}-of-{len(shards):05d}{suffix}", shard) for i, shard in enumerate(shards, 1)]


def total_bytes(files: Sequence[tuple[str, Layout]]) -> int:
    """Bytes of all tensors of planned files."""
    return sum(math.prod(shape) * dtype.itemsize for _, layout in files for dtype, shape in layout.values())
