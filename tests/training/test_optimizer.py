"""Optimisers and schedules against arithmetic by hand and float64 NumPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer, make_schedule


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"schedule": "constant"}, [1, 1, 1, 1, 1]),
        ({"schedule": "constant", "warmup_steps": 2}, [0, 0.5, 1, 1, 1]),
        ({"schedule": "linear"}, [1, 0.75, 0.5, 0.25, 0]),
        ({"schedule": "linear", "final_share": 0.2}, [1, 0.8, 0.6, 0.4, 0.2]),
        ({"schedule": "linear", "warmup_share": 0.5}, [0, 0.5, 1, 0.5, 0]),
        ({"schedule": "cosine"}, [1, (2 + 2**0.5) / 4, 0.5, (2 - 2**0.5) / 4, 0]),
        ({"schedule": "cosine", "warmup_steps": 2, "final_share": 0.5}, [0, 0.5, 1, 0.75, 0.5]),
    ],
)
def test_schedules_by_hand(options, expected):
    schedule = make_schedule(OptimizerConfig(learning_rate=1.0, **options), 4)
    np.testing.assert_allclose([schedule(step) for step in range(5)], expected, rtol=1e-6, atol=1e-7)


def run(config, params, gradients):
    optimizer = make_optimizer(config, len(gradients))
    state = optimizer.init(params)
    for grads in gradients:
        updates, state = optimizer.update(grads, state, params)
        params = optax.apply_updates(params, updates)
    return params


def test_adamw_equals_its_paper_in_float64():
    rng = np.random.default_rng(0)
    start = rng.normal(size=(3, 4))
    gradients = rng.normal(size=(5, 3, 4))
    config = OptimizerConfig(
        learning_rate=0.01, schedule="constant", weight_decay=0.1, b1=0.8, b2=0.9, eps=1e-6, clip_norm=None
    )
    found = run(config, {"kernel": jnp.asarray(start, jnp.float32)}, [{"kernel": jnp.float32(g)} for g in gradients])
    x, m, v = start, np.zeros_like(start), np.zeros_like(start)
    for t, g in enumerate(gradients, 1):
        m, v = 0.8 * m + 0.2 * g, 0.9 * v + 0.1 * g * g
        x = x - 0.01 * (m / (1 - 0.8**t) / (np.sqrt(v / (1 - 0.9**t)) + 1e-6) + 0.1 * x)
    np.testing.assert_allclose(found["kernel"], x, rtol=1e-5)


def test_sgd_with_momentum_by_hand():
    config = OptimizerConfig(name="sgd", learning_rate=0.5, schedule="constant", momentum=0.5, clip_norm=None)
    found = run(config, {"kernel": jnp.float32([1.0])}, [{"kernel": jnp.float32([g])} for g in (1.0, 2.0)])
    np.testing.assert_allclose(found["kernel"], [1 - 0.5 * 1 - 0.5 * (2 + 0.5)])


def test_gradients_are_clipped_by_their_norm_over_all_parameters():
    config = OptimizerConfig(name="sgd", learning_rate=1.0, schedule="constant", clip_norm=1.0)
    found = run(config, {"a": jnp.zeros(1), "b": jnp.zeros(1)}, [{"a": jnp.float32([3.0]), "b": jnp.float32([4.0])}])
    np.testing.assert_allclose([found["a"][0], found["b"][0]], [-0.6, -0.8], rtol=1e-6)


def test_short_gradients_are_not_lengthened():
    config = OptimizerConfig(name="sgd", learning_rate=1.0, schedule="constant", clip_norm=1.0)
    assert run(config, {"a": jnp.zeros(1)}, [{"a": jnp.float32([0.25])}])["a"][0] == -0.25


@pytest.mark.parametrize(("name", "decays"), [("kernel", True), ("embedding", True), ("scale", False), ("bias", False)])
def test_weight_decay_shrinks_matrices_only(name, decays):
    config = OptimizerConfig(name="sgd", learning_rate=0.5, schedule="constant", weight_decay=0.5)
    found = run(config, {"layer": {name: jnp.ones((2, 2))}}, [{"layer": {name: jnp.zeros((2, 2))}}])
    np.testing.assert_allclose(found["layer"][name], 0.75 if decays else 1.0)


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"warmup_steps": 3, "warmup_share": 0.1}, "warmup_share"),
        ({"warmup_share": 1.5}, "warmup_share"),
        ({"learning_rate": -1.0}, "learning_rate"),
        ({"clip_norm": 0.0}, "clip_norm"),
    ],
)
def test_a_wrong_option_is_refused_by_name(options, named):
    with pytest.raises(ValueError, match=named):
        OptimizerConfig(**options)


@pytest.mark.parametrize(("field", "given", "nearest"), [("name", "adam", "adamw"), ("schedule", "cosin", "cosine")])
def test_an_unknown_name_is_refused_with_the_nearest(field, given, nearest):
    config = OptimizerConfig()
    object.__setattr__(config, field, given)  # past the type check of the tests
    with pytest.raises(ValueError, match=f"'{given}'; did you mean '{nearest}'"):
        config.__post_init__()


def test_a_warm_up_longer_than_the_run_is_refused():
    with pytest.raises(ValueError, match="longer than the run"):
        make_schedule(OptimizerConfig(warmup_steps=10), 5)


def test_the_state_is_made_of_arrays_only():
    state = make_optimizer(OptimizerConfig(), 5).init({"kernel": jnp.zeros((2, 2))})
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
