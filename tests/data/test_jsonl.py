"""Every malformation of a JSON-lines file is refused with file, line, field and reason; none is coerced."""

from __future__ import annotations

import gzip
import json
import logging
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrefine.data import jsonl
from jaxrefine.data.jsonl import Fields, RecordError, read_jsonl, write_jsonl

GOOD = b'{"id": "a", "score": 1}\n'


def parse(fields: Fields) -> tuple[str, float]:
    record = fields.text("id"), fields.number("score")
    fields.optional_text("note")
    fields.done()
    return record


def read(path: pathlib.Path, **options: object) -> list[tuple[str, float]]:
    return read_jsonl(path, parse, key=lambda record: record[0], **options)  # type: ignore[arg-type]


# what the second line of a file is, and what is said of it
LINES: dict[str, tuple[bytes, str]] = {
    "not a number": (b'{"id": "b", "score": NaN}\n', "NaN is no number of JSON"),
    "infinity": (b'{"id": "b", "score": -Infinity}\n', "-Infinity is no number of JSON"),
    "overflow": (b'{"id": "b", "score": 1e400}\n', "1e400 is larger than any number here"),
    "overflow of an integer": (b'{"id": "b", "score": 1' + b"0" * 400 + b"}\n", "score: larger than any number"),
    "integer of too many digits": (b'{"id": "b", "score": 1' + b"0" * 5000 + b"}\n", "5001 digits"),
    "repeated key": (b'{"id": "b", "score": 1, "score": 2}\n', "repeated key 'score'"),
    "invalid UTF-8": (b'{"id": "b\xff", "score": 1}\n', "not UTF-8: byte 9"),
    "half a surrogate pair": (b'{"id": "b\\ud800", "score": 1}\n', "id: half of a surrogate pair at character 1"),
    "torn tail": (b'{"id": "b", "sc', "not JSON"),
    "two objects": (b'{"id": "b", "score": 1} {"id": "c", "score": 1}\n', "not JSON"),
    "blank": (b"\n", "blank line"),
    "blanks": (b"  \t\n", "blank line"),
    "nested too deeply": (b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "nested too deeply"),
    "an array": (b"[1, 2]\n", "an object is wanted, got list [1, 2]"),
    "a null": (b"null\n", "an object is wanted, got NoneType null"),
    "missing field": (b'{"id": "b"}\n', "score: missing; the line has id"),
    "unknown field": (b'{"id": "b", "score": 1, "noet": "x"}\n', "noet: unknown field 'noet'; did you mean 'note'"),
    "a string for a number": (b'{"id": "b", "score": "1"}\n', 'score: a number is wanted, got str "1"'),
    "a boolean for a number": (b'{"id": "b", "score": true}\n', "score: a number is wanted, got bool true"),
    "a null for a number": (b'{"id": "b", "score": null}\n', "score: a number is wanted, got NoneType null"),
    "a number for a string": (b'{"id": 7, "score": 1}\n', "id: a string is wanted, got int 7"),
    "an empty id": (b'{"id": "", "score": 1}\n', "id: is empty"),
    "the same id again": (b'{"id": "a", "score": 2}\n', "id: 'a' is that of line 1 already"),
}

# a whole file, and what is said of it: these stop the reading even with rejects
FILES: dict[str, tuple[bytes, str]] = {
    "byte order mark": (b"\xef\xbb\xbf" + GOOD, ":1: starts with a byte order mark"),
    "UTF-16": (GOOD.decode().encode("utf-16"), ":1: starts with a byte order mark"),
    "Windows line ends": (GOOD[:-1] + b"\r\n", ":1: Windows line end"),
}


def test_good_lines_are_read_in_order(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(GOOD + '{"id": "é", "score": -0.5, "note": null}'.encode())
    assert read(file) == [("a", 1.0), ("é", -0.5)]


@pytest.mark.parametrize("name", LINES)
def test_a_malformed_line_is_refused_with_file_line_and_reason(tmp_path: pathlib.Path, name: str) -> None:
    line, reason = LINES[name]
    file = tmp_path / "data.jsonl"
    file.write_bytes(GOOD + line)
    with pytest.raises(RecordError) as caught:
        read(file)
    assert str(caught.value).startswith(f"{file}:2: ")
    assert reason in str(caught.value)


@pytest.mark.parametrize("name", LINES)
def test_a_malformed_line_is_set_aside_and_the_rest_read(
    tmp_path: pathlib.Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    line, reason = LINES[name]
    file, rejects = tmp_path / "data.jsonl", tmp_path / "rejects.jsonl"
    torn = not line.endswith(b"\n")
    file.write_bytes(GOOD + line + (b"" if torn else b'{"id": "z", "score": 3}\n'))
    with caplog.at_level(logging.WARNING):
        assert read(file, rejects=rejects) == [("a", 1.0)] + ([] if torn else [("z", 3.0)])
    kept = [json.loads(text) for text in rejects.read_text().splitlines()]
    assert [(record["file"], record["line"]) for record in kept] == [(str(file), 2)]
    assert reason in (f"{kept[0]['field']}: {kept[0]['reason']}" if kept[0]["field"] else kept[0]["reason"])
    assert kept[0]["text"] == line[:10_000].decode("utf-8", "backslashreplace").rstrip("\n")
    assert "1 of" in caplog.text


@pytest.mark.parametrize("skipping", [False, True], ids=["strict", "skipping"])
@pytest.mark.parametrize("name", FILES)
def test_a_malformed_file_is_refused_even_when_lines_may_be_set_aside(
    tmp_path: pathlib.Path, name: str, skipping: bool
) -> None:
    content, reason = FILES[name]
    file = tmp_path / "data.jsonl"
    file.write_bytes(content)
    with pytest.raises(RecordError, match=reason):
        read(file, rejects=tmp_path / "rejects.jsonl" if skipping else None)


@pytest.mark.parametrize("skipping", [False, True], ids=["strict", "skipping"])
@pytest.mark.parametrize("cut", [9, 30, -4])
def test_a_truncated_gzip_file_is_refused(tmp_path: pathlib.Path, cut: int, skipping: bool) -> None:
    file = tmp_path / "data.jsonl.gz"
    file.write_bytes(gzip.compress(GOOD)[:cut])
    with pytest.raises(RecordError, match=r"data\.jsonl\.gz:\d: broken gzip stream"):
        read(file, rejects=tmp_path / "rejects.jsonl" if skipping else None)


def test_a_gzip_file_with_flipped_bits_or_none_at_all_is_refused(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "data.jsonl.gz"
    content = bytearray(gzip.compress(GOOD))
    content[-6] ^= 1
    for broken in (bytes(content), GOOD):
        file.write_bytes(broken)
        with pytest.raises(RecordError, match="broken gzip stream"):
            read(file)


def test_a_line_that_is_too_long_is_refused_and_skipped_whole(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(jsonl, "MAX_LINE_BYTES", 64)
    file = tmp_path / "data.jsonl"
    file.write_bytes(GOOD + b'{"id": "' + b"b" * 1000 + b'", "score": 1}\n' + GOOD.replace(b'"a"', b'"c"'))
    with pytest.raises(RecordError, match=r"data\.jsonl:2: longer than 64 bytes"):
        read(file)
    assert read(file, rejects=tmp_path / "rejects.jsonl") == [("a", 1.0), ("c", 1.0)]


def test_more_rejects_than_the_cap_stop_the_reading_and_are_kept(tmp_path: pathlib.Path) -> None:
    file, rejects = tmp_path / "data.jsonl", tmp_path / "rejects.jsonl"
    file.write_bytes(GOOD + b"{}\n" * 5)
    with pytest.raises(RecordError, match=r"data\.jsonl:4: id: missing.*more than 2 malformed lines"):
        read(file, rejects=rejects, max_rejects=2)
    assert len(rejects.read_text().splitlines()) == 3
    assert len(read(file, rejects=rejects, max_rejects=5)) == 1


def test_no_rejects_leave_an_empty_file(tmp_path: pathlib.Path) -> None:
    file, rejects = tmp_path / "data.jsonl", tmp_path / "rejects.jsonl"
    file.write_bytes(GOOD)
    rejects.write_text("of an earlier run")
    read(file, rejects=rejects)
    assert rejects.read_text() == ""


def test_an_error_of_the_parser_gets_file_and_line(tmp_path: pathlib.Path) -> None:
    def refuse(fields: Fields) -> str:
        raise ValueError("no such thing")

    file = tmp_path / "data.jsonl"
    file.write_bytes(GOOD)
    with pytest.raises(RecordError, match=r"data\.jsonl:1: no such thing"):
        read_jsonl(file, refuse)


@pytest.mark.parametrize("name", ["data.jsonl", "data.jsonl.gz"])
def test_written_lines_come_back_and_the_same_lines_give_the_same_bytes(tmp_path: pathlib.Path, name: str) -> None:
    records = [{"id": "é\n", "score": 0.1}, {"id": "b", "score": -3}]
    write_jsonl(tmp_path / name, records)
    first = (tmp_path / name).read_bytes()
    assert read(tmp_path / name) == [("é\n", 0.1), ("b", -3.0)]
    write_jsonl(tmp_path / name, records)
    assert (tmp_path / name).read_bytes() == first


def test_what_json_does_not_hold_is_not_written(tmp_path: pathlib.Path) -> None:
    with pytest.raises(ValueError, match="JSON"):
        write_jsonl(tmp_path / "data.jsonl", [{"score": float("nan")}])
    assert not (tmp_path / "data.jsonl").exists()


@given(st.binary(max_size=200))
def test_arbitrary_bytes_give_records_or_a_located_error(
    tmp_path_factory: pytest.TempPathFactory, content: bytes
) -> None:
    file = tmp_path_factory.getbasetemp() / "fuzz.jsonl"
    file.write_bytes(content)
    try:
        read(file)
    except RecordError as error:
        assert str(error).startswith(f"{file}:")  # noqa: PT017
