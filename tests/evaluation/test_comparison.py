"""The table says what the units say."""

from __future__ import annotations

import json

import numpy as np
import pytest

from jaxrefine.evaluation.comparison import METRICS, START, Unit, as_json, compare
from jaxrefine.evaluation.metrics import smallest_detectable
from tests.evaluation.made_units import make_start, make_units


def test_estimates_are_means_over_seeds_and_prompts() -> None:
    units = make_units()
    comparison = compare(units, control="mle", start=make_start(), num_resamples=200)
    for name in ("mle", "tuna", "dpo"):
        values = [unit.quality["greedy_accuracy"] for unit in units if unit.variant == name]
        assert comparison.row(name).quality["greedy_accuracy"].estimate.value == pytest.approx(np.mean(values))
    assert comparison.row(START).quality["greedy_accuracy"].estimate.value == pytest.approx(0.5)


def test_differences_are_those_of_the_estimates_and_the_control_has_none() -> None:
    comparison = compare(make_units(), control="mle", start=make_start(), num_resamples=200)
    control = comparison.row("mle").quality["majority_vote"]
    variant = comparison.row("dpo").quality["majority_vote"]
    assert control.difference is None
    assert variant.difference is not None
    assert variant.difference.value == pytest.approx(variant.estimate.value - control.estimate.value)
    assert variant.smallest_detectable == pytest.approx(smallest_detectable(variant.difference.standard_error))


def test_a_variant_that_lacks_a_seed_is_paired_over_the_seeds_it_has() -> None:
    units = [unit for unit in make_units() if (unit.variant, unit.seed) != ("dpo", 1)]
    comparison = compare(units, control="mle", start=make_start(), num_resamples=200)
    mine, other = (
        np.mean([unit.quality["greedy_accuracy"] for unit in units if unit.variant == name and unit.seed != 1])
        for name in ("dpo", "mle")
    )
    difference = comparison.row("dpo").quality["greedy_accuracy"].difference
    assert difference is not None
    assert difference.value == pytest.approx(mine - other)
    assert comparison.row("dpo").seeds == (0, 2)


def test_a_metric_that_could_not_be_measured_is_absent_and_has_its_reason() -> None:
    units = make_units()
    trimmed = [
        Unit(variant=unit.variant, seed=unit.seed, quality={"ranking_accuracy": unit.quality["ranking_accuracy"]})
        for unit in units
    ]
    reasons = {name: "the candidates have no answers" for name in METRICS if name != "ranking_accuracy"}
    comparison = compare(trimmed, control="mle", start=make_start(), unavailable=reasons, num_resamples=50)
    assert comparison.metrics == ("ranking_accuracy",)
    assert set(comparison.row("dpo").quality) == {"ranking_accuracy"}


def test_cost_is_the_median_over_seeds() -> None:
    cost = compare(make_units(), control="mle", start=make_start(), num_resamples=50).row("mle").cost
    assert cost is not None
    assert cost.seconds_per_step == pytest.approx(0.11)


def test_the_json_is_strict_even_where_numbers_are_missing() -> None:
    units = [Unit(variant="mle", seed=0, quality={name: [None, None] for name in METRICS})]
    comparison = compare(units, control="mle", start={name: [None, 1.0] for name in METRICS}, num_resamples=50)
    content = json.loads(json.dumps(as_json(comparison), allow_nan=False))
    assert content["variants"]["mle"]["quality"]["greedy_accuracy"]["estimate"]["value"] is None
    assert content["variants"][START]["quality"]["greedy_accuracy"]["estimate"]["value"] == 1.0


def test_a_control_that_was_not_run_is_an_error() -> None:
    with pytest.raises(ValueError, match="'sft' was not run; there is mle, tuna, dpo"):
        compare(make_units(), control="sft", start=make_start())
