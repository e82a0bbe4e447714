"""Model directories written by several processes: each writes some of the files, none gathers the model.

Files go to the processes in turns. The devices gather one layer of one parameter at a time, the process whose file it
belongs to takes it to its host, and a thread of it casts and writes while the devices gather the next ones for others.
A host holds at most three such tensors beside its share of the parameters. The directory must be on a file system that
all processes share, as checkpoints must be; which bytes it holds does not depend on the number of processes.
"""

from __future__ import annotations

import contextlib
import itertools
import pathlib
import queue
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import TracebackType
from typing import Any

import jax
import numpy as np
from jax.typing import DTypeLike

from jaxrefine.artefacts.atomic import new_directory, unfinished_of
from jaxrefine.artefacts.processes import agree
from jaxrefine.conversion.exporting import Outgoing, fetched, finished
from jaxrefine.conversion.safetensors_files import Layout, write_safetensors


@contextlib.contextmanager
def shared_directory(directory: pathlib.Path) -> Iterator[pathlib.Path]:
    """``new_directory`` for all processes at once: an error in one of them is one in all, and nothing is left.

    Args:
      directory: its name; the first process makes it, the others put files into what it is before it has its name.

    Raises:
      OSError: another process failed; it says why.
      FileNotFoundError: the directory is not on a file system that this process shares.
    """
    if jax.process_count() == 1:
        with new_directory(directory) as unfinished:
            yield unfinished
        return
    unfinished = unfinished_of(directory)
    failure: Exception | None = None
    try:
        with contextlib.ExitStack() as stack:
            try:
                if jax.process_index() == 0:
                    stack.enter_context(new_directory(directory))
            except OSError as error:
                failure = error
            agree(failure, f"make {unfinished}")
            if not unfinished.is_dir():
                failure = FileNotFoundError(
                    f"{directory}: process {jax.process_index()} does not see what process 0 made there; it must be on "
                    "a file system that all of them share"
                )
            agree(failure, f"see {unfinished}")
            try:
                yield unfinished
            except Exception as error:
                failure = error
            agree(failure, f"write its part of {directory}")
    except Exception as error:
        failure = error
    agree(failure, f"finish {directory}")


def write_together(
    directory: pathlib.Path,
    files: Sequence[tuple[str, Layout]],
    tensors: Sequence[Outgoing],
    leaves: Mapping[str, Any],
    dtype: DTypeLike | None,
) -> None:
    """Writes planned files, each process every so many-th; all processes must call it with the same plan.

    Args:
      directory: to put them into.
      files: (name, layout).
      tensors: what the files hold.
      leaves: our parameters by path, on the devices of all processes.
      dtype: of the stored weights; None keeps that of the parameters.

    Raises:
      ValueError: a value that the dtype cannot hold; names the tensor.
      OSError: the disk is full, or another process failed.
    """
    me, count = jax.process_index(), jax.process_count()
    by_process = [files[index::count] for index in range(count)]
    turns = [[name for _, layout in own for name in layout] for own in by_process]
    owners = {name: index for index, names in enumerate(turns) for name in names}
    sources = {name: (one, place) for one in tensors for name, place in one.places(leaves)}
    with _Writer(directory, by_process[me], dtype) as writer:
        for name in (name for turn in itertools.zip_longest(*turns) for name in turn if name is not None):
            one, place = sources[name]
            keep = owners[name] == me
            values = {rule.ours: fetched(leaves[rule.ours], place, keep=keep) for rule in one.rules}
            if keep:
                writer.put(name, one, values)
    agree(writer.failure, "write its files")


class _Writer:
    """A thread that writes the tensors that it is given, in the order of its files."""

    def __init__(self, directory: pathlib.Path, files: Sequence[tuple[str, Layout]], dtype: DTypeLike | None) -> None:
        self.failure: Exception | None = None
        self._queue: queue.Queue[Any] = queue.Queue(1)
        self._thread = threading.Thread(target=self._work, args=(directory, files, dtype), name="jaxrefine-write")

    def __enter__(self) -> _Writer:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._queue.put(None)
        self._thread.join()

    def put(self, name: str, one: Outgoing, values: Mapping[str, Any]) -> None:
        """The next tensor; waits while the one before the last is being written."""
        self._queue.put((name, one, values))

    def _work(self, directory: pathlib.Path, files: Sequence[tuple[str, Layout]], dtype: DTypeLike | None) -> None:
        def tensors() -> Iterator[tuple[str, np.ndarray]]:
            while (item := self._queue.get()) is not None:
                name, one, values = item
                yield name, finished(one, values, dtype, name)

        given = tensors()
        try:
            for file, layout in files:
                write_safetensors(directory / file, layout, given)
        except Exception as error:
            self.failure = error
            while self._queue.get() is not None:  # the others still gather what belongs here
                pass
        else:
            for name, _ in given:
                self.failure = AssertionError(f"tensor {name!r} is in no file")
