"""Solutions are graded as mathematics: spelling does not matter, and what was cut has no answer."""

from __future__ import annotations

import dataclasses

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.judging.grading import grade, labelled_by_grade

TEXTS = (r"so \boxed{\frac{1}{2}}", "#### 0.5", "The answer is 2/4.", r"\boxed{2}", "I do not know")
EXAMPLE = Candidates("1", "A half?", TEXTS, (0.0,) * 5, r"\dfrac12")


def test_equal_answers_are_one_cluster_and_right_whatever_their_spelling():
    graded = grade(EXAMPLE, grader=None)
    assert graded.clusters == (0, 0, 0, 1, None)
    assert graded.right == (True, True, True, False, False)
    assert labelled_by_grade(EXAMPLE, graded).labels == (1.0, 1.0, 1.0, 0.0, 0.0)


def test_a_solution_cut_by_length_has_no_answer_unless_it_is_asked_for():
    cut = dataclasses.replace(EXAMPLE, finished=(True, False, True, True, True))
    assert grade(cut, grader=None).clusters == (0, None, 0, 1, None)
    assert grade(cut, grader=None).right == (True, False, True, False, False)
    assert grade(cut, grader=None, read_cut=True).right == (True, True, True, False, False)


def test_without_a_known_answer_nothing_is_graded():
    with pytest.raises(ValueError, match="example '1' has no known answer"):
        grade(dataclasses.replace(EXAMPLE, answer=None), grader=None)
