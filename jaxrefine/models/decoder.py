"""The decoder: one Linen module, its layers scanned, used as a pure function of a plain nested dict."""

from __future__ import annotations

import functools
from typing import Any

import flax.linen as nn
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxrefine.data.batch import PackedBatch
from jaxrefine.models.attention import Attend, make_attend
from jaxrefine.models.blocks import Embedding, Head, Layer
from jaxrefine.models.cache import KeyValues, decode_attend, prefill_attend, written
from jaxrefine.models.choices import layer_choices
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.layers import Linear, kernel_init
from jaxrefine.models.logits import LogitForm
from jaxrefine.models.lora import ADAPTERS
from jaxrefine.models.norms import make_norm
from jaxrefine.models.positions import rope_tables
from jaxrefine.models.quantized import QUANTIZED
from jaxrefine.models.remat import rematerialized
from jaxrefine.sharding import constrain
from jaxrefine.typing import Array, Float, Int


class Decoder(nn.Module):
    """A causal transformer over packed rows.

    Parameters are a plain nested dict in Hugging Face's orientation, layers stacked on axis 0:
    ``embed/embedding [V D]``, ``layers/…/kernel [L out in]``, ``norm/scale [D]``, ``head/kernel [V D]`` if untied;
    and, where the config has them, ``positions/embedding``, ``embed_norm``, ``project_in``, ``project_out`` and
    ``head/bias``.

    Args:
      config: the mechanisms and their sizes.
      dtype: of the computation; norms, softmax and rotary positions are fp32 always.
      param_dtype: of freshly initialised parameters.
      attention: a key of ``jaxrefine.models.attention.ATTENTION``.
      remat: a key of ``jaxrefine.models.remat.REMAT``.
      logprobs: the implementation of ``jaxrefine.losses.token_logprobs``: "xla", or "pallas" on TPUs.
      logprob_chunk: its ``chunk_size``.

    >>> import jax
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
    logprobs: str = "xla"
    logprob_chunk: int | None = None

    def setup(self) -> None:
        """Embedding, scanned layers, final norm, head."""
        config = self.config
        self.embed = Embedding(config, config.vocab_size, config.embedding_width, self.param_dtype)
        if config.embed_width is not None:
            linear = functools.partial(Linear, dtype=self.dtype, param_dtype=self.param_dtype)
            self.project_in = linear(config.width, kernel_init(config))
            self.project_out = linear(config.embedding_width, kernel_init(config))
        if config.positions == "learned":
            rows = config.max_positions + config.position_offset
            self.positions = Embedding(config, rows, config.width, self.param_dtype)
        if config.embed_norm:
            self.embed_norm = make_norm(config, self.dtype, self.param_dtype)
        scanned = nn.scan(
            rematerialized(Layer, self.remat),
            variable_axes={"params": 0, ADAPTERS: 0, QUANTIZED: 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, 0, nn.broadcast, nn.broadcast),
            out_axes=0,
            length=config.num_layers,
        )
        self.layers = scanned(config, self.dtype, self.param_dtype)
        if config.final_norm:
            self.norm = make_norm(config, self.dtype, self.param_dtype)
        if not config.tie_embeddings or config.head_bias:
            self.head = Head(config, self.param_dtype)

    def __call__(self, batch: PackedBatch) -> Float[Array, "B S D"]:
        """The hidden state of every slot that meets the output embedding; what padding slots hold means nothing."""
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
        # parameters do not depend on the backend, and it may run on other machines alone
        name = "dense" if self.is_initializing() else self.attention
        attend = make_attend(
            name, config=self.config, dtype=self.dtype, ends=ends, positions=positions, paths=paths, homes=homes
        )
        hidden, _ = self._through(tokens, positions, attend, None)
        return hidden

    def output_embedding(self) -> Float[Array, "V D"]:
        """The head, or the embedding if tied: ``logit_form`` says how its product with a hidden state gives logits."""
        if self.config.tie_embeddings:
            return self.embed.embedding
        return self.head.kernel

    def logit_form(self) -> LogitForm:
        """How hidden states become logits."""
        config = self.config
        bias = self.head.bias if config.head_bias else None
        return LogitForm(
            self.output_embedding(), bias, config.logit_scale, config.logit_softcap, self.logprobs, self.logprob_chunk
        )

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
        step: Int[Array, "*each"],
        prompt_cache: KeyValues,
        lengths: Int[Array, " C"],
        candidate_cache: KeyValues,
        read: int | None = None,
    ) -> tuple[Float[Array, "C N D"], KeyValues]:
        """Reads one more token of every candidate.

        Args:
          tokens: token number ``step`` of each candidate, counted from 0.
          step: alike for all, or one each, [C N].
          prompt_cache: of ``prefill``.
          lengths: tokens of each prompt.
          candidate_cache: [L C N K R H] that holds ``step`` tokens of each candidate; R > step.
          read: see ``decode_attend``.

        Returns:
          The hidden states that predict token ``step + 1``; the cache with this token in it.
        """
        positions = jnp.broadcast_to(jnp.asarray(lengths)[:, None] + step, tokens.shape)
        states = (prompt_cache, candidate_cache)
        hidden, new = self._through(tokens, positions, decode_attend(lengths, step, read), states)
        return hidden, written(candidate_cache, new, step)

    def _through(self, tokens: Array, positions: Array, attend: Attend, states: Any) -> tuple[Array, Any]:
        """Embedding, every layer with its state [L ...], final norm."""
        x: Array = self._embedded(tokens, positions)
        if self.is_initializing():
            self.logit_form()
        tables = rope_tables(positions, self.config)
        x, states = self.layers(x, states, layer_choices(self.config), tables, attend)
        if self.config.final_norm:
            x = self.norm(x)
        if self.config.embed_width is not None:
            x = self.project_out(x)
        return x, states

    def _embedded(self, tokens: Array, positions: Array) -> Array:
        """What enters the first layer, [B S D]."""
        config = self.config
        x: Array = self.embed(tokens, self.dtype)
        if config.embed_scale != 1.0:
            x = x * jnp.asarray(config.embed_scale, self.dtype)
        if config.embed_width is not None:
            x = self.project_in(x)
        if config.positions == "learned":
            learned = self.positions(positions + config.position_offset, self.dtype)
            if config.position_scale != 1.0:
                learned = learned * jnp.asarray(config.position_scale, self.dtype)
            x = x + learned
        if config.embed_norm:
            x = self.embed_norm(x)
        return constrain(x, "hidden")
