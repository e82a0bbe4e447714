"""Whole JSON documents read as strictly as JSON lines: an array of records, or one object.

Records of an array are named by the line on which they begin, fields of an object by their path.
"""

from __future__ import annotations

import gzip
import json
import pathlib
import re
import zlib
from collections.abc import Callable
from typing import TypeVar

from jaxrefine.artefacts.atomic import parse_json
from jaxrefine.data.jsonl import Fields, RecordError, read_jsonl

T = TypeVar("T")

_SPACE = re.compile(r"[ \t\n\r]*")
_DECODER = json.JSONDecoder()


def _text(path: pathlib.Path) -> str:
    try:
        content = path.read_bytes()
        if path.suffix == ".gz":
            content = gzip.decompress(content)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise RecordError(str(path), "", f"broken gzip stream: {error}") from error
    if content.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
        raise RecordError(f"{path}:1", "", "starts with a byte order mark; save it as UTF-8 without one")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise RecordError(f"{path}:{line}", "", f"not UTF-8: byte {error.start}") from error


def read_object(path: pathlib.Path | str) -> Fields:
    """The one object of a ``.json`` or ``.json.gz`` file, as fields to be taken.

    Raises:
      RecordError: ``file:line: reason`` where it is no JSON, ``file: reason`` where it is no object.
    """
    path = pathlib.Path(path)
    try:
        value = parse_json(_text(path), where=str(path))
    except RecordError:
        raise
    except ValueError as error:
        cause = error.__cause__
        where = f"{path}:{cause.lineno}" if isinstance(cause, json.JSONDecodeError) else str(path)
        raise RecordError(where, "", str(error).removeprefix(f"{path}: ")) from error
    return Fields(value, where=str(path))


def read_records(
    path: pathlib.Path | str, parse: Callable[[Fields, int], T], *, key: Callable[[T], str] | None = None
) -> list[T]:
    """The records of a JSON array, or of JSON lines where the file does not begin with a bracket.

    Args:
      path: the file; ``.gz`` or plain.
      parse: makes a record of an object's fields and its index from 0, or raises; a ValueError of its own becomes one
        with file and line.
      key: the id of a record; a second record with the same id is malformed.
    Raises:
      RecordError: ``file:line: field: reason``, where the line is the record's first.
    """
    path = pathlib.Path(path)
    text = _text(path)
    position = _end(_SPACE, text, 0)
    if text[position : position + 1] != "[":
        index = iter(range(text.count("\n") + 1))
        return read_jsonl(path, lambda fields: parse(fields, next(index)), key=key)
    records: list[T] = []
    first_lines: dict[str, int] = {}
    line, counted = 1, 0
    position = _end(_SPACE, text, position + 1)
    closed = text[position : position + 1] == "]"
    while not closed:
        line, counted = line + text.count("\n", counted, position), position
        where = f"{path}:{line}"
        try:
            _, end = _DECODER.raw_decode(text, position)
        except json.JSONDecodeError as error:
            raise RecordError(f"{path}:{error.lineno}", "", f"not JSON: {error.msg} (column {error.colno})") from error
        except RecursionError as error:
            raise RecordError(where, "", "JSON nested too deeply") from error
        record = _parsed(text[position:end], where, len(records), parse)
        if key is not None:
            id = key(record)
            if id in first_lines:
                raise RecordError(where, "id", f"{id!r} is that of line {first_lines[id]} already")
            first_lines[id] = line
        records.append(record)
        position = _end(_SPACE, text, end)
        closed = text[position : position + 1] == "]"
        if not closed:
            if text[position : position + 1] != ",":
                last = line + text.count("\n", counted, position)
                raise RecordError(f"{path}:{last}", "", "not JSON: a comma or the array's end is wanted")
            position = _end(_SPACE, text, position + 1)
    if _end(_SPACE, text, position + 1) != len(text):
        last = text.count("\n", 0, _end(_SPACE, text, position + 1)) + 1
        raise RecordError(f"{path}:{last}", "", "not JSON: something follows the array")
    return records


def identifier(fields: Fields, field: str) -> str:
    """A string or a whole number, as a string.

    >>> identifier(Fields({"id": 7}, where="data.json:3"), "id")
    '7'
    """
    try:
        return fields.text(field)
    except RecordError as error:
        try:
            number = fields.number(field)
        except RecordError:
            raise error from None
        if not number.is_integer():
            raise fields.error(field, f"a string or a whole number is wanted, got {number:g}") from error
        return str(int(number))


def _end(pattern: re.Pattern[str], text: str, position: int) -> int:
    found = pattern.match(text, position)
    assert found is not None
    return found.end()


def _parsed(text: str, where: str, index: int, parse: Callable[[Fields, int], T]) -> T:
    try:
        return parse(Fields(parse_json(text, where=where), where=where), index)
    except RecordError:
        raise
    except ValueError as error:
        raise RecordError(where, "", str(error).removeprefix(f"{where}: ")) from error
