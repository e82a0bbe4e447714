"""Bradley–Terry strengths by hand and against the likelihood itself, and intervals over prompts."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.optimize import minimize

from jaxrefine.evaluation.strengths import bradley_terry, points, strengths_of
from jaxrefine.selection.tournament import Match


def test_two_competitors_have_the_odds_of_their_games():
    found = bradley_terry(np.array([[0.0, 6.0], [2.0, 0.0]]))
    np.testing.assert_allclose(found, [math.log(3) / 2, -math.log(3) / 2], rtol=1e-6)
    with_ties = bradley_terry(np.array([[0.0, 3.0], [0.0, 0.0]]), prior=2.0)  # two ties: 4 wins to 1
    np.testing.assert_allclose(with_ties[0] - with_ties[1], math.log(4), rtol=1e-6)


def test_three_competitors_whose_odds_multiply():
    # a beats b at 2 : 1, b beats c at 3 : 1, a beats c at 6 : 1: the model holds exactly
    wins = np.array([[0, 2, 6], [1, 0, 3], [1, 1, 0]], float)
    found = bradley_terry(wins)
    np.testing.assert_allclose(found[0] - found[1], math.log(2), rtol=1e-6)
    np.testing.assert_allclose(found[1] - found[2], math.log(3), rtol=1e-6)
    np.testing.assert_allclose(found.sum(), 0, atol=1e-9)


def test_strengths_maximise_the_likelihood_of_the_games():
    wins = np.random.default_rng(0).integers(1, 9, (5, 5)).astype(float)
    np.fill_diagonal(wins, 0)

    def loss(strengths):
        difference = strengths[:, None] - strengths[None, :]
        return (wins * np.logaddexp(0, -difference)).sum()

    best = minimize(loss, np.zeros(5), tol=1e-12).x
    np.testing.assert_allclose(bradley_terry(wins), best - best.mean(), atol=1e-4)


def test_many_tables_at_once_are_each_by_itself():
    tables = np.random.default_rng(1).integers(1, 9, (3, 4, 4)).astype(float)
    alone = [bradley_terry(table) for table in tables]
    np.testing.assert_allclose(bradley_terry(tables), alone, atol=1e-7)


def test_whoever_won_everything_needs_a_prior():
    with pytest.raises(ValueError, match="without a win, or without a loss.* give a prior"):
        bradley_terry(np.array([[0.0, 1.0], [0.0, 0.0]]))
    # {a, b} won all their games against {c, d}, though each lost one
    wins = np.array([[0, 1, 5, 5], [1, 0, 5, 5], [0, 0, 0, 1], [0, 0, 1, 0]], float)
    with pytest.raises(ValueError, match="give a prior"):
        bradley_terry(wins, max_rounds=500)
    found = bradley_terry(wins, prior=1.0)
    np.testing.assert_allclose(found[0], found[1])
    assert found[0] > found[2]
    with pytest.raises(ValueError, match="wins are not negative"):
        bradley_terry(np.array([[0.0, -1.0], [1.0, 0.0]]))


def match(one: str, other: str, outcomes: str) -> Match:
    letters = {"1": "first", "2": "second", "=": "tie", "?": "unparsable"}
    return Match(one=one, other=other, outcomes=tuple(letters[x] for x in outcomes), questions=0)


def test_points_of_a_prompt_are_one_a_half_and_nought():
    table = points([match("a", "b", "12=?")], ("b", "a"))
    assert table[:, 1, 0].tolist() == [1.0, 0.0, 0.5, 0.0]
    assert table[:, 0, 1].tolist() == [0.0, 1.0, 0.5, 0.0]
    with pytest.raises(ValueError, match="'b' and 'a' met twice"):
        points([match("a", "b", "1"), match("b", "a", "1")], "ab")
    with pytest.raises(ValueError, match=r"same prompts are wanted, got \[1, 2\]"):
        points([match("a", "b", "1"), match("b", "c", "12")], "abc")


def test_strengths_come_in_order_with_intervals_that_hold_what_differs():
    matches = [match("a", "b", "1" * 30 + "2" * 10), match("a", "c", "1" * 36 + "2" * 4), match("b", "c", "12" * 20)]
    found = strengths_of(matches, "abc", num_resamples=200)
    assert next(iter(found)) == "a"
    assert found["a"].low > max(found["b"].high, found["c"].high)
    assert all(cell.low < cell.value < cell.high for cell in found.values())
    # with the prior of one tie a pair: the likelihood of 30.5 : 10.5, 36.5 : 4.5 and 20.5 : 20.5
    wins = np.array([[0, 30.5, 36.5], [10.5, 0, 20.5], [4.5, 20.5, 0]])
    np.testing.assert_allclose([found[name].value for name in "abc"], bradley_terry(wins), rtol=1e-6)


def test_the_same_outcome_at_every_prompt_leaves_no_room():
    found = strengths_of([match("a", "b", "11111")], "ab", num_resamples=50)
    assert found["a"].low == pytest.approx(found["a"].high) == pytest.approx(math.log(5.5 / 0.5) / 2, rel=1e-5)
