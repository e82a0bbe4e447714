"""Model directories in Hugging Face's layout: loaded straight onto a mesh, saved as transformers loads them."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxrefine.artefacts.atomic import read_json
from jaxrefine.artefacts.integrity import check_directory
from jaxrefine.config import unknown_name
from jaxrefine.conversion import apply
from jaxrefine.conversion.reading import read_parameter
from jaxrefine.conversion.scorer import save_scorer
from jaxrefine.conversion.tensors import Tensor, open_checkpoint
from jaxrefine.conversion.writing import CONFIG, MAX_SHARD_BYTES, write_model
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.families import family_of
from jaxrefine.models.families.attributes import HARMLESS
from jaxrefine.models.weights import Family
from jaxrefine.sharding import param_shardings
from jaxrefine.typing import Params

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


def load_config(directory: str | os.PathLike[str]) -> tuple[TransformerConfig, dict[str, Any]]:
    """The config of a model directory, and the attributes of its config.json that ours does not hold.

    Raises:
      FileNotFoundError: no config.json.
      ValueError: an attribute that is neither handled nor known to change nothing; names the file and the key.
    """
    family, config, where = read_config(pathlib.Path(directory))
    return decoder_config(family, config, where), family.extra(config)


def decoder_config(family: Family, config: dict[str, Any], where: str) -> TransformerConfig:
    """A decoder's config, or an error that names what loads the model."""
    found = family.from_hf(config, where=where)
    if not isinstance(found, TransformerConfig):
        raise ValueError(f"{where}: a {family.model_type} is an encoder: jaxrefine.conversion.encoders loads it")
    return found


def read_config(directory: pathlib.Path) -> tuple[Family, dict[str, Any], str]:
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
    verify: bool = True,
) -> tuple[TransformerConfig, Params]:
    """The config and parameters of a model directory, one stacked parameter at a time straight onto a mesh.

    Args:
      directory: config.json with ``model.safetensors`` or ``pytorch_model.bin``, single or sharded.
      mesh: places parameters by the table of ``jaxrefine.sharding``; each process reads what its own devices hold.
        None puts them on the default device.
      param_dtype: of the parameters; None keeps the file's.
      verify: compare the files with the manifest that ``save_pretrained`` wrote, where the directory has one: it reads
        them once more, 0.4 s/GB on one core; several processes share the files.

    Returns:
      (config, params): ``params`` is the tree of ``Decoder(config)``.

    Raises:
      DamagedError: a file is not what the manifest says, each named.
      FileNotFoundError: no directory, config or weights, or a shard that the index names is missing.
      ValueError: an unknown attribute; an unknown, missing, left-over or duplicated tensor; a wrong shape or dtype; a
        truncated file; a pickle that names what it must not. Each names the key or tensor and the file.
    """
    directory = pathlib.Path(directory)
    family, attributes, where = read_config(directory)
    config = decoder_config(family, attributes, where)
    if any(str(name).endswith("ForSequenceClassification") for name in attributes.get("architectures") or ()):
        raise ValueError(
            f"{where}: architectures is {attributes['architectures']}: "
            "jaxrefine.conversion.classification.load_classifier loads it with its head"
        )
    return config, read_parameters(directory, family, config, mesh, param_dtype, verify=verify)


def read_parameters(
    directory: pathlib.Path,
    family: Family,
    config: TransformerConfig | EncoderConfig,
    mesh: jax.sharding.Mesh | None,
    param_dtype: DTypeLike | None,
    more: Params | None = None,
    *,
    verify: bool = True,
) -> Params:
    """The parameters that a config makes, from the weights of a directory (see ``load_pretrained``).

    Args:
      directory: of the weights.
      family: its rules.
      config: of the model.
      mesh: of the parameters, or None.
      param_dtype: of the parameters, or None.
      more: shapes of parameters besides those of the config; the family has rules for them.
      verify: see ``load_pretrained``.
    """
    if verify:
        check_directory(directory, share=(jax.process_index(), jax.process_count()))
    abstract = {**apply.abstract_params(config), **(more or {})}
    with open_checkpoint(directory) as tensors:
        return assigned_parameters(tensors, family, config, abstract, mesh, param_dtype, str(directory))


def assigned_parameters(
    tensors: Mapping[str, Tensor],
    family: Family,
    config: TransformerConfig | EncoderConfig,
    abstract: Params,
    mesh: jax.sharding.Mesh | None,
    param_dtype: DTypeLike | None,
    where: str,
) -> Params:
    """Parameters of these shapes, from open tensors; ``where`` is what errors name."""
    shapes = {path: leaf.shape for path, leaf in apply.by_path(abstract).items()}
    shardings = {} if mesh is None else apply.by_path(param_shardings(abstract, mesh))
    assignment = apply.assign(family, family.rules(config), shapes, tensors, where)
    return apply.nested(
        {
            path: read_parameter(of_layers, rule, shapes[path], param_dtype, shardings.get(path))
            for path, (rule, of_layers) in assignment.items()
        }
    )


def save_pretrained(
    directory: str | os.PathLike[str],
    config: TransformerConfig | EncoderConfig,
    params: Params,
    *,
    tokenizer_dir: str | os.PathLike[str] | None = None,
    dtype: DTypeLike | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    extra: Mapping[str, Any] | None = None,
    scorer: Params | None = None,
    scorer_config: Mapping[str, Any] | None = None,
    family: str | None = None,
) -> pathlib.Path:
    """Writes a model directory that transformers (4 and 5) loads; it appears whole or not at all.

    Args:
      directory: its name; a model directory of that name is replaced, any other non-empty directory is refused.
      config: of the decoder or encoder.
      params: the tree of ``Decoder(config)`` or ``Encoder(config)``, on any devices.
      tokenizer_dir: where ``TOKENIZER_FILES`` are copied from; the attributes of its config.json that ours does not
        hold (token ids) are taken over too, unless ``extra`` is given.
      dtype: of the stored weights; None keeps that of the parameters.
      max_shard_bytes: larger models become several files with an index.
      extra: further attributes of config.json, as ``load_config`` returns them.
      scorer: parameters of a scorer, kept in a file of their own for ``load_scorer``.
      scorer_config: what ``load_scorer`` returns with them.
      family: whose layout, a key of ``jaxrefine.models.families.FAMILIES`` or ``ENCODERS``; None is that of
        ``tokenizer_dir``'s config.json, or "llama" where there is none.

    Returns:
      The directory.

    Raises:
      ValueError: parameters that are not those of ``config``, a mechanism that the family lacks, a value that the
        dtype cannot hold, a directory that is no model's.
    """
    directory = pathlib.Path(directory)
    leaves = apply.by_path(params)
    check_params(apply.by_path(apply.abstract_params(config)), leaves)
    stored = stored_dtype(leaves, dtype)
    source = None if tokenizer_dir is None else pathlib.Path(tokenizer_dir)
    found: Family | None = None
    theirs: dict[str, Any] = {}
    if source is not None and (source / CONFIG).is_file():
        found, theirs, _ = read_config(source)
    described = found if family is None and found is not None else family_of(family or "llama", "save_pretrained")
    if extra is None and found is not None:
        extra = found.extra(theirs)
        if found is not described:  # what only the other family says is not for this one
            extra = {name: value for name, value in extra.items() if name in HARMLESS}
    attributes = described.to_hf(config, dtype=stored, extra=extra)

    def finish(unfinished: pathlib.Path) -> None:
        if scorer is not None:
            save_scorer(unfinished, scorer, scorer_config or {})
        if source is not None:
            copy_tokenizer(source, unfinished)

    write_model(
        directory,
        attributes,
        described.rules(config),
        leaves,
        model_type=described.model_type,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
        finish=finish,
    )
    return directory


def stored_dtype(leaves: Mapping[str, Any], dtype: DTypeLike | None) -> str:
    """What config.json says of the weights' dtype."""
    dtypes = sorted({jnp.dtype(leaf.dtype if dtype is None else dtype).name for leaf in leaves.values()})
    return dtypes[0] if len(dtypes) == 1 else "float32"


def copy_tokenizer(source: pathlib.Path, directory: pathlib.Path) -> None:
    """Copies ``TOKENIZER_FILES`` as far as they are there."""
    for name in TOKENIZER_FILES:
        if (source / name).is_file():
            shutil.copyfile(source / name, directory / name)


def check_params(abstract: Mapping[str, Any], leaves: Mapping[str, Any]) -> None:
    """The parameters by path are exactly those of a config.

    Raises:
      ValueError: one that is unknown or missing, or has another shape; names it.
    """
    wanted = {path: leaf.shape for path, leaf in abstract.items()}
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
