"""A process killed at any instant, or told to stop, leaves a run that goes on to the same bits."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

SCRIPT = Path(__file__).with_name("resumable_run.py")
STEPS = 160
TIMES = ("step_seconds", "tokens_per_second", "scored_tokens_per_second")


def begin(workdir):
    one_device = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
    environment = os.environ | {"XLA_FLAGS": one_device}
    command = [sys.executable, str(SCRIPT), str(workdir), str(STEPS)]
    return subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process):
    out, err = process.communicate(timeout=300)
    assert process.returncode == 0, err[-4000:]
    return json.loads(out.splitlines()[-1])


def num_records(workdir):
    path = workdir / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def wait_for_records(process, workdir, number):
    deadline = time.monotonic() + 240
    while num_records(workdir) < number:
        assert process.poll() is None, process.communicate()[1][-4000:]
        assert time.monotonic() < deadline, "the run makes no progress"
        time.sleep(0.005)


def records(workdir):
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    workdir = tmp_path_factory.mktemp("whole")
    return finish(begin(workdir)), records(workdir)


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigkill_at_random_instants_ends_in_the_same_bits(tmp_path, whole):
    choose = random.Random(os.urandom(8))  # any instant will do: this must hold for all of them
    reached = 0
    for _ in range(3):
        # Far from the end, so that a run which is faster than this process still runs when it is killed.
        reached = min(num_records(tmp_path) + choose.randint(1, 30), STEPS - 80)
        process = begin(tmp_path)
        # After a restart the file is cut back to the checkpoint, so wait for it to grow past where it was.
        wait_for_records(process, tmp_path, reached)
        time.sleep(choose.random() * 0.05)
        process.send_signal(signal.SIGKILL)
        process.communicate()
        assert process.returncode == -signal.SIGKILL
    result, rows = whole
    assert finish(begin(tmp_path)) == result
    assert records(tmp_path) == rows


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_sigterm_commits_and_exits_with_143_and_the_run_goes_on_to_the_same_bits(tmp_path, whole):
    process = begin(tmp_path)
    wait_for_records(process, tmp_path, 23)
    process.send_signal(signal.SIGTERM)
    _, err = process.communicate(timeout=300)
    assert process.returncode == 143, err[-4000:]
    committed = num_records(tmp_path)
    assert str(committed) in {path.name for path in (tmp_path / "checkpoints").iterdir()}
    result, rows = whole
    assert finish(begin(tmp_path)) == result
    assert records(tmp_path) == rows
