"""Faults of what is paid for: the ledger and the server's own account, and what is asked again after a kill."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib
import subprocess
import sys
from typing import Any

import numpy as np
from rich.console import Console

from benchmarks.faults.endpoints import MAX_TOKENS, ask, config_of
from benchmarks.faults.trial import Fault, Outcome
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.responder import Reply
from jaxrefine.systems.sampling_endpoint import EndpointSampling
from tests.sampling.fault_server import FaultServer, reply

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
AROUND = 32
"""Tokens that are assumed around the one message of a chat."""
Draw = np.random.Generator

_BILLED = ("", "", "500", "429 after=0", "null", "shapeless", "cut", "truncated", "empty", "silent", "400")
_PRICES = {"prompt_price": 3.0, "reply_price": 5.0}

_ASKER = """
import json, sys
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.responder import Message, Request
given = json.loads(sys.argv[1])
asked = [Request(messages=(Message("user", text),), max_tokens=8) for text in given["texts"]]
Endpoint(EndpointConfig(**given["config"]), given["workdir"], quiet=True).respond(asked)
"""


def _killed_when_all_hang(program: str, given: dict[str, Any], server: FaultServer, number: int) -> None:
    """Runs a process until so many requests hang, which is all that it has under way, and kills it."""
    with subprocess.Popen(
        [sys.executable, "-c", program, json.dumps(given)],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    ) as asker:
        try:
            server.wait_until_held(number)
        finally:
            asker.kill()


def _ledger(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    """A process that is killed, a run under a cap, and one without: at each point, what the server counted."""
    concurrency = int(draw.integers(1, 5))
    texts = [f"{number} {'word ' * int(draw.integers(0, 5))}." for number in range(40)]
    faults = {text: [str(draw.choice(_BILLED))] * int(draw.integers(1, 3)) for text in texts}
    slow = [texts[index] for index in draw.choice(len(texts), concurrency, replace=False)]
    faults |= {text: ["hang"] for text in slow}
    workdir = directory / "work"
    with FaultServer(faults) as server:
        config = config_of(server.url, concurrency=concurrency, **_PRICES)
        given = {"texts": texts, "config": dataclasses.asdict(config), "workdir": str(workdir)}
        _killed_when_all_hang(_ASKER, given, server, concurrency)
        wrong = _differs(config, workdir, server)
        with Endpoint(config, workdir, quiet=True) as endpoint:
            cap = endpoint.spending.tokens + int(draw.integers(0, 600))
        _, capped = ask(dataclasses.replace(config, token_budget=cap), workdir, texts)
        wrong = wrong or _differs(config, workdir, server)
        if capped.tokens > cap:
            wrong = wrong or f"{capped.tokens} tokens under a cap of {cap}"
        results, spending = ask(config, workdir, texts)
        wrong = wrong or _differs(config, workdir, server)
        arrivals = sum(server.arrivals.values())
    for text, result in zip(texts, results, strict=True):
        said = result.text if isinstance(result, Reply) else result.reason
        if said != reply(text) and not (faults[text][0] == "400" and said.startswith("HTTP 400")):
            wrong = wrong or f"{text!r} ended as {result}"
    figures = {"attempts": float(arrivals), "charged_by_bound": float(spending.assumed)}
    return Outcome(passed=not wrong, detail=wrong, figures=figures)


def _differs(config: EndpointConfig, workdir: pathlib.Path, server: FaultServer) -> str:
    """How the ledger on disk differs from the server's account; "" where it does not.

    What a server does not say (a cut or empty reply, a dead client) is charged at its bound: every byte of the prompt
    and what stands around it, and all the tokens that it may answer.
    """
    with Endpoint(config, workdir, quiet=True) as endpoint:
        spending = endpoint.spending
    bounds = [(len(text.encode()) + AROUND, MAX_TOKENS) for text in server.unknown_prompts]
    prompts = server.prompt_tokens + sum(prompt for prompt, _ in bounds)
    replies = server.reply_tokens + sum(replied for _, replied in bounds)
    counted = {
        "attempts": sum(server.arrivals.values()),
        "prompt_tokens": server.prompt_tokens,
        "reply_tokens": server.reply_tokens,
        "assumed": server.unknown,
        "tokens": prompts + replies,
    }
    for name, number in counted.items():
        if getattr(spending, name) != number:
            return f"{name} are {getattr(spending, name)} in the ledger, and {number} at the server"
    cost = (prompts * 3.0 + replies * 5.0) / 1e6
    return "" if math.isclose(spending.cost, cost, rel_tol=1e-9) else f"${spending.cost} for what costs ${cost}"


_SAMPLER = """
import json, sys
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.systems.sampling_endpoint import EndpointSampling
given = json.loads(sys.argv[1])
config = EndpointSampling(**given["config"] | {"endpoint": EndpointConfig(**given["config"]["endpoint"])})
run_stages(config.stages(), given["workdir"], config)
"""


def _sampling(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    concurrency, num_prompts, each = int(draw.integers(1, 5)), 20, 3
    prompts = [f"question {number}" for number in range(num_prompts)]
    path = directory / "prompts.jsonl"
    path.write_text("".join(json.dumps({"id": text, "prompt": text}) + "\n" for text in prompts))
    slow = {prompts[index]: ["hang"] for index in draw.choice(num_prompts, concurrency, replace=False)}
    with FaultServer(slow) as server:
        endpoint = config_of(server.url, concurrency=concurrency)
        fields = {"prompts": str(path), "keep": str(directory / "keep"), "num_candidates": each}
        config = EndpointSampling(endpoint=endpoint, **fields)
        given = {"config": fields | {"endpoint": dataclasses.asdict(endpoint)}, "workdir": str(directory / "stopped")}
        _killed_when_all_hang(_SAMPLER, given, server, concurrency)
        kept = len(Journal(directory / "keep" / "replies.jsonl"))
        before = len(server.bodies)
        run_stages(config.stages(), directory / "stopped", config, Console(quiet=True))
        asked = [(body["messages"][-1]["content"], body["seed"]) for body in server.bodies]
        whole = dataclasses.replace(config, keep=str(directory / "another"))
        run_stages(whole.stages(), directory / "whole", whole, Console(quiet=True))
    names = ("samples.jsonl", "candidates.jsonl")
    found = [[(directory / run / "02-samples" / name).read_bytes() for name in names] for run in ("stopped", "whole")]
    repeated = len(asked) - len(set(asked))
    good = found[0] == found[1] and len(asked) - before == num_prompts * each - kept and repeated == concurrency
    return Outcome(
        passed=good and len(set(asked)) == num_prompts * each,
        detail=f"same bytes: {found[0] == found[1]}; {kept} kept, {len(asked) - before} asked after; {repeated} twice",
        figures={"replies_kept": float(kept), "asked_twice": float(repeated)},
    )


FAULTS = (
    Fault(
        name="D3-endpoint",
        title="sampling from an endpoint, SIGKILL at random points, resumed",
        criterion="the files are those of an uninterrupted run, byte by byte; what was answered is not asked again; "
        "no more is asked twice than was under way",
        trial=_sampling,
        num_trials=100,
        num_fast=1,
    ),
    Fault(
        name="P2",
        title="retries that are billed, SIGKILL, a restart, a cap on tokens",
        criterion="attempts, tokens and dollars of the ledger equal the server's account exactly; the cap is never "
        "exceeded",
        trial=_ledger,
        num_trials=100,
        num_fast=2,
    ),
)
