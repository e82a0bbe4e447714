r"""Readers of MATH and PRM800K in their original formats, and the split of 12,000 and 500 problems.

All of them are strict (``jsonl.py``): a malformed line stops the reading with ``file:line: field: reason``, or is set
aside in a ``rejects`` file. GSM8K's readers are in ``readers.py``.
"""

from __future__ import annotations

import hashlib
import pathlib
import re
from collections.abc import Iterable, Sequence

from jaxrefine.artefacts.atomic import parse_json
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.jsonl import Fields, RecordError, read_jsonl
from jaxrefine.data.templates import TEMPLATES, Template

_BOX = re.compile(r"\\boxed(?![A-Za-z]) *")
_LEVEL = re.compile(r"Level ([1-5?])")
_PRM_ANSWER = re.compile(r"(?:\A|\n)# Answer\n+(.+?)\s*\Z", re.DOTALL)

PRM800K_ENDS = ("solution", "found_error", "give_up", "bad_problem")
"""How the labelling of a solution ended (``finish_reason``)."""


def last_boxed(solution: str) -> str | None:
    r"""What the last ``\boxed`` of a solution holds, as MATH and PRM800K define its answer; None without a closed one.

    Without a brace it is the one character that follows, as TeX has it.

    >>> last_boxed(r"Either $\boxed{1}$ or $\boxed{\frac{1}{2}}$."), last_boxed(r"$\boxed 9$."), last_boxed("9")
    ('\\frac{1}{2}', '9', None)
    """
    boxes = list(_BOX.finditer(solution))
    if not boxes:
        return None
    start = boxes[-1].end()
    if not solution.startswith("{", start):
        return solution[start : start + 1] or None
    depth, place = 0, start
    while place < len(solution):
        character = solution[place]
        if character == "\\":
            place += 1  # an escaped brace opens and closes nothing
        elif character in "{}":
            depth += 1 if character == "{" else -1
            if depth == 0:
                return solution[start + 1 : place].strip()
        place += 1
    return None


def read_math(
    path: pathlib.Path | str,
    *,
    template: Template = TEMPLATES["question"],
    rejects: pathlib.Path | str | None = None,
    max_rejects: int = 100,
) -> list[Instruction]:
    r"""MATH: problems with ``problem``, ``level`` ("Level 3"), ``type`` (the subject) and ``solution``.

    The answer is what the last ``\boxed`` of the solution holds, None where it is empty (two of 12,500). ``meta`` has
    the ``problem``, the ``subject``, and the ``level`` as a number, null for "Level ?".

    Args:
      path: the published directory, ``MATH`` or a part of it, one problem a ``.json`` file, in the order of subjects
        and numbers; the id is ``test/algebra/7.json``, as in PRM800K. Or a ``.jsonl`` or ``.jsonl.gz`` file; the id is
        ``train-7``.
      template: makes the prompt of the problem.
      rejects: where malformed lines of a JSON-lines file go; None stops at the first, as a directory always does.
      max_rejects: with more malformed lines than this, reading fails all the same.
    Raises:
      RecordError: ``file:line: field: reason``.
      FileNotFoundError: a directory without a problem.
      ValueError: rejects for a directory.

    Source: Hendrycks et al. 2021, https://arxiv.org/abs/2103.03874
    """
    path = pathlib.Path(path)
    if not path.is_dir():
        return read_jsonl(
            path,
            lambda fields: _math(fields, _numbered(path, fields), template),
            rejects=rejects,
            max_rejects=max_rejects,
        )
    if rejects is not None:
        raise ValueError("rejects are for JSON-lines files; in a directory every problem is a file of its own")
    files = sorted(path.rglob("*.json"), key=lambda file: (file.parent.as_posix(), len(file.stem), file.stem))
    if not files:
        raise FileNotFoundError(f"{path}: no .json file in it or below it; MATH has one for each problem")
    return [_math(_one_object(file), "/".join(file.resolve().parts[-3:]), template) for file in files]


def _numbered(path: pathlib.Path, fields: Fields) -> str:
    return f"{path.name.split('.')[0]}-{fields.where.rsplit(':', 1)[1]}"


def _one_object(file: pathlib.Path) -> Fields:
    where = f"{file}:1"
    try:
        return Fields(parse_json(file.read_bytes(), where=where), where=where)
    except RecordError:
        raise
    except ValueError as error:  # UnicodeDecodeError is one, too
        raise RecordError(where, "", str(error).removeprefix(f"{where}: ")) from error


def _math(fields: Fields, id: str, template: Template) -> Instruction:
    problem, solution = fields.text("problem"), fields.text("solution")
    level, subject = fields.text("level"), fields.text("type")
    fields.done()
    found = _LEVEL.fullmatch(level)
    if found is None:
        raise fields.error("level", f"'Level 1' to 'Level 5' or 'Level ?' is wanted, got {level!r}")
    answer = last_boxed(solution)
    if answer is None:
        raise fields.error("solution", "states no answer in a closed \\boxed{}")
    number = None if found[1] == "?" else int(found[1])
    meta = {"problem": problem, "subject": subject, "level": number}
    return Instruction(id, template.render(question=problem), solution, answer or None, meta)


def read_prm800k_problems(
    path: pathlib.Path | str,
    *,
    template: Template = TEMPLATES["question"],
    rejects: pathlib.Path | str | None = None,
    max_rejects: int = 100,
) -> list[Instruction]:
    """PRM800K's ``math_splits``: problems with ``problem``, ``solution``, ``answer``, ``subject``, ``level``.

    The id is ``unique_id`` (``test/algebra/7.json``); ``meta`` is as in `read_math`.

    Args:
      path: ``test.jsonl`` (500 problems) or ``train.jsonl`` (12,000), plain or ``.gz``.
      template: makes the prompt of the problem.
      rejects: where malformed lines go; None stops at the first.
      max_rejects: with more malformed lines than this, reading fails all the same.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Lightman et al. 2023, https://arxiv.org/abs/2305.20050
    """

    def parse(fields: Fields) -> Instruction:
        problem, solution, answer = fields.text("problem"), fields.text("solution"), fields.text("answer")
        subject, level, id = fields.text("subject"), fields.optional_number("level"), fields.text("unique_id")
        fields.done()
        if level is not None and level not in (1, 2, 3, 4, 5):
            raise fields.error("level", f"1 to 5 or null is wanted, got {level:g}")
        meta = {"problem": problem, "subject": subject, "level": None if level is None else int(level)}
        return Instruction(id, template.render(question=problem), solution, answer, meta)

    return read_jsonl(path, parse, key=lambda example: example.id, rejects=rejects, max_rejects=max_rejects)


def read_prm800k(
    path: pathlib.Path | str,
    *,
    template: Template = TEMPLATES["question"],
    rejects: pathlib.Path | str | None = None,
    max_rejects: int = 100,
) -> list[Candidates]:
    """PRM800K's labelled solutions, phase 1 and 2: one candidate a line, its steps on lines of their own.

    A step is the completion that was chosen, else the one that the labeller wrote; in phase 2 the whole solution was
    there beforehand (``pre_generated_steps``). The label is 1 where people followed it to a right answer
    (``finish_reason`` is "solution") and 0 otherwise: a solution with a wrong step is 0 whatever its final answer is.
    A solution that does not end with "# Answer" is not ``finished``. ``meta`` has the ``problem``, ``end`` (the
    reason), ``stated`` (the answer that the solution ends with, or null), ``ratings`` (1, 0, -1 for each labelled step,
    null where a person wrote it), ``phase``, ``labeler`` and whether it is ``quality_control`` or ``screening``.

    Args:
      path: ``phase1_train.jsonl`` and its like, plain or ``.gz``.
      template: makes the prompt of the problem.
      rejects: where malformed lines go; None stops at the first.
      max_rejects: with more malformed lines than this, reading fails all the same.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Lightman et al. 2023, https://arxiv.org/abs/2305.20050
    """
    path = pathlib.Path(path)

    def parse(fields: Fields) -> Candidates:
        question, label = fields.object("question"), fields.object("label")
        problem, answer, end = (
            question.text("problem"), question.text("ground_truth_answer"), label.text("finish_reason"),
        )  # fmt: skip
        if end not in PRM800K_ENDS:
            raise label.error("finish_reason", f"one of {', '.join(PRM800K_ENDS)} is wanted, got {end!r}")
        phase = 2 if "pre_generated_steps" in question.names() else 1
        chosen = [_prm_step(step, phase) for step in label.objects("steps")]
        steps = [text for text, _ in chosen if text is not None]
        if phase == 2:
            steps = [item.text("item", empty=True) for item in question.items("pre_generated_steps")]
        solution = "\n".join(steps)
        stated = _PRM_ANSWER.search(solution)
        return Candidates(
            _numbered(path, fields),
            template.render(question=problem),
            (solution,),
            (float(end == "solution"),),
            answer,
            (stated is not None,),
            {
                "problem": problem,
                "end": end,
                "stated": stated and stated[1],
                "ratings": [rating for _, rating in chosen],
                "phase": phase,
                "labeler": fields.text("labeler"),
                "quality_control": fields.flag("is_quality_control_question"),
                "screening": fields.flag("is_initial_screening_question"),
            },
        )

    return read_jsonl(path, parse, rejects=rejects, max_rejects=max_rejects)


def _prm_step(step: Fields, phase: int) -> tuple[str | None, int | None]:
    """A step's text and rating; no text where the labelling ended without a choice.

    The first completion of phase 2 is the solution's own step, the others are alternatives to a wrong one.
    """
    found = [(completion.text("text", empty=True), _rating(completion)) for completion in step.objects("completions")]
    written, number = step.optional_object("human_completion"), step.optional_number("chosen_completion")
    if number is not None and number not in range(len(found)):
        raise step.error("chosen_completion", f"{number:g} is none of the {len(found)} completions (from 0)")
    if phase == 2 and found:
        return found[0]
    if number is not None:
        return found[int(number)]
    return (None if written is None else written.text("text", empty=True)), None


def _rating(completion: Fields) -> int | None:
    rating = completion.optional_number("rating")
    if rating is not None and rating not in (-1, 0, 1):
        raise completion.error("rating", f"1, 0, -1 or null is wanted, got {rating:g}")
    return None if rating is None else int(rating)


def prm800k_solutions(records: Iterable[Candidates]) -> list[Instruction]:
    """The complete solutions that people found right, to learn from: what `read_prm800k` gives, without the rest.

    The line "# Answer" stays. Records of quality control and screening are left out: they repeat other problems'.

    Args:
      records: of `read_prm800k`.
    Returns:
      Those whose label is 1 and that state an answer, in the same order.

    >>> prm800k_solutions([Candidates("1", "2+3?", ("It is 5.",), (0.0,), "5")])
    []
    """
    return [
        Instruction(record.id, record.prompt, record.responses[0], record.answer, record.meta)
        for record in records
        if record.labels[0] == 1.0
        and record.finished[0]
        and not (record.meta["quality_control"] or record.meta["screening"])
    ]


def prm800k_split(
    problems: Sequence[Instruction], held_out: Sequence[Instruction]
) -> tuple[list[Instruction], list[Instruction]]:
    """MATH divided as PRM800K does: the problems that are in its test split, and all others.

    Problems are compared by their text, spaces aside. MATH has 12,500 different ones, so 12,000 are left to train on.

    Args:
      problems: of `read_math`, its own train and test parts together.
      held_out: of `read_prm800k_problems`, the 500.
    Returns:
      (train, test), both in the order of ``problems``.
    Raises:
      ValueError: a held-out problem is not among the problems, or is there twice.

    Source: Lightman et al. 2023, https://arxiv.org/abs/2305.20050, appendix C
    """
    wanted = {_squeezed(example): example.id for example in held_out}
    train: list[Instruction] = []
    test: list[Instruction] = []
    for example in problems:
        (test if _squeezed(example) in wanted else train).append(example)
    met = [_squeezed(example) for example in test]
    if absent := sorted(wanted[text] for text in wanted.keys() - set(met)):
        raise ValueError(
            f"{len(absent)} of {len(wanted)} held-out problems are not among the {len(problems)} given, the first is "
            f"{absent[0]}: give all of MATH, its train and test parts together"
        )
    if len(met) != len(set(met)):
        twice = next(example.id for example in test if met.count(_squeezed(example)) > 1)
        raise ValueError(f"a held-out problem is there twice, the first is {twice}: give each part of MATH once")
    return train, test


def validation_split(
    examples: Sequence[Instruction], num: int, *, seed: int = 0
) -> tuple[list[Instruction], list[Instruction]]:
    """So many examples set aside, drawn by their ids: whoever else is there or comes first makes no difference.

    The paper sets 1,000 of the 12,000 problems of MATH aside, and does not say which.

    Args:
      examples: with ids of their own.
      num: how many to set aside.
      seed: another one draws others.
    Returns:
      (train, validation), both in the order given.
    Raises:
      ValueError: fewer examples than that.

    >>> made = [Instruction(str(n), "p", "r") for n in range(9)]
    >>> [len(part) for part in validation_split(made, 2)]
    [7, 2]
    """
    if not 0 <= num <= len(examples):
        raise ValueError(f"num, to be set aside, must be within 0 and {len(examples)}, given {num}")
    ranks = sorted((hashlib.sha256(f"{seed}:{example.id}".encode()).digest(), example.id) for example in examples)
    aside = {id for _, id in ranks[:num]}
    return [e for e in examples if e.id not in aside], [e for e in examples if e.id in aside]


def _squeezed(example: Instruction) -> str:
    return "".join(str(example.meta["problem"]).split())
