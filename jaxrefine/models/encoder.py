"""The encoder: one Linen module, its layers scanned, used as a pure function of a plain nested dict."""

from __future__ import annotations

import functools
from typing import Any, NoReturn

import flax.linen as nn
import jax
import jax.numpy as jnp
from jax.typing import DTypeLike

from jaxrefine.data.batch import PackedBatch
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.encoder_layers import (
    ENCODER_FUNCTIONS,
    Convolve,
    Convolved,
    EncoderLayer,
    Scale,
    Shared,
    Table,
    encoder_init,
)
from jaxrefine.models.layers import Linear
from jaxrefine.models.lora import ADAPTERS
from jaxrefine.models.norms import LayerNorm
from jaxrefine.models.pooling import first_slots, pool, sequence_mask
from jaxrefine.models.quantized import QUANTIZED
from jaxrefine.models.relative import table_rows
from jaxrefine.models.remat import rematerialized
from jaxrefine.sharding import constrain
from jaxrefine.typing import Array, Float, Int


class Encoder(nn.Module):
    """A bidirectional transformer over packed rows, and what a scorer's head reads of each sequence.

    A sequence is a run of slots with the same ``ends``: a group without responses is one, and with
    ``PackingConfig(share_prompt=False)`` every candidate with its prompt is one. Candidates that share their prompt's
    slots are not: bidirectional attention would let the prompt see them.

    Parameters are a plain nested dict in Hugging Face's orientation, layers stacked on axis 0:
    ``embed/embedding [V E]``, ``positions/embedding``, ``token_types/embedding``, ``embed_projection/kernel [D E]``,
    ``embed_norm/…``, ``relative/embedding [R D]``, ``relative_norm/…``, ``convolution/{kernel,bias}``,
    ``convolution_norm/…``, ``layers/…/kernel [L out in]``, ``pooler/{kernel,bias}``, ``classifier/{kernel,bias}``;
    each of them only where the config has the mechanism.

    Args:
      config: the mechanisms and their sizes.
      dtype: of the computation; norms, scores and softmax are fp32 always.
      pooling: a key of ``jaxrefine.models.pooling.POOLINGS``.
      remat: a key of ``jaxrefine.models.remat.REMAT``.
      param_dtype: of freshly initialised parameters.

    >>> config = EncoderConfig(vocab_size=64, width=16, num_layers=2, num_heads=4, head_width=4, hidden_width=32)
    >>> row = jnp.zeros((1, 8), jnp.int32), jnp.arange(8)[None], jnp.full((1, 8), 8)
    >>> encoder = Encoder(config)
    >>> params = jax.eval_shape(lambda: encoder.init(jax.random.key(0), *row, method="trunk"))["params"]
    >>> params["layers"]["attention"]["query"]["kernel"].shape
    (2, 16, 16)

    Source: Devlin et al. 2019, arXiv:1810.04805; He et al. 2021, arXiv:2006.03654 (distances).
    """

    config: EncoderConfig
    dtype: DTypeLike = jnp.float32
    pooling: str = "first"
    remat: str = "none"
    param_dtype: DTypeLike = jnp.float32

    def setup(self) -> None:
        """Tables, scanned layers, pooler and classifier."""
        config = self.config
        kinds: dict[str, Any] = {"dtype": self.dtype, "param_dtype": self.param_dtype}
        table = functools.partial(Table, width=config.table_width, param_dtype=self.param_dtype)
        norm = functools.partial(LayerNorm, config.norm_eps, use_bias=True, **kinds)

        def linear(features: int, *, use_bias: bool) -> Linear:
            return Linear(features, encoder_init, use_bias, **kinds)

        self.embed = table(config.vocab_size)
        if config.positions == "learned":
            self.positions = table(config.max_positions + config.position_offset)
        if config.num_token_types:
            self.token_types = table(config.num_token_types)
        if config.embed_width is not None:
            self.embed_projection = linear(config.width, use_bias=False)
        self.embed_norm = norm()
        if config.relative is not None:
            self.relative = Table(2 * config.relative.span, config.width, self.param_dtype)
            if config.relative.norm:
                self.relative_norm = norm()
        if config.convolution is not None:
            self.convolution = Convolve(config.convolution, **kinds)
            self.convolution_norm = Scale(config.width, self.param_dtype)
        scanned = nn.scan(
            rematerialized(EncoderLayer, self.remat),
            variable_axes={"params": 0, ADAPTERS: 0, QUANTIZED: 0},
            split_rngs={"params": True, "dropout": True},
            in_axes=(0, nn.broadcast),
            length=config.num_layers,
        )
        self.layers = scanned(config, **kinds)
        if config.pooler is not None:
            self.pooler = linear(config.width, use_bias=True)
        if config.num_labels is not None:
            self.classifier = linear(config.num_labels, use_bias=True)

    def __call__(self, batch: PackedBatch) -> Float[Array, "B S D"]:
        """The pooled state of each slot's sequence, at every slot: what a head finds at a prompt's or response's end.

        A candidate whose prompt lies in slots that it shares holds NaN, so that no loss takes it for a sequence.

        Raises:
          ValueError: a batch with verdict words, which are children of a candidate.
        """
        if batch.num_leaves_per_candidate != 1:
            raise ValueError("an encoder reads whole sequences: pack with PackingConfig(verdicts=False)")
        positions, ends = jnp.asarray(batch.positions), jnp.asarray(batch.ends)
        pooled = self.pooled(self.trunk(batch.tokens, positions, ends), ends)
        whole = jnp.take_along_axis(positions, first_slots(ends), axis=1, mode="clip") == 0
        return jnp.where(whole[..., None], pooled, jnp.asarray(jnp.nan, pooled.dtype))

    def trunk(
        self,
        tokens: Int[Array, "B S"],
        positions: Int[Array, "B S"],
        ends: Int[Array, "B S"],
        token_types: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B S D"]:
        """The last hidden state of every slot; what padding slots hold means nothing.

        Args:
          tokens: ids.
          positions: of each token in its sequence, from 0.
          ends: the slot after each token's sequence; padding holds its own slot + 1.
          token_types: rows of their table; None is row 0.
        """
        ends = jnp.asarray(ends)
        x = self._embedded(tokens, positions, token_types)
        numbers = jnp.arange(self.config.num_layers, dtype=jnp.int32)
        x, _ = self.layers(x, numbers, self._shared(x, positions, ends))
        if self.is_initializing():
            pooled = self.pooled(x, ends)
            if self.config.num_labels is not None:
                self.classifier(pooled)
        return x

    def pooled(self, hidden: Float[Array, "B S D"], ends: Int[Array, "B S"]) -> Float[Array, "B S D"]:
        """One vector a sequence, at each of its slots: ``pooling``, then the pooler if there is one."""
        pooled = pool(hidden, ends, self.pooling)
        if self.config.pooler is None:
            return pooled
        return ENCODER_FUNCTIONS[self.config.pooler](self.pooler(pooled))

    def classify(
        self,
        tokens: Int[Array, "B S"],
        positions: Int[Array, "B S"],
        ends: Int[Array, "B S"],
        token_types: Int[Array, "B S"] | None = None,
    ) -> Float[Array, "B S labels"]:
        """The classifier's logits for each slot's sequence, at every slot.

        Raises:
          ValueError: a config without labels.
        """
        if self.config.num_labels is None:
            raise ValueError("EncoderConfig.num_labels is None: this encoder has no classifier")
        return self.classifier(self.pooled(self.trunk(tokens, positions, ends, token_types), ends))

    def output_embedding(self) -> NoReturn:
        """An encoder predicts no next token.

        Raises:
          ValueError: always.
        """
        raise ValueError("an encoder predicts no next token: objective.scorer must be 'reward' or 'router', and "
                         "mle_weight 0")  # fmt: skip

    def _embedded(self, tokens: Array, positions: Array, token_types: Array | None) -> Array:
        def rows(table: Table, index: Array) -> jax.Array:
            return jnp.take(table.embedding, jnp.asarray(index), axis=0, mode="clip").astype(self.dtype)

        x: Array = rows(self.embed, tokens)
        if self.config.positions == "learned":
            x = x + rows(self.positions, jnp.asarray(positions) + self.config.position_offset)
        if self.config.num_token_types:
            x = x + rows(self.token_types, jnp.zeros_like(tokens) if token_types is None else token_types)
        elif token_types is not None:
            raise ValueError("EncoderConfig.num_token_types is 0: this encoder reads no token types")
        if self.config.embed_width is not None:
            x = self.embed_projection(x)
        return constrain(self.embed_norm(x), "hidden")

    def _shared(self, x: Array, positions: Array, ends: Array) -> Shared:
        """What the layers read, made once."""
        shared = Shared(sequence_mask(ends))
        relative = self.config.relative
        if relative is not None:
            table: Array = self.relative.embedding.astype(self.dtype)
            table = self.relative_norm(table) if relative.norm else table
            shared = shared._replace(rows=table_rows(positions, relative), distances=table)
        if self.config.convolution is not None:
            norm = self.convolution_norm
            shared = shared._replace(convolved=Convolved(self.convolution(x, ends), norm.scale, norm.bias))
        return shared
