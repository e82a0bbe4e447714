"""The decoder: one Linen module, its layers scanned, used as a pure function of a plain nested dict."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.typing import DTypeLike

from jaxrefine.data.batch import PackedBatch
from jaxrefine.models.attention import Attend, make_attend
from jaxrefine.models.cache import KeyValues, decode_attend, prefill_attend, written
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.layers import FeedForward, Linear, RMSNorm, kernel_init
from jaxrefine.models.positions import rope_tables, rotate
from jaxrefine.models.remat import rematerialized
from jaxrefine.sharding import constrain
from jaxrefine.typing import Array, Float, Int

RopeTables = tuple[jax.Array, jax.Array]


class Attention(nn.Module):
    """Queries, keys and values of each token, rotated; whatever attention it is given; the output map."""

    config: TransformerConfig
    dtype: DTypeLike = jnp.bfloat16
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Four linear maps."""
        config = self.config
        linear = functools.partial(Linear, dtype=self.dtype, param_dtype=self.param_dtype)
        keys = config.num_kv_heads * config.head_width
        self.query = linear(config.num_heads * config.head_width, kernel_init(config), config.qkv_bias)
        self.key = linear(keys, kernel_init(config), config.qkv_bias)
        self.value = linear(keys, kernel_init(config), config.qkv_bias)
        self.out = linear(config.width, kernel_init(config, residual=True), config.o_bias)

    def __call__(
        self, x: Float[Array, "B S D"], tables: RopeTables, attend: Attend, state: Any
    ) -> tuple[Float[Array, "B S D"], Any]:
        """Applies attention to each row."""
        B, S, _ = x.shape
        heads = (B, S, -1, self.config.head_width)
        q = constrain(rotate(self.query(x).reshape(heads), tables), "heads")
        k = constrain(rotate(self.key(x).reshape(heads), tables), "heads")
        v = constrain(self.value(x).reshape(heads), "heads")
        mixed, state = attend(q, k, v, state)
        return self.out(checkpoint_name(mixed.reshape(B, S, -1), "attention")), state


class Layer(nn.Module):
    """x + attention(norm x), then x + feed_forward(norm x)."""

    config: TransformerConfig
    dtype: DTypeLike = jnp.bfloat16
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Two norms, two blocks."""
        config = self.config
        kinds: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        self.attention_norm = RMSNorm(config.norm_eps, **kinds)
        self.attention = Attention(config, **kinds)
        self.feed_forward_norm = RMSNorm(config.norm_eps, **kinds)
        self.feed_forward = FeedForward(config, **kinds)

    def __call__(
        self, x: Float[Array, "B S D"], state: Any, tables: RopeTables, attend: Attend
    ) -> tuple[Float[Array, "B S D"], Any]:
        """One layer; ``state`` is what its attention reads and what it hands back (a cache, or None)."""
        mixed, state = self.attention(self.attention_norm(x), tables, attend, state)
        x = constrain(x + mixed, "hidden")
        return constrain(x + self.feed_forward(self.feed_forward_norm(x)), "hidden"), state


class Embedding(nn.Module):
    """A table [V, D]."""

    config: TransformerConfig
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The table."""
        shape = (self.config.vocab_size, self.config.width)
        self.embedding = self.param("embedding", kernel_init(self.config), shape, self.param_dtype)


class Head(nn.Module):
    """The output map [V, D] of a decoder whose embedding is not tied to it."""

    config: TransformerConfig
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """The kernel."""
        shape = (self.config.vocab_size, self.config.width)
        self.kernel = self.param("kernel", kernel_init(self.config), shape, self.param_dtype)


class Decoder(nn.Module):
    """A causal transformer over packed rows.

    Parameters are a plain nested dict in Hugging Face's orientation, layers stacked on axis 0:
    ``embed/embedding [V D]``, ``layers/…/kernel [L out in]``, ``norm/scale [D]``, ``head/kernel [V D]`` if untied.

    Args:
      config: the mechanisms and their sizes.
      dtype: of the computation; norms, softmax and rotary positions are fp32 always.
      param_dtype: of freshly initialised parameters.
      attention: a key of ``jaxrefine.models.attention.ATTENTION``.
      remat: a key of ``jaxrefine.models.remat.REMAT``.

    >>> config = TransformerConfig(vocab_size=64, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4,
    ...                            hidden_width=32)
    >>> decoder = Decoder(config, dtype=jnp.float32, attention="dense")
    >>> row = jnp.zeros((1, 8), jnp.int32), jnp.arange(8)[None], jnp.full((1, 8), 8)
    >>> params = decoder.init(jax.random.key(0), *row, method="trunk")["params"]
    >>> decoder.apply({"params": params}, *row, method="trunk").shape
    (1, 8, 16)
    """

    config: TransformerConfig
    dtype: DTypeLike = jnp.bfloat16
    attention: str = "expand"
    remat: str = "none"
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Embedding, scanned layers, final norm, head."""
        self.embed = Embedding(self.config, self.param_dtype)
        scanned = nn.scan(
            rematerialized(Layer, self.remat),
            variable_axes={"params": 0},
            split_rngs={"params": True},
            in_axes=(0, nn.broadcast, nn.broadcast),
            out_axes=0,
            length=self.config.num_layers,
        )
        self.layers = scanned(self.config, self.dtype, self.param_dtype)
        self.norm = RMSNorm(self.config.norm_eps, self.dtype, self.param_dtype)
        if not self.config.tie_embeddings:
            self.head = Head(self.config, self.param_dtype)

    def __call__(self, batch: PackedBatch) -> Float[Array, "B S D"]:
        """The last hidden state of every slot, normalised; what padding slots hold means nothing."""
        return self.trunk(batch.tokens, batch.positions, batch.ends, batch.paths, batch.homes)

    def trunk(
        self,
        tokens: Int[Array, "B S"],
        positions: Int[Array, "B S"],
        ends: Int[Array, "B S"],
        paths: Int[Array, "B E X"] | None = None,
        homes: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B S D"]:
        """The same from arrays (see ``PackedBatch``)."""
        attend = make_attend(self.attention, ends=ends, paths=paths, homes=homes)
        hidden, _ = self._through(tokens, positions, attend, None)
        return hidden

    def output_embedding(self) -> Float[Array, "V D"]:
        """The matrix whose product with a hidden state is the logits: the head, or the embedding if tied."""
        if self.config.tie_embeddings:
            return self.embed.embedding
        return self.head.kernel

    def prefill(self, tokens: Int[Array, "C P"], lengths: Int[Array, " C"]) -> tuple[Float[Array, "C D"], KeyValues]:
        """Reads prompts once.

        Args:
          tokens: prompts, padded at their end with anything.
          lengths: tokens of each, at least 1.

        Returns:
          The hidden state of each prompt's last token, which predicts a candidate's first; keys and values [L C K P H].
        """
        C, P = tokens.shape
        positions = jnp.broadcast_to(jnp.arange(P, dtype=jnp.int32)[None], (C, P))
        hidden, cache = self._through(tokens, positions, prefill_attend(P), None)
        last = jnp.take_along_axis(hidden, (lengths - 1)[:, None, None], axis=1)
        return last[:, 0], cache

    def decode(
        self,
        tokens: Int[Array, "C N"],
        step: Int[Array, ""],
        prompt_cache: KeyValues,
        lengths: Int[Array, " C"],
        candidate_cache: KeyValues,
    ) -> tuple[Float[Array, "C N D"], KeyValues]:
        """Reads one more token of every candidate.

        Args:
          tokens: token number ``step`` of each candidate, counted from 0.
          step: alike for all.
          prompt_cache: of ``prefill``.
          lengths: tokens of each prompt.
          candidate_cache: [L C N K R H] that holds ``step`` tokens of each candidate; R > step.

        Returns:
          The hidden states that predict token ``step + 1``; the cache with this token in it.
        """
        positions = jnp.broadcast_to((lengths + step)[:, None], tokens.shape)
        states = (prompt_cache, candidate_cache)
        hidden, new = self._through(tokens, positions, decode_attend(lengths, step), states)
        return hidden, written(candidate_cache, new, step)

    def _through(self, tokens: Array, positions: Array, attend: Attend, states: Any) -> tuple[Array, Any]:
        """Embedding, every layer with its state [L ...], final norm."""
        x = jnp.take(self.embed.embedding, tokens, axis=0, mode="clip").astype(self.dtype)
        x = constrain(x, "hidden")
        if self.is_initializing() and not self.config.tie_embeddings:
            self.output_embedding()
        x, states = self.layers(x, states, rope_tables(positions, self.config), attend)
        return self.norm(x), states
