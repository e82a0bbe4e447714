"""Bradley–Terry strengths of competitors that all met, with intervals from a bootstrap over the prompts."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxrefine.evaluation.metrics import Interval
from jaxrefine.selection.tournament import Match
from jaxrefine.typing import Array, Float

_CHUNK = 64


def bradley_terry(
    wins: Float[Array, "... M M"], *, prior: float = 0.0, tolerance: float = 1e-9, max_rounds: int = 20_000
) -> Float[Array, "... M"]:
    """Strengths s of the model P(i beats j) = 1 / (1 + exp(s_j − s_i)), by maximum likelihood.

    Found by the minorisation p_i ← w_i / Σ_j n_ij / (p_i + p_j), p = exp(s), w_i the wins of i, n_ij the games.

    Args:
        wins: of the row's competitor against the column's; a tie is half a win for both. The diagonal is not read.
        prior: ties added to every pair. Without any, strengths are finite only where nobody won or lost everything
            and no group of competitors won all its games against the rest.
        tolerance: of a strength.
        max_rounds: of the iteration.

    Returns:
        Strengths (natural logarithm), of mean 0.

    Raises:
        ValueError: wins that are negative; no finite strengths, which a prior would give.

    >>> strengths = bradley_terry(np.array([[0.0, 3.0], [1.0, 0.0]]))
    >>> round(float(np.exp(strengths[0] - strengths[1])), 6)  # three wins to one
    3.0

    Source: Bradley & Terry 1952, doi:10.1093/biomet/39.3-4.324; Hunter 2004, doi:10.1214/aos/1079120141 (iteration).
    """
    given = np.asarray(wins, np.float64)
    size = given.shape[-1]
    if np.any(given < 0):
        raise ValueError(f"wins are not negative, got {given.min():g}")
    off = ~np.eye(size, dtype=bool)
    won = np.where(off, given + prior / 2, 0.0)
    games = won + np.swapaxes(won, -1, -2)
    total = won.sum(-1)
    if size > 1 and (np.any(total <= 0) or np.any(won.sum(-2) <= 0)):
        raise ValueError("a competitor without a win, or without a loss, has no finite strength: give a prior")
    strengths = np.zeros(given.shape[:-1])
    for _ in range(max_rounds):
        power = np.exp(strengths)
        both = power[..., :, None] + power[..., None, :]
        new = np.log(total) - np.log((games / both).sum(-1)) if size > 1 else strengths
        new = new - new.mean(-1, keepdims=True)
        change = np.max(np.abs(new - strengths), initial=0.0)
        strengths = new
        if change < tolerance:
            return strengths
    raise ValueError(f"no finite strengths in {max_rounds} rounds (last change {change:.1e}): give a prior")


def points(matches: Sequence[Match], competitors: Sequence[str]) -> Float[np.ndarray, "P M M"]:
    """Of each prompt: 1 where the row's competitor beat the column's, ½ in a tie, 0 for a loss or without a verdict.

    Args:
        matches: on the same prompts; each pair once.
        competitors: in the order of rows and columns.

    Raises:
        ValueError: matches of unequal lengths, a pair twice.
    """
    place = {name: number for number, name in enumerate(competitors)}
    lengths = {len(match.outcomes) for match in matches}
    if len(lengths) != 1:
        raise ValueError(f"matches on the same prompts are wanted, got {sorted(lengths) or 'none'}")
    table = np.zeros((lengths.pop(), len(place), len(place)))
    seen: set[frozenset[str]] = set()
    for match in matches:
        pair = frozenset((match.one, match.other))
        if pair in seen:
            raise ValueError(f"{match.one!r} and {match.other!r} met twice")
        seen.add(pair)
        i, j = place[match.one], place[match.other]
        outcomes = np.array(match.outcomes)
        table[:, i, j] = (outcomes == "first") + 0.5 * (outcomes == "tie")
        table[:, j, i] = (outcomes == "second") + 0.5 * (outcomes == "tie")
    return table


def strengths_of(
    matches: Sequence[Match],
    competitors: Sequence[str],
    *,
    prior: float = 1.0,
    num_resamples: int = 1000,
    seed: int = 0,
    confidence: float = 0.95,
) -> Mapping[str, Interval]:
    """The strength of every competitor of a round robin.

    Prompts are drawn again, P of P, and with each its outcomes in all matches: two strengths may be compared where
    their intervals are read together with that (they share their prompts).

    Args:
        matches: of ``round_robin``.
        competitors: all of them.
        prior: ties added to every pair; one, so that whoever won everything has a finite strength.
        num_resamples: of the bootstrap.
        seed: of the bootstrap.
        confidence: of the intervals.

    Returns:
        By competitor, the strongest first; the mean of all is 0.
    """
    table = points(matches, competitors)
    num = len(table)
    value = bradley_terry(table.sum(0), prior=prior)
    draws = np.random.default_rng(seed).multinomial(num, np.full(num, 1.0 / num), size=num_resamples)
    flat = table.reshape(num, -1)
    drawn = [
        bradley_terry((draws[start : start + _CHUNK] @ flat).reshape(-1, *table.shape[1:]), prior=prior, tolerance=1e-6)
        for start in range(0, num_resamples, _CHUNK)
    ]
    found = np.concatenate(drawn)
    tail = (1.0 - confidence) / 2.0
    low, high = np.quantile(found, [tail, 1.0 - tail], axis=0)
    error = found.std(0, ddof=1)
    order = np.argsort(-value, kind="stable")
    return {
        competitors[i]: Interval(
            value=float(value[i]), low=float(low[i]), high=float(high[i]), standard_error=float(error[i])
        )
        for i in order
    }
