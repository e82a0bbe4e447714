"""Logits of our decoder on plain rows, padded on either side."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.typing import Params


def decoder_logits(
    config: TransformerConfig, params: Params, tokens: np.ndarray, real: np.ndarray | None = None
) -> np.ndarray:
    """[B S V] in fp32; ``real`` marks the tokens that are no padding (one run a row). Padding holds nonsense."""
    B, S = tokens.shape
    real = np.ones((B, S), bool) if real is None else real
    slots = np.arange(S)[None]
    stop = (S - real[:, ::-1].argmax(1))[:, None]
    ends = np.where(real, stop, slots + 1)
    positions = np.maximum(real.cumsum(1) - 1, 0)
    decoder = Decoder(config, dtype=jnp.float32, attention="dense")
    arrays = (jnp.asarray(array, jnp.int32) for array in (tokens, positions, ends))

    @jax.jit
    def logits(params: Params, *arrays: jax.Array) -> jax.Array:
        hidden = decoder.apply({"params": params}, *arrays, method="trunk")
        return decoder.apply({"params": params}, method="logit_form").logits(hidden)

    return np.asarray(logits(params, *arrays))


def relative_error(ours: np.ndarray, theirs: np.ndarray, where: np.ndarray | None = None) -> float:
    """The largest difference over the largest logit of theirs."""
    where = np.ones(ours.shape[:-1], bool) if where is None else where
    return float(np.abs(ours - theirs)[where].max() / np.abs(theirs[where]).max())
