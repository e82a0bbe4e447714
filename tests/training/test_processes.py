"""Two processes on one machine give the losses, gradients and parameters of one."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests.training.tiny_objective import make_batch

SCRIPT = Path(__file__).with_name("process_run.py")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def run(out, count, num_devices, sizes):
    flags = f"--xla_force_host_platform_device_count={num_devices}"
    environment = os.environ | {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": flags}
    port = free_port()
    processes = [
        subprocess.Popen(
            [sys.executable, str(SCRIPT), str(out), str(index), str(count), str(port), *map(str, sizes)],
            env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )
        for index in range(count)
    ]  # fmt: skip
    try:
        for process in processes:
            text, _ = process.communicate(timeout=500)
            assert process.returncode == 0, text[-4000:]
    finally:
        for process in processes:
            process.kill()
    return [dict(np.load(out / f"{index}.npz")) for index in range(count)]


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    (result,) = run(tmp_path_factory.mktemp("alone"), 1, 1, (1, 1, 1))
    return result


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize(
    ("sizes", "shares"),
    [((2, 2, 1), [(0, 2), (1, 2)]), ((1, 1, 4), [(0, 1), (0, 1)])],
    ids=["data 2 fsdp 2", "tensor 4"],
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
