"""Rotary positions, always in fp32: half-split (Hugging Face's convention) or interleaved, of all or some features."""

from __future__ import annotations

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.models.config import RopeScaling, TransformerConfig
from jaxrefine.typing import Array, Bool, Float, Int


class RopeTables(NamedTuple):
    """What the rotation of each token needs: all [… S half] fp32."""

    cos: jax.Array
    sin: jax.Array
    growth: jax.Array | None = None
    """xPos: queries are multiplied by it, keys divided."""
    local: tuple[jax.Array, jax.Array] | None = None
    """Cosines and sines of windowed layers, where only some layers have the window and they have their own base."""

    def of_layer(self, windowed: Bool[Array, ""] | None) -> RopeTables:
        """The tables of one layer."""
        if self.local is None or windowed is None:
            return self
        cos, sin = (jnp.where(windowed, near, far) for near, far in zip(self.local, (self.cos, self.sin), strict=True))
        return RopeTables(cos, sin, self.growth)


def rope_frequencies(config: TransformerConfig, *, local: bool = False) -> Float[np.ndarray, " half"]:
    """Radians a position for each pair of features: theta ** (-2 i / W), then scaled.

    Args:
      config: ``rotated_width`` W, ``rope_theta`` and ``rope_scaling`` are read.
      local: those of ``rope_local_theta``, never scaled.

    Returns:
      [W / 2] fp32.

    >>> config = TransformerConfig(vocab_size=8, width=4, num_layers=1, num_heads=1, num_kv_heads=1, head_width=4,
    ...                            hidden_width=4)
    >>> [round(float(frequency), 6) for frequency in rope_frequencies(config)]
    [1.0, 0.01]

    Source: Su et al. 2021, arXiv:2104.09864, §3.4.2.
    """
    exponents = np.arange(0, config.rotated_width, 2, dtype=np.float64) / config.rotated_width
    if local and config.rope_local_theta is not None:
        return (config.rope_local_theta**-exponents).astype(np.float32)
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


def rope_tables(positions: Int[Array, "*batch S"], config: TransformerConfig) -> RopeTables | None:
    """Cosines and sines of position × frequency, fp32; None where nothing rotates."""
    if config.positions != "rope":
        return None
    growth = None if config.xpos_base is None else _growth(positions, config, config.xpos_base)
    windows = config.windowed_layers
    if config.rope_local_theta is None or not any(windows):
        return RopeTables(*_tables(positions, rope_frequencies(config)), growth)
    local = _tables(positions, rope_frequencies(config, local=True))
    if all(windows):
        return RopeTables(*local, growth)
    return RopeTables(*_tables(positions, rope_frequencies(config)), growth, local)


def _tables(positions: Array, frequencies: np.ndarray) -> tuple[jax.Array, jax.Array]:
    angles = jnp.asarray(positions)[..., None].astype(jnp.float32) * jnp.expand_dims(
        jnp.asarray(frequencies), tuple(range(positions.ndim))
    )
    return jnp.cos(angles), jnp.sin(angles)


def _growth(positions: Array, config: TransformerConfig, base: float) -> jax.Array:
    """((2 i / W + 0.4) / 1.4) ** (position / base), counted from the middle of all positions to stay in range.

    Source: Sun et al. 2022, arXiv:2212.10554, Eq. 13-14 (γ = 0.4).
    """
    width = config.rotated_width
    decay = np.log((np.arange(0, width, 2) + 0.4 * width) / (1.4 * width)).astype(np.float32)
    powers = (jnp.asarray(positions) - config.max_positions // 2).astype(jnp.float32) / base
    return jnp.exp(powers[..., None] * jnp.expand_dims(jnp.asarray(decay), tuple(range(positions.ndim))))


def rotate(
    x: Float[Array, "*batch S heads H"],
    tables: RopeTables,
    *,
    interleaved: bool = False,
    key: bool = False,
) -> Float[Array, "*batch S heads H"]:
    """(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin), where x1 and x2 are the halves of what rotates.

    Args:
      x: queries or keys, any float dtype; the rotation itself is fp32. Features beyond the tables stay as they are.
      tables: of ``rope_tables`` for the same tokens.
      interleaved: x1 and x2 are the even and the odd features instead.
      key: xPos divides keys by what it multiplies queries with.

    Returns:
      Like ``x``, in its dtype.
    """
    cos, sin = tables.cos[..., None, :], tables.sin[..., None, :]
    width = 2 * tables.cos.shape[-1]
    wide, rest = x[..., :width].astype(jnp.float32), x[..., width:]
    first, second = (wide[..., 0::2], wide[..., 1::2]) if interleaved else jnp.split(wide, 2, axis=-1)
    first, second = first * cos - second * sin, second * cos + first * sin
    if tables.growth is not None:
        growth = tables.growth[..., None, :]
        first, second = (first / growth, second / growth) if key else (first * growth, second * growth)
    if interleaved:
        rotated = jnp.stack([first, second], axis=-1).reshape(wide.shape)
    else:
        rotated = jnp.concatenate([first, second], axis=-1)
    return jnp.concatenate([rotated.astype(x.dtype), rest], axis=-1) if rest.shape[-1] else rotated.astype(x.dtype)
