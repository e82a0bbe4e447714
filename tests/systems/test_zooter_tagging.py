"""A file of queries gets tags from a model, once each, and what gets none is named with the reason."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import pathlib

import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.data.examples import Routed
from jaxrefine.data.readers_routing import read_routed, write_routed
from jaxrefine.systems import zooter_tagging
from jaxrefine.systems.zooter_tagging import Tagging
from tests.judging.scripted import Scripted

QUERIES = [
    Routed(name, f"{name} for me!", ("small", "large"), (0.0, 1.0), ("old",)) for name in ("sing", "add", "talk")
]
REPLIES = {"sing": '["Music", "verse"]', "add": '["math", "music"]', "talk": "What about?"}


@pytest.fixture
def job(tmp_path: pathlib.Path) -> Tagging:
    write_routed(tmp_path / "queries.jsonl", QUERIES)
    return dataclasses.replace(config.load("zooter/tags"), queries=str(tmp_path / "queries.jsonl"), per_round=2)


def answer(monkeypatch: pytest.MonkeyPatch) -> Scripted:
    model = Scripted(lambda request: next(text for name, text in REPLIES.items() if f"{name} for" in str(request)))
    monkeypatch.setattr(zooter_tagging, "Endpoint", lambda endpoint, keep: contextlib.nullcontext(model))
    return model


def test_queries_are_written_with_their_tags_and_failures_apart(job: Tagging, tmp_path, monkeypatch) -> None:
    model = answer(monkeypatch)
    run_stages(job.stages(), tmp_path / "run", job)
    assert [len(asked) for asked in model.rounds] == [2, 1]
    found = read_routed(tmp_path / "run/01-tags/tagged.jsonl")
    assert [query.tags for query in found] == [("music", "verse"), ("math", "music"), ()]
    assert [query.rewards for query in found] == [query.rewards for query in QUERIES]
    [failed] = map(json.loads, (tmp_path / "run/01-tags/failed.jsonl").read_text().splitlines())
    assert failed["id"] == "talk"
    summary = json.loads((tmp_path / "run/01-tags/summary.json").read_text())
    assert (summary["queries"], summary["failed"], summary["model"]) == (3, 1, "scripted")
    assert summary["tags"] == {"music": 2, "verse": 1, "math": 1}


def test_a_round_that_was_asked_is_not_asked_again(job: Tagging, tmp_path, monkeypatch) -> None:
    model = answer(monkeypatch)
    job.tag(tmp_path)
    journal = (tmp_path / "asked.jsonl").read_text().splitlines(keepends=True)
    (tmp_path / "asked.jsonl").write_text("".join(journal[:2]))
    job.tag(tmp_path)
    assert [len(asked) for asked in model.rounds] == [2, 1, 1]
    assert (tmp_path / "asked.jsonl").read_text().splitlines(keepends=True) == journal


def test_a_mistake_is_said_before_anything_is_asked(job: Tagging) -> None:
    with pytest.raises(ValueError, match="give yours with --queries FILE"):
        config.load("zooter/tags").stages()
    with pytest.raises(ValueError, match="there is no directory 'nowhere'; give yours with --model"):
        dataclasses.replace(job, model="nowhere").stages()
    with pytest.raises(ValueError, match="per_round = 0 must be at least 1"):
        dataclasses.replace(job, per_round=0).stages()
