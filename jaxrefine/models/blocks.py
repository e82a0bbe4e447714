"""One layer of the decoder: attention and feed-forward, with norms where the config places them."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from jaxrefine.models.attention import Attend
from jaxrefine.models.attention_scores import score_rule
from jaxrefine.models.choices import Choices
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.layers import FeedForward, Linear, kernel_init
from jaxrefine.models.norms import make_head_norm, make_norm
from jaxrefine.models.positions import RopeTables, rotate
from jaxrefine.sharding import constrain
from jaxrefine.typing import Array, Float, Int


class Attention(nn.Module):
    """Queries, keys and values of each token, rotated; whatever attention it is given; the output map."""

    config: TransformerConfig
    dtype: DTypeLike = jnp.bfloat16
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Four linear maps, and the norms of queries and keys."""
        config = self.config
        linear = functools.partial(Linear, dtype=self.dtype, param_dtype=self.param_dtype)
        keys = config.num_kv_heads * config.head_width
        self.query = linear(config.num_heads * config.head_width, kernel_init(config), config.qkv_bias)
        self.key = linear(keys, kernel_init(config), config.qkv_bias)
        self.value = linear(keys, kernel_init(config), config.qkv_bias)
        self.out = linear(config.width, kernel_init(config, residual=True), config.o_bias)
        if config.qk_norm is not None:
            self.query_norm = make_head_norm(config, config.num_heads, self.dtype, self.param_dtype)
            self.key_norm = make_head_norm(config, config.num_kv_heads, self.dtype, self.param_dtype)

    def __call__(
        self, x: Float[Array, "B S D"], tables: RopeTables | None, attend: Attend, state: Any, choices: Choices
    ) -> tuple[Float[Array, "B S D"], Any]:
        """Applies attention to each row."""
        B, S, _ = x.shape
        heads = (B, S, -1, self.config.head_width)
        q, k, v = (mapped(x).reshape(heads) for mapped in (self.query, self.key, self.value))
        if self.config.qk_norm is not None:
            q, k = self.query_norm(q), self.key_norm(k)
        if tables is not None:
            tables = tables.of_layer(choices.windowed)
            turn = functools.partial(rotate, tables=tables, interleaved=self.config.rope_interleaved)
            q, k = turn(q), turn(k, key=True)
        named = zip((q, k, v), ("query", "key", "value"), strict=True)
        q, k, v = (checkpoint_name(constrain(one, "heads"), name) for one, name in named)
        mixed, state = attend(q, k, v, state, score_rule(self.config, choices))
        return checkpoint_name(self.out(mixed.reshape(B, S, -1)), "attention_out"), state


class Layer(nn.Module):
    """Attention f and feed-forward g around the residual stream.

    pre: x + f(n1 x), then x + g(n2 x). post: n1(x + f x), then n2(x + g x). sandwich: x + m1(f(n1 x)), then
    x + m2(g(n2 x)). parallel: x + f(n1 x) + g(n2 x), where n2 may be n1.
    """

    config: TransformerConfig
    dtype: DTypeLike = jnp.bfloat16
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Norms and two blocks."""
        config = self.config
        kinds: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.attention_norm = make_norm(config, **kinds)
        self.attention = Attention(config, **kinds)
        if not config.shared_norm:
            self.feed_forward_norm = make_norm(config, **kinds)
        self.feed_forward = FeedForward(config, **kinds)
        if config.norm_placement == "sandwich":
            self.attention_out_norm = make_norm(config, **kinds)
            self.feed_forward_out_norm = make_norm(config, **kinds)

    def __call__(
        self,
        x: Float[Array, "B S D"],
        state: Any,
        choices: Choices,
        tables: RopeTables | None,
        attend: Attend,
    ) -> tuple[Float[Array, "B S D"], Any]:
        """One layer; ``state`` is what its attention reads and what it hands back (a cache, or None)."""
        placement = self.config.norm_placement
        x = checkpoint_name(x, "layer_input")
        normed = x if placement == "post" else self.attention_norm(x)
        mixed, state = self.attention(normed, tables, attend, state, choices)
        if self.config.parallel:
            normed = normed if self.config.shared_norm else self.feed_forward_norm(x)
            return constrain(x + mixed + self.feed_forward(normed), "hidden"), state
        if placement == "sandwich":
            mixed = self.attention_out_norm(mixed)
        x = x + mixed
        x = constrain(self.attention_norm(x) if placement == "post" else x, "hidden")
        changed = self.feed_forward(x if placement == "post" else self.feed_forward_norm(x))
        if placement == "sandwich":
            changed = self.feed_forward_out_norm(changed)
        x = x + changed
        return constrain(self.feed_forward_norm(x) if placement == "post" else x, "hidden"), state


class Embedding(nn.Module):
    """A table [rows columns]."""

    config: TransformerConfig
    rows: int
    columns: int
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The table."""
        shape = (self.rows, self.columns)
        self.embedding = self.param("embedding", kernel_init(self.config), shape, self.param_dtype)

    def __call__(self, indices: Int[Array, "*batch"], dtype: DTypeLike) -> Float[Array, "*batch D"]:
        """Rows of the table; an index beyond it means the last."""
        if indices.ndim != 2:
            return jnp.take(self.embedding, indices, axis=0, mode="clip").astype(dtype)
        indices = constrain(indices, "looking_up")
        rows = jnp.take(self.embedding, indices, axis=0, mode="clip").astype(dtype)
        return constrain(constrain(rows, "looked_up"), "hidden")


class Head(nn.Module):
    """The output map [V, D] of a decoder whose embedding is not tied to it, and the bias of the logits."""

    config: TransformerConfig
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Kernel and bias, as far as the config has them."""
        config = self.config
        if not config.tie_embeddings:
            shape = (config.vocab_size, config.embedding_width)
            self.kernel = self.param("kernel", kernel_init(config), shape, self.param_dtype)
        if config.head_bias:
            self.bias = self.param("bias", nn.initializers.zeros, (config.vocab_size,), self.param_dtype)
