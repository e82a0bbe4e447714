"""Batches read, stacked and put on the devices ahead of time, by a thread."""

from __future__ import annotations

import itertools
import queue
import threading
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrefine.data.batch import PackedBatch
from jaxrefine.sharding import batch_sharding, row_share
from jaxrefine.typing import Array, Int


def to_device(batch: PackedBatch, *, mesh: Mesh, num_microbatches: int = 1) -> PackedBatch:
    """Rows [B …] of this process as part of one global batch [A B/A …], split over the mesh.

    Args:
        batch: NumPy rows of this process (all rows, on one process).
        mesh: its ``data`` · ``fsdp`` must divide the rows of a microbatch.
        num_microbatches: A.
    """
    sharding = batch_sharding(mesh, leading=1)
    rows = batch.tokens.shape[0]
    shards = max(1, mesh.shape["data"] * mesh.shape["fsdp"])
    local = rows // num_microbatches if rows % num_microbatches == 0 else 0
    if not local or (local * row_share(mesh)[1]) % shards:
        raise ValueError(
            f"{rows} rows a batch (on each process) cannot be split into {num_microbatches} microbatches "
            f"over {shards} row shards (data × fsdp)"
        )

    def put(x: Any) -> jax.Array:
        stacked = np.asarray(x).reshape(num_microbatches, local, *x.shape[1:])
        if jax.process_count() == 1:
            return jax.device_put(stacked, sharding)
        return jax.make_array_from_process_local_data(sharding, stacked)

    return jax.tree.map(put, batch)


class Item(NamedTuple):
    """One batch, ready."""

    batch: PackedBatch
    """On the devices."""
    group_ids: Int[Array, "B G"]
    """Of this process's rows, still on the host."""
    position: Any
    """The loader's state after this batch: where a checkpoint goes on."""


def start_at(
    loader: Iterable[PackedBatch], position: Any, num_batches: int, *, saved_by: int | None = None
) -> Iterator[PackedBatch]:
    """The loader's iterator after ``num_batches`` batches.

    An iterator with ``set_state`` gets its saved ``position``; any other iterable is read up to there, and must give
    the same batches each time. An iterator whose batches do not depend on how many processes share them says so by
    ``any_num_processes = True``; with any other, a run goes on in as many processes as saved the position.

    Args:
        loader: of this process's rows.
        position: as it was saved, or None.
        num_batches: consumed before.
        saved_by: processes of the run that saved it; None where that is not known.

    Raises:
        ValueError: another number of processes, or fewer batches than were consumed.
    """
    iterator = iter(loader)
    if not num_batches:
        return iterator
    here = jax.process_count()
    if saved_by not in (None, here) and not getattr(iterator, "any_num_processes", False):
        raise ValueError(
            f"the checkpoint was saved by {saved_by} processes and this run has {here}: {type(iterator).__name__} does "
            "not say that its order is the same for any number (any_num_processes = True), so records would be skipped "
            f"or seen twice; run with {saved_by} processes"
        )
    if hasattr(iterator, "set_state") and position is not None:
        iterator.set_state(position)
        return iterator
    skipped = sum(1 for _ in itertools.islice(iterator, num_batches))
    if skipped < num_batches:
        raise ValueError(f"the run goes on after batch {num_batches}, but the loader has only {skipped}")
    return iterator


class Prefetch:
    """Up to ``depth`` batches ahead of the loop.

    Args:
        source: NumPy batches; ``get_state``, where it has one, is called after each.
        put: places one batch on the devices.
        depth: batches waiting at most.
        num_batches: so many are read, and not one more.
    """

    def __init__(
        self, source: Iterator[PackedBatch], put: Callable[[Any], Any], *, depth: int, num_batches: int
    ) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(source, put, num_batches), name="jaxrefine-prefetch", daemon=True
        )
        self._thread.start()

    def _offer(self, item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _work(self, source: Iterator[PackedBatch], put: Callable[[Any], Any], num_batches: int) -> None:
        get_state = getattr(source, "get_state", lambda: None)
        try:
            for _ in range(num_batches):
                batch = next(source, None)
                if batch is None:
                    break
                if not self._offer(Item(put(batch), np.asarray(batch.group_ids), get_state())):
                    return
            self._offer(None)
        except BaseException as error:
            self._offer(error)

    def next(self) -> Item | None:
        """The next batch; None when there are no more; what the loader raised is raised here."""
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stops the thread."""
        self._stopped.set()
        self._thread.join()
