"""A job that samples from an endpoint: prompts in, candidates out, nothing paid twice."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from jaxrefine.artefacts.stages import run_stages
from jaxrefine.config import load
from jaxrefine.data.readers import read_candidates
from jaxrefine.judging.likelihood import SaidLikelihood
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.systems.sampling_endpoint import EndpointSampling, MissingError
from tests.sampling.fault_server import REPLY_TOKENS, FaultServer, reply

PROMPTS = [
    {"id": "a", "prompt": "one", "answer": "1", "meta": {"topic": "sums"}},
    {"id": "b", "prompt": "two three"},
    {"id": "c", "prompt": "one"},
]


def job(server: FaultServer, directory: pathlib.Path, **options) -> EndpointSampling:
    path = directory / "prompts.jsonl"
    path.write_text("".join(json.dumps(prompt) + "\n" for prompt in PROMPTS))
    endpoint = {"base_url": server.url, "model": "m", "first_backoff_seconds": 0.0, "max_attempts": 2, "concurrency": 1}
    endpoint |= options.pop("endpoint", {})
    chosen = {"endpoint": EndpointConfig(**endpoint), "prompts": str(path), "keep": str(directory / "keep")}
    return EndpointSampling(**chosen | {"num_candidates": 2, "max_tokens": 8} | options)


def test_prompts_become_candidates_that_say_where_they_come_from(tmp_path: pathlib.Path, capsys):
    with FaultServer() as server:
        configured = job(server, tmp_path, system="Be short.", temperature=0.7)
        run_stages(configured.stages(), tmp_path / "run", configured)
        run_stages(configured.stages(), tmp_path / "run", configured)
    examples = read_candidates(tmp_path / "run" / "02-samples" / "candidates.jsonl", scored=False)
    assert [(example.id, example.prompt, example.answer) for example in examples] == [
        ("a", "one", "1"),
        ("b", "two three", None),
        ("c", "one", None),
    ]
    assert [example.responses for example in examples] == [
        (reply("one"), reply("one")),
        (reply("two three"), reply("two three")),
        (reply("one"), reply("one")),
    ]
    assert examples[0].meta["topic"] == "sums"
    sampled = examples[0].meta["sampled"]
    assert (sampled["model"], sampled["policy"]["temperature"], sampled["system"]) == ("m", 0.7, "Be short.")
    assert server.url in sampled["endpoint"]
    records = [json.loads(line) for line in (tmp_path / "run" / "02-samples" / "samples.jsonl").open()]
    assert [record["id"] for record in records] == ["a", "b", "c"]
    candidate = {"text": reply("one"), "logprob": None, "num_tokens": REPLY_TOKENS, "finished": True, "model": "m"}
    assert records[0] == PROMPTS[0] | {"candidates": [candidate] * 2, "provenance": sampled}
    assert "does the server sample?" in capsys.readouterr().err  # this one does not
    # the same prompt under two ids is sampled twice as often
    assert server.arrivals == {"one": 4, "two three": 2}
    assert len({body["seed"] for body in server.bodies}) == 6
    assert {body["messages"][0]["content"] for body in server.bodies} == {"Be short."}
    spending = json.loads((tmp_path / "run" / "02-samples" / "spending.json").read_text())
    assert (spending["attempts"], spending["reply_tokens"]) == (6, 6 * REPLY_TOKENS)


def test_log_probabilities_are_kept_for_the_likelihood_judge(tmp_path: pathlib.Path):
    with FaultServer() as server:
        configured = job(server, tmp_path, protocol="completion", logprobs=True)
        run_stages(configured.stages(), tmp_path / "run", configured)
    examples = read_candidates(tmp_path / "run" / "02-samples" / "candidates.jsonl", scored=False)
    records = [json.loads(line) for line in (tmp_path / "run" / "02-samples" / "samples.jsonl").open()]
    assert {(one["logprob"], one["num_tokens"]) for one in records[1]["candidates"]} == {(-1.5, 3)}  # re:| two| three
    labelled = SaidLikelihood("m", length_power=1.0)(examples)
    # every token of a reply has log-probability -1/2: so has their mean
    assert [example.labels for example in labelled] == [(-0.5, -0.5)] * 3


def test_a_spent_budget_stops_the_job_and_a_higher_one_goes_on_from_there(tmp_path: pathlib.Path):
    with FaultServer() as server:
        # a reply takes 1 + 3 tokens and the next one may take 9 + 32 + 8: 8 + 49 > 50 stops it after two
        low = job(server, tmp_path, endpoint={"token_budget": 50})
        with pytest.raises(MissingError, match=r"(?s)4 of 6 candidates are missing:.*4 × budget: 8 tokens are spent"):
            run_stages(low.stages(), tmp_path / "low", low)
        assert not (tmp_path / "low" / "02-samples" / "candidates.jsonl").exists()
        high = dataclasses.replace(low, endpoint=dataclasses.replace(low.endpoint, token_budget=500))
        run_stages(high.stages(), tmp_path / "high", high)
    examples = read_candidates(tmp_path / "high" / "02-samples" / "candidates.jsonl", scored=False)
    assert [len(example.responses) for example in examples] == [2, 2, 2]
    assert sum(server.arrivals.values()) == 6


def test_a_share_of_failures_can_be_allowed(tmp_path: pathlib.Path):
    with FaultServer({"two three": ["400", "400"]}) as server:
        configured = job(server, tmp_path, missing_allowed=0.4)
        run_stages(configured.stages(), tmp_path / "run", configured)
    examples = read_candidates(tmp_path / "run" / "02-samples" / "candidates.jsonl", scored=False)
    assert [example.id for example in examples] == ["a", "c"]


def test_the_shipped_config_asks_for_prompts_and_for_the_key_before_anything_runs(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
):
    configured, prompts = load("sampling/endpoint"), tmp_path / "prompts.jsonl"
    with pytest.raises(ValueError, match="give yours with --prompts"):
        configured.stages()
    with pytest.raises(ValueError, match="there is no file .*prompts.jsonl"):
        dataclasses.replace(configured, prompts=str(prompts)).stages()
    prompts.write_text('{"id": "a", "prompt": "one"}\n')
    monkeypatch.delenv("TEACHER_KEY", raising=False)
    endpoint = dataclasses.replace(configured.endpoint, api_key_env="TEACHER_KEY")
    with pytest.raises(ValueError, match="TEACHER_KEY .* is not set"):
        dataclasses.replace(configured, prompts=str(prompts), endpoint=endpoint).stages()
