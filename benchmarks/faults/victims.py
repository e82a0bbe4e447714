"""Processes to be killed, told to stop, or starved of disk: forked from a server that has imported everything."""

from __future__ import annotations

import contextlib
import ctypes
import io
import multiprocessing
import os
import pathlib
import random
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from typing import Any

import jax
import numpy as np
from rich.console import Console

from jaxrefine.artefacts.stopping import StoppedError
from jaxrefine.data.batch import PackedBatch
from jaxrefine.sharding import make_mesh, row_share
from jaxrefine.training.checkpoints import CheckpointConfig, Checkpoints
from jaxrefine.training.loop import TrainConfig, fit
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.state import TrainState, abstract_state, init_params, init_state
from tests.training.tiny_objective import CountingIterator, CountingLoader, TinyObjective, make_batch

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload([__name__])
OUTPUT, BEGUN, GO_ON = "output.txt", "begun.txt", "go-on"
STILL_AT_WORK = "files changed after the failure was told"
PATIENCE_SECONDS = 300.0
_NEW_USER, _NEW_MOUNTS = 0x10000000, 0x00020000
SGD = OptimizerConfig(name="sgd", learning_rate=0.1, schedule="constant")


def begin(work: Callable[..., None], place: pathlib.Path, *arguments: Any, output: str = OUTPUT) -> BaseProcess:
    """Starts ``work(place, *arguments)``; what it prints goes to ``place/output``."""
    process = _CONTEXT.Process(target=_enter, args=(work, place, place / output, arguments), daemon=True)
    process.start()
    return process


def _enter(work: Callable[..., None], place: pathlib.Path, output: pathlib.Path, arguments: tuple[Any, ...]) -> None:
    descriptor = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o666)
    os.dup2(descriptor, 1)
    os.dup2(descriptor, 2)
    sys.stdout = sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115  (for as long as the process lives)
    try:
        work(place, *arguments)
    except StoppedError as error:  # as the command line tells it
        print(f"stopped: {error}")
        leave(error.exit_code)
    except SystemExit as error:
        print(f"left: {error}")
        leave(error.code if isinstance(error.code, int) else 1)
    except BaseException:
        traceback.print_exc()
        leave(1)


def leave(code: int) -> None:
    """Ends the process: without waiting for the peers that ``jax.distributed`` waits for at exit."""
    sys.stderr.flush()
    os._exit(code)


def said(place: pathlib.Path, output: str = OUTPUT) -> str:
    """What a victim has printed so far."""
    return (place / output).read_text(errors="replace") if (place / output).exists() else ""


def wait_until(
    condition: Callable[[], bool], process: BaseProcess, place: pathlib.Path, what: str, *, output: str = OUTPUT
) -> None:
    """Polls; an error if the victim ends or nothing comes of it."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        if process.exitcode is not None:
            raise RuntimeError(f"the victim ended ({process.exitcode}) before {what}: {said(place, output)[-2000:]}")
        if time.monotonic() > deadline:
            raise RuntimeError(f"{what} never came: {said(place, output)[-2000:]}")
        time.sleep(0.002)


def ended(process: BaseProcess, seconds: float = PATIENCE_SECONDS) -> int | None:
    """Its exit code (negative: the signal), or None when it had to be killed after so long."""
    process.join(seconds)
    code = process.exitcode
    if code is None:
        process.kill()
        process.join()
    return code


def free_port() -> int:
    """One below those that systems hand out, so that nobody is given it while the first process starts."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):  # in use: another
            listener.bind(("127.0.0.1", port))
            return port


def num_lines(path: pathlib.Path) -> int:
    """Complete lines so far."""
    return path.read_bytes().count(b"\n") if path.exists() else 0


def state_of(step: int, *, kilobytes: int = 256) -> TrainState:
    """A state that its step determines, in a few arrays."""
    rng = np.random.default_rng(step)
    params = {f"part{n}": rng.normal(size=(kilobytes * 32,)).astype(np.float32) for n in range(8)}
    state = init_state(params, make_optimizer(SGD, 10), jax.random.key(step), mesh=make_mesh(devices=jax.devices()[:1]))
    return state.replace(step=state.step + step)


def like_state(*, kilobytes: int = 256) -> TrainState:
    """What it is restored into."""
    params = {f"part{n}": np.zeros((kilobytes * 32,), np.float32) for n in range(8)}
    return abstract_state(params, make_optimizer(SGD, 10), mesh=make_mesh(devices=jax.devices()[:1]))


def save_for_ever(
    place: pathlib.Path, first: int, on_failure: str = "continue", last: int = 10_000, hold: int = 0
) -> None:
    """Saves step after step; notes each in ``begun.txt`` before it is begun; after ``hold``, waits for ``GO_ON``."""
    checkpoints = Checkpoints(place / "checkpoints", CheckpointConfig(keep=3, on_failure=on_failure))  # type: ignore[arg-type]
    with open(place.parent / f"{place.name}-{BEGUN}", "ab", buffering=0) as begun:
        for step in range(first, last + 1):
            state = state_of(step)
            begun.write(f"{step}\n".encode())
            checkpoints.save(state, {"position": step})
            while step == hold and not (place.parent / GO_ON).exists():
                time.sleep(0.01)
            named = checkpoints.steps() if step % 3 == 0 else []
            for one in named:  # never one that is not whole
                if not (place / "checkpoints" / str(one) / "commit_success.txt").is_file():
                    raise AssertionError(f"step {one} is named, and not there")
    checkpoints.close()


class _Slow(CountingLoader):
    """Gives a process that watches the time to see each step; a batch's rows are shared out among any number."""

    def __iter__(self) -> CountingIterator:
        iterator = super().__iter__()
        iterator.any_num_processes = True  # type: ignore[attr-defined]
        return iterator

    def batch(self, index: int) -> PackedBatch:
        time.sleep(0.01)
        return super().batch(index)


EVERY_STEPS = 5


def train(place: pathlib.Path, steps: int, index: int, count: int, port: int, heartbeat_seconds: int) -> None:
    """``training`` as one of ``count`` processes."""
    if count > 1:
        flags = [flag for flag in os.environ.get("XLA_FLAGS", "").split() if "device_count" not in flag]
        os.environ["XLA_FLAGS"] = " ".join(flags)  # one device each; nothing has started jax in this process yet
        jax.config.update("jax_cpu_collectives_implementation", "gloo")
        jax.distributed.initialize(f"127.0.0.1:{port}", count, index, heartbeat_timeout_seconds=heartbeat_seconds)
    training(place, steps)
    leave(0)


def training(place: pathlib.Path, steps: int) -> TrainState:
    """A run with a checkpoint every five steps, on one device of each process."""
    mesh = make_mesh(devices=None if jax.process_count() > 1 else jax.devices()[:1])
    checkpoints = CheckpointConfig(every_steps=EVERY_STEPS)
    config = TrainConfig(steps=steps, optimizer=SGD, log_every_steps=1, checkpoints=checkpoints)
    params = init_params(TinyObjective(), jax.random.key(0), make_batch(0))
    loader = _Slow(steps, row_share(mesh))
    return fit(TinyObjective(), params, loader, config, place, mesh=mesh, console=Console(file=io.StringIO()))


def on_small_disk(place: pathlib.Path, kilobytes: int, *arguments: Any) -> None:
    """``save_for_ever`` on a file system of so many kB, mounted for this process alone; what it leaves is copied back.

    Where the system allows no mount, files of more than that are refused instead (EFBIG).
    """
    disk = place / "disk"
    disk.mkdir()
    if not _mount(disk, kilobytes):
        import resource

        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (kilobytes * 128, kilobytes * 128))
        print("no mount: files are limited instead")
    code = 0
    try:
        save_for_ever(disk, *arguments)
    except StoppedError as error:
        print(f"stopped: {error}")
        code = error.exit_code
    finally:
        import shutil

        left = _sizes(disk)
        time.sleep(0.1)
        if (later := _sizes(disk)) != left:
            print(f"{STILL_AT_WORK}: {sorted(set(left.items()) ^ set(later.items()))}")
        shutil.copytree(disk, place / "left")
    leave(code)


def _sizes(directory: pathlib.Path) -> dict[pathlib.Path, int]:
    return {path: path.stat().st_size for path in directory.rglob("*") if path.is_file()}


def _mount(disk: pathlib.Path, kilobytes: int) -> bool:
    """A tmpfs in a name space of this process."""
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.getuid(), os.getgid()
    if libc.unshare(_NEW_USER | _NEW_MOUNTS) != 0:
        return False
    pathlib.Path("/proc/self/setgroups").write_text("deny")
    pathlib.Path("/proc/self/uid_map").write_text(f"0 {user} 1")
    pathlib.Path("/proc/self/gid_map").write_text(f"0 {group} 1")
    return libc.mount(b"none", str(disk).encode(), b"tmpfs", 0, f"size={kilobytes}k".encode()) == 0


def obeys_permissions() -> bool:
    """Whether files that nobody may write can be put before this process: not root, or root in a name space of its own.

    In such a name space without a map of users, root is an owner of files like any other.
    """
    return os.getuid() != 0 or ctypes.CDLL(None, use_errno=True).unshare(_NEW_USER) == 0


def try_permissions(place: pathlib.Path) -> None:
    """Exit code 0 where ``without_permission`` can be had."""
    leave(0 if obeys_permissions() else 1)


def without_permission(place: pathlib.Path, when: str, *arguments: Any) -> None:
    """``save_for_ever`` by a user who may not write: from the start, or from a moment on."""
    disk = place / "disk"
    disk.mkdir()
    if not obeys_permissions():
        raise RuntimeError("root, and no name space to be had: every file can be written")
    if when == "start":
        disk.chmod(0o555)
    save_for_ever(disk, *arguments)
    leave(0)
