"""What an ART run is: the problems, the three roles, and what each of them learns."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Literal

from jaxrefine.config import unknown_name
from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.arithmetic import ArithmeticConfig
from jaxrefine.evaluation.refinement import RefinementSettings
from jaxrefine.judging.answer_extraction import by_style
from jaxrefine.judging.local import Rows
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.full_size import NamedFinetuning

_SHIPPED = pathlib.Path(__file__).resolve().parent.parent / "shipped"

FORMATS: dict[str, str] = {
    "arithmetic": "generated word problems with their sub-questions and facts",
    "gsm8k": "GSM8K's files; the Socratic form has sub-questions",
    "strategyqa": "StrategyQA's files, with sub-questions and facts",
    "instructions": "lines with prompt, response, answer, and in meta sub_questions and facts where there are any",
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProblemsConfig:
    """The problems to learn from and those to measure on."""

    format: str = "arithmetic"
    """One of `FORMATS`."""
    train: str = ""
    """A file, unless the problems are generated."""
    test: str = ""
    """Another; for StrategyQA it may be the same file, whose first fifth is the test part."""
    num_train: int = 256
    """At most, the first ones."""
    num_solver: int = 0
    """At most so many of those that follow: for ψ alone to learn from. With 0 it learns from the same problems as Asker
    and Truster; a model makes few mistakes, and other ones, on problems that it has learned."""
    num_test: int = 256
    """At most, the first ones."""
    world: ArithmeticConfig = dataclasses.field(default_factory=ArithmeticConfig)
    """Of generated problems."""
    seed: int = 0
    """Of generated problems."""

    def __post_init__(self) -> None:
        """Refuses unknown formats and no problems."""
        if self.format not in FORMATS:
            raise ValueError(unknown_name(self.format, FORMATS, "problems.format"))
        for name in ("num_train", "num_test"):
            if getattr(self, name) < 1:
                raise ValueError(f"problems.{name} = {getattr(self, name)} must be at least 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Role:
    """A model of the run: where it starts from."""

    model: str = "arithmetic-small"
    """A Hugging Face directory, or the name of a shipped model."""
    layers: int | None = None
    """Only its first layers: a smaller model, to be trained again on the task."""

    @property
    def directory(self) -> pathlib.Path:
        """Where its weights are."""
        given = pathlib.Path(self.model).expanduser()
        return _SHIPPED / given if len(given.parts) == 1 and not given.exists() else given


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolverConfig(Role):
    """ψ, the model that answers and refines."""

    finetuning: Finetuning | None = None
    """On the training problems; None: it answers and refines as it is."""
    learns: Literal["both", "refining"] = "both"
    """Fine-tuned on the task with and without sub-questions, or only to answer with sub-questions."""
    endpoint: EndpointConfig | None = None
    """Where ψ is, if it is not on this machine; ``model`` and ``layers`` are then left aside, and its FLOPs unknown."""
    keep: str = "runs/art/replies"
    """Directory of the endpoint's replies and ledger: nothing is paid twice."""
    chat: bool = True
    """Whether the endpoint is sent messages, or texts to be gone on with."""
    shots: int = 0
    """Worked examples before every prompt, of the training problems: for a base model that was not fine-tuned."""
    writes: Literal["steps", "sub_questions"] = "steps"
    """A first answer step by step, or each step after its sub-question (decomposition)."""
    samples: SamplingConfig = dataclasses.field(
        default_factory=lambda: SamplingConfig(num_candidates=1, temperatures=(0.0, 0.3, 0.4, 0.7, 0.8))
    )
    """Of the training problems, to be labelled."""
    votes: SamplingConfig = dataclasses.field(
        default_factory=lambda: SamplingConfig(num_candidates=3, temperatures=(0.7,), seed=1)
    )
    """Of the test problems, for the vote that is measured beside refining."""

    def __post_init__(self) -> None:
        """Refuses to fine-tune a model that is elsewhere."""
        if self.endpoint is not None and self.finetuning is not None:
            raise ValueError("solver.finetuning: a model behind solver.endpoint is not trained here; give None")


@dataclasses.dataclass(frozen=True, kw_only=True)
class AskerConfig(Role):
    """The model that asks and decides."""

    task: Finetuning | None
    """First on the task's own solutions; None: it is taken as it is."""
    training: Finetuning | None
    """Then on sub-questions and the decision; None: it asks already, as one of an earlier run."""
    writes: Literal["questions", "decision", "all"] = "questions"
    """Sub-questions and the decision; the decision alone (ablation: no questions); or, all in one, the refined solution
    after a Yes as well, with no other model refining."""
    reads: Literal["solver", "own"] = "solver"
    """Whose answers it learns to judge: the answering model's, or its own after the task (ablation)."""
    max_new_tokens: int = 128
    """Of all that it writes about an answer; all in one, the solution is among it."""

    def __post_init__(self) -> None:
        """Refuses an Asker that cannot answer but is to learn from its own answers."""
        if self.reads == "own" and self.task is None:
            raise ValueError("asker.reads = 'own': it answers after its training on the task, and asker.task is None")


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrusterConfig(Role):
    """The model that scores answers."""

    from_asker_task: bool = True
    """Starts from the Asker's model after its training on the task; ``model`` and ``layers`` are then left aside."""
    training: Finetuning | None
    """With a reward head, on pairs of right and wrong answers; None: it scores already, as one of an earlier run."""

    def __post_init__(self) -> None:
        """Refuses a training without a reward head, and no training of a model without one."""
        if self.training is None:
            if self.from_asker_task:
                raise ValueError("truster.training is None: truster.model scores already; give from_asker_task = False")
        elif self.training.objective.scorer != "reward":
            raise ValueError(f"truster.training.objective.scorer = {self.training.objective.scorer!r}; allowed: reward")


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArtSettings:
    """Problems, roles, and how they are measured."""

    problems: ProblemsConfig = dataclasses.field(default_factory=ProblemsConfig)
    solver: SolverConfig = dataclasses.field(default_factory=SolverConfig)
    asker: AskerConfig
    truster: TrusterConfig
    teacher: Role | None = None
    """Who writes the sub-questions of problems that have none, from their solutions; None: they are left without."""
    sub_questions: Literal["asker", "data"] = "asker"
    """Whose sub-questions refine: those that the Asker wrote, or the test problems' own (an upper bound, and what an
    Asker without questions needs)."""
    with_facts: bool = False
    """Whether ψ gets the facts as well, where the data has them (StrategyQA)."""
    templates: str = ""
    """A TOML file with prompts of one's own (`data.refinement.REFINEMENT_ROLES`); "" is the shipped ones."""
    max_new_tokens: int = 96
    """Of ψ's solutions."""
    answer_style: str = "marker"
    """Where a solution states its answer, of `judging.answer_extraction.STYLES`: "marker" (``#### 36``) as the data and
    worked examples have it; "auto" or "conclusion" for a ψ that was tuned or is asked in a way of its own."""
    rows: Rows = dataclasses.field(default_factory=lambda: Rows(max_prompt=512, max_response=256))
    """How texts are laid out to be scored."""
    settings: RefinementSettings = dataclasses.field(default_factory=RefinementSettings)
    """The Asker's decision, the curve, the bootstrap."""
    placement: Placement = dataclasses.field(default_factory=Placement)
    """Where all models compute."""
    seed: int = 0
    """Added to the seeds of every training and every sampling: another run on the same problems."""
    title: str = "Ask, refine, trust"
    """Of the report."""

    def fine_tunings(self) -> list[NamedFinetuning]:
        """Of ψ, the Asker and the Truster, as far as they learn."""
        truster = self.asker if self.truster.from_asker_task else self.truster
        answers = len(self.solver.samples.policies())
        roles = (
            ("solver", self.solver.finetuning, self.solver, 1),
            ("asker task", self.asker.task, self.asker, 1),
            ("asker", self.asker.training, self.asker, 1),
            ("truster", self.truster.training, truster, answers),
        )
        return [
            NamedFinetuning(name=name, training=training, num_candidates=number, model=role.model)
            for name, training, role, number in roles
            if training is not None
        ]

    @property
    def labels_answers(self) -> bool:
        """Whether anybody learns from ψ's answers to the training problems."""
        return self.asker.training is not None or self.truster.training is not None

    @property
    def needs_training_problems(self) -> bool:
        """Whether anything is trained, or shown as a worked example."""
        learns = (self.solver.finetuning, self.asker.task, self.asker.training, self.truster.training)
        return bool(self.solver.shots) or any(training is not None for training in learns)

    def __post_init__(self) -> None:
        """Refuses an Asker without questions whose questions are to refine, and unknown styles."""
        by_style(self.answer_style)
        if self.asker.writes == "decision" and self.sub_questions == "asker":
            raise ValueError(
                "asker.writes = 'decision': it writes no sub-questions to refine with; give sub_questions = 'data'"
            )
