"""MATH, PRM800K and public samples as they were published are read whole; what is malformed is named by its place."""

from __future__ import annotations

import copy
import json
import pathlib
from typing import Any

import pytest

from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.readers_math import (
    last_boxed,
    prm800k_solutions,
    prm800k_split,
    read_math,
    read_prm800k,
    read_prm800k_problems,
    validation_split,
)
from jaxrefine.data.templates import Template


def write(path: pathlib.Path, *records: Any) -> pathlib.Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


MATH = {
    "problem": "What is half of $9$?",
    "level": "Level 2",
    "type": "Prealgebra",
    "solution": "Not $\\boxed{4}$ but\n$\\boxed{\\frac{9}{2}}$.",
}
META = {"problem": "What is half of $9$?", "subject": "Prealgebra", "level": 2}


@pytest.mark.parametrize(
    ("solution", "answer"),
    [
        (r"\boxed{3}", "3"),
        (r"\boxed{\text{a } \{1, 2\}} is it", r"\text{a } \{1, 2\}"),
        (r"\boxed{1} or \boxed{2}", "2"),
        (r"it is $\boxed 9$.", "9"),
        (r"it is $\boxed {17}.$", "17"),
        (r"\boxed{}", ""),
        (r"\boxed{1}, \boxed{2", None),
        (r"\boxedness{3}", None),
        (r"\boxed", None),
        ("3", None),
    ],
)
def test_the_last_box_by_hand(solution: str, answer: str | None) -> None:
    assert last_boxed(solution) == answer


def test_a_line_of_math_by_hand(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "train.jsonl", MATH)
    assert read_math(file) == [Instruction("train-1", "What is half of $9$?\n", MATH["solution"], r"\frac{9}{2}", META)]
    assert read_math(file, template=Template("q", "Q: {question} A:"))[0].prompt == "Q: What is half of $9$? A:"


def test_the_published_directory_of_math_is_read_in_order(tmp_path: pathlib.Path) -> None:
    for name in ("test/prealgebra/10", "test/prealgebra/9", "test/algebra/7", "train/algebra/1"):
        write(tmp_path / "MATH" / f"{name}.json", MATH)
    assert [example.id for example in read_math(tmp_path / "MATH")] == [
        "test/algebra/7.json",
        "test/prealgebra/9.json",
        "test/prealgebra/10.json",
        "train/algebra/1.json",
    ]
    assert [example.id for example in read_math(tmp_path / "MATH" / "train")] == ["train/algebra/1.json"]


def test_an_unknown_level_and_an_empty_box_are_none(tmp_path: pathlib.Path) -> None:
    found = read_math(write(tmp_path / "m.jsonl", MATH | {"level": "Level ?", "solution": "\\boxed{}"}))[0]
    assert (found.meta["level"], found.answer) == (None, None)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"solution": "It is 4.5."}, r"solution: states no answer in a closed \\boxed\{\}"),
        ({"solution": "\\boxed{4.5"}, "solution: states no answer"),
        ({"level": "level 2"}, "level: 'Level 1' to 'Level 5' or 'Level \\?' is wanted, got 'level 2'"),
        ({"level": 2}, "level: a string is wanted, got int 2"),
        ({"problem": ""}, "problem: is empty"),
        ({"tpye": "x"}, "tpye: unknown field 'tpye'; did you mean 'type'"),
    ],
)
def test_a_wrong_field_of_math_is_named(tmp_path: pathlib.Path, change: dict[str, Any], reason: str) -> None:
    with pytest.raises(RecordError, match=rf"m\.jsonl:2: {reason}"):
        read_math(write(tmp_path / "m.jsonl", MATH, MATH | change))
    write(tmp_path / "d/test/algebra/7.json", MATH | change)
    with pytest.raises(RecordError, match=rf"algebra/7\.json:1: {reason}"):
        read_math(tmp_path / "d")


def test_a_directory_that_is_not_math_is_refused(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"no \.json file in it"):
        read_math(tmp_path)
    (tmp_path / "1.json").write_text('{"problem": ')
    with pytest.raises(RecordError, match=r"1\.json:1: "):
        read_math(tmp_path)
    with pytest.raises(ValueError, match="rejects are for JSON-lines files"):
        read_math(tmp_path, rejects=tmp_path / "rejects.jsonl")


def test_malformed_lines_of_math_can_be_set_aside(tmp_path: pathlib.Path) -> None:
    file = write(tmp_path / "m.jsonl", MATH | {"level": "2"}, MATH)
    assert [example.id for example in read_math(file, rejects=tmp_path / "rejects.jsonl")] == ["m-2"]
    assert json.loads((tmp_path / "rejects.jsonl").read_text())["field"] == "level"


PROBLEM = {
    "problem": "What is half of $9$?",
    "solution": "It is $\\boxed{4.5}$.",
    "answer": "4.5",
    "subject": "Prealgebra",
    "level": 2,
    "unique_id": "test/prealgebra/9.json",
}


def test_a_line_of_the_split_by_hand(tmp_path: pathlib.Path) -> None:
    assert read_prm800k_problems(write(tmp_path / "test.jsonl", PROBLEM)) == [
        Instruction("test/prealgebra/9.json", "What is half of $9$?\n", "It is $\\boxed{4.5}$.", "4.5", META)
    ]
    with pytest.raises(RecordError, match=r"test\.jsonl:1: level: 1 to 5 or null is wanted, got 7"):
        read_prm800k_problems(write(tmp_path / "test.jsonl", PROBLEM | {"level": 7}))
    with pytest.raises(RecordError, match=r"test\.jsonl:2: id: 'test/prealgebra/9.json' is that of line 1 already"):
        read_prm800k_problems(write(tmp_path / "test.jsonl", PROBLEM, PROBLEM))


def step(*completions: tuple[str, int | None], chosen: int | None = 0, written: str | None = None) -> dict[str, Any]:
    return {
        "completions": [{"text": text, "rating": rating, "flagged": False} for text, rating in completions],
        "human_completion": None if written is None else {"text": written, "rating": None, "source": "human"},
        "chosen_completion": chosen,
    }


def labelled(end: str, *steps: dict[str, Any], **question: Any) -> dict[str, Any]:
    return {
        "labeler": "l7",
        "timestamp": "2022-01-01T00:00:00",
        "generation": None,
        "is_quality_control_question": False,
        "is_initial_screening_question": False,
        "question": {"problem": "What is half of $9$?", "ground_truth_answer": "4.5"} | question,
        "label": {"steps": list(steps), "total_time": 1, "finish_reason": end},
    }


FIRST = labelled(
    "solution",
    step(("I do not know.", 0), ("Halve it.", 1), chosen=1),
    step(("It is 5.", -1), chosen=None, written="Half of 8 is 4, of 1 is 0.5."),
    step(("So it is 4.5.\n\n# Answer\n\n4.5", 1)),
)
SECOND = labelled(
    "found_error",
    step(("Halve it.", 1)),
    step(("It is 5.", -1), ("It is 4.5.", 1), chosen=None),
    pre_generated_steps=["Halve it.", "It is 5.", "# Answer\n\n5"],
    pre_generated_answer="5",
)
STUCK = labelled("give_up", step(("Halve it.", 1)), step(("It is 5.", -1), chosen=None))


def test_labelled_solutions_by_hand(tmp_path: pathlib.Path) -> None:
    first, second, stuck = read_prm800k(write(tmp_path / "phase1.jsonl", FIRST, SECOND, STUCK))
    assert first == Candidates(
        "phase1-1",
        "What is half of $9$?\n",
        ("Halve it.\nHalf of 8 is 4, of 1 is 0.5.\nSo it is 4.5.\n\n# Answer\n\n4.5",),
        (1.0,),
        "4.5",
        (True,),
        {
            "problem": "What is half of $9$?",
            "end": "solution",
            "stated": "4.5",
            "ratings": [1, None, 1],
            "phase": 1,
            "labeler": "l7",
            "quality_control": False,
            "screening": False,
        },
    )
    assert second.responses == ("Halve it.\nIt is 5.\n# Answer\n\n5",)
    assert (second.labels, second.meta["stated"], second.meta["ratings"], second.meta["phase"]) == (
        (0.0,),
        "5",
        [1, -1],
        2,
    )
    assert (stuck.responses, stuck.labels, stuck.finished) == (("Halve it.",), (0.0,), (False,))
    assert stuck.meta["ratings"] == [1, None]


def test_solutions_to_learn_from_are_right_complete_and_no_control(tmp_path: pathlib.Path) -> None:
    control = FIRST | {"is_quality_control_question": True}
    screening = FIRST | {"is_initial_screening_question": True}
    records = read_prm800k(write(tmp_path / "p.jsonl", SECOND, control, screening, STUCK, FIRST))
    found = prm800k_solutions(records)
    assert [(example.id, example.answer, example.response) for example in found] == [
        ("p-5", "4.5", records[4].responses[0])
    ]


def changed(*path: Any, value: Any) -> dict[str, Any]:
    record = copy.deepcopy(FIRST)
    place: Any = record
    for part in path[:-1]:
        place = place[part]
    place[path[-1]] = value
    return record


@pytest.mark.parametrize(
    ("path", "value", "reason"),
    [
        (("label", "finish_reason"), "done", "label.finish_reason: one of solution, .* is wanted, got 'done'"),
        (("label", "steps", 0, "chosen_completion"), 2, r"label.steps\[0\].chosen_completion: 2 is none of the 2"),
        (("label", "steps", 0, "chosen_completion"), 0.5, r"label.steps\[0\].chosen_completion: 0.5 is none"),
        (("label", "steps", 1, "completions", 0, "rating"), 2, r"label.steps\[1\].completions\[0\].rating: 1, 0, -1"),
        (("label", "steps", 1, "human_completion", "text"), 5, r"label.steps\[1\].human_completion.text: a string"),
        (("question", "ground_truth_answer"), None, "question.ground_truth_answer: a string is wanted"),
        (("question", "pre_generated_steps"), ["a", 5], r"question.pre_generated_steps\[1\].item: a string is wanted"),
        (("is_quality_control_question",), 0, "is_quality_control_question: true or false is wanted"),
    ],
)
def test_a_wrong_field_of_a_label_is_named_by_its_path(
    tmp_path: pathlib.Path, path: tuple[Any, ...], value: Any, reason: str
) -> None:
    with pytest.raises(RecordError, match=rf"p\.jsonl:2: {reason}"):
        read_prm800k(write(tmp_path / "p.jsonl", FIRST, changed(*path, value=value)))


def problems(*texts: str) -> list[Instruction]:
    return [Instruction(f"m-{n}", text, "s", "1", {"problem": text}) for n, text in enumerate(texts)]


def test_held_out_problems_are_found_by_their_text_spaces_aside() -> None:
    train, test = prm800k_split(problems("a", "b c", "d"), problems("b  c"))
    assert ([example.id for example in train], [example.id for example in test]) == (["m-0", "m-2"], ["m-1"])


def test_a_split_that_does_not_fit_is_refused() -> None:
    with pytest.raises(ValueError, match="1 of 2 held-out problems are not among the 2 given, the first is m-1"):
        prm800k_split(problems("a", "b"), problems("b", "c"))
    with pytest.raises(ValueError, match="a held-out problem is there twice, the first is m-1"):
        prm800k_split(problems("a", "b", "b"), problems("b"))


def test_a_validation_split_depends_on_ids_and_seed_alone() -> None:
    made = problems(*(str(n) for n in range(50)))
    train, validation = validation_split(made, 10)
    assert (len(train), len(validation)) == (40, 10)
    assert {example.id for example in validation_split(made[::-1], 10)[1]} == {example.id for example in validation}
    assert {example.id for example in validation_split(made, 5)[1]} < {example.id for example in validation}
    assert {example.id for example in validation_split(made, 10, seed=1)[1]} != {example.id for example in validation}
    with pytest.raises(ValueError, match="within 0 and 50, given 51"):
        validation_split(made, 51)


@pytest.mark.shared_data
def test_math_as_published_divides_into_twelve_thousand_and_five_hundred(shared_data: pathlib.Path) -> None:
    parts = {name: read_math(shared_data / "math" / f"{name}.jsonl.gz") for name in ("train", "test")}
    held_out = read_prm800k_problems(shared_data / "prm800k/math_splits/test.jsonl.gz")
    assert ({name: len(part) for name, part in parts.items()}, len(held_out)) == ({"train": 7500, "test": 5000}, 500)
    assert sum(example.answer is None for part in parts.values() for example in part) == 2
    train, test = prm800k_split([*parts["train"], *parts["test"]], held_out)
    assert (len(train), len(test)) == (12_000, 500)
    membership = json.loads((shared_data / "prm800k/math_splits/membership.json").read_text())
    lines = [f"test-{line + 1}" for line in membership["test_from_math_test_lines"]]
    assert [example.id for example in test] == lines
    stated = {example.meta["problem"]: (example.answer, example.meta["level"]) for example in held_out}
    assert {example.meta["problem"]: (example.answer, example.meta["level"]) for example in test} == stated


@pytest.mark.shared_data
def test_records_of_prm800k_as_published_are_read(shared_data: pathlib.Path) -> None:
    found = read_prm800k(shared_data / "prm800k/examples/phase1_phase2_records.jsonl")
    assert [(record.meta["end"], record.meta["phase"], record.meta["stated"], record.answer) for record in found] == [
        ("solution", 1, "29", "29"),
        ("give_up", 1, None, "440"),
        ("solution", 1, "40_9", "40_9"),
        ("found_error", 2, "7200", "28800"),
    ]
    assert found[3].meta["ratings"] == [1, 0, 1, 1, 1, 1, -1]
    assert len(prm800k_solutions(found)) == 2
