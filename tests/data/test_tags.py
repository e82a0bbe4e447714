"""A router's targets are smoothed by tags as worked by hand, in each published form; what is unknown biases nothing."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

from jaxrefine.data.examples import Routed
from jaxrefine.data.tags import LabelEnhancement, enhance, models_of, reward_table, shares


def query(id: str, rewards: tuple[float | None, ...], *tags: str) -> Routed:
    return Routed(id, "What?", ("x", "y", "z")[: len(rewards)], rewards, tags, {"subset": "s"})


def odds(*parts: float) -> tuple[float, ...]:
    """Rewards whose softmax is in these proportions."""
    return tuple(math.log(part) for part in parts)


def targets(queries: list[Routed], **options: Any) -> list[Any]:
    return [shares(found).tolist() for found in enhance(queries, LabelEnhancement(**options)).queries]


THREE = [query("1", odds(3, 1), "a"), query("2", odds(1, 3), "a", "b"), query("3", odds(1, 1), "b")]


def test_softmaxed_rewards_are_smoothed_by_tags_as_worked_by_hand() -> None:
    """s = (3/4, 1/4), (1/4, 3/4), (1/2, 1/2); s_a = (1/2, 1/2), s_b = (3/8, 5/8); β = 0.3."""
    found = targets(THREE, beta=0.3)
    expected = [0.3 * 0.75 + 0.7 * 0.5, 0.3 * 0.25 + 0.7 * (0.5 + 0.375) / 2, 0.3 * 0.5 + 0.7 * 0.375]
    np.testing.assert_allclose(found, [[p, 1 - p] for p in expected], rtol=1e-12)


def test_raw_rewards_are_smoothed_before_the_softmax_in_the_first_versions_form() -> None:
    """r_t = (1, 0); at β = 1/2 the rewards become (1.5, 0) and (0.5, 0)."""
    found = targets([query("1", (2.0, 0.0), "t"), query("2", (0.0, 0.0), "t")], form="raw", beta=0.5)
    expected = [1 / (1 + math.exp(-1.5)), 1 / (1 + math.exp(-0.5))]
    np.testing.assert_allclose(found, [[p, 1 - p] for p in expected], rtol=1e-12)


def test_a_temperature_divides_the_rewards_in_either_form() -> None:
    for form in ("softmax", "raw"):
        [found] = targets([query("1", odds(3, 1), "t")], form=form, temperature=0.5)
        np.testing.assert_allclose(found, [0.9, 0.1], rtol=1e-12)  # 9 : 1


def test_hard_labels_are_on_the_best_model_and_shared_by_equals() -> None:
    queries = [query("1", (2.0, 1.0), "t"), query("2", (1.0, 1.0), "t")]
    np.testing.assert_allclose(targets(queries, form="hard", beta=1.0), [[1, 0], [0.5, 0.5]], atol=1e-8)
    np.testing.assert_allclose(targets(queries, form="hard", beta=0.0), [[0.75, 0.25]] * 2, rtol=1e-8)


def test_own_rewards_alone_and_tags_alone_are_the_ends_of_the_scale() -> None:
    np.testing.assert_allclose(targets(THREE, beta=1.0), [[0.75, 0.25], [0.25, 0.75], [0.5, 0.5]], rtol=1e-12)
    np.testing.assert_allclose(targets(THREE, beta=0.0)[0], [0.5, 0.5], rtol=1e-12)


def test_a_query_without_tags_keeps_its_own_reward_and_a_tag_given_twice_counts_once() -> None:
    alone = query("4", odds(4, 1))
    found = enhance([*THREE, alone, query("5", odds(1, 1), "b", "b", "a")], LabelEnhancement(beta=0.0))
    np.testing.assert_allclose(shares(found.queries[3]), [0.8, 0.2], rtol=1e-12)
    # s_a is 1/2; s_b is (1/4 + 1/2 + 1/2) / 3 = 5/12; their mean 11/24
    np.testing.assert_allclose(shares(found.queries[4]), [11 / 24, 13 / 24], rtol=1e-12)
    assert (found.num_untagged, found.tags) == (1, {"a": 3, "b": 3})


def test_a_tag_of_too_few_queries_counts_as_absent() -> None:
    queries = [*THREE, query("4", odds(9, 1), "rare", "a"), query("5", odds(4, 1), "rarer")]
    found = enhance(queries, LabelEnhancement(beta=0.0, min_queries=2))
    assert (found.tags, found.num_rare, found.num_untagged) == ({"a": 3, "b": 2}, 2, 1)
    np.testing.assert_allclose(shares(found.queries[3]), [(0.75 + 0.25 + 0.9) / 3, 1.1 / 3], rtol=1e-12)
    np.testing.assert_allclose(shares(found.queries[4]), [0.8, 0.2], rtol=1e-12)


@pytest.mark.parametrize("form", ["softmax", "raw"])
def test_an_unknown_reward_stays_unknown_and_makes_no_other_model_better(form: str) -> None:
    """Both queries call x and y equal: they stay so, though their shares of 2 and of 3 models differ."""
    queries = [query("1", (*odds(1, 1), None), "t"), query("2", odds(1, 1, 2), "t")]
    first, second = targets(queries, form=form, beta=0.0)
    np.testing.assert_allclose(first, [0.5, 0.5, np.nan], rtol=1e-12)
    np.testing.assert_allclose(second, [0.25, 0.25, 0.5], rtol=1e-12)


def test_queries_without_any_reward_are_left_out_and_counted() -> None:
    found = enhance([THREE[0], query("9", (None, None), "a", "c")], LabelEnhancement(beta=0.0))
    assert [one.id for one in found.queries] == ["1"]
    assert (found.num_without_rewards, found.tags) == (1, {"a": 1})
    with pytest.raises(ValueError, match="none of 1 queries has a known reward of x, y"):
        enhance([query("9", (None, None))], LabelEnhancement())


def test_everything_but_the_rewards_stays() -> None:
    [found] = enhance([THREE[1]], LabelEnhancement()).queries
    assert (found.id, found.prompt, found.tags, found.meta) == ("2", "What?", ("a", "b"), {"subset": "s"})


def test_queries_of_other_models_are_refused_by_id() -> None:
    with pytest.raises(ValueError, match="'4' has rewards of x, y, z; '1' of x, y"):
        models_of([THREE[0], query("4", (1.0, 2.0, 3.0))])
    with pytest.raises(ValueError, match="nothing to route"):
        models_of([])


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"beta": 1.1}, "beta is 1.1; it is a weight in 0..1"),
        ({"temperature": 0.0}, "temperature is 0.0; it must be above 0"),
        ({"min_queries": 0}, "min_queries is 0; it must be at least 1"),
    ],
)
def test_settings_that_cannot_be_are_refused(options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LabelEnhancement(**options)


def test_a_table_of_rewards_marks_what_is_unknown() -> None:
    np.testing.assert_array_equal(reward_table([query("1", (1.0, None))]), [[1.0, np.nan]])
