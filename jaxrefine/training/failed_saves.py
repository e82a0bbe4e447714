"""A save that fails is over when its failure is told: what Orbax leaves running behind one is brought to an end.

Orbax gives up at the first write that fails and closes its event loop while the others are under way. TensorStore then
prints a traceback for each of those, from threads of its own, and goes on writing into a directory that is being
removed. Here the loop is closed once all of its writes have ended, threads are waited for, and the tracebacks that
Orbax logs of errors that it also raises are left out: ``Checkpoints`` tells them in a line.
"""

from __future__ import annotations

import asyncio
import functools
import logging
import threading
from collections.abc import Callable, Coroutine
from typing import Any

try:
    from orbax.checkpoint._src import asyncio_utils
except ImportError:  # Orbax does not promise it; without it TensorStore's tracebacks are seen, and nothing is lost
    asyncio_utils = None


def closing_after_all_tasks(run_sync: Callable[[Coroutine[Any, Any, Any]], Any]) -> Callable[[Any], Any]:
    """``run_sync`` (which runs a coroutine in a loop of its own) such that no task outlives its loop.

    Args:
        run_sync: closes the loop as soon as the coroutine has ended, well or not.

    Returns:
        The same; when the coroutine raises, the tasks that it has begun end first, and what they raise is dropped.
    """

    async def with_all_tasks(coroutine: Coroutine[Any, Any, Any]) -> Any:
        try:
            return await coroutine
        except BaseException:
            others = asyncio.all_tasks() - {asyncio.current_task()}
            await asyncio.gather(*others, return_exceptions=True)
            raise

    @functools.wraps(run_sync)
    def run(coroutine: Coroutine[Any, Any, Any]) -> Any:
        return run_sync(with_all_tasks(coroutine))

    return run


def wait_for_threads() -> None:
    """Returns when no thread of Orbax is left: one that writes, one that removes what a failed save left."""
    for thread in threading.enumerate():
        if type(thread).__module__.startswith("orbax.") and thread is not threading.current_thread():
            threading.Thread.join(thread)  # Orbax's own join raises what the thread ended with


class _InOurWords(logging.Filter):
    """Drops the tracebacks that Orbax logs of errors that it also raises."""

    def filter(self, record: logging.LogRecord) -> bool:
        return not (record.exc_info and "orbax" in record.pathname)


logging.getLogger("absl").addFilter(_InOurWords())
if hasattr(asyncio_utils, "run_sync"):  # from 0.12.3 to 0.12.8 all that Orbax does in the background goes through it
    asyncio_utils.run_sync = closing_after_all_tasks(asyncio_utils.run_sync)
