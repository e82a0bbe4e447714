"""Faults of endpoints: whatever a server does, each request ends by its deadline, classified, and paid for once."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
import socket
import time
import warnings
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np

from benchmarks.faults.trial import Fault, Outcome
from jaxrefine.data.examples import Candidates
from jaxrefine.judging.pairwise import PairwiseJudge
from jaxrefine.judging.provenance import Unjudged
from jaxrefine.judging.verdicts import GenerativeAsker
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.responder import Failure, Message, Reply, Request
from jaxrefine.sampling.spending import Spending
from tests.sampling.fault_server import FaultServer, reply

MAX_TOKENS = 8
HANG_SECONDS = 30.0
"""A request that is over its deadline by this much has not ended by it, however busy the machine is."""
Draw = np.random.Generator


def config_of(url: str, **options: Any) -> EndpointConfig:
    """Of a server at this address; a request is tried up to three times, without waiting in between."""
    chosen = {"base_url": url, "model": "m", "first_backoff_seconds": 0.0, "max_attempts": 3} | options
    return EndpointConfig(**chosen)


def _chats(texts: Sequence[str], seeds: Sequence[int | None] = (None,)) -> list[Request]:
    return [
        Request(messages=(Message("user", text),), max_tokens=MAX_TOKENS, seed=seed) for text in texts for seed in seeds
    ]


Class = Literal["retry", "fail fast", "stop all", "record"]


@dataclasses.dataclass(frozen=True)
class _Case:
    fault: str
    class_: Class
    kind: str
    """Of the failure, where it stays."""
    said: str
    options: dict[str, Any] = dataclasses.field(default_factory=dict)


CASES: tuple[_Case, ...] = (
    _Case("429", "retry", "unavailable", "HTTP 429"),
    _Case("429 after=0", "retry", "unavailable", "HTTP 429"),
    _Case("429 after=300", "fail fast", "deadline", "the server asks to wait 300 s", {"deadline_seconds": 60.0}),
    _Case("429 insufficient_quota", "stop all", "refused", "the quota is exhausted"),
    _Case("500", "retry", "unavailable", "HTTP 500"),
    _Case("502 html", "retry", "unavailable", "HTTP 502: <html>"),
    _Case("cut", "retry", "unavailable", "the connection was cut"),
    _Case("truncated", "retry", "invalid", "not JSON"),
    _Case("empty", "retry", "invalid", "the reply is empty"),
    _Case("page", "retry", "invalid", "it starts '<!doctype html>'"),
    _Case("null", "retry", "invalid", "choices is null"),
    _Case("none", "retry", "invalid", "choices is an empty list"),
    _Case("shapeless", "retry", "invalid", "message is a string, no object"),
    _Case("mispacked", "retry", "invalid", "the reply is packed"),
    _Case("hang", "retry", "deadline", "no reply within", {"attempt_seconds": 1.0}),
    _Case("drip", "retry", "deadline", "no reply within", {"attempt_seconds": 1.0}),
    _Case("400", "fail fast", "refused", "HTTP 400"),
    _Case("401", "stop all", "refused", "HTTP 401: the key is refused"),
    _Case("402", "stop all", "refused", "HTTP 402: payment is required"),
    _Case("404", "stop all", "refused", "HTTP 404: no such address or model"),
    _Case("307 to=http://127.0.0.1:9/v1", "stop all", "refused", "a redirect, which is not followed"),
    _Case("bloated 33554432", "fail fast", "invalid", "longer than 1048576 bytes", {"reply_bytes": 1 << 20}),
    _Case("bomb 268435456", "fail fast", "invalid", "longer than 1048576 bytes", {"reply_bytes": 1 << 20}),
    _Case("filtered", "record", "refused", "content filter"),
)
"""What a server does, once or for ever, and what becomes of it. ``retry`` passes after one more attempt; ``fail fast``
ends the request, ``stop all`` the others with it; ``record`` was answered, and is kept as it is."""


def ask(config: EndpointConfig, workdir: pathlib.Path, texts: Sequence[str]) -> tuple[list[Reply | Failure], Spending]:
    """The results of one chat a text, and all that was spent in this directory."""
    with Endpoint(config, workdir, quiet=True) as endpoint:
        return endpoint.respond(_chats(texts)), endpoint.spending


def _once(case: _Case, directory: pathlib.Path) -> str:
    """The fault once, then good replies: what went wrong, or ""."""
    with FaultServer({"a": [case.fault]}) as server:
        [first, second], spending = ask(config_of(server.url, concurrency=1, **case.options), directory, ["a", "b"])
        if spending.attempts != sum(server.arrivals.values()):
            return f"{spending.attempts} attempts in the ledger, {sum(server.arrivals.values())} at the server"
    answered = [isinstance(result, Reply) for result in (first, second)]
    if answered != [case.class_ == "retry", case.class_ != "stop all"]:
        return f"once, it came to {first} and {second}"
    asked = server.arrivals["a"]
    return "" if (asked >= 2 if case.class_ == "retry" else asked == 1) else f"once, it was asked {asked} times"


def _for_ever(case: _Case, directory: pathlib.Path) -> tuple[str, float]:
    """The fault every time: what went wrong or "", and by how much the deadline was missed."""
    deadline = 2.5 if case.fault in ("hang", "drip") else case.options.get("deadline_seconds", 120.0)
    with FaultServer({"a": [case.fault] * 99}) as server:
        config = config_of(server.url, **case.options | {"deadline_seconds": deadline})
        if case.fault in ("hang", "drip"):
            config = dataclasses.replace(config, max_attempts=99)
        start = time.monotonic()
        [result], spending = ask(config, directory, ["a"])
        over = time.monotonic() - start - deadline
        asked = server.arrivals["a"]
    if isinstance(result, Reply) or result.kind != case.kind or case.said not in result.reason:
        return f"for ever, it came to {result}", over
    if spending.attempts != asked:
        return f"for ever, {spending.attempts} attempts in the ledger, {asked} at the server", over
    if over > HANG_SECONDS:
        return f"it ended {over:.0f} s after its deadline", over
    if case.fault.startswith("bloated") and server.sent >= int(case.fault.split()[1]):
        return "it was read to its end", over
    if case.class_ != "retry" and asked != 1:
        return f"for ever, it was asked {asked} times", over
    return "", over


@contextlib.contextmanager
def _deaf() -> Iterator[str]:
    """The address of a server whose queue of connections is full: further ones are neither taken nor refused."""
    with socket.socket() as server, contextlib.ExitStack() as queued:
        server.bind(("127.0.0.1", 0))
        server.listen(0)
        for _ in range(8):
            waiting = queued.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(server.getsockname())
        yield f"http://127.0.0.1:{server.getsockname()[1]}/v1"


def _slow_connect(directory: pathlib.Path) -> str:
    with _deaf() as url:
        config = config_of(url, connect_seconds=0.3, deadline_seconds=60.0)
        [result], spending = ask(config, directory, ["a"])
    if isinstance(result, Reply) or (result.kind, spending.attempts, spending.tokens) != ("unavailable", 3, 0):
        return f"it came to {result}, {spending}"
    return "" if "no connection within 0.3 s" in result.reason else f"it said {result.reason}"


def _another_model(directory: pathlib.Path) -> str:
    with FaultServer() as server, warnings.catch_warnings(record=True, action="always") as said:
        server.said_model = "other"
        [result], _ = ask(config_of(server.url), directory, ["a"])
    if not isinstance(result, Reply) or result.model != "other":
        return f"it came to {result}"
    return "" if "answers as 'other'" in " ".join(str(one.message) for one in said) else "nobody was told"


def _no_verdict(directory: pathlib.Path) -> str:
    """Replies that are none of the verdicts asked for: this server's always are."""
    example = Candidates("1", "Which?", ("a", "b"), (0.0, 0.0))
    with FaultServer() as server, Endpoint(config_of(server.url), directory, quiet=True) as endpoint:
        [result] = PairwiseJudge(GenerativeAsker(endpoint))([example])
        asked = sum(server.arrivals.values())
    if not isinstance(result, Unjudged) or result.kind != "unparsable":
        return f"it came to {result}"
    return "" if asked == 2 else f"two orders were asked {asked} times"


def _classified(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    wrong: list[str] = []
    overs = [0.0]
    for index in draw.permutation(len(CASES)):
        case = CASES[index]
        said = _once(case, directory / f"once{index}")
        for_ever, over = _for_ever(case, directory / f"ever{index}")
        overs.append(over)
        wrong += [f"{case.fault}: {one}" for one in (said, for_ever) if one]
    others = {"slow connect": _slow_connect, "another model": _another_model, "no verdict": _no_verdict}
    for name, inject in others.items():
        if said := inject(directory / name.replace(" ", "-")):
            wrong.append(f"{name}: {said}")
    number = len(CASES) + len(others)
    return Outcome(
        passed=not wrong,
        detail="; ".join(wrong),
        figures={
            "classified": float(number - len({one.partition(":")[0] for one in wrong})),
            "s_over_deadline": max(overs),
        },
    )


_PASSING = ("500", "429 after=0", "cut", "truncated", "empty", "null")


def _throughput(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    """The same requests with and without faults, on a server that takes 0.1 s for each; eight under way at once."""
    texts = [f"question {number}" for number in range(160)]
    faulty = draw.choice(len(texts), len(texts) // 5, replace=False)
    faults = {texts[index]: [str(draw.choice(_PASSING))] for index in faulty}
    seconds = []
    for place, given in (("clean", {}), ("faulty", faults)):
        with FaultServer(given, seconds=0.1) as server:
            config = config_of(server.url, first_backoff_seconds=0.1, max_attempts=10)
            start = time.monotonic()
            results, _ = ask(config, directory / place, texts)
            seconds.append(time.monotonic() - start)
        if [getattr(result, "text", "") for result in results] != [reply(text) for text in texts]:
            return Outcome(passed=False, detail=f"{place}: not all were answered")
    return Outcome(
        passed=True,
        figures={
            "times_the_clean_time": seconds[1] / seconds[0],
            "clean_requests_per_s": len(texts) / seconds[0],
        },
    )


FAULTS = (
    Fault(
        name="P1",
        title=f"{len(CASES) + 3} faults of a server, each once and for ever: rate limits, errors, pages, cut, "
        "dripping, oversized and packed bodies, refusals, no verdict",
        criterion="each is retried, failed at once, or recorded, as the table says; every request ends by its total "
        "deadline; the ledger has every attempt",
        trial=_classified,
        num_trials=20,
        num_fast=1,
        baseline="openai 3.52.0, measured: bodies that are no JSON raise JSONDecodeError and are not retried; choices: "
        "null is returned as a success; a dripping body outlives its timeout of 2 s by more than 18 s",
    ),
    Fault(
        name="P1-rate",
        title="160 requests of 0.1 s, eight at once: 20 % of them fail once",
        criterion="all are answered; the time beside that without faults is the figure (1.43 times: "
        "70 % of the throughput)",
        trial=_throughput,
        num_trials=10,
        num_fast=1,
    ),
)
