"""Fine-tuning for math from problems to report at the smallest size, and what each stage gives to the next."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import Stage, run_stages
from jaxrefine.conversion.loaded import Placement, load_model
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.readers import read_candidates, read_instructions, write_candidates
from jaxrefine.data.solution_sources import SolutionSource
from jaxrefine.evaluation.selection import SelectionSettings
from jaxrefine.judging.grading import Graded
from jaxrefine.judging.local import Rows
from jaxrefine.models.config import TransformerConfig
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.selection.examples import ExampleChoice
from jaxrefine.systems import math_solving
from jaxrefine.systems.math_phases import (
    SEQUENCE_CONTRAST,
    SOLUTIONS,
    VERDICT_CROSS_ENTROPY,
    VERDICT_MARGIN,
    evaluating,
    solving,
    together,
    with_likelihood,
)
from jaxrefine.systems.math_settings import Phase
from jaxrefine.systems.math_solving import MathSolving
from jaxrefine.training.finetuning import Finetuning, token_groups
from jaxrefine.training.full_size import full_size
from tests.evaluation.tiny_model import save_tiny_model

LLAMA_7B = TransformerConfig(
    vocab_size=32000, width=4096, num_layers=32, num_heads=32, num_kv_heads=32, head_width=128, hidden_width=11008
)
BOTH = ("terse", "lines")
TRAINING = Finetuning(
    objective=SOLUTIONS, steps=2, groups_per_step=3, max_prompt=64, max_response=24, slots=128, checkpoints=None
)
SSFT = solving("both", *BOTH, training=TRAINING)
XENT = evaluating(
    "xent", VERDICT_CROSS_ENTROPY, of="both", training=TRAINING, examples=ExampleChoice(rule="all"), scores=("again",)
)
AGAIN = solving("again", *BOTH, training=TRAINING, start="xent")
CONTROL = solving("control", *BOTH, training=TRAINING, start="both")
JOINT = together("joint", with_likelihood(VERDICT_MARGIN, 0.5), *BOTH, of="both", training=TRAINING)
CONTRAST = together("contrast", SEQUENCE_CONTRAST, *BOTH, of="both", training=TRAINING)


def small(model: Path | None = None, **options: Any) -> MathSolving:
    made: dict[str, Any] = {
        "model": None if model is None else str(model),
        "sources": (SolutionSource(name="terse", num=8, style="terse"), SolutionSource(name="lines", num=8)),
        "test": SolutionSource(name="test", num=4, split="test"),
        "phases": (SSFT, XENT, AGAIN),
        "measure_given": False,
        "num_sampled": 3,
        "sampling": SamplingConfig(num_candidates=3, max_new_tokens=8, slots=6, columns=3),
        "rows": Rows(max_prompt=64, max_response=24, slots=128),
        "placement": Placement(num_devices=1),
        "selection": SelectionSettings(largest=1, top=2, num_resamples=20, num_draws=4),
    }
    return MathSolving(**made | options)


def even_is_right(example: Candidates, **options: Any) -> Graded:
    """Noise is right about half the time; every text is an answer of its own."""
    del options
    texts = list(dict.fromkeys(example.responses))
    return Graded(
        answers=example.responses,
        clusters=tuple(texts.index(text) for text in example.responses),
        right=tuple(len(text) % 2 == 0 for text in example.responses),
    )


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_tiny_model(tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="module")
def workdir(model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run that was stopped before its last training and then went on."""
    directory, job = tmp_path_factory.mktemp("run"), small(model)

    def stop(directory: Path) -> None:
        raise KeyboardInterrupt

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(math_solving, "grade", even_is_right)
        stages = [
            stage if stage.name != "train-again" else dataclasses.replace(stage, run=stop) for stage in job.stages()
        ]
        with pytest.raises(KeyboardInterrupt):
            run_stages(stages, directory, job)
        before = {path: path.stat().st_mtime_ns for path in directory.glob("*/manifest.json")}
        assert len(before) == 5
        run_stages(job.stages(), directory, job)
        assert all(path.stat().st_mtime_ns == time for path, time in before.items())
    return directory


def test_the_stages_are_those_of_the_phases_in_order(workdir: Path):
    assert [path.name for path in sorted(workdir.glob("[0-9]*"))] == [
        "01-data", "02-train-both", "03-solve-both", "04-samples-both", "05-train-xent", "06-train-again",
        "07-solve-again", "08-score-xent", "09-report",
    ]  # fmt: skip


def test_an_evaluator_learns_from_graded_samples_and_the_next_generator_from_its_weights(workdir: Path):
    sampled = read_candidates(workdir / "04-samples-both" / "labelled.jsonl")
    assert len(sampled) == 3
    for example in sampled:
        assert example.labels == tuple(float(len(text) % 2 == 0) for text in example.responses)
    summary = json.loads((workdir / "05-train-xent" / "summary.json").read_text())
    assert summary["num_candidates"] == sum(len(set(example.responses)) for example in sampled)
    solved = json.loads((workdir / "07-solve-again" / "solved.json").read_text())
    assert solved["history"] == ["given", "both", "xent", "again"]
    assert (solved["role"], solved["compared_with"]) == ("sequential", "both")


def test_the_evaluator_scores_every_solution_of_every_generator_that_it_is_to_re_rank(workdir: Path):
    for name, number in (("both", 3), ("again", 7)):
        solutions = read_candidates(workdir / f"{number:02d}-solve-{name}" / "labelled.jsonl")
        scored = read_candidates(workdir / "08-score-xent" / f"{name}.jsonl")
        assert [one.responses for one in scored] == [one.responses for one in solutions]
        assert all(label <= 0 for one in scored for label in one.labels)  # logarithms of S


def test_the_report_measures_generators_evaluators_and_strategies(workdir: Path):
    record = json.loads((workdir / "09-report" / "metrics.json").read_text())
    assert [one["name"] for one in record["generators"]] == ["both", "again"]
    assert list(record["generators"][1]["differences"]) == ["both"]
    assert [(one["generator"], one["evaluator"]) for one in record["pools"]] == [("both", "xent"), ("again", "xent")]
    solutions = read_candidates(workdir / "03-solve-both" / "labelled.jsonl")
    right = sum(any(one.labels) for one in solutions) / 4
    assert record["generators"][0]["solved"]["pass_at_n"]["value"] == right
    assert record["pools"][0]["rows"]["pass_at_n"]["accuracy"]["value"] == right
    text = (workdir / "09-report" / "report.md").read_text()
    assert "phase xent" in text
    assert "from both; 2 steps of 3 problems" in text


def test_a_problem_without_samples_has_its_solution_alone_to_learn(model: Path):
    loaded = load_model(model, Placement(num_devices=1))
    solution = Candidates("1", "2+3?\n", answer="5", meta={"original": "#### 5"})
    pair = dataclasses.replace(solution, responses=("a", "b"), labels=(1.0, 0.0), finished=(True, True))
    for phase in (JOINT, CONTRAST):
        groups, refused = token_groups([solution, pair], loaded, phase.training)
        assert refused == []
        assert [group.rank_where for group in groups] == [(False,), (True, True, False)]
        assert [group.mle_weight for group in groups] == [(1.0,), (0.0, 0.0, 1.0)]


class Lone:
    """A directory with finished stages that were not computed."""

    def __init__(self, root: Path, job: MathSolving) -> None:
        self.root, self._stages = root, []
        self._job = job
        self.add("data", job.prepare)

    def add(self, name: str, run: Any) -> Path:
        self._stages.append(Stage(name, run))
        run_stages(self._stages, self.root, self._job)
        return self.root / f"{len(self._stages):02d}-{name}"

    @property
    def next(self) -> Path:
        return self.root / "99-next"


def test_each_kind_of_phase_learns_from_its_own_examples(tmp_path: Path):
    job = small(phases=(SSFT, dataclasses.replace(XENT, scores=()), JOINT))
    lone = Lone(tmp_path, job)
    problems = read_candidates(lone.root / "01-data" / "problems.jsonl", min_candidates=0)
    assert len(problems) == 3
    labelled = [
        dataclasses.replace(one, responses=("a", "b", "b", "c"), labels=(1.0, 0.0, 0.0, 0.0), finished=(True,) * 4)
        for one in problems[:2]
    ]
    lone.add("samples-both", lambda directory: write_candidates(directory / "labelled.jsonl", labelled) or None)
    solutions = job.training_examples(SSFT, lone.next)
    assert len(solutions) == 16
    assert all(isinstance(one, Instruction) for one in solutions)
    verdicts = job.training_examples(XENT, lone.next)
    assert [one.responses for one in verdicts if isinstance(one, Candidates)] == [("a", "b", "c")] * 2
    together_ = job.training_examples(JOINT, lone.next)
    assert len(together_) == 8  # every problem once
    terse = {one.prompt: one.response for one in read_instructions(lone.root / "01-data" / "solutions-terse.jsonl")}
    lines = {one.prompt: one.response for one in read_instructions(lone.root / "01-data" / "solutions-lines.jsonl")}
    for place, one in enumerate(together_):
        assert isinstance(one, Candidates)
        assert len(one.responses) == (2 if place < 2 else 0)
        assert one.meta["original"] in (terse[one.prompt], lines[one.prompt])


def answering(accuracy: dict[str, Sequence[bool]]) -> Any:
    """A sampler that is right where it is told to be, by the model's directory."""

    def sample(model: Path, problems: Sequence[Candidates], *rest: Any, **options: Any) -> list[Candidates]:
        return [
            dataclasses.replace(
                one, responses=(f"#### {one.answer if right else 'none'}",), labels=(0.0,), finished=(True,)
            )
            for one, right in zip(problems, accuracy[model.name], strict=True)
        ]

    return sample


def test_the_first_of_the_best_epochs_on_the_validation_problems_is_taken(tmp_path, monkeypatch):
    best = solving("both", *BOTH, training=TRAINING, best_epoch=True)
    job = small(phases=(best,), num_validation=2, style="marker", grading="keys")
    lone = Lone(tmp_path, job)

    def train(directory: Path) -> None:
        for name in ("epochs/1", "epochs/2", "epochs/10", "model"):
            (directory / name).mkdir(parents=True)
        job.train(best, directory)

    right = {"1": (False, True), "2": (True, True), "10": (True, True), "model": (False, False)}
    monkeypatch.setattr(math_solving, "finetune", lambda *args, **options: None)
    monkeypatch.setattr(math_solving, "load_model", lambda path, placement: path)
    monkeypatch.setattr(math_solving, "sample_candidates", answering(right))
    trained = lone.add("train-both", train)
    choice = json.loads((trained / "choice.json").read_text())
    assert choice["accuracy"] == {"epochs/1": 0.5, "epochs/2": 1.0, "epochs/10": 1.0, "model": 0.0}
    assert job._weights(lone.next, "both") == trained / "epochs/2"


def test_given_models_see_solved_examples_and_trained_ones_do_not(model: Path, tmp_path, monkeypatch):
    job = small(model, few_shot=2, measure_given=True)
    lone = Lone(tmp_path, job)
    loaded = load_model(model, Placement(num_devices=1))
    asked: list[str] = []

    def sample(model: Any, problems: Sequence[Candidates], *rest: Any, **options: Any) -> list[Candidates]:
        asked.append(problems[0].prompt)
        texts = ("#### 1\n\n---\n\nWhy?\n#### 2", "#### 3")
        return [dataclasses.replace(one, responses=texts, labels=(0.0,) * 2, finished=(False,) * 2) for one in problems]

    monkeypatch.setattr(math_solving, "sample_candidates", sample)
    found = {
        name: job._sampled(loaded, name, lone.next, "test.jsonl", job.sampling, tmp_path)[0]
        for name in ("given", "both")
    }
    shots = read_instructions(lone.root / "01-data" / "solutions-terse.jsonl")[:2]
    assert asked[0] == "".join(f"{one.prompt}{one.response}\n\n---\n\n" for one in shots) + asked[1]
    assert found["given"].prompt == asked[1]
    assert (found["given"].responses, found["given"].finished) == (("#### 1", "#### 3"), (True, False))
    assert found["both"].responses[0].startswith("#### 1\n\n---")


def test_a_given_model_that_changed_is_noticed(model: Path, tmp_path: Path):
    copy = tmp_path / "model"
    copy.mkdir()
    for file in model.iterdir():
        (copy / file.name).write_bytes(file.read_bytes())
    job = small(copy)
    lone = Lone(tmp_path / "run", job)
    assert job._weights(lone.next, "given") == copy
    (copy / "tokenizer_config.json").write_text("{}")
    with pytest.raises(ValueError, match="changed since the run began"):
        job._weights(lone.next, "given")


def test_only_runs_a_phase_with_what_it_builds_on():
    job = small(phases=(SSFT, solving("terse", "terse", training=TRAINING), XENT, AGAIN, CONTROL, CONTRAST))
    names = lambda *only: [phase.name for phase in dataclasses.replace(job, only=only).chosen]  # noqa: E731
    assert names() == ["both", "terse", "xent", "again", "control", "contrast"]
    assert names("again") == ["both", "xent", "again"]
    assert names("control", "terse") == ["both", "terse", "control"]
    assert dataclasses.replace(job, only=("xent",)).targets_of(XENT) == ("both",)  # the other one is not solved


def test_a_generator_is_what_its_training_was():
    job = small(phases=(SSFT, XENT, AGAIN, CONTROL, JOINT, CONTRAST))
    roles = {name: job.role(job.history(name)) for name in job.generators}
    assert roles == {
        "both": ("solutions", None), "again": ("sequential", "both"), "control": ("control", "both"),
        "joint": ("joint", "both"), "contrast": ("joint", "both"),
    }  # fmt: skip
    assert job.role(job.history("given")) == ("given", None)
    assert JOINT.targets == ("both",)
    assert CONTRAST.targets == ()


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"phases": (AGAIN,)}, "phase 'again': unknown start 'xent'"),
        ({"phases": (SSFT, SSFT)}, "phase 'both': there is a model of this name already"),
        ({"phases": (SSFT, dataclasses.replace(XENT, scores=("agian",)), AGAIN)}, "did you mean 'again'"),
        ({"phases": (solving("x", "trese", training=TRAINING),)}, "unknown source 'trese'; did you mean 'terse'"),
        ({"phases": (solving("x", "terse", training=TRAINING, best_epoch=True),)}, "needs num_validation"),
        ({"only": ("margin",)}, "unknown phase for only 'margin'"),
    ],
)
def test_phases_that_do_not_fit_together_are_refused(change: Any, reason: str):
    with pytest.raises(ValueError, match=reason):
        small(**change)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"name": "a/b"}, "a name is a word of its own"),
        ({"samples_of": "both"}, "objective.loss = None and samples_of = 'both'"),
        ({"solutions": ()}, "likelihood reads solutions, and nothing else does"),
        ({"scores": ("both",)}, "it gives no verdicts, or re_ranks is off"),
        ({"best_epoch": True}, "best_epoch needs a generator and training.keep_epochs"),
    ],
)
def test_a_phase_that_cannot_be_is_refused(change: Any, reason: str):
    options: dict[str, Any] = {"name": "x", "solutions": ("terse",), "training": TRAINING}
    with pytest.raises(ValueError, match=reason):
        Phase(**options | change)
    with pytest.raises(ValueError, match="mle_on = 'original', given 'best'"):
        Phase(
            name="x", solutions=BOTH, samples_of="both",
            training=dataclasses.replace(TRAINING, objective=SEQUENCE_CONTRAST),
        )  # fmt: skip


def test_missing_files_and_models_are_said_with_their_flags():
    with pytest.raises(ValueError, match=r"absent.jsonl not there; give yours with --sources.N.paths"):
        small(sources=(SolutionSource(name="x", kind="gsm8k", paths=("absent.jsonl",)),), phases=(
            solving("x", "x", training=TRAINING),)).stages()  # fmt: skip
    with pytest.raises(ValueError, match=r"give yours with --more-models.large DIRECTORY"):
        small(more_models={"large": "absent"}).stages()


PUBLISHED = ("solution_sources", "reranking", "sequential", "joint", "transfer")


@pytest.mark.parametrize("name", PUBLISHED)
def test_a_published_experiment_has_the_papers_settings(name: str):
    job = config.load(f"math/{name}")
    drawn = job.sampling
    assert (drawn.num_candidates, drawn.temperatures, drawn.top_p) == (64, (0.6,), 0.95)
    assert (job.num_validation, job.selection.largest) == (1000, 8)
    for phase in job.phases:
        assert phase.examples.num == 10
        assert phase.best_epoch == (phase.samples_of is None and phase.start in ("given", "larger"))
        if phase.best_epoch:
            assert phase.training.epochs == 2
    assert {phase.training.objective.loss_options.get("margin") for phase in job.phases} <= {None, 1.0}


def test_every_training_step_of_the_published_experiments_traces_at_full_size():
    """Once for each objective: LLaMA-7B, ten samples and a solution as long as may be."""
    trainings = {
        repr(phase.training.objective): phase for name in PUBLISHED for phase in config.load(f"math/{name}").phases
    }
    assert len(trainings) == 6  # solutions, Eq. 8, 9, 11, 12, 13
    for phase in trainings.values():
        candidates = (phase.examples.num if phase.samples_of else 0) + phase.generates
        found = full_size(dataclasses.replace(phase.training, groups_per_step=8), LLAMA_7B, num_candidates=candidates)
        assert found.num_params == 6_738_415_616
        names = {name.removeprefix("loss/") for name in found.metrics if name.startswith("loss/")}
        wanted = {phase.training.objective.loss: phase.samples_of, "likelihood": phase.generates}
        assert names == {name for name, there in wanted.items() if there}


def test_the_control_of_the_sequence_takes_as_many_steps_as_the_sequence():
    steps = {phase.name: phase.training.steps for phase in config.load("math/sequential").phases}
    assert steps["control"] == steps["margin"] + steps["after_margin"] == steps["xent"] + steps["after_xent"]
    assert steps["margin"] == math.ceil(11_000 / 64)
    tiny = {phase.name: phase.training.steps for phase in config.load("math/tiny").phases}
    assert tiny["control"] == tiny["words"] + tiny["margin"] + tiny["after_margin"] == tiny["xent"] + tiny["after_xent"]
