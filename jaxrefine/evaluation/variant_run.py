"""One unit of a comparison: a variant trained from one seed, and measured on the held-out prompts."""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np

from jaxrefine.artefacts.progress import progress
from jaxrefine.conversion.loaded import LoadedModel
from jaxrefine.conversion.pretrained import save_pretrained
from jaxrefine.data.identity import number_of
from jaxrefine.data.packing import PackingConfig
from jaxrefine.evaluation.comparison import Unit
from jaxrefine.evaluation.variant_data import judge, prompt_ids
from jaxrefine.evaluation.variant_held_out import HeldOut, quality
from jaxrefine.evaluation.variant_scoring import GroupScorer
from jaxrefine.evaluation.variant_settings import Settings, Variant
from jaxrefine.evaluation.variant_training import Training, batches, layout
from jaxrefine.losses import LOSSES
from jaxrefine.models.lora import init_adapters
from jaxrefine.sampling.generate import iterate
from jaxrefine.sampling.policies import Greedy, Policy
from jaxrefine.scoring.adapted import AdaptedObjective, freeze
from jaxrefine.scoring.objectives import Objective, make_objective, offers
from jaxrefine.scoring.scorers import SCORERS
from jaxrefine.training.loop import TrainConfig, fit
from jaxrefine.training.optimizer import Optimizer, make_optimizer
from jaxrefine.training.state import init_params
from jaxrefine.training.step import Step, make_train_step
from jaxrefine.typing import Array, Float, Params


@dataclasses.dataclass(frozen=True)
class _Compiled:
    """What the seeds of one variant share."""

    objective: Objective
    trained: Objective | AdaptedObjective
    """What the step trains: the objective, or adapters of it."""
    optimizer: Optimizer
    step: Step


class Runner:
    """Runs units; what can be shared between them is made once.

    Args:
        settings: of the comparison.
        base: what every unit starts from.
        trainings: groups and their order, by seed.
        rows: the held-out prompts.
    """

    def __init__(
        self, settings: Settings, base: LoadedModel, trainings: Mapping[int, Training], rows: Sequence[HeldOut]
    ) -> None:
        self._settings, self._base, self._trainings, self._rows = settings, base, trainings, rows
        self._compiled: dict[str, _Compiled] = {}
        self._scorers: dict[bool, GroupScorer] = {}
        self._layouts: dict[bool, PackingConfig] = {}
        tuning = settings.tuning
        self._frozen = freeze(base.params, tuning.base) if tuning.parameters == "adapters" else None

    def run(self, variant: Variant, seed: int, *, keep: Path | None = None) -> dict[str, Any]:
        """Trains and measures; returns the unit's record for the journal.

        Args:
            variant: what to train.
            seed: of candidates, order, new heads and votes; alike for all variants.
            keep: where the trained model is saved, if anywhere.
        """
        params, history, step = self._train(variant, seed)
        if keep is not None:
            self._save(keep, variant, params)
        measured = quality(self._rows, self._scores(variant, params), *self._answers(variant, params, seed))
        later = history[1:] or history
        seconds = [record["step_seconds"] for record in later]
        total = sum(record["step_seconds"] for record in history)
        return {
            "variant": variant.name,
            "seed": seed,
            "quality": measured,
            "loss": [_finite(record["loss"]) for record in history],
            "seconds_per_step": statistics.median(seconds),
            "scored_tokens_per_second": sum(record["scored_tokens"] for record in later) / sum(seconds),
            "peak_memory_bytes": float(step.peak_memory_bytes),
            "compile_seconds": step.compile_seconds,
            "train_seconds": total,
        }

    def _train(self, variant: Variant, seed: int) -> tuple[Params, list[Mapping[str, float]], Step]:
        settings, base, data = self._settings, self._base, self._trainings[seed]
        verdicts = variant.objective.scorer == "verdict"
        if verdicts not in self._layouts:
            shape = layout(self._trainings, settings, verdicts=verdicts, num_shards=base.num_shards)
            self._layouts[verdicts] = shape
        loader = batches(data, self._layouts[verdicts], mle_on=variant.mle_on)
        compiled = self._prepared(variant)
        key = jax.random.fold_in(jax.random.key(seed), 2)
        params: Params = {"model": base.params}
        if SCORERS[variant.objective.scorer].has_params:
            params = init_params(compiled.objective, key, loader.batch(0), mesh=base.mesh, pretrained=base.params)
        if self._frozen is not None:
            del params["model"]
            params["adapters"] = init_adapters(jax.random.fold_in(key, 1), base.params, settings.tuning.lora)
        history: list[Mapping[str, float]] = []
        state = fit(
            compiled.trained,
            params,
            loader,
            self._train_config(variant),
            frozen=self._frozen,
            mesh=base.mesh,
            train_step=compiled.step,
            optimizer=compiled.optimizer,
            on_metrics=lambda _, record: history.append(record),
            description=f"{variant.name}, seed {seed}",
        )
        if isinstance(compiled.trained, AdaptedObjective):
            return compiled.trained.plain_params(state.params, state.frozen), history, compiled.step
        return state.params, history, compiled.step

    def _prepared(self, variant: Variant) -> _Compiled:
        if variant.name not in self._compiled:
            config = self._train_config(variant)
            objective = make_objective(variant.objective, self._base.model)
            optimizer = make_optimizer(config.optimizer, config.steps)
            adapted = self._settings.tuning.parameters == "adapters"
            trained = AdaptedObjective(objective, self._settings.tuning.lora) if adapted else objective
            step = make_train_step(trained, optimizer, mesh=self._base.mesh)
            self._compiled[variant.name] = _Compiled(objective, trained, optimizer, step)
        return self._compiled[variant.name]

    def _train_config(self, variant: Variant) -> TrainConfig:
        optimizer = dataclasses.replace(self._settings.optimizer, learning_rate=variant.learning_rate)
        return TrainConfig(steps=self._settings.steps, optimizer=optimizer, log_every_steps=1)

    def _scores(self, variant: Variant, params: Params) -> dict[str, Float[Array, " n"]]:
        """By prompt, as the variant's own loss reads them: against the reference where it has one."""
        verdicts = variant.objective.scorer == "verdict"
        groups = [row.group for row in self._rows if row.group is not None]
        if not groups:
            return {}
        if verdicts not in self._scorers:
            self._scorers[verdicts] = GroupScorer(groups, self._base, self._settings, verdicts=verdicts)
        values = self._scorers[verdicts](params, self._prepared(variant).objective.scorer)
        is_relative = variant.objective.loss is not None and "reference" in LOSSES[variant.objective.loss].needs
        found = {}
        for row in self._rows:
            if row.group is not None:
                scores = values[row.group.group_id]
                found[row.id] = scores - np.array(row.reference) if is_relative else scores
        return found

    def _answers(
        self, variant: Variant, params: Params, seed: int
    ) -> tuple[dict[str, str], dict[str, list[str | None]]]:
        """Outcomes of the greedy solutions, and answers of the samples that vote, by prompt."""
        asked = [row for row in self._rows if row.answer is not None]
        label, votes = f"{variant.name}, seed {seed}", self._settings.num_votes
        key = jax.random.fold_in(jax.random.key(seed), 3)
        greedy = self._sample(asked, params, Greedy, 1, key, f"{label}, greedy")
        voters = self._sample(asked, params, self._settings.policy, votes, key, f"{label}, votes")
        return (
            {prompt: records[0]["outcome"] for prompt, records in greedy.items()},
            {prompt: [record["answer"] for record in records] for prompt, records in voters.items()},
        )

    def _sample(
        self, rows: Sequence[HeldOut], params: Params, policy: Policy, number: int, key: jax.Array, description: str
    ) -> dict[str, list[dict[str, Any]]]:
        base, lengths, found = self._base, self._settings.lengths, {}
        if not rows:
            return {}
        with progress(len(rows), description, unit="prompts") as bar:
            for index, samples in iterate(
                base.model, params["model"],
                [prompt_ids(row.judged.example, base.tokenizer, lengths) for row in rows],
                prompt_ids=[number_of(row.id) for row in rows],
                num_candidates=number, max_new_tokens=lengths.response, policy=policy,
                eos_id=base.tokenizer.eos_id, key=key, batch_size=self._settings.sampling_batch,
            ):  # fmt: skip
                row = rows[index]
                found[row.id] = judge(row.judged.example, samples, base.tokenizer)
                bar.advance()
        return found

    def _save(self, directory: Path, variant: Variant, params: Params) -> None:
        base, scorer = self._base, params.get("scorer")
        described = {"scorer": variant.objective.scorer, "variant": variant.name, "base": base.digest}
        save_pretrained(
            directory,
            base.model.config,
            params["model"],
            tokenizer_dir=base.directory,
            scorer=scorer,
            scorer_config=None if scorer is None else described,
        )


def left_out(settings: Settings, trainings: Mapping[int, Training]) -> dict[str, str]:
    """Variants whose objective needs what the data has not, with the reason.

    Raises:
        ValueError: the control is among them.
    """
    groups = [group for data in trainings.values() for group in data.groups]
    offered = offers(groups) | {"reference"}  # summed log-probs may all be given and yet be zero
    reasons = {}
    for variant in settings.chosen:
        try:
            make_objective(variant.objective, model=None, offered=offered)
        except ValueError as error:
            reasons[variant.name] = str(error)
    if settings.control in reasons:
        raise ValueError(f"the control {settings.control!r} cannot be trained: {reasons[settings.control]}")
    return reasons


def unit_from_record(record: Mapping[str, Any]) -> Unit:
    """The unit of a journal's record."""
    return Unit(**{**record, "loss": tuple(record["loss"])})


def _finite(value: float) -> float | None:
    return value if math.isfinite(value) else None
