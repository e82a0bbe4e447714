"""Fine-tuning as every system does it: a model directory and labelled examples in, a model directory out.

    groups ─ steps ─ fit ─ model

Stopped at any instant and called again it goes on, and ends with the same bytes.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrefine.artefacts.atomic import write_json
from jaxrefine.artefacts.processes import Processes
from jaxrefine.artefacts.progress import say
from jaxrefine.conversion.loaded import LoadedModel, Placement, load_model
from jaxrefine.conversion.pretrained import save_pretrained
from jaxrefine.conversion.scorer import SCORER, load_scorer
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.groups import MLE_ON, Example, Refused, TokenGroup, tokenize_group
from jaxrefine.data.jsonl import write_jsonl
from jaxrefine.data.packing import PackingConfig, reasons
from jaxrefine.data.steps import StepLoader, Steps, fit_steps, shuffled_steps
from jaxrefine.data.templates import TEMPLATES, VERDICT_WORDS
from jaxrefine.losses import LOSSES
from jaxrefine.models.attention import reads_paths, slot_multiple
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.lora import init_adapters
from jaxrefine.models.precision import Precision
from jaxrefine.scoring.adapted import AdaptedObjective, TuningConfig, freeze
from jaxrefine.scoring.objectives import Objective, ObjectiveConfig, check_offers, make_objective, offers
from jaxrefine.scoring.reference import with_reference_scores
from jaxrefine.scoring.scorers import SCORERS
from jaxrefine.sharding import row_share
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.loop import TrainConfig, fit
from jaxrefine.training.optimizer import OptimizerConfig
from jaxrefine.training.state import TrainState, init_params
from jaxrefine.typing import Params

_log = logging.getLogger(__name__)

MODEL, EPOCHS, REFUSED, SUMMARY = "model", "epochs", "refused.jsonl", "summary.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Finetuning:
    """What to learn from labelled examples, and for how long."""

    objective: ObjectiveConfig
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    epochs: float = 1.0
    """How often each prompt is seen, where ``steps`` is None."""
    steps: int | None = None
    groups_per_step: int = 16
    """Prompts with their candidates in a step, exactly."""
    num_microbatches: int = 1
    """Each step is computed in so many parts."""
    max_prompt: int = 512
    """Tokens kept of a prompt, BOS included; a longer one loses its start."""
    max_response: int = 512
    """Tokens kept of a response, EOS included; a longer one loses its end, and with it the EOS."""
    slots: int = 1024
    """Tokens of a packed row, or the largest group's where that is more."""
    mle_on: str = "best"
    """Which responses the likelihood term reads, one of ``data.groups.MLE_ON``."""
    tuning: TuningConfig = dataclasses.field(default_factory=TuningConfig)
    """All parameters, or low-rank adapters."""
    checkpoints: CheckpointConfig | None = dataclasses.field(default_factory=lambda: CheckpointConfig(every_steps=500))
    """While it runs; they are removed once the model is written. None: a stopped run starts again."""
    keep_epochs: bool = False
    """Also write the model after each whole epoch but the last, into ``epochs/1``, ``epochs/2``, …"""
    log_every_steps: int = 10
    writers: tuple[str, ...] = ()
    """Beside the JSON lines: "tensorboard", "wandb"."""
    save_dtype: Literal["float32", "bfloat16"] = "float32"
    """Of the written weights; training goes on from fp32 without a loss."""
    seed: int = 0
    """Of the order, new heads and adapters, and dropout."""

    def __post_init__(self) -> None:
        if self.mle_on not in MLE_ON:
            raise ValueError(f"mle_on = {self.mle_on!r}; allowed: {', '.join(MLE_ON)}")
        for name in ("groups_per_step", "slots", "max_response"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"{name} = {value} must be at least 1")
        if self.steps is not None and self.steps < 1:
            raise ValueError(f"steps = {self.steps} must be at least 1, or None for {self.epochs:g} epochs")
        if self.epochs <= 0:
            raise ValueError(f"epochs = {self.epochs} must be positive")

    def num_steps(self, num_groups: int) -> int:
        """Steps for so many prompts: the last one of an epoch takes prompts of the next where it would not be full.

        >>> Finetuning(objective=ObjectiveConfig(mle_weight=1.0), epochs=3, groups_per_step=128).num_steps(52_000)
        1219
        """
        size = min(self.groups_per_step, num_groups)
        return self.steps or max(1, math.ceil(self.epochs * num_groups / size))

    def train_config(
        self, steps: int, *, epoch_steps: int | None = None, precision: Precision | None = None
    ) -> TrainConfig:
        """Of the trainer; parameters are stored in fewer bytes where the precision or the optimiser says so."""
        short = precision is not None and precision.params == "bfloat16"
        return TrainConfig(
            steps=steps,
            num_microbatches=self.num_microbatches,
            optimizer=dataclasses.replace(self.optimizer, masters="bfloat16") if short else self.optimizer,
            checkpoints=self.checkpoints,
            log_every_steps=min(self.log_every_steps, steps),
            evaluate_every_steps=epoch_steps,
            writers=self.writers,
            seed=self.seed,
        )


def finetune(
    start: Path,
    examples: Sequence[Example],
    config: Finetuning,
    directory: Path,
    *,
    placement: Placement | None = None,
    description: str = "train",
) -> Path:
    """Trains a model on labelled examples.

    Args:
        start: a Hugging Face model directory with its tokenizer. Where it holds the head of the very scorer that is
            trained, training goes on from that head; any other scorer gets a new one.
        examples: ids need not differ; those that cannot be used are counted and kept in ``refused.jsonl``.
        config: what to learn, for how long.
        directory: gets ``model`` (with tokenizer and head), ``metrics.jsonl``, ``summary.json``, ``refused.jsonl``.
        placement: mesh, dtype, attention; None is the default.
        description: beside the progress bar.

    Returns:
        The directory of the trained model.

    Raises:
        ValueError: nothing to learn from, or examples that do not offer what the objective needs.
        Interrupted: (a SystemExit) told to stop; called again, it goes on.
    """
    model = directory / MODEL
    processes = Processes(jax.process_index(), jax.process_count())
    with processes.together(f"begin in {directory}"):
        directory.mkdir(parents=True, exist_ok=True)
        is_written = (model / "config.json").is_file()  # it appears whole; only what came after it is left to do
        if is_written and processes.is_first:
            _clean(directory)
    if is_written:
        return model
    loaded = load_model(start, placement)
    groups, refused = token_groups(examples, loaded, config)
    if processes.is_first:
        write_jsonl(directory / REFUSED, [{"index": item.group_id, "reason": item.reason} for item in refused])
    if refused and processes.is_first:
        _log.warning("%d of %d examples are left out: %s", len(refused), len(examples), reasons(refused))
    if not groups:
        raise ValueError(f"none of {len(examples)} examples can be used: {reasons(refused) or 'there are none'}")
    wants_reference = config.objective.loss is not None and "reference" in LOSSES[config.objective.loss].needs
    check_offers(config.objective, offers(groups) | ({"reference"} if wants_reference else frozenset()))
    steps = shuffled_steps(len(groups), config.num_steps(len(groups)), config.groups_per_step, seed=config.seed)
    row_shares = math.lcm(loaded.num_shards, jax.process_count())
    packing = step_packing(groups, steps, loaded.model, config, row_shares=row_shares)
    if wants_reference:
        scored = dataclasses.replace(packing, score_responses=True)
        groups = with_reference_scores(
            groups, loaded.model, loaded.params, scored, directory, mesh=loaded.mesh, identity=loaded.digest
        )
    _train(loaded, groups, steps, packing, config, directory, description)
    with processes.together(f"finish in {directory}"):
        if processes.is_first:
            write_json(directory / SUMMARY, summary(groups, steps, packing, refused))
            _clean(directory)
    return model


def token_groups(
    examples: Sequence[Example], loaded: LoadedModel, config: Finetuning
) -> tuple[list[TokenGroup], list[Refused]]:
    """The examples that a fine-tuning can learn from, as tokens, and those that it cannot, by index."""
    is_verdict = config.objective.scorer == "verdict"
    contrasts = config.objective.loss is not None and LOSSES[config.objective.loss].supervision in _CONTRASTS
    groups: list[TokenGroup] = []
    refused: list[Refused] = []
    for index, example in enumerate(examples):
        group: TokenGroup | Refused
        # A problem without candidates has nothing to contrast, and yet its own response to learn.
        lone = config.mle_on == "original" and isinstance(example, Candidates) and not example.responses
        if contrasts and isinstance(example, Candidates) and len(set(example.labels)) < 2 and not lone:
            group = Refused(index, "its candidates all have one label")
        else:
            group = tokenize_group(
                example, loaded.tokenizer, group_id=index, max_prompt=config.max_prompt,
                max_response=config.max_response, suffix=TEMPLATES["verdict"].text if is_verdict else "",
                verdicts=VERDICT_WORDS if is_verdict else None,
                mle_on=config.mle_on if not isinstance(example, Instruction) else "all",
            )  # fmt: skip
        if isinstance(group, TokenGroup):
            groups.append(group)
        else:
            refused.append(group)
    return groups, refused


_CONTRASTS = ("ranking", "pairwise", "preference")
"""Supervision that a prompt without two different labels has nothing of."""


def summary(
    groups: Sequence[TokenGroup], steps: Steps, packing: PackingConfig, refused: Sequence[Refused]
) -> dict[str, Any]:
    """What a run cost and left out."""
    sizes = [packing.measure(group) for group in groups]
    seen = [sizes[index] for step in steps for index in step]
    return {
        "num_groups": len(groups),
        "num_candidates": sum(len(group.responses) for group in groups),
        "refused": reasons(refused),
        "steps": len(steps),
        "groups_per_step": max(map(len, steps)),
        "tokens": sum(size.slots for size in seen),
        "scored_tokens": sum(size.scored for size in seen),
    }


def step_packing(
    groups: Sequence[TokenGroup], steps: Steps, model: Any, config: Finetuning, *, row_shares: int
) -> PackingConfig:
    """The shape of a fine-tuning's batches.

    Args:
        groups: by index.
        steps: which of them are in each step.
        model: a ``Decoder`` or an ``Encoder``.
        config: what its objective reads.
        row_shares: rows of a microbatch are a multiple of it: shards of the mesh, and processes.
    """
    objective = config.objective
    return fit_steps(
        [(groups, steps)],
        slots=config.slots,
        multiple_of_rows=row_shares * config.num_microbatches,
        verdicts=objective.scorer == "verdict",
        score_responses=bool(objective.mle_weight) or objective.scorer == "sequence",
        expand=reads_paths(model),
        multiple=slot_multiple(model),
        share_prompt=not isinstance(model, Encoder),  # which reads prompt and response as one sequence
    )


def _train(
    loaded: LoadedModel,
    groups: Sequence[TokenGroup],
    steps: Steps,
    packing: PackingConfig,
    config: Finetuning,
    directory: Path,
    description: str,
) -> None:
    share, num_shares = row_share(loaded.mesh)
    loader = StepLoader(
        groups, steps, packing,
        num_microbatches=config.num_microbatches,
        process_index=share,
        process_count=num_shares,
    )  # fmt: skip
    plain = make_objective(config.objective, loaded.model)
    objective: Objective | AdaptedObjective = plain
    key = jax.random.fold_in(jax.random.key(config.seed), 2)
    params = _start(plain, key, loader, loaded, config)
    frozen: Params | None = None
    if config.tuning.parameters == "adapters":
        objective, frozen = AdaptedObjective(plain, config.tuning.lora), freeze(loaded.params, config.tuning.base)
        del params["model"]
        params["adapters"] = init_adapters(jax.random.fold_in(key, 1), loaded.params, config.tuning.lora)

    def save(state: TrainState, where: Path) -> None:
        tree = state.params
        if isinstance(objective, AdaptedObjective):
            tree = objective.plain_params(state.params, state.frozen)
        _save(where, loaded, tree, config)

    epoch_steps = max(1, len(groups) // max(map(len, steps))) if config.keep_epochs else None

    def keep(state: TrainState) -> Mapping[str, float]:
        step = int(state.step)
        if epoch_steps is not None and step % epoch_steps == 0 and step < len(steps):
            save(state, directory / EPOCHS / str(step // epoch_steps))
        return {}

    state = fit(
        objective, params, loader,
        config.train_config(len(steps), epoch_steps=epoch_steps, precision=loaded.precision), directory,
        frozen=frozen, consume=True, mesh=loaded.mesh, evaluate=keep if epoch_steps else None, description=description,
    )  # fmt: skip
    save(state, directory / MODEL)


def _start(objective: Objective, key: jax.Array, loader: StepLoader, loaded: LoadedModel, config: Finetuning) -> Params:
    """The model's parameters, with the head that it came with or a new one where the scorer has parameters."""
    if not SCORERS[config.objective.scorer].has_params:
        return {"model": loaded.params}
    if (loaded.directory / SCORER).is_file():
        described, head = load_scorer(loaded.directory)
        if described.get("scorer") == config.objective.scorer:
            say(f"goes on from the {config.objective.scorer} head of {loaded.directory.name}")
            return {"model": loaded.params, "scorer": head}
    return init_params(objective, key, loader.batch(0), mesh=loaded.mesh, pretrained=loaded.params)


def _save(directory: Path, loaded: LoadedModel, params: Params, config: Finetuning) -> None:
    directory.parent.mkdir(parents=True, exist_ok=True)
    scorer = params.get("scorer")
    described = {"scorer": config.objective.scorer, "base": loaded.digest}
    save_pretrained(
        directory,
        loaded.model.config,
        params["model"],
        tokenizer_dir=loaded.directory,
        dtype=jnp.dtype(config.save_dtype),
        scorer=scorer,
        scorer_config=None if scorer is None else described,
    )


def _clean(directory: Path) -> None:
    """Checkpoints of a run that is over."""
    for name in ("checkpoints", "checkpoints-integrity"):
        if (directory / name).is_dir():
            shutil.rmtree(directory / name)
