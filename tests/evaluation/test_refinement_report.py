"""The report says what was measured, marks what was published, and names what could not be measured."""

from __future__ import annotations

import io
import json
import pathlib

import pytest
from rich.console import Console

from jaxrefine.evaluation.refinement import (
    METHODS,
    Answer,
    MeasuredRefinement,
    Query,
    Refinements,
    RefinementSettings,
    measure_refinement,
)
from jaxrefine.evaluation.refinement_costs import Cost
from jaxrefine.evaluation.refinement_published import PUBLISHED, PUBLISHED_MODELS
from jaxrefine.evaluation.refinement_report import (
    cost_table,
    curve_table,
    print_refinement_table,
    write_refinement_report,
)
from jaxrefine.selection.trust import Signals

SETTINGS = RefinementSettings(num_resamples=50)
RIGHT, WRONG = Answer(key="5", right=True), Answer(key="4", right=False)
COSTS = (
    Cost(role="ψ", phase="training", params=70_000_000_000, tokens=2_500, flops=4 * 10**20),
    Cost(role="Truster", phase="training", params=836_000, tokens=999, flops=10**19),
)


def measured() -> MeasuredRefinement:
    """Three of four first answers are right; the Asker refines the wrong one and a right one, which it loses."""
    told = [(RIGHT, RIGHT, False), (RIGHT, WRONG, True), (RIGHT, RIGHT, False), (WRONG, RIGHT, True)]
    queries = tuple(
        Query(
            id=str(n), initial=one, refined=other,
            signals=Signals(yes_probability=0.75 if yes else 0.25, asker_says_yes=yes),
        )
        for n, (one, other, yes) in enumerate(told)
    )  # fmt: skip
    return measure_refinement(Refinements(generator="ψ 1M", asker="Asker 2K", queries=queries), SETTINGS)


def test_the_report_has_figures_published_rows_and_what_is_missing(tmp_path: pathlib.Path) -> None:
    path = write_refinement_report(
        [measured()], SETTINGS, tmp_path, title="A title", facts={"problems": "four"}, costs=COSTS, reference="ψ"
    )
    text = path.read_text()
    assert text.startswith("# A title\n\n- problems: four\n")
    assert "4 queries; first and refined answer agree in 50.0 %" in text
    [row] = [line for line in text.splitlines() if line.startswith("| Asker | Asker |")]
    assert "| 75.0 [" in row
    assert "| Asker | 50.0 | – | 2 | 1 | 1 | 0 |" in text
    assert "| ψ 1M / Asker 2K | 50.0 | 100.0 | 83.3 | – |" in text  # of three pairs two in order, one equal
    assert "Asker + Truster (ART): nobody gave scores" in text
    assert "| † *Asker* | LLaMA 13B | – | *82.18* | *62.74* | *63* | *93.72* | – | – |" in text
    assert (tmp_path / "figures/accuracy_against_share.png").stat().st_size > 1000
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["refinements"][0]["rows"]["asker"]["share_refined"] == 0.5
    assert record["refinements"][0]["curve"][0]["threshold"] is None  # infinity, which JSON has not
    assert [cost["role"] for cost in record["costs"]] == ["ψ", "Truster"]


def test_the_curve_is_told_where_the_paper_finds_it_best_and_at_its_best() -> None:
    # Of four queries 0, 2 or 4 are refined, with three right each time: the best is the first of equals.
    near, best = (line.split(" | ") for line in curve_table([measured()]).splitlines()[2:])
    assert near[2:5] == ["nearest to 30 to 35 %", "50.0", "0.75"]
    assert best[2:5] == ["best", "0.0", "inf"]
    assert near[5][:6] == best[5][:6] == "75.0 ["
    hundred = tuple(
        Query(
            id=str(n), initial=WRONG, refined=RIGHT if n < 33 else WRONG,
            signals=Signals(yes_probability=1.0 - n / 100, asker_says_yes=True),
        )
        for n in range(100)
    )  # fmt: skip
    found = measure_refinement(Refinements(generator="ψ", asker="A", queries=hundred), SETTINGS)
    thirty, more, best = (line.split(" | ") for line in curve_table([found]).splitlines()[2:])
    assert (thirty[3], more[3], best[3]) == ("30.0", "35.0", "35.0")  # the 33 that refining helps come first
    assert (thirty[5][:6], more[5][:6]) == ("30.0 [", "33.0 [")


def test_costs_stand_against_the_large_models_training() -> None:
    assert cost_table(COSTS, "ψ").splitlines()[2:] == [
        "| ψ | training | 70 B | 2.5 K | 4e+20 | 100.00 % |",
        "| Truster | training | 836 K | 999 | 1e+19 | 2.50 % |",
    ]
    assert "against" not in cost_table(COSTS)
    with pytest.raises(ValueError, match="reference 'phi'"):
        cost_table(COSTS, "phi")


@pytest.mark.parametrize("width", [60, 200])
def test_the_terminal_shows_every_method_that_was_measured(width: int) -> None:
    screen = io.StringIO()
    found = measured()
    print_refinement_table([found, found], Console(file=screen, width=width))
    text = screen.getvalue()
    assert all(METHODS[name].title in text for name in found.rows)
    assert METHODS["art"].title not in text
    assert (text.count("(50)"), text.count("(25)")) == (2, 2)  # the Asker and the oracle, of both


def test_published_rows_name_known_models_and_shares_below_a_hundred() -> None:
    for row in PUBLISHED:
        assert set(row.accuracy) <= set(PUBLISHED_MODELS)
        assert all(50 < value < 100 for value in row.accuracy.values())
