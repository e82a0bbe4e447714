"""A journal loses no committed record and repeats none, whenever its writer is killed."""

from __future__ import annotations

import os
import pathlib
import signal
import subprocess
import sys
import warnings

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


WRITER = """
import sys
from jaxrefine.artefacts.journal import Journal
journal = Journal(sys.argv[1])
number = len(journal)
while True:
    journal.append(number, {"text": str(number) * 2000})
    if number % 50 == 0:
        print(number, flush=True)
    number += 1
"""


def test_a_killed_writer_loses_and_repeats_nothing(tmp_path: pathlib.Path):
    path = tmp_path / "j.jsonl"
    reported = -1
    for _ in range(3):
        writer = subprocess.Popen(
            [sys.executable, "-W", "ignore", "-c", WRITER, str(path)],
            stdout=subprocess.PIPE,
            text=True,
            cwd=pathlib.Path(__file__).parent.parent.parent,
        )
        assert writer.stdout is not None
        for _ in range(3):
            reported = int(writer.stdout.readline())
        writer.send_signal(signal.SIGKILL)
        writer.wait()
        writer.stdout.close()
    with warnings.catch_warnings(action="ignore"):
        records = Journal(path).records()
    assert list(records) == list(range(len(records)))
    assert len(records) > reported
    assert all(record == {"text": str(number) * 2000} for number, record in records.items())
