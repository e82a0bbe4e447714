"""What Tuna reads and whom it asks: instructions and a teacher's files in the released formats, judges by name."""

from __future__ import annotations

import dataclasses
import json

import pytest

from jaxrefine.artefacts.stages import run_stages
from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import read_candidates
from jaxrefine.evaluation.tasks import Task
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.systems import tuna, tuna_settings
from jaxrefine.systems.tuna import Tuna
from jaxrefine.systems.tuna_settings import JudgeConfig, Part, Phase, Recipe
from jaxrefine.training.finetuning import Finetuning
from tests.judging.scripted import judgement, shown
from tests.systems.test_judging import Opened

ENDPOINT = EndpointConfig(base_url="http://127.0.0.1:1/v1", model="judge")
RECORDS = [{"instruction": f"Say {n}.", "input": "", "output": f"It is {n}."} for n in range(3)]
SFT = Phase(
    name="p", parts=(Part(source="probabilistic"),), training=Finetuning(objective=ObjectiveConfig(mle_weight=1.0))
)


@pytest.fixture
def config(tmp_path):
    data, teacher = tmp_path / "alpaca_data.json", tmp_path / "teacher.json"
    data.write_text(json.dumps([*RECORDS, {"instruction": "Blank.", "input": "", "output": " "}]))
    said = [{"orig": record, "text": ["a", "b c"], "logprob": [-2.0, -1.0], "length": [1, 2]} for record in RECORDS[1:]]
    teacher.write_text(json.dumps(said))
    return Tuna(
        data=str(data), data_format="alpaca", teacher_file=str(teacher), phases=(SFT,),
        recipes=(Recipe(name="p", phases=("p",)),), tasks=(Task(name="world", max_prompts=1),), length_power=1.0,
    )  # fmt: skip


def test_the_released_formats_meet_by_their_prompts(config, tmp_path):
    run_stages(config.stages()[:2], tmp_path / "run", config)
    prompts = read_candidates(tmp_path / "run" / "01-prompts" / "prompts.jsonl", min_candidates=0)
    assert [prompt.meta["original"] for prompt in prompts] == ["It is 0.", "It is 1.", "It is 2."]
    ranked = read_candidates(tmp_path / "run" / "02-teacher" / "judged.jsonl")
    assert [one.id for one in ranked] == [prompts[1].id, prompts[2].id]
    assert ranked[0].labels == (-2.0, -0.5)  # log p / length
    assert ranked[0].meta["original"] == "It is 1."


def test_a_teachers_file_of_other_prompts_is_refused(config, tmp_path):
    (tmp_path / "teacher.json").write_text(
        json.dumps([{"id": "1", "instruction": "Other.", "output": ["a"], "score": [1]}])
    )
    other = dataclasses.replace(config, teacher_format="tuna")
    with pytest.raises(ValueError, match=r"none of its 1 prompts is one of the data's 3"):
        run_stages(other.stages()[:2], tmp_path / "run", other)


def test_a_path_that_is_not_there_is_noticed_before_anything_runs(config):
    with pytest.raises(ValueError, match="student: there is no /nowhere/llama; give yours with --student"):
        dataclasses.replace(config, student="/nowhere/llama").stages()


def test_the_contextual_judge_is_asked_through_its_endpoint(monkeypatch, tmp_path):
    points = lambda request: judgement({name: (len(text), 0, 0) for name, text in shown(request).items()})  # noqa: E731
    monkeypatch.setattr(tuna_settings, "Endpoint", lambda config, keep: Opened(points))
    with JudgeConfig(kind="contextual", endpoint=ENDPOINT, keep=str(tmp_path)).open() as judge:
        (found,) = judge([Candidates("1", "Say it.", ("a", "abc"), (0.0, 0.0), meta={"instruction": "Say it."})])
    assert found.labels == (1.0, 3.0)


def test_answers_are_compared_with_the_first_recipes_in_both_orders(config, monkeypatch):
    # A judge that always likes what it is shown first contradicts itself: all ties. One that likes length does not.
    def verdict(request):
        first, second = map(len, shown(request).values())
        return f"Verdict: {1 if first > second else 2}"

    questions = Task(name="vicuna", kind="questions", path="q.jsonl")
    control = Recipe(name="control", phases=("p",))
    judged = dataclasses.replace(config, compared_by=ENDPOINT, tasks=(questions,), recipes=(control, *config.recipes))

    def replies(*texts):
        return {"vicuna": [[
            Candidates(str(n), "Why?", (text,), (0.0,), meta={"instruction": "Why?", "category": "generic"})
            for n, text in enumerate(texts)
        ]]}  # fmt: skip

    given = {"control": replies("aa", "aa", "aa"), "p": replies("aaaa", "a", "aaa")}
    monkeypatch.setattr(tuna, "Endpoint", lambda config, keep: Opened(verdict))
    found = judged._compare_pairs(given)["vicuna/p"]["overall"]
    assert (found["win"], found["lose"], found["tie"]) == (2, 1, 0)
    monkeypatch.setattr(tuna, "Endpoint", lambda config, keep: Opened(lambda request: "Verdict: 1"))
    found = judged._compare_pairs(given)["vicuna/p"]["overall"]
    assert (found["win"], found["lose"], found["tie"]) == (0, 0, 3)
