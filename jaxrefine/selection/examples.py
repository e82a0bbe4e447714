"""Which sampled solutions of a problem an evaluator learns from: every rule has a name.

The paper takes ten examples a problem and does not say which. A rule is a function of right and wrong in a drawn order,
and a row of `RULES`; it never repeats a text, for the same text twice is one example with twice the weight.
"""

from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Callable, Iterable, Sequence
from typing import Literal, get_args

from jaxrefine.config import unknown_name
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.solution_sources import same_problem

RuleName = Literal["balanced", "random", "all"]


def balanced(drawn: Sequence[bool], num: int) -> list[int]:
    """As many right as wrong, num // 2 of each or as many as there are of the scarcer kind.

    Args:
        drawn: whether each solution is right, in the drawn order.
        num: at most so many.

    Returns:
        Places in the drawn order, ascending; none where all are right or all are wrong.

    >>> balanced([True, True, False, True, False, False], 5)
    [0, 1, 2, 4]
    """
    right = [place for place, is_right in enumerate(drawn) if is_right]
    wrong = [place for place, is_right in enumerate(drawn) if not is_right]
    each = min(num // 2, len(right), len(wrong))
    return sorted(right[:each] + wrong[:each])


def random(drawn: Sequence[bool], num: int) -> list[int]:
    """The first so many of the drawn order, whatever they are: right and wrong as often as the generator is.

    >>> random([True, True, False], 2)
    [0, 1]
    """
    return list(range(min(num, len(drawn))))


def all_of_them(drawn: Sequence[bool], num: int) -> list[int]:
    """All, however many were asked for.

    >>> all_of_them([True, True, False], 2)
    [0, 1, 2]
    """
    del num
    return list(range(len(drawn)))


RULES: dict[RuleName, Callable[[Sequence[bool], int], list[int]]] = {
    "balanced": balanced,
    "random": random,
    "all": all_of_them,
}
"""The rules by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ExampleChoice:
    """How many of a problem's solutions are learnt from, and which.

    Raises:
        ValueError: an unknown rule, or fewer than two examples, of which no pair could be made.
    """

    num: int = 10
    """Of a problem; the paper's number."""
    rule: RuleName = "balanced"
    """"balanced": as many right as wrong; "random": as they come; "all": every different one."""
    seed: int = 0
    """Of the order in which they are drawn; it depends on the problem's id, not on other problems."""

    def __post_init__(self) -> None:
        if self.rule not in RULES:
            raise ValueError(unknown_name(self.rule, get_args(RuleName), "rule of examples"))
        if self.num < 2:
            raise ValueError(f"num = {self.num} examples a problem: at least 2 are wanted, one right and one wrong")

    def chosen(self, example: Candidates) -> Candidates:
        """The problem with the chosen solutions alone, in the order in which they were sampled.

        Args:
            example: solutions labelled 1 where right, 0 where wrong; of equal texts the first counts. It may be left
                without solutions: then there is nothing to tell apart.

        >>> texts = ("#### 5", "#### 6", "#### 5", "so #### 5", "#### 7")
        >>> found = Candidates("1", "2+3?", texts, (1.0, 0.0, 1.0, 1.0, 0.0))
        >>> sorted(ExampleChoice(num=10).chosen(found).labels), len(ExampleChoice(rule="all").chosen(found).labels)
        ([0.0, 0.0, 1.0, 1.0], 4)
        """
        first = {text: index for index, text in reversed(list(enumerate(example.responses)))}
        order = sorted(first.values(), key=lambda index: self._rank(example.id, example.responses[index]))
        places = RULES[self.rule]([example.labels[index] > 0 for index in order], self.num)
        kept = sorted(order[place] for place in places)
        return dataclasses.replace(
            example,
            responses=tuple(example.responses[index] for index in kept),
            labels=tuple(example.labels[index] for index in kept),
            finished=tuple(example.finished[index] for index in kept),
        )

    def _rank(self, id: str, text: str) -> bytes:
        return _drawn(self.seed, id, text)


def beside_solutions(
    chosen: Iterable[Candidates], solutions: Iterable[Instruction], *, seed: int = 0
) -> list[Candidates]:
    """Every solved problem once: its chosen samples, and beside them one solution as ``meta["original"]``.

    For objectives with a contrast of samples and the likelihood of a solution: the solution is not contrasted. A
    problem without samples has the solution alone; samples of a problem without a solution are left out.

    Args:
        chosen: samples by problem.
        solutions: of any number of sources; where a problem has several, one of them is drawn.
        seed: of that draw, which depends on the problem alone.

    >>> solved = [Instruction("1", "1+1?", "#### 2"), Instruction("2", "1+2?", "#### 3")]
    >>> found = beside_solutions([Candidates("a:2", "1+2?", ("#### 4",), (0.0,))], solved)
    >>> [(one.responses, one.meta["original"]) for one in found]
    [((), '#### 2'), (('#### 4',), '#### 3')]
    """
    sampled = {same_problem(example): example for example in chosen}
    solved: dict[str, list[Instruction]] = {}
    for solution in solutions:
        solved.setdefault(same_problem(solution), []).append(solution)
    examples = []
    for place, (problem, found) in enumerate(solved.items()):
        first = found[0]
        original = min(found, key=lambda one: _drawn(seed, problem, one.response))
        example = sampled.get(problem) or Candidates(f"solution:{place}", first.prompt, answer=first.answer)
        examples.append(dataclasses.replace(example, meta={**example.meta, "original": original.response}))
    return examples


def _drawn(seed: int, problem: str, text: str) -> bytes:
    """A place in a permutation that depends on nothing else."""
    return hashlib.blake2b(f"{seed}\0{problem}\0{text}".encode("utf-8", "surrogatepass"), digest_size=16).digest()
