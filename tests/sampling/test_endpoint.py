"""An endpoint answers in order, once for each content, so many at once, from any thread and in any loop."""

from __future__ import annotations

import asyncio
import dataclasses
import io
import pathlib
import threading

import pytest
from rich.console import Console

from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.responder import Continuation, Failure, Message, Reply, Request
from tests.sampling.fault_server import REPLY_TOKENS, FaultServer, reply


def config_of(server: FaultServer, **options) -> EndpointConfig:
    chosen = {"base_url": server.url, "model": "m", "first_backoff_seconds": 0.0, "max_attempts": 4} | options
    return EndpointConfig(**chosen)


def chat(text: str, **options) -> Request:
    messages = (Message("system", "Be short."), Message("user", text))
    return Request(messages=messages, **{"max_tokens": 8, "temperature": 0.5} | options)


def completion(text: str, **options) -> Request:
    return Request(prompt=text, **{"max_tokens": 8} | options)


def texts(results: list[Reply | Failure]) -> list[str]:
    return [result.text if isinstance(result, Reply) else result.kind for result in results]


def test_every_request_is_answered_in_the_order_given(tmp_path: pathlib.Path):
    prompts = [f"question {number}" for number in range(20)]
    asked = [chat(prompt) if number % 2 else completion(prompt) for number, prompt in enumerate(prompts)]
    with FaultServer() as server, Endpoint(config_of(server), tmp_path, quiet=True) as endpoint:
        results = endpoint.respond(asked)
    assert texts(results) == [reply(prompt) for prompt in prompts]
    assert {(result.finished, result.model, result.reply_tokens) for result in results} == {(True, "m", REPLY_TOKENS)}


def test_a_request_goes_out_as_the_protocol_spells_it(tmp_path: pathlib.Path):
    asked = [
        chat("a", top_p=0.9, stop=("\n",), seed=3, logprobs=True, temperature=0.0),
        completion("b", logprobs=True, temperature=1.0),
    ]
    with FaultServer() as server:
        options = {"concurrency": 1, "extra_body": '{"top_k": 5, "temperature": null}'}
        with Endpoint(config_of(server, **options), tmp_path / "1", quiet=True) as endpoint:
            endpoint.respond(asked)
        with Endpoint(config_of(server, max_tokens_field="max_completion_tokens"), tmp_path, quiet=True) as endpoint:
            endpoint.respond([chat("c", temperature=0.0)])
    messages = [{"role": "system", "content": "Be short."}, {"role": "user", "content": "a"}]
    assert server.bodies == [
        {"model": "m", "messages": messages, "max_tokens": 8, "top_p": 0.9, "stop": ["\n"], "seed": 3}
        | {"logprobs": True, "top_k": 5},
        {"model": "m", "prompt": "b", "max_tokens": 8, "logprobs": 1, "top_k": 5},
        {"model": "m", "messages": [messages[0], {"role": "user", "content": "c"}], "temperature": 0.0}
        | {"max_completion_tokens": 8},
    ]


def test_log_probabilities_come_back_of_chats_and_completions(tmp_path: pathlib.Path):
    with FaultServer() as server, Endpoint(config_of(server), tmp_path, quiet=True) as endpoint:
        results = endpoint.respond([chat("a b", logprobs=True), completion("a b", logprobs=True), chat("a b")])
    assert [result.tokens for result in results] == [("re:", " a", " b")] * 2 + [None]
    assert [result.logprobs for result in results] == [(-0.5, -0.5, -0.5)] * 2 + [None]


def test_a_given_text_is_scored_by_its_echo(tmp_path: pathlib.Path):
    asked = [Continuation(prompt="The sum is", text=" four and"), Continuation(prompt="The sum is ", text="four")]
    with FaultServer() as server, Endpoint(config_of(server), tmp_path, quiet=True) as endpoint:
        scored, torn = endpoint.score(asked)
        again, _ = endpoint.score(asked)
    # the server's tokens are The| sum| is| four| and| and…: number k has log-probability -k/8
    assert (scored.text, scored.tokens, scored.logprobs) == (" four and", (" four", " and"), (-3 / 8, -4 / 8))
    assert (torn.kind, "move the space" in torn.reason) == ("invalid", True)
    assert (again, sum(server.arrivals.values())) == (scored, 2)
    assert server.bodies[0]["echo"] is True


def test_equal_requests_are_asked_once_and_seeds_make_them_different(tmp_path: pathlib.Path):
    asked = [chat("a"), chat("a"), chat("a", seed=1), chat("b")]
    with FaultServer() as server, Endpoint(config_of(server), tmp_path, quiet=True) as endpoint:
        results = endpoint.respond(asked)
    assert texts(results) == [reply("a")] * 3 + [reply("b")]
    assert server.arrivals == {"a": 2, "b": 1}


def test_what_was_answered_is_not_asked_again_by_another_process(tmp_path: pathlib.Path):
    with FaultServer() as server:
        with Endpoint(config_of(server), tmp_path, quiet=True) as endpoint:
            first = endpoint.respond([chat("a"), chat("b", logprobs=True)])
        with Endpoint(config_of(server, concurrency=1, token_budget=0), tmp_path, quiet=True) as endpoint:
            assert endpoint.respond([chat("b", logprobs=True), chat("a")]) == first[::-1]
        with Endpoint(config_of(server, model="m2"), tmp_path, quiet=True) as endpoint:
            endpoint.respond([chat("a")])
        with Endpoint(config_of(server, extra_body='{"top_k": 1}'), tmp_path, quiet=True) as endpoint:
            endpoint.respond([chat("a")])
    assert server.arrivals == {"a": 3, "b": 1}


@pytest.mark.parametrize("concurrency", [1, 4])
def test_so_many_requests_are_under_way_at_once_and_no_more(tmp_path: pathlib.Path, concurrency: int):
    # the server lets nobody go before ``concurrency`` have come
    with FaultServer(gather=concurrency) as server:
        config = config_of(server, concurrency=concurrency)
        with Endpoint(config, tmp_path, quiet=True) as endpoint:
            results = endpoint.respond([chat(str(number)) for number in range(12)])
    assert texts(results) == [reply(str(number)) for number in range(12)]
    assert server.most_under_way == concurrency


def test_results_are_handed_over_in_the_calling_thread_as_they_come(tmp_path: pathlib.Path):
    with FaultServer({"slow": ["500", "500"]}) as server, Endpoint(config_of(server), tmp_path, quiet=True) as endpoint:
        endpoint.respond([chat("kept")])
        seen = []
        results = endpoint.respond(
            [chat("slow"), chat("quick"), chat("kept"), chat("quick")],
            done=lambda index, result: seen.append((index, result, threading.get_ident())),
        )
    indices = [index for index, _, _ in seen]
    assert indices[0] == 2  # it was there before
    assert sorted(indices) == [0, 1, 2, 3]
    assert {index: result for index, result, _ in seen} == dict(enumerate(results))
    assert {thread for _, _, thread in seen} == {threading.get_ident()}


def test_it_answers_where_an_event_loop_is_running(tmp_path: pathlib.Path):
    async def notebook() -> list[Reply | Failure]:
        with Endpoint(config_of(server), tmp_path, quiet=True) as endpoint:
            return endpoint.respond([chat("a")]) + endpoint.respond([chat("b")])

    with FaultServer() as server:
        assert texts(asyncio.run(notebook())) == [reply("a"), reply("b")]


def test_an_error_of_the_caller_stops_everything_and_keeps_what_is_there(tmp_path: pathlib.Path):
    def done(index: int, result: Reply | Failure) -> None:
        raise RuntimeError(f"no room for {index}")

    with (
        FaultServer({"hangs": ["hang"] * 9}) as server,
        Endpoint(config_of(server, concurrency=2), tmp_path, quiet=True) as endpoint,
    ):
        with pytest.raises(RuntimeError, match="no room for 1"):
            endpoint.respond([chat("hangs"), chat("a"), *(chat(str(number)) for number in range(50))], done=done)
        [result] = endpoint.respond([chat("a")])
        assert endpoint.spending.assumed >= 1
    assert (result.text, server.arrivals["a"]) == (reply("a"), 1)


def test_done_cannot_ask_the_endpoint_that_called_it(tmp_path: pathlib.Path):
    with FaultServer() as server, Endpoint(config_of(server), tmp_path, quiet=True) as endpoint:
        with pytest.raises(RuntimeError, match="asks the endpoint that called it"):
            endpoint.respond([chat("a")], done=lambda *_: endpoint.respond([chat("b")]))
        assert texts(endpoint.respond([chat("a")])) == [reply("a")]


@pytest.mark.parametrize("fault", ["", "duplicate", "fewer"])
def test_samples_of_a_prompt_share_a_call_and_missing_or_repeated_choices_are_asked_again(
    tmp_path: pathlib.Path, fault: str
):
    asked = [chat("p", seed=seed) for seed in range(4)]
    with FaultServer({"p": [fault]}) as server:
        config = config_of(server, choices_per_call=4, prompt_price=1.0, reply_price=2.0)
        with Endpoint(config, tmp_path, quiet=True) as endpoint:
            results = endpoint.respond(asked)
            spending = endpoint.spending
    # the first choice of a broken reply counts, the three others come with the second call
    second = [reply("p", number) for number in range(3)]
    assert texts(results) == ([reply("p", number) for number in range(4)] if not fault else [reply("p"), *second])
    assert [body["n"] for body in server.bodies] == ([4] if not fault else [4, 3])
    assert (spending.prompt_tokens, spending.reply_tokens) == (server.prompt_tokens, server.reply_tokens)
    assert sum(result.cost for result in results) == pytest.approx(spending.cost, rel=1e-12)


def test_another_model_than_the_one_asked_is_reported(tmp_path: pathlib.Path):
    with FaultServer() as server, Endpoint(config_of(server), tmp_path, quiet=True) as endpoint:
        server.said_model = "m-2026-01"
        assert endpoint.respond([chat("a")])[0].model == "m-2026-01"
        server.said_model = "cheaper"
        with pytest.warns(UserWarning, match="asked for 'm' and answers as 'cheaper'") as warned:
            assert texts(endpoint.respond([chat("b"), chat("c")])) == [reply("b"), reply("c")]
    assert len(warned) == 1


def test_progress_says_how_many_how_fast_and_what_it_cost(tmp_path: pathlib.Path):
    screen = io.StringIO()
    with FaultServer({"b": ["400"]}) as server:
        config = config_of(server, prompt_price=0.0, reply_price=1e6)
        with Endpoint(config, tmp_path, console=Console(file=screen)) as endpoint:
            endpoint.respond([chat("a"), chat("b"), chat("a", seed=1)])
    said = screen.getvalue()
    assert "asking m: 3/3 requests in" in said
    assert f"cost ${2 * REPLY_TOKENS}.0000" in said
    assert "failures 1" in said


def test_two_endpoints_do_not_share_a_directory_and_a_closed_one_asks_nothing(tmp_path: pathlib.Path):
    config = EndpointConfig(base_url="http://127.0.0.1:9/v1", model="m")
    with (
        Endpoint(config, tmp_path, quiet=True) as endpoint,
        pytest.raises(ValueError, match="another endpoint is at work"),
    ):
        Endpoint(config, tmp_path)
    with pytest.raises(ValueError, match="is closed"):
        endpoint.respond([chat("a")])
    Endpoint(config, tmp_path).close()


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"base_url": "host/v1"}, "is no address"),
        ({"base_url": "https://me:word@host/v1"}, "holds a user, a password"),
        ({"base_url": "https://host/v1?key=word"}, "holds a user, a password or a query"),
        ({"model": ""}, "model is empty"),
        ({"concurrency": 0}, "concurrency = 0 must be at least 1"),
        ({"deadline_seconds": 0.0}, "deadline_seconds = 0.0 must be positive"),
        ({"prompt_price": -1.0}, "prompt_price = -1.0 must be at least 0"),
        ({"token_budget": -1}, "token_budget = -1"),
        ({"cost_budget": 1.0}, "needs prices"),
        ({"extra_body": "[]"}, "extra_body is a list"),
        ({"extra_body": "{"}, "extra_body: not JSON"),
        ({"extra_body": '{"n": 2, "model": "x"}'}, "extra_body: model, n cannot be given there"),
    ],
)
def test_a_config_that_cannot_work_is_refused_without_repeating_a_password(options: dict, said: str):
    with pytest.raises(ValueError, match=said) as error:
        EndpointConfig(**{"base_url": "http://127.0.0.1/v1", "model": "m"} | options)
    assert "word" not in str(error.value).replace("password", "")


def test_the_digest_holds_what_a_reply_depends_on_and_nothing_else():
    one = EndpointConfig(base_url="http://127.0.0.1/v1", model="m")
    same = {"concurrency": 2, "deadline_seconds": 1.0, "reply_price": 1.0, "api_key_env": "KEY"}
    assert dataclasses.replace(one, **same).digest() == one.digest()
    for other in ({"model": "n"}, {"base_url": "http://127.0.0.2/v1"}, {"extra_body": '{"top_k": 1}'}):
        assert dataclasses.replace(one, **other).digest() != one.digest()
