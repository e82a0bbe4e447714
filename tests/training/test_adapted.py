"""Adapters trained over weights that stay as they are: gradients, meshes, checkpoints, and what may not change."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.conversion.apply import by_path
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.lora import LoraConfig, init_adapters
from jaxrefine.scoring.adapted import AdaptedObjective, freeze
from jaxrefine.scoring.objectives import make_objective
from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.loop import TrainConfig, fit
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import digest_of, init_params, init_state
from jaxrefine.training.step import make_eval_step, make_train_step
from tests.training.test_objectives import MODEL, OBJECTIVES, QUICKLY, assert_close, batch_for

LORA = LoraConfig(rank=2, alpha=4.0)
ADAMW = OptimizerConfig(learning_rate=0.02, schedule="constant")


@functools.cache
def one_device():
    return make_mesh(devices=jax.devices()[:1])


@functools.cache
def whole_params(name):
    objective = make_objective(OBJECTIVES[name], Decoder(MODEL, dtype=jnp.float32))
    return init_params(objective, jax.random.key(0), batch_for(name))


def started(name, *, base="as_given", lora=LORA):
    """The objective, its trained parameters (B is not zero), and its frozen ones."""
    whole = whole_params(name)
    rng = np.random.default_rng(0)
    adapters = jax.tree.map(
        lambda x: jnp.asarray(0.1 * rng.normal(size=x.shape), jnp.float32),
        jax.eval_shape(lambda: init_adapters(jax.random.key(1), whole["model"], lora)),
    )
    params = {"adapters": adapters} | ({"scorer": whole["scorer"]} if "scorer" in whole else {})
    objective = AdaptedObjective(make_objective(OBJECTIVES[name], Decoder(MODEL, dtype=jnp.float32)), lora)
    return objective, params, freeze(whole["model"], base)


@functools.cache
def compiled(name, lora=LORA):
    objective = started(name, lora=lora)[0]
    return make_train_step(objective, make_optimizer(ADAMW, 6), mesh=one_device(), compiler_options=QUICKLY)


def train(name, workdir=None, *, steps=6, lora=LORA, frozen=None, **options):
    objective, params, own = started(name, lora=lora)
    config = TrainConfig(steps=steps, optimizer=ADAMW, log_every_steps=1, **options)
    losses = []
    state = fit(
        objective, params, [batch_for(name)] * 6, config, workdir, frozen=frozen or own, mesh=one_device(),
        train_step=compiled(name, lora), optimizer=make_optimizer(ADAMW, 6),
        on_metrics=lambda _, record: losses.append(record["loss"]),
    )  # fmt: skip
    return state, losses


def assert_same_bits(found, expected):
    found, expected = by_path(jax.device_get(found)), by_path(jax.device_get(expected))
    assert found.keys() == expected.keys()
    for path, leaf in expected.items():
        np.testing.assert_array_equal(found[path], leaf, err_msg=path)


def test_adapters_learn_and_the_base_stays_to_the_bit():
    _, params, frozen = started("pairwise")
    before = jax.device_get(frozen)
    state, losses = train("pairwise", frozen=frozen)
    assert losses[-1] < 0.8 * losses[0]
    assert_same_bits(state.frozen, before)
    assert_same_bits(frozen, before)  # the caller's arrays are there still: nothing of them was donated
    assert by_path(state.params).keys() == by_path(params).keys()
    for path, leaf in by_path(params).items():
        assert not np.array_equal(by_path(state.params)[path], leaf), path


def test_the_optimiser_holds_two_moments_of_each_adapter_and_nothing_else():
    _, params, frozen = started("ranking")
    state = init_state(params, make_optimizer(ADAMW, 6), jax.random.key(0), mesh=one_device(), frozen=frozen)
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt_state) if leaf.ndim)
    assert moments == 2 * sum(leaf.size for leaf in jax.tree.leaves(params))
    assert "adapters" in params
    assert sum(leaf.size for leaf in jax.tree.leaves(frozen)) == sum(
        leaf.size for leaf in jax.tree.leaves(whole_params("ranking")["model"])
    )


def test_gradients_are_those_of_the_weights_through_the_product():
    """dL/dB = s · dL/dW Aᵀ and dL/dA = s · Bᵀ dL/dW, with dL/dW of the merged model."""
    objective, params, frozen = started("likelihood")
    batch = batch_for("likelihood")
    plain = objective.objective

    def loss(apply, params):
        terms, _ = apply(params)
        return sum(coefficient * total / count for total, count, coefficient in terms.values())

    def gradient(apply, params):
        return jax.jit(jax.grad(lambda p: loss(apply, p)), compiler_options=QUICKLY)(params)

    by_adapter = gradient(lambda p: objective.apply({"params": p, "frozen": frozen}, batch), params)
    by_weight = gradient(lambda p: plain.apply({"params": p}, batch), objective.plain_params(params, frozen))
    found, weights, given = by_path(by_adapter["adapters"]), by_path(by_weight["model"]), by_path(params["adapters"])
    for path in found:
        place, leaf = path.rsplit("/", 1)
        g = np.asarray(weights[f"{place}/kernel"], np.float64)
        a, b = (np.asarray(given[f"{place}/{one}"], np.float64) for one in "ab")
        expected = np.einsum("lor,loi->lri", b, g) if leaf == "a" else np.einsum("loi,lri->lor", g, a)
        np.testing.assert_allclose(found[path], 2.0 * expected, rtol=0, atol=1e-5 * np.abs(2.0 * expected).max())


def test_a_mesh_of_eight_gives_what_one_device_gives():
    objective, params, frozen = started("pairwise", base="nf4")
    sgd = make_optimizer(OptimizerConfig(name="sgd", learning_rate=0.1, schedule="constant", clip_norm=None), 2)
    found = []
    for mesh in (one_device(), make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        state = init_state(params, sgd, jax.random.key(0), mesh=mesh, frozen=frozen)
        step = make_train_step(objective, sgd, mesh=mesh, compiler_options=QUICKLY)
        state, metrics = step(state, to_device(batch_for("pairwise"), mesh=mesh))
        found.append((float(metrics["loss"]), int(state.frozen_digest), jax.device_get(state.params)))
    (loss, digest, expected), (again, same, ours) = found
    np.testing.assert_allclose(again, loss, rtol=1e-5)
    assert digest == same != 0
    assert_close(ours, expected)


def test_a_stopped_run_goes_on_to_the_same_bits_with_dropout_and_saves_no_base(tmp_path):
    lora = LoraConfig(rank=2, alpha=4.0, dropout=0.3)
    expected, _ = train("ranking", lora=lora)
    assert not np.array_equal(
        by_path(expected.params)["adapters/layers/attention/query/a"],
        by_path(train("ranking")[0].params)["adapters/layers/attention/query/a"],
    )
    often = {"checkpoints": CheckpointConfig(every_steps=1), "lora": lora}
    train("ranking", tmp_path, steps=3, **often)
    state, losses = train("ranking", tmp_path, **often)
    assert len(losses) == 3
    assert_same_bits(state.params, expected.params)
    assert_same_bits(state.opt_state, expected.opt_state)
    names = "".join(path.read_text(errors="replace") for path in tmp_path.rglob("_METADATA"))
    assert "adapters" in names
    assert "embedding" not in names


def test_a_run_over_another_base_is_refused(tmp_path):
    train("ranking", tmp_path, steps=2, checkpoints=CheckpointConfig())
    _, _, frozen = started("ranking")
    frozen["model"]["norm"]["scale"] = frozen["model"]["norm"]["scale"].at[3].add(1e-6)
    with pytest.raises(ValueError, match="trained over other frozen weights"):
        train("ranking", tmp_path, frozen=frozen, checkpoints=CheckpointConfig())


def test_the_merged_model_has_the_loss_of_the_adapted_one():
    objective, params, frozen = started("ranking")
    mesh, batch = one_device(), to_device(batch_for("ranking"), mesh=one_device())
    state = init_state(params, make_optimizer(ADAMW, 6), jax.random.key(0), mesh=mesh, frozen=frozen)
    adapted = make_eval_step(objective, mesh=mesh)(state, batch)
    merged = make_eval_step(objective.objective, mesh=mesh)(objective.plain_params(params, frozen), batch)
    for name in ("loss/margin_ranking", "loss/likelihood"):
        np.testing.assert_allclose(adapted[name][0], merged[name][0], rtol=1e-5)


def test_any_changed_bit_and_any_exchange_shows_in_the_digest():
    tree = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.arange(3, dtype=jnp.int8)}
    same = {"a": jnp.arange(6.0).reshape(2, 3), "b": jnp.arange(3, dtype=jnp.int8)}
    others = [
        tree | {"a": tree["a"].at[1, 2].add(1e-6)},
        tree | {"a": tree["a"][:, jnp.array([1, 0, 2])]},
        tree | {"b": tree["b"].at[0].set(1)},
        {"a": tree["a"], "c": tree["b"]},
    ]
    assert int(digest_of(tree)) == int(digest_of(same))
    assert len({int(digest_of(one)) for one in (tree, *others)}) == 5


def test_what_is_frozen_keeps_norms_and_rounds_matrices():
    model = whole_params("ranking")["model"]
    frozen = freeze(model, "bfloat16")["model"]
    dtypes = {path: leaf.dtype for path, leaf in by_path(frozen).items()}
    assert {str(dtype) for path, dtype in dtypes.items() if path.endswith(("kernel", "embedding"))} == {"bfloat16"}
    assert {str(dtype) for path, dtype in dtypes.items() if path.endswith("scale")} == {"float32"}
    assert "kernel" not in freeze(model, "nf4")["model"]["layers"]["attention"]["query"]
