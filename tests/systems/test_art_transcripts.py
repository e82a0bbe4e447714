"""Public transcripts become a report; what is right, shared and voted for is what counting by hand gives."""

from __future__ import annotations

import dataclasses
import gzip
import json
import pathlib
import re

import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.data.readers_refinement import ROUTELLM_MODELS
from jaxrefine.evaluation.refinement import RefinementSettings
from jaxrefine.systems.art_transcripts import GOLD, SOURCES, Transcripts

QUESTIONS = ("2+3?", "1000+1000?", "10-20?")
ANSWERS = {
    GOLD: ("5", "2,000", "-10"),
    "ChatGPT, asked by GPT-2": ("5 apples", "1,000", "10"),  # right, wrong, wrong
    "ChatGPT, asked by ChatGPT": ("6", "$2000", "-10"),  # wrong, right, right
    "ToRA 34B": ("5", "2000.0", "10"),
    "ToRA 70B": ("6", "2000", "-10"),
    "Mixtral": ("6", "7", "-10"),
}
QUICK = RefinementSettings(decision="threshold", threshold=0.6, num_resamples=20)


def lines(path: pathlib.Path, records: list[dict[str, object]]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("".join(json.dumps(record) + "\n" for record in records))


@pytest.fixture
def data(tmp_path: pathlib.Path) -> pathlib.Path:
    """Three problems with five models' answers, each in its own format."""
    root = tmp_path / "data"
    gold = [{"question": q, "answer": f"#### {a}"} for q, a in zip(QUESTIONS, ANSWERS[GOLD], strict=True)]
    lines(root / GOLD, gold)
    for name, answers in ANSWERS.items():
        pairs = list(zip(QUESTIONS, answers, strict=True))
        if name.startswith("ChatGPT"):
            told = [
                {"problem": q, "questions": "Q1: How?", "answers": f"Final answer: {a}", "answer": 0} for q, a in pairs
            ]
            lines(root / SOURCES[name].file, told)
        elif name.startswith("ToRA"):
            made = [{"idx": n, "question": q, "gt": "", "code": ["x"], "pred": [a]} for n, (q, a) in enumerate(pairs)]
            lines(root / SOURCES[name].file, [record | {"gt": "0"} for record in made])
    rows = [",".join(["prompt", *ROUTELLM_MODELS, *(f"{model}_response" for model in ROUTELLM_MODELS)])]
    rows += [f"{q},False,False,#### {a},#### 0" for q, a in zip(QUESTIONS, ANSWERS["Mixtral"], strict=True)]
    path = root / SOURCES["Mixtral"].file
    path.parent.mkdir()
    with gzip.open(path, "wt", encoding="utf-8") as file:
        file.write("\n".join(rows) + "\n")
    return root


def test_the_report_is_that_of_the_transcripts(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    """One of three agrees with the first "5 apples", so 2/3 of the committee say Yes; nobody with 1,000; one with 10.

    All three are refined. Scores: 5 apples 1/3 against 6 with 2/3; 1,000 with 0 against $2000 with 2/3; 10 with 1/3
    against -10 with 2/3: the refined answers are chosen. Votes with Mixtral: 6; a tie of three, so 1,000; -10.
    """
    job = Transcripts(data=str(data), answerers=("ChatGPT",), settings=QUICK)
    run_stages(job.stages(), tmp_path / "run", job)
    [found] = json.loads((tmp_path / "run/02-report/metrics.json").read_text())["refinements"]
    rows = found["rows"]
    assert {name: round(3 * row["accuracy"]["value"]) for name, row in rows.items()} == {
        "none": 1, "always": 2, "asker": 2, "art": 2, "always_truster": 2, "majority": 1, "oracle_decision": 3,
        "oracle_choice": 3,
    }  # fmt: skip
    assert rows["asker"]["share_refined"] == 1.0
    assert rows["art"]["transitions"] == [0, 1, 2, 0]
    assert rows["majority"]["transitions"] == [0, 1, 1, 1]
    report = (tmp_path / "run/02-report/report.md").read_text()
    assert "ToRA 34B, ToRA 70B, Mixtral stand in" in report
    assert "| † *Asker + Truster (ART)* |" in report


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"data": ""}, "give yours with --data DIRECTORY"),
        ({"answerers": ("LLaMA-7b",)}, "did you mean 'LLaMA-7B'"),
        ({"first_asker": "GPT2"}, "did you mean 'GPT-2'"),
        ({"committee": ("Mixtrel",)}, "did you mean 'Mixtral'"),
        ({"answerers": ("Mistral",)}, r"mistral__eval_filtered_bc_medium.jsonl.gz is not there"),
    ],
)
def test_a_mistake_is_said_before_anything_is_read(data: pathlib.Path, change: dict[str, object], reason: str) -> None:
    job = Transcripts(data=str(data), answerers=("ChatGPT",), settings=QUICK)
    with pytest.raises(ValueError, match=reason):
        dataclasses.replace(job, **change).stages()


def test_answers_to_other_problems_are_refused(data: pathlib.Path, tmp_path: pathlib.Path) -> None:
    lines(data / GOLD, [{"question": q, "answer": "#### 5"} for q in reversed(QUESTIONS)])
    job = Transcripts(data=str(data), answerers=("ChatGPT",), settings=QUICK)
    (tmp_path / "answers").mkdir()
    with pytest.raises(ValueError, match="ChatGPT, asked by GPT-2 does not answer the problems of"):
        job.gather(tmp_path / "answers")


@pytest.mark.shared_data
def test_plain_numbers_of_real_transcripts_are_right_where_they_equal_the_known_ones(
    shared_data: pathlib.Path, tmp_path: pathlib.Path
) -> None:
    """Read here with a pattern and compared as numbers: neither our reader nor our equivalence of answers."""
    job = dataclasses.replace(
        config.load("art/transcripts"), data=str(shared_data), answerers=("Mistral",), committee=("ToRA 70B",),
        third="ToRA 70B",
    )  # fmt: skip
    job.gather(tmp_path)
    clusters = json.loads((tmp_path / "answers.json").read_text())["clusters"]
    name = "Mistral, asked by ChatGPT"
    with gzip.open(shared_data / GOLD, "rt", encoding="utf-8") as file:
        known = [json.loads(line)["answer"].rsplit("#### ", 1)[1].replace(",", "") for line in file]
    with gzip.open(shared_data / SOURCES[name].file, "rt", encoding="utf-8") as file:
        told = [re.search(r"Final answer:([^\n]*)", json.loads(line)["answers"]) for line in file]
    compared = 0
    for number, match, truth in zip(clusters[name], told, known, strict=True):
        plain = match and re.fullmatch(r" *\$?(-?[0-9]+(?:,[0-9]{3})*(?:\.[0-9]+)?) *", match[1])
        if plain:
            compared += 1
            assert (number == 0) == (float(plain[1].replace(",", "")) == float(truth))
        if match is None:
            assert number is None
    assert compared > 950
