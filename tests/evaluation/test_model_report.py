"""Models beside each other: means, paired differences, wins and losses, as worked by hand; reports say all of it."""

from __future__ import annotations

import json

import numpy as np
import pytest
from rich.console import Console

from jaxrefine.data.examples import Candidates
from jaxrefine.evaluation.model_report import compare_models, print_model_table, write_model_report
from jaxrefine.evaluation.rank_lengths import length_by_rank

# Two seeds, four units; the base has one seed, which stands for both.
VALUES = {
    "base": {"world": {"accuracy": np.array([[0.0, 0.0, 1.0, 1.0]]), "judge": np.array([[1.0, 2.0, 3.0, 4.0]])}},
    "better": {
        "world": {
            "accuracy": np.array([[1.0, 0.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]]),
            "judge": np.array([[2.0, 2.0, 3.0, 4.0], [2.0, 3.0, 2.0, 4.0]]),
        }
    },
}


def test_means_differences_and_wins_are_those_worked_by_hand():
    found = compare_models(VALUES, "base", num_resamples=200)
    cell = found.cells["world"]["accuracy"]["better"]
    assert found.num["world"] == (2, 4)
    assert cell.estimate.value == 6 / 8
    assert cell.difference.value == 6 / 8 - 1 / 2
    assert cell.wins == (3, 1, 4)
    assert found.cells["world"]["judge"]["better"].wins == (3, 1, 4)
    assert found.cells["world"]["accuracy"]["base"].difference is None


def test_a_difference_is_paired_so_that_a_constant_gain_has_no_spread():
    noisy = np.random.default_rng(0).random((3, 50))
    found = compare_models({"a": {"t": {"x": noisy}}, "b": {"t": {"x": noisy + 0.25}}}, "a", num_resamples=100)
    difference = found.cells["t"]["x"]["b"].difference
    assert (difference.low, difference.high) == pytest.approx((0.25, 0.25))


def test_models_that_cannot_be_compared_are_refused_by_name():
    with pytest.raises(ValueError, match="'bas'; did you mean 'base'"):
        compare_models(VALUES, "bas")
    with pytest.raises(ValueError, match="model 'c' has no accuracy of task 'world'"):
        compare_models({**VALUES, "c": {}}, "base")
    other = {"c": {"world": {"accuracy": np.zeros((1, 3)), "judge": np.zeros((1, 3))}}}
    with pytest.raises(ValueError, match="'c' has 3 units, 'base' 4"):
        compare_models({**VALUES, **other}, "base")
    seeds = {"c": {"world": {"accuracy": np.zeros((3, 4)), "judge": np.zeros((3, 4))}}}
    with pytest.raises(ValueError, match=r"model 'base' has 1 seeds|model 'better' has 2 seeds, others have 3"):
        compare_models({**VALUES, **seeds}, "base")


def test_the_report_and_the_table_say_what_was_measured(tmp_path):
    found = compare_models(VALUES, "base", num_resamples=200)
    path = write_model_report(found, tmp_path, title="Two", facts={"judge": "exact"}, sections=["## More"])
    text = path.read_text()
    assert "# Two" in text
    assert "- judge: exact" in text
    assert "| better | 75.00 [" in text
    assert "better 3 / 1 / 4." in text
    assert "## More" in text
    assert (tmp_path / "figures" / "models.png").read_bytes()[:4] == b"\x89PNG"
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["tasks"]["world"]["accuracy"]["better"]["difference"]["value"] == 0.25
    console = Console(width=160, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    print_model_table(found, console)
    assert "3 / 1 / 4" in console.export_text()


def test_only_prompts_with_every_rank_count_for_lengths():
    whole = Candidates("1", "p", ("a b", "a b c d", "a"), (1.0, 3.0, 2.0))
    part = Candidates("2", "p", ("a b c d e f",), (1.0,))
    assert length_by_rank([whole, part]) == (4.0, 1.0, 2.0)
