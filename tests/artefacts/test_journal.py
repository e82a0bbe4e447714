"""A journal loses no committed record and repeats none, whenever its writer is killed."""

from __future__ import annotations

import gc
import os
import pathlib

import pytest

from jaxrefine.artefacts.journal import Journal

RECORDS = {"a": {"text": "ä\n\u2028"}, 1: [1, 2.5, None], "1": "another key"}


def _filled(path: pathlib.Path) -> pathlib.Path:
    with Journal(path) as journal:
        for key, record in RECORDS.items():
            journal.append(key, record)
    return path


def test_records_come_back_in_order(tmp_path: pathlib.Path):
    journal = Journal(_filled(tmp_path / "j.jsonl"))
    assert list(journal.records().items()) == list(RECORDS.items())
    assert journal.keys() == tuple(RECORDS)
    assert len(journal) == 3
    assert 1 in journal
    assert 2 not in journal


def test_a_record_can_be_read_while_the_journal_is_open(tmp_path: pathlib.Path):
    journal = Journal(tmp_path / "j.jsonl")
    journal.append("a", 1)
    assert Journal(tmp_path / "j.jsonl").records() == {"a": 1}


def test_a_second_record_of_a_key_is_refused(tmp_path: pathlib.Path):
    journal = Journal(_filled(tmp_path / "j.jsonl"))
    with pytest.raises(ValueError, match="a record of key 'a' already"):
        journal.append("a", 0)
    assert journal.records() == RECORDS


def test_a_nan_is_refused_and_leaves_no_trace(tmp_path: pathlib.Path):
    journal = Journal(_filled(tmp_path / "j.jsonl"))
    with pytest.raises(ValueError, match="not JSON compliant"):
        journal.append("b", float("nan"))
    assert Journal(tmp_path / "j.jsonl").records() == RECORDS


def test_a_tail_torn_at_any_byte_is_cut_off_with_a_warning_and_can_be_written_again(tmp_path: pathlib.Path):
    whole = _filled(tmp_path / "j.jsonl").read_bytes()
    second = whole.index(b"\n") + 1
    third = whole.index(b"\n", second) + 1
    for size in range(second + 1, third):
        path = tmp_path / f"{size}.jsonl"
        path.write_bytes(whole[:size])
        with pytest.warns(UserWarning, match=f"torn last record of {size - second} bytes"):
            journal = Journal(path)
        assert journal.keys() == ("a",)
        journal.append(1, RECORDS[1])
        journal.append("1", RECORDS["1"])
        journal.close()
        assert path.read_bytes() == whole


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"key": "b", "rec\n', ":2: not JSON"),
        (b'{"key": "b"}\n', ":2: a record is an object of 'key' and 'record'"),
        (b'{"key":"a","record":0}\n', ":2: key 'a' a second time"),
        (b'{"key": "b", "record": NaN}\n', ":2: NaN"),
        (b"\n", ":2: not JSON"),
    ],
)
def test_a_broken_line_before_the_tail_is_an_error_with_its_line(tmp_path: pathlib.Path, line: bytes, said: str):
    path = tmp_path / "j.jsonl"
    path.write_bytes(b'{"key":"a","record":0}\n' + line + b'{"key":"c","record":0}\n')
    with pytest.raises(ValueError, match="j.jsonl") as error:
        Journal(path)
    assert said in str(error.value)


def test_a_full_disk_leaves_no_half_record(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    path = _filled(tmp_path / "j.jsonl")
    journal = Journal(path)
    write = os.write
    monkeypatch.setattr(os, "write", lambda descriptor, content: write(descriptor, content[:5]))
    with pytest.raises(OSError, match="wrote 5 of"):
        journal.append("b", "long enough")
    monkeypatch.undo()
    assert Journal(path).records() == RECORDS
    assert "b" not in journal


def test_two_journals_never_write_one_file_at_once(tmp_path: pathlib.Path):
    first, second = Journal(tmp_path / "j.jsonl"), Journal(tmp_path / "j.jsonl")
    first.append("a", 1)
    with pytest.raises(ValueError, match="another journal writes this file"):
        second.append("a", 2)
    first.close()
    with Journal(tmp_path / "j.jsonl") as third:
        third.append("b", 2)
    assert Journal(tmp_path / "j.jsonl").records() == {"a": 1, "b": 2}


def test_a_journal_that_another_one_wrote_since_it_was_read_is_not_written_blindly(tmp_path: pathlib.Path):
    first = Journal(tmp_path / "j.jsonl")
    with Journal(tmp_path / "j.jsonl") as second:
        second.append("a", 1)
    with pytest.raises(ValueError, match="another journal wrote this file since it was read"):
        first.append("a", 2)
    with Journal(tmp_path / "j.jsonl") as third:
        third.append("b", 2)
        third.close()
        third.append("c", 3)
    assert Journal(tmp_path / "j.jsonl").records() == {"a": 1, "b": 2, "c": 3}


def test_a_record_under_way_is_neither_read_nor_cut_off_by_others(tmp_path: pathlib.Path):
    path = tmp_path / "j.jsonl"
    writer = Journal(path)
    writer.append("a", 1)
    with open(path, "ab") as file:  # as if the writer were in the middle of its next record
        file.write(b'{"key":"b","rec')
    reader = Journal(path)
    assert (reader.records(), reader.torn_bytes) == ({"a": 1}, 0)
    assert path.read_bytes().endswith(b'"rec')
    writer.close()
    with pytest.warns(UserWarning, match="torn last record of 15 bytes"):
        assert Journal(path).torn_bytes == 15


def test_a_journal_that_is_dropped_lets_go_of_its_file(tmp_path: pathlib.Path):
    Journal(tmp_path / "j.jsonl").append("a", 1)
    gc.collect()
    Journal(tmp_path / "j.jsonl").append("b", 2)
