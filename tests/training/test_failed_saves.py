"""A save that fails is over when its failure is told: no thread, no task and no traceback of it is left."""

from __future__ import annotations

import asyncio
import resource
import threading

import jax
import numpy as np
import pytest

from jaxrefine import cli, config
from jaxrefine.sharding import make_mesh
from jaxrefine.training.checkpoints import CheckpointConfig, CheckpointError, Checkpoints
from jaxrefine.training.failed_saves import closing_after_all_tasks
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.state import init_state


def in_a_loop_of_its_own(coroutine):
    loop = asyncio.new_event_loop()
    try:
        return loop.run_until_complete(coroutine)
    finally:
        loop.close()


def test_tasks_that_were_begun_end_before_the_loop_is_closed():
    ended = []

    async def fail():
        raise OSError("disk full")

    async def write_slowly():
        for _ in range(10):
            await asyncio.sleep(0)
        ended.append("the slow one")
        raise OSError("disk full as well")

    async def write_both():
        await asyncio.gather(fail(), write_slowly())

    with pytest.raises(OSError, match="^disk full$"):
        closing_after_all_tasks(in_a_loop_of_its_own)(write_both())
    assert ended == ["the slow one"]


def test_what_a_coroutine_returns_comes_back():
    async def answer():
        return 42

    assert closing_after_all_tasks(in_a_loop_of_its_own)(answer()) == 42


def threads_of_orbax():
    return [thread for thread in threading.enumerate() if type(thread).__module__.startswith("orbax.")]


def make_state(params):
    mesh = make_mesh(devices=jax.devices()[:1])
    return init_state(params, make_optimizer(OptimizerConfig(), 10), jax.random.key(0), mesh=mesh)


@pytest.fixture
def files_of_at_most_20_kb():
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, limits[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@pytest.mark.usefixtures("files_of_at_most_20_kb")
def test_a_save_that_cannot_be_written_is_told_in_a_line_and_leaves_nothing_at_work(tmp_path, capfd):
    rng = np.random.default_rng(0)
    params = {f"part{n}": rng.normal(size=(16_384,)).astype(np.float32) for n in range(8)}  # 64 kB each
    checkpoints = Checkpoints(tmp_path / "c", CheckpointConfig(on_failure="stop"))
    checkpoints.save(make_state(params), None)
    with pytest.raises(CheckpointError, match=r"step 0 was not saved in .*: file too large; there is no other\."):
        checkpoints.steps()
    assert threads_of_orbax() == []
    assert list((tmp_path / "c").iterdir()) == []
    with pytest.raises(CheckpointError, match="the last checkpoint, step 0, could not be saved"):
        checkpoints.close()
    said = capfd.readouterr()
    assert "Traceback" not in said.out + said.err


def test_a_directory_that_is_gone_is_told_at_once_and_no_thread_waits_for_it(tmp_path):
    checkpoints = Checkpoints(tmp_path / "c", CheckpointConfig(on_failure="stop"))
    (tmp_path / "c").rmdir()
    (tmp_path / "c").write_text("no directory")
    with pytest.raises(CheckpointError, match=r"step 0 was not saved in .*: not a directory: "):
        checkpoints.save(make_state({"part": np.ones((4,), np.float32)}), None)
    assert threads_of_orbax() == []
    checkpoints.close(failing=True)


STOPPED = '''"""One stage that cannot write."""

import dataclasses
import pathlib

from jaxrefine.artefacts.stages import Stage


@dataclasses.dataclass(frozen=True)
class Writing:
    def stages(self):
        return [Stage("write", self.write)]

    def write(self, directory: pathlib.Path):
        {what}


def get_config():
    return Writing()
'''
NO_CHECKPOINT = """from jaxrefine.training.checkpoints import Checkpoints
        (directory / "file").touch()
        Checkpoints(directory / "file" / "checkpoints")"""
NO_ROOM = """with open("/dev/full", "w") as file:
            file.write("a device without room")"""


@pytest.mark.parametrize(
    ("what", "message"),
    [(NO_CHECKPOINT, "no checkpoints can be kept in"), (NO_ROOM, "No space left on device")],
    ids=["checkpoint", "disk"],
)
def test_the_command_line_ends_with_exit_code_3_and_the_reason(what, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "broken.py").write_text(STOPPED.format(what=what))
    monkeypatch.setattr(config, "config_directory", lambda: tmp_path)
    assert cli.main(["run", "broken", "--workdir", str(tmp_path / "work")]) == 3
    said = capsys.readouterr().err
    assert message in said
    assert "the same command goes on here" in said
    assert "Traceback" not in said
