"""The routing benchmark at a tiny size: its fields, and that batches change no query's probabilities."""

from __future__ import annotations

import json

import pytest

from benchmarks import bench_routing


def test_queries_are_routed_alike_in_batches_and_alone() -> None:
    options = bench_routing.Options(
        queries=6, longest=12, singles=2, models=2, vocab_size=280, width=8, num_layers=1, num_heads=1,
        hidden_width=8, max_prompt=32, num_features=16, repeats=1,
    )  # fmt: skip
    [record] = [json.loads(json.dumps(found, allow_nan=False)) for found in bench_routing.run(options)]
    assert record["largest_difference"] <= 1e-5
    assert 0 < record["used"] <= 1
    assert record["compilations"] == 1  # all queries are cut at 32 tokens, and eight devices take eight rows at least
    for name, count in (("batched", 6), ("one by one", 2), ("words", 6)):
        way = record["ways"][name]
        assert way["queries_per_second"] * way["seconds"]["median"] == pytest.approx(count)
    assert record["shapes"]["tokens"] <= 6 * 32
