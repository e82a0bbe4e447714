"""The benchmark of grading: on a few made-up records, labels and graders are counted as they should be."""

from __future__ import annotations

import gzip
import json
import pathlib

import pytest

from benchmarks import bench_answers
from benchmarks.bench_answers import Case, Options, agreement, agrees

CASES = [
    Case(name="right", known="12", text=r"So \boxed{12.0}", right=True, style="boxed"),
    Case(name="wrong", known="12", text=r"So \boxed{13}", right=False, style="boxed"),
    Case(name="mislabelled", known="12", text=r"So \boxed{12}", right=False, style="boxed"),
    Case(name="silent", known="12", text="So twelve it may be", right=True, style="boxed"),
    Case(name="silent and wrong", known="12", text="I do not know", right=False, style="boxed"),
    Case(name="bare", known=r"\frac12", text="0.5", right=True),
]


def test_disagreements_are_listed_with_both_sides_and_their_keys():
    record = agreement("made up", CASES, Options(), None)
    assert record["cases"] == 6
    assert record["ours"] == {"equal": 3, "different": 1, "no answer": 2}
    assert record["agreement"] == pytest.approx(4 / 6)
    assert [item["name"] for item in record["disagreements"]] == ["mislabelled", "silent"]
    assert record["disagreements"][0]["known_key"] == record["disagreements"][0]["stated_key"] == "n:12"
    assert record["disagreements"][1]["stated"] is None
    assert sum(record["math_verify"].values()) == 6
    json.dumps(record)


@pytest.mark.parametrize(
    ("outcome", "right", "expected"),
    [
        ("equal", True, True),
        ("equal", False, False),
        ("different", False, True),
        ("different", True, False),
        ("undecided", True, False),
        ("undecided", False, False),
        ("no answer", False, True),
        ("no answer", True, False),
    ],
)
def test_undecided_agrees_with_no_label(outcome: str, right: bool, expected: bool):
    assert agrees(outcome, right) is expected


def test_the_table_and_the_list_are_written(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]):
    directory = tmp_path / "data" / "math_equivalence"
    directory.mkdir(parents=True)
    records = [
        {"name": "same", "test_in": "7", "test_out": "7.0", "expected": True},
        {"name": "strict", "test_in": "1, 2", "test_out": "2, 1", "expected": False},
    ]
    (directory / "cases.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))
    (tmp_path / "data" / "math").mkdir()
    with gzip.open(tmp_path / "data" / "math" / "train_final_answers.jsonl.gz", "wt") as file:
        file.write('{"final_answer": "8"}\n{"final_answer": "\\\\frac{1}{3}"}\n')
    listed = tmp_path / "disagreements.jsonl"
    options = Options(
        data=tmp_path / "data", sets=("math_equivalence",), write=listed, processes=1, answers=4, pairs=1, repeats=1
    )
    bench_answers.main(options)
    shown = capsys.readouterr().out
    assert "| math_equivalence | 2 | 50.00 % | 50.00 % | 2 | 0 | 0 | 0 |" in shown
    assert "keys: " in shown
    assert "pool: " in shown
    [item] = [json.loads(line) for line in listed.read_text().splitlines()]
    assert (item["name"], item["label"], item["ours"]) == ("strict", "wrong", "equal")


def test_an_unknown_set_is_refused():
    with pytest.raises(ValueError, match="'birn' is not one of math_equivalence, gsm8k"):
        Options(sets=("birn",))
