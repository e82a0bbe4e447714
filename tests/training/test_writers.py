"""Metrics on disk."""

from __future__ import annotations

import json
import time

import pytest

from jaxrefine.training.writers import JsonlWriter, open_writers


def write(path, steps, **options):
    writer = JsonlWriter(path, **options)
    for step in steps:
        writer.write(step, {"loss": step / 2})
    writer.close()


def steps_of(path):
    return [json.loads(line)["step"] for line in path.read_text().splitlines()]


def test_each_record_is_one_line_of_json(tmp_path):
    write(tmp_path / "m.jsonl", [1, 2])
    assert (tmp_path / "m.jsonl").read_text() == '{"step": 1, "loss": 0.5}\n{"step": 2, "loss": 1.0}\n'


def test_records_after_the_restored_step_are_written_again_not_twice(tmp_path):
    path = tmp_path / "m.jsonl"
    write(path, range(1, 6))
    write(path, range(4, 7), after_step=3)
    assert steps_of(path) == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("tail", ['{"step": 3, "lo', "\x00\x00\x00", '{"loss": 1}\n', "[]\n"])
def test_a_torn_tail_is_removed(tmp_path, tail):
    path = tmp_path / "m.jsonl"
    write(path, [1, 2])
    with path.open("a") as file:
        file.write(tail)
    write(path, [3], after_step=9)
    assert steps_of(path) == [1, 2, 3]


def test_a_run_from_the_start_begins_an_empty_file(tmp_path):
    path = tmp_path / "m.jsonl"
    write(path, [1, 2])
    write(path, [1])
    assert steps_of(path) == [1]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_does_not_know_become_null(tmp_path, value):
    writer = JsonlWriter(tmp_path / "m.jsonl")
    writer.write(1, {"loss": value})
    writer.close()
    assert json.loads((tmp_path / "m.jsonl").read_text()) == {"step": 1, "loss": None}


def test_an_unknown_writer_is_refused_with_the_nearest(tmp_path):
    with pytest.raises(ValueError, match="'tensorbord'; did you mean 'tensorboard'"):
        open_writers(["tensorbord"], tmp_path)


def test_a_writer_whose_extra_is_absent_names_it(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "wandb", None)
    with pytest.raises(ValueError, match=r"jaxrefine\[wandb\]"):
        open_writers(["wandb"], tmp_path)


def test_tensorboard_gets_an_event_file(tmp_path):
    pytest.importorskip("tensorboardX", reason="the extra is not installed")
    for writer in open_writers(["tensorboard"], tmp_path):
        writer.write(1, {"loss": 0.5, "nothing": float("nan")})
        writer.close()
    (events,) = (tmp_path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()
    assert b"nothing" not in events.read_bytes()


def test_a_resumed_run_goes_on_in_the_same_wandb_run(tmp_path, monkeypatch):
    pytest.importorskip("wandb", reason="the extra is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_SILENT", "true")
    for after_step in (0, 1):
        for writer in open_writers(["wandb"], tmp_path, after_step=after_step):
            writer.write(after_step + 1, {"loss": 0.5, "nothing": float("nan")})
            writer.close()
    runs = sorted((tmp_path / "wandb").rglob("run-*.wandb"))
    run_id = (tmp_path / "wandb" / "run_id").read_text()
    assert [path.name for path in runs] == [f"run-{run_id}.wandb"] * 2
    for path in runs:
        deadline = time.monotonic() + 60
        while b"loss" not in path.read_bytes():  # wandb's own process writes it, and may do so after finish() returns
            assert time.monotonic() < deadline, f"{path} holds {path.read_bytes()!r}"
            time.sleep(0.05)
        assert b"nothing" not in path.read_bytes()
