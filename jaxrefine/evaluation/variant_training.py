"""What a seed trains on: groups with something to rank, the same ones in each step of every variant."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrefine.data.groups import mle_weights
from jaxrefine.data.packing import PackingConfig, Refused, TokenGroup
from jaxrefine.data.steps import StepLoader, Steps, fit_steps, shuffled_steps
from jaxrefine.data.tokenizer import Tokenizer
from jaxrefine.evaluation.variant_data import Judged, token_group
from jaxrefine.evaluation.variant_settings import Settings
from jaxrefine.models.attention import attention_backend


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """One seed's groups and which of them are in each step."""

    judged: tuple[Judged, ...]
    """Prompts with different candidates of different labels."""
    groups: tuple[TokenGroup, ...]
    """The same, as tokens, with reference scores once they are known."""
    steps: Steps
    """Indices into ``groups``."""
    refused: tuple[Refused, ...] = ()


def training(
    rows: Sequence[Judged], tokenizer: Tokenizer, settings: Settings, reference: Mapping[Any, Any] | None, *, seed: int
) -> Training:
    """The groups that every variant can learn from, in the seed's order.

    Groups whose candidates all have one label are left aside: a ranking loss would skip them while the likelihood
    would not, and the variants would no longer see the same.

    Args:
        rows: all training prompts with their candidates.
        tokenizer: of the model.
        settings: lengths, steps, groups a step.
        reference: records of the reference stage by prompt; None before it ran.
        seed: of the order.

    Raises:
        ValueError: nothing is left to learn from.
    """
    judged: list[Judged] = []
    groups: list[TokenGroup] = []
    refused: list[Refused] = []
    for row in rows:
        distinct, _ = row.distinct()
        if not distinct.can_rank:
            continue
        group = token_group(distinct, tokenizer, settings.lengths, group_id=len(groups))
        if isinstance(group, Refused):
            refused.append(group)
            continue
        if reference is not None:
            sums = tuple(reference[distinct.example.id]["sums"])
            group = dataclasses.replace(group, reference_scores=sums)
        judged.append(distinct)
        groups.append(group)
    if not groups:
        raise ValueError(
            f"none of {len(rows)} training prompts has two different candidates with different labels"
            + (f" ({len(refused)} refused: {refused[0].reason})" if refused else "")
            + ": sample more candidates, or take a model that is neither always right nor always wrong"
        )
    return Training(
        judged=tuple(judged),
        groups=tuple(groups),
        steps=shuffled_steps(len(groups), settings.steps, settings.groups_per_step, seed=seed),
        refused=tuple(refused),
    )


def layout(trainings: Mapping[int, Training], settings: Settings, *, verdicts: bool, num_shards: int) -> PackingConfig:
    """One static shape for every step of every seed, so that a variant compiles once.

    Args:
        trainings: by seed.
        settings: the wanted tokens of a row.
        verdicts: lay out verdict words.
        num_shards: rows are a multiple of it.
    """
    return fit_steps(
        [(data.groups, data.steps) for data in trainings.values()],
        slots=settings.slots,
        multiple_of_rows=num_shards,
        verdicts=verdicts,
        expand=attention_backend(settings.attention).reads_paths,
    )


def batches(data: Training, config: PackingConfig, *, mle_on: str) -> StepLoader:
    """The batches of a seed, one a step, for a variant whose likelihood reads these candidates."""
    weighted = [dataclasses.replace(group, mle_weight=mle_weights(group.labels, mle_on)) for group in data.groups]
    return StepLoader(weighted, data.steps, config)
