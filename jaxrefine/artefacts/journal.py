"""An append-only file of keyed records that survives being killed at any instant."""

from __future__ import annotations

import errno
import json
import os
import pathlib
import warnings
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any

from jaxrefine.artefacts.atomic import parse_json, sync_directory

try:
    import fcntl
except ImportError:  # Windows: two writers of one journal go unnoticed there
    fcntl = None  # type: ignore[assignment]

RecordKey = str | int


class Journal:
    """JSON lines ``{"key": …, "record": …}``, each appended by a single write, in the order of ``append``.

    A torn last line (the process died in the middle of a write) is cut off with a warning when the file is opened
    again; a broken line elsewhere is an error, for nothing but a torn tail can be explained by a crash. A record that
    was appended survives SIGKILL at once, and a power cut after ``sync`` or ``close``.

    One journal writes a file at a time, from its first ``append`` to ``close``; others may read it meanwhile.

    Attributes:
      path: of the file.
      torn_bytes: how much of a torn last record was cut off when the file was opened.

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
        self.torn_bytes = self._size = 0
        self._keys: dict[RecordKey, None] = {}
        self._descriptor: int | None = None
        self._release: weakref.finalize[[int], Any] | None = None
        if self.path.exists():
            self._cut_torn_tail()
            for number, line in self._lines():
                key, _ = self._parsed(number, line)
                if key in self._keys:
                    raise ValueError(f"{self.path}:{number}: key {key!r} a second time")
                self._keys[key] = None
                self._size += len(line)

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
        return dict(self._parsed(*line) for line in self._lines()) if self.path.exists() else {}

    def append(self, key: RecordKey, record: Any) -> None:
        """Appends a record; when this returns it survives the death of the process.

        Args:
          key: names the record; a string or an integer (``1`` and ``"1"`` are two keys).
          record: what JSON holds, without NaN.

        Raises:
          ValueError: the key is there already, the record holds a NaN or an infinity, or another journal writes the
            file or has written it since it was read here.
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
        self._size += written
        self._keys[key] = None

    def sync(self) -> None:
        """Forces what was appended to the disk itself."""
        if self._descriptor is not None:
            os.fsync(self._descriptor)

    def close(self) -> None:
        """Syncs and closes; a later ``append`` opens the file again."""
        if self._descriptor is not None and self._release is not None:
            self.sync()
            self._release()
            self._descriptor = self._release = None

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
            is_new = not self.path.exists()
            descriptor = os.open(self.path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
            if not _locked(descriptor):
                os.close(descriptor)
                raise ValueError(f"{self.path}: another journal writes this file: close it, or end the other run")
            if os.fstat(descriptor).st_size != self._size:
                os.close(descriptor)
                raise ValueError(f"{self.path}: another journal wrote this file since it was read: open it again")
            if is_new:
                sync_directory(self.path.parent)
            self._descriptor = descriptor
            # A journal that is dropped lets go of its file; one that is there when the program ends may yet be closed.
            self._release = weakref.finalize(self, os.close, descriptor)
            self._release.atexit = False
        return self._descriptor

    def _lines(self) -> Iterator[tuple[int, bytes]]:
        with open(self.path, "rb") as file:
            for number, line in enumerate(file, start=1):
                if line.endswith(b"\n"):  # else another process is writing it
                    yield number, line

    def _parsed(self, number: int, line: bytes) -> tuple[RecordKey, Any]:
        entry = parse_json(line, where=f"{self.path}:{number}")
        if not isinstance(entry, dict) or set(entry) != {"key", "record"}:
            raise ValueError(f"{self.path}:{number}: a record is an object of 'key' and 'record'")
        return entry["key"], entry["record"]

    def _cut_torn_tail(self) -> None:
        size = self.path.stat().st_size
        if _end_of_last_line(self.path, size) == size:
            return
        descriptor = os.open(self.path, os.O_RDWR)
        try:
            if not _locked(descriptor):  # it has a writer: its last record is not torn, but under way
                return
            size = os.fstat(descriptor).st_size
            end = _end_of_last_line(self.path, size)
            if end < size:
                os.ftruncate(descriptor, end)
                self.torn_bytes = size - end
        finally:
            os.close(descriptor)
        if self.torn_bytes:
            warnings.warn(f"{self.path}: cut off a torn last record of {self.torn_bytes} bytes", stacklevel=3)


def _locked(descriptor: int) -> bool:
    """Takes the file for this journal alone, until its descriptor is closed; False where another one has it."""
    if fcntl is not None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        except OSError as error:
            if error.errno not in (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS):  # a file system without locks
                raise
    return True


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
