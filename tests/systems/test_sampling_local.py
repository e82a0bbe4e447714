"""Sampling from a model on this machine: what is on disk, in which order, and after being killed."""

from __future__ import annotations

import dataclasses
import json
import os
import pathlib
import signal
import subprocess
import sys

import pytest

from jaxrefine.artefacts.stages import run_stages
from jaxrefine.data.readers import read_candidates
from jaxrefine.sampling.diversity import Diversity
from jaxrefine.systems.sampling import LocalSampling, Share

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent
QUESTIONS = ["Mia has 3 pens and buys 4 more. How many pens has she?", "Leo eats 2 of 9 plums. How many are left?"]
CONFIG = {"num_candidates": 2, "max_new_tokens": 24, "slots": 4, "columns": 2, "num_devices": 1}

KILLED = """
import os, signal, sys
from jaxrefine.artefacts import journal
from jaxrefine import cli

append = journal.Journal.append

def append_and_die(self, key, record):
    append(self, key, record)
    if len(self) == 3:
        os.kill(os.getpid(), signal.SIGKILL)

journal.Journal.append = append_and_die
cli.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def prompts(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    path = tmp_path_factory.mktemp("prompts") / "prompts.jsonl"
    rows = [{"id": f"q{n}", "prompt": f"{QUESTIONS[n % 2]}{'!' * (n // 2)}\n"} for n in range(6)]
    rows[1] |= {"answer": "7", "meta": {"from": "here"}}
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(scope="module")
def config(prompts: pathlib.Path) -> LocalSampling:
    return LocalSampling(prompts=str(prompts), **CONFIG)


def sampled(config: LocalSampling, workdir: pathlib.Path) -> pathlib.Path:
    """The directory of the samples of a finished run."""
    run_stages(config.stages(), workdir, config)
    return workdir / "02-samples"


def records(directory: pathlib.Path) -> list[dict]:
    return [json.loads(line) for line in (directory / "samples.jsonl").read_text().splitlines()]


@pytest.fixture(scope="module")
def whole(config: LocalSampling, tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return sampled(config, tmp_path_factory.mktemp("whole"))


def test_records_come_in_the_order_of_the_prompts_with_all_that_is_known(whole: pathlib.Path):
    found = records(whole)
    assert [record["id"] for record in found] == [f"q{n}" for n in range(6)]
    assert (found[1]["answer"], found[1]["meta"]) == ("7", {"from": "here"})
    assert set(found[0]) == {"id", "prompt", "candidates", "provenance"}
    for record in found:
        assert record["provenance"]["policy"]["temperatures"] == [1.0]
        assert len(record["candidates"]) == 2
        for candidate in record["candidates"]:
            assert set(candidate) == {"text", "logprob", "num_tokens", "finished", "temperature"}
            assert candidate["logprob"] < 0 < candidate["num_tokens"] <= 24
            assert candidate["finished"] or candidate["num_tokens"] == 24


def test_judges_read_the_same_candidates(whole: pathlib.Path):
    for example, record in zip(read_candidates(whole / "candidates.jsonl", scored=False), records(whole), strict=True):
        assert example.responses == tuple(candidate["text"] for candidate in record["candidates"])
        assert example.finished == tuple(candidate["finished"] for candidate in record["candidates"])
        assert example.meta["sampled"] == record["provenance"]


def test_nothing_but_records_is_left(whole: pathlib.Path):
    assert {path.name for path in whole.iterdir()} == {"samples.jsonl", "candidates.jsonl", "manifest.json"}


def test_a_run_that_was_killed_loses_nothing_that_was_written_and_ends_with_the_same_bytes(
    config: LocalSampling, whole: pathlib.Path, tmp_path: pathlib.Path
):
    flags = [part for name, value in CONFIG.items() for part in (f"--{name.replace('_', '-')}", str(value))]
    command = ["run", "sampling/local", "--prompts", str(config.prompts), *flags, "--workdir", str(tmp_path)]
    environment = os.environ | {"PYTHONPATH": str(ROOT), "JAX_DEFAULT_MATMUL_PRECISION": "highest"}
    killed = subprocess.run([sys.executable, "-c", KILLED, *command], env=environment, capture_output=True, check=False)
    assert killed.returncode == -signal.SIGKILL, killed.stderr.decode()[-4000:]
    journal = tmp_path / "02-samples" / "journal.jsonl"
    written = journal.read_text().splitlines()
    assert len(written) == 3
    with open(journal, "a") as file:
        file.write('{"key":"q5","rec')  # as if it had died in the middle of the next one
    with pytest.warns(UserWarning, match="torn last record"):
        again = sampled(config, tmp_path)
    for name in ("samples.jsonl", "candidates.jsonl"):
        assert (again / name).read_bytes() == (whole / name).read_bytes()
    kept = [json.loads(line)["record"] for line in written]
    assert all(record in records(again) for record in kept)


def test_the_shares_of_several_processes_put_together_are_the_whole(
    config: LocalSampling, whole: pathlib.Path, tmp_path: pathlib.Path
):
    content = b""
    for index in range(2):
        part = dataclasses.replace(config, share=Share(index=index, count=2))
        content += (sampled(part, tmp_path / str(index)) / "samples.jsonl").read_bytes()
    assert content == (whole / "samples.jsonl").read_bytes()


@pytest.mark.parametrize("count", [1, 2, 3, 7, 10])
def test_shares_are_disjoint_cover_everything_and_differ_by_at_most_one(count: int):
    parts = [list(Share(index=index, count=count).of(range(7))) for index in range(count)]
    assert [item for part in parts for item in part] == list(range(7))
    assert max(map(len, parts)) - min(map(len, parts)) <= 1


def test_each_temperature_has_candidates_of_its_own(config: LocalSampling, whole: pathlib.Path, tmp_path: pathlib.Path):
    warm = dataclasses.replace(config, num_candidates=1, temperatures=(1.0, 0.5))
    for record, before in zip(records(sampled(warm, tmp_path)), records(whole), strict=True):
        assert [candidate["temperature"] for candidate in record["candidates"]] == [1.0, 0.5]
        assert record["candidates"][0] == before["candidates"][0]


def test_candidates_that_are_too_similar_are_drawn_again_a_little_warmer(
    config: LocalSampling, whole: pathlib.Path, tmp_path: pathlib.Path
):
    strict = dataclasses.replace(config, diversity=Diversity(threshold=1e-6, tries=1))
    again = 0
    for record, before in zip(records(sampled(strict, tmp_path)), records(whole), strict=True):
        first, second = record["candidates"]
        assert first == before["candidates"][0]
        assert second["temperature"] in (1.0, 1.1)
        assert (second["temperature"] == 1.0) == (second == before["candidates"][1])
        again += second["temperature"] == 1.1
    assert again > 0


def test_duplicates_are_left_out_where_asked(config: LocalSampling, tmp_path: pathlib.Path):
    cold = dataclasses.replace(config, temperatures=(0.01,), diversity=Diversity(drop_duplicates=True))
    assert [len(record["candidates"]) for record in records(sampled(cold, tmp_path))] == [1] * 6


def test_a_prompt_that_is_too_long_is_named(config: LocalSampling, tmp_path: pathlib.Path):
    path = tmp_path / "long.jsonl"
    path.write_text(json.dumps({"id": "epic", "prompt": "word " * 600}) + "\n")
    with pytest.raises(ValueError, match="prompt 'epic': .* tokens; with max_new_tokens = 24"):
        sampled(dataclasses.replace(config, prompts=str(path)), tmp_path / "run")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"temperatures": ()}, "at least one"),
        ({"temperatures": (1.0, 1.0)}, "each once"),
        ({"temperatures": (-1.0,)}, "temperature is -1.0"),
        ({"num_candidates": 0}, "num_candidates = 0"),
        ({"prompts": "nowhere.jsonl"}, "no file nowhere.jsonl; give yours with --prompts FILE"),
    ],
)
def test_nonsense_is_refused_before_anything_runs(changes: dict, message: str):
    with pytest.raises(ValueError, match=message):
        LocalSampling(**changes).stages()


def test_a_share_beyond_the_last_is_refused():
    with pytest.raises(ValueError, match=r"share.index = 2 must be 0 … share.count - 1 = 1"):
        Share(index=2, count=2)
