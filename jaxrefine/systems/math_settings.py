"""The settings of an experiment in solving problems: sources, phases of training, sampling, selection."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

from jaxrefine.config import unknown_name
from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.solution_sources import SolutionSource
from jaxrefine.evaluation.selection import SelectionSettings
from jaxrefine.evaluation.solving import Role
from jaxrefine.evaluation.variant_settings import SHIPPED
from jaxrefine.judging.local import Rows
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.selection.examples import ExampleChoice
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.full_size import NamedFinetuning

GIVEN = "given"
"""What the model is called from which everything starts."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """One training, under the name of the model that it gives."""

    name: str
    start: str = GIVEN
    """Whose weights it goes on from: the given model, another one of ``more_models``, or an earlier phase."""
    training: Finetuning
    """A loss reads graded samples, likelihood reads solutions; with both, likelihood is on "original"."""
    solutions: tuple[str, ...] = ()
    """The sources whose solutions likelihood reads."""
    samples_of: str | None = None
    """The generator whose samples of the training problems a loss reads."""
    examples: ExampleChoice = dataclasses.field(default_factory=ExampleChoice)
    """Which of them."""
    best_epoch: bool = False
    """Take the epoch with the best greedy accuracy on the validation problems, not the last one."""
    scores: tuple[str, ...] = ()
    """Of an evaluator: generators whose test samples it re-ranks beside ``samples_of``."""
    re_ranks: bool = True
    """Whether an evaluator scores any test samples: not where it is but a start for another one."""

    @property
    def generates(self) -> bool:
        """Whether it learns to write solutions."""
        return self.training.objective.mle_weight > 0

    @property
    def evaluates(self) -> bool:
        """Whether it learns to give verdicts."""
        return self.training.objective.scorer == "verdict"

    @property
    def targets(self) -> tuple[str, ...]:
        """Generators whose test samples it scores."""
        found = dict.fromkeys([self.samples_of or GIVEN, *self.scores])
        return tuple(found) if self.evaluates and self.re_ranks else ()

    def __post_init__(self) -> None:
        where, loss = f"phase {self.name!r}", self.training.objective.loss
        if not self.name or set(self.name) & set("/\\:") or self.name != self.name.strip():
            raise ValueError(f"{where}: a name is a word of its own, without '/', '\\' and ':'")
        if (loss is None) != (self.samples_of is None):
            raise ValueError(f"{where}: objective.loss = {loss!r} and samples_of = {self.samples_of!r}: "
                             "a loss reads the samples of a generator, and nothing else does")  # fmt: skip
        if self.generates != bool(self.solutions):
            raise ValueError(f"{where}: mle_weight = {self.training.objective.mle_weight:g} and solutions = "
                             f"{self.solutions}: likelihood reads solutions, and nothing else does")  # fmt: skip
        if self.generates and loss is not None and self.training.mle_on != "original":
            raise ValueError(f"{where}: likelihood beside a loss reads the problem's own solution: mle_on = "
                             f"'original', given {self.training.mle_on!r}")  # fmt: skip
        if self.best_epoch and not (self.generates and self.training.keep_epochs):
            raise ValueError(f"{where}: best_epoch needs a generator and training.keep_epochs")
        if self.scores and not (self.evaluates and self.re_ranks):
            raise ValueError(f"{where}: scores = {self.scores}, and it gives no verdicts, or re_ranks is off")


@dataclasses.dataclass(frozen=True, kw_only=True)
class MathSettings:
    """What an experiment needs to know."""

    model: str | None = None
    """The given model, a Hugging Face directory with its tokenizer; None is the shipped small model."""
    more_models: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Other models by name, to start from or to sample from."""
    sources: tuple[SolutionSource, ...]
    """Who solves the training problems."""
    test: SolutionSource
    """The test problems; whatever source solves them, nothing is learnt from it."""
    num_validation: int = 0
    """Problems set aside to choose epochs by."""
    phases: tuple[Phase, ...]
    only: tuple[str, ...] = ()
    """Names of the phases to run, with those that they build on; empty runs all."""
    measure_given: bool = True
    """Whether the given model is measured as a generator, too: the baseline."""
    few_shot: int = 0
    """Solved examples of the first source before each problem, for given models alone."""
    sampling: SamplingConfig = dataclasses.field(
        default_factory=lambda: SamplingConfig(num_candidates=64, temperatures=(0.6,), top_p=0.95, max_new_tokens=512)
    )
    """Of the test problems."""
    training_sampling: SamplingConfig | None = None
    """Of the training problems; None is as of the test problems."""
    num_sampled: int | None = None
    """Training problems that are sampled, at most."""
    style: str = "auto"
    """Where solutions state their answer (``answer_extraction.STYLES``)."""
    grading: Literal["pool", "keys"] = "pool"
    """Answers that canonical keys do not settle: ask math-verify in processes of their own, or nobody."""
    rows: Rows = dataclasses.field(default_factory=Rows)
    """How evaluators lay out what they score."""
    placement: Placement = dataclasses.field(default_factory=Placement)
    selection: SelectionSettings = dataclasses.field(default_factory=SelectionSettings)
    """K, top, curves, bootstrap."""
    seed: int = 0
    """Of the validation problems and of what is drawn among solutions of one problem."""
    title: str = "Fine-tuning for math"

    def __post_init__(self) -> None:
        names = [GIVEN, *self.more_models]
        generators, sources = list(names), [source.name for source in self.sources]
        for phase in self.phases:
            where = f"phase {phase.name!r}"
            for given, allowed, what in (
                (phase.start, names, "start"),
                (phase.samples_of or GIVEN, generators, "generator in samples_of"),
                *((source, sources, "source") for source in phase.solutions),
            ):
                if given not in allowed:
                    raise ValueError(f"{where}: {unknown_name(given, allowed, what)}")
            if phase.name in names:
                raise ValueError(f"{where}: there is a model of this name already")
            if phase.best_epoch and not self.num_validation:
                raise ValueError(f"{where}: best_epoch needs num_validation, problems to choose by")
            names.append(phase.name)
            generators += [phase.name] if phase.generates else []
        for phase in self.phases:
            for target in phase.scores:
                if target not in generators:
                    raise ValueError(f"phase {phase.name!r}: {unknown_name(target, generators, 'generator in scores')}")
        for name in self.only:
            if name not in [phase.name for phase in self.phases]:
                raise ValueError(unknown_name(name, [phase.name for phase in self.phases], "phase for only"))
        if len(set(sources)) < len(sources) or not self.phases:
            raise ValueError(f"sources = {sources}: each has a name of its own; and at least one phase is wanted")

    @property
    def chosen(self) -> tuple[Phase, ...]:
        """The phases to run: those of ``only`` and whatever they build on."""
        wanted = set(self.only) or {phase.name for phase in self.phases}
        for phase in reversed(self.phases):
            if phase.name in wanted:
                wanted |= {phase.start, phase.samples_of or phase.start}
        return tuple(phase for phase in self.phases if phase.name in wanted)

    def fine_tunings(self) -> list[NamedFinetuning]:
        """Every phase, from the given model that it goes back to."""
        return [
            NamedFinetuning(
                name=phase.name,
                training=phase.training,
                num_candidates=(phase.examples.num if phase.samples_of else 0) + phase.generates,
                model=self.model if (first := self.history(phase.name)[0]) == GIVEN else self.more_models[first],
            )
            for phase in self.phases
        ]

    @property
    def generators(self) -> tuple[str, ...]:
        """Models that solve the test problems."""
        needed = {target for phase in self.chosen for target in phase.targets}
        given = [
            name for name in (GIVEN, *self.more_models) if name in needed or (name == GIVEN and self.measure_given)
        ]
        return (*given, *(phase.name for phase in self.chosen if phase.generates))

    def targets_of(self, phase: Phase) -> tuple[str, ...]:
        """Generators that are solved here and whose test samples a phase scores."""
        return tuple(name for name in phase.targets if name in self.generators)

    def given(self, name: str) -> Path:
        """The directory of a given model."""
        path = self.model if name == GIVEN else self.more_models[name]
        return SHIPPED if path is None else Path(path).expanduser()

    def history(self, name: str) -> tuple[str, ...]:
        """The models whose weights a model came from, the given one first, itself last."""
        starts = {phase.name: phase.start for phase in self.phases}
        found = [name]
        while found[-1] in starts:
            found.append(starts[found[-1]])
        return tuple(reversed(found))

    def role(self, history: Sequence[str]) -> tuple[Role, str | None]:
        """What a generator is in the report, and the generator whose further training it is."""
        phases = {phase.name: phase for phase in self.phases}
        trained = [phases[name] for name in history if name in phases]
        if not trained:
            return "given", None
        generators = [phase.name for phase in trained[:-1] if phase.generates]
        before = generators[-1] if generators else None
        if trained[-1].samples_of is not None:
            return "joint", before
        if before is None:
            return "solutions", None
        return ("control" if all(phase.samples_of is None for phase in trained) else "sequential"), before
