"""A run from problems to report, with scripted texts in place of sampled ones: every figure is counted by hand."""

from __future__ import annotations

import dataclasses
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.conversion.loaded import LoadedModel, Placement
from jaxrefine.conversion.pretrained import load_config
from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import read_instructions, write_candidates
from jaxrefine.data.refinement import Asked
from jaxrefine.data.tokenizer import load_tokenizer
from jaxrefine.evaluation.refinement import RefinementSettings
from jaxrefine.judging.local import Rows
from jaxrefine.models.config import TransformerConfig
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.systems import art, art_solver
from jaxrefine.systems.art import Art
from jaxrefine.systems.art_measurement import Measurement
from jaxrefine.systems.art_settings import AskerConfig, ProblemsConfig, SolverConfig, TrusterConfig
from jaxrefine.systems.art_texts import Texts, read_problems
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.full_size import full_size
from tests.evaluation.tiny_model import save_tiny_model

CONFIGS = pathlib.Path(__file__).resolve().parent.parent.parent / "configs" / "art"
TINY = config.load("art/tiny")
R, W = "#### 5", "#### 4"
"""The right answer to every problem, and a wrong one."""
SAID: dict[str, list[tuple[str, ...]]] = {
    "train": [(R, W, W), (R, R, W), (W, W, W), (R, W, R)],
    "test": [(R,), (R,), (W,), (W,)],
    "votes": [(W, R, R), (W, W, R), (R, W, R), (W, W, W)],
    "ask": [("Why?\nNo",), ("Why?\nYes",), ("Why?\nYes",), ("Who knows",)],
    "refined": [(R,), (W,), (R,), (R,)],
    "self_refined": [(W,), (W,), (R,), (W,)],
}
"""What is sampled, by description."""
LIMITS: dict[str, int] = {}
"""Of tokens, under which it was sampled last."""


def scripted(
    model: LoadedModel, prompts: Sequence[Candidates], config: SamplingConfig, directory: pathlib.Path, *,
    description: str = "",
) -> list[Candidates]:  # fmt: skip
    """In place of `sample_candidates`."""
    del model
    LIMITS[description] = config.max_new_tokens
    found = []
    for prompt, texts in zip(prompts, SAID[description], strict=True):
        found.append(dataclasses.replace(prompt, responses=texts, labels=(0.0,) * len(texts), finished=()))
    directory.mkdir(parents=True)
    write_candidates(directory / "candidates.jsonl", found)
    return found


def two_steps(given: Finetuning) -> Finetuning:
    return dataclasses.replace(
        given, steps=2, groups_per_step=4, max_prompt=96, max_response=32, slots=128, checkpoints=None
    )


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Art, pathlib.Path]:
    directory = tmp_path_factory.mktemp("art")
    model = str(save_tiny_model(directory / "start"))
    problems = directory / "problems.jsonl"
    lines = [
        {"id": str(n), "prompt": f"{n} + {5 - n}?", "response": R, "answer": "5", "meta": {"sub_questions": ["Why?"]}}
        for n in range(4)
    ]
    problems.write_text("".join(json.dumps(line) + "\n" for line in lines))
    job = Art(
        problems=ProblemsConfig(format="instructions", train=str(problems), test=str(problems)),
        solver=SolverConfig(model=model),
        asker=AskerConfig(model=model, layers=1, task=None, training=two_steps(TINY.asker.training)),
        truster=TrusterConfig(training=two_steps(TINY.truster.training)),
        rows=Rows(max_prompt=96, max_response=32, slots=128, batch_tokens=512),
        settings=RefinementSettings(num_resamples=20),
        placement=Placement(num_devices=1),
    )
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(art_solver, "sample_candidates", scripted)
        run_stages(job.stages(), directory / "run", job)
    return job, directory / "run"


def read(run: tuple[Art, pathlib.Path], name: str) -> Any:
    return json.loads((run[1] / name).read_text())


def test_methods_that_read_no_score_are_what_counting_by_hand_gives(run: tuple[Art, pathlib.Path]) -> None:
    """First answers R R W W; the Asker refines the second and the third; refined R W R R."""
    [found] = read(run, "10-report/metrics.json")["refinements"]
    counted = {"none": 2, "self_refine": 1, "always": 3, "asker": 2, "majority": 2, "oracle_decision": 4,
               "oracle_choice": 4}  # fmt: skip
    assert {name: 4 * found["rows"][name]["accuracy"]["value"] for name in counted} == counted
    assert found["rows"]["asker"]["share_refined"] == 0.5
    assert found["rows"]["asker"]["transitions"] == [1, 1, 1, 1]
    assert found["detection"]["precision"] == 0.5
    assert found["share_agreeing"] == 0.25
    assert found["left_out"] == {}


def test_which_queries_a_method_has_right_is_kept_for_comparisons(run: tuple[Art, pathlib.Path]) -> None:
    finals = read(run, "10-report/finals.json")
    assert (finals["seed"], finals["ids"]) == (0, ["0", "1", "2", "3"])
    assert (finals["right"]["none"], finals["right"]["asker"]) == ([1, 1, 0, 0], [1, 0, 1, 0])


def test_what_the_asker_writes_has_a_limit_of_its_own(run: tuple[Art, pathlib.Path]) -> None:
    job = run[0]
    assert job.asker.max_new_tokens != job.max_new_tokens
    assert (LIMITS["ask"], LIMITS["refined"]) == (job.asker.max_new_tokens, job.max_new_tokens)


@pytest.mark.parametrize("name", sorted(path.stem for path in CONFIGS.glob("tiny*.py")))
def test_what_the_tiny_models_read_and_write_fits_them(name: str) -> None:
    """With the known solution in place of an answer, which is as long."""
    job = config.load(f"art/{name}")
    few = dataclasses.replace(job.problems, num_train=1, num_solver=1, num_test=100)
    texts, (_, problems, _) = Texts(settings=job), read_problems(few)
    room = load_config(job.asker.directory)[0].max_positions
    tokenizer = load_tokenizer(job.asker.directory)
    for problem in problems:
        asked = Asked(questions=tuple(problem.meta["sub_questions"]), refine=True, form="strict")
        for prompt, limit in (
            (texts.ask(problem, problem.response), job.asker.max_new_tokens),
            (texts.go_on(problem, problem.response, asked), job.max_new_tokens),
        ):
            assert len(tokenizer.encode(prompt)) + 1 + limit <= room


def test_methods_that_read_scores_follow_them(run: tuple[Art, pathlib.Path]) -> None:
    scores = {record["id"]: record["scores"] for record in read(run, "09-trust/scores.json")}
    first, refined = ([text == R for (text,) in SAID[name]] for name in ("test", "refined"))
    kept = [one if scores[str(n)][0] >= scores[str(n)][1] else other
            for n, (one, other) in enumerate(zip(first, refined, strict=True))]  # fmt: skip
    [found] = read(run, "10-report/metrics.json")["refinements"]
    assert found["rows"]["always_truster"]["accuracy"]["value"] == sum(kept) / 4
    assert found["rows"]["art"]["accuracy"]["value"] == sum([first[0], kept[1], kept[2], first[3]]) / 4
    assert len(set(map(tuple, scores.values()))) > 1
    assert scores["0"][0] == pytest.approx(scores["0"][1], rel=1e-5)  # the same text twice


def test_what_the_asker_wrote_is_kept_with_the_probability_of_yes(run: tuple[Art, pathlib.Path]) -> None:
    records = read(run, "07-ask/asked.json")
    assert [record["refine"] for record in records] == [False, True, True, None]
    assert [record["form"] for record in records] == ["strict", "strict", "strict", "unparsable"]
    assert [record["questions"] for record in records] == [["Why?"]] * 3 + [[]]
    assert all(0.0 < record["yes_probability"] < 1.0 for record in records)
    assert "3 strict, 0 lenient, 1 unparsable" in (run[1] / "10-report/report.md").read_text()


def test_the_roles_learn_from_what_was_labelled(run: tuple[Art, pathlib.Path]) -> None:
    """Twelve answers for the Asker; three problems have right and wrong ones, each different answer once."""
    asker, truster = (read(run, f"{name}/summary.json") for name in ("05-asker", "06-truster"))
    assert (asker["num_groups"], asker["num_candidates"], asker["refused"]) == (12, 12, {})
    assert (truster["num_groups"], truster["num_candidates"]) == (3, 6)
    assert read(run, "05-asker/model/config.json")["num_hidden_layers"] == 1
    labels = (run[1] / "03-answers/train.jsonl").read_text()
    assert labels.count('"score": 1.0') + labels.count('"score":1.0') == 5


def test_costs_name_every_role_and_the_reference_is_the_whole_model(run: tuple[Art, pathlib.Path]) -> None:
    costs = {(cost["role"], cost["phase"]): cost for cost in read(run, "10-report/metrics.json")["costs"]}
    large = costs["ψ, fine-tuned on the task", "training"]
    small = costs["Asker, to ask and decide", "training"]
    assert small["params"] < large["params"]
    roles = ("ψ, first answer", "Asker, asks about all", "ψ, refines where it says Yes", "Truster, reads both answers")
    parts = [costs[role, "inference"] for role in roles]
    assert all(cost["tokens"] > 0 for cost in parts)
    assert costs["ART, the whole", "inference"]["flops"] == sum(cost["flops"] for cost in parts)


def test_trained_roles_ask_and_trust_on_any_other_problems(
    run: tuple[Art, pathlib.Path], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    job, done = run
    trained = {name: str(done / f"{place}/model") for name, place in (("asker", "05-asker"), ("truster", "06-truster"))}
    monkeypatch.setattr(art_solver, "sample_candidates", scripted)
    other = dataclasses.replace(
        job,
        problems=dataclasses.replace(job.problems, train=""),
        asker=AskerConfig(model=trained["asker"], task=None, training=None),
        truster=TrusterConfig(model=trained["truster"], from_asker_task=False, training=None),
    )
    run_stages(other.stages(), tmp_path / "run", other)
    assert (tmp_path / "run/09-trust/scores.json").read_text() == (done / "09-trust/scores.json").read_text()
    assert (tmp_path / "run/07-ask/asked.json").read_text() == (done / "07-ask/asked.json").read_text()
    record = json.loads((tmp_path / "run/10-report/metrics.json").read_text())
    assert {cost["phase"] for cost in record["costs"]} == {"inference"}
    with pytest.raises(ValueError, match="give from_asker_task = False"):
        TrusterConfig(training=None)


def test_a_teacher_gives_sub_questions_to_problems_that_have_none(
    run: tuple[Art, pathlib.Path], tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines = [
        {"id": "a", "prompt": "2+3?", "response": R, "answer": "5"},
        {"id": "b", "prompt": "1+4?", "response": R, "answer": "5", "meta": {"sub_questions": ["How?"]}},
    ]
    (tmp_path / "bare.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    bare = ProblemsConfig(format="instructions", train=str(tmp_path / "bare.jsonl"), test=str(tmp_path / "bare.jsonl"))
    monkeypatch.setitem(SAID, "teach", [("1. What is 2+3?\nIt is 5.",)])
    monkeypatch.setattr(art_solver, "sample_candidates", scripted)
    dataclasses.replace(run[0], problems=bare, teacher=run[0].solver).gather(tmp_path)
    for name in ("train.jsonl", "test.jsonl", "solver.jsonl"):
        found = read_instructions(tmp_path / name)
        assert [problem.meta["sub_questions"] for problem in found] == [["What is 2+3?"], ["How?"]]


def test_a_solver_behind_an_endpoint_leaves_its_flops_out(run: tuple[Art, pathlib.Path]) -> None:
    there = EndpointConfig(base_url="http://127.0.0.1:1/v1", model="far away")
    job = dataclasses.replace(run[0], solver=SolverConfig(endpoint=there))
    measurement = Measurement(job, run[1] / "10-report")
    assert {cost.role for cost in measurement.costs} == {
        "Asker, to ask and decide", "Truster", "Asker and Truster", "Asker, asks about all",
        "Truster, reads both answers",
    }  # fmt: skip
    assert measurement.refinements.generator == "far away"
    with pytest.raises(ValueError, match="a model behind solver.endpoint is not trained here"):
        SolverConfig(endpoint=there, finetuning=job.asker.training)


def test_a_mistake_is_said_before_anything_is_loaded(run: tuple[Art, pathlib.Path]) -> None:
    job = run[0]
    with pytest.raises(ValueError, match=r"solver.model = 'nowhere' is no .*; give yours with --solver.model DIR"):
        dataclasses.replace(job, solver=SolverConfig(model="nowhere")).stages()
    nothing = dataclasses.replace(job.problems, train="")
    with pytest.raises(ValueError, match=r"give yours with --problems.train FILE"):
        dataclasses.replace(job, problems=nothing).stages()
    with pytest.raises(ValueError, match=r"scorer = 'sequence'; allowed: reward"):
        TrusterConfig(training=job.asker.training)


def llama(width: int, layers: int, heads: int, kv_heads: int, hidden: int) -> TransformerConfig:
    return TransformerConfig(vocab_size=32000, width=width, num_layers=layers, num_heads=heads, num_kv_heads=kv_heads,
                             head_width=128, hidden_width=hidden, max_positions=4096)  # fmt: skip


def test_the_published_sizes_fit_together_without_weights() -> None:
    """A 13B Asker and Truster; 13,015,864,320 parameters as published."""
    published = config.load("art/llama_13b")
    size = llama(5120, 40, 40, 40, 13824)
    asker = full_size(published.asker.training, size, num_candidates=1)
    truster = full_size(published.truster.training, size, num_candidates=5)
    assert asker.num_params == truster.num_params == 13_015_864_320
    assert truster.num_trained == asker.num_trained + 5120
    with pytest.raises(ValueError, match="give yours with --solver.model"):
        published.stages()


def test_another_seed_is_another_run_of_every_training_and_sampling(monkeypatch) -> None:
    given = []
    monkeypatch.setattr(art, "finetune", lambda start, examples, config, *rest, **options: given.append(config.seed))
    here = pathlib.Path()
    asker, votes = dataclasses.replace(TINY.asker.task, seed=4), TINY.solver.votes
    assert votes.seed == 1
    for seed in (0, 3):
        job = dataclasses.replace(TINY, seed=seed)
        job._train(here, [], asker, here, "train")
        given.append(job._sampled(votes).seed)
    assert given == [4, 1, 7, 4]
    assert dataclasses.replace(TINY, seed=3).problems == TINY.problems
