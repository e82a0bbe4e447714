"""Super-NaturalInstructions: task files of both versions, and the prompts that are made of them."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.super_ni import (
    SUPER_NI_ROLES,
    SUPER_NI_TEMPLATES,
    read_super_ni,
    read_super_ni_task,
    read_task_names,
)
from jaxrefine.data.templates import load_templates

TASK = {
    "Definition": ["Reverse the word."],
    "Categories": ["Text Games"],
    "Positive Examples": [
        {"input": "abc", "output": "cba", "explanation": "Backwards."},
        {"input": "no", "output": "on", "explanation": ""},
        {"input": "x", "output": "x", "explanation": ""},
    ],
    "Negative Examples": [],
    "Instances": [
        {"id": "t-1", "input": "tea", "output": ["aet", "AET"]},
        {"id": "t-2", "input": "pot", "output": ["top"]},
    ],
    "Instance License": ["MIT"],
}

TEMPLATES_FILE = """
instruction_with_input = "{instruction}|{input}|"
super_ni = "0 {definition}"
super_ni_with_examples = "{definition}+{examples}"
super_ni_example = "{input}>{output}"
"""


def written(path: pathlib.Path, task: dict[str, Any]) -> pathlib.Path:
    path.write_text(json.dumps(task))
    return path


@pytest.mark.parametrize(
    ("shots", "expected"),
    [
        (0, "0 Reverse the word.|tea|"),
        (2, "Reverse the word.+abc>cba\n\nno>on|tea|"),
        (9, "Reverse the word.+abc>cba\n\nno>on\n\nx>x|tea|"),
    ],
)
def test_prompts_with_a_users_templates(tmp_path: pathlib.Path, shots: int, expected: str):
    (tmp_path / "mine.toml").write_text(TEMPLATES_FILE)
    mine = load_templates(tmp_path / "mine.toml", roles=SUPER_NI_ROLES, shipped=SUPER_NI_TEMPLATES)
    task = read_super_ni_task(written(tmp_path / "task7_reversal.json", TASK))
    found = task.prompts(shots=shots, templates=mine)
    assert [prompt.id for prompt in found] == ["t-1", "t-2"]
    assert found[0].prompt == expected
    assert found[0].responses == ()
    assert found[0].meta["references"] == ["aet", "AET"]
    assert (found[0].meta["task"], found[0].meta["categories"]) == ("task7_reversal", ["Text Games"])
    assert found[0].meta["shots"] == min(shots, 3)
    assert len(task.prompts(max_instances=1)) == 1


def test_shipped_prompts_show_the_definition_the_examples_and_the_input(tmp_path: pathlib.Path):
    task = read_super_ni_task(written(tmp_path / "task7.json", TASK))
    none, two = (task.prompts(shots=shots)[1] for shots in (0, 2))
    assert "Reverse the word." in none.prompt
    assert "cba" not in none.prompt
    for prompt in (none, two):
        assert prompt.prompt.count("pot") == 1
        assert prompt.meta["instruction"].endswith("\n\npot")
    assert "Given 1: abc\nReply 1: cba\n\nGiven 2: no\nReply 2: on" in two.prompt
    with pytest.raises(ValueError, match="shots must not be negative"):
        task.prompts(shots=-1)


def test_version_1_is_read_too(tmp_path: pathlib.Path):
    old = {
        "Title": "Reversal",
        "Definition": "Reverse the word.",
        "Examples": {"Positive Examples": [{"input": "abc", "output": "cba", "reason": ""}], "Negative Examples": []},
        "Instances": [{"input": "tea", "output": ["aet"]}],
    }
    task = read_super_ni_task(written(tmp_path / "subtask007_reversal.json", old))
    assert (task.name, task.examples, task.categories) == ("subtask007_reversal", (("abc", "cba"),), ())
    assert task.instances[0].id == "subtask007_reversal-0"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"Definition": []}, "Definition: is empty"),
        ({"Instances": []}, "Instances: at least one is wanted"),
        ({"Instances": [{"id": "1", "input": "x", "output": []}]}, r"Instances\[0\]\.output: at least one reference"),
        ({"Instances": [{"id": "1", "output": ["x"]}]}, r"Instances\[0\]\.input: missing"),
        ({"Instances": [{"id": "1", "input": "x", "output": [4]}]}, r"Instances\[0\]\.output\[0\]: a string is wanted"),
        ({"Positive Examples": [{"input": "x"}]}, r"Positive Examples\[0\]\.output: missing"),
    ],
)
def test_a_malformed_task_names_its_field(tmp_path: pathlib.Path, change: dict[str, Any], reason: str):
    with pytest.raises(RecordError, match=rf"task7\.json: {reason}"):
        read_super_ni_task(written(tmp_path / "task7.json", TASK | change))


def test_a_directory_is_read_in_the_order_of_names_or_as_listed(tmp_path: pathlib.Path):
    other = TASK | {"Instances": [{"id": "u-1", "input": "", "output": "x"}]}
    written(tmp_path / "task9_b.json", TASK)
    written(tmp_path / "task10_a.json", other)
    (tmp_path / "names.txt").write_text("task9_b\n\ntask10_a\n")
    assert [task.name for task in read_super_ni(tmp_path)] == ["task10_a", "task9_b"]
    assert [task.name for task in read_super_ni(tmp_path, tasks=read_task_names(tmp_path / "names.txt"))] == [
        "task9_b",
        "task10_a",
    ]
    with pytest.raises(ValueError, match="unknown task 'task9_c'; did you mean 'task9_b'"):
        read_super_ni(tmp_path, tasks=["task9_c"])
    written(tmp_path / "task11.json", TASK)
    with pytest.raises(ValueError, match="id 't-1' of task9_b is that of task11 too"):
        read_super_ni(tmp_path)
    with pytest.raises(ValueError, match="no task; files named"):
        read_super_ni(tmp_path / "nowhere")


@pytest.mark.shared_data
def test_published_tasks_are_read_whole(shared_data: pathlib.Path):
    tasks = read_super_ni(shared_data / "super_ni" / "tasks")
    names = read_task_names(shared_data / "super_ni" / "test_tasks.txt")
    assert (len(tasks), len(names), len(set(names))) == (23, 119, 119)
    assert {task.name for task in tasks} <= set(names)
    with open(shared_data / "super_ni" / "index.jsonl") as file:
        index = {row["task"]: row for row in map(json.loads, file)}
    for task in tasks:
        assert len(task.instances) == index[task.name]["instances_kept"] == 20
        assert list(task.categories) == index[task.name]["categories"]
        assert all(prompt.meta["shots"] == 2 for prompt in task.prompts(shots=2))
    assert len(read_super_ni(shared_data / "super_ni" / "v1_tasks")) == 6
