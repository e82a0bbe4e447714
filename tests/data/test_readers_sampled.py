"""Public sampled solutions come with their answers, labels and scores, or the reading says where they do not."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.readers_sampled import read_birm_samples, read_prm800k_samples, read_qwen_math_samples


def write(path: pathlib.Path, *records: Any) -> pathlib.Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


QWEN = {
    "idx": 3,
    "question": "Half of 9?",
    "gt": "4.5",
    "code": ["It is 4.5.", "Five.", "Hm."],
    "pred": ["4.5", "5", ""],
    "score": [True, False, False],
    "pred_score": [[1.5], [-2], [0.25]],
    "history": [],
}


def test_a_line_of_rewarded_samples_by_hand(tmp_path: pathlib.Path) -> None:
    assert read_qwen_math_samples(write(tmp_path / "q.jsonl", QWEN)) == [
        Candidates(
            "3",
            "Half of 9?\n",
            ("It is 4.5.", "Five.", "Hm."),
            (1.0, 0.0, 0.0),
            "4.5",
            meta={"answers": ["4.5", "5", None], "scores": [1.5, -2.0, 0.25]},
        )
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"pred": ["4.5", "5"]}, "pred: 3 items are wanted, as in code, got 2"),
        ({"score": [True, False]}, "score: 3 items are wanted, as in code, got 2"),
        ({"score": [True, False, 1]}, r"score\[2\].item: true or false is wanted, got int 1"),
        ({"pred_score": [[1.5], [2.0], []]}, r"pred_score\[2\].item: a list of one number is wanted, got 0"),
        ({"pred_score": [1.5, 2.0, 3.0]}, r"pred_score\[0\].item: a list is wanted, got float 1.5"),
        ({"pred_score": [[1.5], [None], [1]]}, r"pred_score\[1\].item\[0\].item: a number is wanted"),
        ({"code": "It is 4.5."}, "code: a list is wanted"),
    ],
)
def test_wrong_rewarded_samples_are_named(tmp_path: pathlib.Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError, match=rf"q\.jsonl:1: {reason}"):
        read_qwen_math_samples(write(tmp_path / "q.jsonl", QWEN | change))


def scored(id: str, answer: str | None, right: bool, prm: float, **change: Any) -> dict[str, Any]:
    made = {
        "problem": f"Problem {id}?",
        "unique_id": id,
        "ground_truth_answer": "5",
        "steps": ["First.", f"# Answer\n\n{answer}"],
        "answer": answer,
        "is_correct": right,
        "prm_score": prm,
        "orm_score": 1 - prm,
        "rating_probs": [],
    }
    return made | change


def test_scored_samples_are_gathered_by_problem(tmp_path: pathlib.Path) -> None:
    lines = [scored("a", "5", True, 0.75), scored("b", None, False, 0.5), scored("a", "6", False, 0.25)]
    file = write(tmp_path / "s.jsonl", *lines)
    first = Candidates(
        "a",
        "Problem a?\n",
        ("First.\n# Answer\n\n5", "First.\n# Answer\n\n6"),
        (1.0, 0.0),
        "5",
        meta={"answers": ["5", "6"], "scores": [0.75, 0.25]},
    )
    found = read_prm800k_samples(file)
    assert found[0] == first
    assert [record.id for record in found] == ["a", "b"]
    assert found[1].meta["answers"] == [None]
    assert read_prm800k_samples(file, score="orm_score")[0].meta["scores"] == [0.25, 0.75]
    assert [len(record.responses) for record in read_prm800k_samples(file, num_samples=1)] == [1, 1]
    with pytest.raises(ValueError, match="num_samples must be at least 1, or None for all, given 0"):
        read_prm800k_samples(file, num_samples=0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"problem": "Another?"}, "unique_id: has another problem or known answer than on an earlier line"),
        ({"is_correct": 1}, "is_correct: true or false is wanted"),
        ({"prm_score": None}, "prm_score: a number is wanted"),
        ({"steps": [1]}, r"steps\[0\].item: a string is wanted"),
    ],
)
def test_wrong_scored_samples_are_named(tmp_path: pathlib.Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError, match=rf"s\.jsonl:2: {reason}"):
        read_prm800k_samples(
            write(tmp_path / "s.jsonl", scored("a", "5", True, 0.7), scored("a", "5", True, 0.7, **change))
        )


@pytest.mark.shared_data
def test_a_scored_sample_as_published_is_read(shared_data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    published = json.loads((shared_data / "prm800k/examples/RM-scored-example.json").read_text())
    [found] = read_prm800k_samples(write(tmp_path / "s.jsonl", published))
    assert (found.id, found.labels, found.answer) == ("test/precalculus/779.json", (1.0,), "-2+7i")
    assert found.meta == {"answers": ["7i - 2"], "scores": [0.09157553704097245]}


def output(**change: Any) -> dict[str, Any]:
    made = {"response": "Halve.ки\nIt is 4.5.ки", "response_answer": "4.5", "label": True, "step_labels": [True, True]}
    return made | change


BIRM = {
    "idx": 3,
    "input": "Half of 9?\n",
    "question": "Half of 9?",
    "answer": "Halve it.",
    "ground_truth": "4.5",
    "outputs": [
        output(),
        output(response="5", response_answer="5", label=False, step_labels=[True, False, False, "[invalid]"]),
        output(response_answer="[invalid]", label="[invalid]"),
    ],
}


def test_a_line_of_samples_in_steps_by_hand(tmp_path: pathlib.Path) -> None:
    assert read_birm_samples(write(tmp_path / "b.jsonl", BIRM)) == [
        Candidates(
            "3",
            "Half of 9?\n",
            ("Halve.\nIt is 4.5.", "5", "Halve.\nIt is 4.5."),
            (1.0, 0.0, 0.0),
            "4.5",
            meta={"answers": ["4.5", "5", None], "scores": [1.0, 0.25, 1.0]},
        )
    ]


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"label": "true"}, r"outputs\[0\].label: true or false is wanted, got str \"true\""),
        ({"label": 1}, r"outputs\[0\].label: a string is wanted, got int 1"),
        ({"step_labels": []}, r"outputs\[0\].step_labels: is empty"),
        ({"step_labels": [True, "no"]}, r"outputs\[0\].step_labels\[1\].item: true or false is wanted"),
        ({"response_answer": 4.5}, r"outputs\[0\].response_answer: a string is wanted"),
    ],
)
def test_wrong_samples_in_steps_are_named(tmp_path: pathlib.Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError, match=rf"b\.jsonl:1: {reason}"):
        read_birm_samples(write(tmp_path / "b.jsonl", BIRM | {"outputs": [output(**change)]}))


@pytest.mark.shared_data
def test_rewarded_samples_as_published_are_read_whole(shared_data: pathlib.Path) -> None:
    found = read_qwen_math_samples(shared_data / "qwen25_math_rm/math_cot_100.jsonl.gz")
    assert len(found) == 50
    assert {len(record.responses) for record in found} == {8}


@pytest.mark.shared_data
def test_samples_in_steps_as_published_are_read_whole(shared_data: pathlib.Path) -> None:
    """450 solutions: 333 right, 115 wrong, 2 invalid."""
    files = sorted((shared_data / "birm").glob("*.jsonl.gz"))
    found = [record for file in files for record in read_birm_samples(file)]
    assert len(found) == 30
    assert {len(record.responses) for record in found} == {15}
    assert sum(sum(record.labels) for record in found) == 333
    assert sum(answer is None for record in found for answer in record.meta["answers"]) == 2
