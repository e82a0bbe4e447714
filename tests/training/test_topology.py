"""A run goes on where there are fewer devices, or other processes, with the very same parameters."""

from __future__ import annotations

import jax
import numpy as np
import pytest

from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.training.checkpoints import CheckpointConfig, Checkpoints
from jaxrefine.training.loop import TrainConfig, fit
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import start_at
from jaxrefine.training.state import abstract_state, init_params
from tests.training.tiny_objective import CountingLoader, TinyObjective, make_batch

ADAMW = OptimizerConfig(learning_rate=0.01, schedule="constant", moments="int8")
SIZES = {
    8: MeshConfig(data=2, fsdp=2, tensor=2),
    4: MeshConfig(data=1, fsdp=2, tensor=2),
    2: MeshConfig(data=1, fsdp=2, tensor=1),
}


@pytest.fixture(scope="module")
def params():
    return init_params(TinyObjective(), jax.random.key(0), make_batch(0))


def go_on(params, workdir, steps, num_devices, loader=None):
    """Trains up to a step on so many devices; gives the state, and the loss of each step made."""
    losses = {}
    mesh = make_mesh(SIZES[num_devices], jax.devices()[:num_devices])
    config = TrainConfig(
        steps=steps, optimizer=ADAMW, log_every_steps=1, checkpoints=CheckpointConfig(every_steps=100, keep=9)
    )
    state = fit(
        TinyObjective(), params, loader or CountingLoader(9), config, workdir, mesh=mesh,
        on_metrics=lambda step, metrics: losses.update({step: metrics["loss"]}),
    )  # fmt: skip
    return state, losses


@pytest.fixture(scope="module")
def run(params, tmp_path_factory):
    """Three steps on eight devices, then two on four, then one on two; and all six on eight."""
    workdir = tmp_path_factory.mktemp("run")
    states, losses = {}, {}
    for steps, num in ((3, 8), (5, 4), (6, 2)):
        states[num], made = go_on(params, workdir, steps, num)
        losses |= made
    _, whole = go_on(params, tmp_path_factory.mktemp("whole"), 6, 8)
    return workdir, states, losses, whole


@pytest.mark.parametrize(("saved_on", "step", "restored_on"), [(8, 3, 4), (8, 3, 2), (4, 5, 2), (4, 5, 8)])
def test_what_is_restored_on_other_devices_has_the_same_bits(params, run, saved_on, step, restored_on):
    workdir, states, _, _ = run
    mesh = make_mesh(SIZES[restored_on], jax.devices()[:restored_on])
    like = abstract_state(params, make_optimizer(ADAMW, 6), mesh=mesh)
    found, position = Checkpoints(workdir / "checkpoints").restore(like, step=step)
    assert position == {"position": step}
    for a, b, wanted in zip(*map(jax.tree.leaves, (found, states[saved_on], like)), strict=True):
        np.testing.assert_array_equal(a, b)
        assert a.sharding == wanted.sharding
        assert len(a.sharding.device_set) == restored_on


def test_losses_go_on_as_if_the_devices_had_stayed(run):
    """The first after each change to 1e-6: the same parameters, sums in another order."""
    _, _, losses, whole = run
    assert list(losses) == list(whole) == [1, 2, 3, 4, 5, 6]
    for step in (1, 2, 3):
        assert losses[step] == whole[step]
    np.testing.assert_allclose(losses[4], whole[4], rtol=1e-6)
    np.testing.assert_allclose([losses[5], losses[6]], [whole[5], whole[6]], rtol=5e-3)  # the moments' codes may differ


def test_another_number_of_processes_is_refused_where_the_loader_does_not_promise_the_order(params, run, monkeypatch):
    loader = CountingLoader(9)
    with pytest.raises(
        ValueError, match=r"saved by 4 processes and this run has 1: CountingIterator.*any_num_processes"
    ):
        start_at(loader, {"position": 3}, 3, saved_by=4)
    monkeypatch.setattr("tests.training.tiny_objective.CountingIterator.any_num_processes", True, raising=False)
    np.testing.assert_array_equal(next(start_at(loader, {"position": 3}, 3, saved_by=4)).tokens, make_batch(3).tokens)


def test_a_checkpoint_remembers_how_many_processes_saved_it(run, params, monkeypatch):
    workdir, _, _, _ = run
    checkpoints = Checkpoints(workdir / "checkpoints")
    assert checkpoints.about(3)["processes"] == 1
    checkpoints.close()
    monkeypatch.setattr(Checkpoints, "about", lambda self, step: {"processes": 2})
    with pytest.raises(ValueError, match="saved by 2 processes and this run has 1"):
        go_on(params, workdir, 7, 2)
