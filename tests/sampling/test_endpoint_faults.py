"""Whatever an endpoint does wrong, a request ends by its deadline: answered, refused at once, or given up by name."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import pathlib
import random
import socket
import types

import pytest

from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.endpoint_dispatch import Clock
from jaxrefine.sampling.endpoint_retries import AttemptError, Backoff, of_status, retry_after
from jaxrefine.sampling.endpoint_wire import MalformedError, make_calls, parse_answer
from jaxrefine.sampling.responder import Continuation, Failure, Message, Request
from tests.sampling.fault_server import FaultServer, reply

CANARY = "sk-canary/4d1e9b+77"


def config_of(server: FaultServer, **options) -> EndpointConfig:
    chosen = {"base_url": server.url, "model": "m", "first_backoff_seconds": 0.0, "max_attempts": 3} | options
    return EndpointConfig(**chosen)


def chat(text: str, **options) -> Request:
    return Request(messages=(Message("user", text),), **{"max_tokens": 8} | options)


def ask(config: EndpointConfig, workdir: pathlib.Path, *requests: Request, clock: Clock | None = None):
    with Endpoint(config, workdir, quiet=True, clock=clock) as endpoint:
        return endpoint.respond(requests), endpoint.spending


class SleptClock:
    """A clock that only notes for how long it was asked to sleep."""

    def __init__(self, now: float = 0.0):
        self.slept: list[float] = []
        self.clock = Clock(now=lambda: now, sleep=self._sleep)

    async def _sleep(self, seconds: float) -> None:
        self.slept.append(seconds)


PASSING = ["429", "429 after=0", "500", "502 html", "503", "408", "cut", "truncated", "empty", "page", "null", "none"]
PASSING += ["shapeless", "mispacked"]


@pytest.mark.parametrize("fault", PASSING)
def test_what_passes_is_tried_again_for_completions_too(tmp_path: pathlib.Path, fault: str):
    with FaultServer({"a": [fault, fault]}) as server:
        [result], spending = ask(config_of(server), tmp_path, Request(prompt="a", max_tokens=8))
    assert result.text == reply("a")
    assert spending.attempts == server.arrivals["a"] == 3


@pytest.mark.parametrize("fault", ["401", "402", "404", "307 to=http://127.0.0.1:9/v1", "429 insufficient_quota"])
def test_what_holds_for_every_request_fails_fast_and_stops_the_others(tmp_path: pathlib.Path, fault: str):
    with FaultServer({str(number): [fault] for number in range(20)}) as server:
        results, spending = ask(config_of(server, concurrency=1), tmp_path, *(chat(str(n)) for n in range(20)))
    assert [result.kind for result in results] == ["refused"] * 20
    assert [result.attempts for result in results] == [1] + [0] * 19
    assert {result.reason for result in results} == {results[0].reason}
    assert f"HTTP {fault[:3]}" in results[0].reason
    assert spending.attempts == sum(server.arrivals.values()) == 1


@pytest.mark.parametrize("fault", ["400", "403", "413", "422"])
def test_what_holds_for_one_request_fails_fast_and_the_others_go_on(tmp_path: pathlib.Path, fault: str):
    with FaultServer({"a": [fault]}) as server:
        [bad, good], _ = ask(config_of(server, concurrency=1), tmp_path, chat("a"), chat("b"))
    assert (bad.kind, bad.attempts, bad.reason[:8]) == ("refused", 1, f"HTTP {fault}")
    assert good.text == reply("b")


def test_a_reply_that_was_withheld_is_a_refusal_and_is_not_paid_for_again(tmp_path: pathlib.Path):
    with FaultServer({"a": ["filtered"]}) as server:
        [first], _ = ask(config_of(server), tmp_path, chat("a"))
        [second], _ = ask(config_of(server), tmp_path, chat("a"))
    assert (first.kind, "content filter" in first.reason) == ("refused", True)
    assert (second, server.arrivals["a"]) == (first, 1)


def test_a_packed_reply_is_unpacked(tmp_path: pathlib.Path):
    with FaultServer({"a": ["packed"]}) as server:
        [result], _ = ask(config_of(server), tmp_path, chat("a"))
    assert (result.text, server.arrivals["a"]) == (reply("a"), 1)


def test_a_body_that_says_that_it_is_too_long_is_refused_unread(tmp_path: pathlib.Path):
    with FaultServer() as server:
        [result], spending = ask(config_of(server, reply_bytes=50), tmp_path, chat("a"))
    assert (result.kind, "and 50 are allowed (reply_bytes)" in result.reason) == ("invalid", True)
    assert spending.assumed == 1


def test_half_a_surrogate_pair_becomes_the_replacement_character(tmp_path: pathlib.Path):
    with FaultServer({"a": ["surrogate"]}) as server:
        [result], _ = ask(config_of(server), tmp_path, chat("a"))
    assert result.text == "half \ufffd"


@pytest.mark.parametrize("fault", ["hang", "drip"])
def test_a_body_that_never_ends_ends_by_the_deadline_of_the_request(tmp_path: pathlib.Path, fault: str):
    with FaultServer({"a": [fault] * 9}) as server:
        [result], spending = ask(config_of(server, deadline_seconds=0.5), tmp_path, chat("a"))
    assert (result.kind, result.attempts, result.reason) == ("deadline", 1, "no reply within 0.5 s")
    assert (spending.attempts, spending.assumed) == (1, 1)


def test_a_server_that_is_not_there_is_unavailable_and_costs_nothing(tmp_path: pathlib.Path):
    with socket.socket() as held:  # bound and not listening: nobody else can take the port
        held.bind(("127.0.0.1", 0))
        config = EndpointConfig(
            base_url=f"http://127.0.0.1:{held.getsockname()[1]}/v1",
            model="m",
            first_backoff_seconds=0.0,
            max_attempts=2,
        )
        [result], spending = ask(config, tmp_path, chat("a"))
    assert (result.kind, result.attempts, "no connection" in result.reason) == ("unavailable", 2, True)
    assert (spending.attempts, spending.tokens) == (2, 0)


@pytest.mark.parametrize(
    ("fault", "seconds"), [("429 after=7.5", 7.5), ("503 date=1000300", 300), ("429 after=300", 300)]
)
def test_retry_after_is_honoured_in_seconds_and_as_a_date(tmp_path: pathlib.Path, fault: str, seconds: float):
    slept = SleptClock(now=1_000_000.0)
    with FaultServer({"a": [fault]}) as server:
        config = config_of(server, first_backoff_seconds=0.25, longest_backoff_seconds=1.0)
        [result], _ = ask(config, tmp_path, chat("a"), clock=slept.clock)
    assert result.text == reply("a")
    [waited] = slept.slept
    assert seconds <= waited <= seconds + 0.25


def test_a_server_that_asks_to_wait_is_left_alone_by_the_other_requests_too(tmp_path: pathlib.Path):
    slept = SleptClock()
    with FaultServer({"a": ["429 after=300"]}) as server:
        config = config_of(server, concurrency=1, first_backoff_seconds=0.25)
        results, _ = ask(config, tmp_path, chat("a"), chat("b"), clock=slept.clock)
    assert [result.text for result in results] == [reply("a"), reply("b")]
    assert len(slept.slept) == 2
    assert all(150 < waited <= 300.25 for waited in slept.slept)  # the second began a little later


def test_requests_that_wait_for_another_attempt_do_not_hold_up_others(tmp_path: pathlib.Path):
    async def sleep(seconds: float) -> None:
        while set(server.arrivals) != {"a", "b", "c"}:  # only one is under way at once
            await asyncio.sleep(0.01)

    with FaultServer({"a": ["500"], "b": ["500"]}) as server:
        clock = Clock(sleep=sleep)
        results, _ = ask(config_of(server, concurrency=1), tmp_path, chat("a"), chat("b"), chat("c"), clock=clock)
    assert [result.text for result in results] == [reply(name) for name in "abc"]
    assert server.most_under_way == 1


def test_a_wait_beyond_the_deadline_is_not_begun(tmp_path: pathlib.Path):
    slept = SleptClock()
    with FaultServer({"a": ["429 after=300"] * 9}) as server:
        [result], _ = ask(config_of(server, deadline_seconds=60.0), tmp_path, chat("a"), clock=slept.clock)
    assert (result.kind, result.attempts, slept.slept) == ("deadline", 1, [])
    assert "within 60 s; the server asks to wait 300 s: HTTP 429" in result.reason


def test_waits_double_at_random_up_to_the_longest():
    backoff = Backoff(first=1.0, longest=4.0, generator=random.Random(0))
    failed = types.SimpleNamespace(exception=lambda: AttemptError("unavailable", "", again=True))
    for attempt, longest in enumerate([1.0, 2.0, 4.0, 4.0, 4.0], start=1):
        state = types.SimpleNamespace(outcome=failed, attempt_number=attempt)
        waits = [backoff(state) for _ in range(200)]
        assert 0 <= min(waits) < 0.05 * longest
        assert 0.95 * longest < max(waits) <= longest


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({}, None),
        ({"Retry-After": "12"}, 12.0),
        ({"retry-after-ms": "1500", "Retry-After": "9"}, 1.5),
        ({"RETRY-AFTER": "-3"}, 0.0),
        ({"Retry-After": "nan"}, None),
        ({"Retry-After": "soon"}, None),
        ({"Retry-After": "Thu, 01 Jan 1970 00:16:45 GMT"}, 5.0),
        ({"Retry-After": "Thu, 01 Jan 1970 01:16:45 +0100"}, 5.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:16:45 -0000"}, 5.0),
        ({"Retry-After": "Thu, 01 Jan 1970 00:00:00 GMT"}, 0.0),
    ],
)
def test_retry_after_in_every_spelling(headers: dict[str, str], seconds: float | None):
    assert retry_after(headers, now=1000.0) == seconds


def test_a_long_error_page_is_quoted_shortened():
    error = of_status(500, {}, "x" * 10_000, now=0.0)
    assert len(error.reason) < 250


CALLS = make_calls(
    [chat("a", logprobs=True), Request(prompt="a", max_tokens=8, logprobs=True), Continuation(prompt="a", text=" b")],
    ["0", "1", "2"],
    EndpointConfig(base_url="http://127.0.0.1/v1", model="m"),
)


@pytest.mark.parametrize(
    ("call", "choice", "said"),
    [
        (0, None, r"choices\[0\] is null"),
        (0, {"index": -1}, "index is -1"),
        (0, {"index": True}, "index is True"),
        (0, {"index": 1, "message": {"content": "b"}}, "none of 1 choices"),
        (0, {"message": {"content": None}, "finish_reason": "stop"}, "message.content is null"),
        (0, {"message": {"content": "b"}, "logprobs": []}, "logprobs is an empty list"),
        (0, {"message": {"content": "b"}, "logprobs": {"content": ["b"]}}, "no list of objects"),
        (0, {"message": {"content": "b"}, "logprobs": {"content": [{"token": "b"}]}}, "a token of the reply has none"),
        (1, {"text": 3}, "text is a number"),
        (1, {"text": "b", "logprobs": {"tokens": ["b"], "token_logprobs": []}}, "not two lists of one length"),
        (1, {"text": "b", "logprobs": {"tokens": ["b"], "token_logprobs": [None]}}, "a token of the reply has none"),
        (2, {"text": "a b"}, "cannot score given texts"),
        (2, {"text": "a b", "logprobs": {"tokens": ["a", " b"], "token_logprobs": [-1, None]}}, "has none"),
        (
            2,
            {"text": "a b", "logprobs": {"tokens": ["a", " b"], "token_logprobs": [-1, -1], "text_offset": [0]}},
            "no list of one position a token",
        ),
    ],
)
def test_a_choice_of_another_shape_is_malformed_and_its_usage_is_known(call: int, choice, said: str):
    body = {"choices": [choice], "usage": {"prompt_tokens": 5, "completion_tokens": 7}}
    with pytest.raises(MalformedError, match=said) as error:
        parse_answer(CALLS[call], json.dumps(body).encode())
    assert dataclasses.astuple(error.value.usage) == (5, 7)


@pytest.mark.parametrize(
    ("tokens", "offsets"),
    [
        (["a", " b", "!"], [0, 1, 3]),
        (["a", " b", "!"], None),
        (["<s>", "a", " b", "!"], [0, 3, 4, 6]),  # vLLM counts the BOS that it puts in front
        (["<s>", "a", " b", "!"], [0, 0, 1, 3]),
        (["", "a", " ", "b", "!"], None),
        (["bytes:\\x61", " b", "!"], [0, 1, 3]),  # OpenAI's spelling of a token that is no text
    ],
)
def test_the_tokens_of_a_continuation_are_found_whatever_stands_before_them(tokens, offsets):
    values = [None, *(-1.0 - place for place in range(1, len(tokens)))]
    logprobs = {"tokens": tokens, "token_logprobs": values, "text_offset": offsets}
    body = {"choices": [{"text": "a b!", "logprobs": logprobs}]}
    choice = parse_answer(CALLS[2], json.dumps(body).encode()).choices[0]
    chosen = [place for place, token in enumerate(tokens) if token in (" b", " ", "b")]
    assert choice.tokens == tuple(tokens[place] for place in chosen)
    assert choice.logprobs == tuple(-1.0 - place for place in chosen)


@pytest.mark.parametrize("usage", [None, [], {"prompt_tokens": -1}, {"prompt_tokens": 1.5}, {"completion_tokens": 3}])
def test_usage_of_another_shape_is_no_usage(usage):
    body = {"choices": [{"message": {"content": "b"}}], "usage": usage}
    assert parse_answer(CALLS[0], json.dumps(body).encode()).usage is None


@pytest.mark.parametrize("number", ["NaN", "1e999", "-Infinity"])
def test_a_log_probability_that_is_no_number_is_malformed(number: str):
    body = '{"choices": [{"text": "b", "logprobs": {"tokens": ["b"], "token_logprobs": [' + number + "]}}]}"
    with pytest.raises(MalformedError, match="the reply"):
        parse_answer(CALLS[1], body.encode())


@pytest.mark.parametrize(
    ("reason", "tokens", "finished"), [("stop", 8, True), ("length", 8, False), (None, 8, False), (None, 7, True)]
)
def test_a_reply_is_finished_unless_its_limit_cut_it(reason: str | None, tokens: int, finished: bool):
    body = {
        "choices": [{"message": {"content": "b"}, "finish_reason": reason}],
        "usage": {"prompt_tokens": 1, "completion_tokens": tokens},
    }
    assert parse_answer(CALLS[0], json.dumps(body).encode()).choices[0].finished is finished


def test_a_chat_that_was_cut_before_its_first_visible_token_is_an_empty_reply():
    body = {"choices": [{"message": {"content": None}, "finish_reason": "length"}]}
    choice = parse_answer(CALLS[0], json.dumps(body).encode()).choices[0]
    assert (choice.text, choice.finished) == ("", False)


@pytest.mark.parametrize(
    ("value", "said"),
    [(None, "TEACHER_KEY .* is not set"), ("", "is not set"), ("two words", "holds spaces"), ("é", "holds")],
)
def test_a_key_that_is_missing_or_cannot_be_sent_is_refused_before_anything_is(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, value: str | None, said: str
):
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    if value is not None:
        monkeypatch.setenv("TEACHER_KEY", value)
    with pytest.raises(ValueError, match=said) as error:
        Endpoint(EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m", api_key_env="TEACHER_KEY"), tmp_path)
    assert not value or value not in str(error.value)


def test_a_key_in_place_of_its_variable_is_refused_without_repeating_it():
    with pytest.raises(ValueError, match="never the key itself") as error:
        EndpointConfig(base_url="http://127.0.0.1/v1", model="m", api_key_env=CANARY)
    assert CANARY not in str(error.value)


def test_no_key_is_needed_where_none_is_named(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("OPENAI_API_KEY", CANARY)
    with FaultServer() as server:
        [result], _ = ask(config_of(server), tmp_path, chat("a"))
    assert (result.text, server.keys) == (reply("a"), {"none"})


def test_a_failure_is_asked_again_by_the_next_call(tmp_path: pathlib.Path):
    with FaultServer({"a": ["500"] * 3}) as server, Endpoint(config_of(server), tmp_path, quiet=True) as endpoint:
        [failed] = endpoint.respond([chat("a")])
        [answered] = endpoint.respond([chat("a")])
    assert isinstance(failed, Failure)
    assert answered.text == reply("a")
