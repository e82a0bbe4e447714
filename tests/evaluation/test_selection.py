"""Selections are measured as by hand, problem by problem, and the report says what was measured."""

from __future__ import annotations

import io
import json
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from jaxrefine.evaluation.selection import ONE, Measured, Pool, Samples, SelectionSettings, measure
from jaxrefine.evaluation.selection_report import (
    PUBLISHED,
    TITLES,
    print_selection_table,
    selection_markdown,
    transfer_table,
    write_selection_report,
)
from jaxrefine.selection.strategies import STRATEGIES

PROBLEMS = (
    Samples(id="1", clusters=(0, 1, 1, None), right=(True, False, False, False), scores=(0.9, 0.2, 0.3, 0.99)),
    Samples(id="2", clusters=(0, 0, 1, 2), right=(True, True, False, False), scores=(0.4, 0.3, 0.8, 0.1)),
    Samples(id="3", clusters=(0, 1, 1), right=(False, True, True), scores=(0.9, 0.5, 0.45)),
)
POOL = Pool(generator="g", evaluator="e", problems=PROBLEMS)
SETTINGS = SelectionSettings(largest=1, top=2, num_resamples=200)


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure(POOL, SETTINGS)


@pytest.mark.parametrize(
    ("name", "right", "scored"),
    [
        (ONE, 1 / 4 + 2 / 4 + 2 / 3, 0),
        ("maj1", 0 + 1 + 1, 0),
        ("rr_all", 1 + 0 + 0, 3 + 4 + 3),  # of problem 1, the solution without an answer is not scored
        ("rr_majk", 0 + 1 + 1, 2 + 2 + 2),
        ("w_rr", 1 + 0 + 1, 3 + 4 + 3),  # 0.9 and 0.5; 0.7 and 0.8; 0.9 and 0.95
        ("w_rr_majk", 0 + 1 + 1, 2 + 2 + 2),
        ("maj1_topn", 1 + 1 + 0, 3 + 4 + 3),  # a tie in each: the first given wins
        ("pass_at_n", 3, None),
        ("majk_at_n", 0 + 1 + 1, None),
    ],
)
def test_accuracy_and_cost_by_hand(measured: Measured, name: str, right: float, scored: int | None) -> None:
    row = measured.rows[name]
    assert row.accuracy.value == pytest.approx(right / 3)
    assert row.scored == (None if scored is None else scored / 11)
    assert row.accuracy.low <= row.accuracy.value <= row.accuracy.high


def test_every_strategy_and_oracle_has_a_row(measured: Measured) -> None:
    assert list(measured.rows) == list(TITLES)


def test_differences_are_from_the_vote_and_paired(measured: Measured) -> None:
    difference = measured.rows["rr_all"].difference
    assert difference is not None
    assert difference.value == pytest.approx((1 - 1 - 1) / 3)
    same = measured.rows["rr_majk"].difference
    assert same is not None
    assert (same.low, same.high) == (0.0, 0.0)  # right on the same problems: paired, nothing varies
    assert measured.rows["maj1"].difference is None


def test_accuracy_against_k_by_hand(measured: Measured) -> None:
    """At most three clusters a problem, so K is 1, 2 and 3."""
    curves = {name: [interval.value for interval in curve.values()] for name, curve in measured.against_k.items()}
    assert list(measured.against_k["rr_majk"]) == [1, 2, 3]
    assert curves["rr_majk"] == pytest.approx([2 / 3, 1 / 3, 1 / 3])
    assert curves["w_rr_majk"] == pytest.approx([2 / 3, 2 / 3, 2 / 3])  # with K = 2: 0.9 > 0.5, 0.7 < 0.8, 0.95 > 0.9
    assert curves["majk_at_n"] == pytest.approx([2 / 3, 1, 1])


def test_accuracy_against_n_by_hand(measured: Measured) -> None:
    """Three solutions at most, for the third problem has no more: all four subsets of three of the others."""
    assert list(measured.against_n["rr_all"]) == [1, 2, 3]
    rr_all = measured.against_n["rr_all"]
    assert rr_all[3].value == pytest.approx((3 / 4 + 1 / 4 + 0) / 3)
    assert measured.against_n["pass_at_n"][3].value == pytest.approx((3 / 4 + 1 + 1) / 3)
    assert rr_all[2].value == pytest.approx((3 / 6 + 3 / 6 + 1 / 3) / 3)


def test_of_one_solution_there_is_nothing_to_select(measured: Measured) -> None:
    expected = measured.rows[ONE].accuracy.value
    for name, curve in measured.against_n.items():
        assert curve[1].value == pytest.approx(expected), name


def test_what_is_particular_about_the_samples_is_counted() -> None:
    mixed = Samples(id="4", clusters=(0, 0), right=(True, False), scores=(0.1, 0.2))
    right = Samples(id="5", clusters=(0, 0), right=(True, True), scores=(0.1, 0.2))
    found = measure(Pool(generator="g", evaluator="e", problems=(*PROBLEMS, mixed, right)), SETTINGS)
    assert (found.num_problems, found.num_solutions) == (5, (2, 4))
    assert (found.mixed_clusters, found.undecided_problems) == (1, 4)


def test_without_scores_only_votes_and_oracles_are_measured() -> None:
    bare = tuple(Samples(id=p.id, clusters=p.clusters, right=p.right) for p in PROBLEMS)
    found = measure(Pool(generator="g", evaluator=None, problems=bare), SETTINGS)
    assert list(found.rows) == [ONE, "maj1", "pass_at_n", "majk_at_n"]
    assert list(found.against_n) == ["maj1", "pass_at_n"]
    assert list(found.against_k) == ["majk_at_n"]


def test_a_problem_that_nobody_answered_is_wrong() -> None:
    silent = Samples(id="6", clusters=(None, None), right=(False, False), scores=(0.1, 0.2))
    found = measure(Pool(generator="g", evaluator="e", problems=(silent,)), SETTINGS)
    assert {name: found.rows[name].accuracy.value for name in STRATEGIES} == dict.fromkeys(STRATEGIES, 0.0)


def test_drawn_subsets_are_fair_and_the_same_every_time() -> None:
    """Of 12 solutions 6 are drawn: 924 subsets, of which 40 are drawn; one in two has the only right one."""
    only = Samples(
        id="7", clusters=tuple(range(12)), right=(True, *[False] * 11), scores=tuple(np.linspace(1, 0, 12).tolist())
    )
    pool = Pool(generator="g", evaluator="e", problems=tuple([only] * 20))
    settings = SelectionSettings(num_draws=40, num_resamples=50, samples=(6,), clusters=(1,))
    found = measure(pool, settings)
    # 800 draws of a fair coin: five standard errors are 0.088
    assert found.against_n["rr_all"][6].value == pytest.approx(0.5, abs=0.088)
    # every vote is a tie: the order is drawn too, so the first given, which is right, wins one in twelve
    assert found.against_n["maj1"][6].value == pytest.approx(1 / 12, abs=0.049)
    assert found.against_n["pass_at_n"][6].value == 0.5
    assert measure(pool, settings) == found


def test_lists_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="'1': 2 solutions need as many right, got 1"):
        Samples(id="1", clusters=(0, 1), right=(True,))
    with pytest.raises(ValueError, match="'1': 2 solutions need as many scores, got 1"):
        Samples(id="1", clusters=(0, 1), right=(True, False), scores=(0.5,))
    with pytest.raises(ValueError, match="'1' has no solutions"):
        Samples(id="1", clusters=(), right=())
    with pytest.raises(ValueError, match="g: no problems"):
        Pool(generator="g", evaluator=None, problems=())
    with pytest.raises(ValueError, match="g: problem '1' has scores, evaluator is None"):
        Pool(generator="g", evaluator=None, problems=PROBLEMS)


def cells(markdown: str, start: str) -> list[str]:
    [line] = [line for line in markdown.splitlines() if line.startswith(f"| {start} |")]
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_the_report_has_ours_beside_the_published_rows(measured: Measured) -> None:
    text = selection_markdown([measured], SETTINGS, figures={"against_n": "n.png"})
    accuracy = text[text.index("## Accuracy") : text.index("## Differences")]
    assert cells(accuracy, "solutions")[1:] == list(TITLES.values())
    ours = cells(accuracy, "g / e")
    assert [cell.split(" ")[0] for cell in ours[1:]] == [
        "47.2", "66.7", "33.3", "66.7", "66.7", "66.7", "66.7", "100.0", "66.7",
    ]  # fmt: skip
    assert cells(accuracy, "† *PaLM 2-L, cross-entropy evaluator*")[1:] == [
        "–", "*55.2*", "*56.8*", "*59.4*", "*60.8*", "*61.2*", "*60.0*", "*82.8*", "–",
    ]  # fmt: skip
    assert accuracy.count("† *") == len(PUBLISHED)
    assert "![accuracy against n](n.png)" in text
    assert cells(text[text.index("## Cost") :], "g / e")[1:] == ["0.0", "90.9", "54.5", "90.9", "54.5", "90.9"]


def test_evaluators_stand_across_generators() -> None:
    found = [
        measure(Pool(generator=generator, evaluator=evaluator, problems=PROBLEMS), SETTINGS)
        for generator, evaluator in (("small", "rm"), ("large", "rm"), ("small", "judge"))
    ]
    table = transfer_table(found)
    assert cells(table, "rm") == ["rm", "33.3 / 66.7", "33.3 / 66.7"]
    assert cells(table, "judge") == ["judge", "33.3 / 66.7", "–"]
    assert cells(table, r"PaLM 2-S\*") == [r"PaLM 2-S\*", "*32.4 / 36.6*", "*48.4 / 50.6*"]


def test_the_terminal_shows_every_strategy_wide_and_narrow(measured: Measured) -> None:
    for width in (80, 200):
        console = Console(width=width, record=True, file=io.StringIO())
        print_selection_table([measured], console)
        text = console.export_text()
        for title in TITLES.values():
            assert title in text
        assert "54.5" in text


def test_the_report_is_written_with_its_figures_and_every_figure(measured: Measured, tmp_path: Path) -> None:
    path = write_selection_report([measured], SETTINGS, tmp_path)
    assert path.read_text().startswith("# Selection\n")
    for name in ("against_n", "against_k"):
        assert (tmp_path / "figures" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert f"figures/{name}.png" in path.read_text()
    record = json.loads((tmp_path / "metrics.json").read_text())
    assert record["settings"]["largest"] == 1
    assert record["pools"][0]["rows"]["rr_all"]["accuracy"]["value"] == pytest.approx(1 / 3)
    assert record["pools"][0]["against_k"]["majk_at_n"]["2"]["value"] == 1.0
