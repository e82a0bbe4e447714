"""Readers of public sampled solutions with answers and labels, some with an evaluator's scores: to select among.

All of them are strict (``jsonl.py``). They give ``Candidates``: a response is a whole solution, its label is 1 where
the data set says that it is right, and ``meta`` has ``answers``, the stated answers or null, and ``scores``, what an
evaluator gives each solution.
"""

from __future__ import annotations

import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

from jaxrefine.data.examples import Candidates
from jaxrefine.data.jsonl import Fields, read_jsonl
from jaxrefine.data.templates import TEMPLATES, Template

_STEP_END = "ки"
_INVALID = "[invalid]"


def read_qwen_math_samples(path: pathlib.Path | str, *, template: Template = TEMPLATES["question"]) -> list[Candidates]:
    """Qwen2.5-Math's example: solutions of MATH problems with extracted answers and a reward model's scores.

    ``code`` has the solutions, ``pred`` the answers ("" is none), ``score`` whether each is right, ``pred_score`` the
    rewards, each in a list of its own; the other fields are left aside. Rewards are logits and may be negative.

    Args:
      path: ``math_cot_100.jsonl``, plain or ``.gz``.
      template: makes the prompt of the question.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Yang et al. 2024, Qwen2.5-Math (https://arxiv.org/abs/2409.12122)
    """

    def parse(fields: Fields) -> Candidates:
        solutions = tuple(item.text("item", empty=True) for item in fields.items("code"))
        answers = [item.text("item", empty=True) or None for item in fields.items("pred")]
        right = tuple(float(item.flag("item")) for item in fields.items("score"))
        scores = [_alone(item) for item in fields.items("pred_score")]
        _same(fields, {"pred": answers, "score": right, "pred_score": scores}, len(solutions), "code")
        return Candidates(
            f"{fields.number('idx'):g}",
            template.render(question=fields.text("question")),
            solutions,
            right,
            fields.text("gt"),
            meta={"answers": answers, "scores": scores},
        )

    return read_jsonl(path, parse, key=lambda record: record.id)


def _alone(item: Fields) -> float:
    found = item.items("item")
    if len(found) != 1:
        raise item.error("item", f"a list of one number is wanted, got {len(found)}")
    return found[0].number("item")


def read_prm800k_samples(
    path: pathlib.Path | str,
    *,
    score: Literal["prm_score", "orm_score"] = "prm_score",
    num_samples: int | None = 64,
    template: Template = TEMPLATES["question"],
) -> list[Candidates]:
    """PRM800K's scored samples: solutions of its 500 test problems, scored by a process and an outcome reward model.

    A line is a solution: ``problem``, ``unique_id``, ``steps``, ``answer``, ``ground_truth_answer``, ``is_correct``,
    ``prm_score`` and ``orm_score``, which are probabilities; the other fields are left aside. Lines of one problem need
    not stand together.

    Args:
      path: ``scored-test-samples.jsonl``, plain or ``.gz``; about 1,860 lines a problem.
      score: whose score ``meta["scores"]`` has.
      num_samples: how many of a problem's solutions are kept, the first ones; None is all.
      template: makes the prompt of the problem.
    Raises:
      RecordError: ``file:line: field: reason``.
      ValueError: num_samples is not positive.

    Source: Lightman et al. 2023, https://arxiv.org/abs/2305.20050, figure 3
    """
    if num_samples is not None and num_samples < 1:
        raise ValueError(f"num_samples must be at least 1, or None for all, given {num_samples}")
    kept: dict[str, list[tuple[str, str, str, str | None, bool, float]]] = {}

    def parse(fields: Fields) -> None:
        found = kept.setdefault(fields.text("unique_id"), [])
        steps = [item.text("item", empty=True) for item in fields.items("steps")]
        problem, known, answer = (
            fields.text("problem"), fields.text("ground_truth_answer"), fields.optional_text("answer"),
        )  # fmt: skip
        if found and (problem, known) != found[0][:2]:
            raise fields.error("unique_id", "has another problem or known answer than on an earlier line")
        if num_samples is None or len(found) < num_samples:
            right, value = fields.flag("is_correct"), fields.number(score)
            found.append((problem, known, "\n".join(steps), answer, right, value))

    read_jsonl(path, parse)
    return [
        Candidates(
            id,
            template.render(question=found[0][0]),
            tuple(solution for _, _, solution, _, _, _ in found),
            tuple(float(right) for _, _, _, _, right, _ in found),
            found[0][1],
            meta={
                "answers": [answer for _, _, _, answer, _, _ in found],
                "scores": [value for _, _, _, _, _, value in found],
            },
        )
        for id, found in kept.items()
    ]


def read_birm_samples(path: pathlib.Path | str, *, template: Template = TEMPLATES["question"]) -> list[Candidates]:
    """BiRM's sample data: solutions of MATH problems in steps, each step labelled by DeepSeek-V3.

    The score is the share of a solution's steps that DeepSeek-V3 labels right. (The Monte-Carlo labels of the steps are
    no evaluator's: the last step's says whether the final answer is right.) What is labelled "[invalid]", a solution or
    a step, counts as wrong.

    Args:
      path: ``responses_n15_*_math_process.jsonl``, plain or ``.gz``.
      template: makes the prompt of the question.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Chen et al. 2025, BiRM (https://arxiv.org/abs/2503.04618)
    """

    def parse(fields: Fields) -> Candidates:
        outputs = fields.objects("outputs")
        steps = [[_flag_or_invalid(item, "item") for item in output.items("step_labels")] for output in outputs]
        for index, labels in enumerate(steps):
            if not labels:
                raise fields.error(f"outputs[{index}].step_labels", "is empty")
        answers = [output.text("response_answer", empty=True) for output in outputs]
        return Candidates(
            f"{fields.number('idx'):g}",
            template.render(question=fields.text("question")),
            tuple(output.text("response").replace(_STEP_END, "") for output in outputs),
            tuple(float(_flag_or_invalid(output, "label")) for output in outputs),
            fields.text("ground_truth"),
            meta={
                "answers": [None if answer in ("", _INVALID) else answer for answer in answers],
                "scores": [sum(labels) / len(labels) for labels in steps],
            },
        )

    return read_jsonl(path, parse, key=lambda record: record.id)


def _flag_or_invalid(fields: Fields, field: str) -> bool:
    try:
        return fields.flag(field)
    except ValueError:
        if fields.text(field) == _INVALID:
            return False
        raise


def _same(fields: Fields, lists: Mapping[str, Sequence[object]], num: int, name: str) -> None:
    for field, found in lists.items():
        if len(found) != num:
            raise fields.error(field, f"{num} items are wanted, as in {name}, got {len(found)}")
