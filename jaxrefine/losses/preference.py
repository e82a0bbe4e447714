"""Preference losses, from pairs to groups: the mean over all pairs of a group with label_j > label_k.

For N = 2 and two different labels each is its paper's loss of one comparison. Equal labels make no pair. Scores are
sequence log-probs; those that compare with a reference model take its scores too, computed once and stored.

KTO is left out: its baseline wants responses to other prompts, which no batch here holds.
"""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp

from jaxrefine.losses.pairwise import label_pairs
from jaxrefine.losses.reduction import Labels, Mask, as_mask, live, mean_over_pairs, number
from jaxrefine.typing import Array, Float

_LARGEST_LOG_PROB = -1e-6


def dpo(
    scores: Float[Array, "*batch N"],
    reference_scores: Float[Array, "*batch N"],
    labels: Labels,
    *,
    where: Mask = None,
    beta: float = 0.1,
) -> Float[Array, "*batch"]:
    """Direct preference optimisation.

    mean over label_j > label_k of  −log σ(β [(s_j − ref_j) − (s_k − ref_k)])

    Args:
        scores: [..., N] summed log-probs in nats (``length_power=0``).
        reference_scores: [..., N] the same of the reference model.
        labels: [..., N].
        where: [..., N].
        beta: β > 0, the weight of staying near the reference.

    Returns:
        [...] one value a group.

    Raises:
        ValueError: for β that is not above 0.

    >>> import jax.numpy as jnp
    >>> scores, reference = jnp.array([-10.0, -12.0]), jnp.array([-11.0, -11.0])
    >>> round(float(dpo(scores, reference, jnp.array([1.0, 0.0]))), 6)  # −log σ(0.1 · 2)
    0.598139

    Source: Rafailov et al. 2023, Direct Preference Optimization, arXiv 2305.18290, Eq. 7.
    """
    number(beta, "beta")
    ratios, pairs = label_pairs(_log_ratios(scores, reference_scores, where), labels, where)
    return mean_over_pairs(jax.nn.softplus(-beta * ratios), pairs)


def ipo(
    scores: Float[Array, "*batch N"],
    reference_scores: Float[Array, "*batch N"],
    labels: Labels,
    *,
    where: Mask = None,
    beta: float = 0.1,
) -> Float[Array, "*batch"]:
    """Identity preference optimisation: the log-ratios shall differ by 1/(2β), not by as much as possible.

    mean over label_j > label_k of  ([(s_j − ref_j) − (s_k − ref_k)] − 1/(2β))²

    Args:
        scores: [..., N] summed log-probs in nats (``length_power=0``; some implementations average instead).
        reference_scores: [..., N] the same of the reference model.
        labels: [..., N].
        where: [..., N].
        beta: the paper's τ > 0.

    Returns:
        [...] one value a group, in nats².

    Raises:
        ValueError: for β that is not above 0.

    >>> import jax.numpy as jnp
    >>> scores, reference = jnp.array([-10.0, -12.0]), jnp.array([-11.0, -11.0])
    >>> float(ipo(scores, reference, jnp.array([1.0, 0.0]), beta=0.25))  # (2 − 2)²
    0.0

    Source: Azar et al. 2023, A General Theoretical Paradigm to Understand Learning from Human Preferences,
    arXiv 2310.12036, Eq. 17.
    """
    number(beta, "beta")
    ratios, pairs = label_pairs(_log_ratios(scores, reference_scores, where), labels, where)
    return mean_over_pairs(jnp.square(ratios - 1 / (2 * beta)), pairs)


def simpo(
    scores: Float[Array, "*batch N"], labels: Labels, *, where: Mask = None, beta: float = 2.0, margin: float = 1.0
) -> Float[Array, "*batch"]:
    """Simple preference optimisation: length-normalised log-probs, a target margin, no reference.

    mean over label_j > label_k of  −log σ(β (s_j − s_k) − margin)

    Args:
        scores: [..., N] log-probs divided by length (``length_power=1``).
        labels: [..., N].
        where: [..., N].
        beta: β > 0; the paper searches 2.0 to 2.5.
        margin: γ ≥ 0, in the units of β · score; the paper searches 0.3 to 1.6.

    Returns:
        [...] one value a group.

    Raises:
        ValueError: for β not above 0 or a negative margin.

    >>> import jax.numpy as jnp
    >>> round(float(simpo(jnp.array([-1.0, -1.5]), jnp.array([1.0, 0.0]))), 6)  # −log σ(2 · 0.5 − 1)
    0.693147

    Source: Meng et al. 2024, SimPO, arXiv 2405.14734, Eq. 6.
    """
    number(beta, "beta")
    number(margin, "margin", inclusive=True)
    lead, pairs = label_pairs(scores, labels, where)
    return mean_over_pairs(jax.nn.softplus(margin - beta * lead), pairs)


def orpo(scores: Float[Array, "*batch N"], labels: Labels, *, where: Mask = None) -> Float[Array, "*batch"]:
    """Odds-ratio preference optimisation, the odds-ratio term.

    mean over label_j > label_k of  −log σ(logit_j − logit_k),   logit = s − log(1 − exp s)

    The paper's loss is likelihood of the better response + λ times this: the likelihood comes through the
    objective's ``mle_weight``, λ is the objective's ``weight``.

    Args:
        scores: [..., N] log-probs divided by length (``length_power=1``), below 0; those above −1e-6 are taken as
            −1e-6, without gradient, since the odds of a certain response are infinite.
        labels: [..., N].
        where: [..., N].

    Returns:
        [...] one value a group.

    >>> import jax.numpy as jnp
    >>> scores = jnp.log(jnp.array([0.75, 0.25]))  # odds 3 and 1/3
    >>> round(float(orpo(scores, jnp.array([1.0, 0.0]))), 6)  # −log σ(log 9) = log(10/9)
    0.105361

    Source: Hong et al. 2024, ORPO, arXiv 2403.07691, Eq. 7 (odds: Eq. 4; with the likelihood: Eq. 6).
    """
    where = as_mask(where, scores)
    lead, pairs = label_pairs(_log_odds(live(scores, where)), labels, where)
    return mean_over_pairs(jax.nn.softplus(-lead), pairs)


def cpo(
    scores: Float[Array, "*batch N"], labels: Labels, *, where: Mask = None, beta: float = 0.1
) -> Float[Array, "*batch"]:
    """Contrastive preference optimisation, the preference term: DPO with a uniform reference.

    mean over label_j > label_k of  −log σ(β (s_j − s_k))

    The paper's loss is this + the negative log-likelihood of the better response, which comes through the
    objective's ``mle_weight``.

    Args:
        scores: [..., N] summed log-probs in nats (``length_power=0``).
        labels: [..., N].
        where: [..., N].
        beta: β > 0.

    Returns:
        [...] one value a group.

    Raises:
        ValueError: for β that is not above 0.

    >>> import jax.numpy as jnp
    >>> round(float(cpo(jnp.array([-10.0, -12.0]), jnp.array([1.0, 0.0]))), 6)  # −log σ(0.1 · 2)
    0.598139

    Source: Xu et al. 2024, Contrastive Preference Optimization, arXiv 2401.08417, Sec. 3 (L_prefer).
    """
    number(beta, "beta")
    lead, pairs = label_pairs(scores, labels, where)
    return mean_over_pairs(jax.nn.softplus(-beta * lead), pairs)


def _log_ratios(
    scores: Float[Array, "*batch N"], reference_scores: Float[Array, "*batch N"], where: Mask
) -> Float[Array, "*batch N"]:
    where = as_mask(where, scores)
    scores = live(scores, where)
    return scores - jax.lax.stop_gradient(live(reference_scores, where)).astype(scores.dtype)


def _log_odds(log_probs: Float[Array, "*batch N"]) -> Float[Array, "*batch N"]:
    """Log p − log(1 − p) from log p < 0, exact at both ends: expm1 near p = 1, log1p near p = 0."""
    bounded = jnp.minimum(log_probs, jnp.full_like(log_probs, _LARGEST_LOG_PROB))
    near_one = bounded > -math.log(2)
    small = jnp.where(near_one, jnp.full_like(bounded, -1.0), bounded)  # each branch sees only what it can bear
    large = jnp.where(near_one, bounded, jnp.full_like(bounded, -0.5))
    return bounded - jnp.where(near_one, jnp.log(-jnp.expm1(large)), jnp.log1p(-jnp.exp(small)))
