"""Solutions graded by mathematical equivalence: what each answers, which answers are the same, and which are right."""

from __future__ import annotations

import dataclasses

from jaxrefine.data.examples import Candidates
from jaxrefine.judging.answers import Grader, cluster, equivalent, extract


@dataclasses.dataclass(frozen=True, kw_only=True)
class Graded:
    """One problem's solutions, in order."""

    answers: tuple[str | None, ...]
    """As they are written; None where none is stated."""
    clusters: tuple[int | None, ...]
    """Equal numbers, equal answers; None where there is no answer."""
    right: tuple[bool, ...]
    """Whether each equals the known answer; undecided is not right."""


def grade(example: Candidates, *, style: str = "auto", grader: Grader = "shared", read_cut: bool = False) -> Graded:
    r"""Clusters and grades the solutions of a problem.

    Args:
        example: with its known answer.
        style: where the solutions state theirs, one of ``answer_extraction.STYLES``.
        grader: of what canonical keys do not settle, see ``answers.equivalent``.
        read_cut: whether a solution that was cut by length may have an answer; by default it has none, for what it
            stated on its way is not what it would have ended with.

    Raises:
        ValueError: the problem has no known answer.

    >>> found = Candidates("1", "?", ("so #### 1/2", "#### 0.5", "I pass"), (0.0,) * 3, answer="0.50")
    >>> graded = grade(found, style="marker", grader=None)
    >>> graded.clusters, graded.right
    ((0, 0, None), (True, True, False))
    """
    if example.answer is None:
        raise ValueError(f"example {example.id!r} has no known answer: right and wrong cannot be told")
    answers = [
        extract(response, kind="raw", style=style) if finished or read_cut else None
        for response, finished in zip(example.responses, example.finished, strict=True)
    ]
    known = {answer: equivalent(example.answer, answer, grader=grader) == "equal" for answer in dict.fromkeys(answers)}
    return Graded(
        answers=tuple(answers),
        clusters=tuple(cluster(answers, grader=grader)),
        right=tuple(known[answer] for answer in answers),
    )


def labelled_by_grade(example: Candidates, graded: Graded) -> Candidates:
    """The same solutions, labelled 1 where right and 0 where wrong.

    >>> found = Candidates("1", "?", ("#### 2", "#### 3"), (0.0, 0.0), answer="3")
    >>> labelled_by_grade(found, grade(found, grader=None)).labels
    (0.0, 1.0)
    """
    return dataclasses.replace(example, labels=tuple(map(float, graded.right)))
