"""Alpaca, its seed tasks and Tuna's released records: read whole, or refused with file, line and field."""

from __future__ import annotations

import gzip
import json
import pathlib
from typing import Any

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.data.json_documents import read_object, read_records
from jaxrefine.data.jsonl import Fields, RecordError
from jaxrefine.data.readers_instructions import (
    read_alpaca,
    read_seed_tasks,
    read_tuna,
    read_tuna_likelihoods,
    write_tuna,
)
from jaxrefine.data.templates import TEMPLATES, Template

PLAIN = dict(TEMPLATES) | {
    "instruction": Template("instruction", "Q: {instruction}\nA:"),
    "instruction_with_input": Template("instruction_with_input", "Q: {instruction} ({input})\nA:"),
}


def array(path: pathlib.Path, *records: Any, indent: int | None = 1) -> pathlib.Path:
    content = json.dumps(list(records), indent=indent)
    if path.suffix == ".gz":
        path.write_bytes(gzip.compress(content.encode()))
    else:
        path.write_text(content)
    return path


ALPACA = [
    {"instruction": "Name a colour.", "input": "", "output": "Blue."},
    {"instruction": "Translate.", "input": "Guten Tag", "output": "Good day"},
    {"instruction": "Say nothing.", "output": " "},
]


@pytest.mark.parametrize("name", ["alpaca_data.json", "alpaca_data.json.gz"])
def test_alpaca_by_hand(tmp_path: pathlib.Path, name: str):
    found = read_alpaca(array(tmp_path / name, *ALPACA), templates=PLAIN)
    assert [example.id for example in found] == ["alpaca_data-0", "alpaca_data-1", "alpaca_data-2"]
    assert [example.prompt for example in found][:2] == ["Q: Name a colour.\nA:", "Q: Translate. (Guten Tag)\nA:"]
    assert [example.response for example in found] == ["Blue.", "Good day", " "]
    assert found[1].meta == {"instruction": "Translate.\n\nGuten Tag"}


def test_blank_outputs_can_be_left_out_and_the_others_keep_their_ids(tmp_path: pathlib.Path):
    found = read_alpaca(array(tmp_path / "a.json", ALPACA[2], *ALPACA), skip_empty=True)
    assert [example.id for example in found] == ["a-1", "a-2"]


@pytest.mark.parametrize(
    ("records", "reason"),
    [
        ([ALPACA[0], {"instruction": "", "output": ""}], r"a\.json:3: instruction: is empty"),
        ([ALPACA[0], {"instruction": "x", "input": None, "output": ""}], r"a\.json:3: input: a string is wanted, got"),
        ([{"instruction": "x", "outptu": ""}], r"a\.json:2: output: missing"),
        ([{"instruction": "x", "output": "", "inptu": ""}], r"a\.json:2: inptu: .*did you mean 'input'"),
        ([ALPACA[0], ALPACA[0], 7], r"a\.json:4: an object is wanted, got int 7"),
    ],
)
def test_a_malformed_record_is_named_by_line_and_field(tmp_path: pathlib.Path, records: list[Any], reason: str):
    lines = ",\n".join(json.dumps(record) for record in records)
    (tmp_path / "a.json").write_text(f"[\n{lines}\n]\n")
    with pytest.raises(RecordError, match=reason):
        read_alpaca(tmp_path / "a.json")


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b'[\n{"a": 1},\n{"a": }]', r"x\.json:3: not JSON"),
        (b'[{"a": 1}\n\n{"a": 1}]', r"x\.json:3: not JSON: a comma or the array's end"),
        (b'[{"a": 1}]\n\n]', r"x\.json:3: not JSON: something follows the array"),
        (b'[{"a": 1},\n', r"x\.json:2: not JSON"),
        (b'[\n{"a": NaN}]', r"x\.json:2: NaN is no number"),
        (b'[\n{"a": 1, "a": 2}]', r"x\.json:2: repeated key 'a'"),
        (b"\xef\xbb\xbf[]", r"x\.json:1: starts with a byte order mark"),
        (b'[\n\n"\xff"]', r"x\.json:3: not UTF-8"),
        (b"[" * 100_000, r"nested too deeply|not JSON"),
    ],
)
def test_a_malformed_array_is_named_by_its_line(tmp_path: pathlib.Path, content: bytes, reason: str):
    (tmp_path / "x.json").write_bytes(content)
    with pytest.raises(RecordError, match=reason):
        read_records(tmp_path / "x.json", lambda fields, _: fields.number("a"))


def test_arrays_and_lines_are_read_alike(tmp_path: pathlib.Path):
    (tmp_path / "x.json").write_text(' [ {"a": 1} , {"a": 2.5}\n] \n')
    (tmp_path / "y.json").write_text('{"a": 1}\n{"a": 2.5}\n')
    (tmp_path / "z.json").write_text("[ ]")

    def parse(fields: Fields, index: int) -> tuple[int, float]:
        return index, fields.number("a")

    expected = [(0, 1.0), (1, 2.5)]
    assert read_records(tmp_path / "x.json", parse) == read_records(tmp_path / "y.json", parse) == expected
    assert read_records(tmp_path / "z.json", parse) == []


def test_an_object_names_the_line_of_broken_json(tmp_path: pathlib.Path):
    (tmp_path / "x.json").write_text('{\n"a": 1,\n}')
    with pytest.raises(RecordError, match=r"x\.json:3: not JSON"):
        read_object(tmp_path / "x.json")
    (tmp_path / "cut.json.gz").write_bytes(gzip.compress(b'{"a": 1}')[:-9])
    with pytest.raises(RecordError, match=r"cut\.json\.gz: broken gzip stream"):
        read_object(tmp_path / "cut.json.gz")


SEED = {
    "id": "seed_7",
    "name": "sorting",
    "instruction": "Sort the words.",
    "instances": [{"input": "b a", "output": "a b"}, {"input": "", "output": ""}],
    "is_classification": False,
}


def test_seed_tasks_give_one_example_an_instance(tmp_path: pathlib.Path):
    (tmp_path / "seed.jsonl").write_text(json.dumps(SEED) + "\n")
    found = read_seed_tasks(tmp_path / "seed.jsonl", templates=PLAIN)
    assert [(example.id, example.prompt, example.response) for example in found] == [
        ("seed_7-0", "Q: Sort the words. (b a)\nA:", "a b"),
        ("seed_7-1", "Q: Sort the words.\nA:", ""),
    ]
    assert found[0].meta["name"] == "sorting"
    assert found[0].meta["is_classification"] is False


def test_seed_tasks_without_an_instance_or_with_an_id_twice_are_refused(tmp_path: pathlib.Path):
    file = tmp_path / "seed.jsonl"
    file.write_text(json.dumps(SEED | {"instances": []}) + "\n")
    with pytest.raises(RecordError, match=r"seed\.jsonl:1: instances: at least one"):
        read_seed_tasks(file)
    file.write_text((json.dumps(SEED) + "\n") * 2)
    with pytest.raises(RecordError, match=r"seed\.jsonl:2: id: 'seed_7-0' is that of line 1 already"):
        read_seed_tasks(file)


TUNA = {"id": 3, "instruction": "Q: Colour?\nA:", "output": ["Blue.", ""], "score": [-1.5, 2]}


def test_a_record_of_tuna_by_hand(tmp_path: pathlib.Path):
    expected = [Candidates("3", "Q: Colour?\nA:", ("Blue.", ""), (-1.5, 2.0))]
    assert read_tuna(array(tmp_path / "train.json", TUNA), min_candidates=2) == expected


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"id": 3.5}, "id: a string or a whole number is wanted, got 3.5"),
        ({"id": None}, "id: a string is wanted"),
        ({"instruction": ""}, "instruction: is empty"),
        ({"output": "Blue."}, "output: a list is wanted, got str"),
        ({"output": ["Blue.", 7]}, r"output\[1\]: a string is wanted, got int 7"),
        ({"score": [1]}, "score: 2 outputs need as many scores, got 1"),
        ({"score": [1, True]}, r"score\[1\]: a number is wanted, got bool"),
        ({"output": [], "score": []}, "output: at least 1 wanted, got 0"),
        ({"scores": []}, "scores: .*did you mean 'score'"),
    ],
)
def test_a_wrong_record_of_tuna_is_refused(tmp_path: pathlib.Path, change: dict[str, Any], reason: str):
    with pytest.raises(RecordError, match=rf"t\.json:1: {reason}"):
        read_tuna(array(tmp_path / "t.json", TUNA | change, indent=None))


def test_what_is_written_for_tuna_comes_back_and_is_what_its_code_reads(tmp_path: pathlib.Path):
    examples = [
        Candidates("a", 'Say "ü"\n', ("ü", "line\nbreak", ""), (0.25, -1e-9, 3.0)),
        Candidates("b", "p", ("x",), (0.0,)),
    ]
    for name in ("t.json", "t.json.gz"):
        write_tuna(tmp_path / name, examples)
        assert read_tuna(tmp_path / name) == examples
    raw = json.loads((tmp_path / "t.json").read_text())
    assert raw[0] == {
        "id": "a",
        "instruction": 'Say "ü"\n',
        "output": ["ü", "line\nbreak", ""],
        "score": [0.25, -1e-9, 3.0],
    }


def test_what_the_format_of_tuna_cannot_say_is_refused(tmp_path: pathlib.Path):
    cut = Candidates("a", "p", ("x", "y"), (1.0, 0.0), finished=(True, False))
    with pytest.raises(ValueError, match=r"response 1 of example 'a' was cut by length"):
        write_tuna(tmp_path / "t.json", [cut])
    write_tuna(tmp_path / "t.json", [cut], keep_unfinished=True)
    assert read_tuna(tmp_path / "t.json")[0].responses == ("x", "y")
    with pytest.raises(ValueError, match="'a' occurs twice"):
        write_tuna(tmp_path / "t.json", [cut, cut], keep_unfinished=True)
    with pytest.raises(ValueError, match="'e' has no response"):
        write_tuna(tmp_path / "t.json", [Candidates("e", "p")])


TEACHER = {
    "orig": ALPACA[1],
    "text": ["Good day", "Hello"],
    "logprob": [-8.0, -3.0],
    "length": [4, 1],
    "avg_token_prob": [-2.0, -3.0],
}


def test_teacher_samples_are_labelled_by_equation_3(tmp_path: pathlib.Path):
    file = array(tmp_path / "davinci.json", TEACHER)
    # 4^1.5 = 8: −8/8 = −1; 1^1.5 = 1: −3
    found = read_tuna_likelihoods(file, length_power=1.5, templates=PLAIN)[0]
    assert found.labels == pytest.approx((-1.0, -3.0))
    assert (found.id, found.prompt) == ("davinci-0", "Q: Translate. (Guten Tag)\nA:")
    assert found.meta["original"] == "Good day"
    assert read_tuna_likelihoods(file)[0].labels[0] == pytest.approx(-8 / 6.06286626604159)  # 4^1.3


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"length": [4, 0]}, r"length\[1\]: above 0 is wanted, got 0"),
        ({"logprob": [-1.0]}, "logprob: 2 texts need as many, got 1"),
        ({"orig": {"instruction": "x"}}, r"orig\.output: missing"),
    ],
)
def test_wrong_teacher_samples_are_refused(tmp_path: pathlib.Path, change: dict[str, Any], reason: str):
    with pytest.raises(RecordError, match=reason):
        read_tuna_likelihoods(array(tmp_path / "t.json", TEACHER | change))


@pytest.mark.shared_data
@pytest.mark.parametrize(
    ("name", "num", "blank"),
    [("random_9k", 9229, 4), ("claude_t45", 5305, 4), ("helpfulness_t45", 2022, 1)],
)
def test_alpaca_as_published_is_read_whole(shared_data: pathlib.Path, name: str, num: int, blank: int):
    file = shared_data / "alpaca" / f"{name}.json.gz"
    found = read_alpaca(file)
    assert len(found) == num
    assert sum(not example.response.strip() for example in found) == blank
    raw = json.loads(gzip.decompress(file.read_bytes()))
    with_input = [bool(record["input"].strip()) for record in raw]
    assert ["### Text" in example.prompt for example in found] == with_input
    assert all(record["instruction"] in example.prompt for record, example in zip(raw, found, strict=True))


@pytest.mark.shared_data
def test_seed_tasks_as_published_are_read_whole(shared_data: pathlib.Path):
    assert len(read_seed_tasks(shared_data / "alpaca" / "seed_tasks.jsonl.gz")) == 175
    found = read_seed_tasks(shared_data / "self_instruct" / "user_oriented_instructions.jsonl.gz")
    assert len(found) == 252
    assert found[0].meta["motivation_app"] == "Grammarly"
