"""LLaMA as Meta publishes it: ``params.json`` and ``consolidated.*.pth``, one file a model-parallel rank.

Rows of queries and keys pair neighbouring features for rotary positions; ours pair the halves of a head, so they are
permuted. Shards are concatenated along the axis that each map was split over.
"""

from __future__ import annotations

import dataclasses
import os
import pathlib
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxrefine.artefacts.atomic import read_json
from jaxrefine.config import unknown_name
from jaxrefine.conversion.apply import abstract_params
from jaxrefine.conversion.pretrained import assigned_parameters
from jaxrefine.conversion.tensors import Tensor, open_torch
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import flag, integer, number
from jaxrefine.models.families.llama import LLAMA
from jaxrefine.typing import Params

PARAMS = "params.json"
_KEYS = """
    dim n_layers n_heads n_kv_heads vocab_size multiple_of ffn_dim_multiplier norm_eps rope_theta use_scaled_rope
    rope_scaling_factor max_batch_size max_seq_len
"""

_LAYER = {
    "attention.wq.weight": ("self_attn.q_proj.weight", 0),
    "attention.wk.weight": ("self_attn.k_proj.weight", 0),
    "attention.wv.weight": ("self_attn.v_proj.weight", 0),
    "attention.wo.weight": ("self_attn.o_proj.weight", 1),
    "feed_forward.w1.weight": ("mlp.gate_proj.weight", 0),
    "feed_forward.w2.weight": ("mlp.down_proj.weight", 1),
    "feed_forward.w3.weight": ("mlp.up_proj.weight", 0),
    "attention_norm.weight": ("input_layernorm.weight", None),
    "ffn_norm.weight": ("post_attention_layernorm.weight", None),
}
"""Theirs -> Hugging Face's, and the axis that shards are concatenated along; None where every shard has the whole."""

_WHOLE: dict[str, tuple[str, int | None]] = {
    "tok_embeddings.weight": ("model.embed_tokens.weight", 1),
    "norm.weight": ("model.norm.weight", None),
    "output.weight": ("lm_head.weight", 0),
}
_IGNORED = r"(layers\.\d+\.attention\.(inner_attention\.)?)?rope\.freqs"


def is_consolidated(directory: pathlib.Path) -> bool:
    """Whether a directory holds such a model."""
    return (directory / PARAMS).is_file() and any(directory.glob("consolidated.*.pth"))


def load_consolidated(
    directory: str | os.PathLike[str],
    *,
    max_positions: int | None = None,
    mesh: jax.sharding.Mesh | None = None,
    param_dtype: DTypeLike | None = jnp.float32,
) -> tuple[TransformerConfig, Params]:
    """The config and parameters of a LLaMA in Meta's own layout.

    Args:
      directory: ``params.json`` and ``consolidated.00.pth``, ``consolidated.01.pth``, …
      max_positions: the context, which no file tells; None is that of the release that the other values speak of.
      mesh: places parameters by the table of ``jaxrefine.sharding``; None puts them on the default device.
      param_dtype: of the parameters; None keeps the files'.

    Returns:
      (config, params): ``params`` is the tree of ``Decoder(config)``.

    Raises:
      FileNotFoundError: no such files.
      ValueError: an unknown key, shards that do not belong together; names the file, the key or the tensor.
    """
    directory = pathlib.Path(directory)
    attributes, tensors = open_consolidated(directory, max_positions)
    config = LLAMA.from_hf(attributes, where=str(directory / PARAMS))
    return config, assigned_parameters(
        tensors, LLAMA, config, abstract_params(config), mesh, param_dtype, str(directory)
    )


def open_consolidated(
    directory: pathlib.Path, max_positions: int | None = None
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Attributes and tensors in Hugging Face's words; no tensor has been read."""
    path = directory / PARAMS
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    params = read_json(path)
    if not isinstance(params, dict):
        raise ValueError(f"{path}: holds a {type(params).__name__}; an object is needed")
    for key in params:
        if key not in _KEYS.split():
            raise ValueError(f"{path}: {unknown_name(key, _KEYS.split(), 'key')}")
    shards = _open_shards(directory)
    heads = integer(params, "n_heads", str(path))
    kv_heads = integer(params, "n_kv_heads", str(path), heads)
    width = integer(params, "dim", str(path))
    if heads < 1 or width % heads or (width // heads) % 2:
        raise ValueError(f"{path}: dim is {width}, n_heads is {heads}: a head must have an even width")
    layout = dict(_WHOLE)
    if "tok_embeddings.weight" in shards[0] and shards[0]["tok_embeddings.weight"].shape[-1:] == (width,):
        layout["tok_embeddings.weight"] = (_WHOLE["tok_embeddings.weight"][0], 0)  # since LLaMA 3
    tensors = {}
    for name in shards[0]:
        found = re.fullmatch(r"layers\.(0|[1-9]\d*)\.(.+)", name)
        if re.fullmatch(_IGNORED, name):
            continue
        table, key, stem = (_LAYER, found[2], f"model.layers.{found[1]}.") if found else (layout, name, "")
        if key not in table:
            raise ValueError(f"tensor {shards[0][name]} is left over: {unknown_name(key, table, 'tensor')}")
        theirs, axis = table[key]
        counts = {"attention.wq.weight": heads, "attention.wk.weight": kv_heads}
        tensors[stem + theirs] = _joined(stem + theirs, [shard[name] for shard in shards], axis, counts.get(key))
    return _attributes(params, tensors, str(path), kv_heads, max_positions), tensors


def _open_shards(directory: pathlib.Path) -> list[dict[str, Tensor]]:
    paths = sorted(directory.glob("consolidated.*.pth"))
    wanted = [f"consolidated.{i:02d}.pth" for i in range(max(len(paths), 1))]
    if [path.name for path in paths] != wanted:
        there = ", ".join(path.name for path in paths) or "none"
        raise FileNotFoundError(f"{directory}: shards must be {', '.join(wanted)}; there: {there}")
    shards = []
    for path in paths:
        shards.append(open_torch(path))
        for name in sorted(set(shards[0]) ^ set(shards[-1])):
            raise ValueError(f"{path}: tensor {name!r} is in one shard only, of {paths[0].name} and {path.name}")
    return shards


def _joined(name: str, shards: list[Tensor], axis: int | None, heads: int | None) -> Tensor:
    """One tensor of ours from its shards; the values of one are in memory at a time."""
    first = shards[0]
    for shard in shards:
        same = shard.dtype == first.dtype and len(shard.shape) == len(first.shape)
        if not same or any(a != b for i, (a, b) in enumerate(zip(shard.shape, first.shape, strict=True)) if i != axis):
            raise ValueError(f"tensor {shard} has shape {list(shard.shape)} and dtype {shard.dtype}; {first} differs")
    if axis is None:
        return dataclasses.replace(first, name=name)
    shape = tuple(sum(s.shape[i] for s in shards) if i == axis else n for i, n in enumerate(first.shape))
    if heads is not None and (len(shape) != 2 or shape[0] % (2 * heads)):
        raise ValueError(f"tensor {first} has, of all shards, shape {list(shape)}: not {heads} heads of an even width")

    if len(shards) == 1 and heads is None:
        return dataclasses.replace(first, name=name)

    def read(slices: tuple[slice, ...]) -> np.ndarray:
        parts = [shard.read((slice(None),) * len(shape)) for shard in shards]
        whole = parts[0] if len(parts) == 1 else np.concatenate(parts, axis=axis)
        return (whole if heads is None else paired_by_halves(whole, heads))[slices]

    return Tensor(name, first.file, first.dtype, shape, read)


def paired_by_halves(kernel: np.ndarray, heads: int) -> np.ndarray:
    """Rows of queries or keys whose rotary pairs are neighbours, put so that they are the halves of each head.

    >>> paired_by_halves(np.arange(8)[:, None], heads=2)[:, 0].tolist()
    [0, 2, 1, 3, 4, 6, 5, 7]
    """
    rows, columns = kernel.shape
    return kernel.reshape(heads, rows // heads // 2, 2, columns).swapaxes(1, 2).reshape(rows, columns)


def _attributes(
    params: Mapping[str, Any], tensors: Mapping[str, Tensor], where: str, kv_heads: int, max_positions: int | None
) -> dict[str, Any]:
    """Sizes that ``params.json`` does not tell are those of the tensors."""
    needed = ("model.embed_tokens.weight", "model.layers.0.mlp.gate_proj.weight")
    for name in needed:
        if name not in tensors:
            raise ValueError(f"{where}: the shards beside it hold no tensor that is {name!r}")
    vocab, hidden = (tensors[name].shape[0] for name in needed)
    if integer(params, "vocab_size", where, -1) not in (-1, vocab):
        raise ValueError(f"{where}: vocab_size is {params['vocab_size']}; the embedding has {vocab} rows")
    theta, eps = number(params, "rope_theta", where, 10_000.0), number(params, "norm_eps", where)
    scaled, width = flag(params, "use_scaled_rope", where, False), integer(params, "dim", where)
    release: Callable[[], int] = lambda: 131_072 if scaled else 8192 if theta > 1e4 else 4096 if eps > 5e-6 else 2048  # noqa: E731
    attributes = {
        "model_type": LLAMA.model_type,
        "vocab_size": vocab,
        "hidden_size": width,
        "intermediate_size": hidden,
        "num_hidden_layers": integer(params, "n_layers", where),
        "num_attention_heads": integer(params, "n_heads", where),
        "num_key_value_heads": kv_heads,
        "max_position_embeddings": release() if max_positions is None else max_positions,
        "rms_norm_eps": eps,
        "rope_theta": theta,
        "tie_word_embeddings": "lm_head.weight" not in tensors,
    }
    if scaled:
        # 3.1 (from 4096 features on) divides by 8, the small models of 3.2 by 32; newer files say so
        factor = number(params, "rope_scaling_factor", where, 8.0 if width >= 4096 else 32.0)
        bounds = {"low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 8192}
        attributes["rope_scaling"] = {"rope_type": "llama3", "factor": factor, **bounds}
    return attributes
