"""Tasks that a model is asked, greedily, one reply a prompt: where the prompts come from and what a reply is worth."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal, NamedTuple

import numpy as np

from jaxrefine.config import unknown_name
from jaxrefine.data.arithmetic import ArithmeticConfig, generate
from jaxrefine.data.examples import ORIGINAL, Candidates
from jaxrefine.data.lmentry import read_lmentry
from jaxrefine.data.readers import read_prompts
from jaxrefine.data.super_ni import read_super_ni, read_task_names
from jaxrefine.data.vicuna import read_vicuna_questions
from jaxrefine.evaluation.lmentry import score_lmentry
from jaxrefine.evaluation.super_ni import score_super_ni
from jaxrefine.judging.answers import is_right
from jaxrefine.judging.exact import ExactConfig, ExactJudge
from jaxrefine.judging.provenance import Unjudged
from jaxrefine.typing import Array, Float

Kind = Literal["arithmetic", "answers", "super_ni", "lmentry", "questions"]

LENGTH = "words"
"""The metric that every task has: words of a reply."""


class Measured(NamedTuple):
    """What replies to a task are worth."""

    values: dict[str, Float[Array, " units"]]
    """By metric, the primary one first: one value a unit over which a bootstrap may draw. A unit is a prompt; for
    Super-NI and LMentry it is a task."""
    whole: Mapping[str, Any] = {}
    """What can be said of all replies together beyond means, such as the LMentry score."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """One task: a benchmark in its original format, prompts of one's own, or the shipped word problems."""

    name: str
    """Its heading in tables."""
    kind: Kind = "arithmetic"
    """"arithmetic" (the shipped world), "answers" (a file of prompts with known answers), "super_ni", "lmentry"
    (directories of the original files), "questions" (Vicuna's file; only compared, by a judge)."""
    path: str | None = None
    """File or directory; none for the shipped world."""
    tasks: str | None = None
    """Super-NI and LMentry: a file with names of tasks, one a line; None takes all of the directory."""
    shots: int = 0
    """Super-NI: positive examples in each prompt, 0 or 2."""
    max_prompts: int | None = None
    """At most so many prompts (Super-NI: of each task, 100 as published)."""
    max_new_tokens: int = 96
    problems: ArithmeticConfig = dataclasses.field(default_factory=ArithmeticConfig)
    seed: int = 1
    """Of the word problems."""

    def __post_init__(self) -> None:
        if self.kind not in TASKS:
            raise ValueError(unknown_name(self.kind, TASKS, f"kind of task {self.name!r}"))
        if self.kind == "arithmetic" and self.max_prompts is None:
            raise ValueError(f"task {self.name!r}: max_prompts says how many word problems are drawn")
        if self.kind != "arithmetic" and not self.path:
            raise ValueError(f"task {self.name!r} of kind {self.kind!r} needs a path")

    def inside(self, directory: str) -> Task:
        """The same, with relative paths taken from a directory; "" leaves them."""
        if not directory:
            return self
        put = lambda path: None if path is None else str(pathlib.Path(directory).expanduser() / path)  # noqa: E731
        return dataclasses.replace(self, path=put(self.path), tasks=put(self.tasks))

    def prompts(self) -> list[Candidates]:
        """What is asked."""
        return TASKS[self.kind].read(self)

    def measure(self, replies: Sequence[Candidates]) -> Measured:
        """What the replies are worth.

        Args:
            replies: to ``prompts()``, one response each, in that order.
        """
        if any(len(reply.responses) != 1 for reply in replies):
            raise ValueError(f"task {self.name!r}: one response to each prompt is wanted")
        return TASKS[self.kind].measure(replies)


@dataclasses.dataclass(frozen=True)
class TaskKind:
    """How a kind of task is read and measured."""

    read: Callable[[Task], list[Candidates]]
    measure: Callable[[Sequence[Candidates]], Measured]


def _arithmetic(task: Task) -> list[Candidates]:
    found = [
        problem.instruction() for problem in generate("test", int(task.max_prompts or 0), task.seed, task.problems)
    ]
    return [Candidates(one.id, one.prompt, answer=one.answer, meta={ORIGINAL: one.response}) for one in found]


def _answers(task: Task) -> list[Candidates]:
    found = read_prompts(str(task.path))[: task.max_prompts]
    for prompt in found:
        if prompt.answer is None:
            raise ValueError(f"{task.path}: prompt {prompt.id!r} has no known answer")
    return found


def _super_ni(task: Task) -> list[Candidates]:
    names = None if task.tasks is None else read_task_names(task.tasks)
    return [
        prompt
        for one in read_super_ni(str(task.path), tasks=names)
        for prompt in one.prompts(shots=task.shots, max_instances=task.max_prompts)
    ]


def _lmentry(task: Task) -> list[Candidates]:
    names = None if task.tasks is None else read_task_names(task.tasks)
    return read_lmentry(str(task.path), tasks=names)[: task.max_prompts]


def _questions(task: Task) -> list[Candidates]:
    return read_vicuna_questions(str(task.path))[: task.max_prompts]


def _words(replies: Sequence[Candidates]) -> Float[Array, " units"]:
    return np.array([float(len(reply.responses[0].split())) for reply in replies])


def _right(replies: Sequence[Candidates]) -> Measured:
    right = [
        float(reply.finished[0] and is_right(reply.responses[0], str(reply.answer)) == "right") for reply in replies
    ]
    return Measured({"accuracy": np.array(right), LENGTH: _words(replies)})


def _world(replies: Sequence[Candidates]) -> Measured:
    """As `_right`, and the exact judge's score of 0 to 10."""
    judged = ExactJudge(ExactConfig())(replies)
    scores = [float("nan") if found is None or isinstance(found, Unjudged) else found.labels[0] for found in judged]
    found = _right(replies).values
    return Measured({"accuracy": found["accuracy"], "judge": np.array(scores), LENGTH: found[LENGTH]})


def _rouge(replies: Sequence[Candidates]) -> Measured:
    scored = score_super_ni(replies)
    return Measured({"ROUGE-L": np.array([scored.by_task[name] for name in sorted(scored.by_task)])}, scored.record())


def _lmentry_accuracy(replies: Sequence[Candidates]) -> Measured:
    scored = score_lmentry(replies)
    return Measured(
        {"accuracy": np.array([scored.tasks[name].accuracy for name in sorted(scored.tasks)])}, scored.record()
    )


def _length(replies: Sequence[Candidates]) -> Measured:
    return Measured({LENGTH: _words(replies)})


TASKS: dict[str, TaskKind] = {
    "arithmetic": TaskKind(_arithmetic, _world),
    "answers": TaskKind(_answers, _right),
    "super_ni": TaskKind(_super_ni, _rouge),
    "lmentry": TaskKind(_lmentry, _lmentry_accuracy),
    "questions": TaskKind(_questions, _length),
}
"""Kind -> how it is read and measured."""


def check_paths(tasks: Sequence[Task]) -> None:
    """Mistakes that are better noticed before hours of training.

    Raises:
        ValueError: two tasks of one name, or a path that is not there.
    """
    names = [task.name for task in tasks]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        raise ValueError(f"two tasks are called {repeated[0]!r}")
    for task in tasks:
        for path in filter(None, (task.path, task.tasks)):
            if not pathlib.Path(path).exists():
                raise ValueError(f"task {task.name!r}: there is no {path}; give yours with --tasks-dir DIRECTORY")
