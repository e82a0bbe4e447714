"""Model directories in Hugging Face's layout: loaded straight onto a mesh, saved as transformers loads them."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.typing import DTypeLike
from safetensors.numpy import save_file

from jaxrefine.artefacts.atomic import new_directory, read_json, write_json
from jaxrefine.config import unknown_name
from jaxrefine.conversion import apply
from jaxrefine.conversion.scorer import save_scorer
from jaxrefine.conversion.tensors import INDEX, SAFETENSORS, open_checkpoint
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families import family_of
from jaxrefine.models.weights import Family
from jaxrefine.sharding import param_shardings
from jaxrefine.typing import Params

CONFIG = "config.json"
TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "chat_template.jinja",
    "vocab.json",
    "merges.txt",
    "generation_config.json",
)
"""What a saved model takes over from the directory it was loaded from."""

MAX_SHARD_BYTES = 5_000_000_000


def load_config(directory: str | os.PathLike[str]) -> tuple[TransformerConfig, dict[str, Any]]:
    """The config of a model directory, and the attributes of its config.json that ours does not hold.

    Raises:
      FileNotFoundError: no config.json.
      ValueError: an attribute that is neither handled nor known to change nothing; names the file and the key.
    """
    family, config, where = _read_config(pathlib.Path(directory))
    return family.from_hf(config, where=where), family.extra(config)


def _read_config(directory: pathlib.Path) -> tuple[Family, dict[str, Any], str]:
    """The family, config.json as it is, and its path."""
    path = directory / CONFIG
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file; a model directory has a {CONFIG} beside its weights")
    config = read_json(path)
    if not isinstance(config, dict):
        raise ValueError(f"{path}: holds a {type(config).__name__}; an object is needed")
    return family_of(config.get("model_type"), str(path)), config, str(path)


def load_pretrained(
    directory: str | os.PathLike[str],
    *,
    mesh: jax.sharding.Mesh | None = None,
    param_dtype: DTypeLike | None = jnp.float32,
) -> tuple[TransformerConfig, Params]:
    """The config and parameters of a model directory, one stacked parameter at a time straight onto a mesh.

    Args:
      directory: config.json with ``model.safetensors`` or ``pytorch_model.bin``, single or sharded.
      mesh: places parameters by the table of ``jaxrefine.sharding``; each process reads what its own devices hold.
        None puts them on the default device.
      param_dtype: of the parameters; None keeps the file's.

    Returns:
      (config, params): ``params`` is the tree of ``Decoder(config)``.

    Raises:
      FileNotFoundError: no directory, config or weights, or a shard that the index names is missing.
      ValueError: an unknown attribute; an unknown, missing, left-over or duplicated tensor; a wrong shape or dtype; a
        truncated file; a pickle that names what it must not. Each names the key or tensor and the file.
    """
    directory = pathlib.Path(directory)
    family, attributes, where = _read_config(directory)
    config = family.from_hf(attributes, where=where)
    abstract = apply.abstract_params(config)
    shapes = {path: leaf.shape for path, leaf in apply.by_path(abstract).items()}
    shardings = {} if mesh is None else apply.by_path(param_shardings(abstract, mesh))
    rules = {rule.ours: rule for rule in family.rules}
    with open_checkpoint(directory) as tensors:
        assignment = apply.assign(family, shapes, tensors, str(directory))
        return config, apply.nested(
            {
                path: apply.read_parameter(assignment[path], rules[path], shape, param_dtype, shardings.get(path))
                for path, shape in shapes.items()
            }
        )


def save_pretrained(
    directory: str | os.PathLike[str],
    config: TransformerConfig,
    params: Params,
    *,
    tokenizer_dir: str | os.PathLike[str] | None = None,
    dtype: DTypeLike | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    extra: Mapping[str, Any] | None = None,
    scorer: Params | None = None,
    scorer_config: Mapping[str, Any] | None = None,
    family: str = "llama",
) -> pathlib.Path:
    """Writes a model directory that transformers (4 and 5) loads; it appears whole or not at all.

    Args:
      directory: its name; a model directory of that name is replaced, any other non-empty directory is refused.
      config: of the decoder.
      params: the tree of ``Decoder(config)``, on any devices.
      tokenizer_dir: where ``TOKENIZER_FILES`` are copied from; the attributes of its config.json that ours does not
        hold (token ids) are taken over too, unless ``extra`` is given.
      dtype: of the stored weights; None keeps that of the parameters.
      max_shard_bytes: larger models become several files with an index.
      extra: further attributes of config.json, as ``load_config`` returns them.
      scorer: parameters of a scorer, kept in a file of their own for ``load_scorer``.
      scorer_config: what ``load_scorer`` returns with them.
      family: whose layout, a key of ``jaxrefine.models.families.FAMILIES``.

    Returns:
      The directory.

    Raises:
      ValueError: parameters that are not those of ``config``, a mechanism that the family lacks, a value that the
        dtype cannot hold, a directory that is no model's.
    """
    directory = pathlib.Path(directory)
    described = family_of(family, "save_pretrained")
    leaves = apply.by_path(params)
    _check_params(config, leaves)
    if max_shard_bytes < 1:
        raise ValueError(f"max_shard_bytes is {max_shard_bytes}; it must be positive")
    dtypes = sorted({jnp.dtype(leaf.dtype if dtype is None else dtype).name for leaf in leaves.values()})
    stored = dtypes[0] if len(dtypes) == 1 else "float32"
    source = None if tokenizer_dir is None else pathlib.Path(tokenizer_dir)
    if extra is None and source is not None and (source / CONFIG).is_file():
        _, extra = load_config(source)
    attributes = described.to_hf(config, dtype=stored, extra=extra)
    _check_replaceable(directory)
    files = _plan(
        apply.exported_names(described, {path: np.shape(leaf) for path, leaf in leaves.items()}),
        leaves,
        dtype,
        max_shard_bytes,
    )
    tensors = apply.export(described, leaves, dtype)
    if jax.process_index():
        for _ in tensors:  # every process takes part in gathering, one of them writes
            pass
    else:
        with new_directory(directory) as unfinished:
            write_json(unfinished / CONFIG, attributes)
            _write_weights(unfinished, tensors, files)
            if scorer is not None:
                save_scorer(unfinished, scorer, scorer_config or {})
            for name in TOKENIZER_FILES if source is not None else ():
                if source is not None and (source / name).is_file():
                    shutil.copyfile(source / name, unfinished / name)
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(f"save_pretrained {directory.name}")
    return directory


def _check_replaceable(directory: pathlib.Path) -> None:
    """What the directory replaces is nothing, empty, or a model directory."""
    empty = not directory.exists() or (directory.is_dir() and not any(directory.iterdir()))
    if not empty and not (directory / CONFIG).is_file():
        raise ValueError(f"{directory} is there and holds no {CONFIG}: it is no model directory, and is not replaced")


def _check_params(config: TransformerConfig, leaves: Mapping[str, Any]) -> None:
    """The parameters are exactly those of the config."""
    wanted = {path: leaf.shape for path, leaf in apply.by_path(apply.abstract_params(config)).items()}
    for path in leaves:
        if path not in wanted:
            raise ValueError(f"parameters of another config: {unknown_name(path, wanted, 'parameter')}")
    for path, shape in wanted.items():
        if path not in leaves:
            raise ValueError(f"parameter {path!r} is missing; the config wants it with shape {list(shape)}")
        if np.shape(leaves[path]) != shape:
            raise ValueError(
                f"parameter {path!r} has shape {list(np.shape(leaves[path]))}; the config wants {list(shape)}"
            )


def _plan(
    names: Mapping[str, list[str]], leaves: Mapping[str, Any], dtype: DTypeLike | None, max_shard_bytes: int
) -> list[tuple[str, dict[str, int]]]:
    """The files to write, in order: (file name, bytes of each of its tensors, in the order of export)."""
    shards: list[dict[str, int]] = [{}]
    for path, of_layers in names.items():
        leaf = leaves[path]
        size = leaf.size // len(of_layers) * jnp.dtype(leaf.dtype if dtype is None else dtype).itemsize
        for name in of_layers:
            if shards[-1] and sum(shards[-1].values()) + size > max_shard_bytes:
                shards.append({})
            shards[-1][name] = size
    if len(shards) == 1:
        return [(SAFETENSORS, shards[0])]
    stem, suffix = os.path.splitext(SAFETENSORS)
    return [(f"{stem}-{i:05d}-of-{len(shards):05d}{suffix}", shard) for i, shard in enumerate(shards, 1)]


def _write_weights(
    directory: pathlib.Path, tensors: Iterator[tuple[str, np.ndarray]], files: list[tuple[str, dict[str, int]]]
) -> None:
    """Fills one file at a time, then writes the index if there are several."""
    for file, sizes in files:
        save_file(dict(next(tensors) for _ in sizes), directory / file, metadata={"format": "pt"})
    if len(files) > 1:
        total = sum(sum(sizes.values()) for _, sizes in files)
        weight_map = {name: file for file, sizes in files for name in sizes}
        write_json(directory / (SAFETENSORS + INDEX), {"metadata": {"total_size": total}, "weight_map": weight_map})
