"""A polite end: SIGTERM and SIGINT are asked about between steps."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

import jax
from jax.experimental import multihost_utils


class Interrupted(SystemExit):
    """Raised after the checkpoint is committed; unhandled, the process exits with 128 + signal (SIGTERM: 143)."""

    def __init__(self, signal_number: int, step: int) -> None:
        super().__init__(128 + signal_number)
        self.signal_number, self.step = signal_number, step

    def __str__(self) -> str:
        return f"stopped by {signal.Signals(self.signal_number).name} after step {self.step}; run again to go on"


class Interruption:
    """While open, the first SIGTERM or SIGINT only sets a flag; a second one acts at once.

    Signals reach the main thread only, so elsewhere nothing is caught. With several processes, jax's own notice of
    preemption decides, at the same step in all of them (it hears SIGTERM; SIGINT acts at once).
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread() and jax.process_count() == 1:
            for number in (signal.SIGTERM, signal.SIGINT):
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        for caught, handler in self._previous.items():
            signal.signal(caught, handler)  # type: ignore[arg-type]

    def received(self, step: int) -> int | None:
        """The signal to stop for after ``step``, the same in every process; or None."""
        if jax.process_count() > 1:
            return signal.SIGTERM.value if multihost_utils.reached_preemption_sync_point(step) else None
        return self._received
