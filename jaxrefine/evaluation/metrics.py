"""Ranking accuracy, and intervals from a bootstrap over seeds and prompts, paired between variants.

A comparison is a table of values [S P]: one a seed of training and a held-out prompt. Seeds and prompts are crossed
(every seed answers the same prompts), so both are drawn again with replacement, independently, and all variants are
measured on the same draws: differences are paired. NaN marks a cell that does not count.
"""

from __future__ import annotations

import dataclasses

import numpy as np
from scipy.stats import norm

from jaxrefine.typing import Array, Bool, Float

_CHUNK = 1024


@dataclasses.dataclass(frozen=True, kw_only=True)
class Interval:
    """An estimate with its 95 % interval and the standard error behind it."""

    value: float
    low: float
    high: float
    standard_error: float

    def excludes_zero(self) -> bool:
        """Whether zero lies outside the interval."""
        return self.low > 0.0 or self.high < 0.0


@dataclasses.dataclass(frozen=True)
class Resamples:
    """How often each seed and each prompt was drawn, one row a resample; shared by all that is to be paired."""

    seeds: Float[Array, "R S"]
    prompts: Float[Array, "R P"]


def make_resamples(num_seeds: int, num_prompts: int, *, num_resamples: int = 4000, seed: int = 0) -> Resamples:
    """Draws for a crossed bootstrap: n − 1 of n seeds and n − 1 of n prompts, with replacement.

    Drawing n − 1 rather than n makes the variance of a mean unbiased, σ²/n instead of σ²/n · (n − 1)/n: with three
    seeds the usual bootstrap would miss a third of the variance between them. A single seed (or prompt) is always
    drawn, and the interval then says nothing of others.

    Args:
        num_seeds: S, rows of the tables to come.
        num_prompts: P, their columns.
        num_resamples: R.
        seed: of the draws.

    Returns:
        The counts, to be given to `bootstrap` and `paired_difference`.

    Raises:
        ValueError: where a number is not positive.

    >>> make_resamples(3, 5, num_resamples=2).prompts.sum(axis=1).tolist()
    [4.0, 4.0]

    Source: McCarthy & Snowden 1985 (n − 1 draws); Owen 2007, "The pigeonhole bootstrap" (crossed factors: never too
    small, and at most three times the variance where only the noise of single cells matters).
    """
    for name, value in (("num_seeds", num_seeds), ("num_prompts", num_prompts), ("num_resamples", num_resamples)):
        if value < 1:
            raise ValueError(f"{name} must be at least 1, given {value}")
    generator = np.random.default_rng(seed)

    def draw(size: int) -> Float[Array, "R n"]:
        counts = generator.multinomial(max(size - 1, 1), np.full(size, 1.0 / size), size=num_resamples)
        return counts.astype(np.float64)

    return Resamples(seeds=draw(num_seeds), prompts=draw(num_prompts))


def bootstrap(values: Float[Array, "S P"], resamples: Resamples, *, confidence: float = 0.95) -> Interval:
    """The mean over the cells that count, with its percentile interval.

    mean_r = Σ_sp a_rs b_rp x_sp / Σ_sp a_rs b_rp [x_sp counts],  a, b: how often seed s and prompt p were drawn

    Args:
        values: one a seed and prompt; NaN does not count.
        resamples: of `make_resamples(S, P)`.
        confidence: of the interval.

    Returns:
        The estimate; all NaN where no cell counts.

    Raises:
        ValueError: where the draws are for another shape.

    >>> table = np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0]])
    >>> estimate = bootstrap(table, make_resamples(2, 4))
    >>> estimate.value, 0.0 <= estimate.low < estimate.value < estimate.high <= 1.0
    (0.625, True)
    """
    table = np.asarray(values, dtype=np.float64)
    if table.shape != (resamples.seeds.shape[1], resamples.prompts.shape[1]):
        expected = (resamples.seeds.shape[1], resamples.prompts.shape[1])
        raise ValueError(f"values of shape {table.shape} with draws for {expected}: make_resamples(*values.shape)")
    counted = ~np.isnan(table)
    if not counted.any():
        return Interval(value=np.nan, low=np.nan, high=np.nan, standard_error=np.nan)
    filled, mask = np.where(counted, table, 0.0), counted.astype(np.float64)
    chunks = [slice(start, start + _CHUNK) for start in range(0, len(resamples.seeds), _CHUNK)]
    parts = [_weighted_means(filled, mask, resamples.seeds[chunk], resamples.prompts[chunk]) for chunk in chunks]
    means = np.concatenate(parts)
    means = means[~np.isnan(means)]
    value = float(filled.sum() / mask.sum())
    if len(means) < 2:
        return Interval(value=value, low=np.nan, high=np.nan, standard_error=np.nan)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(means, [tail, 1.0 - tail])
    return Interval(value=value, low=float(low), high=float(high), standard_error=float(means.std(ddof=1)))


def paired_difference(
    values: Float[Array, "S P"], control: Float[Array, "S P"], resamples: Resamples, *, confidence: float = 0.95
) -> Interval:
    """The mean of values − control over the cells that count in both, with its interval from the same draws.

    Args:
        values: of the variant, one a seed and prompt.
        control: of the control, for the same seeds and prompts.
        resamples: of `make_resamples(S, P)`.
        confidence: of the interval.

    Returns:
        The difference; positive where the variant is higher.

    >>> paired_difference(np.ones((2, 3)), np.zeros((2, 3)), make_resamples(2, 3))
    Interval(value=1.0, low=1.0, high=1.0, standard_error=0.0)
    """
    return bootstrap(np.asarray(values, np.float64) - np.asarray(control, np.float64), resamples, confidence=confidence)


def smallest_detectable(standard_error: float, *, confidence: float = 0.95, power: float = 0.8) -> float:
    """The smallest true difference that a run with this standard error would have found in `power` of all repetitions.

    (z_{1 − (1 − confidence)/2} + z_power) · standard_error = 2.80 · standard_error by default.

    Args:
        standard_error: of the paired difference.
        confidence: of the interval that must exclude zero.
        power: share of repetitions in which it does.

    Returns:
        A difference in the metric's own unit.

    >>> round(smallest_detectable(0.01), 4)
    0.028

    Source: Cohen 1988, Statistical Power Analysis, §2; Bloom 1995, minimum detectable effects.
    """
    return float((norm.ppf(1.0 - (1.0 - confidence) / 2.0) + norm.ppf(power)) * standard_error)


def ranking_accuracy(
    scores: Float[Array, "... N"], labels: Float[Array, "... N"], *, where: Bool[Array, "... N"] | None = None
) -> Float[Array, " ..."]:
    """The share of a group's pairs with different labels that the scores order as the labels do; equal scores are half.

    Args:
        scores: of the scorer, higher is better.
        labels: higher is better; right / wrong is 1 / 0.
        where: candidates that take part; without it all of them.

    Returns:
        One value a group in [0, 1]; NaN for a group without a pair.

    >>> ranking_accuracy(np.array([-1.0, -2.0, -1.5]), np.array([1.0, 0.0, 1.0])).item()
    1.0
    """
    s, y = np.asarray(scores, np.float64), np.asarray(labels, np.float64)
    seen = np.ones(s.shape, bool) if where is None else np.asarray(where)
    pairs = (y[..., :, None] > y[..., None, :]) & seen[..., :, None] & seen[..., None, :]
    ahead = np.where(seen, s, 0.0)
    wins = np.where(pairs, 0.5 + 0.5 * np.sign(ahead[..., :, None] - ahead[..., None, :]), 0.0).sum((-1, -2))
    total = pairs.sum((-1, -2))
    return np.where(total > 0, wins / np.maximum(total, 1), np.nan)


def roc_auc(
    scores: Float[Array, " n"], labels: Float[Array, " n"], *, weights: Float[Array, " n"] | None = None
) -> float:
    """The area under the ROC curve: how often a right candidate outscores a wrong one; equal scores are half.

    AUC = Σ_{right i, wrong j} w_i w_j ([s_i > s_j] + ½ [s_i = s_j]) / Σ_{right i, wrong j} w_i w_j

    Args:
        scores: higher is better.
        labels: right where above 0.
        weights: of each, not negative; without them every one counts once.

    Returns:
        A value in [0, 1], 0.5 by chance; NaN where all are right or all are wrong.

    >>> roc_auc(np.array([0.9, 0.8, 0.3, 0.3]), np.array([1.0, 0.0, 1.0, 0.0]))
    0.625
    """
    values, places = np.unique(np.asarray(scores, np.float64), return_inverse=True)
    weight = np.ones(len(places)) if weights is None else np.asarray(weights, np.float64)
    is_right = np.asarray(labels) > 0
    right = np.bincount(places, weight * is_right, minlength=len(values))
    wrong = np.bincount(places, weight * ~is_right, minlength=len(values))
    pairs = right.sum() * wrong.sum()
    won = float(right @ (np.cumsum(wrong) - 0.5 * wrong))
    return won / float(pairs) if pairs > 0 else float("nan")


def _weighted_means(
    filled: Float[Array, "S P"], mask: Float[Array, "S P"], seeds: Float[Array, "r S"], prompts: Float[Array, "r P"]
) -> Float[Array, " r"]:
    sums = ((seeds @ filled) * prompts).sum(1)
    counts = ((seeds @ mask) * prompts).sum(1)
    return np.where(counts > 0, sums / np.maximum(counts, 1.0), np.nan)
