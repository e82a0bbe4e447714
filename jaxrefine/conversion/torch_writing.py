"""PyTorch's ``.pt`` files without PyTorch: a state dict as ``torch.save`` writes it, one tensor in memory at a time."""

from __future__ import annotations

import math
import os
import pathlib
import pickle
import struct
import zipfile
from collections.abc import Iterable

import numpy as np

from jaxrefine.conversion.torch_pickle import STORAGES

_ROOM = "archive"
_OPEN, _TUPLE, _CALL, _SETITEMS, _STOP = b"(", b"t", b"R", b"u", b"."
_EMPTY_ORDERED_DICT = b"ccollections\nOrderedDict\n)R"


def write_state_dict(path: str | os.PathLike[str], tensors: Iterable[tuple[str, np.ndarray]]) -> pathlib.Path:
    """Writes tensors by name; the file appears whole or not at all.

    Args:
      path: its name, such as ``palm.pt``; a file of that name is replaced.
      tensors: (name, array), each of which is written before the next is asked for.

    Returns:
      The path.

    Raises:
      ValueError: a dtype that PyTorch does not store, a name that comes twice; names the tensor.

    >>> import tempfile
    >>> from jaxrefine.conversion.torch_pickle import TorchFile
    >>> with tempfile.TemporaryDirectory() as directory:
    ...     path = write_state_dict(pathlib.Path(directory, "two.pt"), [("a", np.ones((2, 3), np.float32))])
    ...     TorchFile(path).tensors["a"].shape
    (2, 3)
    """
    path = pathlib.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.unfinished")
    try:
        with open(unfinished, "wb") as file:
            with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
                _write(archive, tensors, path)
            file.flush()
            os.fsync(file.fileno())
        os.replace(unfinished, path)
    finally:
        unfinished.unlink(missing_ok=True)
    return path


def _write(archive: zipfile.ZipFile, tensors: Iterable[tuple[str, np.ndarray]], path: pathlib.Path) -> None:
    """The storages, then the program that names them: torch reads the directory at the end of the file."""
    kinds = {dtype: name for name, dtype in STORAGES.items()}
    entries: dict[str, bytes] = {}
    for name, value in tensors:
        if name in entries:
            raise ValueError(f"{path}: tensor {name!r} comes twice")
        if value.dtype not in kinds:
            raise ValueError(
                f"{path}: tensor {name!r} has dtype {value.dtype}; allowed: {', '.join(map(str, STORAGES.values()))}"
            )
        content = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        member = zipfile.ZipInfo(f"{_ROOM}/data/{len(entries)}")
        member.file_size = content.nbytes
        with archive.open(member, "w") as storage:
            storage.write(content.data)
        entries[name] = _tensor(str(len(entries)), kinds[value.dtype], value.shape)
    items = b"".join(_text(name) + tensor for name, tensor in entries.items())
    program = b"\x80\x02" + _EMPTY_ORDERED_DICT + _OPEN + items + _SETITEMS + _STOP
    for name, bytes_ in (("data.pkl", program), ("byteorder", b"little"), ("version", b"3\n")):
        archive.writestr(zipfile.ZipInfo(f"{_ROOM}/{name}"), bytes_)  # without the time: the same model, the same bytes


def _tensor(key: str, storage: str, shape: tuple[int, ...]) -> bytes:
    """A contiguous tensor that is all of its storage."""
    strides = [math.prod(shape[axis + 1 :]) for axis in range(len(shape))]
    kind = f"ctorch\n{storage}\n".encode()
    length = _integer(math.prod(shape))
    pid = _OPEN + _text("storage") + kind + _text(key) + _text("cpu") + length + _TUPLE + b"Q"
    rest = _integer(0) + _integers(shape) + _integers(strides) + b"\x89" + _EMPTY_ORDERED_DICT
    return b"ctorch._utils\n_rebuild_tensor_v2\n" + _OPEN + pid + rest + _TUPLE + _CALL


def _text(value: str) -> bytes:
    encoded = value.encode()
    return b"X" + struct.pack("<I", len(encoded)) + encoded


def _integers(values: Iterable[int]) -> bytes:
    return _OPEN + b"".join(map(_integer, values)) + _TUPLE


def _integer(value: int) -> bytes:
    if value < 1 << 31:
        return b"J" + struct.pack("<i", value)
    encoded = pickle.encode_long(value)
    return b"\x8a" + bytes([len(encoded)]) + encoded
