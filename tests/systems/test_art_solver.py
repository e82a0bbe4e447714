"""A solver behind an endpoint gives what a local one gives: candidates in order, and which word it prefers."""

from __future__ import annotations

import pathlib

import pytest

from jaxrefine.artefacts.stages import StageError
from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import read_candidates
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sampling.responder import Failure, Reply, Request
from jaxrefine.systems.art_solver import AskedSolver
from tests.judging.scripted import Scripted

PROMPTS = [Candidates("a", "2+3?", answer="5"), Candidates("b", "1+1?", answer="2")]


def warm(request: Request) -> Reply:
    prompt = request.messages[0].content
    return Reply(text=f"{prompt} at {request.temperature:g}", finished=request.temperature < 0.5)


def test_samples_come_in_the_order_of_prompts_and_temperatures(tmp_path: pathlib.Path) -> None:
    script = Scripted(warm)
    config = SamplingConfig(num_candidates=1, temperatures=(0.0, 0.7), max_new_tokens=9)
    found = AskedSolver(script).sample(PROMPTS, config, tmp_path / "kept", description="answers")
    assert [one.responses for one in found] == [("2+3? at 0", "2+3? at 0.7"), ("1+1? at 0", "1+1? at 0.7")]
    assert [one.finished for one in found] == [(True, False)] * 2
    assert read_candidates(tmp_path / "kept/candidates.jsonl") == found
    assert len({request.seed for request in script.asked}) == 4
    assert {request.max_tokens for request in script.asked} == {9}


def test_a_text_to_go_on_with_has_no_messages(tmp_path: pathlib.Path) -> None:
    script = Scripted(lambda request: f"after {request.prompt}")
    config = SamplingConfig(num_candidates=1, temperatures=(0.0,))
    [one, _] = AskedSolver(script, chat=False).sample(PROMPTS, config, tmp_path, description="answers")
    assert one.responses == ("after 2+3?",)


def test_the_word_that_a_reply_begins_with_is_preferred() -> None:
    said = iter(["**No**, it is fine.", "yes", "Perhaps. No?", ""])
    solver = AskedSolver(Scripted(lambda request: next(said)))
    choices = [Candidates(str(n), "Is it?", ("Yes", "No"), (0.0, 0.0)) for n in range(4)]
    # the script answers from the last request to the first
    assert solver.prefer(choices) == [(0.0, 0.0), (0.0, 0.0), (1.0, 0.0), (0.0, 1.0)]


def test_a_reply_that_is_missing_stops_the_stage() -> None:
    solver = AskedSolver(Scripted(lambda request: Failure(kind="budget", reason="spent")))
    with pytest.raises(StageError, match="scripted: budget: spent; the same command goes on"):
        solver.prefer([Candidates("a", "Is it?", ("Yes", "No"), (0.0, 0.0))])
