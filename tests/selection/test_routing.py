"""Queries go where a strategy says, with ties and unknown rewards; cost and quality are traded as worked by hand."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrefine.selection.routing import (
    always,
    best_on_average,
    by_chance,
    cost_curve,
    oracle,
    quality,
    route,
)

NAN = np.nan
REWARDS = np.array([[1.0, 0.0, 0.5], [0.0, 0.0, 1.0], [0.25, NAN, 0.25]])


def test_a_query_goes_to_the_most_probable_model_and_to_the_first_of_equals() -> None:
    found = route(np.array([[0.1, 0.7, 0.2], [0.4, 0.2, 0.4]]))
    np.testing.assert_array_equal(found, [[0, 1, 0], [1, 0, 0]])


def test_a_model_that_may_not_be_chosen_is_not_however_probable_it_is() -> None:
    found = route(np.array([[0.1, 0.7], [0.1, 0.7]]), where=np.array([[True, False], [False, False]]))
    np.testing.assert_array_equal(found, [[1, 0], [NAN, NAN]])


def test_the_oracle_takes_the_highest_reward_that_is_known() -> None:
    np.testing.assert_array_equal(oracle(REWARDS), [[1, 0, 0], [0, 0, 1], [1, 0, 0]])
    np.testing.assert_array_equal(oracle(np.array([[-2.0, NAN], [NAN, NAN]])), [[1, 0], [NAN, NAN]])


def test_the_best_on_average_is_judged_by_its_known_rewards() -> None:
    """Means 5/12, 0 of two, 7/12; and a model that nobody asked is never the best."""
    assert best_on_average(REWARDS) == 2
    assert best_on_average(np.array([[NAN, -1.0], [NAN, -3.0]])) == 1
    assert best_on_average(np.array([[1.0, 1.0]])) == 0
    with pytest.raises(ValueError, match="no reward of any model is known"):
        best_on_average(np.array([[NAN, NAN]]))


def test_the_quality_of_an_assignment_is_the_reward_of_its_models() -> None:
    np.testing.assert_array_equal(quality(oracle(REWARDS), REWARDS), [1.0, 1.0, 0.25])
    np.testing.assert_array_equal(quality(always(1, REWARDS.shape), REWARDS), [0.0, 0.0, NAN])
    np.testing.assert_array_equal(quality(by_chance(~np.isnan(REWARDS)), REWARDS), [0.5, 1 / 3, 0.25])


def test_dearer_models_are_given_up_in_the_order_of_what_they_promise() -> None:
    """The dear model promises 0.2, 0.6 and −0.1 more: the last query never goes there, the second one longest."""
    scores = np.array([[0.4, 0.6], [0.2, 0.8], [0.55, 0.45]])
    rewards = np.array([[0.0, 1.0], [0.0, 1.0], [1.0, 1.0]])
    found = cost_curve(scores, np.array([0.0, 3.0]), rewards)
    assert [point.cost for point in found] == [2.0, 1.0, 0.0]
    assert [point.quality for point in found] == pytest.approx([1.0, 2 / 3, 1 / 3])
    assert found[1].assignment.argmax(1).tolist() == [0, 1, 0]
    assert [point.price for point in found] == pytest.approx([0.0, 0.2 / 3, 0.2])


def test_a_curve_of_many_models_ends_at_the_cheapest_and_never_gets_dearer() -> None:
    rng = np.random.default_rng(0)
    found = cost_curve(
        rng.dirichlet(np.ones(4), 200), np.array([1.0, 2.0, 4.0, 8.0]), rng.random((200, 4)), num_points=9
    )
    costs = [point.cost for point in found]
    assert costs == sorted(costs, reverse=True)
    assert len(costs) == 9
    assert costs[-1] == 1.0


@pytest.mark.parametrize("costs", [[1.0, -1.0], [1.0, NAN]])
def test_costs_that_cannot_be_are_refused(costs: list[float]) -> None:
    with pytest.raises(ValueError, match="costs are 2 numbers, none below 0"):
        cost_curve(np.ones((1, 2)), np.array(costs), np.ones((1, 2)))
