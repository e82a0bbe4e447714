"""What an Asker reads and writes is text of a fixed form; what it wrote is read strictly, leniently, or not at all."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrefine.data.refinement import (
    REFINEMENT_ROLES,
    REFINEMENT_TEMPLATES,
    ask_prompt,
    asker_target,
    load_refinement_templates,
    parse_asked,
    refine_prompt,
    with_decision,
)

QUESTIONS = st.lists(st.text("abc {}yesno", min_size=1).map(lambda text: " ".join(text.split()) + "?"), max_size=4)


@given(QUESTIONS, st.booleans())
def test_what_is_taught_is_read_back_strictly(questions: list[str], refine: bool) -> None:
    found = parse_asked(asker_target(questions, refine=refine))
    assert (found.questions, found.refine, found.form) == (tuple(questions), refine, "strict")


@pytest.mark.parametrize(
    ("text", "questions", "refine", "form"),
    [
        ("How many?\nNo", ("How many?",), False, "strict"),
        ("Yes", (), True, "strict"),
        ("How many?\nyes", ("How many?",), True, "lenient"),
        ("1. How many?\n- Which?\nRefine: No.", ("How many?", "Which?"), False, "lenient"),
        ("It seems wrong.\nYes", (), True, "lenient"),
        ("Q1: How many?\nYes, try again.\nBye.", ("How many?",), True, "lenient"),
        ("How many?", ("How many?",), None, "unparsable"),
        ("Is it yes or no?", ("Is it yes or no?",), None, "unparsable"),
        ("Yes and no", (), None, "unparsable"),
        ("Nobody knows, yesterday", (), None, "unparsable"),
        ("", (), None, "unparsable"),
    ],
)
def test_what_an_asker_wrote_is_never_guessed(text: str, questions: tuple[str, ...], refine, form: str) -> None:
    found = parse_asked(text)
    assert (found.questions, found.refine, found.form) == (questions, refine, form)


def test_a_text_that_was_cut_is_never_strict() -> None:
    assert parse_asked("How many?\nNo", finished=False).form == "lenient"


def test_a_model_that_does_everything_goes_on_with_the_solution_after_a_yes_alone() -> None:
    target = asker_target(["How many?"], refine=True, solution="In all: 2+3=5.\n#### 5")
    found = parse_asked(target, solves=True)
    assert (found.questions, found.refine, found.form) == (("How many?",), True, "strict")
    assert found.solution == "In all: 2+3=5.\n#### 5"
    assert asker_target(["How many?"], refine=False, solution="#### 5") == "How many?\nNo"
    assert parse_asked(target).form != "strict"


def test_another_decision_follows_the_same_questions() -> None:
    assert with_decision("Which?\nHow many?\nNo", "Yes") == "Which?\nHow many?\nYes"
    assert with_decision("Which?\nYes\n#### 5", "No") == "Which?\nNo"
    assert with_decision("", "Yes") == "Yes"


def test_prompts_hold_what_they_are_given_and_end_where_the_response_begins() -> None:
    prompt = ask_prompt("How many {x}?", " #### 5\n")
    assert prompt.startswith("How many {x}?\n")
    assert "\n#### 5\n" in prompt
    assert prompt.endswith("\n")
    plain = refine_prompt("How many?", ["Which one?", "How\nmuch?"])
    assert "\nWhich one?\nHow much?\n" in plain
    known = refine_prompt("How many?", ["Which one?"], ["There are five."])
    assert known.index("There are five.") < known.index("Which one?")
    for name, role in REFINEMENT_ROLES.items():
        assert role.required <= REFINEMENT_TEMPLATES[name].fields <= role.required | role.optional
        assert REFINEMENT_TEMPLATES[name].text.endswith("\n")


def test_a_file_of_ones_own_replaces_prompts_one_by_one(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "prompts.toml"
    file.write_text('refine = "{question} First try: {answer} Think of: {sub_questions} Again:"\n')
    templates = load_refinement_templates(file)
    assert refine_prompt("2+3?", ["2?"], answer="6", templates=templates) == "2+3? First try: 6 Think of: 2? Again:"
    assert templates["ask"] == REFINEMENT_TEMPLATES["ask"]
    assert load_refinement_templates(None) == REFINEMENT_TEMPLATES
    file.write_text('ask = "{question}"\n')
    with pytest.raises(ValueError, match=r"prompts.toml: ask: the field \{answer\} is missing"):
        load_refinement_templates(file)
    file.write_text('asks = "{question} {answer}"\n')
    with pytest.raises(ValueError, match="did you mean 'ask'"):
        load_refinement_templates(file)
