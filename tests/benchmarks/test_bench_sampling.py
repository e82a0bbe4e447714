"""The sampling benchmark at a tiny size: the ways it compares give equal texts, and its limit is the formula's."""

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks import bench_sampling, measure
from jaxrefine.models.flops import num_params

TINY = measure.Model(vocab_size=61, width=16, num_layers=2, num_heads=2, num_kv_heads=1, hidden_width=24)


@pytest.mark.slow
@pytest.mark.torch
def test_three_ways_sample_as_many_tokens_and_sharing_changes_no_text():
    options = bench_sampling.Options(
        candidates=(3,), weights="random", prompts=2, prompt=9, new=6, slots=6, columns=1, model=TINY, repeats=2
    )
    [record] = [json.loads(json.dumps(found, allow_nan=False)) for found in bench_sampling.run(options)]
    assert record["equal_texts"] == 1.0
    assert record["shapes"] == {"k": 3, "prompts": 2, "P": 9.0, "R": 6, "rows": 6, "columns": 1}
    assert set(record["ways"]) == {"engine", "repeated", "transformers"}
    for way in record["ways"].values():
        assert way["tokens"] == 2 * 3 * 6
        assert way["tokens_per_second"] * way["seconds"]["median"] == pytest.approx(36)
    assert set(record["rate_ratio"]) == {"repeated", "transformers"}
    assert record["limit"] is record["share_of_limit"] is None  # a CPU


def test_the_limit_is_what_memory_reads_in_a_step():
    config = dataclasses.replace(TINY.config(32), vocab_size=61)
    weights, token = 2 * num_params(config), 2 * 2 * 2 * 1 * 8
    read = weights + token * (5 * 100 + 5 * 4 * 7)
    found = bench_sampling.limit(config, "bfloat16", rows=5, columns=4, prompt=100, held=7, peak=1e6)
    assert found == pytest.approx(20 * 1e6 / read)


def test_no_limit_where_the_bandwidth_is_not_known():
    assert bench_sampling.peak_bytes() is None  # a CPU
