"""PaLM's ``.pt`` files have no config.json: what tensors tell is read off them, the rest is said by the caller."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxrefine.conversion import apply
from jaxrefine.conversion.exporting import export
from jaxrefine.conversion.reading import read_parameter
from jaxrefine.conversion.tensors import Tensor, open_torch
from jaxrefine.conversion.torch_writing import write_state_dict
from jaxrefine.conversion.writing import Tensors
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.palm import PALM, XPOS_BASE
from jaxrefine.sharding import param_shardings
from jaxrefine.typing import Params

_EMBEDDING, _LOGITS = "token_emb.weight", "to_logits.weight"
_OUT, _DOWN, _FUSED = "fn.attn_out.weight", "fn.ff_out.2.weight", "fn.fused_attn_ff_proj.weight"


def load_palm(
    path: str | os.PathLike[str],
    *,
    gamma_offset: int = 0,
    xpos_base: float | None = XPOS_BASE,
    qk_scale: float | None = None,
    max_positions: int = 8192,
    mesh: jax.sharding.Mesh | None = None,
    param_dtype: DTypeLike | None = jnp.float32,
) -> tuple[TransformerConfig, Params]:
    """The config and parameters of a PaLM in the public layout.

    Args:
      path: a state dict, such as ``palm_410m_8k_v0.pt``.
      gamma_offset: 1 if the file was made by a release of 2025 or later, whose norms multiply by 1 + gamma; nothing
        in a file says so, and the wrong one gives nonsense without an error.
      xpos_base: positions over which xPos decays; None for models without it.
      qk_scale: multiplies scores if queries and keys are normed; None is the inverse root of a head's width.
      max_positions: the context it was trained with.
      mesh: places parameters by the table of ``jaxrefine.sharding``; None puts them on the default device.
      param_dtype: of the parameters; None keeps the file's.

    Returns:
      (config, params): ``params`` is the tree of ``Decoder(config)``.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a state dict of this layout; names the file and the tensor.
    """
    path = pathlib.Path(path)
    attributes, tensors = open_palm(
        path, gamma_offset=gamma_offset, xpos_base=xpos_base, qk_scale=qk_scale, max_positions=max_positions
    )
    config = PALM.from_hf(attributes, where=str(path))
    abstract = apply.abstract_params(config)
    shapes = {name: leaf.shape for name, leaf in apply.by_path(abstract).items()}
    shardings = {} if mesh is None else apply.by_path(param_shardings(abstract, mesh))
    assignment = apply.assign(PALM, PALM.rules(config), shapes, tensors, str(path))
    return config, apply.nested(
        {
            name: read_parameter(of_layers, rule, shapes[name], param_dtype, shardings.get(name))
            for name, (rule, of_layers) in assignment.items()
        }
    )


def save_palm(
    path: str | os.PathLike[str], config: TransformerConfig, params: Params, *, dtype: DTypeLike | None = None
) -> pathlib.Path:
    """Writes a state dict that the public implementation loads, tables and tied head included.

    Args:
      path: its name, such as ``tuned.pt``; a file of that name is replaced.
      config: of the decoder; ``load_palm`` has to be told again what no tensor tells.
      params: the tree of ``Decoder(config)``.
      dtype: of the stored weights; None keeps that of the parameters.

    Returns:
      The path.

    Raises:
      ValueError: a mechanism that a PaLM lacks, a value that the dtype cannot hold.
    """
    return write_palm(path, config, apply.by_path(params), dtype=dtype)


def open_palm(
    path: pathlib.Path,
    *,
    gamma_offset: int = 0,
    xpos_base: float | None = XPOS_BASE,
    qk_scale: float | None = None,
    max_positions: int = 8192,
) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """Attributes, of which the arguments say what no tensor tells (see ``load_palm``), and tensors, none of them read.

    Raises:
      FileNotFoundError: no such file.
      ValueError: not a state dict of this layout; names the file and the tensor.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no such file")
    tensors = open_torch(path)
    attributes = _sizes(tensors, path) | {
        "model_type": PALM.model_type,
        "gamma_offset": gamma_offset,
        "use_xpos": xpos_base is not None,
        "rotary_xpos_scale_base": xpos_base,
        "qk_scale": qk_scale,
        "max_seq_len": max_positions,
    }
    _check_biases(tensors)
    return attributes, tensors


def write_palm(
    path: str | os.PathLike[str],
    config: TransformerConfig,
    leaves: Mapping[str, Any],
    *,
    dtype: DTypeLike | None = None,
    watch: Callable[[Tensors], Tensors] = lambda tensors: tensors,
) -> pathlib.Path:
    """What ``save_palm`` writes, from parameters by path; ``watch`` gets the tensors as they are written."""
    PALM.to_hf(config, dtype="float32")
    tensors = watch(export(PALM.rules(config), leaves, dtype, PALM.model_type))
    return write_state_dict(path, _with_tables(config, tensors))


def _sizes(tensors: Mapping[str, Tensor], path: pathlib.Path) -> dict[str, Any]:
    """The attributes that shapes tell: rows of the fused projection are heads · H + 2 H + 2 F."""
    depth = sum(name.endswith(_OUT) for name in tensors)
    wanted = {_EMBEDDING: 2, **{f"layers.0.{name}": 2 for name in (_OUT, _DOWN, _FUSED)}}
    for name, rank in wanted.items():
        if name not in tensors or len(tensors[name].shape) != rank:
            raise ValueError(f"{path}: no PaLM in the public layout: it has no matrix {name!r}")
    vocab, width = tensors[_EMBEDDING].shape
    inner, hidden = tensors[f"layers.0.{_OUT}"].shape[1], tensors[f"layers.0.{_DOWN}"].shape[1]
    rows = tensors[f"layers.0.{_FUSED}"].shape[0]
    head_width, odd = divmod(rows - inner - 2 * hidden, 2)
    if odd or head_width < 1 or inner % head_width or hidden % width:
        raise ValueError(
            f"{path}: tensor 'layers.0.{_FUSED}' has {rows} rows; with attention of {inner} and a feed-forward block "
            f"of {hidden} features they are no queries, one key, one value and two blocks"
        )
    return {
        "num_tokens": vocab,
        "dim": width,
        "depth": depth,
        "heads": inner // head_width,
        "dim_head": head_width,
        "ff_mult": hidden // width,
        "qk_rmsnorm": "layers.0.fn.q_scale" in tensors,
    }


def _check_biases(tensors: Mapping[str, Tensor]) -> None:
    """The norms' biases are buffers that are zero."""
    for name, tensor in tensors.items():
        if name.endswith("norm.beta") and np.any(tensor.read((slice(None),) * len(tensor.shape))):
            raise ValueError(f"tensor {tensor} is not zero; a PaLM's norms have no bias")


def _with_tables(config: TransformerConfig, tensors: Tensors) -> Tensors:
    """What the public implementation keeps besides: zero biases, rotary tables, the head that is the embedding."""
    features = np.arange(0, config.head_width, 2, dtype=np.float32)
    tables = {
        "inv_freq": (1 / 10_000 ** (features / config.head_width)).astype(np.float32),
        "scale": ((features + 0.4 * config.head_width) / (1.4 * config.head_width)).astype(np.float32),
    }
    for name, value in tensors:
        yield name, value
        if name == _EMBEDDING:
            yield _LOGITS, value
        if name.endswith("norm.gamma"):
            yield name.removesuffix("gamma") + "beta", np.zeros_like(value)
        if name.endswith(_OUT):
            for table, content in tables.items():
                yield f"{name.removesuffix('attn_out.weight')}rotary_emb.{table}", content
