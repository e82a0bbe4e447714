"""Readers of data with sub-questions, and of public transcripts in which models answered with them.

GSM8K in both of its forms is in ``readers.py``. All of them are strict: a malformed record is ``file:line: field:
reason``, and none is guessed at.
"""

from __future__ import annotations

import csv
import gzip
import io
import pathlib
import re
import zlib
from collections.abc import Iterator
from typing import Literal

from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.json_documents import read_records
from jaxrefine.data.jsonl import Fields, RecordError, read_jsonl
from jaxrefine.data.templates import TEMPLATES, Template

_NUMBERED = re.compile(r"\A(?:Q\d+:\s*)+")
_FINAL = re.compile(r"Final answer:([^\n]*)")

ROUTELLM_MODELS = ("mistralai/Mixtral-8x7B-Instruct-v0.1", "gpt-4-1106-preview")
"""The two models of RouteLLM's GSM8K responses, by column."""


def read_strategyqa(
    path: pathlib.Path | str,
    *,
    part: Literal["all", "train", "test"] = "all",
    test_share: float = 0.2,
    template: Template = TEMPLATES["question"],
) -> list[Instruction]:
    """StrategyQA: questions to be answered "yes" or "no", with sub-questions and facts.

    ``meta`` has ``sub_questions`` (the decomposition; ``#1`` in it is the answer to the first) and ``facts``. The
    response states the facts, then the answer: the data has no other reasoning.

    Args:
      path: ``train.json``, ``dev.json`` or a joint file, plain or ``.gz``: a JSON array.
      part: all questions; "test", the first ``test_share`` of them; or "train", the others.
      test_share: of the questions, as ART divides them.
      template: makes the prompt of the question.
    Raises:
      RecordError: ``file:line: field: reason``.
      ValueError: a share outside 0 … 1.

    Source: Geva et al. 2021, https://arxiv.org/abs/2101.02235; the division, arXiv 2311.07961
    """
    if not 0.0 <= test_share <= 1.0:
        raise ValueError(f"test_share is within 0 and 1, given {test_share:g}")

    def parse(fields: Fields, index: int) -> Instruction:
        id, question = fields.text("qid"), fields.text("question")
        answer = "yes" if fields.flag("answer") else "no"
        facts, sub_questions = fields.texts("facts"), fields.texts("decomposition")
        if not sub_questions:
            raise fields.error("decomposition", "is empty")
        return Instruction(
            id,
            template.render(question=question),
            "\n".join([*facts, f"#### {answer}"]),
            answer,
            {"question": question, "sub_questions": sub_questions, "facts": facts},
        )

    records = read_records(path, parse, key=lambda record: record.id)
    first = round(test_share * len(records))
    return {"all": records, "test": records[:first], "train": records[first:]}[part]


def read_sub_question_transcripts(
    path: pathlib.Path | str, *, template: Template = TEMPLATES["question"]
) -> list[Candidates]:
    """GSM8K-AI-SubQ's transcripts: one model's answer to each problem, with another model's sub-questions.

    The response ends with the first line ``Final answer:``, for models go on to invent problems after it. ``meta`` has
    ``sub_questions`` without their numbers and ``answers``, what that line states, or null. The file's own number is no
    known answer (it is cut at a thousands comma and has lost its sign): labels are 0, and ``answer`` is None.

    Args:
      path: of ``eval_responses``, a JSON object a line, plain or ``.gz``.
      template: makes the prompt of the problem.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: https://github.com/DT6A/GSM8K-AI-SubQ
    """

    def parse(fields: Fields) -> Candidates:
        problem, questions = fields.text("problem"), fields.text("questions", empty=True)
        text = fields.text("answers", empty=True)
        fields.number("answer")
        fields.done()
        final = _FINAL.search(text)
        stated = final[1].strip() if final else ""
        return Candidates(
            _numbered(path, fields),
            template.render(question=problem),
            (text[: final.end()] if final else text,),
            (0.0,),
            finished=(final is not None,),
            meta={
                "question": problem,
                "sub_questions": [_NUMBERED.sub("", line).strip() for line in questions.split("\n") if line.strip()],
                "answers": [stated or None],
            },
        )

    return read_jsonl(path, parse)


def read_tora(path: pathlib.Path | str, *, template: Template = TEMPLATES["question"]) -> list[Candidates]:
    """ToRA's outputs: a solution with programs and what they printed, its extracted answer, and the known one.

    Labels are 0: the files do not say which are right. ``meta["answers"]`` has the extracted answer, or null.

    Args:
      path: of one model and data set, a JSON object a line, plain or ``.gz``.
      template: makes the prompt of the question.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Gou et al. 2023, https://arxiv.org/abs/2309.17452
    """

    def parse(fields: Fields) -> Candidates:
        question, known = fields.text("question"), fields.text("gt")
        solutions, answers = fields.texts("code"), fields.texts("pred")
        if len(answers) != len(solutions):
            raise fields.error("pred", f"{len(solutions)} items are wanted, as in code, got {len(answers)}")
        return Candidates(
            f"{fields.number('idx'):g}",
            template.render(question=question),
            tuple(solutions),
            (0.0,) * len(solutions),
            known,
            meta={"question": question, "answers": [answer or None for answer in answers]},
        )

    return read_jsonl(path, parse, key=lambda record: record.id)


def read_routellm_gsm8k(path: pathlib.Path | str, *, template: Template = TEMPLATES["question"]) -> list[Candidates]:
    """RouteLLM's responses of two models to GSM8K's test problems, right (1) or wrong (0) as they were graded there.

    ``meta["models"]`` names the models in order.

    Args:
      path: ``gsm8k_responses.csv``, plain or ``.gz``.
      template: makes the prompt of the question.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Ong et al. 2024, https://arxiv.org/abs/2406.18665
    """
    found = []
    for fields in _csv(pathlib.Path(path)):
        question = fields.text("prompt")
        labels = []
        for model in ROUTELLM_MODELS:
            said = fields.text(model)
            if said not in ("True", "False"):
                raise fields.error(model, f"True or False is wanted, got {said!r}")
            labels.append(float(said == "True"))
        texts = tuple(fields.text(f"{model}_response", empty=True) for model in ROUTELLM_MODELS)
        fields.done()
        meta = {"question": question, "models": list(ROUTELLM_MODELS)}
        prompt = template.render(question=question)
        found.append(Candidates(_numbered(path, fields), prompt, texts, tuple(labels), meta=meta))
    return found


def _csv(path: pathlib.Path) -> Iterator[Fields]:
    """The rows of a CSV file with a head; each is named by the line on which it ends, for cells may have many."""
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if path.suffix == ".gz" else content).decode("utf-8")
    except (EOFError, zlib.error, gzip.BadGzipFile, UnicodeDecodeError) as error:
        raise RecordError(str(path), "", f"not UTF-8 text, or a broken gzip stream: {error}") from error
    rows = csv.DictReader(io.StringIO(text, newline=""), strict=True)
    try:
        for row in rows:
            where = f"{path}:{rows.line_num}"
            if None in row or None in row.values():
                raise RecordError(where, "", f"{len(rows.fieldnames or ())} cells are wanted, as in the head")
            yield Fields(row, where=where)
    except csv.Error as error:
        raise RecordError(f"{path}:{rows.line_num}", "", f"not CSV: {error}") from error


def _numbered(path: pathlib.Path | str, fields: Fields) -> str:
    return f"{pathlib.Path(path).name.split('.')[0]}-{fields.where.rsplit(':', 1)[1]}"
