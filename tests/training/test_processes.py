"""Two processes on one machine give the losses, gradients and parameters of one."""

from __future__ import annotations

import contextlib
import os
import random
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from tests.training.tiny_objective import make_batch

SCRIPT = Path(__file__).with_name("process_run.py")


def free_port():
    """One below those that systems hand out, so that nobody is given it while the first process starts."""
    while True:
        port = random.SystemRandom().randrange(20_000, 32_000)
        with socket.socket() as listener, contextlib.suppress(OSError):  # in use: another
            listener.bind(("127.0.0.1", port))
            return port


def begin(out, count, num_devices, sizes, *extra):
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    flags.append(f"--xla_force_host_platform_device_count={num_devices}")
    environment = os.environ | {"XLA_FLAGS": " ".join(flags)}
    port = free_port()
    return [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(out), str(index), str(count), str(port), *map(str, sizes), *extra],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(count)
    ]  # fmt: skip


def end(processes, code):
    try:
        for process in processes:
            text, _ = process.communicate(timeout=500)
            assert process.returncode == code, text[-4000:]
    finally:
        for process in processes:
            process.kill()


def run(out, count, num_devices, sizes):
    end(begin(out, count, num_devices, sizes), 0)
    return [dict(np.load(out / f"{index}.npz")) for index in range(count)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    (result,) = run(tmp_path_factory.mktemp("alone"), 1, 1, (1, 1, 1, 1))
    return result


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("sizes", "shares"),
    [((2, 2, 1, 2), [(0, 2), (1, 2)]), ((1, 1, 4, 1), [(0, 1), (0, 1)])],
    ids=["data 2 fsdp 2, each a slice", "tensor 4"],
)
def test_two_processes_give_what_one_gives_each_reading_its_share(tmp_path, alone, sizes, shares):
    results = run(tmp_path, 2, 2, sizes)
    assert [tuple(result["share"]) for result in results] == shares
    for result in results:
        for name in alone.keys() - {"rows", "share"}:
            expected = alone[name].astype(np.float64)
            error = np.abs(result[name] - expected).max() / np.abs(expected).max()
            assert error <= 1e-5, (name, error)
    for step, row_ids in enumerate(zip(*(result["rows"] for result in results), strict=True)):
        ids = make_batch(3 + step).group_ids.reshape(-1)  # the second run goes on after batch 3
        for (share, of), found in zip(shares, row_ids, strict=True):
            np.testing.assert_array_equal(found, np.split(ids, of)[share])


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_sigterm_to_one_process_stops_both_after_the_same_committed_step(tmp_path):
    processes = begin(tmp_path, 2, 1, (2, 1, 1, 1), "ENDLESS")
    records = tmp_path / "run" / "metrics.jsonl"
    deadline = time.monotonic() + 400
    while not (records.exists() and records.read_bytes().count(b"\n") > 4):
        assert all(process.poll() is None for process in processes), processes[0].communicate()[0][-4000:]
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.05)
    processes[1].send_signal(signal.SIGTERM)
    end(processes, 143)
    last = records.read_bytes().count(b"\n")
    assert (tmp_path / "run" / "checkpoints" / str(last)).is_dir()
