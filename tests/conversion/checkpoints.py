"""Small LLaMA checkpoints made without torch: variants, weights that any machine computes alike, every layout."""

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

from jaxrefine.conversion.apply import abstract_params, by_path, exported_names
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.llama import LLAMA

_BASE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}

VARIANTS: dict[str, dict[str, Any]] = {
    "llama-1": _BASE | {"rms_norm_eps": 1e-6},
    "llama-2-gqa": _BASE | {"num_key_value_heads": 2},
    "llama-2-mqa": _BASE | {"num_key_value_heads": 1},
    "llama-3": _BASE | {"num_key_value_heads": 2, "rope_theta": 500_000.0},
    "llama-3.1": _BASE | {"num_key_value_heads": 2, "rope_theta": 500_000.0, "rope_scaling": _LLAMA3_ROPE},
    "llama-3.2-tied": _BASE
    | {
        "num_key_value_heads": 2,
        "rope_theta": 500_000.0,
        "rope_scaling": _LLAMA3_ROPE | {"factor": 32.0},
        "tie_word_embeddings": True,
    },
    "linear-scaling": _BASE | {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "attention-bias": _BASE | {"num_key_value_heads": 2, "attention_bias": True},
    "mlp-bias": _BASE | {"mlp_bias": True},
    "explicit-head-width": _BASE | {"head_dim": 12, "num_key_value_heads": 2},
    "vocab-32001": _BASE | {"vocab_size": 32_001, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1},
}
"""config.json of one small model a mechanism, in the dialect of the hub."""


def decoder_config(attributes: dict[str, Any]) -> TransformerConfig:
    """The config of ours."""
    return LLAMA.from_hf(attributes)


def wave(name: str, shape: tuple[int, ...], dtype: Any = np.float32) -> np.ndarray:
    """Weights that depend on the tensor's name alone, by integer arithmetic: norms about 1, others about 0."""
    start = np.uint64(zlib.crc32(name.encode()))
    x = (np.arange(np.prod(shape), dtype=np.uint64) + start * np.uint64(1_000_003)) * np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(29))) * np.uint64(0xBF58476D1CE4E5B9)
    uniform = ((x ^ (x >> np.uint64(32))) >> np.uint64(40)).astype(np.float64) / 2**24 - 0.5
    values = 1 + uniform if "norm" in name else uniform * (2 if "bias" in name else 6 / np.sqrt(shape[-1]))
    return values.reshape(shape).astype(np.float32).astype(dtype)


def tensors_of(attributes: dict[str, Any], dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """All tensors of a LLaMA of these attributes, by their names."""
    shapes = {path: leaf.shape for path, leaf in by_path(abstract_params(decoder_config(attributes))).items()}
    names = exported_names(LLAMA, shapes)
    return {
        name: wave(name, shapes[path][1:] if "layers." in name else shapes[path], dtype)
        for path, of_layers in names.items()
        for name in of_layers
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
