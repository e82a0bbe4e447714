"""PandaLM's and Auto-J's files: read as they are, malformed ones refused with their place; records written and read."""

from __future__ import annotations

import collections
import json

import pytest

from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.readers_pandalm import (
    JudgementRecord,
    read_auto_j,
    read_judgement_records,
    read_pandalm_prompts,
    read_pandalm_test_set,
    read_pandalm_verdicts,
    write_judgement_records,
)

ROW = {
    "idx": 3, "motivation_app": "Mail", "cmp_key": "small-7b_big-7B", "instruction": "Say hello.", "input": "To Ada.",
    "response1": "Hello, Ada.", "response2": "", "annotator1": 1, "annotator2": 0, "annotator3": 2,
}  # fmt: skip


def write(path, rows):
    path.write_text(json.dumps(rows))
    return path


def test_a_pair_that_people_judged(tmp_path):
    [found] = read_pandalm_test_set(write(tmp_path / "set.json", [ROW]))
    assert (found.id, found.models, found.instruction) == ("3", ("small-7b", "big-7B"), "Say hello.\n\nTo Ada.")
    assert (found.first, found.second, found.said) == ("Hello, Ada.", "", ("first", "tie", "second"))


def test_a_response_that_json_reads_as_true_is_that_text(tmp_path):
    [found] = read_pandalm_test_set(write(tmp_path / "set.json", [ROW | {"response1": True, "response2": False}]))
    assert (found.first, found.second) == ("True", "False")


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"annotator2": 3}, "annotator2: 0, 1 or 2 is wanted, got 3"),
        ({"response1": 7}, "response1: a string is wanted, got int 7"),
        ({"cmp_key": "alone"}, "cmp_key: two models .* got 'alone'"),
        ({"annotator4": 1}, "annotator4: unknown field"),
        ({"instruction": ""}, "instruction: is empty"),
    ],
)
def test_a_malformed_pair_is_named(tmp_path, changed, message: str):
    with pytest.raises(RecordError, match=rf"set.json:1: {message}"):
        read_pandalm_test_set(write(tmp_path / "set.json", [ROW | changed]))


def test_judges_verdicts_in_any_of_the_three_encodings(tmp_path):
    rows = [
        {"idx": index, "owl_result": result, "owl_reason": "why", "owl_reference": ""}
        for index, result in enumerate([0, 1, 2, "1", "2", "Tie", "garbage"])
    ]
    found = read_pandalm_verdicts(write(tmp_path / "owl.json", rows))
    assert [found[str(n)].verdict for n in range(7)] == ["tie", "first", "second", "first", "second", "tie", "garbage"]
    assert found["0"].reason == "why"
    with pytest.raises(RecordError, match="one field <judge>_result is wanted, there are idx"):
        read_pandalm_verdicts(write(tmp_path / "none.json", [{"idx": 0}]))


RECORD = JudgementRecord(
    id="7", instruction="Add.", input="2 and 3", first="5", second="6", verdict="first", reason="5.", reference="5"
)  # fmt: skip


def test_records_are_read_as_they_were_written(tmp_path):
    records = [RECORD, RECORD.swapped()]
    write_judgement_records(tmp_path / "records.jsonl", records)
    assert read_judgement_records(tmp_path / "records.jsonl") == records
    with pytest.raises(ValueError, match="id '7' occurs twice"):
        write_judgement_records(tmp_path / "records.jsonl", [RECORD, RECORD])


def test_a_swapped_record_names_the_same_response():
    swapped = RECORD.swapped()
    assert (swapped.first, swapped.second, swapped.verdict) == ("6", "5", "second")
    assert swapped.comparison().prompt == "Add.\n\n2 and 3"
    assert (swapped.swapped().verdict, swapped.reason, swapped.reference) == ("first", "", "5")


def test_a_records_verdict_is_one_of_three(tmp_path):
    inputs = {"instruction": "Add.", "input": "", "response1": "5", "response2": "6"}
    outputs = {"evaluation_result": "3", "evaluation_reason": "", "reference_response": ""}
    path = write(tmp_path / "records.json", [{"inputs": inputs, "outputs": outputs}])
    with pytest.raises(RecordError, match=r"outputs.evaluation_result: 1, 2, Tie is wanted, got '3'"):
        read_judgement_records(path)


@pytest.mark.shared_data
def test_the_published_files_are_read_whole(shared_data):
    pairs = read_pandalm_test_set(shared_data / "pandalm" / "testset-v1.json.gz")
    assert len(pairs) == 502
    assert len({model for pair in pairs for model in pair.models}) == 5
    assert sum(pair.first in ("True", "False") for pair in pairs) == 4
    gpt = read_pandalm_verdicts(shared_data / "pandalm" / "gpt-3.5-turbo-testset-v1.json.gz")
    assert collections.Counter(said.verdict for said in gpt.values())["garbage"] == 22
    example = json.loads((shared_data / "pandalm" / "train_example.json").read_text())
    assert set(example["inputs"]) == {"instruction", "input", "response1", "response2"}
    prompts = read_pandalm_prompts(shared_data / "pandalm" / "testset-inference-v1.json")
    assert len(prompts) == 170
    assert {pair.instruction for pair in pairs} <= {prompt.meta["instruction"] for prompt in prompts}
    auto_j = read_auto_j(shared_data / "auto_j" / "testdata_pairwise.jsonl.gz")
    assert collections.Counter(pair.said[0] for pair in auto_j) == {"first": 246, "second": 260, "tie": 190}
    assert len({pair.meta["scenario"] for pair in auto_j}) == 58
    assert len({pair.id for pair in auto_j}) == 696
