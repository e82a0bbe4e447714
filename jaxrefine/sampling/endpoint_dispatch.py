"""Calls under way to an endpoint: so many at once, each within its deadline, none that the budget does not allow."""

from __future__ import annotations

import asyncio
import collections
import dataclasses
import functools
import random
import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from jaxrefine.sampling.endpoint_body import ACCEPTED, BrokenBodyError, RefusedBodyError, limited
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.endpoint_retries import AttemptError, Backoff, of_status
from jaxrefine.sampling.endpoint_wire import Answer, Call, Choice, MalformedError, UnsupportedError, parse_answer
from jaxrefine.sampling.redaction import Redactor, read_secret
from jaxrefine.sampling.responder import Failure, FailureKind, Reply
from jaxrefine.sampling.spending import BudgetSpentError, Ledger, Usage

Deliver = Callable[[str, Reply | Failure], None]
"""Takes a request's key and its result."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Clock:
    """Time, so that tests need not wait."""

    now: Callable[[], float] = time.time
    """Seconds since the epoch."""
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    """Waits between attempts."""


class _Slot:
    """A task's place among the requests under way, which it may give up for a while."""

    def __init__(self, free: asyncio.Semaphore):
        self._free, self._held = free, False

    async def take(self) -> None:
        await self._free.acquire()
        self._held = True

    def give(self) -> None:
        if self._held:
            self._held = False
            self._free.release()


class Dispatcher:
    """Answers calls in one event loop.

    Args:
      config: of the endpoint.
      ledger: where every attempt is reserved and settled.
      keep: called with a key and a result that was paid for, before its attempt is settled.
      clock: of waits and dates.
      seed: of the jitter.
    """

    def __init__(
        self,
        config: EndpointConfig,
        ledger: Ledger,
        keep: Deliver,
        *,
        clock: Clock,
        seed: int | None = None,
    ):
        self._config, self._ledger, self._keep, self._clock = config, ledger, keep, clock
        self._redacted = Redactor(read_secret(config.api_key_env))
        self._backoff = Backoff(
            first=config.first_backoff_seconds, longest=config.longest_backoff_seconds, generator=random.Random(seed)
        )
        self._halted: Failure | None = None
        self._not_before = 0.0

    # Requests that wait between attempts give their slot to others: at most so many tasks a slot.
    _TASKS_A_SLOT = 4

    async def run(self, calls: Sequence[Call], deliver: Deliver) -> None:
        """Answers all calls; results are delivered as they come.

        Cancelled, it gives up what is under way, which the ledger charges at its upper bound.
        """
        waiting = collections.deque(calls)
        self._halted, self._not_before = None, 0.0
        free = asyncio.Semaphore(self._config.concurrency)
        try:
            async with self._client() as client, asyncio.TaskGroup() as workers:
                for _ in range(min(self._TASKS_A_SLOT * self._config.concurrency, len(waiting))):
                    workers.create_task(self._work(client, _Slot(free), waiting, deliver))
        finally:
            self._ledger.settle_open()

    def _client(self) -> Any:
        import openai

        config = self._config
        return openai.AsyncOpenAI(
            api_key=read_secret(config.api_key_env) or "none",
            base_url=config.base_url,
            max_retries=0,  # the one policy is ours
            timeout=openai.Timeout(None, connect=config.connect_seconds),  # of the rest, asyncio
            # a redirect would carry prompts to a place that nobody named
            http_client=openai.DefaultAsyncHttpxClient(
                follow_redirects=False, headers=ACCEPTED, event_hooks={"response": [limited(config.reply_bytes)]}
            ),
        )

    async def _work(self, client: Any, slot: _Slot, waiting: collections.deque[Call], deliver: Deliver) -> None:
        while True:
            await slot.take()
            try:
                if not waiting:
                    return
                call = waiting.popleft()
                results = await self._results(client, slot, call)
                for key, result in results.items():
                    deliver(key, result)
                if left := tuple(key for key in call.keys if key not in results):
                    waiting.appendleft(dataclasses.replace(call, keys=left))
            finally:
                slot.give()

    async def _results(self, client: Any, slot: _Slot, call: Call) -> dict[str, Reply | Failure]:
        """Results of some of the call's keys, at least one."""
        attempts = 0
        roomy = False  # the first wait for the budget is none of the deadline's

        async def attempt() -> dict[str, Reply | Failure]:
            nonlocal attempts, roomy
            if not roomy and self._halted is None:
                await self._ledger.room(call.bound())
            roomy = False
            if self._halted is not None:
                raise AttemptError(self._halted.kind, self._halted.reason, again=False)
            attempts += 1
            return await self._attempt(client, call, self._ledger.send(call.keys[0], call.bound()), attempts)

        def failed(kind: FailureKind, reason: str, *, halts: bool = False) -> dict[str, Reply | Failure]:
            failure = Failure(kind=kind, reason=self._redacted(reason), attempts=attempts)
            if halts and self._halted is None:
                self._halted = dataclasses.replace(failure, attempts=0)
            return dict.fromkeys(call.keys, failure)

        deadline = self._config.deadline_seconds
        try:
            if (early := self._not_before - time.monotonic()) > 0 and self._halted is None:
                await self._sleep(slot, early)
            if self._halted is None:
                await self._ledger.room(call.bound())
                roomy = True
            async with asyncio.timeout(deadline):
                return await self._retrying(slot)(attempt)
        except BudgetSpentError as spent:
            return failed("budget", str(spent), halts=True)
        except TimeoutError:
            return failed("deadline", f"no reply within {deadline:g} s")
        except AttemptError as error:
            if error.again and attempts < self._config.max_attempts:
                asked = error.retry_after_seconds
                wish = "" if asked is None else f"; the server asks to wait {asked:g} s"
                return failed("deadline", f"no time for another attempt within {deadline:g} s{wish}: {error.reason}")
            return failed(error.kind, error.reason, halts=error.halts)

    async def _sleep(self, slot: _Slot, seconds: float) -> None:
        slot.give()
        await self._clock.sleep(seconds)
        await slot.take()

    def _retrying(self, slot: _Slot) -> Any:
        import tenacity

        return tenacity.AsyncRetrying(
            sleep=functools.partial(self._sleep, slot),
            wait=self._backoff,
            retry=tenacity.retry_if_exception(lambda error: isinstance(error, AttemptError) and error.again),
            stop=tenacity.stop_any(
                tenacity.stop_after_attempt(self._config.max_attempts),
                tenacity.stop_before_delay(self._config.deadline_seconds),
            ),
            reraise=True,
        )

    async def _attempt(self, client: Any, call: Call, number: int, count: int) -> dict[str, Reply | Failure]:
        """One request, settled in the ledger whatever comes back."""
        try:
            answer = parse_answer(call, await self._post(client, call))
        except (AttemptError, MalformedError) as error:
            failure = _attempt_error(error)
            self._ledger.settle(number, reported=failure.usage, billed=failure.billed)
            asked = failure.retry_after_seconds
            if asked is not None and asked < self._config.deadline_seconds:  # it asks everybody to wait
                self._not_before = max(self._not_before, time.monotonic() + asked)
            raise failure from None
        except BaseException:
            self._ledger.settle(number)
            raise
        results = self._kept(call, answer, count)
        self._ledger.settle(number, reported=answer.usage)
        return results

    def _kept(self, call: Call, answer: Answer, count: int) -> dict[str, Reply | Failure]:
        usage = answer.usage
        charged = call.bound() if usage is None else usage
        known = Usage(0, 0) if usage is None else usage
        cost = self._config.prices().cost(charged) / len(answer.choices)
        prompt_shares = _shares(known.prompt_tokens, len(answer.choices))
        reply_shares = _shares(known.reply_tokens, len(answer.choices))
        results: dict[str, Reply | Failure] = {}
        for share, (index, choice) in enumerate(sorted(answer.choices.items())):
            result = _result(
                self._redacted,
                choice,
                usage=Usage(prompt_shares[share], reply_shares[share]),
                cost=cost,
                model=answer.model,
                attempts=count,
            )
            results[call.keys[index]] = result
            self._keep(call.keys[index], result)
        return results

    async def _post(self, client: Any, call: Call) -> bytes:
        """The body of a reply with status 200; everything else is an ``AttemptError``."""
        import openai

        rest = dict(call.body)
        rest |= {"n": len(call.keys)} if len(call.keys) > 1 else {}
        try:
            async with asyncio.timeout(self._config.attempt_seconds):
                if call.kind == "chat":
                    create, asked = client.chat.completions, {"messages": rest.pop("messages")}
                else:
                    create, asked = client.completions, {"prompt": rest.pop("prompt")}
                response = await create.with_raw_response.create(model=self._config.model, **asked, extra_body=rest)
                return response.content
        except openai.APIStatusError as error:
            body = self._redacted(error.response.text)
            raise of_status(error.status_code, error.response.headers, body, now=self._clock.now()) from None
        except openai.APITimeoutError:
            reason = f"no connection within {self._config.connect_seconds:g} s"
            raise AttemptError("unavailable", reason, again=True) from None
        except RefusedBodyError as error:
            raise _refused(error) from None
        except openai.APIConnectionError as error:
            if isinstance(error.__cause__, RefusedBodyError):
                raise _refused(error.__cause__) from None
            # a connection that never stood cost nothing; one that was cut may have
            cause = type(error.__cause__).__name__
            stood = cause != "ConnectError"
            reason = "the connection was cut" if stood else "no connection"
            raise AttemptError("unavailable", f"{reason} ({cause})", again=True, billed=stood) from None
        except TimeoutError:
            reason = f"no reply within {self._config.attempt_seconds:g} s"
            raise AttemptError("deadline", reason, again=True, billed=True) from None


def _refused(error: RefusedBodyError) -> AttemptError:
    """What was refused while it came in was paid for; where it is too long, it would be so again."""
    return AttemptError("invalid", str(error), again=isinstance(error, BrokenBodyError), billed=True)


def _attempt_error(error: AttemptError | MalformedError) -> AttemptError:
    if isinstance(error, AttemptError):
        return error
    final = isinstance(error, UnsupportedError)
    return AttemptError("invalid", error.reason, again=not final, halts=final, billed=True, usage=error.usage)


def _result(
    redacted: Redactor, choice: Choice, *, usage: Usage, cost: float, model: str, attempts: int
) -> Reply | Failure:
    if choice.declined:
        return Failure(kind=choice.kind, reason=redacted(choice.declined), attempts=attempts)
    return Reply(
        text=redacted(choice.text),
        finished=choice.finished,
        tokens=redacted(choice.tokens),
        logprobs=choice.logprobs,
        prompt_tokens=usage.prompt_tokens,
        reply_tokens=usage.reply_tokens,
        cost=cost,
        model=redacted(model),
    )


def _shares(total: int, parts: int) -> list[int]:
    """A number in equal parts, the first ones larger by one where it does not divide."""
    return [total // parts + (part < total % parts) for part in range(parts)]
