"""Where instructions come from: the arithmetic world, Alpaca's records, or PandaLM's validation instructions."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from jaxrefine.data.arithmetic.generator import ArithmeticConfig, problem
from jaxrefine.data.examples import Instruction
from jaxrefine.data.readers_instructions import read_alpaca
from jaxrefine.data.readers_pandalm import read_pandalm_prompts
from jaxrefine.data.templates import Template


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskSource:
    """A set of instructions, with responses and answers where the source has them.

    >>> [task] = TaskSource(num=1, split="test", brief=True).read()
    >>> task.response.startswith(task.response.split("=")[0]), ":" in task.response
    (True, False)
    """

    format: Literal["arithmetic", "alpaca", "pandalm"] = "arithmetic"
    """The arithmetic world; Alpaca's records; or ``testset-inference-v1.json``, which has no responses."""
    file: str = ""
    """Of the last two."""
    num: int | None = None
    """The first so many; None is all of a file."""
    split: Literal["train", "validation", "test"] = "train"
    """Of the arithmetic world."""
    seed: int = 0
    """Of the arithmetic world."""
    world: ArithmeticConfig = dataclasses.field(default_factory=ArithmeticConfig)
    brief: bool = False
    """Solutions of the arithmetic world without their words, the calculations alone."""

    prompt: str = "{question}\n"
    """Of the arithmetic world: text with the field question, which ends where the solution begins."""

    def __post_init__(self) -> None:
        if (self.format == "arithmetic") == bool(self.file):
            raise ValueError(f"file = {self.file!r} and format = {self.format!r}: the world has no file, others one")
        Template("question", self.prompt).render(question="")  # a mistake in it is better noticed now
        if self.num is not None and self.num < 1:
            raise ValueError(f"num = {self.num} must be at least 1")

    def check(self, flag: str) -> None:
        """Refuses a file that is not there.

        Args:
            flag: of the command line, which sets it.

        Raises:
            ValueError: no such file, or a world without a number of tasks.
        """
        if self.file and not pathlib.Path(self.file).expanduser().is_file():
            raise ValueError(f"there is no file {self.file}; give yours with --{flag}.file FILE")
        if self.format == "arithmetic" and self.num is None:
            raise ValueError(f"{flag}.num: say how many tasks of the arithmetic world")

    def read(self) -> list[Instruction]:
        """The tasks; ``meta["instruction"]`` is what a judge is to be shown."""
        if self.format == "arithmetic":
            problems = [problem(self.split, index, self.seed, self.world) for index in range(self.num or 0)]
            template = Template("question", self.prompt)
            return [
                dataclasses.replace(
                    one.instruction(),
                    prompt=template.render(question=one.question),
                    response=_brief(one.solution) if self.brief else one.solution,
                    meta={"instruction": one.question},
                )
                for one in problems
            ]
        path = pathlib.Path(self.file).expanduser()
        found = read_alpaca(path, skip_empty=True) if self.format == "alpaca" else read_pandalm_prompts(path)
        return found[: self.num]


def _brief(solution: str) -> str:
    return "\n".join(line.rpartition(": ")[2] for line in solution.splitlines())
