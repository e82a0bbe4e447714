"""Teachers and judges behind an OpenAI-compatible endpoint: nothing paid twice, nothing lost when killed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import pathlib
import queue
import threading
import warnings
import weakref
from collections.abc import Callable, Generator, Iterator, Sequence

from rich.console import Console

from jaxrefine.artefacts.progress import progress
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.endpoint_dispatch import Clock, Dispatcher
from jaxrefine.sampling.endpoint_wire import Call, cache_key, make_calls
from jaxrefine.sampling.request_cache import ReplyCache
from jaxrefine.sampling.responder import Continuation, Failure, Reply, Request
from jaxrefine.sampling.spending import Ledger, Spending

try:
    import fcntl
except ImportError:  # Windows: two processes in one directory go unnoticed there
    fcntl = None  # type: ignore[assignment]

Done = Callable[[int, Reply | Failure], None]
_Result = tuple[str, Reply | Failure]

_CANCEL_SECONDS = 2.0
_POLL_SECONDS = 0.5  # how soon Ctrl-C is noticed where waiting cannot be interrupted


class Endpoint:
    """Answers requests, and scores given texts, through an OpenAI-compatible server (a ``Responder`` and a ``Scorer``).

    Two files in ``workdir`` hold all that happened: ``replies.jsonl``, every reply by the content of its request, and
    ``ledger.jsonl``, every attempt with what it took. Both are appended line by line, so a process that is killed at
    any instant loses at most the requests under way; the same call goes on. Equal requests are one request: ask for
    several samples with several seeds. Failures are not kept, except those that were paid for and would come again (the
    model declined).

    A budget is checked before each attempt against the attempt's upper bound; when it is spent, what is under way is
    waited for and every request left is a ``Failure`` of kind "budget".

    Needs the extra ``jaxrefine[endpoint]``.

    Args:
      config: of the endpoint.
      workdir: made when absent; one process at a time.
      console: where progress goes; default stderr.
      quiet: show no progress.
      clock: of waits between attempts; for tests.

    Raises:
      ValueError: the variable that holds the key is not set, or another process is at work in ``workdir``.
      ModuleNotFoundError: the extra is not installed.

    >>> import tempfile
    >>> config = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="small", token_budget=0)
    >>> with Endpoint(config, tempfile.mkdtemp(), quiet=True) as endpoint:
    ...     [failure] = endpoint.respond([Request(prompt="2 + 2 =", max_tokens=4)])
    >>> failure.kind, failure.attempts
    ('budget', 0)
    """

    def __init__(
        self,
        config: EndpointConfig,
        workdir: str | os.PathLike[str],
        *,
        console: Console | None = None,
        quiet: bool = False,
        clock: Clock | None = None,
    ):
        _check_extra()
        self.config, self.workdir = config, pathlib.Path(workdir)
        self.name, self.version = config.model, f"{config.base_url} {config.digest()[:12]}"
        self._console, self._quiet = console, quiet
        self._unexpected: set[str] = set()
        self._one_at_a_time = threading.Lock()
        self._asking: int | None = None
        self.workdir.mkdir(parents=True, exist_ok=True)
        with contextlib.ExitStack() as opened:
            opened.enter_context(_locked(self.workdir))
            self._cache = ReplyCache(self.workdir / "replies.jsonl")
            opened.callback(self._cache.close)
            self._ledger = Ledger(
                self.workdir / "ledger.jsonl",
                prices=config.prices(),
                token_budget=config.token_budget,
                cost_budget=config.cost_budget,
            )
            opened.callback(self._ledger.close)
            self._dispatcher = Dispatcher(config, self._ledger, self._cache.put, clock=clock or Clock())
            self._close = weakref.finalize(self, opened.pop_all().close)

    @property
    def spending(self) -> Spending:
        """All that was paid in this work directory, over all runs."""
        return self._ledger.spending

    def respond(self, requests: Sequence[Request], *, done: Done | None = None) -> list[Reply | Failure]:
        """Answers every request, in the order given; what was answered before is not asked again.

        Works where an event loop is running (notebooks): the requests are under way in a thread of their own.

        Args:
          requests: what is asked.
          done: called from this thread with the index and result of each request as soon as it is there; it cannot
            ask the same endpoint again.

        Raises:
          KeyboardInterrupt: Ctrl-C; replies that are there are kept, what is under way is given up.
        """
        return self._ask(requests, done)

    def score(self, continuations: Sequence[Continuation], *, done: Done | None = None) -> list[Reply | Failure]:
        """Log-probabilities of given texts, by the server echoing them (``/completions`` with ``echo``).

        One token more is generated and thrown away, since not every server takes ``max_tokens`` = 0. Servers that do
        not echo are noticed: every failure says so.

        Args:
          continuations: what is scored.
          done: as in ``respond``.

        Returns:
          Replies whose ``text`` is the continuation's, with ``tokens`` and ``logprobs`` of all of it.
        """
        return self._ask(continuations, done)

    def close(self) -> None:
        """Closes the files and lets another process into the work directory."""
        self._close()

    def __enter__(self) -> Endpoint:
        """The endpoint itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Closes it."""
        self.close()

    def __repr__(self) -> str:
        """Name and address; the key is no part of it."""
        return f"Endpoint({self.name!r} at {self.config.base_url}, {self.workdir})"

    def _ask(self, asked: Sequence[Request | Continuation], done: Done | None) -> list[Reply | Failure]:
        if self._asking == threading.get_ident():
            raise RuntimeError("done() asks the endpoint that called it; gather what to ask, and ask when it is back")
        with self._one_at_a_time, self._in_this_thread():
            if not self._close.alive:
                raise ValueError(f"{self!r} is closed")
            places: dict[str, list[int]] = {}
            for index, one in enumerate(asked):
                places.setdefault(cache_key(one, self.config), []).append(index)
            results: dict[int, Reply | Failure] = {}

            def take(key: str, result: Reply | Failure) -> None:
                for index in places[key]:
                    results[index] = result
                    if done is not None:
                        done(index, result)

            left = {key: asked[indices[0]] for key, indices in places.items() if self._cache.get(key) is None}
            for key in places:
                if (kept := self._cache.get(key)) is not None:
                    take(key, kept)
            if left:
                calls = make_calls(list(left.values()), list(left), self.config)
                self._show(calls, len(places) - len(left), take)
            return [results[index] for index in range(len(asked))]

    @contextlib.contextmanager
    def _in_this_thread(self) -> Iterator[None]:
        self._asking = threading.get_ident()
        try:
            yield
        finally:
            self._asking = None

    def _show(self, calls: list[Call], num_kept: int, take: Callable[[str, Reply | Failure], None]) -> None:
        """Runs the calls with a bar: requests, rate, time left, dollars so far, failures."""
        total = num_kept + sum(len(call.keys) for call in calls)
        bar = progress(total, f"asking {self.name}", initial=num_kept, unit="requests", console=self._console)
        failures = 0
        with contextlib.nullcontext() if self._quiet else bar, contextlib.closing(self._stream(calls)) as stream:
            for key, result in stream:
                if isinstance(result, Reply):
                    self._check_model(result.model)
                failures += isinstance(result, Failure)
                if not self._quiet:
                    bar.advance(1, cost=f"${self.spending.cost:.4f}", tokens=self.spending.tokens, failures=failures)
                take(key, result)
        self._cache.sync()
        self._ledger.sync()

    def _stream(self, calls: list[Call]) -> Generator[_Result, None, None]:
        """Results as they come from a loop in a thread; closing the iterator gives up what is under way."""
        results: queue.SimpleQueue[_Result | BaseException | None] = queue.SimpleQueue()
        running: list[tuple[asyncio.AbstractEventLoop, asyncio.Task[None]]] = []
        given_up = threading.Event()

        async def work() -> None:
            task = asyncio.current_task()
            assert task is not None
            running.append((asyncio.get_running_loop(), task))
            if not given_up.is_set():
                await self._dispatcher.run(calls, lambda key, result: results.put((key, result)))

        def in_thread() -> None:
            try:
                asyncio.run(work())
                results.put(None)
            except BaseException as error:
                results.put(error)

        thread = threading.Thread(target=in_thread, name=f"{self.name} endpoint", daemon=True)
        thread.start()
        try:
            while (result := _next(results)) is not None:
                if isinstance(result, BaseException):
                    raise _single(result)
                yield result
        finally:
            given_up.set()
            while thread.is_alive():
                for loop, task in running:
                    with contextlib.suppress(RuntimeError):  # the loop has ended by itself
                        loop.call_soon_threadsafe(task.cancel)
                thread.join(_CANCEL_SECONDS)  # a library may swallow one cancellation: it is told again

    def _check_model(self, model: str) -> None:
        if model and not model.startswith(self.config.model) and model not in self._unexpected:
            self._unexpected.add(model)
            warnings.warn(f"{self.config.base_url} was asked for {self.name!r} and answers as {model!r}", stacklevel=2)


def _next(results: queue.SimpleQueue[_Result | BaseException | None]) -> _Result | BaseException | None:
    while True:
        with contextlib.suppress(queue.Empty):
            return results.get(timeout=_POLL_SECONDS)


def _single(error: BaseException) -> BaseException:
    """The one exception in a group of one."""
    while isinstance(error, BaseExceptionGroup) and len(error.exceptions) == 1:
        [error] = error.exceptions
    return error


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    with open(workdir / ".lock", "w") as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise ValueError(f"another endpoint is at work in {workdir}; give each its own directory") from error
        yield


def _check_extra() -> None:
    try:
        import openai
        import tenacity
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"{error.name} is not installed: pip install 'jaxrefine[endpoint]'") from error
    del openai, tenacity
