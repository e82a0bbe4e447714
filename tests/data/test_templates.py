"""Templates name what is missing or unknown, and never touch what a field holds."""

from __future__ import annotations

import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrefine.data.templates import ROLES, TEMPLATES, VERDICT_WORDS, Template, instruction_prompt, load_templates


@pytest.mark.parametrize("name", sorted(ROLES))
def test_every_shipped_template_fits_its_role(name: str) -> None:
    template, role = TEMPLATES[name], ROLES[name]
    assert role.required <= template.fields <= role.required | role.optional


@given(st.text())
def test_a_value_is_filled_in_as_it_is(text: str) -> None:
    assert Template("t", "<{question}>").render(question=text) == f"<{text}>"


def test_doubled_braces_are_braces() -> None:
    assert Template("t", "{{{a}}}").render(a="x") == "{x}"


def test_the_prompt_of_the_arithmetic_world_is_the_question_and_a_line_end() -> None:
    assert TEMPLATES["question"].render(question="How many?") == "How many?\n"


def test_a_verdict_follows_its_template_without_a_doubled_space() -> None:
    assert not TEMPLATES["verdict"].text.endswith(" ")
    assert all(word.startswith(" ") and word.strip() for word in VERDICT_WORDS)


def test_an_instruction_with_an_input_takes_the_other_template() -> None:
    plain, full = instruction_prompt("Sum up."), instruction_prompt("Sum up.", "A long text.")
    assert "A long text." in full
    assert "### Text" not in plain
    assert instruction_prompt("Sum up.", " \n") == plain


@pytest.mark.parametrize(
    ("values", "reason"),
    [({}, "no value for field question"), ({"question": "a", "questoin": "b"}, "'questoin'.*did you mean 'question'")],
)
def test_a_missing_or_unknown_field_is_named(values: dict[str, str], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        TEMPLATES["question"].render(**values)


@pytest.mark.parametrize("text", ["{", "}", "{}", "{0}", "{a.b}", "{a[0]}", "{a!r}", "{a:>3}", "{a b}"])
def test_anything_but_a_plain_name_in_braces_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="template 't'"):
        Template("t", text)


def test_a_file_replaces_what_it_names(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "mine.toml"
    file.write_text('question = "Q: {question}\\nA:"\nverdict = """\nIs it right? It is"""\n')
    templates = load_templates(file)
    assert templates["question"].render(question="1+1?") == "Q: 1+1?\nA:"
    assert templates["verdict"].text == "Is it right? It is"
    assert templates["instruction"] == TEMPLATES["instruction"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ('qestion = "{question}"', "'qestion'; did you mean 'question'"),
        ('question = "Q:"', r"question: the field \{question\} is missing"),
        ('question = "{question} {imput}"', "question: unknown field 'imput'"),
        ('instruction_with_input = "{instruction} {imput} {input}"', "'imput'; did you mean 'input'"),
        ("question = 3", "question: a template is text, got int"),
        ('question = "{question"', "question"),
        ("question = ", "Invalid value"),
    ],
)
def test_a_wrong_file_is_refused_with_its_name_and_the_field(tmp_path: pathlib.Path, content: str, reason: str) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(content)
    with pytest.raises(ValueError, match=rf"mine\.toml: .*{reason}"):
        load_templates(file)
