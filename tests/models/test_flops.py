"""FLOPs against hand counts and against what XLA says of a small unscanned case."""

from __future__ import annotations

import dataclasses

import jax
import numpy as np
import pytest

from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.layout import batch_from_groups
from jaxrefine.data.shapes import PackingConfig
from jaxrefine.models.flops import Work, batch_work, forward_flops, generation_work, train_flops
from tests.models.tiny import CONFIG, apart, logits, make

GROUPS = (
    TokenGroup(0, (1, 5, 6), ((7, 2), (8, 9, 2))),
    TokenGroup(1, (1, 4), ((3, 3, 2), (2,))),
    TokenGroup(2, (1,), ((5, 2), (6, 2))),
)


WORK = Work(tokens=10, scored=4, pairs=30)


def packing(**changes):
    return PackingConfig(rows=2, slots=40, scored=24, groups=2, candidates=2, **changes)


def test_a_packed_batch_counts_real_tokens_scored_tokens_and_visible_pairs():
    work = batch_work(batch_from_groups([GROUPS[:2], GROUPS[2:]], packing()))
    triangle = [0, 1, 3, 6, 10]
    pairs = [triangle[3] + 2 * 3 + triangle[2] + 3 * 3 + triangle[3]]
    pairs += [triangle[2] + 3 * 2 + triangle[3] + 1 * 2 + triangle[1]]
    pairs += [triangle[1] + 2 * (2 * 1 + triangle[2])]
    assert work == Work(tokens=8 + 6 + 5, scored=5 + 4 + 4, pairs=sum(pairs))


def test_prompts_that_are_not_shared_count_once_a_candidate():
    work = batch_work(batch_from_groups([GROUPS[:1], GROUPS[2:]], packing(share_prompt=False)))
    assert work.tokens == (3 + 2) + (3 + 3) + 2 * (1 + 2)
    assert work.pairs == 15 + 21 + 2 * 6


def test_an_empty_batch_is_no_work():
    assert batch_work(batch_from_groups([], packing())) == Work(tokens=0, scored=0, pairs=0)


def test_flops_by_hand():
    layer = 24 * (32 + 16 + 16) + 32 * 24 + 3 * 24 * 40  # query, key, value; out; gate, up, down
    attention = 4 * 2 * 4 * 8 * 30
    assert forward_flops(CONFIG, WORK) == 2 * 2 * layer * 10 + attention + 2 * 24 * 61 * 4
    assert train_flops(CONFIG, WORK) == 3 * forward_flops(CONFIG, WORK)


def test_generation_reads_a_prompt_once_and_never_a_last_token():
    work = generation_work([5, 3], [[4, 1], [2, 2]])
    assert work.tokens == 5 + 3 + (3 + 0) + (1 + 1)
    assert work.scored == 2 + 3 + 0 + 1 + 1
    assert work.pairs == 15 + (6 + 7 + 8) + 6 + 2 * 4


def test_flops_agree_with_xla_on_one_layer():
    config = dataclasses.replace(CONFIG, num_layers=1, width=64, hidden_width=192, vocab_size=256, head_width=16)
    decoder, params = make(config)
    S = 64
    row = apart([[0] * S])

    def forward(params):
        return logits(decoder, params, decoder.apply({"params": params}, **row, method="trunk"))

    costs = jax.jit(forward).lower(params).compile().cost_analysis()
    expected = forward_flops(config, Work(tokens=S, scored=S, pairs=S * S))  # dense attention computes every pair
    np.testing.assert_allclose(costs["flops"], expected, rtol=0.05)


@pytest.mark.parametrize("field", ["tokens", "scored", "pairs"])
def test_work_adds(field):
    one = Work(**{name: name == field for name in ("tokens", "scored", "pairs")})
    assert getattr(one + one, field) == 2


def test_a_window_leaves_far_pairs_out_of_the_layers_that_have_it():
    config = dataclasses.replace(CONFIG, window=3, window_layers=(True, False))
    plain, windowed = forward_flops(CONFIG, WORK), forward_flops(config, dataclasses.replace(WORK, near=12))
    assert plain - windowed == 4 * 4 * 8 * (30 - 12)  # 4 Q H pairs, in one of two layers
    with pytest.raises(ValueError, match="window=3"):
        forward_flops(config, WORK)


def test_near_pairs_go_by_positions():
    work = batch_work(batch_from_groups([GROUPS[:1], []], packing()), window=2)
    assert work.near == (1 + 2 + 2) + (2 + 2) + (2 + 2 + 2)  # a prompt of 3, responses of 2 and 3
    assert generation_work([3], [[2, 3]], window=2).near == (1 + 2 + 2) + 2 + (2 + 2)


def test_flops_of_a_plain_block_with_a_narrow_embedding():
    config = dataclasses.replace(CONFIG, gated=False, embed_width=10)
    layer = 24 * (32 + 16 + 16) + 32 * 24 + 2 * 24 * 40
    expected = 2 * 2 * layer * 10 + 4 * 2 * 4 * 8 * 30 + 2 * 24 * 10 * (10 + 4) + 2 * 10 * 61 * 4
    assert forward_flops(config, WORK) == expected
