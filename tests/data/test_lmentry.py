"""LMentry's files: read whole, or refused with the field that is wrong."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.lmentry import CORE_TASKS, TASK_OF, read_lmentry, read_lmentry_task
from jaxrefine.data.templates import Template

METADATA = {"answer": "planet", "distractor": "sun", "answer_index": 0, "template_id": 2, "word1": "planet"}
FILE = {
    "settings": {"name": "more_letters", "canary": "…"},
    "examples": {"17": {"input": "Which is longer?\nA:", "metadata": METADATA}},
}


def written(path: pathlib.Path, content: Any) -> pathlib.Path:
    path.write_text(json.dumps(content))
    return path


def test_a_file_by_hand(tmp_path: pathlib.Path):
    file = written(tmp_path / "more_letters.json", FILE)
    found = read_lmentry_task(file)[0]
    assert (found.id, found.prompt) == ("more_letters-17", "Which is longer?\nA:")
    assert found.meta == {"task": "more_letters", "instruction": "Which is longer?\nA:", "metadata": METADATA}
    around = read_lmentry_task(file, template=Template("instruction", "<{instruction}>\n"))[0]
    assert around.prompt == "<Which is longer?\nA:>\n"


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"settings": {"name": "more_leters"}}, "settings.name: unknown LMentry task 'more_leters'; did you mean"),
        ({"examples": {}}, "examples: at least one is wanted"),
        ({"examples": {"1": {"metadata": METADATA}}}, "examples.1.input: missing"),
        ({"examples": {"1": {"input": "x", "metadata": {}}}}, "examples.1.metadata.template_id: missing"),
        (
            {"examples": {"1": {"input": "x", "metadata": METADATA | {"answer": 3}}}},
            "examples.1.metadata.answer: a string is wanted, got int 3",
        ),
        (
            {"examples": {"1": {"input": "x", "metadata": METADATA | {"answer_index": -1}}}},
            "examples.1.metadata.answer_index: a whole number from 0 is wanted, got -1",
        ),
    ],
)
def test_a_malformed_file_names_its_field(tmp_path: pathlib.Path, change: dict[str, Any], reason: str):
    with pytest.raises(RecordError, match=rf"x\.json: {reason}"):
        read_lmentry_task(written(tmp_path / "x.json", FILE | change))


def test_a_directory_says_which_file_is_missing(tmp_path: pathlib.Path):
    written(tmp_path / "more_letters.json", FILE)
    assert len(read_lmentry(tmp_path, tasks=["more_letters"])) == 1
    with pytest.raises(ValueError, match=r"sentence_containing\.json is missing"):
        read_lmentry(tmp_path)
    with pytest.raises(ValueError, match="unknown LMentry task 'words'"):
        read_lmentry(tmp_path, tasks=["words"])


@pytest.mark.shared_data
def test_the_tasks_are_those_that_were_published(shared_data: pathlib.Path):
    published = json.loads((shared_data / "lmentry" / "core_tasks.json").read_text())
    assert list(CORE_TASKS) == published["core_tasks"]
    assert set(TASK_OF) - set(CORE_TASKS) == set(published["analysis_tasks"])
    assert all(TASK_OF[name] in CORE_TASKS and name.startswith(TASK_OF[name]) for name in published["analysis_tasks"])
