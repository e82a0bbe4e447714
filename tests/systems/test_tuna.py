"""Tuna from end to end with random models, which stages a recipe needs, and what each phase learns from."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import pytest

from jaxrefine.artefacts.stages import run_stages
from jaxrefine.config import load, shipped
from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.readers import read_candidates
from jaxrefine.evaluation.tasks import Task
from jaxrefine.models.config import TransformerConfig
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems.tuna import Tuna
from jaxrefine.systems.tuna_settings import JudgeConfig, Part, Phase, Proxy, Recipe
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.full_size import full_size
from tests.evaluation.tiny_model import save_tiny_model

LLAMA_7B = TransformerConfig(
    vocab_size=32000, width=4096, num_layers=32, num_heads=32, num_kv_heads=32, head_width=128, hidden_width=11008
)


def training(**objective) -> Finetuning:
    return Finetuning(
        objective=ObjectiveConfig(**objective), steps=1, groups_per_step=4, max_prompt=48, max_response=8, slots=96,
        mle_on="original", checkpoints=None,
    )  # fmt: skip


RANKING = training(loss="margin_ranking", loss_options={"ties": "skip"}, mle_weight=1.0)


def tiny(student: Path, teacher: Path) -> Tuna:
    few = SamplingConfig(num_candidates=3, max_new_tokens=6)
    return Tuna(
        student=str(student), teacher=str(teacher), num_prompts=6, teacher_sampling=few, own_sampling=few,
        proxy=Proxy(stop=4, training=training(loss="pairwise_logistic", scorer="reward")),
        phases=(
            Phase(name="sft", parts=(Part(source="instructions"),), training=training(mle_weight=1.0)),
            Phase(name="p", parts=(Part(source="probabilistic", start=2),), training=RANKING),
            Phase(name="c", parts=(Part(source="contextual", stop=3),), training=RANKING),
            Phase(name="mix", parts=(Part(source="proxy"), Part(source="probabilistic")), training=RANKING),
        ),
        recipes=(
            Recipe(name="sft", phases=("sft",)),
            Recipe(name="tuna", phases=("sft", "p", "c")),
            Recipe(name="mix", phases=("sft", "mix")),
        ),
        tasks=(Task(name="world", max_prompts=4, max_new_tokens=6),),
        placement=Placement(num_devices=1), num_resamples=50,
    )  # fmt: skip


@pytest.mark.slow
def test_every_source_is_sampled_judged_learned_from_and_compared(tmp_path_factory):
    student, teacher = (save_tiny_model(tmp_path_factory.mktemp(f"model-{n}"), seed=n) for n in range(2))
    workdir, config = tmp_path_factory.mktemp("tuna"), tiny(student, teacher)
    run_stages(config.stages(), workdir, config)
    stages = {path.name.partition("-")[2]: path for path in workdir.iterdir() if path.is_dir()}
    report = json.loads((stages["report"] / "metrics.json").read_text())
    accuracy = report["tasks"]["world"]["accuracy"]
    assert list(accuracy) == ["given model", "sft", "tuna", "mix"]
    assert report["num"]["world"] == {"seeds": 1, "units": 4}
    assert (stages["report"] / "figures" / "lengths.png").is_file()
    # Who is judged: the first three prompts from tuna_p's model, the proxy's four from the other; it ranks all six.
    judged = {name: len(read_candidates(stages[name] / "seed-0" / "judged.jsonl"))
              for name in ("judged-sft-p", "judged-sft", "proxy-sft")}  # fmt: skip
    assert judged == {"judged-sft-p": 3, "judged-sft": 4, "proxy-sft": 6}
    # Eq. 3 from what the teacher itself said.
    (first, *_) = read_candidates(stages["teacher"] / "judged.jsonl")
    said = first.meta["said"]
    assert first.labels == pytest.approx([one["logprob"] / one["tokens"] ** 1.3 for one in said])
    for name, groups in (("train-sft-p", 4), ("train-sft-p-c", 3), ("train-sft-mix", 12)):
        summary = json.loads((stages[name] / "seed-0" / "summary.json").read_text())
        assert summary["num_groups"] + sum(summary["refused"].values()) == groups


def test_a_recipe_has_the_stages_that_it_needs_and_shares_what_it_can(tmp_path):
    config = tiny(tmp_path, tmp_path)
    stages = {stage.name: stage.inputs for stage in config.stages()}
    assert stages["train-sft-p"] == ("prompts", "train-sft", "teacher")
    assert stages["samples-sft-p"] == ("prompts", "train-sft-p")
    assert stages["train-sft-p-c"] == ("prompts", "train-sft-p", "judged-sft-p")
    assert stages["train-sft-mix"] == ("prompts", "train-sft", "teacher", "judged-sft", "proxy-sft")
    alone = dataclasses.replace(config, only=("sft",)).stages()
    assert [stage.name for stage in alone] == ["prompts", "train-sft", "replies", "report"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"recipes": (Recipe(name="r", phases=("pp",)),)}, "phase of recipe 'r' 'pp'; did you mean 'p'"),
        ({"only": ("tuma",)}, "recipe for only 'tuma'; did you mean 'tuna'"),
        ({"seeds": (1, 1)}, "each once"),
        ({"proxy": Proxy()}, "needs proxy.training"),
        ({"num_prompts": None}, "num_prompts says how many"),
    ],
)
def test_settings_that_cannot_be_run_are_refused(tmp_path, changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(tiny(tmp_path, tmp_path), **changes)


def test_a_judge_behind_an_endpoint_needs_one():
    with pytest.raises(ValueError, match=r"judge.endpoint says where"):
        JudgeConfig(kind="contextual")


@pytest.mark.parametrize("name", ["tuna/llama_7b", "tuna/llama_7b_released"])
def test_every_published_recipe_is_there_with_its_data_and_its_form(name):
    config = load(shipped()[name])
    names = {recipe.name for recipe in config.recipes}
    assert {"alpaca", "alpaca_mul", "tuna_p", "tuna_c", "tuna_c_prm", "tuna", "mix_tuna_52k", "mix_tuna_104k"} <= names
    assert {f"tuna_c_lambda_{value}" for value in ("0", "0.1", "5", "10")} <= names
    assert {"tuna_cp_13k", "tuna_cp_39k", "tuna_cp_52k", "tuna_13k", "tuna_24k"} <= names
    whole = range(52_000)
    size = {phase.name: [(part.source, len(part.of(whole))) for part in phase.parts] for phase in config.phases}
    assert size["mix_104k"] == [("contextual", 13_000), ("proxy", 39_000), ("probabilistic", 52_000)]
    assert size["mix_52k"] == [("contextual", 13_000), ("probabilistic", 39_000)]
    phases = {phase.name: phase.training for phase in config.phases}
    released = name.endswith("released")
    assert phases["c"].objective.loss_options["gaps"] == ("mean" if released else "sum")
    assert phases["c"].mle_on == ("all" if released else "original")
    assert phases["c"].optimizer.learning_rate == (1e-6 if released else 1e-5)
    assert phases["sft"].optimizer.learning_rate == 2e-5
    assert phases["sft"].num_steps(52_000) == 1219  # three epochs of 128
    whole_config = dataclasses.replace(config, only=tuple(sorted(names)))
    assert len(whole_config.chains()) == len({chain for r in config.recipes for chain in _prefixes(r.phases)})


def _prefixes(phases):
    return [phases[: n + 1] for n in range(len(phases))]


@pytest.mark.parametrize(("phase", "candidates"), [("sft", 1), ("c", 5)])
def test_the_published_phases_fit_together_on_llama_7b(phase, candidates):
    config = load(shipped()["tuna/llama_7b"])
    found = full_size(config.phase(phase).training, LLAMA_7B, num_candidates=candidates)
    assert found.num_trained == 6_738_415_616
    assert found.rows[0] == 16


def test_the_proxy_fits_together_on_llama_7b():
    training = load(shipped()["tuna/llama_7b"]).proxy.training
    found = full_size(training, LLAMA_7B, num_candidates=4)
    assert found.num_trained == 6_738_415_616 + 4096
