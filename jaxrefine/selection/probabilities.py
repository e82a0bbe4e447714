"""Scores of evaluators as numbers that can be added up, whatever the evaluator says."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import numpy as np
from scipy.special import expit

ScoreKind = Literal["reward", "probability", "log-probability"]


def probabilities(scores: Sequence[float], kind: ScoreKind) -> tuple[float, ...]:
    """Scores of one problem's solutions as numbers between 0 and 1 in the same order, which can be added up.

    Args:
        scores: of an evaluator.
        kind: a reward r becomes 1 / (1 + exp(−r)), a log-probability l exp(l); a probability stays.

    Raises:
        ValueError: a probability that is none, by its place.

    >>> probabilities([0.0], "reward"), probabilities([0.25], "probability"), probabilities([0.0], "log-probability")
    ((0.5,), (0.25,), (1.0,))
    """
    values = np.asarray(scores, np.float64)
    if kind == "reward":
        values = expit(values)
    elif kind == "log-probability":
        values = np.exp(np.minimum(values, 1.0))  # what is above 0 stays above 1, without an overflow
    for place, value in enumerate(values):
        if not 0.0 <= value <= 1.0:
            raise ValueError(
                f"score {place} is {scores[place]:g}, which is no {kind}; other kinds of scores: --score-kind "
                f"{', '.join(get_args(ScoreKind))}"
            )
    return tuple(values.tolist())
