"""The ledger equals the server's own account, and a budget stops cleanly."""

from __future__ import annotations

import asyncio
import pathlib

import pytest

from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.responder import Message, Reply, Request
from jaxrefine.sampling.spending import BudgetSpentError, Ledger, Prices, Usage
from tests.sampling.fault_server import REPLY_TOKENS, FaultServer, reply

MAX_TOKENS = 8
AROUND = 32  # tokens that are assumed around the one message of a chat


def config_of(server: FaultServer, **options) -> EndpointConfig:
    chosen = {"base_url": server.url, "model": "m", "first_backoff_seconds": 0.0, "max_attempts": 3} | options
    return EndpointConfig(**chosen)


def chats(*texts: str) -> list[Request]:
    return [Request(messages=(Message("user", text),), max_tokens=MAX_TOKENS) for text in texts]


def kinds(results) -> list[str]:
    return ["reply" if isinstance(result, Reply) else result.kind for result in results]


def test_a_token_budget_stops_cleanly_and_goes_on_where_it_was_when_it_is_raised(tmp_path: pathlib.Path):
    texts = [f"word {number}" for number in range(10, 20)]  # 2 tokens each; at most 7 + 32 + 8 = 47
    taken = 2 + REPLY_TOKENS
    with FaultServer() as server:
        # after four replies 20 tokens are spent, and 20 + 47 > 66
        with Endpoint(config_of(server, token_budget=66, concurrency=1), tmp_path, quiet=True) as endpoint:
            results = endpoint.respond(chats(*texts))
            assert endpoint.spending.tokens == 4 * taken
        assert kinds(results) == ["reply"] * 4 + ["budget"] * 6
        assert {result.attempts for result in results[4:]} == {0}
        assert "20 tokens are spent; another attempt may take 47: more than the budget of 66" in results[4].reason
        assert server.arrivals == dict.fromkeys(texts[:4], 1)
        with Endpoint(config_of(server, token_budget=66), tmp_path, quiet=True) as endpoint:
            assert kinds(endpoint.respond(chats(*texts))) == ["reply"] * 4 + ["budget"] * 6
        with Endpoint(config_of(server, token_budget=1000), tmp_path, quiet=True) as endpoint:
            again = endpoint.respond(chats(*texts))
            assert endpoint.spending.tokens == 10 * taken
    assert [result.text for result in again] == [reply(text) for text in texts]
    assert again[:4] == results[:4]
    assert server.arrivals == dict.fromkeys(texts, 1)


def test_a_cost_budget_is_not_exceeded_by_requests_under_way_together(tmp_path: pathlib.Path):
    texts = [f"word {number}" for number in range(10, 50)]
    # $1 a reply token: at most $8 each, $3 in truth; only two fit at once, and in the end 20 - 3·4 leaves $8 for one
    with FaultServer() as server:
        config = config_of(server, reply_price=1e6, cost_budget=20.0, concurrency=16)
        with Endpoint(config, tmp_path, quiet=True) as endpoint:
            results = endpoint.respond(chats(*texts))
            cost = endpoint.spending.cost
    assert server.most_under_way <= 2
    assert kinds(results).count("reply") == 5  # after four $12 are spent and a fifth fits; after five it is $15
    assert kinds(results).count("budget") == 35
    assert cost == 15.0 == sum(server.arrivals.values()) * 3.0
    assert "$15 are spent; another attempt may cost $8: more than the budget of $20" in {
        result.reason for result in results if not isinstance(result, Reply)
    }


def test_retries_that_are_billed_use_up_the_budget(tmp_path: pathlib.Path):
    # each empty reply is charged its upper bound of 6 + 32 + 8 = 46 tokens
    with (
        FaultServer({"word a": ["empty"] * 9}) as server,
        Endpoint(config_of(server, token_budget=100, max_attempts=9), tmp_path, quiet=True) as endpoint,
    ):
        [result] = endpoint.respond(chats("word a"))
        spending = endpoint.spending
    assert (result.kind, result.attempts) == ("budget", 2)
    assert (spending.attempts, spending.assumed_tokens) == (2, 92)
    assert server.arrivals["word a"] == 2


def test_a_request_that_met_its_deadline_makes_room_for_the_next(tmp_path: pathlib.Path):
    # each may take 1 + 32 + 8 = 41 tokens, and the one that hangs is charged that: 82 tokens are enough for both
    with FaultServer({"a": ["hang"]}) as server:
        config = config_of(server, token_budget=82, deadline_seconds=4.0)
        with Endpoint(config, tmp_path, quiet=True) as endpoint:
            results = endpoint.respond(chats("a", "b", "c"))
    assert [result.kind for result in (results[0], results[2])] == ["deadline", "budget"]
    assert results[1].text == reply("b")


def test_an_attempt_left_open_by_a_killed_process_is_charged_its_upper_bound(tmp_path: pathlib.Path):
    ledger = Ledger(tmp_path / "ledger.jsonl", prices=Prices(prompt=1e6, reply=2e6))
    ledger.settle(ledger.send("a", Usage(10, 20)), reported=Usage(1, 2))
    ledger.settle(ledger.send("b", Usage(10, 20)), billed=False)
    ledger.send("c", Usage(100, 200))
    ledger.close()
    for _ in range(2):
        again = Ledger(tmp_path / "ledger.jsonl", prices=Prices())
        again.close()
        spending = again.spending
        assert (spending.attempts, spending.reported, spending.assumed) == (3, 1, 1)
        assert (spending.prompt_tokens, spending.reply_tokens, spending.assumed_tokens) == (1, 2, 300)
        assert spending.cost == 5 + 500  # at the prices of their time


def test_an_attempt_waits_for_those_under_way_to_make_room(tmp_path: pathlib.Path):
    async def run(ledger: Ledger) -> list[str]:
        happened = []
        first = ledger.send("a", Usage(0, 60))

        async def second() -> None:
            await ledger.room(Usage(0, 60))
            happened.append("room")

        waiting = asyncio.create_task(second())
        await asyncio.sleep(0)
        happened.append("settled")
        ledger.settle(first, reported=Usage(0, 40))
        await waiting
        with pytest.raises(BudgetSpentError, match="40 tokens are spent; another attempt may take 61"):
            await ledger.room(Usage(0, 61))
        return happened

    ledger = Ledger(tmp_path / "ledger.jsonl", prices=Prices(), token_budget=100)
    assert asyncio.run(run(ledger)) == ["settled", "room"]
