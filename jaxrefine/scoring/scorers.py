"""Scorers: from the model's last hidden states to one score a candidate.

Any scorer goes with any loss that can read what it gives (``SCORERS`` says what that is).
"""

from __future__ import annotations

import dataclasses
from typing import Any

import flax.linen as nn
import flax.struct
import jax
import jax.numpy as jnp

from jaxrefine.data.batch import PackedBatch
from jaxrefine.losses.logprobs import token_logprobs
from jaxrefine.models.logits import logit_form
from jaxrefine.typing import Array, Float


@flax.struct.dataclass(frozen=True)
class Scores:
    """What a scorer gives; what it does not compute is None."""

    scores: Float[Array, "B G N"] | None = None
    """Higher is better; absent candidates hold something finite."""
    sums: Float[Array, "B G N"] | None = None
    """Summed log-probs of each response."""
    token_logprobs: Float[Array, "B T"] | None = None
    """Of each scored token; padding holds something finite."""
    verdicts: tuple[Float[Array, "B G N"], Float[Array, "B G N"]] | None = None
    """Log-probs of the whole words for right and for wrong."""
    logits: Float[Array, "B G M"] | None = None
    """Of each model to route to."""
    metrics: dict[str, tuple[Array, Array]] = flax.struct.field(default_factory=dict)
    """{name: (sum, count)}."""


def leaf_sums(model: Any, hidden: Float[Array, "B S D"], batch: PackedBatch) -> tuple[Array, Array]:
    """Log-probs of the scored tokens, and their sums by leaf: one pass over the vocabulary, of scored tokens only.

    Args:
      model: has ``output_embedding() -> [V D]``, and ``logit_form()`` where logits are more than its product.
      hidden: last hidden states.
      batch: rows.

    Returns:
      token log-probs [B T] and sums [B G N W], fp32.
    """
    B, T = batch.sources.shape
    G, N = batch.labels.shape[1:]
    W = batch.num_leaves_per_candidate
    if not T or not N:
        return jnp.zeros((B, T), jnp.float32), jnp.zeros((B, G, N, W), jnp.float32)
    predicting = _at(hidden, jnp.asarray(batch.sources)).reshape(B * T, -1)
    states, embedding, options = logit_form(model).folded(predicting)
    logprobs = token_logprobs(states, embedding, jnp.asarray(batch.targets).reshape(-1), **options).reshape(B, T)
    leaves = jnp.asarray(batch.leaves)
    where = leaves >= 0
    row = lambda values, leaf: jax.ops.segment_sum(values, leaf, G * N * W)  # noqa: E731
    sums = jax.vmap(row)(jnp.where(where, logprobs, 0.0), jnp.where(where, leaves, 0))
    return logprobs, sums.reshape(B, G, N, W)


def _at(hidden: Array, slots: jax.Array) -> jax.Array:
    """Hidden states [B S D] at slots [B …] -> [B … D]."""
    return jax.vmap(lambda row, slot: row.at[slot].get(mode="promise_in_bounds"))(hidden, slots)


class SequenceLogProb(nn.Module):
    r"""Σ_t log p(token t) / length^β, over the response's own scored tokens, EOS included.

    Args:
      length_power: β; 0 is the sum, 1 the mean.

    Source: Tuna, arXiv:2310.13385, Eq. 3; Math, arXiv:2310.10047, Eq. 10 (β = 0).
    """

    length_power: float = 1.0

    def __call__(self, model: Any, hidden: Float[Array, "B S D"], batch: PackedBatch) -> Scores:
        """Scores every candidate."""
        logprobs, sums = leaf_sums(model, hidden, batch)
        return Scores(
            scores=normalized(sums[..., 0], batch, self.length_power), sums=sums[..., 0], token_logprobs=logprobs
        )


def normalized(sums: Float[Array, "B G N"], batch: PackedBatch, length_power: float) -> Float[Array, "B G N"]:
    """Summed log-probs over length^β; absent candidates stay 0."""
    if not length_power:
        return jnp.asarray(sums)
    return sums / jnp.maximum(batch.lengths, 1).astype(jnp.float32) ** length_power


class VerdictLogOdds(nn.Module):
    """log S = log p(right) − log(p(right) + p(wrong)), each word whole, over the full vocabulary.

    Needs a batch packed with verdict words.

    Source: Math, arXiv:2310.10047, Eq. 5–7.
    """

    def __call__(self, model: Any, hidden: Float[Array, "B S D"], batch: PackedBatch) -> Scores:
        """Scores every candidate."""
        if batch.num_leaves_per_candidate != 3:
            raise ValueError(
                "VerdictLogOdds reads verdict words, and this batch has none: pack with PackingConfig(verdicts=True) "
                "groups that have them"
            )
        logprobs, sums = leaf_sums(model, hidden, batch)
        right, wrong = sums[..., 1], sums[..., 2]
        return Scores(
            scores=jax.nn.log_sigmoid(right - wrong),
            sums=sums[..., 0],
            token_logprobs=logprobs,
            verdicts=(right, wrong),
        )


class RewardHead(nn.Module):
    """A linear map of the hidden state at a response's last token to one number, in fp32.

    Source: ART, arXiv:2311.07961, §3.3 (the Truster).
    """

    @nn.compact
    def __call__(self, model: Any, hidden: Float[Array, "B S D"], batch: PackedBatch) -> Scores:
        """Scores every candidate."""
        last = _at(hidden, jnp.asarray(batch.last))
        kernel = self.param("kernel", _head_init, (1, hidden.shape[-1]), jnp.float32)
        return Scores(scores=jnp.einsum("bgnd,d->bgn", last.astype(jnp.float32), kernel[0]))


class RouterHead(nn.Module):
    """A linear map of the hidden state at a query's last token to one logit a model, in fp32.

    Args:
      num_models: M.

    Source: ZOOTER, arXiv:2311.08692, §3.2; the pooling is ours.
    """

    num_models: int

    @nn.compact
    def __call__(self, model: Any, hidden: Float[Array, "B S D"], batch: PackedBatch) -> Scores:
        """Logits of every query."""
        last = _at(hidden, jnp.asarray(batch.prompt_last))
        kernel = self.param("kernel", _head_init, (self.num_models, hidden.shape[-1]), jnp.float32)
        return Scores(logits=jnp.einsum("bgd,md->bgm", last.astype(jnp.float32), kernel))


_head_init = nn.initializers.variance_scaling(1.0, "fan_in", "normal", in_axis=-1, out_axis=-2)


@dataclasses.dataclass(frozen=True)
class ScorerKind:
    """A scorer's module, and what a loss can read of it."""

    module: type[nn.Module]
    gives: frozenset[str]
    """Of "scores", "verdicts", "logits"."""
    logprobs: bool
    """Its scores are log-probabilities: at most 0, comparable with a reference model's."""
    has_params: bool = False
    """It has parameters of its own: a head."""


SCORERS: dict[str, ScorerKind] = {
    "sequence": ScorerKind(SequenceLogProb, frozenset({"scores"}), logprobs=True),
    "verdict": ScorerKind(VerdictLogOdds, frozenset({"scores", "verdicts"}), logprobs=True),
    "reward": ScorerKind(RewardHead, frozenset({"scores"}), logprobs=False, has_params=True),
    "router": ScorerKind(RouterHead, frozenset({"logits"}), logprobs=False, has_params=True),
}
"""Name -> scorer."""
