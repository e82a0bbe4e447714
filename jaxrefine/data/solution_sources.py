"""Sources of solved problems by name, and their division into training, validation and test problems.

Several sources may solve the same problems in different ways. A problem is known by its prompt, not by its id or its
source, so that one source's validation problem is never trained on in another's words.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Literal, get_args

from jaxrefine.config import unknown_name
from jaxrefine.data.arithmetic import SPLITS, ArithmeticConfig, generate
from jaxrefine.data.arithmetic.styles import Style, in_style
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.readers import read_gsm8k, read_instructions
from jaxrefine.data.readers_math import prm800k_solutions, read_math, read_prm800k, read_prm800k_problems
from jaxrefine.data.templates import TEMPLATES, Template

Kind = Literal["arithmetic", "math", "prm800k", "prm800k problems", "gsm8k", "jsonl"]

_FILES: dict[str, Callable[[pathlib.Path, Template], list[Instruction]]] = {
    "math": lambda path, template: read_math(path, template=template),
    "prm800k": lambda path, template: prm800k_solutions(read_prm800k(path, template=template)),
    "prm800k problems": lambda path, template: read_prm800k_problems(path, template=template),
    "gsm8k": lambda path, template: read_gsm8k(path, template=template),
    "jsonl": lambda path, template: read_instructions(path),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolutionSource:
    """Problems with solutions, under a name of their own.

    Raises:
      ValueError: a name that cannot be part of a file's, an unknown kind, or files for a kind that has none.
    """

    name: str
    """By which phases of training refer to it."""
    kind: Kind = "arithmetic"
    """"arithmetic": the shipped world. From files: "math", MATH's human solutions; "prm800k", the labelled solutions
    that people found right; "prm800k problems", its ``math_splits``; "gsm8k"; "jsonl", prompts with one response."""
    paths: tuple[str, ...] = ()
    """Files, or MATH's directory; several are read one after the other."""
    num: int | None = None
    """Problems of the arithmetic world; of files at most so many of the first, None being all."""
    style: Style = "lines"
    """Of the arithmetic world's solutions."""
    split: str = "train"
    """Of the arithmetic world."""
    seed: int = 0
    """Of the arithmetic world's problems."""
    world: ArithmeticConfig = dataclasses.field(default_factory=ArithmeticConfig)
    """Its difficulty."""

    def __post_init__(self) -> None:
        where = f"source {self.name!r}"
        if not self.name or set(self.name) & set("/\\:"):
            raise ValueError(f"{where}: a name is a word of its own, without '/', '\\' and ':'")
        if self.kind not in get_args(Kind):
            raise ValueError(f"{where}: {unknown_name(self.kind, get_args(Kind), 'kind')}")
        if self.num is not None and self.num < 1:
            raise ValueError(f"{where}: num = {self.num} must be at least 1")
        if self.kind == "arithmetic":
            if self.paths or self.num is None:
                raise ValueError(f"{where}: the arithmetic world has no paths, and needs num, how many problems")
            if self.split not in SPLITS:
                raise ValueError(f"{where}: {unknown_name(self.split, SPLITS, 'split')}")

    def absent(self) -> list[str]:
        """Files that are not there; a file kind without any path lacks one."""
        if self.kind == "arithmetic":
            return []
        return [path for path in self.paths if not pathlib.Path(path).expanduser().exists()] or (
            [] if self.paths else [f"paths of {self.name!r}"]
        )

    def read(self, template: Template = TEMPLATES["question"]) -> list[Instruction]:
        """Its problems with their solutions, in order; those without a known answer are left out.

        Args:
          template: makes the prompt of a problem; "jsonl" has prompts of its own.
        Raises:
          RecordError: ``file:line: field: reason``.
        """
        if self.kind == "arithmetic":
            problems = generate(self.split, self.num or 0, self.seed, self.world)
            found = [
                dataclasses.replace(
                    problem.instruction(),
                    prompt=template.render(question=problem.question),
                    response=in_style(problem, self.style),
                )
                for problem in problems
            ]
        else:
            read = _FILES[self.kind]
            found = [one for path in self.paths for one in read(pathlib.Path(path).expanduser(), template)]
        return [one for one in found if one.answer is not None][: self.num]


@dataclasses.dataclass(frozen=True)
class Division:
    """Sources without validation and test problems, and those problems."""

    train: Mapping[str, tuple[Instruction, ...]]
    """Solutions by source."""
    problems: tuple[Candidates, ...]
    """The different training problems, to be sampled; ids say the source that has them first."""
    validation: tuple[Candidates, ...]
    test: tuple[Candidates, ...]
    left_out: Mapping[str, int]
    """Solutions by source whose problem is a validation or test problem."""


def divide(
    sources: Mapping[str, Sequence[Instruction]],
    test: Iterable[Instruction],
    *,
    num_validation: int = 0,
    seed: int = 0,
) -> Division:
    """Divides the problems of all sources at once.

    Validation problems are drawn by their prompts: neither other problems nor their order matter.

    Args:
      sources: of `SolutionSource.read`, by name.
      test: problems that nothing is learnt from, whatever source solves them.
      num_validation: problems set aside among the others.
      seed: another one sets others aside.
    Raises:
      ValueError: more validation problems than there are, or a source of which nothing is left.

    >>> made = {"a": [Instruction(str(n), f"{n}+1?", str(n + 1), str(n + 1)) for n in range(4)]}
    >>> found = divide(made, [Instruction("t", "2 + 1?", "3", "3")], num_validation=1)
    >>> len(found.train["a"]), len(found.problems), len(found.validation), dict(found.left_out)
    (2, 2, 1, {'a': 2})
    """
    tested: dict[str, Candidates] = {}
    for example in test:
        tested.setdefault(same_problem(example), _problem(example, f"test:{example.id}"))
    known: dict[str, Candidates] = {}
    for name, examples in sources.items():
        for example in examples:
            if (text := same_problem(example)) not in tested:
                known.setdefault(text, _problem(example, f"{name}:{example.id}"))
    if not 0 <= num_validation <= len(known):
        raise ValueError(f"num_validation = {num_validation} of {len(known)} problems that are not tested")
    order = sorted(known, key=lambda text: hashlib.sha256(f"{seed}:{text}".encode()).digest())
    aside = set(order[:num_validation])
    train = {
        name: tuple(one for one in examples if (text := same_problem(one)) in known and text not in aside)
        for name, examples in sources.items()
    }
    for name, kept in train.items():
        if not kept:
            raise ValueError(
                f"source {name!r}: all of its {len(sources[name])} problems are validation or test problems"
            )
    return Division(
        train=train,
        problems=tuple(problem for text, problem in known.items() if text not in aside),
        validation=tuple(problem for text, problem in known.items() if text in aside),
        test=tuple(tested.values()),
        left_out={name: len(examples) - len(train[name]) for name, examples in sources.items()},
    )


SHOT_END = "\n\n---\n\n"
"""Between solved examples; nothing that solutions contain."""


def few_shot(examples: Sequence[Instruction], prompt: str, *, separator: str = SHOT_END) -> str:
    r"""A prompt with solved examples before it, for a model that was not tuned to solve.

    >>> few_shot([Instruction("1", "1+1?\n", "#### 2")], "2+3?\n")
    '1+1?\n#### 2\n\n---\n\n2+3?\n'
    """
    return "".join(f"{example.prompt}{example.response}{separator}" for example in examples) + prompt


def first_solution(text: str, *, separator: str = SHOT_END) -> str | None:
    r"""What such a model wrote before it went on to a problem of its own invention; None where it did not stop.

    >>> first_solution("#### 5\n\n---\n\n1+3?"), first_solution("#### 5")
    ('#### 5', None)
    """
    before, found, _ = text.partition(separator)
    return before if found else None


def _problem(example: Instruction, id: str) -> Candidates:
    return Candidates(id, example.prompt, answer=example.answer)


def same_problem(example: Instruction | Candidates) -> str:
    """What two examples of the same problem have in common: the prompt, white space aside."""
    return "".join(example.prompt.split())
