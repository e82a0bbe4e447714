"""The benchmark of loading and converting at a tiny size: its one line has every way."""

from __future__ import annotations

import json
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent


@pytest.mark.slow
def test_it_prints_one_line_with_every_way():
    command = [sys.executable, "-m", "benchmarks.bench_conversion", "--megabytes", "24", "--repeats", "1"]
    finished = subprocess.run(
        [*command, "--ways", "fresh", "file", "float32", "convert"],
        capture_output=True,
        text=True,
        cwd=ROOT,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    record = json.loads(finished.stdout.splitlines()[-1])
    assert set(record["ways"]) == {"fresh", "file", "float32", "convert"}
    assert 20e6 < record["file_bytes"] < 30e6
    assert record["ways"]["file"]["param_bytes"] == pytest.approx(record["file_bytes"], rel=1e-2)
    assert record["ways"]["float32"]["param_bytes"] == 2 * record["ways"]["file"]["param_bytes"]
    assert all(way["speed_to_raw"]["median"] > 0 for way in record["ways"].values())
    assert record["ways"]["fresh"]["param_bytes"] == record["file_bytes"]
    assert record["ways"]["fresh"]["speed_to_fresh"] == {"median": 1, "min": 1, "max": 1}  # of itself
