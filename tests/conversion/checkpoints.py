"""Small checkpoints made without torch: weights that any machine computes alike, every layout."""

from __future__ import annotations

import json
import pathlib
import struct
import zipfile
import zlib
from typing import Any

import ml_dtypes
import numpy as np
from safetensors.numpy import save_file

from jaxrefine.conversion.apply import abstract_params, by_path
from jaxrefine.conversion.exporting import outgoing
from jaxrefine.models.families import family_of
from tests.conversion.families.llama import CASES as VARIANTS  # noqa: F401  (LLaMAs, for tests of what is no family's own)


def wave(name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Weights that depend on the tensor's name alone, by integer arithmetic: norms about 1, others about 0."""
    start = np.uint64(zlib.crc32(name.encode()))
    x = (np.arange(np.prod(shape), dtype=np.uint64) + start * np.uint64(1_000_003)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    uniform = ((x ^ (x >> np.uint64(32))) >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5
    values = (
        1 + uniform if "norm" in name or ".ln_" in name else uniform * (2 if "bias" in name else 6 / np.sqrt(shape[-1]))
    )
    return values.reshape(shape).astype(np.float32).astype(dtype)


def tensors_of(attributes: dict[str, Any], dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """All tensors of a model of these attributes, by their names."""
    family = family_of(attributes["model_type"], "attributes")
    config = family.from_hf(attributes)
    shapes = {path: leaf.shape for path, leaf in by_path(abstract_params(config)).items()}
    return {
        name: wave(name, one.shape, dtype)
        for one in outgoing(family.rules(config), shapes, family.model_type)
        for name in one.names
    }


def write_checkpoint(
    directory: pathlib.Path,
    attributes: dict[str, Any],
    tensors: dict[str, np.ndarray],
    *,
    layout: str = "safetensors",
    num_shards: int = 1,
) -> pathlib.Path:
    """Writes config.json and the weights: ``layout`` "safetensors" or "bin", in one file or in shards."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "config.json").write_text(json.dumps(attributes))
    stem, suffix = ("model", "safetensors") if layout == "safetensors" else ("pytorch_model", "bin")
    write = write_safetensors if layout == "safetensors" else write_bin
    if num_shards == 1:
        write(directory / f"{stem}.{suffix}", tensors)
        return directory
    names = sorted(tensors)
    weight_map = {}
    for shard in range(num_shards):
        file = f"{stem}-{shard + 1:05d}-of-{num_shards:05d}.{suffix}"
        mine = names[shard::num_shards]
        write(directory / file, {name: tensors[name] for name in mine})
        weight_map.update(dict.fromkeys(mine, file))
    index = {"metadata": {"total_size": 0}, "weight_map": weight_map}
    (directory / f"{stem}.{suffix}.index.json").write_text(json.dumps(index))
    return directory


def write_safetensors(path: pathlib.Path, tensors: dict[str, np.ndarray]) -> None:
    """A safetensors file."""
    save_file({name: np.ascontiguousarray(value) for name, value in tensors.items()}, path, metadata={"format": "pt"})


_STORAGE = {"float32": "Float", "float16": "Half", "bfloat16": "BFloat16", "float64": "Double", "int64": "Long"}


def write_bin(path: pathlib.Path, tensors: dict[str, np.ndarray], *, compression: int = zipfile.ZIP_STORED) -> None:
    """A state dict as ``torch.save`` writes it, opcode by opcode."""
    program = b"\x80\x02" + call("collections", "OrderedDict", b")") + b"("
    for i, (name, value) in enumerate(tensors.items()):
        strides = tuple(step // value.itemsize for step in value.strides)
        program += text(name) + tensor(str(i), _STORAGE[value.dtype.name], value.size, 0, value.shape, strides)
    write_pickle(path, program + b"u.", [value.tobytes("A") for value in tensors.values()], compression=compression)


def write_pickle(
    path: pathlib.Path, program: bytes, storages: list[bytes], *, compression: int = zipfile.ZIP_STORED
) -> None:
    """A zip file of any pickle and its storages."""
    with zipfile.ZipFile(path, "w", compression) as archive:
        archive.writestr("archive/data.pkl", program)
        archive.writestr("archive/byteorder", "little")
        for i, content in enumerate(storages):
            archive.writestr(f"archive/data/{i}", content)
        archive.writestr("archive/version", "3\n")


def call(module: str, name: str, arguments: bytes) -> bytes:
    """Opcodes of ``module.name(*arguments)``."""
    return f"c{module}\n{name}\n".encode() + arguments + b"R"


def text(value: str) -> bytes:
    """Opcodes of a string."""
    return b"X" + struct.pack("<I", len(value.encode())) + value.encode()


def integers(values: tuple[int, ...]) -> bytes:
    """Opcodes of a tuple of integers."""
    return b"(" + b"".join(b"J" + struct.pack("<i", value) for value in values) + b"t"


def tensor(key: str, storage: str, length: int, offset: int, shape: tuple[int, ...], strides: tuple[int, ...]) -> bytes:
    """Opcodes of a tensor in a storage."""
    kind = b"(" + text("storage") + f"ctorch\n{storage}Storage\n".encode() + text(key) + text("cpu")
    kind += b"J" + struct.pack("<i", length) + b"tQ"
    rest = b"\x89" + call("collections", "OrderedDict", b")")
    place = b"J" + struct.pack("<i", offset) + integers(shape) + integers(strides)
    return call("torch._utils", "_rebuild_tensor_v2", b"(" + kind + place + rest + b"t")


BFLOAT16 = ml_dtypes.bfloat16
