"""The one train step with the real decoder: every shape of supervision gives on a mesh what it gives on one device."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.data.packing import PackingConfig, TokenGroup, batch_from_groups, plan_rows
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.scoring.objectives import ObjectiveConfig, make_objective
from jaxrefine.sharding import MeshConfig, make_mesh, path_of
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import init_params, init_state
from jaxrefine.training.step import make_train_step

MODEL = TransformerConfig(
    vocab_size=32, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4, hidden_width=32
)
SGD = OptimizerConfig(name="sgd", learning_rate=0.1, schedule="constant", momentum=0.9, clip_norm=None)
QUICKLY = {"xla_backend_optimization_level": 0}
MODELS = 3
OBJECTIVES = {
    "likelihood": ObjectiveConfig(mle_weight=1.0, mle_normalize="token"),
    "ranking": ObjectiveConfig(loss="margin_ranking", mle_weight=0.5),
    "pairwise": ObjectiveConfig(loss="pairwise_logistic", scorer="reward", per="pair"),
    "classification": ObjectiveConfig(loss="verdict_cross_entropy", scorer="verdict"),
    "distillation": ObjectiveConfig(loss="reward_distillation", scorer="router", num_models=MODELS),
    "preference": ObjectiveConfig(loss="dpo"),
}


def groups_of(name):
    rng = np.random.default_rng(0)
    routed = name == "distillation"
    for group_id in range(16):
        num = 0 if routed else int(rng.integers(1, 4))
        responses = tuple(tuple(rng.integers(3, 32, rng.integers(1, 6)).tolist()) for _ in range(num))
        yield TokenGroup(
            group_id,
            tuple(rng.integers(3, 32, rng.integers(1, 5)).tolist()),
            responses,
            labels=tuple(float(n % 2) for n in range(num)),
            mle_weight=tuple(float(n == 0) for n in range(num)),
            reference_scores=tuple((-rng.random(num) * 9).tolist()),
            verdicts=((11,), (12, 13)) if name == "classification" else None,
            rewards=tuple(rng.normal(size=MODELS).tolist()) if routed else None,
        )


@functools.cache
def batch_for(name):
    groups = list(groups_of(name))
    config = PackingConfig.fit(groups, rows=8, slots=64, verdicts=name == "classification")
    config = dataclasses.replace(config, groups=2)  # few enough a row that every row has some
    planned = plan_rows([config.measure(group) for group in groups], config)
    assert len(planned) == 8
    return batch_from_groups([[groups[i] for i in row] for row in planned], config)


def train(name, mesh, *, num_microbatches=1, dtype=jnp.float32, attention="expand"):
    objective = make_objective(OBJECTIVES[name], Decoder(MODEL, dtype=dtype, attention=attention))
    batch = batch_for(name)
    params = init_params(objective, jax.random.key(0), batch)
    optimizer = make_optimizer(SGD, 3)
    state = init_state(params, optimizer, jax.random.key(1), mesh=mesh)
    step = make_train_step(objective, optimizer, mesh=mesh, num_microbatches=num_microbatches, compiler_options=QUICKLY)
    losses = []
    for _ in range(2):
        state, metrics = step(state, to_device(batch, mesh=mesh, num_microbatches=num_microbatches))
        losses.append(float(metrics["loss"]))
    return losses, jax.device_get(state)


@functools.cache
def expected(name):
    return train(name, make_mesh(devices=jax.devices()[:1]))


def assert_close(found, wanted):
    wanted = dict(jax.tree_util.tree_leaves_with_path(wanted))
    for path, value in jax.tree_util.tree_leaves_with_path(found):
        reference = np.asarray(wanted[path], np.float64)
        error = np.abs(np.asarray(value, np.float64) - reference).max() / max(np.abs(reference).max(), 1e-30)
        assert error <= 1e-5, (path_of(path), error)


@pytest.mark.parametrize("name", OBJECTIVES)
def test_every_objective_learns_something(name):
    losses, state = expected(name)
    assert losses[1] != losses[0] > 0
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(state.params))


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_mesh_of_eight_gives_the_losses_gradients_and_parameters_of_one_device(name):
    losses, state = train(name, make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    np.testing.assert_allclose(losses, expected(name)[0], rtol=1e-5)
    assert_close(state.params, expected(name)[1].params)
    assert_close(state.opt_state, expected(name)[1].opt_state)


def test_a_mesh_that_splits_more_than_the_heads_gives_it_too():
    losses, state = train("ranking", make_mesh(MeshConfig(data=1, fsdp=2, tensor=4)))
    np.testing.assert_allclose(losses, expected("ranking")[0], rtol=1e-5)
    assert_close(state.params, expected("ranking")[1].params)


@pytest.mark.parametrize("name", ["likelihood", "ranking", "classification"])
def test_accumulation_gives_what_one_large_batch_gives(name):
    losses, state = train(name, make_mesh(devices=jax.devices()[:1]), num_microbatches=4)
    np.testing.assert_allclose(losses, expected(name)[0], rtol=1e-5)
    assert_close(state.params, expected(name)[1].params)


def test_bf16_compute_keeps_fp32_master_weights_and_gradients():
    losses, state = train("likelihood", make_mesh(devices=jax.devices()[:1]), dtype=jnp.bfloat16)
    assert {leaf.dtype for leaf in jax.tree.leaves(state.params)} == {np.dtype(np.float32)}
    np.testing.assert_allclose(losses, expected("likelihood")[0], rtol=2e-2)
    trace = next(leaf for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim > 1)
    assert trace.dtype == np.float32
