"""Terms of an objective and what is watched beside them: pure functions of scores and a batch.

A term is a sum and a count. Counts come from masks alone, so a step can divide by those of its whole global batch
before it has computed anything.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from jaxrefine.data.batch import PackedBatch
from jaxrefine.losses import pair_count
from jaxrefine.typing import Array, Bool, Float

Pair = tuple[Array, Array]
"""(sum, count)."""

Normalize = Literal["sum", "mean", "token"]


def likelihood_weights(batch: PackedBatch, normalize: Normalize) -> tuple[Float[Array, "B G N"], Float[Array, "B G N"]]:
    """How much each response's summed log-prob weighs in the likelihood term, and what it adds to the count.

    sum: −Σ w S / Σ w;   mean: −Σ w S / len / Σ w;   token: −Σ w S / Σ w len

    Args:
      batch: with ``mle_weight`` w and ``lengths``.
      normalize: "sum" over a response's tokens (Math), "mean" (Tuna), or over the batch's tokens (PandaLM).

    Returns:
      Factors of S, and counts; 0 for a response without scored tokens.
    """
    lengths = jnp.asarray(batch.lengths).astype(jnp.float32)
    weight = jnp.where(lengths > 0, jnp.asarray(batch.mle_weight), 0.0)
    if normalize == "mean":
        return weight / jnp.maximum(lengths, 1.0), weight
    return weight, weight * lengths if normalize == "token" else weight


def likelihood_term(sums: Float[Array, "B G N"], batch: PackedBatch, normalize: Normalize) -> Pair:
    """Negative log-likelihood of the weighted responses.

    Args:
      sums: summed log-probs of each response.
      batch: with weights and lengths.
      normalize: see ``likelihood_weights``.

    Source: Math, arXiv:2310.10047, Eq. 2 ("sum"); Tuna, arXiv:2310.13385, Eq. 1 ("mean").
    """
    factor, count = likelihood_weights(batch, normalize)
    return -jnp.sum(jnp.where(factor != 0, factor * sums, 0.0)), jnp.sum(count)


def ranking_metrics(scores: Float[Array, "B G N"], batch: PackedBatch) -> dict[str, Pair]:
    """Of all pairs in which one label is higher: how often, and by how much, its score is higher too.

    Args:
      scores: any scorer's.
      batch: with labels and ``rank_where``.

    Returns:
      ``ranking_accuracy`` and ``score_margin`` per pair, ``share_with_pair`` per group.
    """
    labels, where = jnp.asarray(batch.labels), jnp.asarray(batch.rank_where)
    pairs = (labels[..., :, None] > labels[..., None, :]) & where[..., :, None] & where[..., None, :]
    lead = scores[..., :, None] - scores[..., None, :]
    num = jnp.sum(pairs).astype(jnp.float32)
    groups = jnp.sum(jnp.asarray(batch.group_ids) >= 0).astype(jnp.float32)
    return {
        "ranking_accuracy": (jnp.sum(pairs & (lead > 0)).astype(jnp.float32), num),
        "score_margin": (jnp.sum(jnp.where(pairs, lead, 0.0)), num),
        "share_with_pair": (jnp.sum(pair_count(labels, where) > 0).astype(jnp.float32), groups),
    }


def best_logprob(sums: Float[Array, "B G N"], batch: PackedBatch) -> dict[str, Pair]:
    """Mean log-prob a token of each group's best candidate, the first of its highest label.

    A ranking loss can be lowered by making every candidate less likely; this shows it.
    """
    lengths = jnp.asarray(batch.lengths)
    where = jnp.asarray(batch.rank_where) & (lengths > 0)
    best = jax.nn.one_hot(
        jnp.argmax(jnp.where(where, jnp.asarray(batch.labels), -jnp.inf), -1), where.shape[-1], dtype=jnp.float32
    )
    chosen = best * where.astype(jnp.float32)
    means = sums / jnp.maximum(lengths, 1).astype(jnp.float32)
    return {"best_logprob": (jnp.sum(chosen * means), jnp.sum(chosen))}


def verdict_metrics(right: Float[Array, "B G N"], wrong: Float[Array, "B G N"], batch: PackedBatch) -> dict[str, Pair]:
    """How often the likelier verdict word is the true one, and the probability of the two words together."""
    where = jnp.asarray(batch.rank_where)
    agrees = (right > wrong) == (jnp.asarray(batch.labels) > 0)
    num = jnp.sum(where).astype(jnp.float32)
    mass = jnp.exp(jnp.logaddexp(right, wrong))
    return {
        "verdict_accuracy": (jnp.sum(where & agrees).astype(jnp.float32), num),
        "verdict_mass": (jnp.sum(jnp.where(where, mass, 0.0)), num),
    }


def routing_metrics(
    logits: Float[Array, "B G M"], rewards: Float[Array, "B G M"], where: Bool[Array, "B G M"]
) -> dict[str, Pair]:
    """How often the model routed to is the best one, and its reward; among models with known rewards."""
    known = jnp.any(where, -1)
    choice = jnp.argmax(jnp.where(where, logits, -jnp.inf), -1)
    hidden = jnp.where(where, rewards, -jnp.inf)
    reward = jnp.take_along_axis(rewards, choice[..., None], -1)[..., 0]
    num = jnp.sum(known).astype(jnp.float32)
    return {
        "routing_accuracy": (jnp.sum(known & (reward >= jnp.max(hidden, -1))).astype(jnp.float32), num),
        "routed_reward": (jnp.sum(jnp.where(known, reward, 0.0)), num),
    }
