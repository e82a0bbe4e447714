"""Losses over the pairs of a group of which one candidate is labelled higher than the other.

Groups of N candidates: the mean over all pairs with label_j > label_k; equal labels make no pair, a group without a
pair has value 0 and counts for nothing.
"""

from __future__ import annotations

import jax

from jaxrefine.losses.reduction import (
    Labels,
    Mask,
    above,
    as_float,
    as_mask,
    differences,
    live,
    mean_over_pairs,
    number,
)
from jaxrefine.typing import Array, Bool, Float


def label_pairs(
    scores: Float[Array, "*batch N"], labels: Labels, where: Mask
) -> tuple[Float[Array, "*batch N N"], Bool[Array, "*batch N N"]]:
    """[..., j, k]: s_j − s_k, and whether label_j > label_k with both among ``where``."""
    where = as_mask(where, scores)
    return differences(live(scores, where)), above(live(labels, where).astype(as_float(scores).dtype), where)


def pairwise_hinge(
    scores: Float[Array, "*batch N"], labels: Labels, *, where: Mask = None, margin: float
) -> Float[Array, "*batch"]:
    """Mean hinge of all pairs: the better candidate must lead by a margin.

    mean over label_j > label_k of  max(0, s_k − s_j + margin)

    Args:
        scores: [..., N]; sequence log-probs for Eq. 10, verdict log-odds (log S) for Eq. 8.
        labels: [..., N].
        where: [..., N].
        margin: λ ≥ 0, in the units of the scores; the paper publishes no value, so there is no default.

    Returns:
        [...] one value a group.

    Raises:
        ValueError: for a margin that is negative or not finite.

    >>> import jax.numpy as jnp
    >>> float(pairwise_hinge(jnp.array([-1.0, -3.0, -2.0]), jnp.array([0.0, 1.0, 0.0]), margin=0.5))
    2.0

    Source: arXiv 2310.10047, Eq. 8 (verdicts) and Eq. 10 (sequences).
    """
    number(margin, "margin", inclusive=True)
    lead, pairs = label_pairs(scores, labels, where)
    return mean_over_pairs(jax.nn.relu(margin - lead), pairs)


def pairwise_logistic(
    scores: Float[Array, "*batch N"], labels: Labels, *, where: Mask = None
) -> Float[Array, "*batch"]:
    """Mean negative log-likelihood of all pairs under the Bradley–Terry model.

    mean over label_j > label_k of  −log σ(s_j − s_k)

    Args:
        scores: [..., N]; for ART's Truster what a reward head says.
        labels: [..., N].
        where: [..., N].

    Returns:
        [...] one value a group.

    >>> import jax.numpy as jnp
    >>> round(float(pairwise_logistic(jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0]))), 6)
    0.693147

    Source: ART, arXiv 2311.07961, the Truster's loss (Sec. 3).
    """
    lead, pairs = label_pairs(scores, labels, where)
    return mean_over_pairs(jax.nn.softplus(-lead), pairs)


def slic_hf(
    scores: Float[Array, "*batch N"], labels: Labels, *, where: Mask = None, margin: float = 1.0
) -> Float[Array, "*batch"]:
    """SLiC-HF's calibration loss: a hinge on sequence log-probs that are not divided by length.

    mean over label_j > label_k of  max(0, margin − s_j + s_k)

    The paper adds −λ log p(y_ref): that is the objective's ``mle_weight``.

    Args:
        scores: [..., N] summed log-probs in nats (``length_power=0``).
        labels: [..., N].
        where: [..., N].
        margin: δ ≥ 0 in nats.

    Returns:
        [...] one value a group.

    Raises:
        ValueError: for a margin that is negative or not finite.

    >>> import jax.numpy as jnp
    >>> float(slic_hf(jnp.array([-4.0, -4.5]), jnp.array([1.0, 0.0])))
    0.5

    Source: Zhao et al. 2023, SLiC-HF, arXiv 2305.10425, the rank calibration loss of Sec. 2.
    """
    number(margin, "margin", inclusive=True)
    lead, pairs = label_pairs(scores, labels, where)
    return mean_over_pairs(jax.nn.relu(margin - lead), pairs)
