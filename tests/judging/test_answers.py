"""Answers are read only where they are marked, and compared as numbers."""

from __future__ import annotations

import pytest

from jaxrefine.judging.answers import answer_key, canonical_number, extract, is_right


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("36", "36"),
        (" 36 ", "36"),
        ("036", "36"),
        ("+7", "7"),
        ("-7", "-7"),
        ("−7", "-7"),
        ("1,234,567", "1234567"),
        ("1,200.50", "1200.5"),
        (".5", "0.5"),
        ("3.00", "3"),
        ("-0.0", "0"),
        ("$5", "5"),
        ("-$5", "-5"),
        ("$-5", "-5"),
        ("€1,000.25", "1000.25"),
        ("50%", "50"),
        ("36 apples", "36"),
        ("36.", "36"),
        ("36 apples.", "36"),
        ("100", "100"),
    ],
)
def test_a_number_has_one_spelling(text: str, expected: str) -> None:
    assert canonical_number(text) == expected


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-",
        "$",
        "1,23",
        "12,3456",
        "1 2",
        "3 + 4",
        "3 - 4",
        "3/4",
        "36 or 40",
        "36 = 36",
        "a 36",
        "--3",
        "-$-3",
        "1.2.3",
        "٣",
        "9" * 61,
    ],
)
def test_what_is_not_exactly_one_number_is_none(text: str) -> None:
    assert canonical_number(text) is None


def test_the_last_number_of_a_text_is_never_taken() -> None:
    assert extract("She has 6 boxes of 6, so 36.") is None
    assert is_right("She has 6 boxes of 6, so 36.", 36) == "no answer"


def test_markers_that_agree_are_one_answer_and_others_are_none() -> None:
    assert extract("#### 36\nCheck.\n#### 36.0") == "36"
    assert extract("#### 36\n#### 37") is None
    assert extract("#### 36\n####") is None


def test_only_the_line_of_the_marker_is_read() -> None:
    assert extract("####\n36") is None
    assert extract("6 * 6 = 36\n#### 36\nThanks 5") == "36"


@pytest.mark.parametrize(
    ("text", "answer", "outcome"),
    [
        ("#### 36", 36, "right"),
        ("#### 36", "36", "right"),
        ("#### 36.50", 36.5, "right"),
        ("#### 1,000", "1000", "right"),
        ("#### 0.0000001", 1e-7, "right"),
        ("#### 35", 36, "wrong"),
        ("#### -36", 36, "wrong"),
        ("#### thirty-six", 36, "no answer"),
        ("", 36, "no answer"),
        ("#### Yes", "yes", "right"),
        ("#### no", "yes", "wrong"),
    ],
)
def test_the_three_outcomes(text: str, answer: str | int | float, outcome: str) -> None:
    assert is_right(text, answer) == outcome


def test_every_answer_equals_itself() -> None:
    for answer in ["36", "1,200.50", "-$3", "Paris", "x^2 + 1"]:
        assert is_right(f"Therefore:\n#### {answer}", answer) == "right"


def test_an_empty_known_answer_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be empty"):
        answer_key("  ")
