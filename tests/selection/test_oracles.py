"""What no selection can exceed, by hand and by counting."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrefine.selection.oracles import majority_at_n, pass_at_k, pass_at_n
from jaxrefine.selection.strategies import STRATEGIES, choose


def test_any_right_solution_is_enough() -> None:
    assert pass_at_n([False, False, True])
    assert not pass_at_n([False, False])
    assert not pass_at_n([])


def test_a_right_solution_counts_where_its_cluster_is_large_enough() -> None:
    clusters = ["a", "b", "b", "c", "c", None]
    right = [True, False, False, False, False, True]
    assert not majority_at_n(clusters, right, largest=1)  # b
    assert not majority_at_n(clusters, right, largest=2)  # b, c
    assert majority_at_n(clusters, right, largest=3)  # b, c, a


def test_of_equal_clusters_those_given_first_are_the_largest() -> None:
    assert majority_at_n(["a", "b"], [True, False], largest=1)
    assert not majority_at_n(["a", "b"], [False, True], largest=1)


def test_judgements_and_solutions_are_as_many() -> None:
    with pytest.raises(ValueError, match="1 judgements for 2 solutions"):
        majority_at_n(["a", "b"], [True])


@pytest.mark.parametrize(
    ("num_samples", "num_right", "k", "expected"),
    [
        (5, 0, 3, 0.0),
        (5, 2, 1, 0.4),  # 2 / 5
        (5, 2, 2, 0.7),  # 1 - (3 · 2) / (5 · 4)
        (5, 2, 3, 0.9),  # 1 - 1 / 10
        (5, 2, 4, 1.0),  # of four, one is right: only three are wrong
        (64, 1, 32, 0.5),
        (10_000, 1, 5_000, 0.5),
    ],
)
def test_unbiased_pass_at_k_by_hand(num_samples: int, num_right: int, k: int, expected: float) -> None:
    assert pass_at_k(num_samples, num_right, k) == expected


@given(st.lists(st.booleans(), min_size=1, max_size=7), st.data())
def test_unbiased_pass_at_k_is_the_mean_over_all_choices_of_k(right: list[bool], data: st.DataObject) -> None:
    k = data.draw(st.integers(1, len(right)))
    chosen = [pass_at_n(subset) for subset in itertools.combinations(right, k)]
    assert pass_at_k(len(right), sum(right), k) == pytest.approx(np.mean(chosen), rel=1e-12, abs=1e-15)


@pytest.mark.parametrize(
    ("given_", "reason"),
    [
        ((4, 5, 1), "num_right must be within 0 and num_samples = 4, given 5"),
        ((4, -1, 1), "num_right must be within 0 and num_samples = 4, given -1"),
        ((4, 1, 5), "k must be within 1 and num_samples = 4, given 5"),
        ((4, 1, 0), "k must be within 1 and num_samples = 4, given 0"),
    ],
)
def test_counts_that_cannot_be_are_refused(given_: tuple[int, int, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        pass_at_k(*given_)


@pytest.mark.parametrize("name", STRATEGIES)
@given(data=st.data())
def test_no_strategy_exceeds_its_oracle(name: str, data: st.DataObject) -> None:
    clusters = data.draw(st.lists(st.sampled_from(["a", "b", "c"]), min_size=1, max_size=8))
    scores = np.array([data.draw(st.integers(0, 3)) / 3 for _ in clusters])
    largest = data.draw(st.integers(1, 3))
    right = [cluster == "a" for cluster in clusters]
    chosen = choose(name, clusters, scores, largest=largest)
    assert chosen is not None
    assert right[chosen] <= pass_at_n(right)
    if STRATEGIES[name].reads == "largest":
        assert right[chosen] <= majority_at_n(clusters, right, largest=largest)
