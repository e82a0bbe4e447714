"""A side's half of the protocol: standard library only, since it runs in every peer's own environment.

To the side, one word a line: ``step`` (take one) or ``end``. From the side, one JSON object a line::

    {"event": "ready", "versions": {…}, "device": …, …}     set up, before the first step
    {"event": "step", "seconds": …, "cpu_seconds": …, "loss": …}     after each step
    {"event": "end", "memory_bytes": …, "memory": …}        the last word
    {"event": "absent", "reason": …}                        a library that it needs is not installed

What libraries print goes to stderr. A side that dies says why there.
"""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import platform
import resource
import sys
import time
from collections.abc import Callable
from importlib import metadata
from typing import Any, TextIO

Case = dict[str, Any]
"""What ``sides.Side`` wrote: paths of model and tokens, sizes, dtype, optimiser; and ``scratch``, a directory that goes
when the side ends."""


class Ended(Exception):  # noqa: N818 - not an error: nothing more is asked for
    """Raised where the next step would begin, through whatever trainer's loop is around."""


class Turns:
    """Steps taken one at a time, whenever they are asked for.

    Args:
      commands: words, one a line.
      answers: where JSON goes.
    """

    def __init__(self, commands: TextIO, answers: TextIO) -> None:
        self._commands, self._answers = commands, answers
        self._start, self._cpu_start = 0.0, 0.0
        self._imported = 0
        self._device_memory: Callable[[], int] | None = None

    def imported(self) -> None:
        """Marks the moment at which libraries are there and the model is not: what the process holds by itself."""
        self._imported = resident_bytes()

    def ready(self, *, device: str, distributions: tuple[str, ...], **facts: Any) -> None:
        """Says that the first step can be taken."""
        versions = {"python": platform.python_version()}
        for name in distributions:
            versions[name] = metadata.version(name)
        self._say(event="ready", device=device, versions=versions, imported_bytes=self._imported, **facts)

    def on_device(self, peak_bytes: Callable[[], int]) -> None:
        """Names what to report as memory where there is a device: its own peak. Else it is the process's."""
        self._device_memory = peak_bytes

    def begin(self) -> None:
        """Waits to be asked, and starts the clock.

        Raises:
          Ended: nothing more is asked for.
        """
        if self._commands.readline().strip() != "step":
            raise Ended
        self._start, self._cpu_start = time.perf_counter(), time.process_time()

    def end(self, loss: float | None = None, **facts: Any) -> None:
        """Stops the clocks; the caller has waited for the device."""
        seconds, cpu_seconds = time.perf_counter() - self._start, time.process_time() - self._cpu_start
        self._say(event="step", seconds=seconds, cpu_seconds=cpu_seconds, loss=loss, **facts)

    def close(self) -> None:
        """The last word."""
        if self._device_memory is not None:
            self._say(event="end", memory="device", memory_bytes=self._device_memory())
        else:
            self._say(event="end", memory="process", memory_bytes=resident_bytes())

    def absent(self, reason: str) -> None:
        """Says that this side cannot be measured here, and why."""
        self._say(event="absent", reason=reason)

    def _say(self, **message: Any) -> None:
        print(json.dumps(message), file=self._answers, flush=True)


def resident_bytes() -> int:
    """The most memory that this process has held at once."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else 1024 * peak


def tokens_of(case: Case) -> tuple[list[list[int]], list[list[list[int]]]]:
    """Prompts [G][P] and their first N responses [G][N][R]."""
    found = json.loads(pathlib.Path(case["tokens"]).read_text())
    groups, N = case["groups"], case["candidates"]
    return found["prompts"][:groups], [responses[:N] for responses in found["responses"][:groups]]


def serve(main: Callable[[Case, Turns], None], *needs: str) -> None:
    """Runs one side to its end: ``main`` sets up, says ``ready`` and takes steps until ``Ended``.

    Args:
      main: of the side.
      needs: modules without which it is absent.
    """
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what libraries print must not come between the lines
    turns = Turns(sys.stdin, answers)
    path = pathlib.Path(sys.argv[1])
    case = json.loads(path.read_text())
    case["scratch"] = str(path.parent / "scratch")
    needed = (*needs, *case.get("needs", ()))
    if missing := [name for name in needed if importlib.util.find_spec(name) is None]:
        turns.absent(f"{', '.join(missing)} not installed in its environment")
        return
    if (cores := case.get("cores")) is not None:  # before any library counts them
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:cores])
        os.environ["OMP_NUM_THREADS"] = str(cores)
    try:
        main(case, turns)
    except Ended:
        turns.close()
