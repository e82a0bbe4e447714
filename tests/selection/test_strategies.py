"""Every strategy by hand, ties included; and what the whole table has in common."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrefine.selection.clusters import by_size, in_largest
from jaxrefine.selection.rerank import best_of_n
from jaxrefine.selection.strategies import (
    STRATEGIES,
    choose,
    majority,
    majority_of_best,
    rerank,
    weighted_rerank,
)
from jaxrefine.selection.voting import majority_vote

#          0    1    2    3    4     5    6    7
ANSWERS = ["a", "b", "b", "a", None, "c", "b", "d"]
SCORES = np.array([0.5, 0.2, 0.3, 0.45, 0.99, 0.9, 0.1, 0.8])
"""Clusters: b of three (sum 0.6), a of two (0.95), c (0.9), d (0.8); solution 4 states no answer."""


def test_clusters_are_ordered_by_size_and_then_by_their_first_solution() -> None:
    assert by_size(ANSWERS) == [[1, 2, 6], [0, 3], [5], [7]]
    assert in_largest(ANSWERS, 3) == [0, 1, 2, 3, 5, 6]
    assert in_largest(ANSWERS) == [0, 1, 2, 3, 5, 6, 7]
    assert in_largest(ANSWERS, 99) == in_largest(ANSWERS)


@pytest.mark.parametrize(
    ("name", "options", "chosen"),
    [
        ("maj1", {}, 1),  # b has three votes
        ("rr_all", {}, 5),  # 0.9, for 4 has no answer
        ("rr_majk", {"largest": 1}, 2),  # the best of b
        ("rr_majk", {"largest": 2}, 0),  # the best of b and a
        ("rr_majk", {"largest": 3}, 5),  # c comes in before d, which was given later
        ("w_rr", {}, 0),  # a 0.95, c 0.9, d 0.8, b 0.6
        ("w_rr_majk", {"largest": 1}, 2),
        ("w_rr_majk", {"largest": 2}, 0),
        ("maj1_topn", {"top": 1}, 5),  # c alone
        ("maj1_topn", {"top": 2}, 5),  # c, d: one vote each, c was given first
        ("maj1_topn", {"top": 3}, 0),  # c, d, a: one vote each, a was given first
        ("maj1_topn", {"top": 4}, 0),  # c, d, a, a
        ("maj1_topn", {"top": 6}, 0),  # c, d, a, a, b, b: a was given first
        ("maj1_topn", {"top": 7}, 2),  # everyone: b, and the best of b
    ],
)
def test_strategies_by_hand(name: str, options: dict[str, Any], chosen: int) -> None:
    assert choose(name, ANSWERS, SCORES, **options) == chosen


@pytest.mark.parametrize(
    ("name", "clusters", "scores", "options", "chosen"),
    [
        ("maj1", ["a", "b", "b", "a"], [0.1, 0.9, 0.9, 0.1], {}, 0),
        ("rr_all", ["a", "b", "b"], [0.4, 0.7, 0.7], {}, 1),
        ("rr_majk", ["a", "b", "c"], [0.1, 0.5, 0.5], {"largest": 2}, 1),
        ("rr_majk", ["a", "b"], [0.1, 0.5], {"largest": 1}, 0),  # equal clusters: a keeps the only place
        ("w_rr", ["a", "b", "b"], [0.5, 0.25, 0.25], {}, 0),
        ("w_rr", ["b", "a", "b"], [0.25, 0.5, 0.25], {}, 0),
        ("w_rr_majk", ["c", "b", "a", "b", "a"], [0.9, 0.25, 0.25, 0.25, 0.25], {"largest": 2}, 1),
        ("maj1_topn", ["a", "b", "c"], [0.5, 0.5, 0.5], {"top": 2}, 0),
        ("maj1_topn", ["c", "b", "b"], [0.5, 0.5, 0.5], {"top": 2}, 0),  # the border: 0 and 1 vote, 2 does not
    ],
)
def test_ties_go_to_what_was_given_first(
    name: str, clusters: list[str], scores: list[float], options: dict[str, Any], chosen: int
) -> None:
    assert choose(name, clusters, np.array(scores), **options) == chosen


def test_equal_sums_are_equal_in_any_order_of_the_solutions() -> None:
    """0.1 ten times is less than 1.0 when added one after the other; W.RR adds real numbers."""
    clusters, scores = ["one"] + ["ten"] * 10, np.array([1.0] + [0.1] * 10)
    assert sum([0.1] * 10) < 1.0
    assert weighted_rerank(clusters, scores) == 0
    assert weighted_rerank(clusters[::-1], scores[::-1]) == 0  # ten is given first now, and its sum rounds to 1.0


def test_costs_by_hand() -> None:
    assert {name: len(STRATEGIES[name].scored(ANSWERS, largest=2)) for name in STRATEGIES} == {
        "maj1": 0,
        "rr_all": 7,
        "rr_majk": 5,
        "w_rr": 7,
        "w_rr_majk": 5,
        "maj1_topn": 7,
    }


ids = st.lists(st.sampled_from(["a", "b", "c", "d", None]), min_size=1, max_size=9)


@st.composite
def problems(draw: st.DrawFn) -> tuple[list[str | None], np.ndarray, dict[str, int]]:
    clusters = draw(ids)
    scores = draw(st.lists(st.integers(0, 4), min_size=len(clusters), max_size=len(clusters)))
    options = {"largest": draw(st.integers(1, 5)), "top": draw(st.integers(1, 9))}
    return clusters, np.array(scores, np.float64) / 4, options


@pytest.mark.parametrize("name", STRATEGIES)
class TestEveryStrategy:
    """What holds of each row of the table."""

    @given(problems())
    def test_it_chooses_a_solution_with_an_answer_or_nothing(self, name: str, problem: Any) -> None:
        clusters, scores, options = problem
        chosen = choose(name, clusters, scores, **options)
        if any(cluster is not None for cluster in clusters):
            assert chosen is not None
            assert clusters[chosen] is not None
        else:
            assert chosen is None

    @given(problems())
    def test_it_reads_no_score_but_those_that_it_says_it_needs(self, name: str, problem: Any) -> None:
        clusters, scores, options = problem
        needed = STRATEGIES[name].scored(clusters, largest=options["largest"])
        hidden = np.full(len(clusters), np.nan)
        hidden[needed] = scores[needed]
        assert choose(name, clusters, hidden, **options) == choose(name, clusters, scores, **options)

    @given(problems())
    def test_the_names_of_clusters_do_not_matter(self, name: str, problem: Any) -> None:
        clusters, scores, options = problem
        renamed = [None if cluster is None else ("key", cluster) for cluster in clusters]
        assert choose(name, renamed, scores, **options) == choose(name, clusters, scores, **options)

    @given(problems())
    def test_twice_the_scores_choose_the_same(self, name: str, problem: Any) -> None:
        clusters, scores, options = problem
        assert choose(name, clusters, 2 * scores, **options) == choose(name, clusters, scores, **options)

    @given(problems())
    def test_where_only_their_order_counts_rewards_below_zero_will_do(self, name: str, problem: Any) -> None:
        clusters, scores, options = problem
        if STRATEGIES[name].sums:
            return
        assert choose(name, clusters, scores - 9.0, **options) == choose(name, clusters, scores, **options)

    @given(ids)
    def test_right_and_wrong_scored_as_one_and_zero_finds_what_is_right(
        self, name: str, clusters: list[str | None]
    ) -> None:
        """With an evaluator that is never wrong, every strategy that reads all scores has a right answer, if any."""
        if STRATEGIES[name].reads != "all" or "a" not in clusters:
            return
        scores = np.array([1.0 if cluster == "a" else 0.0 for cluster in clusters])
        chosen = choose(name, clusters, scores, top=clusters.count("a"))
        assert chosen is not None
        assert clusters[chosen] == "a"

    def test_a_nan_that_is_read_is_refused(self, name: str) -> None:
        if STRATEGIES[name].reads == "nothing":
            return
        with pytest.raises(ValueError, match="score 1 is (NaN|nan)"):
            choose(name, ["a", "b"], np.array([0.5, np.nan]))

    def test_a_score_too_few_is_refused(self, name: str) -> None:
        if STRATEGIES[name].reads == "nothing":
            return
        with pytest.raises(ValueError, match=r"scores of shape \(1,\) for 2 solutions"):
            choose(name, ["a", "b"], np.array([0.5]))


@given(problems())
def test_without_a_limit_on_clusters_the_pairs_of_strategies_agree(problem: Any) -> None:
    clusters, scores, _ = problem
    most = max(len(clusters), 1)
    assert rerank(clusters, scores, largest=most) == rerank(clusters, scores)
    assert weighted_rerank(clusters, scores, largest=most) == weighted_rerank(clusters, scores)


@given(problems())
def test_equal_scores_leave_the_vote_to_decide(problem: Any) -> None:
    clusters, _, _ = problem
    same = np.ones(len(clusters))
    assert weighted_rerank(clusters, same) == majority(clusters)
    assert majority_of_best(clusters, same, top=len(clusters)) == majority(clusters)
    assert rerank(clusters, same, largest=1) == majority(clusters)


@given(ids)
def test_the_vote_is_that_of_the_other_function(clusters: list[str | None]) -> None:
    chosen = majority(clusters)
    assert (None if chosen is None else clusters[chosen]) == majority_vote(clusters)


@given(problems())
def test_the_best_solution_is_that_of_best_of_n(problem: Any) -> None:
    clusters, scores, _ = problem
    answered = np.array([cluster is not None for cluster in clusters])
    expected = best_of_n(scores, where=answered).item() if answered.any() else None
    assert rerank(clusters, scores) == expected


@given(problems())
def test_the_weighted_vote_is_that_of_the_other_function(problem: Any) -> None:
    """Scores here are quarters, so that sums in any order are exact."""
    clusters, scores, _ = problem
    chosen = weighted_rerank(clusters, scores)
    assert (None if chosen is None else clusters[chosen]) == majority_vote(clusters, weights=scores.tolist())


@pytest.mark.parametrize("score", [-0.1, -np.inf, np.inf])
def test_sums_refuse_scores_that_are_no_weights(score: float) -> None:
    with pytest.raises(ValueError, match=r"give probabilities, such as 1 / \(1 \+ exp\(-reward\)\)"):
        weighted_rerank(["a", "b"], np.array([0.5, score]))


def test_what_cannot_be_chosen_is_named() -> None:
    with pytest.raises(ValueError, match="did you mean 'rr_majk'"):
        choose("rr_maj", ["a"], np.array([0.5]))
    with pytest.raises(ValueError, match=r"W\.RR re-ranks by scores, and none were given"):
        choose("w_rr", ["a"])
    with pytest.raises(ValueError, match="largest, the number of clusters, must be at least 1, given 0"):
        choose("rr_majk", ["a"], np.array([0.5]), largest=0)
    with pytest.raises(ValueError, match="top, the number of solutions that vote, must be at least 1, given 0"):
        choose("maj1_topn", ["a"], np.array([0.5]), top=0)
