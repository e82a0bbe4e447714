"""Scales moved from the config into the weights, so that a family without them can hold the model."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxrefine.models.config import TransformerConfig
from jaxrefine.typing import Params


def fold_scales(config: TransformerConfig, params: Params) -> tuple[TransformerConfig, Params]:
    """The same logits from a model without scales on embeddings, scores and logits.

    The keys take what the scores' scale is beyond 1/sqrt(H), both embeddings take theirs; a tied head, which must not,
    becomes a head of its own and takes the logits'. What a maximal-update Cerebras-GPT needs to become a GPT-2.

    Args:
      config: any whose norms let scales through.
      params: the tree of ``Decoder(config)``.

    Returns:
      (config, params), with ``embed_scale``, ``position_scale`` and ``logit_scale`` 1 and ``attention_scale`` None.

    Raises:
      ValueError: norms between keys and scores, or between the embedding and its scale, which would undo the folding.

    Source: Dey et al. 2023, arXiv:2304.03208, §2.2 (the scales); Yang et al. 2022, arXiv:2203.03466.
    """
    if config.qk_norm is not None and config.attention_scale is not None:
        raise ValueError(f"TransformerConfig.qk_norm is {config.qk_norm!r}: keys are normed after the folding")
    if config.alibi_prescaled and config.attention_scale is not None:
        raise ValueError("TransformerConfig.alibi_prescaled is True: the scores' scale is not the keys' alone")
    if config.embed_norm and (config.embed_scale != 1 or config.position_scale != 1):
        raise ValueError("TransformerConfig.embed_norm is True: embeddings are normed after the folding")
    folded = dict(params)
    apart = config.embed_scale != 1 or config.logit_scale != 1
    if apart:
        table = params["embed"]["embedding"]
        head = table if config.tie_embeddings else params["head"]["kernel"]
        folded["head"] = {**params.get("head", {}), "kernel": _times(head, config.logit_scale)}
        folded["embed"] = {"embedding": _times(table, config.embed_scale)}
    if config.position_scale != 1:
        folded["positions"] = {"embedding": _times(params["positions"]["embedding"], config.position_scale)}
    if config.attention_scale is not None:
        attention = params["layers"]["attention"]
        scale = config.attention_scale * math.sqrt(config.head_width)
        key = jax.tree.map(lambda leaf: _times(leaf, scale), attention["key"])
        folded["layers"] = {**params["layers"], "attention": {**attention, "key": key}}
    plain = dataclasses.replace(
        config,
        embed_scale=1.0,
        position_scale=1.0,
        logit_scale=1.0,
        attention_scale=None,
        tie_embeddings=config.tie_embeddings and not apart,
    )
    return plain, folded


def _times(leaf: jax.Array, scale: float) -> jax.Array:
    """In fp32, then in the leaf's own dtype."""
    return (jnp.asarray(leaf).astype(jnp.float32) * scale).astype(leaf.dtype)
