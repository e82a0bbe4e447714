"""PandaLM from base model to report with the smallest of models, going on after a stop; published sizes as shapes."""

from __future__ import annotations

import dataclasses
import json
import pathlib
import shutil

import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.conversion.loaded import load_model
from jaxrefine.data.arithmetic.generator import ArithmeticConfig
from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import write_candidates
from jaxrefine.data.readers_pandalm import read_judgement_records
from jaxrefine.data.tasks import TaskSource
from jaxrefine.evaluation.harness import HarnessConfig
from jaxrefine.judging.distilled import JudgeForm
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.selection.tournament import Match, make_bracket, play
from jaxrefine.systems import pandalm as systems
from jaxrefine.systems import pandalm_search
from jaxrefine.systems.judge_agreement import JudgeAgreement
from jaxrefine.systems.pandalm import Base, PandaLM, new_model
from jaxrefine.systems.pandalm_judge import JudgeConfig, JudgeStages
from jaxrefine.systems.pandalm_search import SearchConfig
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.grid import Axis, Grid
from jaxrefine.training.optimizer import OptimizerConfig

SHIPPED = pathlib.Path(__file__).resolve().parent.parent.parent / "jaxrefine" / "shipped" / "arithmetic-small"
NEOX = {
    "model_type": "gpt_neox", "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1,
    "num_attention_heads": 2, "max_position_embeddings": 512, "rotary_pct": 0.5,
}  # fmt: skip
WORLD = ArithmeticConfig(min_steps=2, max_steps=2)


def learning(rate: float = 1e-2) -> Finetuning:
    return Finetuning(
        objective=ObjectiveConfig(loss=None, mle_weight=1.0, mle_normalize="token"),
        optimizer=OptimizerConfig(learning_rate=rate),
        groups_per_step=4, max_prompt=256, slots=256, checkpoints=None,
    )  # fmt: skip


def tasks(num: int, seed: int, **changes) -> TaskSource:
    return TaskSource(num=num, seed=seed, world=WORLD, **changes)


def small(start: pathlib.Path) -> PandaLM:
    sampling = SamplingConfig(num_candidates=1, temperatures=(0.0, 1.0), max_new_tokens=6, slots=8)
    return PandaLM(
        bases=(Base(name="neox", model=str(start)),),
        judge=JudgeConfig(
            tasks=tasks(8, 2), num_held_out=3, tuning=learning(), tuning_tasks=tasks(4, 3, brief=True),
            sampling=sampling, start=str(start), form=JudgeForm(says="reference, verdict", max_tokens=6),
            training=learning(), slots=8,
        ),
        search=SearchConfig(
            tasks=tasks(8, 4, brief=True),
            default=learning(1e-4),
            grid=Grid(epochs=(1, 2, 3), axes=(Axis(path="optimizer.name", values=("adamw",)),)),
            num_blocks=2,
            validation=tasks(4, 5, split="validation", brief=True),
            test=tasks(3, 6, split="test", brief=True),
            sampling=dataclasses.replace(sampling, temperatures=(0.0,)),
            round_robin=True,
        ),
    )  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Run:
    config: PandaLM
    directory: pathlib.Path

    def read(self, name: str):
        return json.loads((self.directory / name).read_text())


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Run:
    root = tmp_path_factory.mktemp("pandalm")
    new_model(SHIPPED, NEOX, root / "start" / "fresh", seed=7)
    configured = small(root / "start" / "fresh")
    run_stages(configured.stages(), root / "run", configured)
    return Run(configured, root / "run")


def test_a_new_base_model_is_trained_and_moves_with_the_run(tmp_path, monkeypatch):
    trained = []

    def scripted(start, examples, config, directory, *, placement, description):
        trained.append((start, [example.id for example in examples], config, directory))
        return shutil.copytree(start, directory / "model")

    monkeypatch.setattr(systems, "finetune", scripted)
    new = Base(name="new", model=str(SHIPPED), attributes=NEOX, pretraining=learning())
    there = Base(name="there", model=str(SHIPPED))
    configured = dataclasses.replace(small(SHIPPED), bases=(new, there), pretraining_tasks=tasks(2, 1))
    configured.make_bases(tmp_path)
    assert json.loads((tmp_path / "models.json").read_text()) == {"new": "new/model", "there": str(SHIPPED)}
    [(start, examples, learned, directory)] = trained
    assert (examples, learned, directory) == ([f"arithmetic-train-1-{n}" for n in (0, 1)], learning(), tmp_path / "new")
    model = load_model(start).model.config
    assert (model.width, model.num_layers, model.vocab_size) == (16, 1, 860)


def test_all_stages_run_in_order(run: Run):
    stages = [stage.name for stage in run.config.stages()]
    assert stages == [
        "bases", "responses", "records", "judge", "agreement", "trials", "answers", "tournament", "report"
    ]  # fmt: skip
    assert all((run.directory / f"{n:02d}-{name}" / "manifest.json").is_file() for n, name in enumerate(stages, 1))


def test_records_are_those_of_the_teacher_in_both_orders_and_held_out_tasks_are_apart(run: Run):
    learned = read_judgement_records(run.directory / "03-records" / "records.jsonl")
    held_out = read_judgement_records(run.directory / "03-records" / "held_out.jsonl")
    summary = run.read("03-records/summary.json")
    assert len(learned) + 2 * len(held_out) == 2 * summary["kept"]
    assert not {one.instruction for one in learned} & {one.instruction for one in held_out}
    assert {model for one in learned for model in one.meta["models"]} == {"neox", "neox tuned"}
    for one, other in zip(learned[::2], learned[1::2], strict=True):
        assert (one.first, one.second) == (other.second, other.first)
        assert one.meta["models"] == other.meta["models"][::-1]


def test_what_the_judge_wrote_of_each_pair_in_each_order_is_kept(run: Run):
    agreement = run.directory / "05-agreement"
    said = [json.loads(line)["record"]["said"] for line in (agreement / "reply.jsonl").read_text().splitlines()]
    texts = (agreement / "reply_texts.jsonl").read_text().splitlines()
    assert len(texts) == 2 * sum(not identical for *_, identical in said) > 0
    # This judge says a reference and a verdict, and the one by likelihood nothing: no reasons.
    assert {text for found in run.read("05-agreement/reasons.json").values() for text in found.values()} == {""}


def test_every_trial_answers_every_task_and_the_default_too(run: Run):
    models = run.read("06-trials/models.json")["neox"]
    assert list(models) == ["adamw epoch 1", "adamw epoch 2", "adamw epoch 3", "default"]
    for name, model in models.items():
        assert load_model(run.directory / "06-trials" / model).params is not None
        answers = run.directory / "07-answers" / "neox" / name.replace(" ", "_")
        assert len((answers / "candidates.jsonl").read_text().splitlines()) == 7
        assert run.read(f"07-answers/neox/{answers.name}/perplexity.json")["perplexity"] > 1


def test_the_champion_is_that_of_the_matches_that_were_kept(run: Run):
    kept = run.read("08-tournament/result.json")["neox"]
    matches = [Match(**record | {"outcomes": tuple(record["outcomes"])}) for record in kept["round_robin"]]
    assert len(matches) == 6  # of three trials and the default
    known = {(match.one, match.other): match for match in matches}
    names = ["adamw epoch 1", "adamw epoch 2", "adamw epoch 3"]

    def compare(one: str, other: str) -> Match:
        return known[one, other] if (one, other) in known else known[other, one].turned()

    assert play(make_bracket(names, 2), compare).champion == kept["outcome"]["champion"]
    [metrics] = run.read("09-report/metrics.json")
    assert metrics["budget"] == {"matches": 2, "comparisons": 4, "num_prompts": 4, "questions": 16}
    assert metrics["tournament_questions"] <= 16
    assert set(metrics["trials"]) == {*names, "default"}
    assert (run.directory / "09-report" / "figures" / "neox.png").is_file()


def test_a_tournament_that_lost_its_end_comes_to_the_same_without_asking_again(run: Run, tmp_path, monkeypatch):
    again = tmp_path / "run"
    shutil.copytree(run.directory, again)
    for file in ("manifest.json", "result.json"):
        (again / "08-tournament" / file).unlink()
    matches = again / "08-tournament" / "neox" / "matches.jsonl"
    lines = matches.read_text().splitlines(keepends=True)
    matches.write_text("".join(lines[:2]))
    shutil.rmtree(again / "09-report")
    monkeypatch.setattr("jaxrefine.judging.pairwise.PairwiseJudge.compare", _nobody)
    run_stages(run.config.stages(), again, run.config)
    kept, found = (json.loads((root / "08-tournament" / "result.json").read_text()) for root in (run.directory, again))
    assert found == kept


def _nobody(self, pairs, *, done=None):
    raise AssertionError("what is on disk is asked again")


def test_lm_eval_is_asked_about_champion_default_and_base_once_and_stands_in_the_report(
    run: Run, tmp_path, monkeypatch
):
    asked = []

    def scripted(model, config, own, *, max_new_tokens):
        assert own.is_file()
        asked.append(model.directory)
        return {"known_answers": {"exact_match,stated": len(asked) / 10}}

    monkeypatch.setattr(pandalm_search, "ask_harness", scripted)
    monkeypatch.setattr(HarnessConfig, "check", lambda self, flag: None)  # lm-eval need not be installed
    again = tmp_path / "run"
    shutil.copytree(run.directory, again)
    shutil.rmtree(again / "09-report")
    (again / "config.json").unlink()
    search = dataclasses.replace(run.config.search, harness=HarnessConfig(own=True))
    configured = dataclasses.replace(run.config, search=search)
    run_stages(configured.stages(), again, configured)
    result = run.read("08-tournament/result.json")["neox"]["outcome"]["champion"]
    trials = run.read("06-trials/models.json")["neox"]
    wanted = [again / "06-trials" / trials[name] for name in (result, "default")]
    assert asked[1:] == wanted
    text = (again / "10-report" / "report.md").read_text()
    assert "| model | share | accuracy | perplexity | known_answers: exact_match,stated |" in text
    assert "| before tuning | – | – | – | 0.100 |" in text
    (again / "09-harness" / "manifest.json").unlink()
    shutil.rmtree(again / "10-report")
    run_stages(configured.stages(), again, configured)
    assert len(asked) == 3  # what was measured is kept
    with pytest.raises(ValueError, match="search.harness.own asks the tasks of search.test, and there are none"):
        dataclasses.replace(search, test=None).check()
    (tmp_path / "alpaca.json").write_text(json.dumps([{"instruction": "Go.", "input": "", "output": "I go."}]))
    unknown = TaskSource(format="alpaca", file=str(tmp_path / "alpaca.json"))
    with pytest.raises(ValueError, match="asks for known answers, and tasks of search.test have none"):
        dataclasses.replace(search, test=unknown).check()


def test_a_judge_that_is_there_is_not_trained_again(run: Run):
    there = dataclasses.replace(run.config.judge, model=str(run.directory / "04-judge" / "model"))
    stages = dataclasses.replace(run.config, judge=there).stages()
    assert [stage.name for stage in stages] == ["bases", "trials", "answers", "tournament", "report"]
    with pytest.raises(ValueError, match="nothing to do: a judge is given, and no search"):
        dataclasses.replace(run.config, judge=there, search=None).stages()


def test_records_that_are_there_need_no_responses(run: Run, tmp_path):
    records = str(run.directory / "03-records" / "records.jsonl")
    judge = dataclasses.replace(run.config.judge, records=records, num_held_out=2)
    stages = dataclasses.replace(run.config, judge=judge, search=None).stages()
    assert [stage.name for stage in stages] == ["records", "judge", "agreement"]
    stages[0].run(tmp_path)
    learned, held_out = (read_judgement_records(tmp_path / name) for name in ("records.jsonl", "held_out.jsonl"))
    given = read_judgement_records(records)
    last = list(dict.fromkeys(one.instruction for one in given))[-2:]
    assert learned == [one for one in given if one.instruction not in last]
    assert held_out == [one for one in given if one.instruction in last and not one.id.endswith("-swapped")]


def test_a_judge_learns_nothing_of_responders_that_are_to_be_unseen(run: Run, tmp_path):
    """Three responders, the third unseen: two tasks of four are held out, each has the six ordered pairs."""
    responses = tmp_path / "02-responses"
    for name, text in {"a": "#### 5", "b": "#### 6", "c": "so #### 7"}.items():
        answers = [Candidates(task.id, task.prompt, (text,), (0.0,)) for task in tasks(4, 2).read()]
        (responses / "responses" / name).mkdir(parents=True)
        write_candidates(responses / "responses" / name / "candidates.jsonl", answers)
    shutil.copy(run.directory / "02-responses" / "manifest.json", responses)
    judge = dataclasses.replace(run.config.judge, tasks=tasks(4, 2), num_held_out=2, pairs_per_task=6, unseen=("c",))
    here = tmp_path / "03-records"
    here.mkdir()
    JudgeStages(judge, (), run.config.placement).make_records(here)
    read = {name: read_judgement_records(here / f"{name}.jsonl") for name in ("records", "held_out", "unseen")}
    models = {name: {tuple(sorted(one.meta["models"])) for one in records} for name, records in read.items()}
    assert models == {"records": {("a", "b")}, "held_out": {("a", "b")}, "unseen": {("a", "c"), ("b", "c")}}
    assert [len(records) for records in read.values()] == [8, 4, 8]  # what is learned is there in both orders
    with pytest.raises(ValueError, match="judge.unseen"):
        JudgeStages(dataclasses.replace(judge, unseen=("d",)), (), run.config.placement).make_records(here)
    with pytest.raises(ValueError, match="leaves 1 responders to learn from"):
        JudgeStages(dataclasses.replace(judge, unseen=("b", "c")), (), run.config.placement).make_records(here)
    with pytest.raises(ValueError, match="give held_out_records"):
        dataclasses.replace(judge, records="there.json").check()


def test_pairs_with_unseen_responders_have_a_report_of_their_own(run: Run, tmp_path, monkeypatch):
    records = tmp_path / "03-records"
    shutil.copytree(run.directory / "03-records", records)
    shutil.copy(records / "held_out.jsonl", records / "unseen.jsonl")
    asked = []

    def scripted(self, judge, records, directory):
        asked.append(directory)
        directory.mkdir(exist_ok=True)
        said = {one.id: one.verdict for one in records}
        (directory / "verdicts.json").write_text(json.dumps({"by reply": said}))
        (directory / "reasons.json").write_text(json.dumps({"by reply": dict.fromkeys(said, "")}))

    monkeypatch.setattr(JudgeStages, "ask", scripted)
    judge = dataclasses.replace(run.config.judge, unseen=("c",), model=str(SHIPPED))
    here = tmp_path / "05-agreement"
    here.mkdir()
    JudgeStages(judge, (), run.config.placement).measure(here)
    assert asked == [here, here / "unseen"]
    assert "pairs with c, from which it learned nothing" in (here / "unseen" / "report.md").read_text()


def test_a_judge_is_measured_on_given_pairs_by_likelihood_after_examples(run: Run, tmp_path):
    records = run.directory / "03-records"
    job = JudgeAgreement(
        pairs=str(records / "held_out.jsonl"), pairs_format="records", judge=str(run.directory / "04-judge" / "model"),
        by="likelihood", shots=str(records / "records.jsonl"), num_shots=2,
    )  # fmt: skip
    run_stages(job.stages(), tmp_path / "run", job)
    [found] = json.loads((tmp_path / "run" / "02-report" / "metrics.json").read_text())["judges"].values()
    assert found["num"] == len(read_judgement_records(records / "held_out.jsonl"))
    assert found["unread"] == 0  # one of three texts is always the likeliest


def test_published_verdicts_are_reported_by_the_shipped_config(tmp_path):
    rows = [
        {"idx": 0, "motivation_app": "", "cmp_key": "a_b", "instruction": "Go.", "input": "", "response1": "x",
         "response2": "y", "annotator1": 1, "annotator2": 1, "annotator3": 0},
    ]  # fmt: skip
    (tmp_path / "testset-v1.json").write_text(json.dumps(rows))
    said = [{"idx": 0, "owl_result": "1", "owl_reason": "It goes.", "owl_reference": ""}]
    (tmp_path / "owl-testset-v1.json").write_text(json.dumps(said))
    job = dataclasses.replace(config.load("pandalm/agreement"), data=str(tmp_path))
    run_stages(job.stages(), tmp_path / "run", job)
    report = (tmp_path / "run" / "02-report" / "report.md").read_text()
    assert "| owl | 1.0000 |" in report
    assert "| GPT-4 † | 0.6647 |" in report


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": "", "pairs": ""}, "give yours with --data DIRECTORY"),
        ({"pairs": "missing.json"}, "there is no file missing.json"),
        ({"pairs": __file__, "num_shots": 2}, "--num-shots needs --shots"),
        ({"pairs": __file__, "verdicts": ("owl",)}, "NAME=FILE is wanted"),
    ],
)
def test_an_agreement_that_cannot_be_measured_is_refused_at_once(changes, message: str):
    with pytest.raises(ValueError, match=message):
        JudgeAgreement(**changes).stages()
