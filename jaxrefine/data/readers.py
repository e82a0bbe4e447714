"""Readers of examples: our own JSON lines of prompts with scored candidates, and GSM8K in its original formats.

All of them are strict (``jsonl.py``): a malformed line stops the reading with ``file:line: field: reason``, or is set
aside in a ``rejects`` file.
"""

from __future__ import annotations

import pathlib
import re
from collections.abc import Iterable
from typing import Any

from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.jsonl import Fields, distinct, read_jsonl, write_jsonl
from jaxrefine.data.templates import TEMPLATES, Template

_ANNOTATION = re.compile(r"<<[^<>\n]*>>")
_FINAL = re.compile(r"(?:\A|\n)A: *([^\n]+?)\s*\Z")
_MARKED = re.compile(r"(?:\A|\n)#### *([^\n]+?)\s*\Z")


def _candidate(fields: Fields, scored: bool) -> tuple[str, float, bool]:
    text = fields.text("text", empty=True)
    score = fields.number("score") if scored or "score" in fields.names() else 0.0
    finished = fields.flag("finished", default=True)
    fields.done()
    return text, score, finished


def read_candidates(
    path: pathlib.Path | str,
    *,
    scored: bool = True,
    binary: bool = False,
    min_candidates: int = 1,
    rejects: pathlib.Path | str | None = None,
    max_rejects: int = 100,
) -> list[Candidates]:
    r"""Prompts with scored candidates: higher scores are better.

    A line: ``{"id": "1", "prompt": "2+3?\n", "answer": "5", "candidates": [{"text": "#### 5", "score": 1}]}``.
    ``answer`` may be left out; so may ``meta`` (an object, kept as it is) and a candidate's ``finished`` (false for a
    text that was cut by length). The prompt is used as it stands: what separates it from the text belongs in it.

    Args:
      path: a ``.jsonl`` or ``.jsonl.gz`` file.
      scored: False for candidates that are still to be judged: one without a score has label 0.
      binary: scores are right or wrong: anything but 0 and 1 is malformed.
      min_candidates: a line with fewer is malformed.
      rejects: where malformed lines go; None stops at the first.
      max_rejects: with more malformed lines than this, reading fails all the same.
    Raises:
      RecordError: ``file:line: field: reason``.
    """

    def parse(fields: Fields) -> Candidates:
        id, prompt, answer = fields.text("id"), fields.text("prompt"), fields.optional_text("answer")
        found = [_candidate(item, scored) for item in fields.objects("candidates")]
        meta = fields.mapping("meta")
        fields.done()
        if len(found) < min_candidates:
            raise fields.error("candidates", f"at least {min_candidates} wanted, got {len(found)}")
        for index, (_, score, _) in enumerate(found):
            if binary and score not in (0.0, 1.0):
                raise fields.error(f"candidates[{index}].score", f"0 (wrong) or 1 (right) is wanted, got {score:g}")
        return Candidates(
            id,
            prompt,
            tuple(text for text, _, _ in found),
            tuple(score for _, score, _ in found),
            answer,
            tuple(finished for _, _, finished in found),
            meta,
        )

    return read_jsonl(path, parse, key=lambda record: record.id, rejects=rejects, max_rejects=max_rejects)


def write_candidates(path: pathlib.Path | str, examples: Iterable[Candidates]) -> None:
    """Writes what ``read_candidates`` reads, atomically; reading it gives equal examples.

    Raises:
      ValueError: the same id twice, or a number that JSON does not hold.
    """
    records: list[dict[str, Any]] = []
    for example in distinct(path, examples):
        candidates = [
            {"text": text, "score": label} | ({} if finished else {"finished": False})
            for text, label, finished in zip(example.responses, example.labels, example.finished, strict=True)
        ]
        record: dict[str, Any] = {"id": example.id, "prompt": example.prompt}
        if example.answer is not None:
            record["answer"] = example.answer
        record["candidates"] = candidates
        if example.meta:
            record["meta"] = dict(example.meta)
        records.append(record)
    write_jsonl(path, records)


def read_prompts(
    path: pathlib.Path | str, *, rejects: pathlib.Path | str | None = None, max_rejects: int = 100
) -> list[Candidates]:
    r"""Prompts to sample from: ``{"id": "1", "prompt": "2+3?\n", "answer": "5"}`` a line, candidates left aside.

    Raises:
      RecordError: ``file:line: field: reason``.
    """

    def parse(fields: Fields) -> Candidates:
        id, prompt, answer = fields.text("id"), fields.text("prompt"), fields.optional_text("answer")
        meta = fields.mapping("meta")
        if "candidates" in fields.names():
            fields.objects("candidates")
        fields.done()
        return Candidates(id, prompt, answer=answer, meta=meta)

    return read_jsonl(path, parse, key=lambda record: record.id, rejects=rejects, max_rejects=max_rejects)


def read_instructions(
    path: pathlib.Path | str, *, rejects: pathlib.Path | str | None = None, max_rejects: int = 100
) -> list[Instruction]:
    r"""Prompts with one response: ``{"id": "1", "prompt": "2+3?\n", "response": "#### 5", "answer": "5"}`` a line.

    Raises:
      RecordError: ``file:line: field: reason``.
    """

    def parse(fields: Fields) -> Instruction:
        id, prompt, response = fields.text("id"), fields.text("prompt"), fields.text("response", empty=True)
        answer, meta = fields.optional_text("answer"), fields.mapping("meta")
        fields.done()
        return Instruction(id, prompt, response, answer, meta)

    return read_jsonl(path, parse, key=lambda record: record.id, rejects=rejects, max_rejects=max_rejects)


def write_instructions(path: pathlib.Path | str, examples: Iterable[Instruction]) -> None:
    """Writes what ``read_instructions`` reads, atomically; reading it gives equal examples.

    Raises:
      ValueError: the same id twice, or a number that JSON does not hold.
    """
    records: list[dict[str, Any]] = []
    for example in distinct(path, examples):
        record: dict[str, Any] = {"id": example.id, "prompt": example.prompt, "response": example.response}
        if example.answer is not None:
            record["answer"] = example.answer
        records.append(record | ({"meta": dict(example.meta)} if example.meta else {}))
    write_jsonl(path, records)


def _stem(path: pathlib.Path | str) -> str:
    return pathlib.Path(path).name.split(".")[0]


def _line(fields: Fields) -> str:
    return fields.where.rsplit(":", 1)[1]


def read_gsm8k(
    path: pathlib.Path | str,
    *,
    template: Template = TEMPLATES["question"],
    annotations: bool = False,
    rejects: pathlib.Path | str | None = None,
    max_rejects: int = 100,
) -> list[Instruction]:
    """GSM8K as published, ``question`` and ``answer`` a line, the Socratic form as well.

    The solution keeps its last line ``#### 36``; the answer is what stands there, thousands commas removed. A
    Socratic step ``sub-question ** step`` goes into ``meta["sub_questions"]`` and ``response`` without its question.

    Args:
      path: ``train.jsonl``, ``test.jsonl``, ``test_socratic.jsonl``, or any of them as ``.gz``.
      template: makes the prompt of the question.
      annotations: keep the calculator annotations ``<<48/2=24>>``.
      rejects: where malformed lines go; None stops at the first.
      max_rejects: with more malformed lines than this, reading fails all the same.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Cobbe et al. 2021, https://arxiv.org/abs/2110.14168
    """

    def parse(fields: Fields) -> Instruction:
        question, solution = fields.text("question"), fields.text("answer")
        fields.done()
        final = _MARKED.search(solution)
        if final is None:
            raise fields.error("answer", "does not end with a line '#### number'")
        if not annotations:
            solution = _ANNOTATION.sub("", solution)
        steps = [line.split(" ** ", 1) for line in solution.split("\n")]
        sub_questions = [step[0] for step in steps if len(step) == 2]
        return Instruction(
            f"{_stem(path)}-{_line(fields)}",
            template.render(question=question),
            "\n".join(step[-1] for step in steps),
            final[1].replace(",", ""),
            {"sub_questions": sub_questions} if sub_questions else {},
        )

    return read_jsonl(path, parse, rejects=rejects, max_rejects=max_rejects)


def read_gsm8k_solutions(
    path: pathlib.Path | str,
    *,
    template: Template = TEMPLATES["question"],
    annotations: bool = False,
    rejects: pathlib.Path | str | None = None,
    max_rejects: int = 100,
) -> list[Candidates]:
    """GSM8K's ``example_model_solutions``: a question with four models' solutions, right (1) or wrong (0).

    Their last line ``A: 36`` becomes ``#### 36``, the form of GSM8K's own solutions. A solution without that line was
    cut by length: it is not ``finished``. The models' names are in ``meta["models"]``, in order.

    Args:
      path: ``example_model_solutions.jsonl``, plain or ``.gz``.
      template: makes the prompt of the question.
      annotations: keep the calculator annotations ``<<48/2=24>>``.
      rejects: where malformed lines go; None stops at the first.
      max_rejects: with more malformed lines than this, reading fails all the same.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Cobbe et al. 2021, https://arxiv.org/abs/2110.14168
    """

    def tidy(solution: str) -> str:
        solution = _FINAL.sub(lambda match: match[0].replace("A:", "####", 1).rstrip(), solution)
        return solution if annotations else _ANNOTATION.sub("", solution)

    def parse(fields: Fields) -> Candidates:
        question, truth = fields.text("question"), fields.text("ground_truth")
        final = _FINAL.search(truth)
        if final is None:
            raise fields.error("ground_truth", "does not end with a line 'A: number'")
        models = [name for name in fields.names() if name not in ("question", "ground_truth")]
        if not models:
            raise fields.error("", "no model's solution beside question and ground_truth")
        texts: list[str] = []
        labels: list[float] = []
        for name in models:
            model = fields.object(name)
            texts.append(model.text("solution", empty=True))
            labels.append(float(model.flag("is_correct")))
            model.done()
        return Candidates(
            f"{_stem(path)}-{_line(fields)}",
            template.render(question=question),
            tuple(tidy(text) for text in texts),
            tuple(labels),
            final[1].replace(",", ""),
            tuple(_FINAL.search(text) is not None for text in texts),
            {"models": models},
        )

    return read_jsonl(path, parse, rejects=rejects, max_rejects=max_rejects)
