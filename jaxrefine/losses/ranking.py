"""Losses over the ranking of a whole group by its labels.

A group in which no candidate is ranked above another has value 0 and counts for nothing.
"""

from __future__ import annotations

from typing import Literal

import jax
import jax.numpy as jnp

from jaxrefine.losses.pairwise import label_pairs
from jaxrefine.losses.reduction import (
    Labels,
    Mask,
    Ties,
    above,
    as_mask,
    differences,
    live,
    log_softmax,
    log_sum_exp,
    number,
    one_of,
    ranks,
    sum_over_pairs,
)
from jaxrefine.typing import Array, Bool, Float


def margin_ranking(
    scores: Float[Array, "*batch N"],
    labels: Labels,
    *,
    where: Mask = None,
    margin: float = 0.1,
    gaps: Literal["sum", "mean"] = "sum",
    ties: Ties = "index",
) -> Float[Array, "*batch"]:
    """Tuna's ranking loss: the margin grows with the distance in rank.

    Σ over j ranked above k of  max(0, s_k − s_j + margin · (rank_k − rank_j))

    Args:
        scores: [..., N]; the paper's are log-probs divided by length (``length_power=1``).
        labels: [..., N]; rank is the position in descending label order among ``where``, from 0.
        where: [..., N].
        margin: m ≥ 0, in the units of the scores, a step in rank.
        gaps: ``"sum"`` is the paper; ``"mean"`` the authors' released code: the hinges of each rank distance are
            averaged, then summed over the distances.
        ties: ``"index"`` ranks equal labels by index (the paper's case of strict rankings); ``"skip"`` drops pairs of
            equal labels and uses dense ranks: right / wrong labels need it.

    Returns:
        [...] one value a group.

    Raises:
        ValueError: for a negative margin, or an unknown ``gaps`` or ``ties``, with the nearest.

    >>> import jax.numpy as jnp
    >>> scores, labels = jnp.array([-0.5, -0.7, -0.6, -1.0]), jnp.array([3.0, 2.0, 1.0, 0.0])
    >>> round(float(margin_ranking(scores, labels)), 6), round(float(margin_ranking(scores, labels, gaps="mean")), 6)
    (0.3, 0.116667)

    Source: Tuna, arXiv 2310.13385, Eq. 4–5.
    """
    number(margin, "margin", inclusive=True)
    one_of(gaps, ("sum", "mean"), "gaps")
    where = as_mask(where, scores)
    scores, labels = live(scores, where), live(labels, where)
    pairs = above(labels, where, ties)
    rank = ranks(labels, where, ties).astype(scores.dtype)
    distance = rank[..., None, :] - rank[..., :, None]
    hinges = jax.nn.relu(margin * distance - differences(scores))
    if gaps == "sum":
        return sum_over_pairs(hinges, pairs)
    steps = jnp.where(pairs, distance, jnp.full_like(distance, -1.0)).astype(jnp.int32)  # -1 is at no distance
    at_distance = jax.nn.one_hot(steps, scores.shape[-1], dtype=scores.dtype)
    count = jnp.sum(at_distance, axis=(-3, -2))
    return jnp.sum(jnp.sum(at_distance * hinges[..., None], axis=(-3, -2)) / jnp.maximum(count, 1), axis=-1)


def rrhf(scores: Float[Array, "*batch N"], labels: Labels, *, where: Mask = None) -> Float[Array, "*batch"]:
    """RRHF's ranking loss: a hinge without margin, summed over the pairs.

    Σ over label_j > label_k of  max(0, s_k − s_j)

    The paper adds the likelihood of the best response, −log p(y_best): that is the objective's ``mle_weight``.

    Args:
        scores: [..., N] log-probs divided by length (``length_power=1``).
        labels: [..., N]; equal labels make no pair.
        where: [..., N].

    Returns:
        [...] one value a group.

    >>> import jax.numpy as jnp
    >>> float(rrhf(jnp.array([-1.0, -0.5, -2.0]), jnp.array([2.0, 1.0, 0.0])))
    0.5

    Source: Yuan et al. 2023, RRHF, arXiv 2304.05302, Eq. 2.
    """
    lead, pairs = label_pairs(scores, labels, where)
    return sum_over_pairs(jax.nn.relu(-lead), pairs)


def listwise_softmax(
    scores: Float[Array, "*batch N"],
    labels: Labels,
    *,
    where: Mask = None,
    targets: Literal["softmax", "normalize"] = "softmax",
) -> Float[Array, "*batch"]:
    """Cross-entropy between the candidates' softmax and a target distribution made of the labels.

    −Σ_j p_j log softmax(s)_j,   p = softmax(labels)  or  p = labels / Σ labels

    A group whose labels are all equal says nothing of its candidates: its value is 0 and it counts for nothing
    (ListNet as printed would pull its scores together).

    Args:
        scores: [..., N].
        labels: [..., N]; for ``"normalize"`` not negative (a negative label weighs 0).
        where: [..., N].
        targets: ``"softmax"`` is ListNet's top-one distribution; ``"normalize"`` shares the mass in proportion to the
            labels: of right / wrong labels, evenly among the right ones.

    Returns:
        [...] one value a group; its least value is the entropy of p.

    Raises:
        ValueError: for unknown ``targets``, with the nearest.

    >>> import jax.numpy as jnp
    >>> scores, labels = jnp.array([0.0, 0.0]), jnp.array([1.0, 0.0])
    >>> round(float(listwise_softmax(scores, labels, targets="normalize")), 6)
    0.693147

    Source: Cao et al. 2007, ListNet (top-one probability); Bruch et al. 2019, An Analysis of the Softmax Cost
    Function for Learning to Rank, ICTIR (normalised labels).
    """
    one_of(targets, ("softmax", "normalize"), "targets")
    where = as_mask(where, scores)
    scores, labels = live(scores, where), live(labels, where)
    if targets == "softmax":
        p = jnp.where(where, jnp.exp(log_softmax(labels, where)), jnp.zeros_like(labels))
    else:
        mass = jax.nn.relu(labels)
        total = jnp.sum(mass, axis=-1, keepdims=True)
        p = mass / jnp.where(total > 0, total, jnp.ones_like(total))
    learns = jnp.any(above(labels, where), axis=(-2, -1))
    value = -jnp.sum(p.astype(scores.dtype) * log_softmax(scores, where), axis=-1)
    return jnp.where(learns, value, jnp.zeros_like(value))


def list_mle(
    scores: Float[Array, "*batch N"], labels: Labels, *, where: Mask = None, ties: Ties = "skip"
) -> Float[Array, "*batch"]:
    """ListMLE: negative log-likelihood of the ranking under the Plackett–Luce model.

    Σ_k log Σ_{i = k or i ranked below k} exp(s_i) − s_k

    Args:
        scores: [..., N].
        labels: [..., N].
        where: [..., N].
        ties: ``"skip"``: a candidate competes only with those of lower label, never with its equals, and those without
            any lower add nothing; it does not depend on the order of equals, and for one right among wrong candidates
            it is their softmax cross-entropy. ``"index"``: equal labels are ranked by index (a strict ranking).

    Returns:
        [...] one value a group, a sum over its candidates.

    Raises:
        ValueError: for unknown ``ties``, with the nearest.

    >>> import jax.numpy as jnp
    >>> round(float(list_mle(jnp.zeros(3), jnp.array([2.0, 1.0, 0.0]))), 6)  # log 3 + log 2
    1.791759

    Source: Xia et al. 2008, Listwise Approach to Learning to Rank, ICML (likelihood loss); Plackett 1975.
    """
    where = as_mask(where, scores)
    scores, labels = live(scores, where), live(labels, where)
    below = above(labels, where, ties)  # [..., k, i]: i is ranked below k
    contest = jnp.broadcast_to(scores[..., None, :], below.shape)
    return _contrast(contest, scores, below)


def pro(
    scores: Float[Array, "*batch N"], labels: Labels, *, where: Mask = None, differentiated: bool = True
) -> Float[Array, "*batch"]:
    """PRO: each candidate against all that are worse, more sharply where the labels are further apart.

    −Σ_k log  exp(s_k / T_k) / (exp(s_k / T_k) + Σ_{i below k} exp(s_i / T_ki)),
    1 / T_ki = label_k − label_i,  T_k = min_i T_ki;   without ``differentiated`` every T is 1

    Candidates of equal label are never contrasted (their T would be infinite). The paper adds β times the likelihood
    of the best response: that is the objective's ``mle_weight``.

    Args:
        scores: [..., N] log-probs divided by length (``length_power=1``).
        labels: [..., N], rewards: their differences are inverse temperatures, so their scale matters.
        where: [..., N].
        differentiated: whether the label differences set the temperatures.

    Returns:
        [...] one value a group, a sum over its candidates.

    >>> import jax.numpy as jnp
    >>> round(float(pro(jnp.zeros(2), jnp.array([3.0, 1.0]))), 6)
    0.693147

    Source: Song et al. 2023, Preference Ranking Optimization for Human Alignment, arXiv 2306.17492, Eq. 5 (ranking)
    and its section on differentiated contrast (temperatures).
    """
    where = as_mask(where, scores)
    scores, labels = live(scores, where), live(labels, where)
    below = above(labels, where)
    contest = jnp.broadcast_to(scores[..., None, :], below.shape)
    if not differentiated:
        return _contrast(contest, scores, below)
    sharpness = jnp.where(below, differences(labels), jnp.zeros_like(contest, labels.dtype)).astype(scores.dtype)
    return _contrast(contest * sharpness, scores * jnp.max(sharpness, axis=-1), below)


def _contrast(
    contest: Float[Array, "*batch N N"], own: Float[Array, "*batch N"], below: Bool[Array, "*batch N N"]
) -> Float[Array, "*batch"]:
    """Σ_k of log(exp(own_k) + Σ_{i below k} exp(contest_ki)) − own_k, over the k that have any below."""
    rivals = log_sum_exp(contest, below)
    lost = jax.nn.softplus(rivals - own)
    return jnp.sum(jnp.where(jnp.any(below, axis=-1), lost, jnp.zeros_like(lost)), axis=-1)
