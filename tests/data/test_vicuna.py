"""Vicuna QA's files: questions, answers and reviews."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.templates import TEMPLATES, Template
from jaxrefine.data.vicuna import Review, read_vicuna_answers, read_vicuna_questions, read_vicuna_reviews

QUESTIONS = [
    {"question_id": 1, "text": "Why is the sky blue?", "category": "knowledge"},
    {"question_id": 2, "text": "Write a poem.", "category": "writing"},
]
ANSWER = {"question_id": 1, "text": "Light.", "model_id": "small:v1", "answer_id": "a", "metadata": {"t": 0.7}}
REVIEW = {"review_id": "r", "question_id": 1, "text": "8 9\nThe second.", "score": [8, 9.5], "reviewer_id": 1}


def lines(path: pathlib.Path, *records: Any) -> pathlib.Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def test_questions_and_answers_by_hand(tmp_path: pathlib.Path):
    templates = TEMPLATES | {"instruction": Template("instruction", "Q: {instruction}\nA:")}
    questions = read_vicuna_questions(lines(tmp_path / "q.jsonl", *QUESTIONS), templates=templates)
    assert (questions[0].id, questions[0].prompt) == ("1", "Q: Why is the sky blue?\nA:")
    assert questions[1].meta == {"instruction": "Write a poem.", "category": "writing"}
    second = ANSWER | {"question_id": 2, "text": ""}
    answers = read_vicuna_answers(lines(tmp_path / "a.jsonl", second, ANSWER), questions=questions)
    assert [answer.responses for answer in answers] == [("Light.",), ("",)]
    assert answers[0].meta["model"] == "small:v1"
    assert answers[0].prompt == questions[0].prompt


def test_answers_to_other_questions_or_to_none_are_refused(tmp_path: pathlib.Path):
    questions = read_vicuna_questions(lines(tmp_path / "q.jsonl", *QUESTIONS))
    with pytest.raises(RecordError, match=r"a\.jsonl:1: question_id: no question has the id '9'"):
        read_vicuna_answers(lines(tmp_path / "a.jsonl", ANSWER | {"question_id": 9}), questions=questions)
    with pytest.raises(ValueError, match=r"no answer to question 2 \(1 in all\)"):
        read_vicuna_answers(lines(tmp_path / "a.jsonl", ANSWER), questions=questions)


def test_a_review_by_hand(tmp_path: pathlib.Path):
    found = read_vicuna_reviews(lines(tmp_path / "r.jsonl", REVIEW))
    assert found == [Review("1", (8.0, 9.5), "8 9\nThe second.")]
    assert found[0].verdict == "second"
    assert (Review("1", (7.0, 7.0)).verdict, Review("1", (7.5, 7.0)).verdict) == ("tie", "first")
    with pytest.raises(RecordError, match=r"r\.jsonl:1: score: two numbers are wanted, got 1"):
        read_vicuna_reviews(lines(tmp_path / "r.jsonl", REVIEW | {"score": [8]}))


@pytest.mark.shared_data
def test_published_files_are_read_whole(shared_data: pathlib.Path):
    root = shared_data / "vicuna_qa"
    questions = read_vicuna_questions(root / "question.jsonl")
    assert [question.id for question in questions] == [str(number) for number in range(1, 81)]
    files = sorted((root / "answer").glob("*.jsonl.gz"))
    models = {read_vicuna_answers(file, questions=questions)[0].meta["model"] for file in files}
    assert len(files) == len(models) == 7
    for file in sorted((root / "review").rglob("*.jsonl.gz")):
        reviews = read_vicuna_reviews(file)
        assert len(reviews) == 60
        for review in reviews:  # the first line of a review holds the two numbers
            said = review.text.split("\n")[0].replace(",", " ").split()
            assert tuple(float(number) for number in said[:2]) == review.scores
