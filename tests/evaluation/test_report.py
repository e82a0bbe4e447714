"""The report shows every variant, every number that is there, and a reason for every number that is not."""

from __future__ import annotations

import io
import json
from pathlib import Path

import pytest
from rich.console import Console

from jaxrefine.evaluation.comparison import METRICS, Comparison, Unit, compare
from jaxrefine.evaluation.report import markdown, print_table, write_report
from tests.evaluation.made_units import make_start, make_units


@pytest.fixture(scope="module")
def comparison() -> Comparison:
    return compare(make_units(), control="mle", start=make_start(), facts={"model": "made up"}, num_resamples=500)


def test_the_report_its_figures_and_the_numbers_are_written(comparison: Comparison, tmp_path: Path) -> None:
    text = write_report(comparison, tmp_path, title="Made up").read_text()
    assert text.startswith("# Made up\n\n- model: made up")
    for name in ("quality", "losses", "seconds"):
        figure = tmp_path / "figures" / f"{name}.png"
        assert f"(figures/{name}.png)" in text
        assert figure.read_bytes().startswith(b"\x89PNG")
        assert figure.stat().st_size > 10_000
    assert json.loads((tmp_path / "metrics.json").read_text())["control"] == "mle"


def test_the_same_comparison_gives_the_same_bytes(comparison: Comparison, tmp_path: Path) -> None:
    for name in ("a", "b"):
        write_report(comparison, tmp_path / name)
    for file in ("report.md", "metrics.json", "figures/quality.png"):
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_every_row_of_a_markdown_table_has_the_cells_of_its_head(comparison: Comparison) -> None:
    lines = markdown(comparison, figures={}).splitlines()
    heads = [index for index, line in enumerate(lines) if line.startswith("| ---")]
    assert len(heads) == 3
    for head in heads:
        cells = lines[head].count("|")
        rows = [lines[head - 1]]
        while lines[head + len(rows)].startswith("|"):
            rows.append(lines[head + len(rows)])
        assert {row.count("|") for row in rows} == {cells}


def test_without_another_variant_nothing_is_said_of_detectable_differences(comparison: Comparison) -> None:
    alone = [unit for unit in make_units() if unit.variant == "mle"]
    text = markdown(compare(alone, control="mle", start=make_start(), facts={}, num_resamples=50), figures={})
    assert "could have detected" in markdown(comparison, figures={})
    assert "could have detected" not in text


@pytest.mark.parametrize("width", [80, 160])
def test_the_table_fits_the_terminal(comparison: Comparison, width: int) -> None:
    screen = io.StringIO()
    print_table(comparison, Console(file=screen, width=width))
    text = screen.getvalue()
    assert "…" not in text
    for name in ("start", "mle", "tuna", "dpo"):
        assert name in text
    estimate = 100 * comparison.row("dpo").quality["greedy_accuracy"].estimate.value
    assert f"{estimate:.1f} ±" in text


def test_what_could_not_be_measured_is_a_dash_with_its_reason() -> None:
    only = "ranking_accuracy"
    units = [
        Unit(variant="mle", seed=0, quality={only: [1.0, 0.0, 1.0]}),
        Unit(variant="dpo", seed=0, quality={only: [1.0, 1.0, None]}),
    ]
    reasons = {name: "the file has no answers" for name in METRICS if name != only}
    left_out = {"verdict": "it needs right/wrong labels"}
    comparison = compare(units, control="mle", start={only: [1.0, 1.0, 0.0]}, unavailable=reasons, left_out=left_out)
    text = markdown(comparison, figures={})
    assert "greedy: – the file has no answers" in text
    assert "verdict was left out: it needs right/wrong labels" in text
    row = next(line for line in text.splitlines() if line.startswith("| dpo"))
    assert row.split("|")[2].strip() == "–"
    assert "nan" not in text
