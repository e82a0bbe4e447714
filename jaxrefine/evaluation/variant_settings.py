"""The settings of a comparison of loss variants: what is compared, on what, for how long."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Literal

from jaxrefine.config import unknown_name
from jaxrefine.conversion.loaded import DType
from jaxrefine.data.arithmetic import ArithmeticConfig
from jaxrefine.data.groups import MLE_ON
from jaxrefine.evaluation.variant_data import Lengths
from jaxrefine.sampling.policies import Policy
from jaxrefine.scoring.adapted import TuningConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.sharding import MeshConfig
from jaxrefine.training.optimizer import OptimizerConfig

SHIPPED = Path(__file__).resolve().parent.parent / "shipped" / "arithmetic-small"
"""The model that comes with the package."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Variant:
    """One row of the comparison."""

    name: str
    objective: ObjectiveConfig
    learning_rate: float
    mle_on: str = "right"
    """Which candidates the likelihood term reads, one of ``data.groups.MLE_ON``."""

    def __post_init__(self) -> None:
        if self.mle_on not in MLE_ON:
            raise ValueError(f"variant {self.name!r}: {unknown_name(self.mle_on, MLE_ON, 'mle_on')}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Settings:
    """What a comparison of loss variants needs to know."""

    variants: tuple[Variant, ...]
    control: str = "mle"
    """The variant that the others are measured against."""
    only: tuple[str, ...] = ()
    """Names of the variants to run, with the control; empty runs all."""

    model: str | None = None
    """A Hugging Face LLaMA directory with its tokenizer; None is the shipped small model."""
    candidates: str | None = None
    """A file of prompts with scored candidates; None samples candidates of the shipped word problems."""
    candidates_format: Literal["jsonl", "gsm8k_solutions"] = "jsonl"
    """How that file is written: ``data.readers.read_candidates`` or ``read_gsm8k_solutions``."""
    held_out_share: float = 0.25
    """Of a file's prompts, by a hash of their ids; a split of their own for the word problems."""

    problems: ArithmeticConfig = dataclasses.field(default_factory=ArithmeticConfig)
    """Difficulty of the word problems."""
    problems_seed: int = 1
    """Of the word problems that are drawn; pre-training drew with another."""
    num_train: int = 256
    """Training prompts at most, before those without a right and a wrong candidate are left aside."""
    num_held_out: int = 128
    """Held-out prompts at most."""
    lengths: Lengths = dataclasses.field(default_factory=Lengths)

    num_candidates: int = 4
    """N, sampled for each training prompt; identical ones count once."""
    policy: Policy = dataclasses.field(default_factory=Policy)
    """Of the candidates, the base samples and the votes."""
    num_base_samples: int = 8
    """Of each held-out prompt, common to all variants: what is ranked and re-ranked."""
    num_votes: int = 8
    """Samples of each variant on each held-out prompt, for the majority vote."""
    sampling_batch: int | None = None
    """Prompts at once; None is the sampler's own choice."""

    seeds: tuple[int, ...] = (0, 1, 2)
    base_seed: int = 0
    """Of the base samples."""
    steps: int = 32
    """Training steps of each variant from each seed."""
    groups_per_step: int = 8
    """Prompts with their candidates in a step."""
    slots: int = 512
    """Tokens of a packed row, or the largest group's where that is more."""
    optimizer: OptimizerConfig = dataclasses.field(
        default_factory=lambda: OptimizerConfig(schedule="linear", warmup_share=0.1)
    )
    """For all variants, with the learning rate of each."""
    tuning: TuningConfig = dataclasses.field(default_factory=TuningConfig)
    """All parameters, or low-rank adapters; these want a learning rate some ten times as high."""
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    num_devices: int | None = None
    """How many of the devices that are there; None is all."""
    dtype: DType = "auto"
    """Of the computation: fp32 on CPU, else bf16."""
    attention: str = "expand"
    remat: str = "none"
    keep_weights: bool = False
    """Save every trained model, in Hugging Face layout with its scorer."""
    num_resamples: int = 4000
    """Of the bootstrap."""
    title: str = "Loss variants"

    def __post_init__(self) -> None:
        names = [variant.name for variant in self.variants]
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"two variants are called {repeated[0]!r}")
        for name, what in ((self.control, "control"), *((name, "only") for name in self.only)):
            if name not in names:
                raise ValueError(unknown_name(name, names, f"variant for {what}"))
        if not self.seeds or len(set(self.seeds)) < len(self.seeds) or min(self.seeds) < 0:
            raise ValueError(f"seeds = {self.seeds}: give at least one, each once, none negative")
        for name in _POSITIVE:
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} = {value} must be at least 1")
        if self.num_candidates < 2 and self.candidates is None:
            raise ValueError(f"num_candidates = {self.num_candidates}: a ranking needs at least 2")
        if not 0.0 < self.held_out_share < 1.0:
            raise ValueError(f"held_out_share = {self.held_out_share} must lie between 0 and 1")

    @property
    def directory(self) -> Path:
        """Where the model is."""
        return SHIPPED if self.model is None else Path(self.model).expanduser()

    @property
    def chosen(self) -> tuple[Variant, ...]:
        """The variants to run."""
        return tuple(row for row in self.variants if not self.only or row.name in (*self.only, self.control))


_POSITIVE = (
    "num_train", "num_held_out", "num_base_samples", "num_votes", "steps", "groups_per_step", "slots", "num_resamples",
)  # fmt: skip
