"""Tasks: prompts from the shipped world and from files, and what replies are worth, as worked by hand."""

from __future__ import annotations

import dataclasses
import gzip
import json

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import write_candidates
from jaxrefine.evaluation.tasks import LENGTH, Task, check_paths

NI = {
    "Definition": ["Say the colour."],
    "Categories": ["Naming"],
    "Positive Examples": [{"input": "grass", "output": "green", "explanation": ""}],
    "Negative Examples": [],
    "Instances": [{"id": "a", "input": "sky", "output": ["blue"]}, {"id": "b", "input": "snow", "output": ["white"]}],
    "Input_language": ["English"],
    "Output_language": ["English"],
    "Instruction_language": ["English"],
    "Domains": ["Test"],
    "URL": [""],
    "Contributors": ["us"],
    "Source": ["us"],
    "Reasoning": [],
}


def replied(prompts, *texts):
    return [dataclasses.replace(prompt, responses=(text,), labels=(0.0,), finished=(True,))
            for prompt, text in zip(prompts, texts, strict=True)]  # fmt: skip


def test_word_problems_are_worth_their_answer_their_judgement_and_their_length():
    task = Task(name="world", max_prompts=2)
    prompts = task.prompts()
    assert prompts == Task(name="other", max_prompts=2).prompts()
    right, wrong = replied(prompts, prompts[0].meta["original"], "#### none")
    found = task.measure([right, wrong]).values
    assert list(found) == ["accuracy", "judge", LENGTH]
    assert found["accuracy"].tolist() == [1.0, 0.0]
    assert found["judge"][0] == 10.0  # the very original
    assert found[LENGTH].tolist() == [len(prompts[0].meta["original"].split()), 2]
    cut = dataclasses.replace(right, finished=(False,))
    assert task.measure([cut, wrong]).values["accuracy"].tolist() == [0.0, 0.0]


def test_prompts_of_a_file_need_known_answers(tmp_path):
    path = tmp_path / "own.jsonl"
    write_candidates(path, [Candidates("1", "2+3?", answer="5"), Candidates("2", "1+1?", answer="2")])
    task = Task(name="own", kind="answers", path=str(path), max_prompts=1)
    assert [prompt.id for prompt in task.prompts()] == ["1"]
    assert task.measure(replied(task.prompts(), "#### 5")).values["accuracy"].tolist() == [1.0]
    write_candidates(path, [Candidates("1", "2+3?")])
    with pytest.raises(ValueError, match="prompt '1' has no known answer"):
        task.prompts()


def test_super_ni_is_measured_by_task(tmp_path):
    pytest.importorskip("rouge_score", reason="the extra is not installed")
    for name in ("task1_a", "task2_b"):
        (tmp_path / f"{name}.json").write_text(json.dumps(NI | {"Instances": [
            {**one, "id": f"{name}-{one['id']}"} for one in NI["Instances"]]}))  # fmt: skip
    (tmp_path / "names.txt").write_text("task1_a\ntask2_b\n")
    task = Task(name="ni", kind="super_ni", path=str(tmp_path), tasks=str(tmp_path / "names.txt"), max_prompts=2)
    prompts = task.prompts()
    assert len(prompts) == 4
    replies = replied(prompts, *("blue", "white", "blue", "red"))
    assert task.measure(replies).values["ROUGE-L"].tolist() == [1.0, 0.5]
    assert task.measure(replies).whole["num"] == {"task1_a": 2, "task2_b": 2}
    two = dataclasses.replace(task, shots=2)
    assert "grass" in two.prompts()[0].prompt
    assert "grass" not in prompts[0].prompt


@pytest.mark.shared_data
def test_lmentry_is_measured_by_task_with_what_is_known_of_its_score(shared_data, tmp_path):
    (tmp_path / "names.txt").write_text("starts_with_word\nrhyming_word\n")
    task = Task(name="l", kind="lmentry", path=str(shared_data / "lmentry"), tasks=str(tmp_path / "names.txt"))
    prompts = task.prompts()
    replies = replied(prompts, *[""] * len(prompts))
    assert task.measure(replies).values["accuracy"].tolist() == [0.0, 0.0]
    whole = task.measure(replies).whole
    assert list(whole["tasks"]) == ["starts_with_word", "rhyming_word"]
    assert whole["accuracy"] is None  # of 25 tasks, two were asked


def test_questions_are_compared_alone(tmp_path):
    line = {"question_id": 1, "text": "Why?", "category": "generic"}
    path = tmp_path / "q.jsonl.gz"
    path.write_bytes(gzip.compress(json.dumps(line).encode()))
    task = Task(name="vicuna", kind="questions", path=str(path))
    (prompt,) = task.prompts()
    assert prompt.meta["category"] == "generic"
    assert task.measure(replied([prompt], "So it is.")).values[LENGTH].tolist() == [3.0]


def test_mistakes_are_refused_before_anything_is_asked(tmp_path):
    with pytest.raises((TypeError, ValueError), match="super-ni"):  # by its annotation, where those are checked
        Task(name="t", kind="super-ni", path="x")
    with pytest.raises(ValueError, match="max_prompts says how many"):
        Task(name="t")
    with pytest.raises(ValueError, match="needs a path"):
        Task(name="t", kind="lmentry")
    with pytest.raises(ValueError, match="two tasks are called 't'"):
        check_paths([Task(name="t", max_prompts=1)] * 2)
    lost = Task(name="t", kind="lmentry", path="nowhere").inside(str(tmp_path))
    with pytest.raises(ValueError, match=rf"task 't': there is no {tmp_path}/nowhere"):
        check_paths([lost])
    with pytest.raises(ValueError, match="one response to each prompt"):
        Task(name="t", max_prompts=1).measure([Candidates("1", "p")])
