"""The parts of an encoder: tables, attention that may read distances, feed-forward block, the convolution beside it."""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from jaxrefine.models.encoder_config import Convolution, EncoderConfig
from jaxrefine.models.layers import ACTIVATION_FUNCTIONS, Linear
from jaxrefine.models.norms import LayerNorm
from jaxrefine.models.relative import disentangled_attend
from jaxrefine.sharding import constrain
from jaxrefine.typing import Array, Bool, Float, Int

ENCODER_FUNCTIONS: dict[str, Callable[[Array], jax.Array]] = {**ACTIVATION_FUNCTIONS, "tanh": jnp.tanh}
"""Name -> activation, of ``ENCODER_ACTIVATIONS``."""

encoder_init = nn.initializers.normal(0.02)
"""Source: Devlin et al. 2019, https://github.com/google-research/bert (initializer_range)."""


class Convolved(NamedTuple):
    """What is added to the first layer's output, and the norm of the sum."""

    added: Float[Array, "B S D"]
    scale: Float[Array, " D"]
    bias: Float[Array, " D"]


class Shared(NamedTuple):
    """What every layer reads besides the hidden states."""

    visible: Bool[Array, "B S S"]
    """Which key each query sees."""
    rows: Int[Array, "B S S"] | None = None
    """The row of ``distances`` for each pair of slots."""
    distances: Float[Array, "R D"] | None = None
    """The table of distances."""
    convolved: Convolved | None = None
    """What is added to the first layer's output."""


class Table(nn.Module):
    """A table [rows, width]."""

    rows: int
    width: int
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The table."""
        self.embedding = self.param("embedding", encoder_init, (self.rows, self.width), self.param_dtype)


class Scale(nn.Module):
    """A norm's scale and bias, for a norm that is computed elsewhere."""

    width: int
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Both."""
        self.scale = self.param("scale", nn.initializers.ones, (self.width,), self.param_dtype)
        self.bias = self.param("bias", nn.initializers.zeros, (self.width,), self.param_dtype)


class SelfAttention(nn.Module):
    """Every token attends to its whole sequence."""

    config: EncoderConfig
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Four linear maps, and up to two of distances."""
        config, relative = self.config, self.config.relative
        linear = functools.partial(
            Linear, kernel_init=encoder_init, use_bias=True, dtype=self.dtype, param_dtype=self.param_dtype
        )
        inner = config.num_heads * config.head_width
        self.query, self.key, self.value = linear(inner), linear(inner), linear(inner)
        self.out = linear(config.width)
        if relative is not None and not relative.shared_projections:
            if "content_to_position" in relative.terms:
                self.position_key = linear(inner)
            if "position_to_content" in relative.terms:
                self.position_query = linear(inner)

    def __call__(self, x: Float[Array, "B S D"], shared: Shared) -> Float[Array, "B S D"]:
        """Applies attention to each row."""
        config, relative = self.config, self.config.relative

        def heads(y: Array) -> Array:
            return y.reshape(*y.shape[:-1], config.num_heads, config.head_width)

        named = zip((self.query, self.key, self.value), ("query", "key", "value"), strict=True)
        q, k, v = (checkpoint_name(constrain(heads(of(x)), "heads"), name) for of, name in named)
        position_keys = position_queries = None
        if relative is not None:
            distances = shared.distances
            assert distances is not None
            own = not relative.shared_projections
            if "content_to_position" in relative.terms:
                position_keys = heads((self.position_key if own else self.key)(distances))
            if "position_to_content" in relative.terms:
                position_queries = heads((self.position_query if own else self.query)(distances))
        mixed = disentangled_attend(
            q,
            k,
            v,
            shared.visible,
            rows=shared.rows,
            position_keys=position_keys,
            position_queries=position_queries,
        )
        mixed = checkpoint_name(mixed.reshape(*x.shape[:-1], -1), "attention")
        return checkpoint_name(self.out(mixed), "attention_out")


class PlainFeedForward(nn.Module):
    """down(act(up x)), both with biases."""

    config: EncoderConfig
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Two linear maps."""
        linear = functools.partial(
            Linear, kernel_init=encoder_init, use_bias=True, dtype=self.dtype, param_dtype=self.param_dtype
        )
        self.up, self.down = linear(self.config.hidden_width), linear(self.config.width)

    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Applies the block to each token."""
        return self.down(constrain(ENCODER_FUNCTIONS[self.config.activation](self.up(x)), "feed_forward"))


class EncoderLayer(nn.Module):
    """x = norm(x + attention(x)), then x = norm(x + feed_forward(x))."""

    config: EncoderConfig
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Two blocks, each with a norm behind it."""
        kinds: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.attention = SelfAttention(self.config, **kinds)
        self.attention_norm = LayerNorm(self.config.norm_eps, use_bias=True, **kinds)
        self.feed_forward = PlainFeedForward(self.config, **kinds)
        self.feed_forward_norm = LayerNorm(self.config.norm_eps, use_bias=True, **kinds)

    def __call__(
        self, x: Float[Array, "B S D"], number: Int[Array, ""], shared: Shared
    ) -> tuple[Float[Array, "B S D"], None]:
        """Layer ``number``, counted from 0."""
        x = checkpoint_name(x, "layer_input")
        x = constrain(self.attention_norm(x + self.attention(x, shared)), "hidden")
        x = constrain(self.feed_forward_norm(x + self.feed_forward(x)), "hidden")
        if shared.convolved is not None:
            x = jax.lax.cond(number == 0, self._with_convolution, lambda x, _: x, x, shared.convolved)
        return x, None

    def _with_convolution(self, x: Array, convolved: Convolved) -> Array:
        norm = LayerNorm(self.config.norm_eps, self.dtype, use_bias=True, parent=None)
        params = {"scale": convolved.scale, "bias": convolved.bias}
        return jnp.asarray(norm.apply({"params": params}, x + convolved.added))


class Convolve(nn.Module):
    """A convolution over the tokens of a sequence, zero beyond its ends; the kernel is [D, D / groups, width]."""

    config: Convolution
    dtype: DTypeLike = jnp.float32
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "B S D"], ends: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """Convolves each sequence, and applies the activation."""
        B, S, D = x.shape
        groups, width = self.config.groups, self.config.width
        reach, part = width // 2, D // groups
        kernel = self.param("kernel", encoder_init, (D, part, width), self.param_dtype)
        bias = self.param("bias", nn.initializers.zeros, (D,), self.param_dtype)
        taps = kernel.astype(self.dtype).reshape(groups, part, part, width)
        wide = jnp.pad(x.astype(self.dtype), ((0, 0), (reach, reach), (0, 0)))
        beside = jnp.pad(ends, ((0, 0), (reach, reach)), constant_values=-1)
        y = jnp.broadcast_to(bias.astype(self.dtype)[None, None], x.shape)
        for tap in range(width):
            same = beside[:, tap : tap + S] == ends
            seen = jnp.where(same[..., None], wide[:, tap : tap + S], jnp.zeros((), self.dtype))
            y = y + jnp.einsum("bsgi,goi->bsgo", seen.reshape(B, S, groups, part), taps[..., tap]).reshape(B, S, D)
        return ENCODER_FUNCTIONS[self.config.activation](jnp.asarray(y))
