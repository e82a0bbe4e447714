"""The tensors of a checkpoint directory: names, dtypes and shapes at once, values slice by slice, whatever the layout.

Layouts: ``model.safetensors``, ``model.safetensors.index.json`` with its shards, ``pytorch_model.bin``,
``pytorch_model.bin.index.json`` with its shards. Safetensors are preferred where a directory has both.
"""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import json
import math
import pathlib
from collections.abc import Callable, Iterator
from typing import Any

import ml_dtypes
import numpy as np
from safetensors import SafetensorError, safe_open

from jaxrefine.artefacts.atomic import read_json
from jaxrefine.config import unknown_name
from jaxrefine.conversion.torch_pickle import TorchFile

SAFETENSORS = "model.safetensors"
TORCH = "pytorch_model.bin"
INDEX = ".index.json"
"""A sharded checkpoint's map from tensor to file is called after the single file, with this suffix."""

DTYPES: dict[str, np.dtype[Any]] = {
    "F64": np.dtype(np.float64),
    "F32": np.dtype(np.float32),
    "F16": np.dtype(np.float16),
    "BF16": np.dtype(ml_dtypes.bfloat16),
    "I64": np.dtype(np.int64),
    "I32": np.dtype(np.int32),
    "I16": np.dtype(np.int16),
    "I8": np.dtype(np.int8),
    "U8": np.dtype(np.uint8),
    "BOOL": np.dtype(np.bool_),
}
"""Safetensors' names of the dtypes that NumPy (with ml_dtypes) can hold."""


@dataclasses.dataclass(frozen=True)
class Tensor:
    """One tensor of a checkpoint, not read yet.

    Args:
      name: as the file calls it.
      file: the file that holds it.
      dtype: NumPy's name of it, or the file's own name where NumPy has none.
      shape: of the whole tensor.
      read: part of it, given one slice an axis.
      start: the byte of the file where its values begin, if they lie there one after the other, in order.
    """

    name: str
    file: pathlib.Path
    dtype: str
    shape: tuple[int, ...]
    read: Callable[[tuple[slice, ...]], np.ndarray]
    start: int | None = None

    def __str__(self) -> str:
        return f"{self.name!r} in {self.file}"


@contextlib.contextmanager
def open_checkpoint(directory: pathlib.Path) -> Iterator[dict[str, Tensor]]:
    """All tensors of a checkpoint directory by name; they may be read inside the ``with`` block.

    Raises:
      FileNotFoundError: no checkpoint there, or a shard that the index names is missing.
      ValueError: a truncated or malformed file, a tensor in two shards, an index that disagrees with its shards;
        names the tensor and the files.
    """
    first, weight_map = _locate(directory)
    with contextlib.ExitStack() as stack:
        if weight_map is None:
            yield _open(first, stack)
            return
        tensors: dict[str, Tensor] = {}
        for shard in sorted(set(weight_map.values())):
            for name, tensor in _open(directory / shard, stack).items():
                if name in tensors:
                    raise ValueError(f"tensor {name!r} is in two shards: {tensors[name].file} and {tensor.file}")
                if name not in weight_map:
                    raise ValueError(f"tensor {tensor} is not in the index {first}: {_near(name, weight_map)}")
                tensors[name] = tensor
        for name, shard in weight_map.items():
            if name not in tensors:
                raise ValueError(
                    f"{first}: tensor {name!r} should be in {shard}, which does not hold it: {_near(name, tensors)}"
                )
            if tensors[name].file.name != shard:
                raise ValueError(f"{first}: tensor {name!r} should be in {shard}, it is in {tensors[name].file.name}")
        yield tensors


def has_weights(directory: pathlib.Path) -> bool:
    """Whether a directory holds any of the files that ``open_checkpoint`` looks for."""
    return any((directory / (name + suffix)).exists() for name in (SAFETENSORS, TORCH) for suffix in ("", INDEX))


def _near(name: str, allowed: Any) -> str:
    """The nearest names only: checkpoints have thousands."""
    return unknown_name(name, allowed, "tensor").partition(" Allowed: ")[0].rstrip(".") + f" ({len(allowed)} known)"


def _locate(directory: pathlib.Path) -> tuple[pathlib.Path, dict[str, str] | None]:
    """The single file of a checkpoint, or its index and what that says."""
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory")
    for single in (SAFETENSORS, TORCH):
        path, index = directory / single, directory / (single + INDEX)
        if path.exists() and index.exists():
            raise ValueError(f"{directory}: both {path.name} and {index.name}: remove the one that does not belong")
        if path.exists():
            return path, None
        if index.exists():
            return index, _read_index(index)
    there = ", ".join(sorted(path.name for path in directory.iterdir())[:20]) or "nothing"
    allowed = ", ".join((SAFETENSORS, SAFETENSORS + INDEX, TORCH, TORCH + INDEX))
    raise FileNotFoundError(f"{directory}: no weights: it has {there}; allowed: {allowed}")


def _read_index(index: pathlib.Path) -> dict[str, str]:
    content = read_json(index)
    weight_map = content.get("weight_map") if isinstance(content, dict) else None
    if not isinstance(weight_map, dict) or not weight_map:
        raise ValueError(f"{index}: key 'weight_map' must map tensors to files")
    for name, shard in weight_map.items():
        if not isinstance(shard, str) or pathlib.PurePath(shard).name != shard or "\\" in shard:
            raise ValueError(f"{index}: tensor {name!r} is in {shard!r}; allowed: a file of the same directory")
        if not (index.parent / shard).is_file():
            there = sorted(path.name for path in index.parent.iterdir() if path.suffix in (".safetensors", ".bin"))
            raise FileNotFoundError(
                f"{index}: tensor {name!r} is in a file that is missing: {unknown_name(shard, there, 'file')}"
            )
    return weight_map


def _open(path: pathlib.Path, stack: contextlib.ExitStack) -> dict[str, Tensor]:
    """The tensors of one file."""
    if path.suffix == ".bin":
        return open_torch(path)
    try:
        opened = stack.enter_context(safe_open(path, framework="np"))  # checks the header
        content, places = _mapped(path)
        tensors = {}
        for name in opened.keys():  # noqa: SIM118  (no mapping)
            header = opened.get_slice(name)
            dtype, shape = header.get_dtype(), tuple(header.get_shape())
            known, start = DTYPES.get(dtype), None
            if known is not None and math.prod(shape):
                start, end = places[name]
                read = functools.partial(_read_mapped, content[start:end].view(known).reshape(shape), path, start)
            else:
                read = functools.partial(_read_slice, opened, name, path)
            tensors[name] = Tensor(name, path, dtype if known is None else known.name, shape, read, start)
        return tensors
    except (SafetensorError, OSError) as error:
        raise ValueError(f"{path}: no complete safetensors file: {error}") from error


def open_torch(path: pathlib.Path) -> dict[str, Tensor]:
    """The tensors of a ``.bin``, ``.pt`` or ``.pth`` file, none of them read.

    Raises:
      ValueError: see ``TorchFile``.
    """
    file = TorchFile(path)
    return {
        name: Tensor(name, path, found.dtype.name, found.shape, functools.partial(file.read, name), file.start_of(name))
        for name, found in file.tensors.items()
    }


def _read_mapped(values: np.ndarray, path: pathlib.Path, start: int, slices: tuple[slice, ...]) -> np.ndarray:
    """Part of a tensor; whole rows are read at once, which costs less than a fault a page, others through the map."""
    if any(one.indices(size) != (0, size, 1) for one, size in zip(slices[1:], values.shape[1:], strict=True)):
        return values[slices]
    first, last, step = slices[0].indices(values.shape[0])
    if step != 1 or first >= last:
        return values[slices]
    own = np.empty((last - first, *values.shape[1:]), values.dtype)
    read_bytes(path, start + first * (own.nbytes // len(own)), own)
    return own


def read_bytes(path: pathlib.Path, start: int, room: np.ndarray) -> None:
    """Fills a contiguous array with a file's bytes from ``start`` on.

    Raises:
      ValueError: the file ends before the array does.
    """
    left = memoryview(room.reshape(-1).view(np.uint8).data)
    with open(path, "rb", buffering=0) as file:
        file.seek(start)
        while left:
            count = file.readinto(left)
            if not count:
                raise ValueError(f"{path}: truncated while it was read")
            left = left[count:]


def _mapped(path: pathlib.Path) -> tuple[np.ndarray, dict[str, tuple[int, int]]]:
    """A checked safetensors file as mapped bytes, and where each tensor begins and ends there."""
    with open(path, "rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    places = {
        name: (start + entry["data_offsets"][0], start + entry["data_offsets"][1])
        for name, entry in header.items()
        if name != "__metadata__"
    }
    return np.memmap(path, np.uint8, "r").view(np.ndarray), places


def _read_slice(opened: Any, name: str, path: pathlib.Path, slices: tuple[slice, ...]) -> np.ndarray:
    try:
        return opened.get_slice(name)[slices] if slices else opened.get_tensor(name)
    except SafetensorError as error:
        raise ValueError(f"{path}: tensor {name!r}: {error}") from error
