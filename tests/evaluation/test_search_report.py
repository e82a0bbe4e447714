"""A search's shares, gains and correlations by hand, and what its report says."""

from __future__ import annotations

import dataclasses
import json
import math

import pytest

from jaxrefine.evaluation.search_report import (
    DEFAULT,
    UNTUNED,
    Answered,
    SearchResult,
    markdown,
    search_figure,
    write_search_report,
)
from jaxrefine.selection.tournament import Match, Outcome, make_bracket
from jaxrefine.training.grid import Axis, Grid

GRID = Grid(epochs=(1, 2), axes=(Axis(path="optimizer.learning_rate", values=(0.1, 0.2)),))
NAMES = [trial.name for trial in GRID.trials()]
LETTERS = {"1": "first", "2": "second", "=": "tie", "?": "unparsable"}


def match(one: str, other: str, outcomes: str) -> Match:
    return Match(one=one, other=other, outcomes=tuple(LETTERS[x] for x in outcomes), questions=8)


ROUND = (
    match(NAMES[0], NAMES[1], "1122"), match(NAMES[0], NAMES[2], "2222"), match(NAMES[0], NAMES[3], "22=="),
    match(NAMES[0], DEFAULT, "11=?"), match(NAMES[1], NAMES[2], "2221"), match(NAMES[1], NAMES[3], "22=1"),
    match(NAMES[1], DEFAULT, "1111"), match(NAMES[2], NAMES[3], "11=="), match(NAMES[2], DEFAULT, "1111"),
    match(NAMES[3], DEFAULT, "111="),
)  # fmt: skip
RIGHT = {
    NAMES[0]: (1, 0, 0, 0),
    NAMES[1]: (1, 1, 0, 0),
    NAMES[2]: (1, 1, 1, 1),
    NAMES[3]: (1, 1, 1, 0),
    DEFAULT: (0, 0, 0, 0),
}
RESULT = SearchResult(
    base="small",
    trials={trial.name: trial for trial in GRID.trials()},
    diverged=("9 epoch 1",),
    answered={
        name: Answered(right=tuple(map(float, right)), mean_characters=10.0, perplexity=5.0 - sum(right))
        for name, right in RIGHT.items()
    },
    budget=make_bracket(NAMES, 2).budget(num_prompts=4),
    outcome=Outcome(champion=NAMES[2], winners=(NAMES[1], NAMES[2]), matches=(ROUND[0], ROUND[7], ROUND[4])),
    tournament_questions=24,
    final=ROUND[8],
    round_robin=ROUND,
    questions=80,
)


def test_shares_of_points_over_all_matches():
    shares = RESULT.shares()
    # first trial: 2 of 4, 0 of 4, half of 2 of 4, 2.5 of the 3 with a verdict
    assert shares[NAMES[0]] == pytest.approx((2 + 0 + 1 + 2.5) / 15)
    assert shares[DEFAULT] == pytest.approx((0.5 + 0 + 0 + 0.5) / 15)
    # without a round robin: the tournament's matches and the final
    short = dataclasses.replace(RESULT, round_robin=())
    assert short.shares()[NAMES[2]] == pytest.approx((3 + 3 + 4) / 12)
    assert math.isnan(dataclasses.replace(short, final=ROUND[6]).shares()[DEFAULT]) is False
    assert short.strengths() == {}


def test_the_champions_gain_is_paired_by_task():
    gain = RESULT.gain()
    assert (gain.value, gain.low, gain.high) == (1.0, 1.0, 1.0)
    assert RESULT.accuracy(NAMES[1]).value == 0.5


def test_the_strongest_of_the_round_robin_and_how_the_judge_agrees_with_accuracy():
    assert next(iter(RESULT.strengths())) == NAMES[2]
    assert list(RESULT.strengths())[-1] == DEFAULT
    # by share: trial 3, 4, 2, 1, default; accuracy falls the same way, perplexity rises
    found = RESULT.correlations()
    assert found["judged share and accuracy"] == pytest.approx(1.0)
    assert found["judged share and perplexity"] == pytest.approx(-1.0)


def test_a_report_names_champion_budget_calls_and_gain(tmp_path):
    path = write_search_report([RESULT], tmp_path, title="Search")
    text = path.read_text()
    assert f"champion: **{NAMES[2]}**; block winners: {NAMES[1]}, {NAMES[2]}" in text
    assert "3 matches in both orders: 6 comparisons of 4 prompts, at most 24 questions" in text
    assert "there were 24. Everything together asked the judge 80 different questions" in text
    assert "judged: 4 won, 0 lost, 0 tied" in text
    assert "+100.0 points" in text
    assert "the champion is number 1 of 5" in text
    assert "diverged, and took no part: 9 epoch 1" in text
    assert (tmp_path / "figures" / "small.png").stat().st_size > 1000
    [metrics] = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["budget"] == {"matches": 3, "comparisons": 6, "num_prompts": 4, "questions": 24}
    assert metrics["trials"][DEFAULT]["accuracy"]["value"] == 0.0


def test_what_lm_eval_measures_stands_beside_wins_and_perplexity(tmp_path):
    measured = {
        UNTUNED: {"arc": {"acc,none": 0.25, "acc_stderr,none": 0.01, "acc_norm,none": 0.3}},
        NAMES[2]: {"arc": {"acc,none": 0.5, "acc_norm,none": 0.4, "acc_norm_stderr,none": 0.02}},
        DEFAULT: {"arc": {"acc,none": 0.5, "acc_norm,none": 0.35}},
    }
    found = dataclasses.replace(RESULT, harness=measured)
    lines = markdown([found], title="Search", figures={}).splitlines()
    place = lines.index("| model | share | accuracy | perplexity | arc: acc_norm,none |")
    assert lines[place + 2] == f"| {UNTUNED} | – | – | – | 0.300 |"
    assert lines[place + 3].startswith(f"| {NAMES[2]} | {RESULT.shares()[NAMES[2]]:.3f} | 100.0 % (")
    assert lines[place + 3].endswith("| 1.000 | 0.400 ± 0.020 |")
    assert lines[place + 4].endswith("| 5.000 | 0.350 |")
    write_search_report([found], tmp_path, title="Search")
    [metrics] = json.loads((tmp_path / "metrics.json").read_text())
    assert metrics["lm_eval"] == measured


def test_where_answers_are_not_known_only_the_judge_speaks():
    unknown = {name: dataclasses.replace(one, right=None, perplexity=None) for name, one in RESULT.answered.items()}
    found = dataclasses.replace(RESULT, answered=unknown, round_robin=())
    assert found.gain() is None
    assert found.correlations() == {}
    text = markdown([found], title="Search", figures={})
    assert "accuracy less" not in text
    assert f"| {DEFAULT} | 0.000 | – | – | – | 10 |" in text


def test_the_figure_has_a_panel_an_axis_that_varies_and_one_for_perplexity():
    figure = search_figure(RESULT)
    labels = [axis.get_xlabel() for axis in figure.axes if axis.get_visible()]
    assert labels == ["epoch", "learning rate", "perplexity of validation responses"]
    rates = figure.axes[1]
    assert [tick.get_text() for tick in rates.get_xticklabels()] == ["0.1", "0.2"]
    [mean] = [line for line in rates.lines if len(line.get_xdata()) == 2]
    shares = RESULT.shares()
    assert list(mean.get_ydata()) == pytest.approx(
        [(shares[NAMES[0]] + shares[NAMES[1]]) / 2, (shares[NAMES[2]] + shares[NAMES[3]]) / 2]
    )
