"""Stopped at any instant, an endpoint's work goes on: nothing that was answered is asked, or paid for, again."""

from __future__ import annotations

import pathlib
import signal
import subprocess
import sys

import pytest

from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.responder import Message, Request
from tests.sampling.fault_server import FaultServer, reply

CONCURRENCY = 3
QUICK = [f"quick {number}" for number in range(6)]
SLOW = [f"slow {number}" for number in range(CONCURRENCY)]
REST = [f"rest {number}" for number in range(4)]
PROMPTS = [*QUICK, *SLOW, *REST]

ASKER = """
import sys
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.responder import Message, Request
config = EndpointConfig(base_url=sys.argv[1], model="m", concurrency=3, first_backoff_seconds=0.0)
asked = [Request(messages=(Message("user", prompt),), max_tokens=8) for prompt in sys.argv[3:]]
try:
    Endpoint(config, sys.argv[2], quiet=True).respond(asked)
except KeyboardInterrupt:
    print("stopped by hand")
    raise SystemExit(130)
"""


def test_a_process_stopped_by_hand_repeats_only_what_was_under_way(tmp_path: pathlib.Path):
    # the slow ones hang once; all of them hang only after every quick one was answered and kept
    with FaultServer({prompt: ["hang"] for prompt in SLOW}) as server:
        asker = subprocess.Popen(
            [sys.executable, "-X", "faulthandler", "-W", "error", "-c", ASKER, server.url, str(tmp_path), *PROMPTS],
            cwd=pathlib.Path(__file__).parent.parent.parent,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        server.wait_until_held(CONCURRENCY)
        asker.send_signal(signal.SIGINT)
        try:
            said, errors = asker.communicate(timeout=60)
        except subprocess.TimeoutExpired:  # with what it was doing, rather than with nothing
            asker.send_signal(signal.SIGABRT)
            said, errors = asker.communicate(timeout=60)
            pytest.fail(f"it did not stop within 60 s\n{said}\n{errors}")
        assert server.arrivals == dict.fromkeys([*QUICK, *SLOW], 1)
        config = EndpointConfig(base_url=server.url, model="m", concurrency=CONCURRENCY, first_backoff_seconds=0.0)
        with Endpoint(config, tmp_path, quiet=True) as endpoint:
            results = endpoint.respond(
                [Request(messages=(Message("user", prompt),), max_tokens=8) for prompt in PROMPTS]
            )
            spending = endpoint.spending
    assert (said, errors, asker.returncode) == ("stopped by hand\n", "", 130)
    assert [result.text for result in results] == [reply(prompt) for prompt in PROMPTS]
    assert server.arrivals == dict.fromkeys([*QUICK, *REST], 1) | dict.fromkeys(SLOW, 2)
    assert spending.attempts == sum(server.arrivals.values())
    assert (spending.reported, spending.assumed) == (len(PROMPTS), CONCURRENCY)
    assert (spending.prompt_tokens, spending.reply_tokens) == (server.prompt_tokens, server.reply_tokens)


def test_torn_last_lines_are_cut_off_with_a_warning_and_asked_again(tmp_path: pathlib.Path):
    asked = [Request(prompt=prompt, max_tokens=8) for prompt in ("a", "b")]
    with FaultServer() as server:
        config = EndpointConfig(base_url=server.url, model="m", concurrency=1)
        with Endpoint(config, tmp_path, quiet=True) as endpoint:
            first = endpoint.respond(asked)
        replies = tmp_path / "replies.jsonl"
        replies.write_bytes(replies.read_bytes()[:-5])
        with pytest.warns(UserWarning, match="cut off a torn last record"):
            endpoint = Endpoint(config, tmp_path, quiet=True)
        with endpoint:
            assert endpoint.respond(asked) == first
    assert server.arrivals == {"a": 1, "b": 2}
