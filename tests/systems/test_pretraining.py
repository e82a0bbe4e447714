"""The pre-training recipe from an empty directory to a model card, at sizes of seconds."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.data.arithmetic import problem
from jaxrefine.data.tokenizer import load_tokenizer

pytestmark = pytest.mark.slow

SHIPPED = pathlib.Path(config.__file__).parent / "shipped"


@pytest.fixture(scope="module")
def workdir(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    recipe = config.load("arithmetic/pretrain")
    small = dataclasses.replace(
        recipe,
        name="tiny",
        num_problems=300,
        num_tokenizer_problems=200,
        vocab_size=400,
        model=dataclasses.replace(
            recipe.model, width=32, num_layers=2, num_heads=2, num_kv_heads=1, head_width=16, hidden_width=64
        ),
        rows=8,
        train=dataclasses.replace(
            recipe.train,
            steps=30,
            optimizer=dataclasses.replace(recipe.train.optimizer, learning_rate=1e-2),
            log_every_steps=5,
            mesh=dataclasses.replace(recipe.train.mesh, data=1),
        ),
        num_test_problems=4,
        num_candidates=2,
        max_new_tokens=24,
    )
    directory = tmp_path_factory.mktemp("pretraining")
    with jax.default_device(jax.devices()[0]):
        run_stages(small.stages(), directory, small)
    return directory


def test_the_loss_falls(workdir: pathlib.Path) -> None:
    lines = (workdir / "02-train" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    assert losses[0] > np.log(300) > losses[-1]


def test_the_exported_directory_loads_with_its_tokenizer(workdir: pathlib.Path) -> None:
    model = workdir / "03-export" / "tiny"
    described, params = load_pretrained(model)
    tokenizer = load_tokenizer(model)
    assert described.vocab_size == tokenizer.vocab_size == params["embed"]["embedding"].shape[0]
    text = problem("test", 0).question
    assert tokenizer.decode(tokenizer.encode(text)) == text


def test_the_card_says_what_was_measured(workdir: pathlib.Path) -> None:
    metrics = json.loads((workdir / "04-evaluate" / "metrics.json").read_text())
    card = (workdir / "04-evaluate" / "README.md").read_text()
    assert set(metrics["accuracy"]) == {"greedy", "sampled", "any_of_2"}
    assert f"{metrics['accuracy']['greedy']['value']:.1%}" in card
    assert "train.steps = 30" in card


@pytest.mark.parametrize("name", ["arithmetic-small", "arithmetic-teacher"])
def test_the_shipped_model_is_small_and_its_recorded_gap_is_the_papers(name: str) -> None:
    directory = SHIPPED / name
    _, params = load_pretrained(directory)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    num_bytes = sum(file.stat().st_size for file in directory.iterdir())
    limit = {"arithmetic-small": (1_500_000, 4_000_000), "arithmetic-teacher": (4_000_000, 8_000_000)}[name]
    assert num_params <= limit[0] and num_bytes <= limit[1]
