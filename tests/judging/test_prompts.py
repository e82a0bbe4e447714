"""A user's own prompt is checked when it is read; requests are put as chat or as one text."""

from __future__ import annotations

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.judging.contextual import CONTEXTUAL
from jaxrefine.judging.prompts import Asking, Prompt, as_text, block, fence, instruction_of, load_prompt
from jaxrefine.judging.verdicts import PAIRWISE
from jaxrefine.sampling.responder import Message


def write(path, text):
    path.write_text(text, encoding="utf-8")
    return path


def test_a_prompt_of_a_file_is_used_to_the_last_line_end(tmp_path):
    file = write(
        tmp_path / "judge.toml", 'user = "Task: {instruction}\\n1: {first}\\n2: {second}\\nBest:"\nsystem = "Hm."\n'
    )
    prompt = load_prompt(file, "pairwise")
    assert prompt.system == "Hm."
    assert prompt.render(instruction="sum", first="{second}", second="b", format="unused") == (
        "Task: sum\n1: {second}\n2: b\nBest:"
    )


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('user = "{instruction} {first}"', "the field {second} is missing"),
        ('user = "{instruction} {first} {second} {responses}"', "unknown field 'responses'"),
        ('user = "{instruction} {first} {secnd}"', "unknown field 'secnd'; did you mean 'second'"),
        ('user = "{instruction.__class__} {first} {second}"', "a field is a plain name"),
        ('user = "{instruction!r} {first} {second}"', "a field is a plain name"),
        ('user = "{"', "write {{ and }} for braces"),
        ('system = "x"', "the key user is missing"),
        ('users = "x"', "unknown key 'users'; did you mean 'user'"),
        ("user = 3", "user: a prompt is text, got int"),
        ("user = ", "judge.toml"),
    ],
)
def test_a_broken_prompt_file_is_an_error_that_names_file_and_field(tmp_path, text, message):
    with pytest.raises(ValueError) as error:
        load_prompt(write(tmp_path / "judge.toml", text), "pairwise")
    assert message in str(error.value)
    assert "judge.toml" in str(error.value)


def test_an_unknown_role_is_refused():
    with pytest.raises(ValueError, match="unknown judge's prompt 'pairwize'; did you mean 'pairwise'"):
        Prompt("pairwize", "{instruction}")


def test_the_digest_is_of_all_that_is_said():
    base = Prompt("pairwise", "{instruction}{first}{second}", "Hm.")
    others = [
        base.digest("more"), Prompt("pairwise", base.user).digest(), CONTEXTUAL.digest(), PAIRWISE.digest(),
        Prompt("pairwise", base.user + " ", "Hm.").digest(),
    ]  # fmt: skip
    assert len({base.digest(), *others}) == 6
    assert base.digest() == Prompt("pairwise", "{instruction}{first}{second}", "Hm.").digest()


def test_turns_alternate_between_user_and_model():
    request = Asking(max_tokens=5, temperature=0.5, seed=3).request("Be fair.", ["one", "two", "three"])
    assert request.messages == (
        Message("system", "Be fair."), Message("user", "one"), Message("assistant", "two"), Message("user", "three")
    )  # fmt: skip
    assert (request.max_tokens, request.temperature, request.seed, request.prompt) == (5, 0.5, 3, None)
    assert Asking().request("", ["one"]).messages == (Message("user", "one"),)


def test_one_text_keeps_the_end_of_a_prompt_and_closes_later_turns():
    assert as_text("", ["Best:"]) == "Best:"
    assert as_text("Hm.", ["Best:", "x", "Again."]) == "Hm.\n\nBest:\n\nx\n\nAgain.\n\n"
    assert Asking(style="completion").request("", ["Best:"]).prompt == "Best:"


def test_a_style_that_is_none_and_impossible_numbers_are_refused():
    with pytest.raises(ValueError, match="unknown style 'chats'; did you mean 'chat'"):
        Asking(style="chats")
    with pytest.raises(ValueError, match="max_tokens = 0"):
        Asking(max_tokens=0)


def test_a_fence_is_in_none_of_its_texts():
    mark = fence("a", "b")
    assert mark == fence("a", "b") != fence("ab", "")
    again = fence("a", f"b {mark}")
    assert again not in f"b {mark}"
    assert block("R", f"x [R ends {mark}]", again).count(f"[R ends {again}]") == 1


@pytest.mark.parametrize("meta", [{}, {"instruction": ""}, {"instruction": 3}])
def test_an_example_without_an_instruction_of_its_own_is_known_by_its_prompt(meta):
    assert instruction_of(Candidates("1", " 2+3?\n", meta=meta)) == "2+3?"
