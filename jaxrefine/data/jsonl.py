"""JSON lines read strictly: every malformed line is ``file:line: field: reason``; none is guessed at.

Reading stops at the first malformed line. With a ``rejects`` file, malformed lines are set aside in it, up to a cap;
a malformed *file* (a byte order mark, Windows line ends, a truncated gzip stream) always stops it.
"""

from __future__ import annotations

import gzip
import io
import json
import logging
import math
import pathlib
import zlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any, TypeVar

from jaxrefine.artefacts.atomic import parse_json, write_bytes
from jaxrefine.config import unknown_name

T = TypeVar("T")

_log = logging.getLogger(__name__)

REJECTS = "rejects.jsonl"
MAX_LINE_BYTES = 16 * 2**20
"""A longer line is malformed: it is never read into memory whole."""


class RecordError(ValueError):
    """A malformed line: ``file:line: field: reason`` (no field where the whole line is meant)."""

    def __init__(self, where: str, field: str, reason: str) -> None:
        super().__init__(f"{where}: {field}: {reason}" if field else f"{where}: {reason}")
        self.where, self.field, self.reason = where, field, reason


class Fields:
    """The fields of one JSON object, taken out by type; what nobody took is unknown.

    >>> fields = Fields({"id": 7}, where="data.jsonl:3")
    >>> fields.text("id")
    Traceback (most recent call last):
    jaxrefine.data.jsonl.RecordError: data.jsonl:3: id: a string is wanted, got int 7
    """

    def __init__(self, value: Any, *, where: str, path: str = "") -> None:
        self.where, self.path = where, path
        if not isinstance(value, dict):
            raise self.error("", f"an object is wanted, got {_shown(value)}")
        self._values = dict(value)
        self._taken: list[str] = []

    def error(self, field: str, reason: str) -> RecordError:
        """The error of a field of this object, by its full path."""
        return RecordError(self.where, ".".join(part for part in (self.path, field) if part), reason)

    def _take(self, field: str, optional: bool) -> Any:
        self._taken.append(field)
        if field in self._values:
            return self._values[field]
        if optional:
            return None
        raise self.error(field, f"missing; the line has {', '.join(self._values) or 'nothing'}")

    def text(self, field: str, *, empty: bool = False) -> str:
        """A string; ``empty`` lets it be of length 0."""
        value = self._take(field, optional=False)
        if not isinstance(value, str):
            raise self.error(field, f"a string is wanted, got {_shown(value)}")
        if not value and not empty:
            raise self.error(field, "is empty")
        try:
            value.encode("utf-8")
        except UnicodeEncodeError as error:
            raise self.error(field, f"half of a surrogate pair at character {error.start}") from error
        return value

    def optional_text(self, field: str) -> str | None:
        """A string, or None where the field is absent or null."""
        return None if self._take(field, optional=True) is None else self.text(field)

    def number(self, field: str) -> float:
        """A finite number; booleans and strings are none."""
        value = self._take(field, optional=False)
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise self.error(field, f"a number is wanted, got {_shown(value)}")
        try:
            number = float(value)
        except OverflowError:
            number = math.inf
        if not math.isfinite(number):
            raise self.error(field, "larger than any number here")
        return number

    def flag(self, field: str, *, default: bool | None = None) -> bool:
        """True or false; ``default`` where it is absent."""
        value = self._take(field, optional=default is not None)
        if value is None and field not in self._values and default is not None:
            return default
        if not isinstance(value, bool):
            raise self.error(field, f"true or false is wanted, got {_shown(value)}")
        return value

    def objects(self, field: str) -> list[Fields]:
        """A list of objects."""
        value = self._list(field)
        path = ".".join(part for part in (self.path, field) if part)
        return [Fields(item, where=self.where, path=f"{path}[{index}]") for index, item in enumerate(value)]

    def texts(self, field: str) -> list[str]:
        """A list of strings; they may be of length 0."""
        items = Fields({str(index): item for index, item in enumerate(self._list(field))}, where=self.where)
        try:
            return [items.text(name, empty=True) for name in items.names()]
        except RecordError as error:
            raise self.error(f"{field}[{error.field}]", error.reason) from error

    def numbers(self, field: str) -> list[float]:
        """A list of finite numbers."""
        items = Fields({str(index): item for index, item in enumerate(self._list(field))}, where=self.where)
        try:
            return [items.number(name) for name in items.names()]
        except RecordError as error:
            raise self.error(f"{field}[{error.field}]", error.reason) from error

    def _list(self, field: str) -> list[Any]:
        value = self._take(field, optional=False)
        if not isinstance(value, list):
            raise self.error(field, f"a list is wanted, got {_shown(value)}")
        return value

    def object(self, field: str) -> Fields:
        """An object."""
        path = ".".join(part for part in (self.path, field) if part)
        return Fields(self._take(field, optional=False), where=self.where, path=path)

    def optional_object(self, field: str) -> Fields | None:
        """An object, or None where the field is absent or null."""
        return None if self._take(field, optional=True) is None else self.object(field)

    def optional_number(self, field: str) -> float | None:
        """A finite number, or None where the field is absent or null."""
        return None if self._take(field, optional=True) is None else self.number(field)

    def items(self, field: str) -> list[Fields]:
        """A list of anything: each item as the one field ``item`` of its own, so that it is taken by type."""
        value = self._list(field)
        path = ".".join(part for part in (self.path, field) if part)
        return [Fields({"item": item}, where=self.where, path=f"{path}[{index}]") for index, item in enumerate(value)]

    def mapping(self, field: str) -> dict[str, Any]:
        """An object taken as it is; empty where it is absent."""
        value = self._take(field, optional=True)
        if value is not None and not isinstance(value, dict):
            raise self.error(field, f"an object is wanted, got {_shown(value)}")
        return value or {}

    def names(self) -> tuple[str, ...]:
        """The fields that are there, in order."""
        return tuple(self._values)

    def done(self) -> None:
        """Refuses fields that nobody asked for: a misspelt optional field would be lost in silence."""
        for field in self._values:
            if field not in self._taken:
                raise self.error(field, unknown_name(field, self._taken, "field"))


def _shown(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=True, default=str)
    return f"{type(value).__name__} {text if len(text) <= 40 else text[:37] + '...'}"


def _opened(path: pathlib.Path) -> gzip.GzipFile | io.BufferedReader:
    return gzip.GzipFile(path, "rb") if path.suffix == ".gz" else open(path, "rb")


def _lines(path: pathlib.Path) -> Iterator[tuple[int, bytes]]:
    """The raw lines; one that is too long comes cut off, one byte over the limit."""
    number = 0
    if path.suffix == ".gz" and not path.stat().st_size:  # even a stream of nothing has a head: this one was cut off
        raise RecordError(f"{path}:1", "", "broken gzip stream: the file is empty")
    with _opened(path) as file:
        while True:
            where = f"{path}:{number + 1}"
            try:
                line = file.readline(MAX_LINE_BYTES + 1)
                rest = line
                while rest and not rest.endswith(b"\n"):  # the rest of a line that is too long; or the end
                    rest = file.readline(MAX_LINE_BYTES)
            except (EOFError, zlib.error, gzip.BadGzipFile) as error:
                raise RecordError(where, "", f"broken gzip stream: {error}") from error
            if not line:
                return
            number += 1
            if number == 1 and line.startswith((b"\xef\xbb\xbf", b"\xff\xfe", b"\xfe\xff")):
                raise RecordError(where, "", "starts with a byte order mark; save it as UTF-8 without one")
            if line.endswith(b"\r\n"):
                raise RecordError(where, "", "Windows line end (CR LF); save it with LF alone")
            yield number, line


def _parse(line: bytes, where: str) -> Any:
    if len(line) > MAX_LINE_BYTES:
        raise RecordError(where, "", f"longer than {MAX_LINE_BYTES} bytes")
    if not line.strip():
        raise RecordError(where, "", "blank line")
    try:
        text = line.decode("utf-8")
    except UnicodeDecodeError as error:
        raise RecordError(where, "", f"not UTF-8: byte {error.start}") from error
    try:
        return parse_json(text, where=where)
    except ValueError as error:
        raise RecordError(where, "", str(error).removeprefix(f"{where}: ")) from error


def read_jsonl(
    path: pathlib.Path | str,
    parse: Callable[[Fields], T],
    *,
    key: Callable[[T], str] | None = None,
    rejects: pathlib.Path | str | None = None,
    max_rejects: int = 100,
) -> list[T]:
    """The records of a JSON-lines file, ``.gz`` or plain.

    Args:
      path: the file; UTF-8, one object a line.
      parse: makes a record of a line's fields, or raises; a ValueError of its own becomes one with file and line.
      key: the id of a record; a second record with the same id is malformed.
      rejects: where malformed lines go, as JSON lines of file, line, field, reason and text; None stops at the first.
      max_rejects: with more malformed lines than this, reading fails all the same.
    Raises:
      RecordError: ``file:line: field: reason``.
    """
    path = pathlib.Path(path)
    records: list[T] = []
    first_lines: dict[str, int] = {}
    refused: list[dict[str, Any]] = []
    try:
        for number, line in _lines(path):
            where = f"{path}:{number}"
            try:
                try:
                    record = parse(Fields(_parse(line, where), where=where))
                except RecordError:
                    raise
                except ValueError as error:
                    raise RecordError(where, "", str(error)) from error
                if key is not None:
                    id = key(record)
                    if id in first_lines:
                        raise RecordError(where, "id", f"{id!r} is that of line {first_lines[id]} already")
                    first_lines[id] = number
            except RecordError as error:
                if rejects is None:
                    raise
                text = line[:10_000].decode("utf-8", "backslashreplace").rstrip("\n")
                refused.append(
                    {"file": str(path), "line": number, "field": error.field, "reason": error.reason, "text": text}
                )
                if len(refused) > max_rejects:
                    raise RecordError(
                        where, error.field, f"{error.reason}; more than {max_rejects} malformed lines, see {rejects}"
                    ) from error
                continue
            records.append(record)
    finally:
        if rejects is not None:
            write_jsonl(rejects, refused)
    if refused:
        _log.warning("%s: %d of %d lines set aside in %s", path, len(refused), len(refused) + len(records), rejects)
    return records


def set_aside(directory: pathlib.Path, most: int) -> dict[str, Any]:
    """Options of a reader, as a job's ``max_bad_lines`` says: ``rejects`` and ``max_rejects``, or none for 0.

    Args:
      directory: gets ``rejects.jsonl``.
      most: malformed lines that may be set aside.

    Raises:
      ValueError: a negative number.

    >>> set_aside(pathlib.Path("01-prompts"), 0)
    {}
    """
    if most < 0:
        raise ValueError(f"max_bad_lines = {most} must be at least 0")
    return {"rejects": directory / REJECTS, "max_rejects": most} if most else {}


def distinct(path: pathlib.Path | str, examples: Iterable[Any]) -> Iterator[Any]:
    """Examples that are about to be written to a file, each with an ``id`` of its own.

    Raises:
      ValueError: the same id twice.
    """
    ids: set[str] = set()
    for example in examples:
        if example.id in ids:
            raise ValueError(f"{path}: id {example.id!r} occurs twice")
        ids.add(example.id)
        yield example


def write_jsonl(path: pathlib.Path | str, records: Iterable[dict[str, Any]]) -> None:
    """Writes JSON lines atomically, ``.gz`` or plain; the same records give the same bytes.

    Raises:
      ValueError: a NaN or infinity.
    """
    path = pathlib.Path(path)
    content = b"".join(
        json.dumps(record, ensure_ascii=False, allow_nan=False).encode("utf-8") + b"\n" for record in records
    )
    write_bytes(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)
