"""From the product of a query and a key to their score, and which keys are near: by positions, never by slots."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np

from jaxrefine.models.choices import Choices
from jaxrefine.models.config import TransformerConfig
from jaxrefine.typing import Array, Bool, Float, Int

Attend = Callable[..., tuple[jax.Array, Any]]
"""(q [B S Q H], k [B S K H], v [B S K H], the layer's state, its ScoreRule) -> (output [B S Q H], the state)."""


@dataclasses.dataclass(frozen=True)
class ScoreRule:
    """How one layer scores: cap(q · k / divisor) + bias(positions), and which keys are too far away.

    Args:
      config: ``attention_softcap``, ``positions``, ``alibi_prescaled`` and ``window`` are read.
      divisor: of the products.
      windowed: None where the layer has no window; otherwise whether it has, as Python's or as a traced value.
    """

    config: TransformerConfig
    divisor: float | jax.Array
    windowed: bool | jax.Array | None = None

    @property
    def by_position(self) -> bool:
        """Whether a score depends on where query and key stand, beyond what is in them."""
        return needs_positions(self.config)

    def capped(self, scores: Float[Array, "*shape"]) -> Float[Array, "*shape"]:
        """Bounded scores c · tanh(score / c), if there is a cap c.

        Source: Gemma 2, arXiv:2408.00118, §2 (logit soft-capping).
        """
        cap = self.config.attention_softcap
        return scores if cap is None else cap * jnp.tanh(scores / cap)

    def bias(self, queries: Int[Array, "*#shape"], keys: Int[Array, "*#shape"]) -> jax.Array | None:
        """What a head adds to a score: [Q, *shape] fp32, or None without a bias.

        slope · (key - query). Beside slope · key, which some write, this is the same for every key of a query, so the
        softmax is the same; what is near stays exact.

        Args:
          queries: positions.
          keys: positions, of a shape that broadcasts with the queries'.

        Source: Press et al. 2021, arXiv:2108.12409, §3.
        """
        if self.config.positions != "alibi":
            return None
        slopes = alibi_slopes(self.config.num_heads)
        ndim = queries.ndim
        if not self.config.alibi_prescaled:
            return _spread(slopes, ndim) * jnp.expand_dims((keys - queries).astype(jnp.float32), 0)

        def rounded(positions: Array) -> jax.Array:  # as those who trained with it computed it: product in bf16
            wide = _spread(slopes.astype(ml_dtypes.bfloat16).astype(np.float32), ndim)
            product = wide * jnp.expand_dims(positions.astype(jnp.float32), 0)
            return jax.lax.reduce_precision(product, exponent_bits=8, mantissa_bits=7)

        return (rounded(keys) - rounded(queries)) / self.divisor

    def near(self, queries: Int[Array, "*#shape"], keys: Int[Array, "*#shape"]) -> Bool[Array, "*shape"] | None:
        """Whether a key is one of the last ``window`` positions of a query, itself included; None without a window.

        Source: Beltagy et al. 2020, arXiv:2004.05150, §3.1.
        """
        if self.windowed is None or self.config.window is None:
            return None
        within = queries - keys < self.config.window
        if isinstance(self.windowed, bool):
            return within
        return within | ~jnp.expand_dims(self.windowed, tuple(range(within.ndim)))


def needs_positions(config: TransformerConfig) -> bool:
    """Whether attention must know the positions of queries and keys."""
    return config.positions == "alibi" or any(config.windowed_layers)


def _spread(slopes: np.ndarray, ndim: int) -> jax.Array:
    """[Q] as [Q, 1, …] beside positions of ``ndim`` axes."""
    return jnp.expand_dims(jnp.asarray(slopes), tuple(range(1, ndim + 1)))


def score_rule(config: TransformerConfig, choices: Choices) -> ScoreRule:
    """The rule of one layer.

    Args:
      config: the decoder's.
      choices: of that layer.
    """
    divisor: float | jax.Array = (
        math.sqrt(config.head_width) if config.attention_scale is None else 1.0 / config.attention_scale
    )
    if choices.number is not None:
        divisor = divisor * jnp.asarray(choices.number)
    windowed: bool | jax.Array | None = True if any(config.windowed_layers) else None
    if choices.windowed is not None:
        windowed = jnp.asarray(choices.windowed)
    return ScoreRule(config, divisor, windowed)


def alibi_slopes(heads: int) -> Float[np.ndarray, " heads"]:
    """One slope a head, fp32: 2 ** (-8 n / k) for n = 1 … k, with k the largest power of two up to ``heads``.

    Further heads take every other slope of 2 k heads.

    >>> alibi_slopes(2).tolist(), alibi_slopes(3).tolist()
    ([0.0625, 0.00390625], [0.0625, 0.00390625, 0.25])

    Source: Press et al. 2021, arXiv:2108.12409, §3, and their code for heads that are no power of two.
    """
    power = 1 << (heads.bit_length() - 1)
    exponents = [8 * n / power for n in range(1, power + 1)]
    exponents += [8 * n / (2 * power) for n in range(1, 2 * (heads - power) + 1, 2)]
    return np.exp2(-np.array(exponents)).astype(np.float32)
