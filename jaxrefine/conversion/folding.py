"""Scales moved from the config into the weights, so that a family without them can hold the model."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxrefine.models.config import TransformerConfig
from jaxrefine.typing import Params


def has_scales(config: TransformerConfig) -> bool:
    """Whether ``fold_scales`` has anything to fold."""
    scales = (config.embed_scale, config.position_scale, config.logit_scale)
    return config.attention_scale is not None or any(scale != 1 for scale in scales)


def fold_scales(
    config: TransformerConfig, params: Params, *, dtype: DTypeLike | None = None
) -> tuple[TransformerConfig, Params]:
    """The same logits from a model without scales on embeddings, scores and logits.

    The keys take what the scores' scale is beyond 1/sqrt(H), both embeddings take theirs; a tied head, which must not,
    becomes a head of its own and takes the logits'. What a maximal-update Cerebras-GPT needs to become a GPT-2.

    Args:
      config: any whose norms let scales through.
      params: the tree of ``Decoder(config)``.
      dtype: of the parameters that are scaled; None keeps each one's own, in which a scale that is no power of two
        is rounded.

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
    times = functools.partial(_times, dtype=dtype)
    folded = dict(params)
    apart = config.embed_scale != 1 or config.logit_scale != 1
    if apart:
        table = params["embed"]["embedding"]
        head = table if config.tie_embeddings else params["head"]["kernel"]
        folded["head"] = {**params.get("head", {}), "kernel": times(head, config.logit_scale)}
        folded["embed"] = {"embedding": times(table, config.embed_scale)}
    if config.position_scale != 1:
        folded["positions"] = {"embedding": times(params["positions"]["embedding"], config.position_scale)}
    if config.attention_scale is not None:
        attention = params["layers"]["attention"]
        scale = config.attention_scale * math.sqrt(config.head_width)
        key = jax.tree.map(functools.partial(times, scale=scale), attention["key"])
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


def _times(leaf: Any, scale: float, dtype: DTypeLike | None) -> jax.Array:
    """An array, or what gives one, scaled in fp32, then in that dtype or in its own."""
    return (jnp.asarray(leaf).astype(jnp.float32) * scale).astype(leaf.dtype if dtype is None else dtype)
