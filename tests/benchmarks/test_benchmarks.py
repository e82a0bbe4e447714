"""Each benchmark at a tiny size: what it prints has the fields, and what it compares gives the same numbers."""

from __future__ import annotations

import dataclasses
import json
import math
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from benchmarks import bench_generate, bench_logprobs, bench_lora, bench_packing, bench_train_step, measure
from jaxrefine.models.attention import ANYWHERE
from jaxrefine.models.lora import LoraConfig

ROOT = pathlib.Path(__file__).parent.parent.parent
TINY = measure.Model(vocab_size=61, width=16, num_layers=2, num_heads=2, num_kv_heads=1, hidden_width=24)
ALWAYS = {"benchmark", "platform", "device", "num_devices", "host", "versions", "seed", "repeats", "dtype", "shapes"}
SPREAD = {"median", "low_quartile", "high_quartile", "min", "max"}


def lines(records: Any) -> list[dict[str, Any]]:
    """What the benchmark would print, read back: strict JSON."""
    read = [json.loads(json.dumps(record, allow_nan=False)) for record in records]
    for record in read:
        assert record.keys() >= ALWAYS
        assert record["platform"] == "cpu"
    return read


def test_packing_compares_four_ways_of_one_and_the_same_gradient():
    options = bench_packing.Options(
        candidates=(3,), prompts=(7,), responses=(5,), groups=3, rows=2, model=TINY, repeats=2
    )
    for record, N in zip(lines(bench_packing.run(options)), (3,), strict=True):
        names = {f"{layout}, {backend}" for layout in ("shared", "repeated") for backend in ANYWHERE}
        assert set(record["ways"]) == names
        assert record["predicted_ratio"] == N * (7 + 5) / (7 + N * 5)
        for name in names:
            assert record["relative_difference"][name]["loss"] <= 1e-5
            assert record["relative_difference"][name]["gradient"] <= 1e-4
            assert set(record["time_ratio"][name]) == set(record["ways"][name]["seconds"]) == SPREAD
            assert record["memory_ratio"][name] > 0
            tokens = 3 * (N * 12 if name.startswith("repeated") else 7 + N * 5)
            assert record["ways"][name]["slots"] * 2 * record["ways"][name]["used"] == pytest.approx(tokens)
        assert record["flops_ratio"]["repeated, dense"] == 1.0
        assert record["flops_ratio"]["shared, expand"] == record["flops_ratio"]["shared, dense"]
        assert record["flops_ratio"]["shared, expand"] > 1.0


def test_the_predicted_ratio_nears_the_number_of_candidates_where_prompts_are_long():
    assert bench_packing.predicted_ratio(4, 0, 10) == 1.0
    assert bench_packing.predicted_ratio(4, 10**9, 1) == pytest.approx(4.0)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_chunked_and_plain_log_probs_are_equal_in_value_and_gradient(chunk_size: int | None):
    options = bench_logprobs.Options(tokens=(9,), vocabulary=(13,), width=8, chunk_size=chunk_size, repeats=1)
    for record, M in zip(lines(bench_logprobs.run(options)), (9,), strict=True):
        assert record["shapes"] == {"M": M, "V": 13, "D": 8}
        assert record["chunk_size"] == (chunk_size or M)
        assert record["gradient"]["flops"] == 3 * record["value"]["flops"] == 6 * M * 13 * 8
        for what in ("value", "gradient"):
            assert record[what]["relative_difference"] <= 1e-5
            assert set(record[what]["chunked"]["seconds"]) == set(record[what]["time_ratio"]) == SPREAD
            assert record[what]["plain"]["memory_bytes"]["temporaries"] >= 0


def test_log_probs_can_be_measured_at_sizes_where_the_plain_form_does_not_fit():
    [record] = lines(bench_logprobs.run(bench_logprobs.Options(tokens=(6,), vocabulary=(13,), width=8, plain=False)))
    assert "plain" not in record["value"]
    assert "time_ratio" not in record["value"]


def train_steps(**changes: Any) -> list[dict[str, Any]]:
    options = bench_train_step.Options(groups=4, rows=2, candidates=3, prompt=6, response=4, model=TINY, repeats=2)
    return lines(bench_train_step.run(dataclasses.replace(options, **changes)))


@pytest.mark.slow
def test_kinds_of_objectives_take_finite_steps():
    kinds = ("ranking", "classification", "distillation")  # the others: tests/training/test_objectives.py
    records = train_steps(kinds=kinds)
    assert [record["kind"] for record in records] == list(kinds)
    for record in records:
        assert record["finite"]
        assert math.isfinite(record["last_loss"])
        assert record["last_loss"] != record["first_loss"]
        assert record["flops"] > 0
        assert record["peak_memory_bytes"] > 0
        assert record["tokens_per_second"] * record["seconds"]["median"] == pytest.approx(record["tokens"])
        assert record["mfu"] is None
        assert set(record["seconds"]) == SPREAD


@pytest.mark.slow
def test_a_train_step_does_not_depend_on_the_attention_backend():
    records = train_steps(kinds=("ranking",), attention=ANYWHERE)
    assert [record["attention"] for record in records] == list(ANYWHERE)
    first = records[0]["first_loss"]
    assert [record["first_loss"] for record in records] == pytest.approx([first] * len(records), rel=1e-5)


@pytest.mark.slow
def test_adapters_are_compared_with_training_everything():
    lora = LoraConfig(rank=2, targets=("attention/query",))
    options = bench_lora.Options(
        bases=("nf4",), lora=lora, groups=4, rows=2, candidates=3, prompt=6, response=4, model=TINY, repeats=2
    )
    everything, adapters = lines(bench_lora.run(options))
    assert (everything["base"], everything["drift"], everything["time_ratio"]) == ("all", 0.0, 1.0)
    assert everything["trained"] == everything["model"]["num_params"]
    assert adapters["trained"] == 2 * 2 * (16 + 16)  # layers, rank, in and out
    assert 0 < adapters["drift"] < 0.1
    assert adapters["finite"]
    assert adapters["state_ratio"] == everything["state_bytes"] / adapters["state_bytes"] > 1
    assert set(adapters["seconds"]) == SPREAD


def test_a_kind_of_objective_that_is_not_there_is_named_with_the_nearest():
    with pytest.raises(ValueError, match="did you mean 'likelihood'"):
        bench_train_step.Options(kinds=("likelyhood",))


def test_candidates_from_one_prefill_are_those_of_repeated_prompts():
    options = bench_generate.Options(candidates=(3,), prompt=9, new=6, groups=2, model=TINY, repeats=1)
    for record, k in zip(lines(bench_generate.run(options)), (3,), strict=True):
        assert record["equal_tokens"] == 1.0
        assert record["logprob_difference"] <= 1e-4
        assert record["shapes"]["k"] == k
        assert record["cache_ratio"] == pytest.approx(k * (32 + 5) / (32 + k * 5))
        for way in record["ways"].values():
            assert set(way["seconds"]) == SPREAD
            assert way["new_tokens_per_second"] * way["seconds"]["median"] == pytest.approx(2 * k * 6)


def test_calls_are_timed_in_turns():
    order: list[str] = []
    calls = {name: lambda name=name: order.append(name) for name in "abc"}
    seconds, _ = measure.interleaved(calls, repeats=3, seed=0, warmups=2)
    assert {name: len(values) for name, values in seconds.items()} == {"a": 3, "b": 3, "c": 3}
    assert [sorted(order[turn : turn + 3]) for turn in range(0, 15, 3)] == [["a", "b", "c"]] * 5
    assert len({tuple(order[turn : turn + 3]) for turn in range(0, 15, 3)}) > 1


def test_ratios_are_taken_round_by_round():
    assert measure.ratios([2.0, 40.0, 6.0], [1.0, 10.0, 3.0]) == {
        "median": 2.0, "low_quartile": 2.0, "high_quartile": 3.0, "min": 2.0, "max": 4.0,
    }  # fmt: skip


def test_no_share_of_a_peak_that_is_not_known():
    assert measure.peak_flops("float32") is None
    assert measure.peak_flops("bfloat16") is None  # a CPU


@pytest.mark.slow
@pytest.mark.parametrize("name", ["packing", "logprobs", "train_step", "generate"])
def test_the_command_explains_its_flags(name: str):
    finished = subprocess.run(
        [sys.executable, "-m", f"benchmarks.bench_{name}", "--help"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    assert "--repeats" in finished.stdout
    assert "--seed" in finished.stdout
