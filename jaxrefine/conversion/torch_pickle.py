"""PyTorch's ``.bin`` files without PyTorch: tensors are located, never constructed by the file's own code.

A ``.bin`` file is a zip: a pickle that says where each tensor lies, and one stored member a storage. A pickle is a
program; here it may call three names only, each of them replaced by an inert object of this module, and its opcodes
are checked against a list before the first of them runs. Storages are memory-mapped and read slice by slice.
"""

from __future__ import annotations

import collections
import io
import math
import pathlib
import pickle
import pickletools
import struct
import zipfile
import zlib
from typing import Any, NamedTuple

import ml_dtypes
import numpy as np

STORAGES: dict[str, np.dtype[Any]] = {
    "FloatStorage": np.dtype(np.float32),
    "HalfStorage": np.dtype(np.float16),
    "BFloat16Storage": np.dtype(ml_dtypes.bfloat16),
    "DoubleStorage": np.dtype(np.float64),
    "LongStorage": np.dtype(np.int64),
    "IntStorage": np.dtype(np.int32),
    "ShortStorage": np.dtype(np.int16),
    "CharStorage": np.dtype(np.int8),
    "ByteStorage": np.dtype(np.uint8),
    "BoolStorage": np.dtype(np.bool_),
}
"""The storages that a file may name, as ``torch.<name>``."""

ALLOWED_GLOBALS = (
    "collections.OrderedDict",
    "torch._utils._rebuild_tensor_v2",
    *(f"torch.{name}" for name in STORAGES),
)
"""All that a pickle may name."""

_OPCODES = (
    "PROTO FRAME STOP MARK GLOBAL STACK_GLOBAL REDUCE BUILD BINPERSID MEMOIZE BINPUT LONG_BINPUT BINGET LONG_BINGET "
    "NONE NEWTRUE NEWFALSE BININT BININT1 BININT2 LONG1 BINFLOAT BINUNICODE SHORT_BINUNICODE "
    "EMPTY_TUPLE TUPLE TUPLE1 TUPLE2 TUPLE3 EMPTY_DICT SETITEM SETITEMS EMPTY_LIST APPEND APPENDS"
)
"""What ``torch.save`` writes for a state dict; none of them constructs an object by itself."""

_LARGEST_PICKLE = 1 << 28
_BROKEN_ZIP = (
    zipfile.BadZipFile,
    zlib.error,
    struct.error,
    EOFError,
    NotImplementedError,
    OSError,
    OverflowError,
    RuntimeError,
    UnicodeDecodeError,
)
"""What ``zipfile`` raises for one broken byte or another."""
_LOCAL_HEADER = struct.Struct("<4s22xHH")


class LazyTensor(NamedTuple):
    """Where one tensor of a ``.bin`` file lies; nothing of it has been read."""

    storage: str
    dtype: np.dtype[Any]
    length: int
    offset: int
    shape: tuple[int, ...]
    strides: tuple[int, ...]


class _StorageType(NamedTuple):
    """Stands for a ``torch.*Storage`` class. Tuples without attributes, so that a pickle cannot alter them (BUILD)."""

    name: str


class _Storage(NamedTuple):
    key: str
    dtype: np.dtype[Any]
    length: int


class _Rebuild:
    """Stands for ``torch._utils._rebuild_tensor_v2``."""

    __slots__ = ()

    def __call__(self, storage: Any, offset: Any, size: Any, stride: Any, *_: Any) -> LazyTensor:
        """Where a tensor lies, wholly inside its storage."""
        given = f"a tensor of size {size!r}, stride {stride!r}, offset {offset!r}"
        if not (isinstance(storage, _Storage) and isinstance(size, tuple) and isinstance(stride, tuple)):
            raise pickle.UnpicklingError(f"{given} in {storage!r}")
        if any(type(number) is not int or number < 0 for number in (offset, *size, *stride)):
            raise pickle.UnpicklingError(given)
        last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
        if math.prod(size) and last >= storage.length:
            raise pickle.UnpicklingError(f"{given} in a storage of {storage.length} elements")
        return LazyTensor(storage.key, storage.dtype, storage.length, offset, size, stride)


class _Unpickler(pickle.Unpickler):
    def __init__(self, content: bytes, path: pathlib.Path) -> None:
        super().__init__(io.BytesIO(content))
        self._path = path

    def find_class(self, module: str, name: str) -> Any:
        """One of the three allowed kinds of name, or an error."""
        if (module, name) == ("collections", "OrderedDict"):
            return collections.OrderedDict
        if (module, name) == ("torch._utils", "_rebuild_tensor_v2"):
            return _Rebuild()
        if module == "torch" and name in STORAGES:
            return _StorageType(name)
        raise _refused(self._path, f"{module}.{name}")

    def persistent_load(self, pid: Any) -> _Storage:
        """A storage: ("storage", type, member of the zip, device, number of elements)."""
        if not (isinstance(pid, tuple) and len(pid) == 5 and pid[0] == "storage"):
            raise pickle.UnpicklingError(f"a persistent id {pid!r}, no storage")
        _, kind, key, _, length = pid
        if not (isinstance(kind, _StorageType) and isinstance(key, str) and type(length) is int and length >= 0):
            raise pickle.UnpicklingError(f"a storage {pid!r}")
        return _Storage(key, STORAGES[kind.name], length)


class TorchFile:
    """The tensors of a zip ``.bin`` file: names, dtypes and shapes at once, values slice by slice.

    Args:
      path: written by ``torch.save(state_dict)`` of PyTorch 1.6 or later.

    Raises:
      ValueError: not such a file, truncated, a global outside ``ALLOWED_GLOBALS`` (which is not called), an entry
        that is no tensor, or a tensor outside its storage; names the file and the global or entry.
    """

    def __init__(self, path: pathlib.Path) -> None:
        self.path = path
        try:
            with zipfile.ZipFile(path) as archive:
                self._members = {info.filename: info for info in archive.infolist()}
                self._prefix = self._find_pickle()
                self._check_byte_order(archive)
                content = archive.read(f"{self._prefix}data.pkl")
        except (FileNotFoundError, PermissionError, IsADirectoryError):
            raise
        except _BROKEN_ZIP as error:
            raise ValueError(
                f"{path}: not a complete zip file ({error}): truncated, or written by PyTorch before 1.6; "
                "save it again as safetensors"
            ) from error
        self.tensors: dict[str, LazyTensor] = self._unpickle(content)
        for name, tensor in self.tensors.items():
            self._check_storage(name, tensor)

    def read(self, name: str, slices: tuple[slice, ...]) -> np.ndarray:
        """A view of part of a tensor, memory-mapped."""
        tensor = self.tensors[name]
        if not math.prod(tensor.shape):
            return np.zeros(tensor.shape, tensor.dtype)[slices]
        size = tensor.length * tensor.dtype.itemsize
        try:
            content = np.memmap(self.path, np.uint8, "r", self._data_start(tensor), (size,))
        except (ValueError, OSError) as error:
            raise ValueError(f"{self.path}: tensor {name!r} cannot be read: {error}") from error
        storage = content.view(tensor.dtype)
        strides = tuple(step * tensor.dtype.itemsize for step in tensor.strides)
        whole = np.lib.stride_tricks.as_strided(storage[tensor.offset :], tensor.shape, strides, writeable=False)
        return whole[slices]

    def start_of(self, name: str) -> int | None:
        """The byte of the file where a tensor's values begin, if they lie there one after the other, in order."""
        tensor = self.tensors[name]
        strides = tuple(math.prod(tensor.shape[axis + 1 :]) for axis in range(len(tensor.shape)))
        if tensor.strides != strides or not math.prod(tensor.shape):
            return None
        return self._data_start(tensor) + tensor.offset * tensor.dtype.itemsize

    def _find_pickle(self) -> str:
        pickles = [name for name in self._members if name.rpartition("/")[2] == "data.pkl"]
        if len(pickles) != 1:
            raise ValueError(f"{self.path}: a zip file with {len(pickles)} members data.pkl, not one: no state dict")
        if self._members[pickles[0]].file_size > _LARGEST_PICKLE:
            raise ValueError(f"{self.path}: {pickles[0]} has {self._members[pickles[0]].file_size} bytes")
        return pickles[0].removesuffix("data.pkl")

    def _check_byte_order(self, archive: zipfile.ZipFile) -> None:
        name = f"{self._prefix}byteorder"
        if name in self._members and (order := archive.read(name)[:16]) != b"little":
            raise ValueError(f"{self.path}: byte order is {order!r}; allowed: little")

    def _unpickle(self, content: bytes) -> dict[str, LazyTensor]:
        try:
            _check_opcodes(content, self.path)
            state = _Unpickler(content, self.path).load()
        except RefusedPickle:
            raise
        except Exception as error:  # whatever a broken program does
            raise ValueError(f"{self.path}: {self._prefix}data.pkl is broken: {error}") from error
        if not isinstance(state, dict):
            raise ValueError(f"{self.path}: holds a {type(state).__name__}; a state dict of tensors is needed")
        for name, value in state.items():
            if not (isinstance(name, str) and isinstance(value, LazyTensor)):
                raise ValueError(f"{self.path}: entry {name!r} is a {type(value).__name__}; all must be tensors")
        return dict(state)

    def _check_storage(self, name: str, tensor: LazyTensor) -> None:
        member = self._members.get(f"{self._prefix}data/{tensor.storage}")
        if member is None:
            raise ValueError(f"{self.path}: tensor {name!r} lies in storage {tensor.storage!r}, which is not there")
        if member.compress_type != zipfile.ZIP_STORED:
            raise ValueError(f"{self.path}: storage {tensor.storage!r} of {name!r} is compressed; PyTorch stores them")
        if member.file_size != tensor.length * tensor.dtype.itemsize:
            raise ValueError(
                f"{self.path}: storage {tensor.storage!r} of {name!r} has {member.file_size} bytes; "
                f"{tensor.length} elements of {tensor.dtype} have {tensor.length * tensor.dtype.itemsize}"
            )

    def _data_start(self, tensor: LazyTensor) -> int:
        """Where a member's bytes begin: behind its local header, whose length the central directory does not know."""
        member = self._members[f"{self._prefix}data/{tensor.storage}"]
        with open(self.path, "rb") as file:
            file.seek(member.header_offset)
            header = file.read(_LOCAL_HEADER.size)
        if len(header) < _LOCAL_HEADER.size:
            raise ValueError(f"{self.path}: truncated: {member.filename!r} is not there")
        signature, name_length, extra_length = _LOCAL_HEADER.unpack(header)
        if signature != b"PK\x03\x04":
            raise ValueError(f"{self.path}: no member where the directory says {member.filename!r} is")
        return member.header_offset + _LOCAL_HEADER.size + name_length + extra_length


class RefusedPickle(ValueError):  # noqa: N818  (what happened, not an error of ours)
    """A pickle that names or does what no state dict needs; none of it was run."""


def _refused(path: pathlib.Path, name: str) -> RefusedPickle:
    return RefusedPickle(
        f"{path}: refused, nothing was run: its pickle names {name!r}; allowed: {', '.join(ALLOWED_GLOBALS)}"
    )


def _check_opcodes(content: bytes, path: pathlib.Path) -> None:
    """Every opcode and every global that is spelled out, before any of them runs."""
    allowed = frozenset(_OPCODES.split())
    program = list(pickletools.genops(content))
    for opcode, argument, _ in program:
        if opcode.name in ("GLOBAL", "INST") and (name := str(argument).replace(" ", ".")) not in ALLOWED_GLOBALS:
            raise _refused(path, name)
    for opcode, argument, position in program:
        if opcode.name not in allowed:
            raise RefusedPickle(
                f"{path}: refused, nothing was run: opcode {opcode.name} at byte {position} of its pickle; "
                f"allowed: {', '.join(sorted(allowed))}"
            )
        if opcode.name == "LONG_BINPUT" and int(argument or 0) > len(content):
            raise RefusedPickle(f"{path}: refused, nothing was run: memo {argument} in {len(content)} bytes")
