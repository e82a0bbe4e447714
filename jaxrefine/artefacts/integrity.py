"""What a directory of arrays held when it was written: a size and a checksum a file, a shape and a type an array.

A flipped bit, a file cut short, lost or swapped is then found before anything is computed from it. The checksum is
CRC-32: it finds every single flipped bit and every burst of up to 32, costs 0.4 s/GB on one core, and is no protection
from somebody who changes the manifest as well.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import zlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrefine.artefacts.atomic import is_unfinished, read_json, write_json
from jaxrefine.artefacts.manifest import versions
from jaxrefine.artefacts.stopping import StoppedError

INTEGRITY = "integrity.json"
"""Name of the manifest of a directory that holds its own."""
_BLOCK = 1 << 22
_THREADS = 4

Leaves = Mapping[str, tuple[str, tuple[int, ...]]]
"""{path of an array: (its type, its shape)}."""


class DamagedError(StoppedError):
    """Files that are not those that were written."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Integrity:
    """The manifest: what was written, by what."""

    files: dict[str, list[int]]
    """{path below the directory: [bytes, CRC-32]}."""
    leaves: dict[str, list[Any]]
    """{path of an array: [type, shape]}."""
    versions: dict[str, str]
    """Of jaxrefine, Python and the libraries that compute."""
    about: dict[str, Any]
    """Digests of what they belong to, such as the config and the data position."""


def write_integrity(
    file: pathlib.Path, directory: pathlib.Path, *, leaves: Leaves | None = None, about: Mapping[str, Any] | None = None
) -> Integrity:
    """Seals a directory: the manifest is written last and atomically.

    Args:
        file: the manifest, beside the directory or in it.
        directory: everything below it but the manifest itself and what a crash left half-written.
        leaves: the arrays that the files hold.
        about: JSON values.
    """
    described = {path: [dtype, list(shape)] for path, (dtype, shape) in (leaves or {}).items()}
    files = _digests(directory, [path for path in _files(directory) if path != file])
    integrity = Integrity(files=files, leaves=described, versions=versions(), about=dict(about or {}))
    content = dataclasses.asdict(integrity)
    write_json(file, {"crc32": checksum(content), **content})
    return integrity


def read_integrity(file: pathlib.Path) -> Integrity:
    """A manifest that is itself whole.

    Raises:
        FileNotFoundError: there is none.
        DamagedError: it is not what was written, with its path.
    """
    try:
        content = read_json(file)
    except ValueError as error:
        raise DamagedError(f"{file} is damaged: {error}") from error
    names = {field.name for field in dataclasses.fields(Integrity)}
    if not isinstance(content, dict) or content.keys() != names | {"crc32"}:
        raise DamagedError(f"{file} is damaged or of another version: a manifest has {', '.join(sorted(names))}")
    own = content.pop("crc32")
    if own != checksum(content):
        raise DamagedError(f"{file} is damaged: its own checksum differs")
    return Integrity(**content)


def damages(directory: pathlib.Path, integrity: Integrity, *, share: tuple[int, int] = (0, 1)) -> list[str]:
    """What is wrong with the files of a directory, "path: what", each; nothing when all are as they were written.

    Files that are there besides are not looked at.

    Args:
        directory: as it is now.
        integrity: as it was written.
        share: (i, n): every n-th file from the i-th on, for n readers of one directory.
    """
    names = sorted(integrity.files)[share[0] :: share[1]]
    sizes = {name: (directory / name).stat().st_size for name in names if (directory / name).is_file()}
    problems = {name: "missing" for name in names if name not in sizes}
    for name, size in sizes.items():
        if size != (expected := integrity.files[name][0]):
            problems[name] = f"{size} bytes, {expected} were written"
    same_size = [directory / name for name in names if name not in problems]
    for name, found in _digests(directory, same_size).items():
        if found != integrity.files[name]:
            problems[name] = "other content than was written"
    return [f"{name}: {problems[name]}" for name in sorted(problems)]


def check_directory(directory: pathlib.Path, *, share: tuple[int, int] = (0, 1)) -> bool:
    """Compares a directory with the manifest it holds; whether it holds one.

    Raises:
        DamagedError: naming each file that is missing, of another size or content.
    """
    file = directory / INTEGRITY
    if not file.is_file():
        return False
    if problems := damages(directory, read_integrity(file), share=share):
        raise DamagedError(
            f"{directory} is not what was written there: {'; '.join(problems)}. Fetch or convert it again; or, if the "
            f"change was meant, remove its {INTEGRITY}"
        )
    return True


def checksum(content: Any) -> int:
    """CRC-32 of a JSON value.

    >>> checksum({"a": 1, "b": 2}) == checksum({"b": 2, "a": 1})
    True
    """
    return zlib.crc32(json.dumps(content, sort_keys=True, separators=(",", ":")).encode())


def _files(directory: pathlib.Path) -> Sequence[pathlib.Path]:
    """Of the whole tree, but not what a crash left half-written."""
    return [
        path
        for path in sorted(directory.rglob("*"))
        if path.is_file() and not any(is_unfinished(part) for part in path.relative_to(directory).parts)
    ]


def _digests(directory: pathlib.Path, files: Sequence[pathlib.Path]) -> dict[str, list[int]]:
    """Read by a few threads: neither the disk nor zlib holds Python's lock."""
    if len(files) < 2 or sum(path.stat().st_size for path in files) < _BLOCK:
        found = list(map(_digest, files))
    else:
        with concurrent.futures.ThreadPoolExecutor(min(_THREADS, os.cpu_count() or 1)) as pool:
            found = list(pool.map(_digest, files))
    return {path.relative_to(directory).as_posix(): one for path, one in zip(files, found, strict=True)}


def _digest(path: pathlib.Path) -> list[int]:
    checksum, size = 0, 0
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            checksum, size = zlib.crc32(block, checksum), size + len(block)
    return [size, checksum]
