"""A pool of processes that compare answers with math-verify: each has a deadline and a memory limit, and may be killed.

A worker that does not answer in time, or dies, is replaced, and its pair is undecided. Workers are started by a plain
`subprocess` call on one file (never by fork: jax has threads), with an environment that holds no secrets.
"""

from __future__ import annotations

import atexit
import collections
import concurrent.futures
import dataclasses
import json
import logging
import os
import pathlib
import queue
import re
import select
import subprocess
import sys
import threading
import time
from collections.abc import Iterable
from types import TracebackType
from typing import Any

from jaxrefine.judging.equivalence import Verdict

MAX_LENGTH = 1_000
MAX_DIGITS = 60
MAX_DEPTH = 30
_WORKER = pathlib.Path(__file__).with_name("grading_worker.py")
_ENVIRONMENT = ("PATH", "PYTHONPATH", "PYTHONHOME", "LD_LIBRARY_PATH", "VIRTUAL_ENV", "LANG", "LC_ALL", "SYSTEMROOT")
_NEVER = re.compile(
    r"__|\b(?:import|lambda|eval|exec|compile|globals|getattr|open|system|class)\b|\\(?:input|write|include)"
)
_TALL = re.compile(r"!\s*[)}]*\s*!|\^[\s{(]*\d+[\s)}]*\^[\s{(]*\d+[\s)}]*\^")
_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PoolConfig:
    """How many processes, and what each may use for one pair of answers."""

    workers: int = 2
    """Processes; each holds about 100 MB once sympy is imported."""
    deadline_seconds: float = 5.0
    """Wall and CPU time of one pair."""
    memory_bytes: int = 512 << 20
    """Address space of a worker; what does not fit is undecided."""
    start_seconds: float = 120.0
    """How long a worker may take to import sympy: seconds on an idle machine."""
    renew_after: int = 5_000
    """Pairs after which a worker is replaced, because symbolic caches only grow."""

    def __post_init__(self) -> None:
        """Refuses what no pool can have."""
        for name in ("workers", "deadline_seconds", "memory_bytes", "start_seconds", "renew_after"):
            if getattr(self, name) <= 0:
                raise ValueError(f"{name} = {getattr(self, name)} must be positive")


def fits(text: str) -> bool:
    r"""Whether a text is small and tame enough to be handed to a parser at all.

    >>> fits(r"\int_0^1 x dx"), fits("9^{9^{9^9}}"), fits("__import__"), fits("(" * 100)
    (True, False, False, False)
    """
    if len(text) > MAX_LENGTH or _NEVER.search(text) or _TALL.search(text):
        return False
    if max((len(run) for run in re.findall(r"\d+", text)), default=0) > MAX_DIGITS:
        return False
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    return deepest <= MAX_DEPTH


class _Worker:
    """One process and the pipe to it."""

    def __init__(self, config: PoolConfig) -> None:
        self.config, self.pairs, self.ready = config, 0, False
        self._pending = b""
        environment = {name: os.environ[name] for name in _ENVIRONMENT if name in os.environ}
        self.process = subprocess.Popen(
            [sys.executable, "-P", str(_WORKER), str(config.memory_bytes), str(config.deadline_seconds)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**environment, "PYTHONHASHSEED": "0", "OPENBLAS_NUM_THREADS": "1", "OMP_NUM_THREADS": "1"},
            start_new_session=True,  # Ctrl-C is for the parent, which then ends its workers
            bufsize=0,
        )

    def _line(self, seconds: float) -> dict[str, Any] | None:
        """The next reply, or None where the deadline comes first or the process is gone."""
        assert self.process.stdout is not None
        end = time.monotonic() + seconds
        handle = self.process.stdout.fileno()
        waiting = select.poll()
        waiting.register(handle, select.POLLIN | select.POLLHUP)
        while b"\n" not in self._pending:
            left = end - time.monotonic()
            if left <= 0 or not waiting.poll(left * 1000):
                return None
            received = os.read(handle, 65536)
            if not received:
                return None
            self._pending += received
        line, _, self._pending = self._pending.partition(b"\n")
        return dict(json.loads(line))

    def wait_ready(self) -> None:
        """Waits for the imports.

        Raises:
            ImportError: where math-verify is not installed.
            RuntimeError: where the worker died or did not come up in time.
        """
        if self.ready:
            return
        said = self._line(self.config.start_seconds)
        if said is not None and "error" in said:
            raise ImportError(
                f"comparing answers symbolically needs math-verify ({said['error']}): pip install math-verify"
            )
        if said is None:
            raise RuntimeError(
                f"a grading worker did not start in start_seconds = {self.config.start_seconds} with memory_bytes = "
                f"{self.config.memory_bytes} (exit status {self.process.poll()})"
            )
        self.ready = True

    def ask(self, a: str, b: str) -> dict[str, Any] | None:
        """One pair's reply, or None where there was none in time."""
        assert self.process.stdin is not None
        self.pairs += 1
        try:
            self.process.stdin.write(json.dumps({"a": a, "b": b}).encode() + b"\n")
        except BrokenPipeError:
            return None
        return self._line(self.config.deadline_seconds)

    def end(self) -> None:
        """Kills the process and takes its exit status."""
        self.process.kill()
        self.process.wait()
        for stream in (self.process.stdin, self.process.stdout):
            if stream is not None:
                stream.close()


class GradingPool:
    r"""Compares pairs of answers in killable processes. Threads may share one; a forked child gets workers of its own.

    >>> with GradingPool(PoolConfig(workers=1)) as pool:
    ...     pool.compare(r"\int_0^1 2x \, dx", "1")
    'equal'
    """

    def __init__(self, config: PoolConfig | None = None) -> None:
        """Starts nothing: workers come up with the first pair.

        Args:
            config: sizes and limits.
        """
        self.config = config or PoolConfig()
        self._open()

    def _open(self) -> None:
        self._process = os.getpid()
        self._lock, self._starting = threading.Lock(), threading.Lock()
        self._closed = False
        self._slots: queue.Queue[_Worker | None] = queue.Queue()
        for _ in range(self.config.workers):
            self._slots.put(None)
        self._all: set[_Worker] = set()
        self._known: collections.OrderedDict[tuple[str, str], Verdict] = collections.OrderedDict()
        self.counts: collections.Counter[str] = collections.Counter()
        """Verdicts given by workers, pairs refused as too big, workers killed at the deadline and workers that died."""

    def __reduce__(self) -> tuple[type[GradingPool], tuple[PoolConfig]]:
        """Another process gets the settings, and its own workers."""
        return GradingPool, (self.config,)

    def __enter__(self) -> GradingPool:
        """The pool itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Ends all workers."""
        self.close()

    @property
    def alive(self) -> int:
        """Worker processes that are running now."""
        with self._lock:
            return sum(worker.process.poll() is None for worker in self._all)

    def start(self) -> None:
        """Brings all workers up now, instead of with the first pairs."""
        self._own()
        with self._starting:  # two that took half of the slots each would wait for ever
            taken = [self._slots.get() for _ in range(self.config.workers)]
            try:
                taken = [worker or self._new() for worker in taken]
                for worker in taken:
                    if worker is not None:
                        worker.wait_ready()
            finally:
                for worker in taken:
                    self._slots.put(worker)

    def compare(self, a: str, b: str) -> Verdict:
        r"""Whether two answers are equal, by math-verify in both orders.

        Args:
            a: an answer.
            b: another; the order does not matter.

        Returns:
            "equal", "different", or "undecided": not parsed, too big, out of time or memory.

        Raises:
            ImportError: where math-verify is not installed.
            RuntimeError: where no worker can be started, or the pool is closed.
        """
        a, b = sorted((a, b))
        if not (fits(a) and fits(b)):
            self._count("refused")
            return "undecided"
        self._own()
        with self._lock:
            if (known := self._known.get((a, b))) is not None:
                return known
        worker = self._slots.get()
        try:
            worker = worker or self._new()
            worker.wait_ready()
            verdict, worker = self._asked(worker, a, b)
        except (ImportError, RuntimeError):
            if worker is not None:
                self._drop(worker)
                worker = None
            raise
        finally:
            self._slots.put(worker)
        return verdict

    def compare_all(self, pairs: Iterable[tuple[str, str]]) -> list[Verdict]:
        """`compare` for many pairs, as many at once as there are workers, in the order given."""
        with concurrent.futures.ThreadPoolExecutor(self.config.workers) as threads:
            return list(threads.map(lambda pair: self.compare(*pair), pairs))

    def close(self) -> None:
        """Ends all workers; comparisons under way come out undecided."""
        if os.getpid() != self._process:
            return
        with self._lock:
            self._closed = True
            workers, self._all = self._all, set()
        for worker in workers:
            worker.end()

    def _own(self) -> None:
        if os.getpid() != self._process:  # forked: those workers and this lock are the parent's
            self._open()

    def _count(self, what: str) -> None:
        with self._lock:
            self.counts[what] += 1

    def _new(self) -> _Worker:
        with self._lock:
            if self._closed:
                raise RuntimeError("this pool is closed: make another, or compare inside its `with` block")
            worker = _Worker(self.config)
            self._all.add(worker)
        return worker

    def _drop(self, worker: _Worker) -> None:
        with self._lock:
            self._all.discard(worker)
        worker.end()

    def _asked(self, worker: _Worker, a: str, b: str) -> tuple[Verdict, _Worker]:
        """The verdict, and the worker for the next pair: a new one where this one was lost or has served long."""
        said = worker.ask(a, b)
        why = "" if said is None else said.get("why", "")
        verdict: Verdict = "undecided" if said is None else said["verdict"]
        self._count(verdict)
        if said is None:
            status = worker.process.poll()
            self._count("killed" if status is None else "died")
            _log.warning(
                "a grading worker %s over %.80r and %.80r",
                "took too long" if status is None else f"died ({status})",
                a,
                b,
            )
        elif not why:
            with self._lock:
                self._known[a, b] = verdict
                if len(self._known) > 20_000:
                    self._known.popitem(last=False)
        if said is None or why == "memory" or worker.pairs >= self.config.renew_after:
            self._drop(worker)
            worker = self._new()
        return verdict, worker


_SHARED: list[GradingPool] = []
_SHARED_LOCK = threading.Lock()


def shared() -> GradingPool:
    """The pool of this program, made when it is first asked for and ended with the program."""
    with _SHARED_LOCK:
        if not _SHARED:
            _SHARED.append(GradingPool())
            atexit.register(_SHARED[0].close)
        return _SHARED[0]
