"""Formulas of speed, with values worked by hand."""

import dataclasses

import pytest

from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.packing import PackingConfig, batch_from_groups
from jaxrefine.models.config import TransformerConfig
from jaxrefine.planning.collectives import Collective
from jaxrefine.planning.roofline import attended_pairs, decode_roofline, mfu_max, roofline, tokens_needed
from jaxrefine.planning.topology import CHIPS, parse_topology

MODEL = TransformerConfig(
    vocab_size=10, width=4, num_layers=1, num_heads=2, num_kv_heads=1, head_width=2, hidden_width=8
)
WEIGHTS = 4 * 4 + 2 * 4 * 2 + 4 * 4 + 3 * 4 * 8  # of the layer: queries, keys and values, out, feed-forward


def _rows():
    """One group: a prompt of 2, two responses of 1. Tokens 4, scored 2; visible pairs 4 + 3 + 1 + 1."""
    group = TokenGroup(0, (1, 2), ((3,), (4,)))
    config = PackingConfig(rows=1, slots=8, scored=2, groups=1, candidates=2, expand=True, paths=2, path_length=3)
    return batch_from_groups([[group]], config)


def _roofline(**changes):
    given = {
        "topology": parse_topology("h100x8"), "remat": "full", "attention": "splash", "num_microbatches": 1,
        "row_shards": 8, "updated_bytes": 3352,
    }  # fmt: skip
    return roofline(MODEL, _rows(), **(given | changes))


def test_pairs_that_a_backend_computes_beyond_those_that_are_visible():
    rows = _rows()
    assert attended_pairs("dense", rows, 9) == 64
    assert attended_pairs("expand", rows, 9) == 2 * 3 * 3
    assert attended_pairs("cudnn", rows, 9) == 9
    assert attended_pairs("splash", rows, 9) == 9


def test_model_flops_are_three_forward_passes_and_full_remat_adds_one():
    weights, pairs, head = 2 * WEIGHTS * 4, 4 * 4 * 9, 2 * 4 * 10 * 2
    found = _roofline()
    assert found.model_flops == 3 * (weights + pairs + head)
    assert found.executed_flops == 4 * (weights + pairs + head)
    assert _roofline(remat="dots").executed_flops == 3 * weights + 4 * (pairs + head)
    assert _roofline(remat="none").executed_flops == 3 * (weights + pairs) + 4 * head
    assert _roofline(attention="dense").executed_flops == 4 * (weights + head + 4 * 4 * 64)


def test_a_step_takes_the_slower_of_products_and_network_and_then_the_update():
    found = _roofline()
    assert found.compute_seconds == pytest.approx(found.executed_flops / (8 * 989e12 * 0.75))
    assert found.update_seconds == pytest.approx(1e-9)
    assert found.step_seconds == pytest.approx(found.compute_seconds + 1e-9)
    sent = Collective(kind="all-gather", group=8, count=1, bytes=450_000, largest="", is_complete=True)
    slower = _roofline(sent=(sent, dataclasses.replace(sent, kind="all-reduce")))
    assert slower.collective_seconds == pytest.approx(2e-6)
    assert slower.step_seconds == pytest.approx(2e-6 + 1e-9)
    assert slower.mfu == pytest.approx(found.model_flops / (slower.step_seconds * 8 * 989e12))


def test_the_most_that_can_be_reached_by_policy():
    assert mfu_max(CHIPS["v5p"], "full", MODEL) == pytest.approx(0.87 * 6 / 8)
    assert mfu_max(CHIPS["v5p"], "dots", MODEL) == 0.87


@pytest.mark.parametrize(
    ("name", "tokens"), [("v5p-16", 2550), ("v6e-16", 5100), ("v5e-16", 2189), ("h100x8", 2198), ("h100x16", 19780)]
)
def test_tokens_a_device_needs_for_products_to_take_longer_than_gathering(name, tokens):
    assert tokens_needed(parse_topology(name)) == pytest.approx(tokens, abs=1)


def test_tokens_of_a_device_and_microbatch():
    found = _roofline(num_microbatches=2, row_shards=1)
    assert (found.tokens, found.tokens_per_device) == (4, 2.0)
    assert not found.is_compute_bound


def test_a_decoding_step_reads_weights_and_caches_once():
    """16 GB of weights and 25.6 GB of caches over four v5p: 3.8 ms, if the products were free."""
    read = {"weight_bytes": 4_000_000_000, "cache_bytes": 6_400_000_000, "topology": parse_topology("v5p-8")}
    found = decode_roofline(flops=0.0, slots=512, **read)
    assert found.step_seconds == pytest.approx(10.4e9 / 2765e9)
    assert found.step_seconds == pytest.approx(3.8e-3, rel=0.02)
    assert found.tokens_per_second == pytest.approx(512 / found.step_seconds)
    bound = decode_roofline(flops=16e9 * 512, slots=512, **read)
    assert bound.step_seconds == pytest.approx(16e9 * 512 / (4 * 459e12 * 0.87))
