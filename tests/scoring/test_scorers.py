from __future__ import annotations

import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.data.packing import PackingConfig, TokenGroup, batch_from_groups
from jaxrefine.scoring.scorers import RewardHead, RouterHead, SequenceLogProb, VerdictLogOdds

V = 16
TABLE = np.log(np.random.default_rng(0).dirichlet(np.ones(V), V)).astype(np.float32)
"""A bigram model: TABLE[a, b] = log p(b | a)."""
BIGRAM = types.SimpleNamespace(output_embedding=lambda: jnp.asarray(TABLE.T))


def _hidden(batch) -> jax.Array:
    """One-hot of each token, so that hidden · embeddingᵀ is the token's row of the table."""
    return jax.nn.one_hot(batch.tokens, V, dtype=jnp.float32)


def _batch(*groups: TokenGroup, **options):
    packing = PackingConfig.fit(groups, rows=1, slots=64, **options)
    return batch_from_groups([groups], packing)


GROUP = TokenGroup(0, (1, 5), ((6, 7, 2), (8,)), suffix=(9,), verdicts=((11,), (12, 13)))
SUMS = np.array([TABLE[5, 6] + TABLE[6, 7] + TABLE[7, 2], TABLE[5, 8]])


@pytest.mark.parametrize(("power", "divisors"), [(0.0, (1, 1)), (1.0, (3, 1)), (1.3, (3**1.3, 1)), (2.0, (9, 1))])
def test_a_sequence_score_is_its_summed_log_prob_over_a_power_of_its_length(power, divisors):
    batch = _batch(GROUP)
    scores = SequenceLogProb(length_power=power).apply({}, BIGRAM, _hidden(batch), batch)
    np.testing.assert_allclose(scores.scores[0, 0], SUMS / np.array(divisors), rtol=1e-5)
    np.testing.assert_allclose(scores.sums[0, 0], SUMS, rtol=1e-5)


def test_a_verdict_is_scored_by_its_whole_word_after_the_sentence_that_asks_for_it():
    batch = _batch(GROUP, verdicts=True)
    scores = VerdictLogOdds().apply({}, BIGRAM, _hidden(batch), batch)
    right = TABLE[9, 11]
    wrong = TABLE[9, 12] + TABLE[12, 13]
    for n in range(2):
        np.testing.assert_allclose(scores.verdicts[0][0, 0, n], right, rtol=1e-5)
        np.testing.assert_allclose(scores.verdicts[1][0, 0, n], wrong, rtol=1e-5)
        expected = np.log(np.exp(right) / (np.exp(right) + np.exp(wrong)))
        np.testing.assert_allclose(scores.scores[0, 0, n], expected, rtol=1e-5)
    np.testing.assert_allclose(scores.sums[0, 0], SUMS, rtol=1e-5)  # the sentence and the words are no part of it


def test_verdicts_of_a_batch_without_verdict_words_are_refused():
    batch = _batch(GROUP)
    with pytest.raises(ValueError, match=r"pack with PackingConfig\(verdicts=True\)"):
        VerdictLogOdds().apply({}, BIGRAM, _hidden(batch), batch)


def test_heads_read_the_last_token_of_a_response_and_of_a_query():
    batch = _batch(GROUP, TokenGroup(1, (3,), rewards=(0.0, 1.0)))
    kernel = jnp.arange(V, dtype=jnp.float32)[None]
    reward = RewardHead().apply({"params": {"kernel": kernel}}, BIGRAM, _hidden(batch), batch)
    assert reward.scores[0, 0].tolist() == [2.0, 8.0]
    kernel = jnp.stack([kernel[0], -kernel[0]])
    router = RouterHead(num_models=2).apply({"params": {"kernel": kernel}}, BIGRAM, _hidden(batch), batch)
    assert router.logits[0].tolist() == [[5.0, -5.0], [3.0, -3.0]]


@pytest.mark.parametrize("scorer", [SequenceLogProb(), SequenceLogProb(length_power=0.0), VerdictLogOdds()])
def test_absent_candidates_and_padding_have_finite_scores_and_gradients(scorer):
    batch = _batch(GROUP, TokenGroup(1, (1, 4), ((2,),), suffix=(9,), verdicts=GROUP.verdicts), verdicts=True)

    def total(hidden):
        return jnp.sum(scorer.apply({}, BIGRAM, hidden, batch).scores)

    value, gradient = jax.value_and_grad(total)(_hidden(batch))
    assert np.isfinite(value)
    assert np.isfinite(gradient).all()


def test_nothing_reaches_padding():
    batch = _batch(GROUP)
    gradient = jax.grad(lambda h: jnp.sum(SequenceLogProb().apply({}, BIGRAM, h, batch).scores))(_hidden(batch))
    predicting = sorted(set(batch.sources[batch.leaves >= 0].tolist()))
    assert np.flatnonzero(np.abs(gradient[0]).sum(-1)).tolist() == predicting


def test_memory_does_not_grow_with_scored_tokens_times_vocabulary():
    vocab, width, sizes = 32_000, 8, []
    model = types.SimpleNamespace(output_embedding=lambda: jnp.zeros((vocab, width)))
    for num in (8, 24):  # two and six chunks of 1,024 tokens
        groups = [TokenGroup(i, (1, 5), ((6,) * 256,)) for i in range(num)]
        batch = batch_from_groups([groups], PackingConfig.fit(groups, rows=1, slots=264 * num))

        def total(hidden, batch):
            return jnp.sum(SequenceLogProb().apply({}, model, hidden, batch).scores)

        compiled = jax.jit(jax.grad(total)).lower(_hidden(batch)[..., :width], batch).compile()
        sizes.append(compiled.memory_analysis().temp_size_in_bytes)
    logits = 16 * 256 * vocab * 4  # of the sixteen groups more
    assert sizes[1] - sizes[0] < 0.1 * logits
