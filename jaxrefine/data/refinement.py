r"""The texts of asking and refining: prompts as templates, what an Asker writes, and how it is read.

An Asker writes the sub-questions that an answer should settle, one a line, and on the last line whether the answer
needs refinement, ``Yes`` or ``No``. What a model wrote is read strictly; the lenient form is counted apart, and a text
that says neither is unparsable, never a No.

Source: Shridhar et al. 2023, The ART of LLM Refinement (arXiv 2311.07961); the wording is our own.
"""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

from jaxrefine.data.templates import TEMPLATES, Role, Template, load_templates

YES, NO = "Yes", "No"
FIRST, SECOND = "A", "B"
"""What a model says that chooses between two solutions."""

Form = Literal["strict", "lenient", "unparsable"]

REFINEMENT_ROLES: dict[str, Role] = {
    "question": Role(frozenset({"question"})),
    "ask": Role(frozenset({"question", "answer"})),
    "refine": Role(frozenset({"question", "sub_questions"}), frozenset({"answer"})),
    "refine_with_facts": Role(frozenset({"question", "sub_questions", "facts"}), frozenset({"answer"})),
    "self_refine": Role(frozenset({"question", "answer"})),
    "decide": Role(frozenset({"question", "answer"})),
    "select": Role(frozenset({"question", "first", "second"})),
    "sub_questions": Role(frozenset({"question", "solution"})),
}
"""The fields of each prompt. "question" is that of the first answer, "sub_questions" that of a teacher; "decide" and
"select" are asked of the model that answered, where it decides and chooses by itself."""

REFINEMENT_TEMPLATES: dict[str, Template] = {
    "question": TEMPLATES["question"],
    "ask": Template("ask", "{question}\nProposed:\n{answer}\nWhat to settle, and whether to try again:\n"),
    "refine": Template("refine", "Settle these in turn:\n{sub_questions}\n{question}\n"),
    "refine_with_facts": Template(
        "refine_with_facts", "Known:\n{facts}\nSettle these in turn:\n{sub_questions}\n{question}\n"
    ),
    "self_refine": Template(
        "self_refine", "Proposed:\n{answer}\nFind what is wrong with it and solve this again:\n{question}\n"
    ),
    "decide": Template("decide", "{question}\nProposed:\n{answer}\nDoes it need another try, Yes or No?\n"),
    "select": Template("select", "{question}\nA:\n{first}\nB:\n{second}\nWhich one is right, A or B?\n"),
    "sub_questions": Template(
        "sub_questions", "{question}\nSolved:\n{solution}\nThe question that each step answers, one a line:\n"
    ),
}
"""The shipped prompts; a file of one's own replaces them one by one. Where a model is to solve the question, it stands
last, as it does when it is asked for the first time."""

_LENIENT = re.compile(r"\b(yes|no)\b", re.IGNORECASE)
_LABEL = re.compile(r"\A(?:Q?\d+[.):]|[-*•])\s*")


def load_refinement_templates(path: pathlib.Path | str | None) -> dict[str, Template]:
    r"""The prompts, with those of a TOML file in place of the shipped ones: ``ask = "{question}\n{answer}\n"`` a line.

    Args:
        path: the file; None is the shipped prompts.

    Raises:
        ValueError: not TOML, an unknown role, a missing or unknown field; names the file, the role, the field.
    """
    if path is None:
        return dict(REFINEMENT_TEMPLATES)
    return load_templates(path, roles=REFINEMENT_ROLES, shipped=REFINEMENT_TEMPLATES)


def ask_prompt(question: str, answer: str, templates: Mapping[str, Template] = REFINEMENT_TEMPLATES) -> str:
    """What the Asker reads: the question and a first answer."""
    return templates["ask"].render(question=question, answer=answer.strip())


def refine_prompt(
    question: str,
    sub_questions: Sequence[str],
    facts: Sequence[str] = (),
    *,
    answer: str = "",
    templates: Mapping[str, Template] = REFINEMENT_TEMPLATES,
) -> str:
    r"""What the answering model reads to refine: the question with sub-questions, and with facts where there are any.

    Args:
        question: as it was asked at first.
        sub_questions: of the Asker, or of the data; a line each.
        facts: that an answer may rest on.
        answer: the first one, for templates that show it; the shipped ones do not.
        templates: of `load_refinement_templates`.

    >>> refine_prompt("How many?", ["How many were there?"])
    'Settle these in turn:\nHow many were there?\nHow many?\n'
    """
    template = templates["refine_with_facts" if facts else "refine"]
    values = {
        "question": question,
        "sub_questions": as_lines(sub_questions),
        "facts": as_lines(facts),
        "answer": answer.strip(),
    }
    return template.render(**{name: value for name, value in values.items() if name in template.fields})


def as_lines(texts: Iterable[str]) -> str:
    r"""Each text on one line of its own.

    >>> as_lines(["How many?", "What\nis left? "])
    'How many?\nWhat is left?'
    """
    return "\n".join(" ".join(text.split()) for text in texts)


def asker_target(sub_questions: Sequence[str], *, refine: bool, solution: str = "") -> str:
    r"""What an Asker learns to write: sub-questions, then the decision.

    Args:
        sub_questions: of the data set; none where an Asker is to decide without questions. A question mark is added
            where one is missing: it is what tells a question from a decision.
        refine: whether the answer that it read is wrong.
        solution: written after a Yes by a model that does everything.

    >>> asker_target(["How many?"], refine=True), asker_target([], refine=False)
    ('How many?\nYes', 'No')
    """
    questions = [line if line.endswith("?") else f"{line}?" for line in map(as_lines, ([q] for q in sub_questions))]
    lines = [*questions, YES if refine else NO]
    return "\n".join([*lines, solution.strip()] if refine and solution else lines)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asked:
    """What an Asker wrote."""

    questions: tuple[str, ...]
    refine: bool | None
    """None where it said neither Yes nor No."""
    form: Form
    solution: str = ""
    """What follows a Yes: of a model that does everything."""


def parse_asked(text: str, *, finished: bool = True, solves: bool = False) -> Asked:
    r"""Reads what an Asker wrote.

    Strict: every line but the last is a question, that is, it ends with a question mark, and the last line is ``Yes``
    or ``No``. Lenient: the last line with one of the two words, in any case, decides if it is no question and says
    one of them alone; numbers and dashes before questions are dropped. Anything else is unparsable; its questions are
    kept all the same.

    Args:
        text: of the model.
        finished: False for a text that was cut by length: its decision is never strict.
        solves: a solution may follow the line ``Yes``.

    >>> parse_asked("How many?\nYes")
    Asked(questions=('How many?',), refine=True, form='strict', solution='')
    >>> parse_asked("1. How many?\nRefine: no.").form, parse_asked("How many?").refine
    ('lenient', None)
    """
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    solution = ""
    if solves and YES in lines:
        place = lines.index(YES)
        lines, solution = lines[: place + 1], "\n".join(lines[place + 1 :])
    is_question = [line.endswith("?") for line in lines]
    if finished and lines and lines[-1] in (YES, NO) and all(is_question[:-1]):
        return Asked(questions=tuple(lines[:-1]), refine=lines[-1] == YES, form="strict", solution=solution)
    questions = tuple(_LABEL.sub("", line) for line, asks in zip(lines, is_question, strict=True) if asks)
    said = [{word.lower() for word in _LENIENT.findall(line)} for line in lines]
    deciding = [words for words, asks in zip(said, is_question, strict=True) if words and not asks]
    if not deciding or len(deciding[-1]) > 1:
        return Asked(questions=questions, refine=None, form="unparsable")
    return Asked(questions=questions, refine=deciding[-1] == {"yes"}, form="lenient", solution=solution)


def with_decision(text: str, word: str) -> str:
    r"""The text of an Asker with another decision: to compare how likely both are after the same questions.

    Args:
        text: what it wrote; its decision, where it ends with one, is replaced.
        word: `YES` or `NO`.

    >>> with_decision("How many?\nYes", "No"), with_decision("How many?", "No"), with_decision("Yes", "No")
    ('How many?\nNo', 'How many?\nNo', 'No')
    """
    lines = [line.strip() for line in text.strip().split("\n") if line.strip()]
    for place, line in enumerate(lines):
        if line in (YES, NO):
            lines = lines[:place]
            break
    return "\n".join([*lines, word])
