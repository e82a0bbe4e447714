"""Models by their sizes alone: published ones by name, others from the config.json of a directory."""

from __future__ import annotations

import dataclasses
from pathlib import Path

from jaxrefine.config import unknown_name
from jaxrefine.conversion.pretrained import read_config
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.encoder_config import EncoderConfig, RelativePositions

_SHIPPED = Path(__file__).resolve().parent.parent / "shipped"


def _llama(vocab: int, width: int, layers: int, heads: int, kv_heads: int, hidden: int) -> TransformerConfig:
    return TransformerConfig(
        vocab_size=vocab, width=width, num_layers=layers, num_heads=heads, num_kv_heads=kv_heads, head_width=128,
        hidden_width=hidden, max_positions=8192,
    )  # fmt: skip


SIZES: dict[str, TransformerConfig | EncoderConfig] = {
    "llama-7b": _llama(32000, 4096, 32, 32, 32, 11008),
    "llama-13b": _llama(32000, 5120, 40, 40, 40, 13824),
    "llama-30b": _llama(32000, 6656, 60, 52, 52, 17920),
    "llama-65b": _llama(32000, 8192, 80, 64, 64, 22016),
    "llama-70b": _llama(32000, 8192, 80, 64, 8, 28672),
    "llama-3-8b": _llama(128256, 4096, 32, 32, 8, 14336),
    "llama-3-70b": _llama(128256, 8192, 80, 64, 8, 28672),
    "palm-540b": TransformerConfig(
        vocab_size=256000, width=18432, num_layers=118, num_heads=48, num_kv_heads=1, head_width=256,
        hidden_width=73728, norm="layer", activation="silu", parallel=True, shared_norm=True, tie_embeddings=True,
    ),
    "mdeberta-v3-base": EncoderConfig(
        vocab_size=251_000, width=768, num_layers=12, num_heads=12, head_width=64, hidden_width=3072, norm_eps=1e-7,
        positions="none",
        relative=RelativePositions(max_distance=512, num_buckets=256, shared_projections=True, norm=True),
    ),
}  # fmt: skip
"""Touvron et al. 2023, arXiv:2302.13971 and 2307.09288; Llama 3, arXiv:2407.21783; Chowdhery et al. 2022,
arXiv:2204.02311, Table 1; He et al. 2021, arXiv:2111.09543."""

_ALIASES = {"llama-2-7b": "llama-7b", "llama-2-13b": "llama-13b", "llama-2-70b": "llama-70b"}


def size_in_name(config: str) -> str | None:
    """The published size that a config's name begins with, and which its user brings.

    >>> size_in_name("art/llama_13b_no_questions"), size_in_name("art/tiny")
    ('llama-13b', None)
    """
    name = config.rpartition("/")[2].replace("_", "-") + "-"
    return next((size for size in SIZES if name.startswith(f"{size}-")), None)


def model_shape(name: str | None, *, head: bool = True) -> TransformerConfig | EncoderConfig:
    """The sizes of a model.

    Args:
        name: a directory with a config.json, a published name, or None for the shipped small model.
        head: False leaves out an encoder's own pooler and classifier, as a router does.

    Raises:
        ValueError: neither a directory nor a name; names the nearest.

    >>> model_shape("LLaMA-2-13B").width
    5120
    """
    directory = _SHIPPED / "arithmetic-small" if name is None else Path(name).expanduser()
    if name is not None and not directory.is_dir() and (_SHIPPED / name).is_dir() and len(Path(name).parts) == 1:
        directory = _SHIPPED / name
    if directory.is_dir():
        family, attributes, where = read_config(directory)
        found = family.from_hf(attributes, where=where)
        if isinstance(found, EncoderConfig) and not head:
            found = dataclasses.replace(found, pooler=None, num_labels=None)
        return found
    key = str(name).lower().replace("_", "-").rstrip("/").rpartition("/")[2]
    key = _ALIASES.get(key, key)
    if key not in SIZES:
        raise ValueError(unknown_name(name, SIZES, "model (no such directory, no such published size)"))
    return SIZES[key]
