"""Ranks, uplift, differences and entropy of routings are those worked by hand; the report says what was measured."""

from __future__ import annotations

import json
import math
import pathlib

import numpy as np
import pytest
from rich.console import Console

from jaxrefine.evaluation.routing import (
    CHANCE,
    CONTROL,
    ORACLE,
    MeasuredRouting,
    Rewarded,
    Routing,
    RoutingSettings,
    measure,
    reward_entropy,
    task_ranks,
    uplift,
)
from jaxrefine.evaluation.routing_report import print_routing_table, write_routing_report

QUICK = RoutingSettings(num_resamples=50, entropy_bins=2)
REWARDS = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [2.0, 2.0, 0.0], [0.0, 1.0, 5.0]])
"""Four queries, a subset each: C is best on average (1.5, 1.75, 2.25)."""
ROUTED = np.eye(3)[[1, 2, 0, 2]]
"""Rewards 2, 3, 2, 5."""


def rewarded(rewards: np.ndarray = REWARDS, **options: object) -> Rewarded:
    given: dict[str, object] = {"name": "made", "models": ("A", "B", "C"), "subsets": (("p",), ("q",), ("r",), ("s",))}
    given["best"] = (2,) * len(rewards)
    return Rewarded(rewards=rewards, **(given | options))  # type: ignore[arg-type]


def measured(settings: RoutingSettings = QUICK) -> MeasuredRouting:
    curve = np.array([[0.2, 0.6, 0.2], [0.1, 0.2, 0.7], [0.5, 0.3, 0.2], [0.1, 0.1, 0.8]])
    router = Routing(assignments=(ROUTED,), probabilities=curve)
    return measure(rewarded(costs=(1.0, 2.0, 4.0)), {"router": router}, settings)


def test_mean_task_ranks_against_the_single_models_are_those_worked_by_hand() -> None:
    """Ranks by subset: A 1 3 1 3, B 2 2 1 2, C 3 1 3 1; chance has 2, 2, 4/3, 2, so 2 2 3 2; the router 2 1 1 1."""
    found = measured().systems
    ranks = {name: row.mean_rank.value for name, row in found.items()}
    assert ranks == {"A": 2.0, "B": 1.75, "C": 2.0, CHANCE: 2.25, CONTROL: 2.0, "router": 1.25, ORACLE: 1.0}
    lifts = {name: row.uplift for name, row in found.items()}
    assert lifts == {"A": 0.5, "B": 0.25, "C": 0.5, CHANCE: 0.0, CONTROL: 0.5, "router": 0.75, ORACLE: 1.0}


def test_equals_share_their_mean_rank_where_that_is_wanted() -> None:
    """On the third subset A and B are equal: 1.5 each. The oracle there equals both: 1 + 2/2."""
    found = measured(RoutingSettings(ties="average", num_resamples=20)).systems
    assert found["A"].mean_rank.value == (1 + 3 + 1.5 + 3) / 4
    assert found["B"].mean_rank.value == (2 + 2 + 1.5 + 2) / 4
    assert found[ORACLE].mean_rank.value == (1.5 + 1.5 + 2 + 1.5) / 4
    assert found["A"].uplift == 0.25


def test_an_ensemble_that_always_takes_one_model_has_that_models_rank() -> None:
    found = measured().systems
    assert found[CONTROL].mean_rank == found["C"].mean_rank
    assert found["C"].difference is not None
    assert (found["C"].difference.low, found["C"].difference.high) == (0.0, 0.0)


def test_rewards_differences_and_the_share_of_the_gap_are_those_worked_by_hand() -> None:
    """The router has 12/4, the best on average 9/4, the oracle 13/4: three quarters of the way."""
    found = measured().systems
    assert found["router"].mean.value == 3.0
    assert found["router"].difference is not None
    assert found["router"].difference.value == 0.75
    assert found["router"].gap == 0.75
    assert found["router"].shares == {"A": 0.25, "B": 0.25, "C": 0.5}
    assert found["router"].subsets == {"p": 2.0, "q": 3.0, "r": 2.0, "s": 5.0}
    assert found[CONTROL].difference is None
    assert (found["router"].answers, found[ORACLE].answers) == (1, 3)


def test_each_fold_has_its_own_best_on_average() -> None:
    found = measure(rewarded(best=(0, 2, 2, 2)), {}, QUICK)
    assert found.systems[CONTROL].mean.value == (3 + 3 + 0 + 5) / 4
    assert found.best == "C or A"


def test_the_pool_decides_the_rank() -> None:
    own, others = np.array([2.0]), np.array([[1.0], [3.0], [2.0]])
    assert task_ranks(own, others).tolist() == [2.0]
    assert task_ranks(own, others[:1]).tolist() == [1.0]
    assert task_ranks(own, others, ties="average").tolist() == [2.5]
    assert np.isnan(task_ranks(np.array([np.nan]), others)).all()
    assert uplift(np.array([np.nan, 1.0, 2.0])) == 0.5


def test_a_query_in_two_subsets_counts_in_both_and_unknown_rewards_in_none() -> None:
    rewards = np.array([[1.0, np.nan], [0.0, 1.0]])
    made = rewarded(rewards, models=("A", "B"), best=(0,) * len(rewards), subsets=(("p", "q"), ("q",)))
    found = measure(made, {}, QUICK)
    assert found.subsets == {"p": 1, "q": 2}
    assert found.systems["A"].subsets == {"p": 1.0, "q": 0.5}
    assert math.isnan(found.systems["B"].subsets["p"])
    assert found.systems["B"].subsets["q"] == 1.0
    assert found.systems[CHANCE].subsets == {"p": 1.0, "q": 0.75}


def test_seeds_of_training_are_averaged_and_widen_the_interval() -> None:
    one = Routing(assignments=(ROUTED,))
    two = Routing(assignments=(ROUTED, np.eye(3)[[2, 2, 2, 2]]))  # 2 3 2 5 and 1 3 0 5
    found = measure(rewarded(), {"one": one, "two": two}, RoutingSettings(num_resamples=400))
    assert found.num_seeds == 2
    assert found.systems["two"].mean.value == (12 + 9) / 8
    assert found.systems["two"].subsets["r"] == 1.0
    assert found.systems["two"].mean.standard_error > 0
    with pytest.raises(ValueError, match="2, 3 seeds; give equally many, or one"):
        measure(rewarded(), {"a": two, "b": Routing(assignments=(ROUTED,) * 3)}, QUICK)


def test_entropy_is_highest_where_all_models_are_equal() -> None:
    rewards = np.log(np.array([[1.0, 1.0, 1.0], [0.5, 0.25, 0.25], [1.0, 1.0, np.nan], [1.0, np.nan, np.nan]]))
    expected = [1.0, 1.5 * math.log(2) / math.log(3), 1.0, np.nan]
    np.testing.assert_allclose(reward_entropy(rewards), expected, rtol=1e-12)
    # at half the temperature 2 : 1 : 1 becomes 4 : 1 : 1
    shares = np.array([4, 1, 1]) / 6
    assert reward_entropy(rewards, temperature=0.5)[1] == pytest.approx(-(shares * np.log(shares)).sum() / math.log(3))


def test_quality_is_binned_by_entropy() -> None:
    """Two queries with 9 : 1, two with 1 : 1; the first model has 2 (log 9 / 2 ...) on none of the equal ones."""
    rewards = np.array([[math.log(9), 0.0], [0.0, 0.0], [0.0, math.log(9)], [1.0, 1.0]])
    found = measure(rewarded(rewards, models=("A", "B"), best=(0,) * len(rewards), subsets=(("p",),) * 4), {}, QUICK)
    assert found.entropy == pytest.approx([0.468996, 1.0], rel=1e-5)
    assert [one.value for one in found.by_entropy[CONTROL]] == pytest.approx([math.log(9) / 2, 0.5])
    assert [one.value for one in found.by_entropy[ORACLE]] == pytest.approx([math.log(9), 0.5])


def test_names_and_shapes_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="a routing is called 'oracle'"):
        measure(rewarded(), {ORACLE: Routing(assignments=(ROUTED,))}, QUICK)
    with pytest.raises(ValueError, match=r"4 queries and 2 models, rewards of shape \(4, 3\)"):
        rewarded(models=("A", "B"))


def test_the_report_states_figures_differences_and_how_ranks_were_taken(tmp_path: pathlib.Path) -> None:
    found = measured()
    path = write_routing_report(
        [found], QUICK, tmp_path, sweep={"0.3": "router", "1": CONTROL}, notes=["Rewards: made."]
    )
    text = path.read_text()
    assert "- Rewards: made." in text
    assert "**router** cannot be told from the best on average (C): +0.750" in text
    assert "| router | 3.000 [" in text
    assert "| p | 1 | 3.000 | 2.000 | 1.000 |" in text
    assert "against the single models alone" in text
    assert "| † *ZOOTER* | *1.94* | *0.44* |" in text
    for name in ("sweep", "cost", "entropy"):
        assert f"(figures/{name}.png)" in text
        assert (tmp_path / f"figures/{name}.png").stat().st_size > 1000
    [record] = json.loads((tmp_path / "metrics.json").read_text())["sets"]
    assert record["systems"]["router"]["uplift"] == 0.75
    assert record["cost_curves"]["router"][0][1] == 3.0
    assert record["cost_curves"]["router"][-1] == [1.0, 1.5]


def test_the_terminal_has_a_row_for_every_system() -> None:
    console = Console(width=120, record=True)
    print_routing_table([measured()], console)
    text = console.export_text()
    for name in (*measured().systems, "made: 4 held-out queries, 3 models, 4 subsets"):
        assert name in text
