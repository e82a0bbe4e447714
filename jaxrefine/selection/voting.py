"""Majority vote over the answers of several samples, with ties settled the same way every time."""

from __future__ import annotations

from collections.abc import Sequence


def majority_vote(answers: Sequence[str | None], *, weights: Sequence[float] | None = None) -> str | None:
    """The answer with the greatest total weight; among equals the one that was given first.

    winner = argmax_a Σ_i weights_i · [answers_i = a]

    Args:
        answers: canonical keys (``judging.answers.extract``); None, no answer, has no vote.
        weights: one a sample, not negative; without them every sample has one vote. With the scores of an evaluator
            as weights this is the weighted re-ranking of clusters.

    Returns:
        The winning key, or None where nobody answered.

    Raises:
        ValueError: where the weights are not one finite, non-negative number an answer.

    >>> majority_vote(["7", "9", None, "9", "7"])
    '7'
    >>> majority_vote(["7", "9", "9"], weights=[5.0, 1.0, 1.0])
    '7'

    Source: Wang et al. 2022, self-consistency (arXiv 2203.11171); W.RR of arXiv 2310.10047.
    """
    votes = [1.0] * len(answers) if weights is None else [float(weight) for weight in weights]
    if len(votes) != len(answers):
        raise ValueError(f"{len(votes)} weights for {len(answers)} answers: give one weight an answer")
    if bad := [vote for vote in votes if not 0.0 <= vote < float("inf")]:
        raise ValueError(f"vote weights must be finite and not negative, given {bad[0]}")
    totals: dict[str, float] = {}
    for answer, vote in zip(answers, votes, strict=True):
        if answer is not None:
            totals[answer] = totals.get(answer, 0.0) + vote
    return max(totals, key=totals.__getitem__) if totals else None
