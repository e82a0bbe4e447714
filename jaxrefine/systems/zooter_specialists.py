"""Models that are good at different things, made here: the shipped model goes on learning one kind of problem each.

Problems of the arithmetic world have tags; a specialist learns those that end with one operation and forgets some of
the others. So a router between them has something to find.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator

import numpy as np

from jaxrefine.artefacts.progress import say
from jaxrefine.config import unknown_name
from jaxrefine.conversion.loaded import Placement, load_model
from jaxrefine.data.arithmetic import ArithmeticConfig, Problem, problem
from jaxrefine.data.examples import SAID, Candidates, Routed
from jaxrefine.data.readers import read_candidates
from jaxrefine.judging.grading import grade
from jaxrefine.sampling.candidates import CANDIDATES, SamplingConfig, sample_candidates
from jaxrefine.training.finetuning import MODEL, Finetuning, finetune

SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "shipped" / "arithmetic-small"
OPERATIONS = ("addition", "subtraction", "multiplication", "division")
LIKELIHOOD = "likelihood"
"""The score that ranks all answers without a reward model: the mean log-prob that each model gives its own."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Specialists:
    """One model an operation, and the queries that all of them answer."""

    start: str = ""
    """Model directory from which they start; empty is the shipped small model."""
    world: ArithmeticConfig = dataclasses.field(default_factory=ArithmeticConfig)
    operations: tuple[str, ...] = OPERATIONS
    """A specialist for each: it learns problems whose last calculation is of this kind."""
    num_examples: int = 1500
    """Problems that a specialist learns from."""
    training: Finetuning
    """Of a specialist."""
    num_queries: int = 800
    """That all specialists answer for the router to learn from: of the validation split, which none of them saw."""
    num_held_out: int = 400
    """That all of them answer for its evaluation: of the test split."""
    sampling: SamplingConfig = dataclasses.field(
        default_factory=lambda: SamplingConfig(num_candidates=1, temperatures=(0.0,))
    )
    """Of answers; a reward is the share of right ones."""
    seed: int = 0
    """Of the problems."""

    def __post_init__(self) -> None:
        for name in self.operations:
            if name not in OPERATIONS:
                raise ValueError(unknown_name(name, OPERATIONS, "specialists.operations"))
        if len(self.operations) < 2 or len(set(self.operations)) < len(self.operations):
            raise ValueError(f"specialists.operations = {self.operations}: at least two, each once")

    def train(self, directory: pathlib.Path, placement: Placement) -> None:
        """Trains every specialist into ``directory/<operation>/model``."""
        start = pathlib.Path(self.start) if self.start else SHIPPED
        for name in self.operations:
            examples = [found.instruction() for found in self._ending_with(name)]
            finetune(
                start, examples, self.training, directory / name, placement=placement, description=f"specialist: {name}"
            )

    def answer(self, models: pathlib.Path, directory: pathlib.Path, placement: Placement) -> None:
        """Every specialist answers every query, into ``directory/<operation>/candidates.jsonl``.

        Args:
            models: where ``train`` put them.
            directory: gets the answers.
            placement: where they compute.
        """
        prompts = [_prompt(found) for found in (*self._queries(), *self._held_out())]
        for name in self.operations:
            model = load_model(models / name / MODEL, placement)
            sample_candidates(model, prompts, self.sampling, directory / name, description=f"answers: {name}")

    def queries(self, directory: pathlib.Path) -> list[Routed]:
        """The queries with a reward for each specialist: the share of its answers that are right.

        Args:
            directory: where ``answer`` put the answers.

        Returns:
            ``meta["split"]`` is "train" or "held_out"; tags are the last operation, the number of steps, and the
            templates of the problem.
        """
        answered = {name: read_candidates(directory / name / CANDIDATES) for name in self.operations}
        found: list[Routed] = []
        for split, problems in (("train", self._queries()), ("held_out", self._held_out())):
            for one in problems:
                answers = [answered[name][len(found)] for name in self.operations]
                scores = [_likelihood(answer) for answer in answers]
                last, steps = one.tags.operations[-1], f"{one.tags.num_steps} steps"
                meta = {"split": split, "subsets": [last, steps], "scores": {LIKELIHOOD: scores}}
                rewards = tuple(_share_right(answer) for answer in answers)
                tags = (last, steps, *one.tags.templates)
                found.append(Routed(one.id, one.instruction().prompt, self.operations, rewards, tags, meta))
        for name in self.operations:
            own = [query for query in found if query.tags[0] == name and query.meta["split"] == "held_out"]
            place = self.operations.index(name)
            if own:
                means = np.mean([[float(reward or 0) for reward in query.rewards] for query in own], axis=0)
                say(f"ending with {name}: its specialist {means[place]:.2f}, all {np.round(means, 2).tolist()}")
        return found

    def _ending_with(self, operation: str) -> Iterator[Problem]:
        index = found = 0
        while found < self.num_examples:
            one = problem("train", index, self.seed + 1, self.world)
            index += 1
            if one.tags.operations[-1] == operation:
                found += 1
                yield one

    def _queries(self) -> list[Problem]:
        return [problem("validation", index, self.seed, self.world) for index in range(self.num_queries)]

    def _held_out(self) -> list[Problem]:
        return [problem("test", index, self.seed, self.world) for index in range(self.num_held_out)]


def _prompt(found: Problem) -> Candidates:
    return Candidates(found.id, found.instruction().prompt, answer=str(found.answer))


def _share_right(answer: Candidates) -> float:
    return float(np.mean(grade(answer, style="marker", grader=None).right))


def _likelihood(answer: Candidates) -> float:
    said = answer.meta[SAID]
    return sum(one["logprob"] / max(1, one["tokens"]) for one in said) / len(said)
