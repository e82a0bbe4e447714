"""Fine-tuning by one command: one's own data in any of its formats, mistakes before anything is computed."""

from __future__ import annotations

import dataclasses
import json

import pytest

from jaxrefine.artefacts.stages import run_stages
from jaxrefine.config import load
from jaxrefine.conversion.loaded import Placement
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.data.examples import Candidates
from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.readers import write_candidates
from tests.evaluation.tiny_model import save_tiny_model


def test_candidates_of_a_file_are_learned_from(tmp_path):
    write_candidates(tmp_path / "own.jsonl", [Candidates("1", "2+3?", ("5", "6"), (1.0, 0.0))])
    job = load("finetuning/ranking")
    training = dataclasses.replace(job.training, steps=2, max_prompt=16, max_response=8, slots=32, checkpoints=None)
    model = save_tiny_model(tmp_path)
    job = dataclasses.replace(
        job, model=str(model), data=str(tmp_path / "own.jsonl"), training=training, placement=Placement(num_devices=1)
    )
    run_stages(job.stages(), tmp_path / "run", job)
    assert json.loads((tmp_path / "run" / "01-examples" / "summary.json").read_text())["examples"] == 1
    assert load_pretrained(tmp_path / "run" / "02-train" / "model")[0] == load_pretrained(model)[0]


def test_mistakes_stop_the_job_before_anything_is_computed(tmp_path):
    job = load("finetuning/instructions")
    with pytest.raises(ValueError, match="give yours with --data FILE"):
        job.stages()
    with pytest.raises(ValueError, match="data: there is no /nowhere"):
        dataclasses.replace(job, data="/nowhere").stages()
    (tmp_path / "a.json").write_text('[{"instruction": "Say it.", "outptu": "It."}]')
    broken = dataclasses.replace(job, data=str(tmp_path / "a.json"))
    with pytest.raises(ValueError, match="model: there is no /nowhere"):
        dataclasses.replace(broken, model="/nowhere").stages()
    with pytest.raises(RecordError, match=r"a.json.*output"):
        run_stages(broken.stages(), tmp_path / "run", broken)


def test_alpacas_settings_are_those_published():
    training = load("finetuning/instructions").training
    assert (training.optimizer.learning_rate, training.epochs, training.groups_per_step) == (2e-5, 3, 128)
    assert training.optimizer.warmup(training.num_steps(52_002)) == 37  # 3 % of 1219
