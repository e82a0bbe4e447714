"""Instructions from a world or a file: what a model is asked, what a judge is shown, what is refused."""

from __future__ import annotations

import json

import pytest

from jaxrefine.data.arithmetic.generator import ArithmeticConfig
from jaxrefine.data.tasks import TaskSource

WORLD = ArithmeticConfig(min_steps=2, max_steps=2)


def test_tasks_of_the_world_have_solution_answer_and_the_question_for_a_judge():
    tasks = TaskSource(num=3, seed=5, split="test", world=WORLD).read()
    assert [task.id for task in tasks] == [f"arithmetic-test-5-{n}" for n in range(3)]
    for task in tasks:
        assert task.prompt == f"{task.meta['instruction']}\n"
        assert task.response.endswith(f"#### {task.answer}")
        assert task.response.count("=") == 2


def test_a_brief_solution_is_its_calculations_and_a_prompt_of_ones_own_wraps_the_question():
    [task] = TaskSource(num=1, world=WORLD, brief=True, prompt="Q: {question} A: ").read()
    [whole] = TaskSource(num=1, world=WORLD).read()
    assert [line.split(": ")[-1] for line in whole.response.splitlines()] == task.response.splitlines()
    assert task.prompt == f"Q: {whole.meta['instruction']} A: "
    assert task.answer == whole.answer


def test_alpacas_records_are_cut_to_a_number_and_blank_ones_left_out(tmp_path):
    rows = [{"instruction": f"Say {n}.", "input": "", "output": "" if n == 1 else str(n)} for n in range(4)]
    (tmp_path / "alpaca_data.json").write_text(json.dumps(rows))
    tasks = TaskSource(format="alpaca", file=str(tmp_path / "alpaca_data.json"), num=2).read()
    assert [task.response for task in tasks] == ["0", "2"]
    assert tasks[0].answer is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"file": "tasks.json"}, "the world has no file"),
        ({"format": "alpaca"}, "the world has no file, others one"),
        ({"num": 0}, "num = 0 must be at least 1"),
        ({"prompt": "{questoin}"}, "unknown field of template 'question' 'question'"),
    ],
)
def test_sources_that_cannot_be_are_refused(changes, message: str):
    with pytest.raises(ValueError, match=message):
        TaskSource(**changes)


def test_what_is_not_there_is_refused_with_the_flag_that_names_it():
    with pytest.raises(ValueError, match=r"no file none.json; give yours with --search.tasks.file FILE"):
        TaskSource(format="pandalm", file="none.json").check("search.tasks")
    with pytest.raises(ValueError, match=r"judge.tasks.num: say how many"):
        TaskSource().check("judge.tasks")
