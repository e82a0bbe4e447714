"""Batches of exactly the groups that a step is to see: for settings given in prompts a step, and for fair comparisons.

``Loader`` fills rows as tightly as it can, so that the number of groups differs from batch to batch; here each batch
has its own groups and as many rows as the fullest of them needs.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.layout import batch_from_groups
from jaxrefine.data.shapes import PackingConfig, plan_rows

Steps = tuple[tuple[int, ...], ...]
"""Which groups are in each step: indices."""


def shuffled_steps(num_groups: int, num_steps: int, groups_per_step: int, *, seed: int) -> Steps:
    """Which groups are in each step: shuffled anew each time all were seen, none twice in a step.

    >>> steps = shuffled_steps(5, 4, 2, seed=0)
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
            fresh, seen = generator.permutation(num_groups).tolist(), set(waiting)
            waiting += sorted(fresh, key=seen.__contains__)
        steps.append(tuple(waiting[:size]))
        waiting = waiting[size:]
    return tuple(steps)


def fit_steps(
    runs: Iterable[tuple[Sequence[TokenGroup], Steps]],
    *,
    slots: int,
    multiple_of_rows: int = 1,
    multiple: int = 32,
    **options: Any,
) -> PackingConfig:
    """One static shape that holds every step of every run, so that they compile once.

    Args:
        runs: the groups and the steps of each.
        slots: tokens of a row, unless one group is larger.
        multiple_of_rows: rows are a multiple of it: shards of the mesh times microbatches.
        multiple: tokens of a row are a multiple of it.
        **options: of ``PackingConfig.fit``.

    Raises:
        ValueError: no groups.
    """
    runs = list(runs)
    groups = [group for found, _ in runs for group in found]
    if not groups:
        raise ValueError("fit_steps: no groups")
    most = 2**30  # a row is planned by its tokens alone; what else it holds is what the fullest one turns out to have
    roomy = PackingConfig(
        rows=1, slots=most, scored=most, groups=most, paths=most, path_length=most,
        candidates=max(len(group.responses) for group in groups),
        rewards=max(len(group.rewards or ()) for group in groups),
        **options,
    )  # fmt: skip
    sizes = [[roomy.measure(group) for group in found] for found, _ in runs]
    largest = max(size.slots for found in sizes for size in found)
    longest = max(size.longest for found in sizes for size in found)
    roomy = dataclasses.replace(roomy, slots=_up(max(largest, slots), multiple))
    plans = [
        [[found[step[place]] for place in row] for row in plan_rows([found[index] for index in step], roomy)]
        for found, (_, steps) in zip(sizes, runs, strict=True)
        for step in steps
    ]
    rows = [row for plan in plans for row in plan]
    return dataclasses.replace(
        roomy,
        rows=-(-max(map(len, plans)) // multiple_of_rows) * multiple_of_rows,
        scored=_up(max(sum(size.scored for size in row) for row in rows)),
        groups=max(map(len, rows)),
        paths=max(sum(size.paths for size in row) for row in rows) if roomy.expand else None,
        path_length=min(roomy.slots, _up(longest)) if roomy.expand else None,
    )


def _up(value: int, multiple: int = 32) -> int:
    return -(-value // multiple) * multiple


class StepLoader:
    """Batches of given groups, for this process; step after step, once.

    Args:
        groups: by index.
        steps: which of them are in each step.
        packing: of ``fit_steps``; ``packing.rows`` is the global batch.
        num_microbatches: A; a process reads its share of each microbatch, its rows in that order.
        process_index: this process.
        process_count: of so many; A times it divides ``packing.rows``.

    Raises:
        ValueError: rows that cannot be shared out.

    >>> groups = [TokenGroup(i, (1, 5), ((6, 2),)) for i in range(3)]
    >>> packing = fit_steps([(groups, ((0, 1), (2, 0)))], slots=8)
    >>> [sorted(batch.group_ids.ravel().tolist()) for batch in StepLoader(groups, ((0, 1), (2, 0)), packing)]
    [[0, 1], [0, 2]]
    """

    def __init__(
        self,
        groups: Sequence[TokenGroup],
        steps: Steps,
        packing: PackingConfig,
        *,
        num_microbatches: int = 1,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        shares = num_microbatches * process_count
        if packing.rows % shares:
            raise ValueError(
                f"packing.rows = {packing.rows} cannot be shared by {num_microbatches} microbatches × {process_count} "
                "processes"
            )
        self.packing, self.steps = packing, steps
        self._groups = groups
        rows = np.arange(packing.rows).reshape(num_microbatches, process_count, -1)
        self._share = rows[:, process_index].reshape(-1)

    def __len__(self) -> int:
        """Number of batches."""
        return len(self.steps)

    def __iter__(self) -> StepIterator:
        """From the first batch on."""
        return StepIterator(self)

    def batch(self, step: int) -> PackedBatch:
        """The batch of one step."""
        indices = self.steps[step]
        planned = plan_rows([self.packing.measure(self._groups[index]) for index in indices], self.packing)
        own = [planned[int(row)] if row < len(planned) else () for row in self._share]
        rows = [[self._groups[indices[place]] for place in row] for row in own]
        return batch_from_groups(rows, self.packing, num_rows=len(rows))


class StepIterator:
    """Batches from some step on; the state is the number of the next one."""

    any_num_processes = True
    """Rows are planned before they are shared out."""

    def __init__(self, loader: StepLoader) -> None:
        self._loader, self._next = loader, 0

    def __iter__(self) -> StepIterator:
        return self

    def __next__(self) -> PackedBatch:
        if self._next >= len(self._loader):
            raise StopIteration
        self._next += 1
        return self._loader.batch(self._next - 1)

    def get_state(self) -> dict[str, int]:
        """Where the next batch begins, as a JSON value."""
        return {"step": self._next}

    def set_state(self, state: dict[str, int]) -> None:
        """Goes on from there."""
        self._next = int(state["step"])
