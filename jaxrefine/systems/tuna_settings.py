"""What a Tuna run is: its phases and recipes, who ranks, and on what the models are compared."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any, Literal

from jaxrefine.config import unknown_name
from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.arithmetic import ArithmeticConfig
from jaxrefine.evaluation.tasks import Task
from jaxrefine.judging.contextual import ContextualConfig, ContextualJudge
from jaxrefine.judging.exact import ExactConfig, ExactJudge
from jaxrefine.judging.prompts import Asking
from jaxrefine.judging.provenance import Judge
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sampling.diversity import Diversity
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.full_size import NamedFinetuning

Source = Literal["instructions", "responses", "probabilistic", "contextual", "proxy"]
SOURCES: dict[Source, str] = {
    "instructions": "the data's own responses",
    "responses": "the data's own response and each of the teacher's, as data of their own (Alpaca-Mul)",
    "probabilistic": "the teacher's responses, ranked by their likelihood (Eq. 3)",
    "contextual": "the model's own responses, ranked by the judge",
    "proxy": "the model's own responses, ranked by the proxy ranking model",
}
OWN: tuple[Source, ...] = ("contextual", "proxy")
"""Sources that sample from the model that is to be trained."""

Chain = tuple[str, ...]
"""Names of the phases that made a model; () is the given one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Part:
    """Prompts ``start`` to ``stop`` of the data, with responses of one source."""

    source: Source
    start: int = 0
    stop: int | None = None

    def of(self, items: Sequence[Any]) -> Sequence[Any]:
        """Its items."""
        return items[self.start : self.stop]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Phase:
    """One training: on the union of its parts."""

    name: str
    parts: tuple[Part, ...]
    training: Finetuning


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """A chain of phases, each from the weights of the one before."""

    name: str
    phases: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Proxy:
    """The proxy ranking model."""

    model: str | None = None
    """Where it starts from; None is the given student."""
    stop: int | None = None
    """It learns from the judge's rankings of the first so many prompts."""
    training: Finetuning | None = None
    """With a reward head; None where no recipe has a part of it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """Who ranks the model's own responses."""

    kind: Literal["exact", "contextual"] = "exact"
    """By the known answer and the length; or a language model behind an endpoint, on three axes."""
    exact: ExactConfig = dataclasses.field(default_factory=ExactConfig)
    endpoint: EndpointConfig | None = None
    keep: str = "runs/tuna/replies"
    """Directory of the endpoint's replies and ledger: nothing is paid twice."""
    asking: Asking = dataclasses.field(default_factory=lambda: Asking(max_tokens=2048))

    def __post_init__(self) -> None:
        if self.kind == "contextual" and self.endpoint is None:
            raise ValueError("judge.kind is 'contextual': judge.endpoint says where the judging model is")

    @contextlib.contextmanager
    def open(self) -> Iterator[Judge]:
        """The judge, its endpoint open."""
        if self.kind == "exact" or self.endpoint is None:
            yield ExactJudge(self.exact)
            return
        with Endpoint(self.endpoint, self.keep) as endpoint:
            yield ContextualJudge(endpoint, ContextualConfig(asking=self.asking))


@dataclasses.dataclass(frozen=True, kw_only=True)
class TunaSettings:
    """Recipes, what they learn from, and how the models are compared."""

    student: str | None = None
    """A Hugging Face directory; None is the shipped small model."""
    data: str | None = None
    """Instructions; None takes the shipped word problems."""
    data_format: Literal["jsonl", "alpaca"] = "jsonl"
    num_prompts: int | None = None
    """At most so many; of the word problems, exactly so many."""
    problems: ArithmeticConfig = dataclasses.field(default_factory=ArithmeticConfig)
    problems_seed: int = 1

    teacher: str | None = None
    """A Hugging Face directory that writes the teacher's responses; None is the shipped teacher."""
    teacher_file: str | None = None
    """The teacher's responses with their likelihoods in a file, in place of ``teacher``."""
    teacher_format: Literal["tuna_likelihoods", "tuna", "jsonl"] = "tuna_likelihoods"
    """The released texts with log-probs, the released ranked records, or scored candidates as judges write them."""
    teacher_sampling: SamplingConfig = dataclasses.field(default_factory=SamplingConfig)
    length_power: float = 1.3
    """β of Eq. 3."""
    own_sampling: SamplingConfig = dataclasses.field(
        default_factory=lambda: SamplingConfig(diversity=Diversity(threshold=0.8))
    )
    """Of the model's own responses."""
    judge: JudgeConfig = dataclasses.field(default_factory=JudgeConfig)
    proxy: Proxy = dataclasses.field(default_factory=Proxy)

    phases: tuple[Phase, ...]
    recipes: tuple[Recipe, ...]
    """The first one is what the others are compared with."""
    only: tuple[str, ...] = ()
    """Names of recipes to run, with the first; empty runs all."""
    seeds: tuple[int, ...] = (0,)
    """Of the order of training and of the model's own responses; the teacher's are common to all."""

    tasks: tuple[Task, ...]
    """What the models are asked in the end."""
    tasks_dir: str = ""
    """Directory in which the paths of the tasks lie; "" is the current one."""
    compared_by: EndpointConfig | None = None
    """A judge of pairs, which compares replies to tasks of kind "questions" with the first recipe's, in both orders."""
    placement: Placement = dataclasses.field(default_factory=Placement)
    num_resamples: int = 4000
    title: str = "Tuna"

    def __post_init__(self) -> None:
        names = [phase.name for phase in self.phases]
        for recipe in self.recipes:
            for name in recipe.phases:
                if name not in names:
                    raise ValueError(unknown_name(name, names, f"phase of recipe {recipe.name!r}"))
        for name in self.only:
            if name not in (known := [recipe.name for recipe in self.recipes]):
                raise ValueError(unknown_name(name, known, "recipe for only"))
        for what, found in (("phases", names), ("recipes", [recipe.name for recipe in self.recipes])):
            if len(set(found)) < len(found) or not found:
                raise ValueError(f"{what} are called {found}: at least one, each name once")
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds = {self.seeds}: give at least one, each once, none negative")
        if self.data is None and not self.num_prompts:
            raise ValueError("num_prompts says how many of the shipped word problems are drawn")
        proxied = any(part.source == "proxy" for phase in self.used_phases() for part in phase.parts)
        training = self.proxy.training
        if proxied and (training is None or training.objective.scorer != "reward"):
            raise ValueError('a part of source "proxy" needs proxy.training, with objective.scorer = "reward"')

    @property
    def asked(self) -> tuple[Task, ...]:
        """The tasks, with their paths in place."""
        return tuple(task.inside(self.tasks_dir) for task in self.tasks)

    @property
    def chosen(self) -> tuple[Recipe, ...]:
        """The recipes to run."""
        return tuple(r for n, r in enumerate(self.recipes) if not self.only or n == 0 or r.name in self.only)

    def used_phases(self) -> list[Phase]:
        """Those of the recipes to run."""
        wanted = {name for recipe in self.chosen for name in recipe.phases}
        return [phase for phase in self.phases if phase.name in wanted]

    def fine_tunings(self) -> list[NamedFinetuning]:
        """Every phase, and the proxy ranking model: four responses and the original one, as it is published."""
        own = max(len(self.own_sampling.policies()), len(self.teacher_sampling.policies()))
        found = [
            NamedFinetuning(
                name=phase.name,
                training=phase.training,
                num_candidates=1 if phase.training.objective.loss is None else own + 1,
                model=self.student,
            )
            for phase in self.phases
        ]
        if self.proxy.training is not None:
            start = self.student if self.proxy.model is None else self.proxy.model
            proxy = NamedFinetuning(name="proxy", training=self.proxy.training, num_candidates=own, model=start)
            found.append(proxy)
        return found

    def phase(self, name: str) -> Phase:
        """By its name."""
        return next(phase for phase in self.phases if phase.name == name)

    def chains(self) -> list[Chain]:
        """Every model that is trained, those first that others start from."""
        chains = (recipe.phases[: n + 1] for recipe in self.chosen for n in range(len(recipe.phases)))
        return list(dict.fromkeys(chains))
