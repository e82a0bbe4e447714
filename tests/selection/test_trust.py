"""Decisions and choices are those that the table of signals says, ties and silence included."""

from __future__ import annotations

import math

import pytest

from jaxrefine.selection.trust import (
    CHOICES,
    DECISIONS,
    Signals,
    chosen,
    decides_to_refine,
    majority_of,
    missing,
    thresholds,
)

SAID = Signals(yes_probability=0.4, asker_says_yes=False, self_says_yes=True, scores=(0.2, 0.1), self_choice=1)


@pytest.mark.parametrize(
    ("name", "refines"),
    [("none", False), ("always", True), ("self", True), ("greedy", False), ("threshold", False), ("oracle", True)],
)
def test_every_decision_reads_its_own_signal(name: str, refines: bool) -> None:
    assert decides_to_refine(name, SAID, right=False) is refines


@pytest.mark.parametrize(("name", "place"), [("refined", 1), ("self", 1), ("truster", 0), ("oracle", 1)])
def test_every_choice_reads_its_own_signal(name: str, place: int) -> None:
    assert chosen(name, SAID, right=(False, False)) == place


def test_a_threshold_refines_from_its_own_value_on() -> None:
    assert [decides_to_refine("threshold", SAID, threshold=t) for t in (0.39, 0.4, 0.41)] == [True, True, False]
    assert not decides_to_refine("oracle", SAID, right=True)


def test_an_asker_that_wrote_neither_yes_nor_no_refines_nothing() -> None:
    assert not decides_to_refine("greedy", Signals())


@pytest.mark.parametrize(("scores", "place"), [((1.0, 1.5), 1), ((1.5, 1.0), 0), ((1.0, 1.0), 0), ((-2.0, -1.0), 1)])
def test_the_truster_keeps_the_first_answer_unless_the_refined_one_scores_higher(
    scores: tuple[float, float], place: int
) -> None:
    assert chosen("truster", Signals(scores=scores)) == place


@pytest.mark.parametrize(
    ("right", "place"), [((True, False), 0), ((False, True), 1), ((True, True), 1), ((False, False), 1)]
)
def test_the_oracle_takes_a_right_answer_where_there_is_one(right: tuple[bool, bool], place: int) -> None:
    assert chosen("oracle", Signals(), right=right) == place


def test_a_vote_of_three_takes_the_pair_and_else_the_first() -> None:
    assert [majority_of(votes) for votes in (["4", "3", "3"], ["4", "3", "5"], [None, "3", "4"])] == [1, 0, 1]
    assert majority_of([None, None, None]) is None


def test_thresholds_go_from_nobody_to_everybody_without_skipping_a_set() -> None:
    probabilities = [0.5, 0.1, 0.5, 0.9]
    refined = [sum(p >= t for p in probabilities) for t in thresholds(probabilities)]
    assert refined == [0, 1, 3, 4]
    assert thresholds(probabilities)[0] == math.inf


def test_what_nobody_said_is_named() -> None:
    silent = Signals()
    for decision, row in DECISIONS.items():
        assert missing(decision, "refined", [SAID, SAID]) is None
        assert missing(decision, "refined", [silent]) == row.reads
    for choice, other in CHOICES.items():
        assert missing("always", choice, [SAID]) is None
        assert missing("always", choice, [SAID, silent]) == other.reads
    assert missing("greedy", "refined", [silent, SAID]) is None  # one text without Yes or No
    for call in (
        lambda: decides_to_refine("threshold", silent),
        lambda: decides_to_refine("oracle", silent),
        lambda: chosen("truster", silent),
        lambda: chosen("self", silent),
        lambda: chosen("oracle", silent),
    ):
        with pytest.raises(ValueError, match="reads|right"):
            call()


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: decides_to_refine("treshold", SAID), "did you mean 'threshold'"),
        (lambda: chosen("trustor", SAID), "did you mean 'truster'"),
        (lambda: Signals(yes_probability=1.2), "within 0 and 1, given 1.2"),
        (lambda: Signals(scores=(0.0, math.nan)), "scores are numbers"),
        (lambda: Signals(self_choice=2), "given 2"),
    ],
)
def test_what_cannot_be_is_refused(call, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        call()
