"""Accuracies, outcomes and tests of refinements are those that counting by hand gives."""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from jaxrefine.evaluation.refinement import (
    Answer,
    Query,
    Refinements,
    RefinementSettings,
    exact_mcnemar,
    measure_refinement,
)
from jaxrefine.selection.trust import Signals

QUICK = RefinementSettings(num_resamples=50)
RIGHT, WRONG, OTHER = (Answer(key="5", right=True), Answer(key="4", right=False), Answer(key="6", right=False))
SILENT = Answer(key=None, right=False)


def query(id: str, initial: Answer, refined: Answer, probability: float, scores: tuple[float, float], self_says: bool,
          self_choice: int, votes: tuple[Answer, ...]) -> Query:  # fmt: skip
    signals = Signals(
        yes_probability=probability,
        asker_says_yes=probability > 0.5,
        self_says_yes=self_says,
        scores=scores,
        self_choice=self_choice,
    )
    return Query(id=id, initial=initial, refined=refined, signals=signals, votes=votes, self_refined=refined)


FIVE = (
    query("a", RIGHT, RIGHT, 0.9, (1.0, 0.0), False, 1, (RIGHT, WRONG, WRONG)),
    query("b", RIGHT, WRONG, 0.8, (2.0, 1.0), False, 1, (RIGHT, RIGHT, WRONG)),
    query("c", WRONG, RIGHT, 0.7, (0.0, 3.0), True, 0, (WRONG, OTHER, RIGHT)),
    query("d", WRONG, OTHER, 0.2, (0.0, 1.0), True, 0, (SILENT, SILENT, RIGHT)),
    query("e", WRONG, RIGHT, 0.1, (1.0, 0.5), False, 1, (WRONG, WRONG, WRONG)),
)
"""The Asker refines a, b and c; 2 of 5 first answers are right, 3 of 5 refined ones."""


def measured(queries: tuple[Query, ...] = FIVE, settings: RefinementSettings = QUICK):
    return measure_refinement(Refinements(generator="m", queries=queries), settings)


@pytest.mark.parametrize(
    ("method", "num_right", "num_refined", "reverted", "outcomes"),
    [
        ("none", 2, 0, None, (2, 0, 0, 3)),
        ("self_refine", 3, 5, None, (1, 1, 2, 1)),
        ("self", 3, 2, None, (2, 0, 1, 2)),  # c and d are refined: c becomes right
        ("always", 3, 5, None, (1, 1, 2, 1)),
        ("asker", 2, 3, None, (1, 1, 1, 2)),  # b is lost, c is won
        ("asker_self", 1, 3, 1 / 3, (1, 1, 0, 3)),  # it keeps c's wrong answer
        ("art", 3, 3, 2 / 3, (2, 0, 1, 2)),  # the Truster keeps a's and b's first answers
        ("always_self", 2, 5, 2 / 5, (1, 1, 1, 2)),
        ("always_truster", 3, 5, 3 / 5, (2, 0, 1, 2)),
        ("majority", 2, 5, None, (1, 1, 1, 2)),  # b; and d, where only one sample states an answer
        ("oracle_decision", 4, 3, None, (2, 0, 2, 1)),
        ("oracle_choice", 4, 5, 1 / 5, (2, 0, 2, 1)),
    ],
)
def test_every_method_is_what_counting_by_hand_gives(
    method: str, num_right: int, num_refined: int, reverted: float | None, outcomes: tuple[int, ...]
) -> None:
    row = measured().rows[method]
    assert row.accuracy.value == pytest.approx(num_right / 5)
    assert row.share_refined == pytest.approx(num_refined / 5)
    assert row.share_reverted == (None if reverted is None else pytest.approx(reverted))
    assert row.transitions == outcomes
    assert sum(outcomes) == 5
    if method != "none":
        assert row.difference is not None
        assert row.difference.value == pytest.approx((num_right - 2) / 5)


def test_the_threshold_takes_the_place_of_the_written_decision() -> None:
    strict = RefinementSettings(decision="threshold", threshold=0.75, num_resamples=50)
    assert measured(settings=strict).rows["asker"].share_refined == pytest.approx(2 / 5)
    assert measured(settings=strict).rows["art"].transitions == (2, 0, 0, 3)


def test_the_curve_sweeps_from_nobody_to_everybody() -> None:
    curve = measured().curve
    assert [point.share_refined for point in curve] == pytest.approx([0.0, 0.2, 0.4, 0.6, 0.8, 1.0])
    assert [round(5 * point.accuracy["refined"].value) for point in curve] == [2, 2, 1, 2, 2, 3]
    assert [round(5 * point.accuracy["truster"].value) for point in curve] == [2, 2, 2, 3, 3, 3]
    assert curve[0].threshold == math.inf
    few = measured(settings=RefinementSettings(num_points=2, num_resamples=50)).curve
    assert [point.share_refined for point in few] == [0.0, 1.0]


def test_asker_and_truster_are_measured_as_what_they_are() -> None:
    """Refined: a, b right, c wrong. Of the 6 pairs of wrong (.7, .2, .1) and right (.9, .8) answers none is in order.
    One answer alone is right in b, c and e; the Truster prefers it in b and c."""
    found = measured().detection
    assert (found.precision, found.recall) == (pytest.approx(1 / 3), pytest.approx(1 / 3))
    assert found.area == 0.0
    assert found.truster == pytest.approx(2 / 3)


def test_the_area_agrees_with_scipy_on_ties_too() -> None:
    generator = np.random.default_rng(0)
    chances, rights = generator.integers(0, 10, 60) / 10, generator.integers(0, 2, 60).astype(bool)
    queries = tuple(
        Query(id=str(n), initial=RIGHT if right else WRONG, refined=RIGHT, signals=Signals(yes_probability=float(p)))
        for n, (p, right) in enumerate(zip(chances, rights, strict=True))
    )
    settings = RefinementSettings(decision="threshold", num_resamples=50)
    statistic = stats.mannwhitneyu(chances[~rights], chances[rights]).statistic
    assert measured(queries, settings).detection.area == pytest.approx(statistic / ((~rights).sum() * rights.sum()))


def test_what_was_not_said_leaves_methods_out_with_the_reason() -> None:
    bare = tuple(Query(id=query.id, initial=query.initial, refined=query.refined) for query in FIVE)
    found = measured(bare)
    assert list(found.rows) == ["none", "always", "oracle_decision", "oracle_choice"]
    assert found.left_out["art"] == "nobody gave asker_says_yes"
    assert found.left_out["always_truster"] == "nobody gave scores"
    assert found.left_out["majority"] == "no samples to vote"
    assert found.curve == ()
    assert found.detection.precision is None


def test_equal_and_unstated_answers_are_counted() -> None:
    found = measured((*FIVE, Query(id="f", initial=SILENT, refined=SILENT, votes=(SILENT,) * 3)))
    assert found.share_agreeing == pytest.approx(2 / 6)  # a and f
    assert found.unstated == (1, 1)


@pytest.mark.parametrize(("better", "worse", "p"), [(0, 0, 1.0), (5, 0, 2 / 32), (1, 1, 1.0), (7, 1, 2 * 9 / 256)])
def test_mcnemar_is_the_binomial_of_the_discordant_pairs(better: int, worse: int, p: float) -> None:
    values = np.array([True] * better + [False] * worse + [True, False])
    control = np.array([False] * better + [True] * worse + [True, False])
    assert exact_mcnemar(values, control) == pytest.approx(p)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Query(id="q", initial=Answer(key=None, right=True), refined=WRONG), "states nothing cannot be right"),
        (lambda: Refinements(generator="m", queries=()), "m: no queries"),
        (
            lambda: Refinements(generator="m", queries=(FIVE[0], Query(id="z", initial=WRONG, refined=WRONG))),
            r"as many votes, got \[0, 3\]",
        ),
        (lambda: RefinementSettings(num_points=1), "at least its two ends"),
        (lambda: RefinementSettings(threshold=1.5), "within 0 and 1"),
    ],
)
def test_what_cannot_be_measured_is_refused(make, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()
