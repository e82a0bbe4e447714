"""Files and directories that are there whole or not at all, whenever the process dies."""

from __future__ import annotations

import contextlib
import json
import math
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

PathLike = str | os.PathLike[str]

_UNFINISHED, _REPLACED = ".unfinished", ".replaced"


def write_bytes(path: PathLike, content: bytes) -> None:
    """Writes a file atomically: a temporary file beside it, fsync, rename.

    Whatever the moment of a crash, ``path`` holds all of its old content or all of the new; directories above it
    are made.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}{_UNFINISHED}")
    with open(unfinished, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
    sync_directory(path.parent)


def write_text(path: PathLike, content: str) -> None:
    """Writes UTF-8 text atomically, line ends as they are."""
    write_bytes(path, content.encode("utf-8"))


def write_json(path: PathLike, content: Any) -> None:
    """Writes indented JSON atomically.

    Raises:
      ValueError: a NaN or infinity (JSON has none), with its dotted path.
      TypeError: a value that JSON cannot hold.
    """
    try:
        text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    except ValueError as error:
        raise ValueError(f"{os.fspath(path)}: JSON holds no {_non_finite(content, '')}") from error
    write_text(path, text + "\n")


def read_json(path: PathLike) -> Any:
    """Reads JSON strictly.

    Raises:
      ValueError: not JSON, a NaN or infinity, a repeated key; names the file and the line.
    """
    path = pathlib.Path(path)
    return parse_json(path.read_bytes(), where=str(path))


def parse_json(content: bytes | str, *, where: str) -> Any:
    """JSON without Python's leniency: NaN, infinities, overflowing numbers and repeated keys are errors.

    Args:
      content: one JSON value.
      where: what the error names, such as ``file:line``.

    >>> parse_json('{"a": 1, "a": 2}', where="data.jsonl:3")
    Traceback (most recent call last):
    ValueError: data.jsonl:3: repeated key 'a'
    """
    try:
        return json.loads(
            content, object_pairs_hook=_without_repeats, parse_constant=_no_constant, parse_float=_finite_float
        )
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: not JSON: {error.msg} (line {error.lineno}, column {error.colno})") from error
    except UnicodeDecodeError as error:
        raise ValueError(f"{where}: not UTF-8: byte {error.start}") from error
    except RecursionError as error:
        raise ValueError(f"{where}: JSON nested too deeply") from error
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from error


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result: dict[str, Any] = {}
    for name, value in pairs:
        if name in result:
            raise ValueError(f"repeated key {name!r}")
        result[name] = value
    return result


def _no_constant(name: str) -> float:
    raise ValueError(f"{name} is no number of JSON")


def _finite_float(digits: str) -> float:
    value = float(digits)
    if not math.isfinite(value):
        raise ValueError(f"{digits} is larger than any number here")
    return value


def _non_finite(node: Any, path: str) -> str:
    if isinstance(node, float) and not math.isfinite(node):
        return f"{node} (at {path.lstrip('.') or 'the top'})"
    items = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, (list, tuple)) else ()
    for name, child in items:
        if found := _non_finite(child, f"{path}.{name}"):
            return found
    return ""


def unfinished_of(path: PathLike) -> pathlib.Path:
    """Where ``new_directory`` fills a directory of this name: other processes may put files of theirs there."""
    path = pathlib.Path(path)
    return path.with_name(f".{path.name}{_UNFINISHED}")


@contextlib.contextmanager
def new_directory(path: PathLike) -> Iterator[pathlib.Path]:
    """A directory that appears whole: fill the one that is yielded; it takes its name when the block ends well.

    A directory that had the name before is replaced; when the block raises, it stays and the new one is removed.
    A crash between the two renames of a replacement leaves the old one as ``.<name>.replaced``, which the next
    call or ``clean`` puts back.
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished, replaced = unfinished_of(path), path.with_name(f".{path.name}{_REPLACED}")
    for leftover in (unfinished, replaced):
        _clear(leftover)
    unfinished.mkdir()
    try:
        yield unfinished
        for file in unfinished.rglob("*"):
            if file.is_file():
                with open(file, "rb") as opened:
                    os.fsync(opened.fileno())
        if path.exists():
            os.rename(path, replaced)
        os.rename(unfinished, path)
        sync_directory(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except BaseException:
        shutil.rmtree(unfinished, ignore_errors=True)
        raise


def is_unfinished(path: PathLike) -> bool:
    """Whether a name is that of a temporary file or directory of this module, left by a crash."""
    name = pathlib.Path(path).name
    return name.startswith(".") and name.endswith((_UNFINISHED, _REPLACED))


def clean(directory: PathLike) -> None:
    """Removes what crashes left half-written below a directory, and puts back what was being replaced."""
    for leftover in [path for path in pathlib.Path(directory).rglob(".*") if is_unfinished(path)]:
        _clear(leftover)


def _clear(leftover: pathlib.Path) -> None:
    original = leftover.with_name(leftover.name[1:].removesuffix(_REPLACED))
    if leftover.name.endswith(_REPLACED) and leftover.exists() and not original.exists():
        os.rename(leftover, original)
    elif leftover.is_dir():
        shutil.rmtree(leftover)
    else:
        leftover.unlink(missing_ok=True)


def sync_directory(directory: pathlib.Path) -> None:
    """Makes a new or changed name in it outlive a power cut, where the system can open directories."""
    with contextlib.suppress(OSError):
        descriptor = os.open(directory, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
