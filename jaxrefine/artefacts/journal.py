"""An append-only file of keyed records that survives being killed at any instant."""

from __future__ import annotations

import json
import os
import pathlib
import warnings
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from jaxrefine.artefacts.atomic import parse_json

RecordKey = str | int


class Journal:
    """JSON lines ``{"key": …, "record": …}``, each appended by a single write, in the order of ``append``.

    A torn last line (the process died in the middle of a write) is cut off with a warning when the file is opened
    again; a broken line elsewhere is an error, for nothing but a torn tail can be explained by a crash. A record that
    was appended survives SIGKILL at once, and a power cut after ``sync`` or ``close``.

    One process writes a journal at a time.

    >>> import tempfile, pathlib
    >>> path = pathlib.Path(tempfile.mkdtemp()) / "samples.jsonl"
    >>> with Journal(path) as journal:
    ...     journal.append("problem-1", {"text": "6 * 7 = 42"})
    >>> "problem-1" in Journal(path)
    True
    """

    def __init__(self, path: str | os.PathLike[str]):
        self.path = pathlib.Path(path)
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._keys: dict[RecordKey, None] = {}
        self._descriptor: int | None = None
        if self.path.exists():
            self._cut_torn_tail()
            for line, (key, _) in enumerate(self._read(), start=1):
                if key in self._keys:
                    raise ValueError(f"{self.path}:{line}: key {key!r} a second time")
                self._keys[key] = None

    def __contains__(self, key: RecordKey) -> bool:
        """Whether a record of this key was appended."""
        return key in self._keys

    def __len__(self) -> int:
        """The number of records."""
        return len(self._keys)

    def keys(self) -> tuple[RecordKey, ...]:
        """The keys in the order in which they were appended."""
        return tuple(self._keys)

    def records(self) -> dict[RecordKey, Any]:
        """All records by key, in order, read from the file."""
        return dict(self._read()) if self.path.exists() else {}

    def append(self, key: RecordKey, record: Any) -> None:
        """Appends a record; when this returns it survives the death of the process.

        Args:
          key: names the record; a string or an integer (``1`` and ``"1"`` are two keys).
          record: what JSON holds, without NaN.

        Raises:
          ValueError: the key is there already, or the record holds a NaN or an infinity.
          OSError: the disk is full; nothing of the record stays in the file.
        """
        if key in self._keys:
            raise ValueError(f"{self.path}: there is a record of key {key!r} already")
        line = json.dumps({"key": key, "record": record}, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        content = line.encode("utf-8") + b"\n"
        descriptor = self._open()
        written = os.write(descriptor, content)
        if written != len(content):
            size = os.fstat(descriptor).st_size
            os.ftruncate(descriptor, size - written)
            raise OSError(f"{self.path}: wrote {written} of {len(content)} bytes of record {key!r}: disk full?")
        self._keys[key] = None

    def sync(self) -> None:
        """Forces what was appended to the disk itself."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Syncs and closes; a later ``append`` opens the file again."""
        if self._descriptor is not None:
            self.sync()
            os.close(self._descriptor)
            self._descriptor = None

    def __enter__(self) -> Journal:
        """The journal itself."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Closes the journal."""
        self.close()

    def _open(self) -> int:
        if self._descriptor is None:
            self._descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        return self._descriptor

    def _read(self) -> Iterator[tuple[RecordKey, Any]]:
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                entry = parse_json(line, where=f"{self.path}:{number}")
                if not isinstance(entry, dict) or set(entry) != {"key", "record"}:
                    raise ValueError(f"{self.path}:{number}: a record is an object of 'key' and 'record'")
                yield entry["key"], entry["record"]

    def _cut_torn_tail(self) -> None:
        size = self.path.stat().st_size
        end = _end_of_last_line(self.path, size)
        if end < size:
            warnings.warn(f"{self.path}: cut off a torn last record of {size - end} bytes", stacklevel=3)
            os.truncate(self.path, end)


def _end_of_last_line(path: pathlib.Path, size: int, block: int = 1 << 16) -> int:
    """The size of the file up to and with its last newline; 0 without one."""
    with open(path, "rb") as file:
        end = size
        while end > 0:
            start = max(0, end - block)
            file.seek(start)
            found = file.read(end - start).rfind(b"\n")
            if found >= 0:
                return start + found + 1
            end = start
    return 0
