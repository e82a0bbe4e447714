"""A polite end: SIGTERM and SIGINT are asked about between steps; and the end of the others when one process dies."""

from __future__ import annotations

import builtins
import os
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
    """While open, the first SIGTERM or SIGINT only sets a flag; a second one ends the process at once, by the signal.

    Nothing is corrupted by that: a checkpoint is there whole or not at all. (In a notebook a second interrupt is
    Python's own KeyboardInterrupt.) Signals reach the main thread only, so elsewhere nothing is caught. With several
    processes jax's own notice of preemption decides, at the same step in all of them: it hears SIGTERM in any one, and
    SIGINT is handed on to it as such; a second signal counts from when that step is reached.
    """

    def __init__(self) -> None:
        self._received: int | None = None
        self._previous: dict[int, object] = {}

    def __enter__(self) -> Interruption:
        if threading.current_thread() is threading.main_thread():
            # With several processes SIGTERM stays with jax, which has no way to get it handed on.
            caught = (signal.SIGTERM, signal.SIGINT) if jax.process_count() == 1 else (signal.SIGINT,)
            for number in caught:
                self._previous[number] = signal.signal(number, self._receive)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _receive(self, number: int, frame: FrameType | None) -> None:
        self._received = number
        self._act_at_once()
        if jax.process_count() > 1:
            os.kill(os.getpid(), signal.SIGTERM)

    def _act_at_once(self) -> None:
        """From now on: by the kernel, so that no call into a library, however long, is waited for."""
        for number, handler in self._previous.items():
            signal.signal(number, handler if hasattr(builtins, "__IPYTHON__") else signal.SIG_DFL)  # type: ignore[arg-type]

    def received(self, step: int) -> int | None:
        """The signal to stop for after ``step``, the same step in every process; or None."""
        if jax.process_count() == 1:
            return self._received
        if not multihost_utils.reached_preemption_sync_point(step):
            return None
        if self._previous:
            self._previous.setdefault(signal.SIGTERM, signal.SIG_DFL)
            self._act_at_once()
        return self._received or signal.SIGTERM.value
