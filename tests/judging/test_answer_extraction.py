"""Foreign solutions: the answer is read where it is stated, and nowhere else."""

from __future__ import annotations

import pytest

from jaxrefine.judging.answers import extract

HUGE = 300_000


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"So \boxed{42}.", "42"),
        (r"\boxed{\frac{1}{2}}", r"\frac{1}{2}"),
        (r"\boxed{\text{a \{brace\}}}", r"\text{a \{brace\}}"),
        (r"First \boxed{1}. No: \boxed{\sqrt{2}}", r"\sqrt{2}"),
        (r"$\boxed{2}$ and $\boxed{3}$.", "2, 3"),
        (r"\fbox{7}", "7"),
        (r"\boxed 7", "7"),
        (r"\boxed{}", None),
        (r"\boxed{3", None),
        ("the box is 3", None),
    ],
)
def test_the_last_box_with_its_inner_braces(text: str, expected: str | None):
    assert extract(text, style="boxed") == expected


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("The answer is 42.", "42."),
        ("Thus the final answer is: $x = 3$.", "$x = 3$"),
        ("The answer is $\\frac{1}{2}$, because it is half.", "$\\frac{1}{2}$"),
        ("**Answer:** 12 cm", "12 cm"),
        ("So 5 + 5 = 10\nA: 1,200", "1,200"),
        ("# Answer\n\n25", "25"),
        ("The answer is 3. Wait.\nThe answer is 4.", "4."),
        ("The answer is 6. So our answer is correct.", "6"),
        ("I count 7 apples.", None),
        ("", None),
    ],
)
def test_what_a_phrase_states(text: str, expected: str | None):
    assert extract(text, style="phrase") == expected


def test_gsm8k_style_takes_the_last_marker_as_it_is_written():
    assert extract("#### 1,200\n", kind="raw") == "1,200"
    assert extract("#### 1\n#### 2", kind="raw") == "2"
    assert extract("#### 1\n#### 2") is None  # the strict reading of our own world


def test_the_last_line_is_taken_whole():
    assert extract("Thinking of 3.\n\n  (1, 2) \n", style="last line") == "(1, 2)"


def test_auto_prefers_the_box_then_the_marker_then_the_phrase_and_never_a_bare_number():
    assert extract("The answer is 1.\n#### 2\n\\boxed{3}", style="auto") == "3"
    assert extract("The answer is 1.\n#### 2", style="auto") == "2"
    assert extract("The answer is 1", style="auto") == "1"
    assert extract("There are 12 of 15 left.", style="auto") is None


def test_a_conclusion_is_the_end_of_the_last_sentence_with_a_value():
    assert extract("We add.\nSo there are $3 \\cdot 4 = 12$ ways.", style="conclusion") == "12"
    assert extract("Nothing comes of it.", style="conclusion") is None


def test_kinds_turn_what_was_found_into_keys():
    assert extract(r"\boxed{1,200.0}", style="boxed", kind="number") == "1200"
    assert extract(r"\boxed{Blue  Whale}", style="boxed", kind="text") == "blue whale"
    assert extract(r"\boxed{x+1}", style="boxed", kind="number") is None


def test_an_unknown_style_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'boxed'"):
        extract("", style="boxd")


@pytest.mark.parametrize("style", ["marker", "boxed", "phrase", "auto", "conclusion"])
@pytest.mark.parametrize("start", ["#### ", r"\boxed{", "The answer is ", "# Answer"])
@pytest.mark.parametrize("filling", [" ", "(", "\n", "answer is "])
def test_texts_of_megabytes_are_read_in_one_pass(style: str, start: str, filling: str):
    text = start + filling * (HUGE // len(filling))
    found = extract(text, style=style, kind="raw")
    assert found is None or len(found) <= 20_000
