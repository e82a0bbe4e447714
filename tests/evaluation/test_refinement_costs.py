"""Tokens and FLOPs of the roles are those of the formulas, worked by hand."""

from __future__ import annotations

import dataclasses

import pytest

from jaxrefine.evaluation.refinement_costs import (
    Lengths,
    generation_cost,
    reading_work,
    scoring_cost,
    together,
    training_cost,
)
from jaxrefine.models.config import TransformerConfig

TINY = TransformerConfig(
    vocab_size=10, width=4, num_layers=1, num_heads=2, num_kv_heads=1, head_width=2, hidden_width=8
)
"""288 FLOPs a token, 16 a pair, 80 a scored token (the doctests of models.flops work them out)."""
TWO = Lengths(prompts=(3, 1), responses=((2, 1), (1,)))
"""Tokens 3 + 3 + 1 + 1 = 8; pairs (6 + 6 + 3 + 3 + 1) + (1 + 1 + 1) = 22; responses 4."""


def test_reading_counts_every_prompt_once_and_every_pair_that_sees_each_other() -> None:
    work = reading_work(TWO, scored=True)
    assert (work.tokens, work.scored, work.pairs) == (8, 4, 22)
    assert reading_work(TWO, scored=False).scored == 0


def test_training_is_three_forward_passes_an_epoch() -> None:
    forward = 8 * 288 + 22 * 16 + 4 * 80
    found = training_cost("Asker", TINY, TWO, epochs=2.5)
    assert found.flops == round(2.5 * 3 * forward)
    assert found.tokens == 20
    assert training_cost("Truster", TINY, TWO, scored=False).flops == 3 * (forward - 4 * 80)


def test_generating_never_reads_a_last_token_and_scoring_reads_them_all() -> None:
    """Prompt 3 with 2 tokens: 3 + 1 tokens read, 1 + 1 distributions, 6 + 4 pairs."""
    one = Lengths(prompts=(3,), responses=((2,),))
    assert generation_cost("ψ", TINY, one).flops == 4 * 288 + 10 * 16 + 2 * 80
    assert scoring_cost("Truster", TINY, one).flops == 5 * 288 + (6 + 6 + 3) * 16
    assert generation_cost("ψ", TINY, one, phase="training").phase == "training"


def test_costs_of_one_phase_add_up() -> None:
    one, other = training_cost("a", TINY, TWO), training_cost("b", dataclasses.replace(TINY, num_layers=2), TWO)
    both = together("both", [one, other])
    assert (both.tokens, both.flops, both.params) == (16, one.flops + other.flops, other.params)
    with pytest.raises(ValueError, match="one phase"):
        together("all", [one, scoring_cost("c", TINY, TWO)])


def test_what_cannot_be_counted_is_refused() -> None:
    with pytest.raises(ValueError, match="2 prompts need as many"):
        Lengths(prompts=(1, 2), responses=((1,),))
    with pytest.raises(ValueError, match="window of 4"):
        training_cost("Asker", dataclasses.replace(TINY, window=4), TWO)


def test_the_small_deciders_cost_what_their_size_says() -> None:
    """Per token and without attention a model costs six FLOPs a weight: 13B against 70B is near their ratio."""
    small = TransformerConfig(vocab_size=32000, width=5120, num_layers=40, num_heads=40, num_kv_heads=40,
                              head_width=128, hidden_width=13824)  # fmt: skip
    large = TransformerConfig(vocab_size=32000, width=8192, num_layers=80, num_heads=64, num_kv_heads=8,
                              head_width=128, hidden_width=28672)  # fmt: skip
    data = Lengths(prompts=(100,), responses=((100,),))
    ratio = training_cost("Truster", small, data).flops / training_cost("ψ", large, data).flops
    assert ratio == pytest.approx(12.85 / 68.7, rel=0.02)
