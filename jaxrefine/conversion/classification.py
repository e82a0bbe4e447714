"""Decoders with a head that classifies or rewards, as Hugging Face's ``…ForSequenceClassification``: in and out.

Such a model scores a sequence at its last token by one bias-free map, which is what ``RewardHead`` (one row) and
``RouterHead`` (a row a model) of ``jaxrefine.scoring.scorers`` are.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxrefine.conversion import apply
from jaxrefine.conversion.pretrained import (
    MAX_SHARD_BYTES,
    assigned_parameters,
    check_params,
    copy_tokenizer,
    decoder_config,
    read_config,
    stored_dtype,
)
from jaxrefine.conversion.tensors import Tensor, open_checkpoint
from jaxrefine.conversion.writing import CONFIG, write_model
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families import family_of
from jaxrefine.models.weights import Family, Rule
from jaxrefine.typing import Params

SCORE = Rule("score.weight", "scorer/kernel")
CLASSIFIER = "ForSequenceClassification"
_IRREGULAR = {"Gemma3ForCausalLM": f"Gemma3Text{CLASSIFIER}"}
"""The class without "Text" is for the model that sees."""


def is_classifier(attributes: Mapping[str, Any]) -> bool:
    """Whether a config.json speaks of a model with such a head."""
    return any(str(name).endswith(CLASSIFIER) for name in attributes.get("architectures") or ())


def with_scorer(family: Family) -> Family:
    """The family with a rule for the head."""
    return dataclasses.replace(family, rules=lambda config: (*family.rules(config), SCORE))


def classifier_shapes(config: TransformerConfig, num_labels: int) -> dict[str, Any]:
    """Shapes of the decoder without its output map, and of the head under ``scorer``."""
    body = {name: tree for name, tree in apply.abstract_params(config).items() if name != "head"}
    return {**body, "scorer": {"kernel": jax.ShapeDtypeStruct((num_labels, config.embedding_width), jnp.float32)}}


def num_labels_of(attributes: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str) -> int:
    """Rows of the head, which the config must not deny.

    Raises:
      ValueError: no head, or another number of labels in the config.
    """
    score = tensors.get(SCORE.theirs)
    if score is None or len(score.shape) != 2:
        raise ValueError(
            f"{where}: architectures is {attributes['architectures']}, and no matrix {SCORE.theirs!r} is there"
        )
    labels = attributes.get("id2label")
    given = attributes.get("num_labels", len(labels) if isinstance(labels, dict) else None)
    if given not in (None, score.shape[0]):
        raise ValueError(f"{where}: the config has {given} labels; tensor {score} has {score.shape[0]} rows")
    return score.shape[0]


def load_classifier(
    directory: str | os.PathLike[str],
    *,
    mesh: jax.sharding.Mesh | None = None,
    param_dtype: DTypeLike | None = jnp.float32,
) -> tuple[TransformerConfig, Params, Params]:
    """A decoder with its classification or reward head.

    Args:
      directory: as for ``load_pretrained``; ``architectures`` names a ``…ForSequenceClassification``.
      mesh: see ``load_pretrained``.
      param_dtype: of the parameters; None keeps the file's.

    Returns:
      (config, params, head): ``params`` is the tree of ``Decoder(config)`` without the output map, which such a model
      does not have; ``head`` is ``{"kernel": [labels, D]}``, the parameters of ``RewardHead`` or ``RouterHead``.

    Raises:
      FileNotFoundError: as for ``load_pretrained``.
      ValueError: as for ``load_pretrained``; a model without such a head.
    """
    directory = pathlib.Path(directory)
    family, attributes, where = read_config(directory)
    if not is_classifier(attributes):
        raise ValueError(f"{where}: architectures is {attributes.get('architectures')}; load_pretrained loads it")
    config = decoder_config(family, attributes, where)
    with open_checkpoint(directory) as tensors:
        shapes = classifier_shapes(config, num_labels_of(attributes, tensors, where))
        params = assigned_parameters(tensors, with_scorer(family), config, shapes, mesh, param_dtype, str(directory))
    return config, {name: tree for name, tree in params.items() if name != "scorer"}, params["scorer"]


def save_classifier(
    directory: str | os.PathLike[str],
    config: TransformerConfig,
    params: Params,
    head: Params,
    *,
    family: str,
    labels: Sequence[str] | None = None,
    tokenizer_dir: str | os.PathLike[str] | None = None,
    dtype: DTypeLike | None = None,
    max_shard_bytes: int = MAX_SHARD_BYTES,
    extra: Mapping[str, Any] | None = None,
) -> pathlib.Path:
    """Writes a model directory that ``AutoModelForSequenceClassification`` loads; it appears whole or not at all.

    Args:
      directory: as for ``save_pretrained``.
      config: of the decoder.
      params: the tree of ``Decoder(config)``; its output map is left out if it is there.
      head: ``{"kernel": [labels, D]}``, as ``RewardHead`` and ``RouterHead`` have it.
      family: whose layout.
      labels: a name a row of the kernel; None keeps those of ``extra`` or numbers them.
      tokenizer_dir: as for ``save_pretrained``.
      dtype: of the stored weights; None keeps that of the parameters.
      max_shard_bytes: larger models become several files with an index.
      extra: further attributes of config.json; a ``pad_token_id`` lets transformers score rows of several lengths.

    Returns:
      The directory.

    Raises:
      ValueError: as for ``save_pretrained``; a head of another width, or not as many labels as rows.
    """
    directory = pathlib.Path(directory)
    described = family_of(family, "save_classifier")
    kernel = head["kernel"]
    shape = np.shape(kernel)
    if len(shape) != 2 or shape[1] != config.embedding_width or (labels is not None and len(labels) != shape[0]):
        raise ValueError(
            f"the head has shape {list(shape)}; the config wants [labels, {config.embedding_width}]"
            + ("" if labels is None else f", and {len(labels)} labels have names")
        )
    leaves = {path: leaf for path, leaf in apply.by_path(params).items() if not path.startswith("head/")}
    leaves[SCORE.ours] = kernel
    check_params(apply.by_path(classifier_shapes(config, shape[0])), leaves)
    source = None if tokenizer_dir is None else pathlib.Path(tokenizer_dir)
    if extra is None and source is not None and (source / CONFIG).is_file():
        found, attributes, _ = read_config(source)
        extra = found.extra(attributes)
    attributes = described.to_hf(config, dtype=stored_dtype(leaves, dtype), extra=extra)
    attributes |= {"architectures": [architecture(attributes, family)], **_labels(labels, attributes, shape[0])}
    attributes.pop("num_labels", None)
    write_model(
        directory,
        attributes,
        with_scorer(described).rules(config),
        leaves,
        model_type=described.model_type,
        dtype=dtype,
        max_shard_bytes=max_shard_bytes,
        finish=lambda unfinished: None if source is None else copy_tokenizer(source, unfinished),
    )
    return directory


def architecture(attributes: Mapping[str, Any], family: str) -> str:
    """The class of transformers that has the head, from the one that has logits.

    >>> architecture({"architectures": ["GPT2LMHeadModel"]}, "gpt2")
    'GPT2ForSequenceClassification'
    """
    (name,) = attributes["architectures"]
    if name in _IRREGULAR:
        return _IRREGULAR[name]
    for suffix in ("ForCausalLM", "LMHeadModel"):
        if name.endswith(suffix):
            return name.removesuffix(suffix) + CLASSIFIER
    raise ValueError(f"transformers has no sequence classification for {family!r}")


def _labels(labels: Sequence[str] | None, attributes: Mapping[str, Any], count: int) -> dict[str, Any]:
    kept = attributes.get("id2label")
    if labels is None and isinstance(kept, dict) and len(kept) == count:
        return {}
    names = [f"LABEL_{i}" for i in range(count)] if labels is None else list(labels)
    return {"id2label": {str(i): name for i, name in enumerate(names)}, "label2id": {n: i for i, n in enumerate(names)}}
