"""Scores become numbers that can be added up."""

from __future__ import annotations

import math

import pytest

from jaxrefine.selection.probabilities import probabilities


def test_scores_become_probabilities_in_the_same_order() -> None:
    assert probabilities([-1000.0, 0.0, 1000.0], "reward") == (0.0, 0.5, 1.0)
    assert probabilities([-math.log(4), 0.0], "log-probability") == pytest.approx((0.25, 1.0))
    assert probabilities([0.25, 1.0], "probability") == (0.25, 1.0)
    with pytest.raises(ValueError, match=r"score 1 is 1.5, which is no probability; other kinds .* reward, prob"):
        probabilities([0.5, 1.5], "probability")
    with pytest.raises(ValueError, match="score 0 is 5000, which is no log-probability"):
        probabilities([5000.0], "log-probability")
