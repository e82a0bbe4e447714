"""What shares n words in a row with a benchmark goes, whatever its case and punctuation; the report says why."""

from __future__ import annotations

import pytest

from jaxrefine.data.decontamination import Overlap, decontaminate
from jaxrefine.data.examples import Instruction, Routed


def example(id: str, prompt: str, response: str = "") -> Instruction:
    return Instruction(id, prompt, response)


QUIZ = [example("q1", "Which planet is the largest of them all?"), example("q2", "Why?")]


def test_words_in_a_row_are_found_whatever_stands_between_them() -> None:
    found = decontaminate([example("a", "He asked: which PLANET is -- the largest, really?")], {"quiz": QUIZ}, n=5)
    assert found.kept == ()
    assert found.removed == (Overlap("a", "quiz", "q1", "which planet is the largest"),)


def test_one_word_less_in_a_row_is_kept() -> None:
    assert decontaminate([example("a", "Which planet is the smallest?")], {"quiz": QUIZ}, n=5).removed == ()
    assert len(decontaminate([example("a", "Which planet is the smallest?")], {"quiz": QUIZ}, n=4).removed) == 1


def test_a_short_text_is_found_by_its_equal_alone() -> None:
    found = decontaminate([example("a", "why"), example("b", "But why?"), example("c", "?!")], {"quiz": QUIZ})
    assert [one.id for one in found.kept] == ["b", "c"]


def test_responses_are_read_where_they_are_asked_for() -> None:
    training = [example("a", "Tell me.", "The planet is the largest of them all, I think.")]
    assert decontaminate(training, {"quiz": QUIZ}).removed == ()
    assert len(decontaminate(training, {"quiz": QUIZ}, fields=("prompt", "response")).removed) == 1


def test_the_report_counts_by_the_first_benchmark_that_is_met() -> None:
    training = [Routed(str(n), prompt, ("m",), (1.0,)) for n, prompt in enumerate(["Why?", "why", "When?"])]
    found = decontaminate(training, {"quiz": QUIZ, "again": QUIZ, "other": [example("o", "When")]})
    assert found.kept == ()
    text = found.report()
    assert "3 of 3 examples (100.0%) share 6 words in a row" in text
    assert "| quiz | 2 | 2 |" in text
    assert "| again | 2 | 0 |" in text
    assert "| other | 1 | 1 |" in text
    assert "- 2 × “why”" in text


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="n = 0 must be at least 1"):
        decontaminate(QUIZ, {}, n=0)
    with pytest.raises(ValueError, match="did you mean 'response'"):
        decontaminate(QUIZ, {}, fields=("respons",))
