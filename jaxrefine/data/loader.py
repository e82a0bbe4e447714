"""The loader: groups shuffled anew each epoch, packed, and read by every process in its own share.

A grain pipeline of windows of group numbers, each planned into rows from lengths alone. All processes make the same
plan; each lays out only its own rows, so the batches do not depend on how many processes there are. The state is a
small JSON value, and going on from it gives the very batches that would have come.
"""

from __future__ import annotations

import copy
import functools
import logging
from collections.abc import Callable, Sequence
from typing import Any, Literal, Protocol, TypeVar, runtime_checkable

import grain
import numpy as np

from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import Refused, TokenGroup
from jaxrefine.data.layout import batch_from_groups
from jaxrefine.data.packing import reasons
from jaxrefine.data.shapes import PackingConfig, Size, plan_rows

_log = logging.getLogger(__name__)

_AS_NEEDED = grain.ReadOptions(num_threads=0, prefetch_buffer_size=0)
"""A window is planned when it is reached: a thread of the trainer's is ahead of it already."""

T_co = TypeVar("T_co", covariant=True)


@runtime_checkable
class Source(Protocol[T_co]):
    """Anything with a length and items by number: a list, an array_record source, groups tokenised when read."""

    def __len__(self) -> int:
        """Number of items."""

    def __getitem__(self, index: int, /) -> T_co:
        """Item ``index``."""


class Mapped:
    """A source whose items go through a function when they are read, as through ``tokenize_group``.

    >>> Mapped([1, 2, 3], lambda item, index: (index, 10 * item))[2]
    (2, 30)
    """

    def __init__(self, source: Source[Any], function: Callable[[Any, int], Any]) -> None:
        self._source, self._function = source, function

    def __len__(self) -> int:
        """Number of items."""
        return len(self._source)

    def __getitem__(self, index: int) -> Any:
        """The function of item ``index`` and its number."""
        return self._function(self._source[index], index)


class Loader:
    """Batches of a data set of groups, for this process.

    Args:
      groups: ``TokenGroup`` or ``Refused`` by number; read once at the start for their lengths.
      packing: the shape; ``packing.rows`` is the global batch.
      seed: of the order.
      epochs: None goes on for ever.
      shuffle: a new order each epoch; False keeps the order of windows and rows.
      last: what becomes of rows that fill no batch when the data ends: "drop" or "pad" with empty rows.
      window: groups planned into rows together.
      num_microbatches: A; a process reads its share of each microbatch, its rows in that order.
      process_index: this process.
      process_count: of so many; A times it divides ``packing.rows``.

    Raises:
      ValueError: rows that cannot be shared out, a data set of which nothing is left.

    >>> groups = [TokenGroup(i, (1, 5), ((6, 2),)) for i in range(4)]
    >>> loader = Loader(groups, PackingConfig(rows=2, slots=4, scored=2, groups=1, candidates=1), seed=0, epochs=1)
    >>> [batch.tokens.shape for batch in loader]
    [(2, 4), (2, 4)]
    """

    def __init__(
        self,
        groups: Source[TokenGroup | Refused],
        packing: PackingConfig,
        *,
        seed: int,
        epochs: int | None = None,
        shuffle: bool = True,
        last: Literal["drop", "pad"] = "pad",
        window: int = 4096,
        num_microbatches: int = 1,
        process_index: int = 0,
        process_count: int = 1,
    ) -> None:
        shares = num_microbatches * process_count
        if shares < 1 or packing.rows % shares:
            raise ValueError(
                f"packing.rows = {packing.rows} cannot be shared by {num_microbatches} microbatches × {process_count} "
                f"processes"
            )
        if not 0 <= process_index < process_count:
            raise ValueError(f"process_index = {process_index} is not among {process_count} processes")
        if last not in ("drop", "pad"):
            raise ValueError(f"last = {last!r}; allowed: drop, pad")
        if epochs is not None and epochs < 1:
            raise ValueError(f"epochs = {epochs} must be at least 1, or None for ever")
        self.packing = packing
        self.last = last
        self._groups = groups
        self._sizes, self.refused = _measure(groups, packing)
        if not self._sizes:
            raise ValueError(f"none of {len(groups)} groups is left: {reasons(self.refused)}")
        if self.refused:
            _log.warning("%d of %d groups are left out: %s", len(self.refused), len(groups), reasons(self.refused))
        rows = np.arange(packing.rows).reshape(num_microbatches, process_count, -1)
        self._share = rows[:, process_index].reshape(-1)
        kept = np.array(sorted(self._sizes))
        order = grain.MapDataset.source(kept).seed(seed)
        if shuffle:
            order = order.shuffle()
        self._window = min(window, len(kept))
        planned = order.batch(self._window).random_map(functools.partial(self._plan, shuffle))
        self._windows = planned.repeat(epochs)

    @property
    def num_groups(self) -> int:
        """Groups of an epoch: those not refused."""
        return len(self._sizes)

    def __iter__(self) -> LoaderIterator:
        """From the first batch on."""
        return LoaderIterator(self)

    def _plan(self, shuffle: bool, window: np.ndarray, rng: np.random.Generator) -> list[list[int]]:
        rows = [[int(window[i]) for i in row] for row in plan_rows([self._sizes[int(i)] for i in window], self.packing)]
        return [rows[i] for i in rng.permutation(len(rows))] if shuffle else rows

    def lay_out(self, rows: Sequence[Sequence[int]]) -> PackedBatch:
        """Lays out the share of this process of a global batch of rows of group numbers; missing rows are empty."""
        own = [rows[int(i)] if i < len(rows) else () for i in self._share]
        groups: list[list[TokenGroup]] = []
        for row in own:
            read = [self._groups[i] for i in row]
            groups.append([group for group in read if isinstance(group, TokenGroup)])
        return batch_from_groups(groups, self.packing, num_rows=len(own))

    def rows_per_epoch(self) -> int:
        """Rows that the first epoch takes; divided by ``packing.rows``, its batches."""
        return sum(len(self._windows[index]) for index in range(-(-self.num_groups // self._window)))


def _measure(groups: Source[Any], packing: PackingConfig) -> tuple[dict[int, Size], list[Refused]]:
    sizes, refused = {}, []
    for index in range(len(groups)):
        group = groups[index]
        reason = group.reason if isinstance(group, Refused) else packing.refusal(group)
        if reason is None:
            sizes[index] = packing.measure(group)
        else:
            refused.append(Refused(group.group_id, reason))
    return sizes, refused


class LoaderIterator:
    """Batches from some place on.

    State: the position among windows, rows carried over from windows before, and how far the current one is used.
    """

    any_num_processes = True
    """Rows are planned before they are shared out."""

    def __init__(self, loader: Loader) -> None:
        self._loader = loader
        self._windows = iter(loader._windows.to_iter_dataset(_AS_NEEDED))
        self._begin(self._windows.get_state(), [])

    def _begin(self, position: Any, carried: list[list[int]]) -> None:
        self._position, self._carried, self._used, self._rows = copy.deepcopy(position), carried, 0, list(carried)

    def __iter__(self) -> LoaderIterator:
        return self

    def __next__(self) -> PackedBatch:
        num = self._loader.packing.rows
        while len(self._rows) - self._used < num:
            left = self._rows[self._used :]
            position = self._windows.get_state()
            window = next(self._windows, None)
            if window is None:
                return self._final(left)
            self._begin(position, left)
            self._rows = left + window
        batch = self._loader.lay_out(self._rows[self._used : self._used + num])
        self._used += num
        return batch

    def _final(self, left: list[list[int]]) -> PackedBatch:
        if not left or self._loader.last == "drop":
            raise StopIteration
        self._used = len(self._rows)
        return self._loader.lay_out(left)

    def get_state(self) -> dict[str, Any]:
        """Where the next batch begins, as a JSON value."""
        return {"windows": self._position, "carried": copy.deepcopy(self._carried), "used": self._used}

    def set_state(self, state: dict[str, Any]) -> None:
        """Goes on from there."""
        self._windows.set_state(copy.deepcopy(state["windows"]))
        self._begin(state["windows"], [list(row) for row in state["carried"]])
        if state["used"]:
            self._rows += next(self._windows)
        self._used = int(state["used"])
