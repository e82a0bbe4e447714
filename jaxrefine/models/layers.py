"""The parts of a decoder layer: linear maps in Hugging Face's orientation, the feed-forward block."""

from __future__ import annotations

import functools
import math
from collections.abc import Callable

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.lora import ADAPTERS
from jaxrefine.models.norms import RMSNorm
from jaxrefine.models.quantized import QUANTIZED, quantized_product
from jaxrefine.models.stored import as_stored
from jaxrefine.sharding import constrain
from jaxrefine.typing import Array, Float

__all__ = ["ACTIVATION_FUNCTIONS", "FeedForward", "Initializer", "Linear", "RMSNorm", "kernel_init"]

Initializer = Callable[..., jax.Array]

ACTIVATION_FUNCTIONS: dict[str, Callable[[Array], jax.Array]] = {
    "silu": jax.nn.silu,
    "gelu": functools.partial(jax.nn.gelu, approximate=False),
    "gelu_tanh": functools.partial(jax.nn.gelu, approximate=True),
    "relu": jax.nn.relu,
}


def kernel_init(config: TransformerConfig, *, residual: bool = False) -> Initializer:
    """Normal with deviation sqrt(2 / 5D): 0.056 at width 128, 0.023 at 768, 0.01 at 4096.

    Maps that add to the residual stream are divided by sqrt(2L), so that its variance does not grow with depth.

    Source: Nguyen & Salazar 2019, arXiv:1910.05895, §2.2 (SmallInit); Radford et al. 2019, GPT-2, §2.3 (residuals).
    """
    deviation = math.sqrt(2 / (5 * config.width))
    return nn.initializers.normal(deviation / math.sqrt(2 * config.num_layers) if residual else deviation)


class Linear(nn.Module):
    """y = x Wᵀ + b with W [out, in], as Hugging Face stores it.

    W may lie quantised in the collection ``jaxrefine.models.quantized.QUANTIZED`` instead of ``params``; where the
    collection ``jaxrefine.models.lora.ADAPTERS`` has something for this map, its product is added.
    """

    features: int
    kernel_init: Initializer
    use_bias: bool = False
    dtype: DTypeLike = jnp.bfloat16
    param_dtype: DTypeLike = jnp.float32

    @nn.compact
    def __call__(self, x: Float[Array, "... inputs"]) -> Float[Array, "... outputs"]:
        """Applies the map in the compute dtype."""
        x = jnp.asarray(x, self.dtype)
        if self.has_variable(QUANTIZED, "values"):
            y = quantized_product(x, *(self.get_variable(QUANTIZED, name) for name in ("values", "scales")))
        else:
            kernel = self.param("kernel", self.kernel_init, (self.features, x.shape[-1]), self.param_dtype)
            kernel = as_stored(kernel, self.dtype, "/".join((*self.path, "kernel")))
            y = jnp.einsum("...i,oi->...o", x, kernel)
        if self.has_variable(ADAPTERS, "a"):
            y = y + self._adapted(x)
        if self.use_bias:
            bias = self.param("bias", nn.initializers.zeros, (self.features,), self.param_dtype)
            y = y + jnp.expand_dims(bias.astype(self.dtype), tuple(range(y.ndim - 1)))
        return y

    def _adapted(self, x: Array) -> Array:
        """The low-rank product; its input is dropped out where there is a rate, and a key to draw with."""
        if self.has_variable(ADAPTERS, "rate") and self.has_rng("dropout"):
            kept = 1.0 - jnp.asarray(self.get_variable(ADAPTERS, "rate"))
            mask = jax.random.bernoulli(self.make_rng("dropout"), kept, x.shape)
            x = jnp.where(mask, x / kept.astype(x.dtype), jnp.zeros((), x.dtype))
        a, b = (jnp.asarray(self.get_variable(ADAPTERS, name), self.dtype) for name in ("a", "b"))
        return jnp.einsum("...r,or->...o", jnp.einsum("...i,ri->...r", x, a), b)


class FeedForward(nn.Module):
    """down(act(gate x) * up x), or down(act(up x)) without a gate.

    Source: Shazeer 2020, arXiv:2002.05202, Eq. 6.
    """

    config: TransformerConfig
    dtype: DTypeLike = jnp.bfloat16
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Two or three linear maps."""
        config = self.config
        linear = functools.partial(Linear, use_bias=config.mlp_bias, dtype=self.dtype, param_dtype=self.param_dtype)
        if config.gated:
            self.gate = linear(config.hidden_width, kernel_init(config))
        self.up = linear(config.hidden_width, kernel_init(config))
        self.down = linear(config.width, kernel_init(config, residual=True))

    def __call__(self, x: Float[Array, "B S D"]) -> Float[Array, "B S D"]:
        """Applies the block to each token."""
        activate = ACTIVATION_FUNCTIONS[self.config.activation]
        hidden = activate(self.gate(x)) * self.up(x) if self.config.gated else activate(self.up(x))
        return self.down(constrain(hidden, "feed_forward"))
