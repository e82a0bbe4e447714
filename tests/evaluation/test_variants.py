"""The comparison from end to end with a random model: it runs, goes on where it stopped, and takes one's own data."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from jaxrefine.artefacts.stages import run_stages
from jaxrefine.config import load, shipped
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import write_candidates
from jaxrefine.evaluation import variant_data, variant_run, variant_sampling
from jaxrefine.evaluation.comparison import METRICS, START
from jaxrefine.evaluation.variant_data import Lengths
from jaxrefine.evaluation.variants import LossVariants, Variant
from jaxrefine.models.lora import LoraConfig
from jaxrefine.scoring.adapted import TuningConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.training.optimizer import OptimizerConfig
from tests.evaluation.tiny_model import even_is_right, save_tiny_model

MLE = Variant(name="mle", learning_rate=1e-2, objective=ObjectiveConfig(mle_weight=1.0))
DPO = Variant(name="dpo", learning_rate=1e-2, objective=ObjectiveConfig(loss="dpo"))
VERDICT = Variant(
    name="verdict", learning_rate=1e-2, objective=ObjectiveConfig(loss="verdict_cross_entropy", scorer="verdict")
)
REWARD = Variant(
    name="reward", learning_rate=1e-2, objective=ObjectiveConfig(loss="pairwise_logistic", scorer="reward")
)
GRADED = (0.1, 0.9, 0.5)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def lenient() -> Iterator[None]:
    """Noise is right half the time, finished or not, and its length is its answer."""

    def judge(prompt: Candidates, samples: Any, tokenizer: Any) -> list[dict[str, Any]]:
        records = []
        for sample in samples:
            text = tokenizer.decode(sample.content)
            records.append(
                {
                    "text": text,
                    "outcome": even_is_right(text, ""),
                    "answer": str(len(text) % 3),
                    "finished": True,
                    "logprob": float(sum(sample.logprobs)),
                    "tokens": list(sample.tokens),
                }
            )
        return records

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(variant_run, "judge", judge)
        patch.setattr(variant_sampling, "judge", judge)
        yield


@pytest.fixture(scope="module")
def finished(model: Path, lenient: None, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The work directory of a comparison that ran without a stop."""
    workdir = tmp_path_factory.mktemp("finished")
    run(tiny(model), workdir)
    return workdir


def tiny(model: Path, **changes: Any) -> LossVariants:
    settings = LossVariants(
        variants=(MLE, DPO), model=str(model), num_train=12, num_held_out=4, num_candidates=3, num_base_samples=3,
        num_votes=2, seeds=(0, 1), steps=2, groups_per_step=3, slots=64, lengths=Lengths(prompt=48, response=6),
        optimizer=OptimizerConfig(schedule="constant"), num_devices=1, num_resamples=50,
    )  # fmt: skip
    return dataclasses.replace(settings, **changes)


def run(settings: LossVariants, workdir: Path) -> dict[str, Any]:
    run_stages(settings.stages(), workdir, settings)
    return json.loads((workdir / "06-report" / "metrics.json").read_text())


def without_times(metrics: dict[str, Any]) -> dict[str, Any]:
    for row in metrics["variants"].values():
        row.pop("cost")
    return metrics


def units(workdir: Path) -> list[dict[str, Any]]:
    lines = (workdir / "05-variants" / "units.jsonl").read_text().splitlines()
    return [json.loads(line)["record"] for line in lines]


@pytest.mark.slow
def test_every_metric_of_every_unit_is_measured_and_reported(finished: Path) -> None:
    metrics = json.loads((finished / "06-report" / "metrics.json").read_text())
    ran = [(unit["variant"], unit["seed"]) for unit in units(finished)]
    assert ran == [("mle", 0), ("dpo", 0), ("mle", 1), ("dpo", 1)]
    for unit in units(finished):
        assert set(unit["quality"]) == set(METRICS)
        assert all(len(values) == 4 for values in unit["quality"].values())
        assert len(unit["loss"]) == 2
        assert unit["peak_memory_bytes"] > 0
        assert unit["seconds_per_step"] > 0
    assert set(metrics["variants"]) == {START, "mle", "dpo"}
    assert not metrics["unavailable"]
    for row in metrics["variants"].values():
        for cell in row["quality"].values():
            assert 0.0 <= cell["estimate"]["low"] <= cell["estimate"]["value"] <= cell["estimate"]["high"] <= 1.0
    assert (finished / "06-report" / "report.md").read_text().count("](figures/") == 3


@pytest.mark.slow
def test_the_seeds_of_a_variant_share_one_compiled_step(finished: Path) -> None:
    seconds = {(unit["variant"], unit["seed"]): unit["compile_seconds"] for unit in units(finished)}
    assert seconds["mle", 0] == seconds["mle", 1] > 0
    assert seconds["dpo", 0] == seconds["dpo", 1] > 0


@pytest.mark.slow
def test_a_stopped_comparison_repeats_no_unit_and_ends_with_the_same_metrics(
    finished: Path, model: Path, lenient: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    original = variant_run.Runner.run
    ran: list[tuple[str, int]] = []

    def counting(self: Any, variant: Variant, seed: int, **options: Any) -> Any:
        if len(ran) == 2:
            ran.append(("stopped", -1))
            raise KeyboardInterrupt
        ran.append((variant.name, seed))
        return original(self, variant, seed, **options)

    monkeypatch.setattr(variant_run.Runner, "run", counting)
    with pytest.raises(KeyboardInterrupt):
        run(tiny(model), tmp_path)
    metrics = run(tiny(model), tmp_path)
    assert ran == [("mle", 0), ("dpo", 0), ("stopped", -1), ("mle", 1), ("dpo", 1)]
    whole = json.loads((finished / "06-report" / "metrics.json").read_text())
    assert without_times(metrics) == without_times(whole)


def own_file(path: Path, *, labels: tuple[float, ...], answer: str | None) -> Path:
    rows = [
        Candidates(f"own-{n}", f"What is {n}+1?\n", (f"so #### {n + 1}", f"it is #### {n}", "no idea"), labels, answer)
        for n in range(24)
    ]
    write_candidates(path, rows)
    return path


@pytest.mark.slow
def test_scored_candidates_without_answers_are_compared_by_ranking_alone(model: Path, tmp_path: Path) -> None:
    file = own_file(tmp_path / "own.jsonl", labels=GRADED, answer=None)
    variants = (dataclasses.replace(MLE, mle_on="best"), VERDICT, REWARD)
    metrics = run(tiny(model, candidates=str(file), variants=variants, seeds=(0,)), tmp_path / "run")
    assert set(metrics["variants"]["reward"]["quality"]) == {"ranking_accuracy"}
    assert metrics["unavailable"]["greedy_accuracy"] == "the held-out prompts have no known answers"
    assert "right / wrong labels" in metrics["left_out"]["verdict"]
    report = (tmp_path / "run" / "06-report" / "report.md").read_text()
    assert "– the held-out prompts have no known answers" in report


@pytest.mark.slow
def test_right_and_wrong_candidates_with_answers_give_every_metric(model: Path, tmp_path: Path) -> None:
    file = own_file(tmp_path / "own.jsonl", labels=(1.0, 0.0, 0.0), answer="7")
    tuning = TuningConfig(parameters="adapters", base="int8", lora=LoraConfig(rank=2, targets=("attention/query",)))
    settings = tiny(model, candidates=str(file), variants=(MLE, VERDICT), seeds=(3,), keep_weights=True, tuning=tuning)
    metrics = run(settings, tmp_path / "run")
    assert not metrics["unavailable"]
    assert not metrics["left_out"]
    (_, before), (_, after) = (
        load_pretrained(directory) for directory in (model, tmp_path / "run" / "05-variants" / "weights" / "verdict-3")
    )
    for name in ("key", "query"):  # rounded to 8 bits; and what was adapted has moved further than that
        moved = np.abs(before["layers"]["attention"][name]["kernel"] - after["layers"]["attention"][name]["kernel"])
        step = np.abs(before["layers"]["attention"][name]["kernel"]).max() / 127
        assert (moved.max() > step) == (name == "query")


def test_identical_candidates_count_once_and_keep_their_places() -> None:
    example = Candidates("1", "2+3?", ("5", "6", "5"), (1.0, 0.0, 1.0), "5")
    judged = variant_data.judged_texts(example)
    distinct, places = judged.distinct()
    assert distinct.example.responses == ("5", "6")
    assert distinct.example.labels == (1.0, 0.0)
    assert places == (0, 1, 0)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"control": "mel"}, "did you mean 'mle'"),
        ({"only": ("dppo",)}, "did you mean 'dpo'"),
        ({"variants": (MLE, MLE)}, "two variants are called 'mle'"),
        ({"seeds": ()}, "at least one"),
        ({"seeds": (1, 1)}, "each once"),
        ({"steps": 0}, "steps = 0 must be at least 1"),
        ({"num_candidates": 1}, "at least 2"),
        ({"held_out_share": 1.0}, "between 0 and 1"),
    ],
)
def test_a_setting_that_cannot_be_is_refused_before_any_compute(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        tiny(Path("nowhere"), **changes)


def test_a_model_or_file_that_is_not_there_is_named(tmp_path: Path, model: Path) -> None:
    with pytest.raises(ValueError, match=r"holds no config.json"):
        tiny(tmp_path).stages()
    with pytest.raises(ValueError, match=r"there is no file .*absent.jsonl"):
        tiny(model, candidates=str(tmp_path / "absent.jsonl")).stages()
    with pytest.raises(ValueError, match=r"the 256 positions of .*together at most"):
        tiny(model, lengths=Lengths(prompt=200, response=60)).stages()
    adapters = TuningConfig(parameters="adapters", lora=LoraConfig(targets=("q_proj",)))
    with pytest.raises(ValueError, match=r"'q_proj'.*attention/query"):
        tiny(model, tuning=adapters).stages()


@pytest.mark.parametrize("name", [name for name in shipped() if name.startswith("loss_variants/")])
def test_shipped_comparisons_have_the_variants_that_are_promised(name: str) -> None:
    settings = load(name)
    names = {variant.name for variant in settings.variants}
    assert len(names) >= 10
    assert len(settings.seeds) >= 3
    for variant in settings.variants:
        if variant.objective.loss == "margin_ranking":
            assert variant.objective.loss_options["ties"] == "skip"
