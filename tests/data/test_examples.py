"""Examples refuse what no system could use."""

from __future__ import annotations

import math
from typing import Any

import pytest

from jaxrefine.data.examples import Candidates, Comparison, Instruction, Routed


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (lambda: Instruction("", "p", "r"), "id"),
        (lambda: Instruction("1", "", "r"), "prompt"),
        (lambda: Candidates("1", "p", ("a", "b"), (1.0,)), "2 responses need as many labels, got 1"),
        (lambda: Candidates("1", "p", ("a",), (1.0,), finished=(True, False)), "finished, got 2"),
        (lambda: Candidates("1", "p", ("a",), (math.nan,)), "label 0"),
        (lambda: Comparison("1", "p", "a", "b", "third"), "verdict"),
        (lambda: Routed("1", "p", ("m", "m"), (0.0, 1.0)), "distinct"),
        (lambda: Routed("1", "p", ("m", "n"), (0.0,)), "2 models need as many rewards"),
        (lambda: Routed("1", "p", ("m",), (math.inf,)), "reward of m"),
    ],
)
def test_an_example_that_makes_no_sense_is_refused(make: Any, reason: str) -> None:
    with pytest.raises(Exception, match=reason):
        make()


def test_candidates_are_finished_unless_said_otherwise() -> None:
    assert Candidates("1", "p", ("a", "b"), (1.0, 0.0)).finished == (True, True)
    assert Candidates("1", "p", ("a", "b"), (1.0, 0.0), finished=(False, True)).finished == (False, True)


@pytest.mark.parametrize(("verdict", "labels"), [("first", (1.0, 0.0)), ("second", (0.0, 1.0)), ("tie", (0.5, 0.5))])
def test_a_comparison_is_two_labelled_candidates(verdict: Any, labels: tuple[float, float]) -> None:
    assert Comparison("1", "p", "a", "b", verdict).candidates() == Candidates("1", "p", ("a", "b"), labels)
