"""Lines of a file are kept as they stand or taken out with the reason."""

from __future__ import annotations

import json
import pathlib

import pytest

from jaxrefine.artefacts.stages import run_stages
from jaxrefine.systems.decontamination import Decontamination

TRAIN = [
    {"id": "a", "prompt": "How many legs has a spider, and why?", "more": [1, 2]},
    {"id": "b", "prompt": "Name a tree.", "response": "How many legs has a tree!"},
    {"id": "c", "prompt": "Name a tree."},
]


def write(path: pathlib.Path, records: list[dict[str, object]]) -> str:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return str(path)


@pytest.mark.parametrize(("fields", "left"), [(("prompt",), [1, 2]), (("prompt", "response"), [2])])
def test_lines_that_share_words_are_taken_out(tmp_path: pathlib.Path, fields: tuple[str, ...], left: list[int]) -> None:
    benchmark = write(tmp_path / "quiz.jsonl", [{"question": "how many LEGS has a spider"}])
    job = Decontamination(
        examples=write(tmp_path / "train.jsonl", TRAIN), against=(benchmark,), n=5, fields=fields,
        benchmark_field="question",
    )  # fmt: skip
    if len(left) == 1:
        benchmark = write(tmp_path / "quiz.jsonl", [{"question": "So how many legs has a tree?"}, {"question": "x"}])
        job = Decontamination(**(vars(job) | {"against": (f"trees={benchmark}",), "n": 4}))
    run_stages(job.stages(), tmp_path / "run", job)
    directory = tmp_path / "run/01-decontaminate"
    lines = (tmp_path / "train.jsonl").read_text().splitlines(keepends=True)
    assert (directory / "kept.jsonl").read_text() == "".join(lines[place] for place in left)
    removed = [json.loads(line) for line in (directory / "removed.jsonl").read_text().splitlines()]
    assert [one["id"] for one in removed] == [TRAIN[place]["id"] for place in range(3) if place not in left]
    assert removed[0]["words"] == ("how many legs has" if len(left) == 1 else "how many legs has a")
    assert f"{3 - len(left)} of 3 examples" in (directory / "report.md").read_text()


def test_what_is_missing_is_said_before_anything_runs() -> None:
    with pytest.raises(ValueError, match="give yours with --examples FILE.jsonl"):
        Decontamination().stages()
    with pytest.raises(ValueError, match="n = 0 must be at least 1"):
        Decontamination(examples="a", against=("b",), n=0).stages()
