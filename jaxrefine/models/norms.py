"""Norms over the last axis, computed in fp32: RMSNorm, LayerNorm, and those of the queries and keys of each head."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxrefine.models.config import TransformerConfig
from jaxrefine.typing import Array, Float

_TINY = 1e-12
"""Below this length a vector is divided by this instead."""


class RMSNorm(nn.Module):
    """x / sqrt(mean(x²) + eps), cast to the compute dtype, then times the scale (LLaMA's order of the cast).

    With ``unit_offset`` it is times 1 + scale, in fp32 and before the cast (Gemma's order).

    Source: Zhang & Sennrich 2019, arXiv:1910.07467, Eq. 4.
    """

    eps: float
    dtype: DTypeLike = jnp.bfloat16
    param_dtype: DTypeLike = jnp.float32
    unit_offset: bool = False

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalises the last axis in fp32."""
        initial = nn.initializers.zeros if self.unit_offset else nn.initializers.ones
        scale = self.param("scale", initial, (x.shape[-1],), self.param_dtype)
        wide = x.astype(jnp.float32)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        if self.unit_offset:
            return (wide * along(1.0 + scale.astype(jnp.float32), x.ndim)).astype(self.dtype)
        return wide.astype(self.dtype) * along(scale.astype(self.dtype), x.ndim)


class LayerNorm(nn.Module):
    """(x - mean) / sqrt(variance + eps) · scale + bias in fp32, then cast to the compute dtype.

    Args:
      eps: added to the variance.
      dtype: of the result.
      param_dtype: of fresh parameters.
      use_bias: adds a bias.
      unit_offset: the scale is 1 + the parameter.
      heads: None; or how many heads the axis before the last has, each with its own scale [heads H].

    Source: Ba et al. 2016, arXiv:1607.06450, Eq. 3.
    """

    eps: float
    dtype: DTypeLike = jnp.bfloat16
    param_dtype: DTypeLike = jnp.float32
    use_bias: bool = False
    unit_offset: bool = False
    heads: int | None = None

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalises the last axis."""
        shape = x.shape[-1:] if self.heads is None else (self.heads, x.shape[-1])
        initial = nn.initializers.zeros if self.unit_offset else nn.initializers.ones
        scale = self.param("scale", initial, shape, self.param_dtype).astype(jnp.float32)
        wide = x.astype(jnp.float32)
        wide = wide - jnp.mean(wide, axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.mean(jnp.square(wide), axis=-1, keepdims=True) + self.eps)
        wide = wide * along(1.0 + scale if self.unit_offset else scale, x.ndim)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, shape, self.param_dtype)
            wide = wide + along(bias.astype(jnp.float32), x.ndim)
        return wide.astype(self.dtype)


class UnitNorm(nn.Module):
    """x / |x| times a scale, in fp32, then cast to the compute dtype.

    Source: Henry et al. 2020, arXiv:2010.04245, §3 (queries and keys of unit length).
    """

    dtype: DTypeLike = jnp.bfloat16
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... D"]) -> Float[Array, "... D"]:
        """Normalises the last axis; the gradient at 0 is finite."""
        scale = self.param("scale", nn.initializers.ones, (x.shape[-1],), self.param_dtype)
        wide = x.astype(jnp.float32)
        squares = jnp.sum(jnp.square(wide), axis=-1, keepdims=True)
        wide = wide * jax.lax.rsqrt(jnp.maximum(squares, _TINY**2))
        return (wide * along(scale.astype(jnp.float32), x.ndim)).astype(self.dtype)


def make_norm(config: TransformerConfig, dtype: DTypeLike, param_dtype: DTypeLike) -> RMSNorm | LayerNorm:
    """The norm of the residual stream that ``config`` describes."""
    offset = config.norm_unit_offset
    if config.norm == "rms":
        return RMSNorm(config.norm_eps, dtype, param_dtype, unit_offset=offset)
    return LayerNorm(config.norm_eps, dtype, param_dtype, use_bias=config.norm_bias, unit_offset=offset)


def make_head_norm(config: TransformerConfig, heads: int, dtype: DTypeLike, param_dtype: DTypeLike) -> nn.Module:
    """The norm of queries or keys [... heads H] that ``config.qk_norm`` names; it must name one."""
    if config.qk_norm == "layer":
        return LayerNorm(config.norm_eps, dtype, param_dtype, heads=heads)
    if config.qk_norm == "l2":
        return UnitNorm(dtype, param_dtype)
    return RMSNorm(config.norm_eps, dtype, param_dtype, unit_offset=config.norm_unit_offset)


def along(parameter: Array, ndim: int) -> jax.Array:
    """A parameter of the last axes with as many axes as what it meets."""
    return jnp.expand_dims(parameter, tuple(range(ndim - parameter.ndim)))
