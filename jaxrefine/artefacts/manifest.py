"""What a finished stage says of itself: config, versions, seeds, and digests of what it read and wrote."""

from __future__ import annotations

import dataclasses
import hashlib
import importlib.metadata
import os
import pathlib
import platform
from typing import Any

from jaxrefine import __version__
from jaxrefine.artefacts.atomic import is_unfinished, read_json, write_json
from jaxrefine.config import digest, flatten

MANIFEST = "manifest.json"
_RECORDED = ("jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "grain", "numpy", "transformers", "tokenizers")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Manifest:
    """The last file that a stage writes; without it the stage is unfinished."""

    stage: str
    """Its name."""
    config: str
    """Digest of the config it ran under."""
    seeds: dict[str, Any]
    """Every leaf of the config that is called a seed, by dotted path."""
    versions: dict[str, str]
    """Of jaxrefine, Python and the libraries that compute."""
    inputs: dict[str, str]
    """Digest of the outputs of each stage that it read."""
    outputs: dict[str, str]
    """Digest of each file that it wrote, by path inside its directory."""
    seconds: float
    """How long it ran, over all its starts."""

    @property
    def digest(self) -> str:
        """Of the outputs alone: what a later stage records as its input."""
        return digest(self.outputs)


def seeds_of(config: Any) -> dict[str, Any]:
    """The leaves that are called ``seed``, ``seeds`` or ``…_seed``, by dotted path.

    >>> seeds_of({"seed": 1, "data": {"shuffle_seed": 2, "size": 3}})
    {'seed': 1, 'data.shuffle_seed': 2}
    """
    leaves = flatten(config).items()
    return {path: leaf for path, leaf in leaves if path.rpartition(".")[2].endswith(("seed", "seeds"))}


def versions() -> dict[str, str]:
    """Versions of jaxrefine, Python and the installed libraries that results depend on."""
    found = {"jaxrefine": __version__, "python": platform.python_version()}
    for name in _RECORDED:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def digest_file(path: str | os.PathLike[str]) -> str:
    """BLAKE2b of a file's bytes: 32 hexadecimal digits, 0.7 GB/s on one core."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, lambda: hashlib.blake2b(digest_size=16)).hexdigest()


def digest_outputs(directory: pathlib.Path) -> dict[str, str]:
    """The digest of every file below a directory except the manifest and what a crash left half-written."""
    files = (
        file
        for file in sorted(directory.rglob("*"))
        if file.is_file() and not any(is_unfinished(part) for part in file.relative_to(directory).parts)
    )
    names = {file.relative_to(directory).as_posix(): file for file in files}
    return {name: digest_file(file) for name, file in names.items() if name != MANIFEST}


def save_manifest(directory: pathlib.Path, manifest: Manifest) -> None:
    """Writes the manifest, atomically and last of all: with it the stage is finished."""
    write_json(directory / MANIFEST, dataclasses.asdict(manifest))


def load_manifest(directory: pathlib.Path) -> Manifest | None:
    """The manifest of a finished stage, None of an unfinished one.

    Raises:
      ValueError: a manifest that is not one, with its path.
    """
    path = directory / MANIFEST
    if not path.is_file():
        return None
    content = read_json(path)
    names = {field.name for field in dataclasses.fields(Manifest)}
    if not isinstance(content, dict) or set(content) != names:
        raise ValueError(f"{path}: not a manifest of this version; it has the fields {', '.join(sorted(names))}")
    return Manifest(**content)


def altered(directory: pathlib.Path, manifest: Manifest) -> list[str]:
    """Outputs that are missing or no longer hold what the manifest says."""
    present = digest_outputs(directory)
    return [name for name, content in manifest.outputs.items() if present.get(name) != content]
