"""Data with sub-questions and public transcripts are read as they are; what is malformed is named."""

from __future__ import annotations

import gzip
import json
import pathlib
from typing import Any

import pytest

from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.readers import read_gsm8k
from jaxrefine.data.readers_refinement import (
    ROUTELLM_MODELS,
    read_routellm_gsm8k,
    read_strategyqa,
    read_sub_question_transcripts,
    read_tora,
)

MIXTRAL, GPT4 = ROUTELLM_MODELS


def strategy(id: str, **change: Any) -> dict[str, Any]:
    made = {
        "qid": id,
        "question": "Is snow colder than fire?",
        "answer": True,
        "facts": ["Snow is frozen."],
        "decomposition": ["How cold is snow?", "Is #1 below fire?"],
        "evidence": [],
    }
    return made | change


def write(path: pathlib.Path, *records: dict[str, Any]) -> pathlib.Path:
    path.write_text("".join(json.dumps(record) + "\n" for record in records))
    return path


def array(path: pathlib.Path, *records: dict[str, Any]) -> pathlib.Path:
    path.write_text(json.dumps(records, indent=1))
    return path


def test_strategyqa_has_sub_questions_facts_and_a_yes_or_no(tmp_path: pathlib.Path) -> None:
    found = read_strategyqa(array(tmp_path / "s.json", strategy("a"), strategy("b", answer=False, facts=[])))
    assert (found[0].prompt, found[0].answer) == ("Is snow colder than fire?\n", "yes")
    assert found[0].response == "Snow is frozen.\n#### yes"
    assert found[0].meta["sub_questions"] == ["How cold is snow?", "Is #1 below fire?"]
    assert found[0].meta["facts"] == ["Snow is frozen."]
    assert (found[1].response, found[1].answer) == ("#### no", "no")


def test_the_first_fifth_is_the_test_part(tmp_path: pathlib.Path) -> None:
    file = array(tmp_path / "s.json", *(strategy(str(number)) for number in range(10)))
    assert [record.id for record in read_strategyqa(file, part="test")] == ["0", "1"]
    assert [record.id for record in read_strategyqa(file, part="train")] == [str(number) for number in range(2, 10)]
    assert len(read_strategyqa(file, part="test", test_share=0.5)) == 5
    with pytest.raises(ValueError, match="within 0 and 1, given 2"):
        read_strategyqa(file, test_share=2.0)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"answer": "yes"}, "answer: true or false is wanted"),
        ({"decomposition": []}, "decomposition: is empty"),
        ({"facts": [1]}, r"facts\[0\]: a string is wanted"),
        ({"qid": "a"}, "id: 'a' is that of line 2 already"),
    ],
)
def test_a_malformed_question_is_named(tmp_path: pathlib.Path, change: dict[str, Any], reason: str) -> None:
    file = array(tmp_path / "s.json", strategy("a"), strategy("b") | change)
    with pytest.raises(RecordError, match=rf"s\.json:\d+: {reason}"):
        read_strategyqa(file)


TRANSCRIPT = {
    "problem": "2+3?",
    "questions": "Q1: Q1: What is 2+3?\nQ2: And so?",
    "answers": "A1: 2+3=5\nFinal answer: 5 apples\nProblem: 1+1?\nFinal answer: 2",
    "answer": 5.0,
}


def test_a_transcript_ends_with_its_first_final_answer(tmp_path: pathlib.Path) -> None:
    silent = TRANSCRIPT | {"answers": "A1: I do not know", "questions": ""}
    empty = TRANSCRIPT | {"answers": "Final answer:\nProblem: 1+1?"}
    found = read_sub_question_transcripts(write(tmp_path / "t.jsonl", TRANSCRIPT, silent, empty))
    assert found[0].responses == ("A1: 2+3=5\nFinal answer: 5 apples",)
    assert found[0].meta["sub_questions"] == ["What is 2+3?", "And so?"]
    assert [record.meta["answers"] for record in found] == [["5 apples"], [None], [None]]
    assert [record.finished for record in found] == [(True,), (False,), (True,)]
    assert [record.answer for record in found] == [None] * 3
    assert (found[1].meta["sub_questions"], found[1].id) == ([], "t-2")
    with pytest.raises(RecordError, match=r"t\.jsonl:1: answer: a number is wanted"):
        read_sub_question_transcripts(write(tmp_path / "t.jsonl", TRANSCRIPT | {"answer": "5"}))


def test_tora_outputs_keep_their_extracted_answers(tmp_path: pathlib.Path) -> None:
    record = {"idx": 4, "question": "2+3?", "gt_cot": "", "gt": "5", "code": ["print(5)"], "pred": [""], "report": []}
    [found] = read_tora(write(tmp_path / "t.jsonl", record))
    assert (found.id, found.answer, found.responses) == ("4", "5", ("print(5)",))
    assert found.meta["answers"] == [None]
    with pytest.raises(RecordError, match=r"t\.jsonl:1: pred: 1 items are wanted, as in code, got 2"):
        read_tora(write(tmp_path / "t.jsonl", record | {"pred": ["5", "6"]}))


HEAD = f"prompt,{MIXTRAL},{GPT4},{MIXTRAL}_response,{GPT4}_response\n"


def test_graded_responses_of_two_models_are_read_from_csv(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "r.csv"
    file.write_text(HEAD + '2+3?,False,True,"Say, ""6""\n#### 6",5\n')
    [found] = read_routellm_gsm8k(file)
    assert found.labels == (0.0, 1.0)
    assert found.responses == ('Say, "6"\n#### 6', "5")
    assert found.meta["models"] == [MIXTRAL, GPT4]


@pytest.mark.parametrize(
    ("row", "reason"),
    [
        ("2+3?,1,True,6,5\n", f"2: {MIXTRAL}: True or False is wanted, got '1'"),
        ("2+3?,False,True,6\n", "2: 5 cells are wanted"),
        ('2+3?,False,True,6,"5\n', "not CSV"),
    ],
)
def test_a_malformed_row_is_named(tmp_path: pathlib.Path, row: str, reason: str) -> None:
    file = tmp_path / "r.csv"
    file.write_text(HEAD + row)
    with pytest.raises(RecordError, match=reason):
        read_routellm_gsm8k(file)


@pytest.mark.shared_data
def test_the_published_files_are_read_whole_and_line_by_line_about_the_same_problems(shared_data: pathlib.Path) -> None:
    """1,019 problems of GSM8K; spaces apart all files tell the same ones in the same order."""

    def problems(records: Any) -> list[str]:
        return ["".join(record.prompt.split()) for record in records]

    gsm8k = read_gsm8k(shared_data / "gsm8k/test_socratic.jsonl.gz")
    assert len(gsm8k) == 1019
    assert sum(len(record.meta["sub_questions"]) for record in gsm8k) == 3709
    chat = read_sub_question_transcripts(shared_data / "gsm8k_ai_subq/mistral__eval_chat.jsonl.gz")
    tora = read_tora(shared_data / "tora/tora-70b-v1.0__gsm8k_test.jsonl.gz")
    graded = read_routellm_gsm8k(shared_data / "routellm/gsm8k_responses.csv.gz")
    assert problems(gsm8k) == problems(chat) == problems(tora) == problems(graded)
    assert not any(record.responses[0].count("Final answer:") > 1 for record in chat)
    known = [(record.answer or "").replace(",", "") for record in tora]
    assert known == [record.answer for record in gsm8k]


@pytest.mark.shared_data
def test_strategyqa_as_published_is_divided_as_the_paper_divides_it(shared_data: pathlib.Path) -> None:
    """train.json is 2,061 questions, of which 412 are a fifth."""
    with gzip.open(shared_data / "strategyqa/train.json.gz", "rt", encoding="utf-8") as file:
        published = json.load(file)
    test = read_strategyqa(shared_data / "strategyqa/train.json.gz", part="test")
    assert [record.id for record in test] == [record["qid"] for record in published[:412]]
