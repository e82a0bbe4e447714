"""How a train state is stored: split by the rules, in fewer bytes, on the host; and what it computes all the same."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.sharding import HOST, MeshConfig, make_mesh, path_of
from jaxrefine.training.checkpoints import Checkpoints
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import OFFLOADS_FROM, abstract_state, init_params, init_state
from jaxrefine.training.step import make_train_step
from tests.training.tiny_objective import TinyModel, TinyObjective, make_batch

needs_offloading = pytest.mark.skipif(
    jax.__version_info__ < OFFLOADS_FROM, reason="XLA of this jaxlib cannot place scalars beside arrays on the host"
)
CONSTANT = {"learning_rate": 0.01, "schedule": "constant"}


class WideObjective(TinyObjective):
    def setup(self):
        self.model = TinyModel(vocab=16, width=32, hidden=64)


def cube():
    return make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))


def one_device():
    return make_mesh(devices=jax.devices()[:1])


@functools.cache
def new_params():
    return init_params(WideObjective(), jax.random.key(0), make_batch(0))


def train(mesh, config, *, steps=3, num_microbatches=1, objective=None, params=None):
    optimizer = make_optimizer(config, 4)
    state = init_state(params or new_params(), optimizer, jax.random.key(1), mesh=mesh)
    step = make_train_step(objective or WideObjective(), optimizer, mesh=mesh, num_microbatches=num_microbatches)
    losses = []
    for seed in range(steps):
        state, metrics = step(state, to_device(make_batch(seed), mesh=mesh, num_microbatches=num_microbatches))
        losses.append(float(metrics["loss"]))
    return state, losses


def matrices(tree):
    """Everything of a matrix: itself, its moments, their codes and scales; by path."""
    leaves = {path_of(path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
    return {path: leaf for path, leaf in leaves.items() if "kernel" in path or "embedding" in path}


@pytest.mark.parametrize("moments", ["float32", "bfloat16", "int8"])
def test_no_matrix_and_no_moment_of_one_is_whole_on_any_device(moments):
    optimizer = make_optimizer(OptimizerConfig(moments=moments), 4)
    # rows of 256 so that each of fsdp = 2 devices holds whole blocks
    params = {"layers": {"feed_forward": {"up": {"kernel": jax.ShapeDtypeStruct((2, 64, 256), jnp.float32)}}}}
    params["embed"] = {"embedding": jax.ShapeDtypeStruct((64, 256), jnp.float32)}
    found = matrices(abstract_state(params, optimizer, mesh=cube()))
    assert len(found) == 2 * (1 + 2 * (2 if moments == "int8" else 1))
    for path, leaf in found.items():
        whole, part = np.prod(leaf.shape), np.prod(leaf.sharding.shard_shape(leaf.shape))
        assert 4 * part == whole, path  # over fsdp and tensor; each of the two rows of data has a copy


def test_the_step_keeps_moments_and_gradients_split():
    mesh = cube()
    optimizer = make_optimizer(OptimizerConfig(moments="bfloat16"), 4)
    state = abstract_state(new_params(), optimizer, mesh=mesh)
    step = make_train_step(WideObjective(), optimizer, mesh=mesh, num_microbatches=2)
    batch = jax.tree.map(lambda x: np.asarray(x).reshape(2, 4, *x.shape[1:]), make_batch(0))
    text = step.compile(state, batch).call.as_text()
    # The sums of gradients over microbatches are carried through a loop: none of them is whole there.
    loops = [line for line in text.splitlines() if " while(" in line]
    assert loops
    for whole in ("f32[1,64,32]", "f32[1,32,64]", "f32[16,32]"):
        assert not [line for line in loops if whole in line.split(" while(")[0]]


@pytest.mark.parametrize(
    "mesh", [MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(data=4, tensor=2, slices=2)], ids=str
)
def test_compact_moments_give_the_same_on_a_mesh_as_on_one_device(mesh):
    """Their rounding is drawn by number and place, not by device; sums in another order may move single codes."""
    config = OptimizerConfig(name="sgd", momentum=0.9, moments="bfloat16", **CONSTANT)
    state, losses = train(make_mesh(mesh), config)
    expected, expected_losses = train(one_device(), config)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-4)
    for path, leaf in matrices(jax.device_get(state.params)).items():
        np.testing.assert_allclose(leaf, matrices(jax.device_get(expected.params))[path], rtol=0, atol=1e-3 * 0.01)


@needs_offloading
@pytest.mark.parametrize("num_microbatches", [1, 2])
def test_an_offloaded_optimiser_lies_on_the_host_and_learns_the_same_bits(num_microbatches):
    mesh = cube()
    found, losses = train(mesh, OptimizerConfig(offload=True, **CONSTANT), num_microbatches=num_microbatches)
    expected, expected_losses = train(mesh, OptimizerConfig(**CONSTANT), num_microbatches=num_microbatches)
    moments = matrices(found.opt_state)
    assert moments
    assert {leaf.sharding.memory_kind for leaf in moments.values()} == {HOST}
    assert {leaf.sharding.memory_kind for leaf in matrices(found.params).values()} == {"device"}
    assert losses == expected_losses
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


@needs_offloading
def test_offloading_where_the_host_has_no_such_memory_is_refused_by_name(monkeypatch):
    kinds = type("Kind", (), {"kind": "device"})
    monkeypatch.setattr("jaxrefine.training.state.check_memory", functools.partial(_without, kinds))
    optimizer = make_optimizer(OptimizerConfig(offload=True), 4)
    with pytest.raises(ValueError, match=r"optimizer.offload needs memory of the kind 'pinned_host'.*they have device"):
        abstract_state(new_params(), optimizer, mesh=one_device())


def _without(kind, mesh, wanted, what):
    from types import SimpleNamespace

    from jaxrefine.sharding import check_memory

    device = SimpleNamespace(platform="cpu", addressable_memories=lambda: [kind])
    check_memory(SimpleNamespace(devices=np.array([device], object)), wanted, what)


def test_offloading_with_an_older_jax_is_refused_by_its_version(monkeypatch):
    monkeypatch.setattr("jaxrefine.training.state.OFFLOADS_FROM", (99, 0, 0))
    with pytest.raises(ValueError, match=r"optimizer.offload needs jax 99.0.0 or newer.*this is"):
        abstract_state(new_params(), make_optimizer(OptimizerConfig(offload=True), 4), mesh=one_device())


def test_short_masters_take_two_bytes_and_learn_on_average():
    """Updates of 2^-12 of a weight would all be lost if they were rounded to the nearest of bfloat16."""
    optimizer = make_optimizer(OptimizerConfig(masters="bfloat16"), 4)
    params = optimizer.stored({"up": {"kernel": jnp.ones((64, 64))}, "norm": {"scale": jnp.ones(64)}})
    assert {path: leaf.dtype.name for path, leaf in matrices(params).items()} == {"up/kernel": "bfloat16"}
    assert params["norm"]["scale"].dtype == jnp.float32
    change = jax.tree.map(lambda x: jnp.full(x.shape, -(2.0**-12), jnp.float32), params)
    step = lambda number, params: optimizer.apply(params, change, jax.random.key(number))  # noqa: E731
    params = jax.lax.fori_loop(0, 64, step, params)
    # 64 updates of 2^-12; a mean over 4,096 weights, each at most one spacing (2^-8 below 1) off in a draw
    np.testing.assert_allclose(
        params["up"]["kernel"].astype(jnp.float32).mean(), 1 - 2.0**-6, rtol=0, atol=64**-0.5 * 2**-8
    )
    np.testing.assert_allclose(params["norm"]["scale"], 1 - 2.0**-6, rtol=1e-6)


class Casting:
    """Computes in fp32 whatever its parameters are stored in, as the decoder's maps do in their own type."""

    counts = staticmethod(WideObjective().counts)

    def apply(self, variables, batch, *, rngs):
        exact = jax.tree.map(lambda x: x.astype(jnp.float32), variables)
        return WideObjective().apply(exact, batch, rngs=rngs)


def test_gradients_of_short_masters_are_summed_in_fp32():
    options = {"name": "sgd", "momentum": 0.9, "clip_norm": None, **CONSTANT}
    short, exact = OptimizerConfig(masters="bfloat16", **options), OptimizerConfig(**options)
    state, losses = train(one_device(), short, steps=1, num_microbatches=8, objective=Casting())
    rounded = jax.tree.map(lambda x: x.astype(jnp.bfloat16).astype(jnp.float32), new_params())
    expected, expected_losses = train(one_device(), exact, steps=1, params=rounded)
    np.testing.assert_allclose(losses, expected_losses, rtol=1e-5)  # norms are all ones, exact in either type
    assert {leaf.dtype.name for leaf in matrices(state.params).values()} == {"bfloat16"}
    for path, leaf in matrices(state.opt_state).items():
        assert leaf.dtype == jnp.float32
        want = np.asarray(matrices(expected.opt_state)[path], np.float64)
        # each of eight parts comes in bfloat16, half a spacing of 2^-8 off; their sum is not rounded again
        assert np.abs(np.asarray(leaf) - want).max() <= 2**-8 * np.abs(want).max(), path


@pytest.mark.parametrize(
    "options",
    [
        {"moments": "int8"},
        {"moments": "bfloat16", "masters": "bfloat16"},
        pytest.param({"offload": True}, marks=needs_offloading),
    ],
    ids=str,
)
def test_a_checkpoint_holds_them_as_they_are(tmp_path, options):
    optimizer = make_optimizer(OptimizerConfig(**options), 4)
    mesh = cube()
    state = init_state(new_params(), optimizer, jax.random.key(1), mesh=mesh)
    fill = lambda x: jnp.arange(x.size).reshape(x.shape).astype(x.dtype)  # noqa: E731
    state = state.replace(opt_state=jax.tree.map(lambda x: jax.device_put(fill(x), x.sharding), state.opt_state))
    before = jax.device_get(state)
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(state, {"position": 1})
    checkpoints.close()
    found, _ = Checkpoints(tmp_path / "c").restore(abstract_state(new_params(), optimizer, mesh=mesh))
    for a, b, placed in zip(jax.tree.leaves(found), jax.tree.leaves(before), jax.tree.leaves(state), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.dtype == b.dtype
        assert a.sharding == placed.sharding
