"""One train step: the same numbers on any mesh and in any number of microbatches; nothing non-finite gets in."""

from __future__ import annotations

import functools

import jax
import numpy as np
import pytest

from jaxrefine.sharding import MeshConfig, make_mesh, path_of
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import init_params, init_state
from jaxrefine.training.step import make_eval_step, make_train_step
from tests.training.tiny_objective import TinyObjective, make_batch

SGD = OptimizerConfig(name="sgd", learning_rate=0.5, schedule="constant", momentum=0.9, clip_norm=1.0)
ADAMW = OptimizerConfig(learning_rate=0.01, schedule="constant", weight_decay=0.1)
MESHES = [
    MeshConfig(),
    MeshConfig(data=1, fsdp=8),
    MeshConfig(data=2, fsdp=2, tensor=2),
    MeshConfig(data=1, fsdp=2, tensor=4),
    MeshConfig(data=1, tensor=8),
    MeshConfig(data=4, fsdp=2, slices=2),
]


def one_device():
    return make_mesh(devices=jax.devices()[:1])


@functools.cache
def new_params():
    return init_params(TinyObjective(), jax.random.key(0), make_batch(0))


def start(mesh, config):
    params, optimizer = new_params(), make_optimizer(config, 4)
    return optimizer, init_state(params, optimizer, jax.random.key(1), mesh=mesh)


@functools.cache
def compiled(mesh, config, num_microbatches):
    return make_train_step(TinyObjective(), make_optimizer(config, 4), mesh=mesh, num_microbatches=num_microbatches)


def train(mesh, config, *, num_microbatches=1, batches=None):
    _, state = start(mesh, config)
    step = compiled(mesh, config, num_microbatches)
    metrics = []
    for batch in batches or [make_batch(seed) for seed in range(3)]:
        state, values = step(state, to_device(batch, mesh=mesh, num_microbatches=num_microbatches))
        metrics.append(jax.device_get(values))
    return jax.device_get(state), metrics


def assert_close(found, expected, *, rtol):
    """Relative to the largest element of each leaf."""
    expected = dict(jax.tree_util.tree_leaves_with_path(expected))
    for path, value in jax.tree_util.tree_leaves_with_path(found):
        want = np.asarray(expected[path], np.float64)
        error = np.abs(np.asarray(value, np.float64) - want).max() / max(np.abs(want).max(), 1e-30)
        assert error <= rtol, (path_of(path), error)


def assert_same_bits(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_eight_devices_give_the_losses_gradients_and_parameters_of_one(mesh):
    state, metrics = train(make_mesh(mesh), SGD)
    expected_state, expected_metrics = train(one_device(), SGD)
    assert_close(metrics, expected_metrics, rtol=1e-5)
    assert_close(state.params, expected_state.params, rtol=1e-5)
    # The momentum is the decayed sum of the gradients themselves.
    assert_close(state.opt_state, expected_state.opt_state, rtol=1e-5)


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_adamw_on_eight_devices_stays_within_a_tenth_of_the_learning_rate(mesh):
    state, _ = train(make_mesh(mesh), ADAMW)
    expected, _ = train(one_device(), ADAMW)
    for a, b in zip(jax.tree.leaves(state.params), jax.tree.leaves(expected.params), strict=True):
        np.testing.assert_allclose(a, b, rtol=0, atol=0.1 * ADAMW.learning_rate)


@pytest.mark.parametrize("num_microbatches", [2, 4, 8])
def test_accumulation_over_unequal_lengths_equals_one_large_batch(num_microbatches):
    state, metrics = train(one_device(), SGD, num_microbatches=num_microbatches)
    expected_state, expected_metrics = train(one_device(), SGD)
    assert_close(metrics, expected_metrics, rtol=1e-5)
    assert_close(state.params, expected_state.params, rtol=1e-5)


def test_accumulation_on_a_mesh_equals_one_large_batch_on_one_device():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    state, metrics = train(mesh, SGD, num_microbatches=2)
    expected_state, expected_metrics = train(one_device(), SGD)
    assert_close(metrics, expected_metrics, rtol=1e-5)
    assert_close(state.params, expected_state.params, rtol=1e-5)


def test_a_mean_of_microbatch_means_would_be_another_loss():
    """The batch is such that the biased form differs, so that the tests above can fail."""
    batch = make_batch(0)
    halves = [jax.tree.map(lambda x, i=i: x[4 * i : 4 * i + 4], batch) for i in range(2)]
    counts = [float(TinyObjective().counts(half)["likelihood"]) for half in halves]
    assert counts[0] != counts[1]


def test_the_loss_is_the_sum_of_its_terms_each_over_its_global_count():
    _, (metrics, *_) = train(one_device(), SGD, num_microbatches=4)
    batch = make_batch(0)
    assert metrics["count/likelihood"] == (batch.mle_weight * batch.lengths).sum()
    assert metrics["count/hinge"] == 8
    np.testing.assert_allclose(metrics["loss"], metrics["loss/likelihood"] + 0.5 * metrics["loss/hinge"], rtol=1e-6)


def test_token_counts_are_those_of_the_batch():
    batch = make_batch(0)
    _, (metrics, *_) = train(one_device(), SGD)
    assert metrics["scored_tokens"] == batch.lengths.sum()
    assert metrics["tokens"] == batch.lengths.sum() + 3 * 8  # prompts of three tokens
    assert metrics["groups"] == 8


def test_groups_without_anything_to_learn_from_are_counted():
    batch = make_batch(0)
    where, weight = batch.rank_where.copy(), batch.mle_weight.copy()
    where[:2], weight[:2] = False, 0
    _, (metrics,) = train(one_device(), SGD, batches=[batch.replace(rank_where=where, mle_weight=weight)])
    assert metrics["share_without_loss"] == 0.25


def poisoned(value, seed=7):
    batch = make_batch(seed)
    weight = batch.mle_weight.copy()
    weight[0, 0, 0] = value
    return batch.replace(mle_weight=weight)


@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_a_non_finite_step_leaves_every_bit_of_weights_and_optimiser_alone(value, num_microbatches):
    good = [make_batch(seed) for seed in range(2)]
    state, metrics = train(one_device(), ADAMW, num_microbatches=num_microbatches, batches=[*good, poisoned(value)])
    expected, _ = train(one_device(), ADAMW, num_microbatches=num_microbatches, batches=good)
    assert_same_bits((state.params, state.opt_state), (expected.params, expected.opt_state))
    assert (state.step, state.num_skipped, state.num_bad_in_a_row) == (3, 1, 1)
    assert [values["finite"] for values in metrics] == [1, 1, 0]


def test_a_batch_with_nothing_to_learn_changes_nothing_and_is_not_called_bad():
    batch = make_batch(0)
    empty = batch.replace(rank_where=np.zeros_like(batch.rank_where), mle_weight=np.zeros_like(batch.mle_weight))
    state, metrics = train(one_device(), ADAMW, batches=[make_batch(1), empty])
    expected, _ = train(one_device(), ADAMW, batches=[make_batch(1)])
    assert_same_bits((state.params, state.opt_state), (expected.params, expected.opt_state))
    assert (state.num_skipped, state.num_bad_in_a_row) == (1, 0)
    assert metrics[-1]["loss"] == 0


@pytest.mark.parametrize("mesh", [one_device(), make_mesh(), make_mesh(MeshConfig(fsdp=2, tensor=2))], ids=str)
@pytest.mark.parametrize("form", [np.asarray, jax.numpy.asarray])
def test_the_state_is_donated_and_the_first_parameters_survive(mesh, form):
    objective = TinyObjective()
    params, optimizer = jax.tree.map(form, new_params()), make_optimizer(SGD, 4)
    before = jax.tree.map(np.array, params)
    state = init_state(params, optimizer, jax.random.key(1), mesh=mesh)
    make_train_step(objective, optimizer, mesh=mesh)(state, to_device(make_batch(0), mesh=mesh))
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(state.params))
    assert_same_bits(params, before)


def test_parameters_and_moments_stay_where_the_rules_put_them():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    optimizer, state = start(mesh, ADAMW)
    shardings = jax.tree.map(lambda x: x.sharding, state)
    step = make_train_step(TinyObjective(), optimizer, mesh=mesh)
    state, _ = step(state, to_device(make_batch(0), mesh=mesh))
    embedding = state.params["model"]["embed/embedding"]
    assert embedding.addressable_shards[0].data.shape == (8, 4)
    for found, expected in zip(jax.tree.leaves(state), jax.tree.leaves(shardings), strict=True):
        assert found.sharding.is_equivalent_to(expected, found.ndim)


def test_one_compilation_serves_every_batch_of_a_shape_and_every_seed(caplog):
    mesh = one_device()
    optimizer, state = start(mesh, SGD)
    step = make_train_step(TinyObjective(), optimizer, mesh=mesh)
    batches = [to_device(make_batch(seed), mesh=mesh) for seed in range(3)]
    state, _ = step(state, batches[0])
    _, other_seed = start(mesh, SGD)
    with jax.log_compiles(True):
        for batch in batches:
            state, _ = step(state, batch)
            other_seed, _ = step(other_seed, batch)
    assert not [record for record in caplog.records if "Compiling" in record.getMessage()]
    assert len(step.compiled) == 1


def test_what_compiling_cost_is_known():
    mesh = one_device()
    optimizer, state = start(mesh, SGD)
    step = make_train_step(TinyObjective(), optimizer, mesh=mesh)
    compiled = step.compile(state, to_device(make_batch(0), mesh=mesh))
    in_state = sum(leaf.nbytes for leaf in jax.tree.leaves(state))
    assert compiled.compile_seconds > 0
    assert compiled.peak_memory_bytes > in_state
    assert step.peak_memory_bytes == compiled.peak_memory_bytes


def test_evaluation_gives_sums_and_counts():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    _, state = start(mesh, SGD)
    found = make_eval_step(TinyObjective(), mesh=mesh)(state.params, to_device(make_batch(0), mesh=mesh))
    _, (metrics, *_) = train(one_device(), SGD)
    total, count = found["loss/likelihood"]
    np.testing.assert_allclose(total / count, metrics["loss/likelihood"], rtol=1e-5)


@pytest.mark.parametrize(("rows", "num_microbatches"), [(8, 3), (6, 1), (8, 2)])
def test_rows_that_do_not_divide_are_refused_with_the_numbers(rows, num_microbatches):
    with pytest.raises(ValueError, match=f"{rows} rows"):
        to_device(make_batch(0, rows=rows), mesh=make_mesh(), num_microbatches=num_microbatches)


def test_counts_that_do_not_match_the_terms_are_refused():
    class Careless(TinyObjective):
        def counts(self, batch):
            return {"likelihood": super().counts(batch)["likelihood"]}

    mesh = one_device()
    optimizer, state = start(mesh, SGD)
    with pytest.raises((ValueError, KeyError), match="hinge"):
        make_train_step(Careless(), optimizer, mesh=mesh)(state, to_device(make_batch(0), mesh=mesh))


def test_a_pretrained_model_takes_the_place_of_a_new_one_and_only_that():
    objective = TinyObjective()
    params = new_params()
    model = jax.tree.map(lambda x: x + 1.0, params["model"])
    found = init_params(objective, jax.random.key(0), make_batch(0), pretrained=model)
    assert_same_bits(found, {"model": model})


def test_a_pretrained_model_of_another_shape_is_refused_by_name():
    objective = TinyObjective()
    model = dict(new_params()["model"])
    model["norm/scale"] = model["norm/scale"][:-1]
    model["extra"] = model.pop("embed/embedding")
    with pytest.raises(ValueError, match=r"missing embed/embedding \[16, 8\].*left over extra.*norm/scale is \[7\]"):
        init_params(objective, jax.random.key(0), make_batch(0), pretrained=model)


def test_new_parameters_are_the_same_on_any_mesh():
    objective = TinyObjective()
    alone = new_params()
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    assert_same_bits(init_params(objective, jax.random.key(0), make_batch(0), mesh=mesh), alone)
