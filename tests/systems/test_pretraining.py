"""The pre-training recipe from an empty directory to a model card, at sizes of seconds."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import numpy as np
import pytest

from jaxrefine import config
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.conversion.loaded import Placement, load_model
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.data.arithmetic import generate, problem
from jaxrefine.data.examples import Candidates
from jaxrefine.data.tokenizer import load_tokenizer
from jaxrefine.evaluation.variant_data import Lengths
from jaxrefine.evaluation.variant_sampling import sample_into, sampled
from jaxrefine.sampling.policies import Greedy

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
            log_every_steps=1,
        ),
        num_devices=2,
        num_test_problems=4,
        num_candidates=2,
        max_new_tokens=24,
    )
    directory = tmp_path_factory.mktemp("pretraining")
    run_stages(small.stages(), directory, small)
    return directory


def test_the_loss_starts_at_that_of_guessing_and_falls(workdir: pathlib.Path) -> None:
    lines = (workdir / "02-train" / "metrics.jsonl").read_text().splitlines()
    losses = [json.loads(line)["loss"] for line in lines]
    vocab_size = load_tokenizer(workdir / "01-tokenizer").vocab_size
    assert losses[0] == pytest.approx(np.log(vocab_size), abs=0.3)
    assert losses[-1] < losses[0] - 2


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
def test_a_shipped_model_is_small(name: str) -> None:
    directory = SHIPPED / name
    _, params = load_pretrained(directory)
    num_params = sum(leaf.size for leaf in jax.tree.leaves(params))
    num_bytes = sum(file.stat().st_size for file in directory.iterdir())
    limit = {"arithmetic-small": (1_500_000, 4_000_000), "arithmetic-teacher": (4_000_000, 8_000_000)}[name]
    assert num_params <= limit[0]
    assert num_bytes <= limit[1]


def test_the_shipped_small_model_shows_the_gap_that_the_papers_study(tmp_path: pathlib.Path) -> None:
    recipe = config.load("arithmetic/pretrain")
    base = load_model(SHIPPED / "arithmetic-small", Placement(mesh=recipe.train.mesh, num_devices=1))
    prompts = [
        Candidates(p.id, p.instruction().prompt, answer=str(p.answer)) for p in generate("test", 120, recipe.seed)
    ]
    solved = {}
    for name, policy, num in (("greedy", Greedy, 1), ("any of 16", recipe.policy, 16)):
        with Journal(tmp_path / f"{num}.jsonl") as journal:
            sample_into(
                journal,
                base,
                prompts,
                num_samples=num,
                policy=policy,
                key=jax.random.key(0),
                lengths=Lengths(prompt=recipe.slots, response=recipe.max_new_tokens),
                batch_size=None,
                description=name,
                provenance={},
            )
            solved[name] = np.mean([max(judged.example.labels) for judged in sampled(journal, prompts)])
    assert 0.30 <= solved["greedy"] <= 0.70
    assert solved["any of 16"] - solved["greedy"] >= 0.25
