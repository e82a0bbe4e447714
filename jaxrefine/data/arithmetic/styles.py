"""Solutions of the arithmetic world in several styles: the same calculations, said with more or fewer words."""

from __future__ import annotations

from typing import Literal, get_args

from jaxrefine.config import unknown_name
from jaxrefine.data.arithmetic.generator import Problem

Style = Literal["lines", "terse", "detailed"]


def in_style(problem: Problem, style: Style) -> str:
    r"""A problem's solution in another style; the answer's line is the same in all.

    Args:
      problem: of the generator.
      style: "lines", as the generator writes it: what is calculated, then the calculation; "terse": calculations
        alone; "detailed": before each line the sub-question that it answers.
    Raises:
      ValueError: an unknown style.

    >>> from jaxrefine.data.arithmetic.generator import problem
    >>> print(in_style(problem("train", 2), "terse"))
    18-3=15
    15/3=5
    #### 5
    >>> print(in_style(problem("train", 2), "detailed").splitlines()[0])
    How many pencils does Omar have at first? Omar has: 18-3=15.
    """
    if style not in get_args(Style):
        raise ValueError(unknown_name(style, get_args(Style), "style of solutions"))
    *lines, answer = problem.solution.splitlines()
    if style == "terse":
        lines = [line.rpartition(": ")[2].removesuffix(".") for line in lines]
    elif style == "detailed":
        asked = [question for question, _ in problem.sub_questions]
        lines = [f"{question} {line}" for question, line in zip(asked, lines, strict=True)]
    return "\n".join([*lines, answer])
