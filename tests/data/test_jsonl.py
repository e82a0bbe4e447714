"""Every malformation of a JSON-lines file is refused with file, line, field and reason; none is coerced."""

from __future__ import annotations

import logging
import pathlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from jaxrefine.data.jsonl import Fields, RecordError, read_jsonl, write_jsonl

GOOD = b'{"id": "a", "score": 1}\n'


def parse(fields: Fields) -> tuple[str, float]:
    record = fields.text("id"), fields.number("score")
    fields.optional_text("note")
    fields.done()
    return record


def read(path: pathlib.Path, **options: object) -> list[tuple[str, float]]:
    return read_jsonl(path, parse, key=lambda record: record[0], **options)  # type: ignore[arg-type]


def test_good_lines_are_read_in_order(tmp_path: pathlib.Path) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(GOOD + '{"id": "é", "score": -0.5, "note": null}'.encode())
    assert read(file) == [("a", 1.0), ("é", -0.5)]


def test_lines_set_aside_are_told_of_with_their_number(
    tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "data.jsonl"
    file.write_bytes(GOOD + b"{}\n" + GOOD.replace(b'"a"', b'"c"'))
    with caplog.at_level(logging.WARNING):
        assert read(file, rejects=tmp_path / "rejects.jsonl") == [("a", 1.0), ("c", 1.0)]
    assert f"{file}: 1 of 3 lines set aside in {tmp_path / 'rejects.jsonl'}" in caplog.text


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
