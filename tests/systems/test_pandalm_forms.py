"""Every form of base model of pandalm/small is made, learns and answers as in the stages, at an eighth of its width."""

from __future__ import annotations

import dataclasses
import json
import math
import pathlib

import pytest

from jaxrefine import config
from jaxrefine.conversion.loaded import Placement, load_model
from jaxrefine.sampling.candidates import sample_candidates
from jaxrefine.systems.pandalm import Base, PandaLM
from jaxrefine.systems.pandalm_judge import prompts_of

SMALL: PandaLM = config.load("pandalm/small")
NARROW = {
    "hidden_size": 16, "n_embd": 16, "intermediate_size": 32, "ffn_dim": 32, "num_hidden_layers": 1, "n_layer": 1,
    "num_attention_heads": 2, "n_head": 2,
}  # fmt: skip


@pytest.mark.parametrize("base", SMALL.bases, ids=lambda base: base.name)
def test_a_new_model_of_each_form_is_trained_and_answers(base: Base, tmp_path: pathlib.Path) -> None:
    assert base.pretraining is not None
    assert SMALL.pretraining_tasks is not None
    attributes = {name: NARROW.get(name, value) for name, value in base.attributes.items()}
    training = dataclasses.replace(base.pretraining, steps=1, groups_per_step=2, slots=256)
    narrow = dataclasses.replace(base, attributes=attributes, pretraining=training)
    tasks = dataclasses.replace(SMALL.pretraining_tasks, num=2)
    here = Placement(num_devices=1)
    dataclasses.replace(SMALL, bases=(narrow,), pretraining_tasks=tasks, placement=here).make_bases(tmp_path)
    trained = tmp_path / json.loads((tmp_path / "models.json").read_text())[base.name]
    assert json.loads((trained / "config.json").read_text())["model_type"] == base.attributes["model_type"]
    [first] = map(json.loads, (tmp_path / base.name / "metrics.jsonl").read_text().splitlines())
    assert first["loss"] == pytest.approx(math.log(860), rel=0.05)  # it knows nothing of 860 tokens yet
    model = load_model(trained, here)
    sampling = dataclasses.replace(SMALL.search.sampling, max_new_tokens=2, slots=2)
    [answered] = sample_candidates(model, prompts_of(tasks.read())[:1], sampling, tmp_path / "answers")
    assert len(answered.responses) == 1
