"""Readers give examples or say where a file is wrong; what is written comes back."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.readers import (
    read_candidates,
    read_gsm8k,
    read_gsm8k_solutions,
    read_instructions,
    read_prompts,
    write_candidates,
)
from jaxrefine.data.templates import Template

text = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
number = st.floats(allow_nan=False, allow_infinity=False)


@st.composite
def examples(draw: st.DrawFn) -> list[tuple[Any, ...]]:
    ids = draw(st.lists(text.filter(bool), max_size=4, unique=True))
    made = []
    for id in ids:
        found = draw(st.lists(st.tuples(text, number, st.booleans()), min_size=1, max_size=4))
        responses, labels, finished = zip(*found, strict=True)
        meta = draw(st.dictionaries(text, number | text | st.booleans(), max_size=2))
        answer = draw(st.none() | text.filter(bool))
        made.append((id, draw(text.filter(bool)), responses, labels, answer, finished, meta))
    return made


def write(path: pathlib.Path, *records: Any) -> pathlib.Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


@given(examples())
@settings(max_examples=40, deadline=None)
def test_written_candidates_come_back(tmp_path_factory: pytest.TempPathFactory, drawn: list[tuple[Any, ...]]) -> None:
    found = [Candidates(*values) for values in drawn]
    file = tmp_path_factory.getbasetemp() / "round.jsonl.gz"
    write_candidates(file, found)
    assert read_candidates(file) == found


def test_an_id_is_written_once(tmp_path: pathlib.Path) -> None:
    twice = [Candidates("1", "p", ("a",), (1.0,))] * 2
    with pytest.raises(ValueError, match="'1' occurs twice"):
        write_candidates(tmp_path / "data.jsonl", twice)


def test_a_line_of_scored_candidates_by_hand(tmp_path: pathlib.Path) -> None:
    line = {
        "id": "q1",
        "prompt": "2+3?\n",
        "answer": "5",
        "candidates": [{"text": "#### 5", "score": 1}, {"text": "2+3=", "score": 0, "finished": False}],
    }
    assert read_candidates(write(tmp_path / "data.jsonl", line), binary=True) == [
        Candidates("q1", "2+3?\n", ("#### 5", "2+3="), (1.0, 0.0), "5", (True, False))
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"prompt": ""}, "prompt: is empty"),
        ({"prompt": None}, "prompt: a string is wanted"),
        ({"answer": 5}, "answer: a string is wanted, got int 5"),
        ({"candidates": []}, "candidates: at least 1 wanted, got 0"),
        ({"candidates": {}}, "candidates: a list is wanted"),
        ({"candidates": ["a"]}, r"candidates\[0\]: an object is wanted, got str"),
        ({"candidates": [{"text": "a"}]}, r"candidates\[0\]\.score: missing"),
        ({"candidates": [{"text": "a", "score": 1}, {"score": 1}]}, r"candidates\[1\]\.text: missing"),
        ({"candidates": [{"text": "a", "score": True}]}, r"candidates\[0\]\.score: a number is wanted"),
        ({"candidates": [{"text": "a", "score": 0.5}]}, r"candidates\[0\]\.score: 0 \(wrong\) or 1 \(right\)"),
        ({"candidates": [{"text": "a", "score": 1, "scroe": 2}]}, r"candidates\[0\]\.scroe: .*mean 'score'"),
        ({"candidates": [{"text": "a", "score": 1, "finished": 1}]}, r"candidates\[0\]\.finished: true or false"),
        ({"candidates": [{"text": "a", "score": 1, "finished": None}]}, r"candidates\[0\]\.finished: true or false"),
        ({"meta": []}, "meta: an object is wanted"),
        ({"promt": "p"}, "promt: unknown field 'promt'; did you mean 'prompt'"),
    ],
)
def test_a_wrong_field_is_named_by_its_path(tmp_path: pathlib.Path, change: dict[str, Any], reason: str) -> None:
    line = {"id": "q1", "prompt": "2+3?", "candidates": [{"text": "#### 5", "score": 1}]}
    with pytest.raises(RecordError, match=rf"data\.jsonl:1: {reason}"):
        read_candidates(write(tmp_path / "data.jsonl", line | change), binary=True)


def test_too_few_candidates_are_set_aside(tmp_path: pathlib.Path) -> None:
    one = {"id": "1", "prompt": "p", "candidates": [{"text": "a", "score": 1}]}
    two = {"id": "2", "prompt": "p", "candidates": [{"text": "a", "score": 1}, {"text": "b", "score": 0.3}]}
    file = write(tmp_path / "data.jsonl", one, two)
    found = read_candidates(file, min_candidates=2, rejects=tmp_path / "rejects.jsonl")
    assert [(example.id, example.labels) for example in found] == [("2", (1.0, 0.3))]
    assert json.loads((tmp_path / "rejects.jsonl").read_text())["field"] == "candidates"


def test_prompts_may_bring_candidates_which_are_left_aside(tmp_path: pathlib.Path) -> None:
    file = write(
        tmp_path / "data.jsonl",
        {"id": "1", "prompt": "p", "answer": "3"},
        {"id": "2", "prompt": "q", "candidates": [{"text": "a", "score": 1}]},
    )
    assert read_prompts(file) == [Candidates("1", "p", answer="3"), Candidates("2", "q")]


def test_instructions_are_prompt_and_response(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "data.jsonl", {"id": "1", "prompt": "p", "response": "", "answer": "3", "meta": {"k": 1}})
    assert read_instructions(file) == [Instruction("1", "p", "", "3", {"k": 1})]


GSM8K = {"question": "How many?", "answer": "He has 600*2=<<600*2=1200>>1,200.\n#### 1,200"}


def test_a_line_of_gsm8k_by_hand(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "train.jsonl", GSM8K)
    assert read_gsm8k(file) == [Instruction("train-1", "How many?\n", "He has 600*2=1,200.\n#### 1,200", "1200")]
    annotated = read_gsm8k(file, template=Template("q", "Q: {question} A:"), annotations=True)[0]
    assert (annotated.prompt, annotated.response) == ("Q: How many? A:", GSM8K["answer"])


def test_socratic_steps_are_taken_apart(tmp_path: pathlib.Path) -> None:
    answer = "How many first? ** 2+1=<<2+1=3>>3\nAnd then? ** 3**2 is 9\n#### -9"
    found = read_gsm8k(write(tmp_path / "s.jsonl", {"question": "q", "answer": answer}))[0]
    assert found.response == "2+1=3\n3**2 is 9\n#### -9"
    assert found.meta == {"sub_questions": ["How many first?", "And then?"]}
    assert found.answer == "-9"


def test_gsm8k_without_a_final_line_is_refused(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "train.jsonl", GSM8K, {"question": "q", "answer": "It is #### 3 of them."})
    with pytest.raises(RecordError, match=r"train\.jsonl:2: answer: does not end with a line '#### number'"):
        read_gsm8k(file)


SOLUTIONS = {
    "question": "How many?",
    "ground_truth": "600*2=1,200\nA: 1,200",
    "small": {"is_correct": False, "solution": "600+2=<<600+2=602>>602\nA: 602 "},
    "large": {"is_correct": True, "solution": "A: 1200"},
    "cut": {"is_correct": False, "solution": "A: it is 600\nand then"},
}


def test_a_line_of_model_solutions_by_hand(tmp_path: pathlib.Path) -> None:
    assert read_gsm8k_solutions(write(tmp_path / "x.jsonl", SOLUTIONS)) == [
        Candidates(
            "x-1",
            "How many?\n",
            ("600+2=602\n#### 602", "#### 1200", "A: it is 600\nand then"),
            (0.0, 1.0, 0.0),
            "1200",
            (True, True, False),
            {"models": ["small", "large", "cut"]},
        )
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"large": {"is_correct": 1, "solution": "A: 1"}}, "large.is_correct: true or false is wanted, got int 1"),
        ({"large": {"solution": "A: 1"}}, "large.is_correct: missing"),
        ({"large": "A: 1"}, "large: an object is wanted"),
        ({"large": {"is_correct": True, "solution": "A: 1", "x": 1}}, "large.x: unknown field"),
        ({"ground_truth": "1200"}, "ground_truth: does not end with a line 'A: number'"),
    ],
)
def test_wrong_model_solutions_are_refused(tmp_path: pathlib.Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError, match=reason):
        read_gsm8k_solutions(write(tmp_path / "x.jsonl", SOLUTIONS | change))


def test_model_solutions_need_a_model(tmp_path: pathlib.Path) -> None:
    with pytest.raises(RecordError, match="no model's solution"):
        read_gsm8k_solutions(write(tmp_path / "x.jsonl", {"question": "q", "ground_truth": "A: 1"}))


@pytest.mark.shared_data
@pytest.mark.parametrize(("name", "num"), [("train", 7473), ("test", 1019), ("test_socratic", 1019)])
def test_gsm8k_as_published_is_read_whole(shared_data: pathlib.Path, name: str, num: int) -> None:
    found = read_gsm8k(shared_data / "gsm8k" / f"{name}.jsonl.gz")
    assert len(found) == num
    assert all((example.answer or "").lstrip("-").isdigit() for example in found)
    assert not any("<<" in example.response for example in found)
    assert all(("sub_questions" in example.meta) == (name == "test_socratic") for example in found)


@pytest.mark.shared_data
def test_the_labels_of_gsm8k_model_solutions_follow_from_their_answers(shared_data: pathlib.Path) -> None:
    found = read_gsm8k_solutions(shared_data / "gsm8k" / "example_model_solutions.jsonl.gz")
    assert len(found) == 659
    for example in found:
        for response, label, finished in zip(example.responses, example.labels, example.finished, strict=True):
            last = response.split("\n")[-1]
            assert finished == last.startswith("#### ")
            assert (last.removeprefix("#### ").replace(",", "") == example.answer) == (label == 1)
