"""Which tokens a policy can choose, and how often."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.sampling.policies import Greedy, Policy, choose, draw, likeliest, truncated

PROBABILITIES = np.array([0.1, 0.4, 0.05, 0.25, 0.2])
LOGITS = jnp.log(jnp.asarray(PROBABILITIES, jnp.float32))[None]


def kept(policy, logits=LOGITS):
    weights = truncated(policy.form, policy.values, logits)[0]
    return np.asarray(weights / weights.sum())


def test_temperature_one_is_the_model_itself():
    np.testing.assert_allclose(kept(Policy()), PROBABILITIES, rtol=1e-5)


def test_temperature_raises_probabilities_to_its_inverse():
    expected = PROBABILITIES ** (1 / 0.5)
    np.testing.assert_allclose(kept(Policy(temperature=0.5)), expected / expected.sum(), rtol=1e-5)


@pytest.mark.parametrize(("k", "tokens"), [(1, [1]), (2, [1, 3]), (4, [0, 1, 3, 4]), (9, [0, 1, 2, 3, 4])])
def test_top_k_keeps_the_k_likeliest(k, tokens):
    assert np.flatnonzero(kept(Policy(top_k=k))).tolist() == tokens


@pytest.mark.parametrize(
    ("p", "tokens"), [(0.3, [1]), (0.41, [1, 3]), (0.7, [1, 3, 4]), (0.9, [0, 1, 3, 4]), (0.99, [0, 1, 2, 3, 4])]
)
def test_top_p_keeps_the_smallest_set_that_reaches_p(p, tokens):
    assert np.flatnonzero(kept(Policy(top_p=p))).tolist() == tokens


def test_top_p_is_measured_after_temperature_and_top_k():
    policy = Policy(temperature=0.5, top_k=3, top_p=0.8)  # squares .16 .0625 .04 of .2625: .61 .24 .15
    assert np.flatnonzero(kept(policy)).tolist() == [1, 3]


def test_truncation_equals_a_sort_on_random_logits():
    logits = 3 * jax.random.normal(jax.random.key(0), (50, 301))
    policy = Policy(top_k=40, top_p=0.8)
    weights = np.asarray(truncated(policy.form, policy.values, logits))
    for row, logit in zip(weights, np.asarray(logits, np.float64), strict=True):
        order = np.argsort(-logit)[:40]
        mass = np.exp(logit[order]) / np.exp(logit[order]).sum()
        number = int(np.searchsorted(np.cumsum(mass), 0.8)) + 1
        assert set(np.flatnonzero(row)) == set(order[:number])


def test_ties_with_the_last_kept_token_are_kept():
    logits = jnp.log(jnp.array([[0.4, 0.2, 0.2, 0.2]]))
    assert np.flatnonzero(kept(Policy(top_k=2), logits)).tolist() == [0, 1, 2, 3]


@pytest.mark.parametrize("vocabulary", [5, 32, 100])
def test_draws_follow_the_weights(vocabulary):
    weights = jnp.asarray(np.random.default_rng(1).gamma(0.5, size=vocabulary), jnp.float32)
    number = 40_000
    tokens = draw(jnp.tile(weights[None], (number, 1)), jax.random.split(jax.random.key(2), number))
    expected = np.asarray(weights / weights.sum(), np.float64)
    counts = np.bincount(np.asarray(tokens), minlength=vocabulary)
    deviation = np.sqrt(number * expected * (1 - expected))
    assert (np.abs(counts - number * expected) < 5 * deviation + 1).all()


def test_a_weight_of_zero_is_never_drawn():
    weights = jnp.tile(jnp.array([[0.0, 1e-30, 0.0, 1.0, 0.0] + [0.0] * 60 + [0.5, 0.0]]), (5000, 1))
    tokens = np.asarray(draw(weights, jax.random.split(jax.random.key(0), 5000)))
    assert set(tokens) == {3, 65}


def test_greedy_takes_the_first_of_the_likeliest():
    assert likeliest(jnp.array([[0.0, 2.0, 2.0], [-5.0, -7.0, -6.0]])).tolist() == [1, 0]


def test_a_temperature_near_zero_is_greedy_and_finite():
    policy = Policy(temperature=1e-4, top_k=3, top_p=0.9)
    keys = jax.random.split(jax.random.key(0), 1)
    assert choose(policy.form, policy.values, LOGITS, keys).tolist() == [1]
    assert choose(Greedy.form, Greedy.values, LOGITS, keys).tolist() == [1]


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"top_k": -1}, "top_k"),
        ({"top_p": 0.0}, "top_p"),
        ({"top_p": 1.5}, "top_p"),
    ],
)
def test_nonsense_is_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        Policy(**fields)
