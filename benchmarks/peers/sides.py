"""The sides' processes: started, asked for steps in turns, and never passed over in silence."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import pathlib
import queue
import random
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Mapping, Sequence
from typing import Any, TextIO

ROOT = pathlib.Path(__file__).parent.parent.parent
TAIL_LINES = 20


class NotMeasuredError(Exception):
    """A side that gives no figures, and why."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Side:
    """One of those that are compared."""

    name: str
    module: str
    """Run as ``python -m module case.json``; ``worker`` is what it speaks."""
    python: str
    """Of the environment that its libraries are in; empty: none was given."""
    case: Mapping[str, Any]
    flag: str = ""
    """That names ``python`` on the command line."""


@dataclasses.dataclass
class Measured:
    """What one side said."""

    seconds: list[float] = dataclasses.field(default_factory=list)
    """Of a step: one figure a round, the mean of its steps."""
    cpu_seconds: list[float] = dataclasses.field(default_factory=list)
    """The same in time that the process computed: what other work on the machine does not lengthen."""
    losses: list[float] = dataclasses.field(default_factory=list)
    """From the first step on, warm-up included."""
    facts: dict[str, Any] = dataclasses.field(default_factory=dict)
    memory_bytes: int = 0
    memory: str = "process"
    reason: str = ""
    """Why there are no figures; empty where there are."""


class Process:
    """A side that runs: set up when ``__init__`` returns.

    Raises:
      NotMeasuredError: absent, dead, or silent for ``limit_seconds``; with what it said last.
    """

    def __init__(self, side: Side, *, limit_seconds: float) -> None:
        self._name, self._limit = side.name, limit_seconds
        self._directory = pathlib.Path(tempfile.mkdtemp(prefix="peers-"))
        self._process: subprocess.Popen[str] | None = None
        try:
            if not side.python:
                raise NotMeasuredError(f"no {side.flag} was given")
            if shutil.which(side.python) is None:
                raise NotMeasuredError(f"{side.flag} names no program that can be run")
            self._start(side)
            self.facts = self._read("ready")
        except BaseException:
            self.kill()
            raise

    def _start(self, side: Side) -> None:
        case = self._directory / "case.json"
        case.write_text(json.dumps(dict(side.case)))
        with (self._directory / "stderr").open("w") as errors:
            self._process = subprocess.Popen(
                [side.python, "-m", side.module, str(case)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=errors,
                text=True,
                cwd=ROOT,
                env={**os.environ, "PYTHONPATH": str(ROOT), "HF_HUB_OFFLINE": "1", **side.case.get("environment", {})},
            )
        self._answers: queue.SimpleQueue[str] = queue.SimpleQueue()
        assert self._process.stdout is not None
        threading.Thread(target=_forward, args=(self._process.stdout, self._answers), daemon=True).start()

    def step(self, count: int) -> list[dict[str, Any]]:
        """Takes so many steps and returns what was said of each."""
        self._write("step\n" * count)
        return [self._read("step") for _ in range(count)]

    def end(self) -> dict[str, Any]:
        """Ends it in good order; its last word."""
        self._write("end\n")
        return self._read("end")

    def kill(self) -> None:
        """Ends it in any case, and removes its files."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            for stream in (self._process.stdin, self._process.stdout):
                if stream is not None:
                    with contextlib.suppress(BrokenPipeError):  # it died with a word unread
                        stream.close()
        shutil.rmtree(self._directory, ignore_errors=True)

    def _write(self, words: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        try:
            self._process.stdin.write(words)
            self._process.stdin.flush()
        except BrokenPipeError:
            raise NotMeasuredError(self._died()) from None

    def _read(self, event: str) -> dict[str, Any]:
        try:
            line = self._answers.get(timeout=self._limit)
        except queue.Empty:
            raise NotMeasuredError(
                f"{self._name} said nothing for {self._limit:.0f} s where {event!r} was due\n{self._tail()}"
            ) from None
        if not line:
            raise NotMeasuredError(self._died())
        try:
            message: dict[str, Any] = json.loads(line)
        except json.JSONDecodeError:
            raise NotMeasuredError(f"{self._name} said {line[:200]!r}, which is not JSON") from None
        if message.get("event") == "absent":
            raise NotMeasuredError(str(message.get("reason")))
        if message.get("event") != event:
            raise NotMeasuredError(f"{self._name} said {line[:200]!r} where {event!r} was due")
        return message

    def _died(self) -> str:
        assert self._process is not None
        code = self._process.wait()
        return f"{self._name} ended with status {code}\n{self._tail()}"

    def _tail(self) -> str:
        lines = (self._directory / "stderr").read_text(errors="replace").splitlines()
        return "\n".join(lines[-TAIL_LINES:])


def _forward(stream: TextIO, lines: queue.SimpleQueue[str]) -> None:
    with contextlib.suppress(ValueError):  # closed while it was read: the process was killed
        for line in stream:
            lines.put(line)
    lines.put("")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rounds:
    """How often, and who is there at the same time."""

    rounds: int
    steps: int = 1
    """Of each side in a round."""
    warmups: int = 2
    """Steps before those that count."""
    together: bool = True
    """All sides stay loaded and take turns; else one at a time is started, measured and ended in every round, which a
    device's memory may need."""
    limit_seconds: float = 600.0
    """For one answer."""
    seed: int = 0
    """Of the order within a round."""


def measure_in_turns(sides: Sequence[Side], rounds: Rounds) -> dict[str, Measured]:
    """Steps of all sides, round by round, in an order of its own each.

    A side that fails in any round keeps its reason and loses its figures; the others go on.
    """
    found = {side.name: Measured() for side in sides}
    running: dict[str, Process] = {}
    shuffler = random.Random(rounds.seed)
    try:
        for number in range(rounds.rounds):
            for side in shuffler.sample(list(sides), len(sides)):
                one = found[side.name]
                if one.reason:
                    continue
                try:
                    _round(side, one, running, rounds, last=number == rounds.rounds - 1)
                except NotMeasuredError as error:
                    one.reason, one.seconds, one.cpu_seconds = str(error), [], []
                    if (process := running.pop(side.name, None)) is not None:
                        process.kill()
    finally:
        for process in running.values():
            process.kill()
    return found


def _round(side: Side, one: Measured, running: dict[str, Process], rounds: Rounds, *, last: bool) -> None:
    if side.name not in running:
        process = running[side.name] = Process(side, limit_seconds=rounds.limit_seconds)
        one.facts = process.facts
        first = process.step(rounds.warmups)
    else:
        process, first = running[side.name], []
    said = process.step(rounds.steps)
    if not one.losses:
        one.losses = [message["loss"] for message in first + said if message["loss"] is not None]
    one.seconds.append(sum(message["seconds"] for message in said) / rounds.steps)
    one.cpu_seconds.append(sum(message["cpu_seconds"] for message in said) / rounds.steps)
    if last or not rounds.together:
        final = process.end()
        one.memory, one.memory_bytes = final["memory"], max(one.memory_bytes, final["memory_bytes"])
        running.pop(side.name).kill()
