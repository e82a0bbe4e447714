"""What a seed trains on: groups with something to rank, the same ones in each step of every variant."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import mle_weights
from jaxrefine.data.packing import PackingConfig, Refused, TokenGroup, batch_from_groups, plan_rows
from jaxrefine.data.tokenizer import Tokenizer
from jaxrefine.evaluation.variant_data import Judged, token_group
from jaxrefine.evaluation.variant_settings import Settings


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """One seed's groups and which of them are in each step."""

    judged: tuple[Judged, ...]
    """Prompts with different candidates of different labels."""
    groups: tuple[TokenGroup, ...]
    """The same, as tokens, with reference scores once they are known."""
    steps: tuple[tuple[int, ...], ...]
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
        steps=order(len(groups), settings.steps, settings.groups_per_step, seed=seed),
        refused=tuple(refused),
    )


def order(num_groups: int, num_steps: int, groups_per_step: int, *, seed: int) -> tuple[tuple[int, ...], ...]:
    """Which groups are in each step: shuffled anew each time all were seen, none twice in a step.

    >>> steps = order(5, 4, 2, seed=0)
    >>> [len(set(step)) for step in steps], sorted(steps[0] + steps[1])[:1] != []
    ([2, 2, 2, 2], True)
    """
    generator = np.random.default_rng((seed, 1))
    size = min(groups_per_step, num_groups)
    steps: list[tuple[int, ...]] = []
    waiting: list[int] = []
    for _ in range(num_steps):
        if len(waiting) < size:
            # Those that wait come last in the new round, so that no step has a group twice.
            fresh = generator.permutation(num_groups).tolist()
            waiting += sorted(fresh, key=lambda index: index in waiting)
        steps.append(tuple(waiting[:size]))
        waiting = waiting[size:]
    return tuple(steps)


def layout(trainings: Mapping[int, Training], settings: Settings, *, verdicts: bool, num_shards: int) -> PackingConfig:
    """One static shape for every step of every seed, so that a variant compiles once.

    Args:
        trainings: by seed.
        settings: the wanted tokens of a row.
        verdicts: lay out verdict words.
        num_shards: rows are a multiple of it.
    """
    groups = [group for data in trainings.values() for group in data.groups]
    expand = settings.attention == "expand"
    largest = PackingConfig.fit(groups, rows=1, verdicts=verdicts, expand=expand).slots
    config = PackingConfig.fit(groups, rows=1, slots=max(largest, settings.slots), verdicts=verdicts, expand=expand)
    rows = max(len(_rows(data, step, config)) for data in trainings.values() for step in data.steps)
    return dataclasses.replace(config, rows=-(-rows // num_shards) * num_shards)


def batches(data: Training, config: PackingConfig, *, mle_on: str) -> list[PackedBatch]:
    """The batches of a seed, one a step, for a variant whose likelihood reads these candidates."""
    weighted = [dataclasses.replace(group, mle_weight=mle_weights(group.labels, mle_on)) for group in data.groups]
    return [
        batch_from_groups([[weighted[index] for index in row] for row in _rows(data, step, config)], config)
        for step in data.steps
    ]


def _rows(data: Training, step: Sequence[int], config: PackingConfig) -> list[list[int]]:
    planned = plan_rows([config.measure(data.groups[index]) for index in step], config)
    return [[step[place] for place in row] for row in planned]
