"""Vicuna QA: its 80 questions, published answers of models, and published reviews, in their original formats.

Source: https://github.com/lm-sys/vicuna-blog-eval
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping

from jaxrefine.data.examples import Candidates, Verdict
from jaxrefine.data.json_documents import identifier
from jaxrefine.data.jsonl import Fields, RecordError, read_jsonl
from jaxrefine.data.templates import TEMPLATES, Template, instruction_prompt


@dataclasses.dataclass(frozen=True)
class Review:
    """What a judge said of two answers that it was shown in one order."""

    question: str
    scores: tuple[float, float]
    """Of the answer shown first and of the one shown second."""
    text: str = ""

    @property
    def verdict(self) -> Verdict:
        """By the higher score; in terms of the order in which they were shown.

        >>> Review("1", (9.0, 8.5)).verdict
        'first'
        """
        first, second = self.scores
        return "tie" if first == second else "first" if first > second else "second"


def read_vicuna_questions(
    path: pathlib.Path | str, *, templates: Mapping[str, Template] = TEMPLATES
) -> list[Candidates]:
    """Lines ``{"question_id": 1, "text": …, "category": …}`` as prompts without responses.

    Args:
      path: ``question.jsonl``.
      templates: make the prompt: ``instruction``.
    Raises:
      RecordError: ``file:line: field: reason``.
    """

    def parse(fields: Fields) -> Candidates:
        id, text, category = identifier(fields, "question_id"), fields.text("text"), fields.text("category")
        fields.done()
        return Candidates(id, instruction_prompt(text, "", templates), meta={"instruction": text, "category": category})

    return read_jsonl(path, parse, key=lambda question: question.id)


def read_vicuna_answers(path: pathlib.Path | str, *, questions: list[Candidates]) -> list[Candidates]:
    """The questions, each with a model's published answer to it; ``meta["model"]`` names the model.

    Args:
      path: ``answer_<model>.jsonl``: lines of ``question_id``, ``text``, ``model_id``, ``answer_id``, ``metadata``.
      questions: of ``read_vicuna_questions``; their order is kept.
    Raises:
      RecordError: ``file:line: field: reason``.
      ValueError: a question without an answer.
    """
    known = {question.id: question for question in questions}

    def parse(fields: Fields) -> Candidates:
        id, text, model = identifier(fields, "question_id"), fields.text("text", empty=True), fields.text("model_id")
        fields.optional_text("answer_id")
        fields.mapping("metadata")
        fields.done()
        if id not in known:
            raise fields.error("question_id", f"no question has the id {id!r}")
        question = known[id]
        return dataclasses.replace(
            question, responses=(text,), labels=(0.0,), finished=(), meta={**question.meta, "model": model}
        )

    found = {answer.id: answer for answer in read_jsonl(path, parse, key=lambda answer: answer.id)}
    missing = [question.id for question in questions if question.id not in found]
    if missing:
        raise ValueError(f"{path}: no answer to question {', '.join(missing[:8])} ({len(missing)} in all)")
    return [found[question.id] for question in questions]


def read_vicuna_reviews(path: pathlib.Path | str) -> list[Review]:
    """Lines with ``question_id`` and ``score``, [first shown, second shown]; every pair was judged in one order only.

    Raises:
      RecordError: ``file:line: field: reason``.
    """

    def parse(fields: Fields) -> Review:
        question, scores = identifier(fields, "question_id"), fields.numbers("score")
        text = fields.text("text", empty=True)
        for name in ("review_id", "answer1_id", "answer2_id"):
            fields.optional_text(name)
        if "reviewer_id" in fields.names():
            identifier(fields, "reviewer_id")
        fields.mapping("metadata")
        fields.done()
        if len(scores) != 2:
            raise RecordError(fields.where, "score", f"two numbers are wanted, got {len(scores)}")
        return Review(question, (scores[0], scores[1]), text)

    return read_jsonl(path, parse, key=lambda review: review.question)
