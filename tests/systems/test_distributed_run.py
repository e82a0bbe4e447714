"""``jaxrefine run … --distributed``: two processes on one machine train the model that one process trains."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrefine.artefacts.processes import Processes, start_processes
from jaxrefine.artefacts.stages import Stage, StageError, run_stages
from jaxrefine.cli import _distributed, main
from tests.training.test_processes import free_port


def command(data, workdir, *flags):
    return [
        "run", "finetuning/preference", "--data", str(data), "--workdir", str(workdir),
        "--training.steps", "2", "--training.groups-per-step", "4", "--training.slots", "64",
        "--training.optimizer.name", "sgd", "--training.optimizer.learning-rate", "0.5",
        "--training.optimizer.warmup-steps", "0", "--placement.mesh.data", "1", "--placement.mesh.fsdp", "2",
        "--placement.num-devices", "2", *flags,
    ]  # fmt: skip


def finish(processes):
    try:
        for process in processes:
            text, _ = process.communicate(timeout=500)
            assert process.returncode == 0, text[-4000:]
            yield text
    finally:
        for process in processes:
            process.kill()


def start(arguments):
    """On one device."""
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    environment = os.environ | {"XLA_FLAGS": " ".join([*flags, "--xla_force_host_platform_device_count=1"])}
    return subprocess.Popen(
        [sys.executable, "-m", "jaxrefine", *arguments],
        env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_train_the_model_that_one_trains(tmp_path, capsys):
    data = tmp_path / "candidates.jsonl"
    lines = [
        {
            "id": str(i),
            "prompt": f"{i} + 1?\n",
            "candidates": [{"text": f"#### {i + 1 + j}", "score": -j} for j in range(2)],
        }
        for i in range(8)
    ]
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    where = f"127.0.0.1:{free_port()},2"
    pair = [start(command(data, tmp_path / "two", "--distributed", f"{where},{i}")) for i in range(2)]
    said = list(finish(pair))
    assert main(command(data, tmp_path / "one")) == 0
    assert "[2/2] train: finished in" in said[0]
    assert "[2/2]" not in said[1]  # what is said is said once
    assert "model:" not in said[1]
    models = [tmp_path / run / "02-train" / "model" for run in ("one", "two")]
    one, two = (load_file(model / "model.safetensors") for model in models)
    assert one.keys() == two.keys()
    start_of_it = load_file(_shipped() / "model.safetensors")
    moved = 0.0
    for name, value in one.items():
        change = value.astype(np.float64) - start_of_it[name].astype(np.float64)
        moved = max(moved, np.abs(change).max())
        # gradients are sums in another order: relative to the largest step that was made
        np.testing.assert_allclose(two[name], value, rtol=1e-6, atol=1e-4 * max(np.abs(change).max(), 1e-6))
    assert moved > 1e-3
    assert (models[0] / "tokenizer.json").read_bytes() == (models[1] / "tokenizer.json").read_bytes()
    summaries = [json.loads((tmp_path / run / "02-train" / "summary.json").read_text()) for run in ("one", "two")]
    assert summaries[0] == summaries[1]
    capsys.readouterr()
    assert main(command(data, tmp_path / "two")) == 0  # finished is finished, however it was started
    assert "[2/2] train: finished before" in capsys.readouterr().err


def _shipped():
    from jaxrefine.evaluation.variant_settings import SHIPPED

    return SHIPPED


@pytest.mark.parametrize(
    ("given", "rest", "where"),
    [
        (["a", "--seed", "1"], ["a", "--seed", "1"], None),
        (["a", "--distributed"], ["a"], "auto"),
        (["a", "--distributed", "--seed", "1"], ["a", "--seed", "1"], "auto"),
        (["a", "--distributed", "head:80,2,1", "--seed", "1"], ["a", "--seed", "1"], "head:80,2,1"),
        (["a", "--distributed=head:80,2,1"], ["a"], "head:80,2,1"),
        (["--distributed", "a"], ["a"], "auto"),
    ],
)
def test_where_the_others_are_is_read_from_the_command_line(given, rest, where):
    assert _distributed(given) == (rest, where, "100")


@pytest.mark.parametrize("flag", [["--heartbeat-seconds", "7"], ["--heartbeat-seconds=7"]])
@pytest.mark.parametrize(("where", "place"), [([], ()), (["head:80,2,1"], ("head:80", 2, 1))])
def test_a_dead_process_is_missed_after_as_many_seconds_as_the_line_says(flag, where, place, monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *given, **named: asked.append((given, named)))
    line = ["run", "finetuning/ranking", "--distributed", *where, *flag, "--workdir", str(tmp_path / "run")]
    assert main([*line, "--data", str(tmp_path / "none")]) != 0  # it connects before it looks for its data
    assert asked == [(place, {"heartbeat_timeout_seconds": 7})]


def test_a_heartbeat_that_is_no_time_is_refused_before_anything_starts(capsys):
    assert main(["run", "finetuning/ranking", "--distributed", "--heartbeat-seconds", "0"]) == 2
    assert "--heartbeat-seconds is '0'; allowed: a whole number from 1 on" in capsys.readouterr().err


@pytest.mark.parametrize(
    "where", ["head", "head:80", "head:80,2", "head:80,2,2", "head:80,2,-1", ":80,2,0", "head:,2,0"]
)
def test_a_place_that_is_none_is_refused_before_anything_starts(where):
    with pytest.raises(ValueError, match="allowed: auto, or HOST:PORT,COUNT,INDEX"):
        start_processes(where)


def test_a_stage_for_one_process_is_refused_by_name_in_a_run_of_two(tmp_path):
    stages = [Stage("look", print, processes="first"), Stage("sample", print)]
    with pytest.raises(StageError, match="2 processes cannot run 'sample': start one, alone"):
        run_stages(stages, tmp_path / "run", Processes(), processes=Processes(0, 2))
    assert not (tmp_path / "run").exists()
