"""Generators and evaluators are measured as by hand, and the report has the paper's layouts."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxrefine.evaluation.metrics import roc_auc
from jaxrefine.evaluation.selection import Pool, Samples, SelectionSettings
from jaxrefine.evaluation.solving import Generator, discrimination, measure_generators
from jaxrefine.evaluation.solving_report import (
    PUBLISHED_GENERATORS,
    PUBLISHED_SEQUENTIAL,
    print_solving_tables,
    write_solving_report,
)

SETTINGS = SelectionSettings(largest=1, top=2, num_resamples=100, num_draws=4)
SAMPLES = (
    Samples(id="1", clusters=(0, 1, 1, None), right=(True, False, False, False)),
    Samples(id="2", clusters=(0, 0, 1, 2), right=(True, True, False, False)),
    Samples(id="3", clusters=(None, None, 0, 1), right=(False, False, False, False)),
)


def generator(name: str, greedy: str, **options) -> Generator:
    made = {"role": "solutions", "history": ("given", name)} | options
    return Generator(name=name, greedy=tuple(letter == "x" for letter in greedy), samples=SAMPLES, **made)


GENERATORS = (
    generator("given", "--x", role="given", history=("given",)),
    generator("both", "x-x"),
    generator("again", "xxx", role="sequential", history=("given", "both", "margin", "again"), compared_with="both"),
    generator("control", "x--", role="control", history=("given", "both", "control"), compared_with="both"),
)
SCORES = ((0.9, 0.2, 0.3, 0.99), (0.4, 0.3, 0.35, 0.1), (0.5, 0.5, 0.6, 0.7))
POOL = Pool(
    generator="both",
    evaluator="margin",
    problems=tuple(dataclasses.replace(one, scores=scores) for one, scores in zip(SAMPLES, SCORES, strict=True)),
)


def test_greedy_vote_and_any_by_hand():
    """The vote of the first problem takes the wrong pair, that of the second the right one."""
    found = measure_generators(GENERATORS, num_resamples=50)
    solved = {one.name: {name: interval.value for name, interval in one.solved.items()} for one in found}
    assert solved["given"] == pytest.approx({"pass_at_1": 1 / 3, "maj1": 1 / 3, "pass_at_n": 2 / 3})
    assert solved["again"]["pass_at_1"] == 1.0


def test_what_was_trained_further_is_compared_with_its_start_and_with_the_control():
    given, both, again, control = measure_generators(GENERATORS, num_resamples=50)
    assert (given.differences, both.differences) == ({}, {})
    assert {name: found["pass_at_1"].value for name, found in again.differences.items()} == pytest.approx(
        {"both": 1 / 3, "control": 2 / 3}
    )
    assert list(control.differences) == ["both"]
    same = again.differences["both"]["maj1"]
    assert (same.low, same.high) == (0.0, 0.0)  # paired: the same solutions vote alike on every problem


def test_generators_of_other_problems_and_lists_that_do_not_fit_are_refused():
    other = dataclasses.replace(GENERATORS[1], samples=SAMPLES[::-1])
    with pytest.raises(ValueError, match="given and both did not answer the same problems in the same order"):
        measure_generators((GENERATORS[0], other))
    with pytest.raises(ValueError, match="no generators"):
        measure_generators(())
    with pytest.raises(ValueError, match="both: 3 problems with samples and 2 greedy solutions"):
        generator("both", "xx")
    assert Generator.from_record(json.loads(json.dumps(GENERATORS[2].record()))) == GENERATORS[2]


def test_the_area_under_the_curve_counts_pairs():
    generator_ = np.random.default_rng(0)
    scores, labels = generator_.integers(0, 5, 40) / 4, generator_.integers(0, 2, 40).astype(float)
    weights = generator_.integers(0, 3, 40).astype(float)
    won = total = 0.0
    for i, j in itertools.product(range(40), repeat=2):
        if labels[i] == 1 and labels[j] == 0:
            won += weights[i] * weights[j] * ((scores[i] > scores[j]) + 0.5 * (scores[i] == scores[j]))
            total += weights[i] * weights[j]
    assert roc_auc(scores, labels, weights=weights) == pytest.approx(won / total)
    assert np.isnan(roc_auc(scores, np.ones(40)))


def test_an_evaluator_is_measured_on_the_solutions_that_answer():
    """Right .9 .4 .3; wrong .2 .3 .35 .1 .6 .7: of 18 pairs .9 wins 6, .4 wins 4, .3 wins 2 and ties one."""
    found = discrimination(POOL, num_resamples=200)
    assert found.auc.value == pytest.approx((6 + 4 + 2.5) / 18)
    assert found.within.value == pytest.approx((1 + 3 / 4) / 2)  # problem 2: .4 wins both, .3 loses to .35
    assert (found.num_solutions, found.right_share, found.num_mixed) == (9, 3 / 9, 2)
    assert found.auc.low <= found.auc.value <= found.auc.high
    with pytest.raises(ValueError, match="no evaluator scored"):
        discrimination(Pool(generator="both", evaluator=None, problems=SAMPLES))


def cells(markdown: str, start: str) -> list[str]:
    [line] = [line for line in markdown.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")][1:]


def values(row: list[str]) -> list[str]:
    return [cell.split(" ")[0].strip("*") for cell in row]


def test_the_report_has_ours_beside_the_published_rows(tmp_path: Path):
    found = write_solving_report(
        GENERATORS, [POOL], SETTINGS, tmp_path, title="Solving", facts={"models": "given small"}
    )
    text = (tmp_path / "report.md").read_text()
    assert text.startswith("# Solving\n\n- **models**: given small\n")
    generators = text[text.index("## Generators") : text.index("## Can the evaluators")]
    assert values(cells(generators, "both")) == ["given", "66.7", "33.3", "66.7"]
    assert cells(generators, "† *PaLM 2-L, both*") == ["–", "*35.6*", "*55.2*", "*82.8*"]
    assert generators.count("† *") == len(PUBLISHED_GENERATORS)
    losses = text[text.index("## Cluster re-ranking") : text.index("## Trained further")]
    assert values(cells(losses, "margin, on both")) == ["33.3", "66.7", "33.3"]
    assert cells(losses, r"† *PaLM 2-S\*, margin*") == ["*38.8*", "*32.4*", "*36.6*"]
    sequence = text[text.index("## Trained further") : text.index("## Accuracy")]
    again = cells(sequence, "given → both → margin → again")
    assert values(again) == ["sequential", "100.0", "33.3", "66.7", "+33.3", "+0.0", "+66.7", "+0.0"]
    assert values(cells(sequence, "given → both"))[:2] == ["start", "66.7"]
    assert values(cells(sequence, "given → both → control"))[-4:] == ["-33.3", "+0.0", "–", "–"]
    assert sequence.count("† *") == len(PUBLISHED_SEQUENTIAL)
    for name in ("generators", "against_n", "against_k"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"(figures/{name}.png)" in text
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["generators"][2]["differences"]["control"]["pass_at_1"]["value"] == pytest.approx(2 / 3)
    assert record["discriminations"][0]["within"]["value"] == pytest.approx(0.875)
    console = Console(width=100, record=True, file=io.StringIO())
    print_solving_tables(found, console)
    shown = console.export_text()
    assert "87.5 ±" in shown
    assert "W.RR.MajK" in shown


def test_without_an_evaluator_the_report_has_generators_alone(tmp_path: Path):
    found = write_solving_report(GENERATORS[:2], [], SETTINGS, tmp_path, title="Solving", facts={})
    text = (tmp_path / "report.md").read_text()
    assert "## Generators" in text
    assert "## Trained further" not in text
    assert "RR.All" not in text[: text.index("## How to read this")]
    print_solving_tables(found, Console(file=io.StringIO()))
