"""Rotary positions, half-split (Hugging Face's convention), always in fp32."""

from __future__ import annotations

import math

import jax.numpy as jnp
import numpy as np

from jaxrefine.models.config import RopeScaling, TransformerConfig
from jaxrefine.typing import Array, Float, Int


def rope_frequencies(config: TransformerConfig) -> Float[np.ndarray, " half"]:
    """Radians a position for each pair of features: theta ** (-2 i / H), then scaled.

    Args:
      config: ``head_width``, ``rope_theta`` and ``rope_scaling`` are read.

    Returns:
      [H / 2] fp32.

    >>> config = TransformerConfig(vocab_size=8, width=4, num_layers=1, num_heads=1, num_kv_heads=1, head_width=4,
    ...                            hidden_width=4)
    >>> [round(float(frequency), 6) for frequency in rope_frequencies(config)]
    [1.0, 0.01]

    Source: Su et al. 2021, arXiv:2104.09864, §3.4.2.
    """
    exponents = np.arange(0, config.head_width, 2, dtype=np.float64) / config.head_width
    frequencies = config.rope_theta**-exponents
    return _scaled(frequencies, config.rope_scaling).astype(np.float32)


def _scaled(frequencies: np.ndarray, scaling: RopeScaling | None) -> np.ndarray:
    if scaling is None:
        return frequencies
    if scaling.kind == "linear":
        return frequencies / scaling.factor
    wave_counts = scaling.original_max_positions * frequencies / (2 * math.pi)  # waves in the original context
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = np.clip((wave_counts - low) / (high - low), 0.0, 1.0)  # 0: divided whole, 1: kept as it is
    return (1 - kept) * frequencies / scaling.factor + kept * frequencies


def rope_tables(
    positions: Int[Array, "*batch S"], config: TransformerConfig
) -> tuple[Float[Array, "*batch S half"], Float[Array, "*batch S half"]]:
    """Cosines and sines of position × frequency, fp32."""
    frequencies = jnp.asarray(rope_frequencies(config))
    angles = jnp.asarray(positions)[..., None].astype(jnp.float32) * jnp.expand_dims(
        frequencies, tuple(range(positions.ndim))
    )
    return jnp.cos(angles), jnp.sin(angles)


def rotate(
    x: Float[Array, "*batch S heads H"],
    tables: tuple[Float[Array, "*batch S half"], Float[Array, "*batch S half"]],
) -> Float[Array, "*batch S heads H"]:
    """(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), where x1 and x2 are the halves of a head.

    Args:
      x: queries or keys, any float dtype; the rotation itself is fp32.
      tables: of ``rope_tables`` for the same tokens.

    Returns:
      Like ``x``, in its dtype.
    """
    cos, sin = (table[..., None, :] for table in tables)
    first, second = jnp.split(x.astype(jnp.float32), 2, axis=-1)
    return jnp.concatenate([first * cos - second * sin, second * cos + first * sin], axis=-1).astype(x.dtype)
