"""Checkpoints: what was saved comes back, bit for bit, or not at all."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.artefacts.integrity import read_integrity
from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.training.checkpoints import CheckpointConfig, CheckpointError, Checkpoints
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.state import abstract_state, init_state


def make_state(step, *, mesh=None, width=8):
    rng = np.random.default_rng(step)
    params = {"model": {"embed": {"embedding": rng.normal(size=(16, width)).astype(np.float32)}}}
    mesh = mesh or make_mesh(devices=jax.devices()[:1])
    state = init_state(params, make_optimizer(OptimizerConfig(), 10), jax.random.key(step), mesh=mesh)
    return state.replace(step=state.step + step)


def like(mesh=None, width=8):
    params = {"model": {"embed": {"embedding": np.zeros((16, width), np.float32)}}}
    mesh = mesh or make_mesh(devices=jax.devices()[:1])
    return abstract_state(params, make_optimizer(OptimizerConfig(), 10), mesh=mesh)


def saved(directory, *steps, config=None, metrics=None):
    checkpoints = Checkpoints(directory, config or CheckpointConfig(keep=10))
    for step in steps:
        checkpoints.save(make_state(step), {"position": step}, (metrics or {}).get(step))
    checkpoints.close()


def assert_same_bits(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


def test_an_empty_directory_has_nothing_to_restore(tmp_path):
    assert Checkpoints(tmp_path / "c").restore(like()) is None


def test_the_newest_comes_back_with_its_data_position(tmp_path):
    saved(tmp_path / "c", 1, 2)
    state, position = Checkpoints(tmp_path / "c").restore(like())
    assert_same_bits(state, make_state(2))
    assert position == {"position": 2}


def test_a_named_step_comes_back(tmp_path):
    saved(tmp_path / "c", 1, 2)
    state, _ = Checkpoints(tmp_path / "c").restore(like(), step=1)
    assert_same_bits(state, make_state(1))


def test_a_step_that_is_not_there_is_refused_with_those_that_are(tmp_path):
    saved(tmp_path / "c", 1, 2)
    with pytest.raises(ValueError, match=r"step 7.*\[1, 2\]"):
        Checkpoints(tmp_path / "c").restore(like(), step=7)


@pytest.mark.parametrize("position", [b"\x00\xffgrain", {"epoch": 1, "rows": [1, 2]}, None])
def test_positions_of_either_kind_come_back_as_they_were(tmp_path, position):
    checkpoints = Checkpoints(tmp_path / "c")
    checkpoints.save(make_state(1), position)
    checkpoints.close()
    assert Checkpoints(tmp_path / "c").restore(like())[1] == position


def test_saving_is_done_with_the_state_when_it_returns(tmp_path):
    state = make_state(1)
    state = state.replace(params={"model": {"embed": {"embedding": jnp.zeros((2000, 500))}}})
    overwrite = jax.jit(lambda s: jax.tree.map(lambda x: x + 1, s), donate_argnums=0)
    checkpoints = Checkpoints(tmp_path / "c")
    target = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), state)
    checkpoints.save(state, None)
    for _ in range(5):
        state = overwrite(state)
    checkpoints.close()
    restored, _ = Checkpoints(tmp_path / "c").restore(target)
    assert float(jnp.max(jnp.abs(restored.params["model"]["embed"]["embedding"]))) == 0


def test_the_last_few_and_the_best_are_kept(tmp_path):
    config = CheckpointConfig(keep=2, keep_best="accuracy")
    accuracy = {1: 0.1, 2: 0.9, 3: 0.2, 5: 0.3}
    saved(tmp_path / "c", 1, 2, 3, 4, 5, config=config, metrics={s: {"accuracy": a} for s, a in accuracy.items()})
    checkpoints = Checkpoints(tmp_path / "c", config)
    assert checkpoints.steps() == [2, 4, 5]
    assert checkpoints.best_step() == 2


def test_the_best_is_remembered_by_the_next_process(tmp_path):
    config = CheckpointConfig(keep=1, keep_best="loss", best_is="lowest")
    saved(tmp_path / "c", 1, 2, config=config, metrics={1: {"loss": 0.5}, 2: {"loss": 0.7}})
    saved(tmp_path / "c", 3, 4, config=config, metrics={3: {"loss": 0.6}, 4: {"loss": 0.9}})
    assert Checkpoints(tmp_path / "c", config).steps() == [1, 3, 4]  # the newest has one to fall back to


def test_remains_of_a_killed_save_are_neither_restored_nor_kept(tmp_path):
    saved(tmp_path / "c", 1)
    remains = tmp_path / "c" / "2.orbax-checkpoint-tmp-17"
    remains.mkdir()
    (remains / "half").write_bytes(b"x")
    checkpoints = Checkpoints(tmp_path / "c")
    assert checkpoints.steps() == [1]
    assert not remains.exists()


def files_of(directory):
    return sorted(path for path in directory.rglob("*") if path.is_file() and path.stat().st_size)


def test_a_checkpoint_of_another_shape_is_refused_by_name_and_left_alone(tmp_path):
    saved(tmp_path / "c", 1)
    with pytest.raises(
        ValueError, match=r"params/model/embed/embedding is float32\[16, 8\], the run has float32\[16, 4\]"
    ):
        Checkpoints(tmp_path / "c").restore(like(width=4))
    assert Checkpoints(tmp_path / "c").steps() == [1]


def test_a_checkpoint_of_another_optimiser_is_refused_by_name(tmp_path):
    saved(tmp_path / "c", 1)
    mesh = make_mesh(devices=jax.devices()[:1])
    params = {"model": {"embed": {"embedding": np.zeros((16, 8), np.float32)}}}
    sgd = make_optimizer(OptimizerConfig(name="sgd"), 10)
    with pytest.raises(ValueError, match=r"opt_state/.* is left over"):
        Checkpoints(tmp_path / "c").restore(abstract_state(params, sgd, mesh=mesh))


def test_a_checkpoint_comes_back_onto_another_mesh(tmp_path):
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    saved(tmp_path / "c", 1)
    state, _ = Checkpoints(tmp_path / "c").restore(like(mesh))
    assert_same_bits(state, make_state(1))
    for leaf, wanted in zip(jax.tree.leaves(state), jax.tree.leaves(like(mesh)), strict=True):
        assert leaf.sharding.is_equivalent_to(wanted.sharding, leaf.ndim)


def test_a_last_save_that_failed_is_an_error(tmp_path, monkeypatch):
    checkpoints = Checkpoints(tmp_path / "c")
    monkeypatch.setattr(checkpoints._manager, "save", lambda *_, **__: True)
    checkpoints.save(make_state(3), None)
    with pytest.raises(CheckpointError, match="step 3"):
        checkpoints.close()


def test_a_step_whose_manifest_is_not_written_yet_is_not_named(tmp_path):
    saved(tmp_path / "c", 1, 2)
    (tmp_path / "c-integrity" / "2.json").unlink()
    assert Checkpoints(tmp_path / "c").steps() == [1]


def test_the_first_step_of_a_run_killed_before_its_manifest_is_used_and_said_to_be_unverified(tmp_path, caplog):
    saved(tmp_path / "c", 1)
    (tmp_path / "c-integrity" / "1.json").unlink()
    assert_same_bits(Checkpoints(tmp_path / "c").restore(like())[0], make_state(1))
    assert "unverified" in caplog.text


def test_a_manifest_says_what_was_saved_and_by_what(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", about={"config": "a1b2"})
    checkpoints.save(make_state(1), {"position": 1})
    checkpoints.close()
    found = read_integrity(tmp_path / "c-integrity" / "1.json")
    assert found.leaves["params/model/embed/embedding"] == ["float32", [16, 8]]
    assert found.leaves["step"] == ["int32", []]
    assert found.versions.keys() >= {"jaxrefine", "jax", "orbax-checkpoint"}
    assert found.about["config"] == "a1b2"
    assert found.files["commit_success.txt"][0] == (tmp_path / "c" / "1" / "commit_success.txt").stat().st_size


def test_a_directory_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("no directory")
    with pytest.raises(CheckpointError, match=r"no checkpoints can be kept in .*file/c"):
        Checkpoints(tmp_path / "file" / "c")


@pytest.mark.parametrize("options", [{"every_steps": 0}, {"keep": 0}, {"best_is": "best"}, {"on_failure": "go"}])
def test_a_wrong_option_is_refused_by_name(options):
    config = CheckpointConfig()
    for name, value in options.items():
        object.__setattr__(config, name, value)  # past the type check of the tests
    with pytest.raises(ValueError, match=next(iter(options))):
        config.__post_init__()
