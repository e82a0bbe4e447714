"""Encoders in Hugging Face's layout: loaded with or without their classification head, which a scorer may become.

``jaxrefine.conversion.pretrained.save_pretrained`` writes them.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxrefine.conversion.apply import abstract_params
from jaxrefine.conversion.pretrained import read_config, read_parameters
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.encoder_layers import encoder_init
from jaxrefine.typing import Array, Float, Key, Params


def load_encoder(
    directory: str | os.PathLike[str],
    *,
    head: bool = True,
    mesh: jax.sharding.Mesh | None = None,
    param_dtype: DTypeLike | None = jnp.float32,
) -> tuple[EncoderConfig, Params]:
    """The config and parameters of an encoder's directory, one stacked parameter at a time straight onto a mesh.

    Args:
      directory: config.json with ``model.safetensors`` or ``pytorch_model.bin``, single or sharded.
      head: with the pooler and classifier that ``architectures`` speaks of; False leaves both in the file.
      mesh: see ``load_pretrained``.
      param_dtype: of the parameters; None keeps the file's.

    Returns:
      (config, params): ``params`` is the tree of ``Encoder(config)``.

    Raises:
      FileNotFoundError: no directory, config or weights, or a shard that the index names is missing.
      ValueError: a decoder's directory, or what ``load_pretrained`` refuses.
    """
    directory = pathlib.Path(directory)
    family, attributes, where = read_config(directory)
    config = family.from_hf(attributes, where=where)
    if not isinstance(config, EncoderConfig):
        raise ValueError(f"{where}: a {family.model_type} is a decoder: load_pretrained loads it")
    if not head:
        config = dataclasses.replace(config, pooler=None, num_labels=None)
    return config, read_parameters(directory, family, config, mesh, param_dtype)


def with_fresh_head(
    config: EncoderConfig, params: Params, key: Key[Array, ""], *, pooler: str = "gelu", num_labels: int | None = None
) -> tuple[EncoderConfig, Params]:
    """An encoder with a new pooler, and a new classifier if ``num_labels`` is given.

    Args:
      config: of the encoder.
      params: its parameters.
      key: of the initial values.
      pooler: the activation of the pooler; DeBERTa's is "gelu", BERT's and RoBERTa's are "tanh".
      num_labels: outputs of the classifier; None where a scorer reads the pooler.

    Returns:
      (config, params) of the encoder with that head; the other parameters are those given.
    """
    config = dataclasses.replace(config, pooler=pooler, num_labels=num_labels)
    shapes = abstract_params(config)
    head = {}
    for name in ("pooler", "classifier"):
        if name in shapes:
            key, own = jax.random.split(key)
            kernel, bias = shapes[name]["kernel"], shapes[name]["bias"]
            head[name] = {"kernel": encoder_init(own, kernel.shape), "bias": jnp.zeros(bias.shape)}
    return config, {**params, **head}


def with_classifier(
    config: EncoderConfig, params: Params, kernel: Float[Array, "labels D"]
) -> tuple[EncoderConfig, Params]:
    """An encoder whose classifier is what a ``RouterHead`` or ``RewardHead`` has learned, without a bias.

    Saved, it is a ``…ForSequenceClassification`` that gives the scorer's logits.

    Args:
      config: of the encoder that the scorer read, with a pooler.
      params: its parameters.
      kernel: of the scorer.

    Raises:
      ValueError: an encoder without a pooler, which no such class of transformers has.
    """
    if config.pooler is None:
        raise ValueError("EncoderConfig.pooler is None: …ForSequenceClassification has one; train with_fresh_head")
    labels = kernel.shape[0]
    head = {"kernel": jnp.asarray(kernel), "bias": jnp.zeros((labels,), kernel.dtype)}
    return dataclasses.replace(config, num_labels=labels), {**params, "classifier": head}
