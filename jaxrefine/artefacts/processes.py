"""The processes of one run: one on each host of a TPU pod or each GPU node, started by whatever starts things there.

JAX's own runtime finds them (Cloud TPU, Slurm, Open MPI, Kubernetes) and connects them; nothing here replaces it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import re
from collections.abc import Iterator

import jax
import numpy as np
from jax.experimental import multihost_utils

from jaxrefine.artefacts.stopping import StoppedError


@dataclasses.dataclass(frozen=True)
class Processes:
    """One process among those of its run."""

    index: int = 0
    count: int = 1

    @property
    def is_first(self) -> bool:
        """Whether it is the one that writes what all of them would write alike."""
        return self.index == 0

    def from_first(self, value: int) -> int:
        """The first process's value, in all of them; each must ask."""
        return value if self.count == 1 else int(multihost_utils.broadcast_one_to_all(np.int32(value)))

    def array_from_first(self, value: np.ndarray) -> np.ndarray:
        """The first process's array, in all of them; each must ask, with one of the same shape and type."""
        return value if self.count == 1 else np.asarray(multihost_utils.broadcast_one_to_all(value))

    @contextlib.contextmanager
    def together(self, what: str) -> Iterator[None]:
        """All processes go through the block, and wait for each other at its end; an error in one is one in all.

        Not for blocks in which they compute together: one that fails there leaves the others waiting for its part.

        Args:
            what: they do, for the others' error.

        Raises:
            OSError: another process failed; it says why.
        """
        failure: Exception | None = None
        try:
            yield
        except Exception as error:
            failure = error
        agree(failure, what)


def agree(failure: Exception | None, what: str) -> None:
    """Raises in every process what failed in one: all of them must call it.

    Args:
        failure: of this process.
        what: it failed to do, for the others.

    Raises:
        OSError: another process has a failure; this one's own is raised as it is.
    """
    if jax.process_count() > 1:
        failed = np.flatnonzero(multihost_utils.process_allgather(np.int32(failure is not None)))
        if failure is None and failed.size:
            raise OSError(f"process {', '.join(map(str, failed))} could not {what}; it says why")
    if failure is not None:
        raise failure


class LostProcessError(StoppedError):
    """What this process computes with the others failed on the way to them: one of them is gone."""


_ON_THE_WAY = re.compile(r"gloo|nccl|coordination service|unavailable", re.IGNORECASE)
"""In the errors of collective operations that lost their peer; seen with Gloo, said by NCCL and XLA's service."""


@contextlib.contextmanager
def naming_lost_processes() -> Iterator[None]:
    """Says what it means when an operation of several processes fails in the block because one of them died.

    JAX ends the others by itself once it misses that one's heartbeat; a collective operation may fail before.

    Raises:
        LostProcessError: instead of the error of such an operation; any other error is raised as it is.
    """
    try:
        yield
    except (RuntimeError, ValueError) as error:
        alone = jax.process_count() == 1
        if alone or isinstance(error, StoppedError) or not _ON_THE_WAY.search(str(error)):
            raise
        raise LostProcessError(
            f"process {jax.process_index()} of {jax.process_count()} has lost another one, which has probably died: "
            f"its output says why. Committed checkpoints are kept, the same command goes on ({str(error)[:300]})"
        ) from error


def start_processes(where: str = "auto", *, heartbeat_seconds: int = 100) -> Processes:
    """Connects this process with the others of its run, before anything else is asked of JAX.

    Args:
        where: "auto": ``jax.distributed.initialize()`` finds out by itself, from the metadata of a TPU pod, or from the
            variables of Slurm, Open MPI or (with the package ``kubernetes``) Kubernetes; or ``HOST:PORT,COUNT,INDEX``,
            its arguments: where the first process listens, how many there are, which one this is.
        heartbeat_seconds: a process that is not heard of for so long is taken for dead, and JAX ends the others.

    Raises:
        ValueError: neither of these, or nothing that JAX finds.

    >>> start_processes("head:1234,two,0")
    Traceback (most recent call last):
    ValueError: --distributed is 'head:1234,two,0'; allowed: auto, or HOST:PORT,COUNT,INDEX with 0 <= INDEX < COUNT
    """
    if where == "auto":
        try:
            jax.distributed.initialize(heartbeat_timeout_seconds=heartbeat_seconds)
        except (ValueError, RuntimeError) as error:
            raise ValueError(
                f"--distributed: JAX finds no run of several processes here ({error}); start it on a TPU pod, under "
                "Slurm (srun), Open MPI or Kubernetes, or give --distributed HOST:PORT,COUNT,INDEX"
            ) from error
    else:
        address, count, index = _parsed(where)
        jax.distributed.initialize(address, count, index, heartbeat_timeout_seconds=heartbeat_seconds)
    return Processes(jax.process_index(), jax.process_count())


def _parsed(where: str) -> tuple[str, int, int]:
    address, *numbers = where.split(",")
    host, colon, port = address.rpartition(":")
    good = len(numbers) == 2 and all(number.isdecimal() for number in (*numbers, port)) and host and colon
    if not good or int(numbers[1]) >= int(numbers[0]):
        raise ValueError(f"--distributed is {where!r}; allowed: auto, or HOST:PORT,COUNT,INDEX with 0 <= INDEX < COUNT")
    return address, int(numbers[0]), int(numbers[1])
