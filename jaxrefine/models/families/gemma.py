"""Gemma 1 and 2: scaled embeddings, scales 1 + w, GeGLU; 2 has norms around both blocks, windows and soft-caps.

Sources: Gemma Team 2024, arXiv:2403.08295 and arXiv:2408.00118.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import flag, integer, number
from jaxrefine.models.families.described import describe
from jaxrefine.models.families.llama_layout import (
    ACTIVATION_NAMES,
    NAMES,
    ROPE,
    SIZES,
    layer_types,
    layout_rules,
    read_activation,
    read_sizes,
    read_windows,
    rope_fields,
    window_fields,
    write_sizes,
)
from jaxrefine.models.families.rope import write_rope

SANDWICH_NORMS = {
    "input_layernorm": "attention_norm",
    "post_attention_layernorm": "attention_out_norm",
    "pre_feedforward_layernorm": "feed_forward_norm",
    "post_feedforward_layernorm": "feed_forward_out_norm",
}
"""Gemma 2 and 3: ``post_attention_layernorm`` reads what attention gives, unlike LLaMA's of that name."""

ONE_WAY = {"use_bidirectional_attention": (None, False)}

_TANH = ("gelu", "gelu_pytorch_tanh", None)
"""The first configs say "gelu" and mean the approximate one, as does every release."""


def read_shared(config: Mapping[str, Any], where: str, *, kv_heads: int, max_positions: int) -> dict[str, Any]:
    """What Gemma 1, 2 and 3 have in common.

    Args:
      config: config.json.
      where: the file that errors name.
      kv_heads: if ``num_key_value_heads`` is absent.
      max_positions: if ``max_position_embeddings`` is absent.
    """
    config = {"num_key_value_heads": kv_heads, **config}
    sizes = read_sizes(config, where, head_width=256, max_positions=max_positions, tied=True)
    bias = flag(config, "attention_bias", where, False)
    return {
        **sizes,
        "norm_eps": number(config, "rms_norm_eps", where, 1e-6),
        "norm_unit_offset": True,
        "embed_scale": math.sqrt(sizes["width"]),
        "qkv_bias": bias,
        "o_bias": bias,
    }


def write_shared(config: TransformerConfig) -> dict[str, Any]:
    """The inverse of ``read_shared``."""
    return {
        **write_sizes(config),
        "head_dim": config.head_width,
        "rms_norm_eps": config.norm_eps,
        "attention_bias": config.qkv_bias,
    }


def read_sandwich(config: Mapping[str, Any], where: str, sizes: Mapping[str, Any], pattern: int) -> dict[str, Any]:
    """What Gemma 2 and 3 have in common: every layer but each ``pattern``-th has a window.

    Args:
      config: config.json.
      where: the file that errors name.
      sizes: of ``read_shared``.
      pattern: if ``layer_types`` is absent.
    """
    window = config.get("sliding_window", 4096)
    if window is not None:
        window = integer(config, "sliding_window", where, 4096)
    layers = sizes["num_layers"]
    windowed = read_windows(config, where, layers, [bool((layer + 1) % pattern) for layer in range(layers)])
    if any(windowed) and window is None:
        raise ValueError(f"{where}: sliding_window is None, but layer_types has sliding_attention")
    scalar = number(config, "query_pre_attn_scalar", where, 256)
    if not scalar > 0:
        raise ValueError(f"{where}: query_pre_attn_scalar is {scalar}; it must be positive")
    return {
        **window_fields(window, windowed),
        "norm_placement": "sandwich",
        "activation": read_activation(config, "hidden_activation", "gelu_pytorch_tanh", where),
        "attention_scale": None if scalar == sizes["head_width"] else scalar**-0.5,
    }


def write_sandwich(config: TransformerConfig) -> dict[str, Any]:
    """The inverse of ``read_sandwich``."""
    scalar: float = config.head_width
    if config.attention_scale is not None:
        scalar = config.attention_scale**-2
        scalar = round(scalar) if round(scalar) ** -0.5 == config.attention_scale else scalar
    windows = {} if config.window is None else {"sliding_window": config.window}
    return {
        **windows,
        "layer_types": layer_types(config),
        "hidden_activation": ACTIVATION_NAMES[config.activation],
        "query_pre_attn_scalar": scalar,
    }


def soft_cap(config: Mapping[str, Any], key: str, where: str, default: float | None) -> float | None:
    """A soft-cap; None is none."""
    return None if config.get(key, default) is None else number(config, key, where, default)


def _read_1(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    sizes = read_shared(config, where, kv_heads=16, max_positions=8192)
    return {**sizes, **rope_fields(config, where, sizes["head_width"]), "activation": "gelu_tanh"}


def _write_1(config: TransformerConfig) -> dict[str, Any]:
    return {**write_shared(config), **write_rope(config), "hidden_act": "gelu_pytorch_tanh"}


def _read_2(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    sizes = read_shared(config, where, kv_heads=4, max_positions=8192)
    return {
        **sizes,
        **rope_fields(config, where, sizes["head_width"]),
        **read_sandwich(config, where, sizes, 2),
        "attention_softcap": soft_cap(config, "attn_logit_softcapping", where, 50.0),
        "logit_softcap": soft_cap(config, "final_logit_softcapping", where, 30.0),
    }


def _write_2(config: TransformerConfig) -> dict[str, Any]:
    return {
        **write_shared(config),
        **write_rope(config),
        **write_sandwich(config),
        "attn_logit_softcapping": config.attention_softcap,
        "final_logit_softcapping": config.logit_softcap,
    }


def silent_window(config: TransformerConfig) -> str:
    """Without a layer that has a window, its length says nothing."""
    return "sliding_window" if config.window is None else ""


GEMMA = describe(
    "gemma",
    architecture="GemmaForCausalLM",
    handled=f"{SIZES} {ROPE} head_dim rms_norm_eps attention_bias hidden_act",
    fixed={
        **ONE_WAY,
        "hidden_act": _TANH,
        "hidden_activation": _TANH,
        "sliding_window": (None,),
        "attn_logit_softcapping": (None,),
        "final_logit_softcapping": (None,),
    },
    read=_read_1,
    write=_write_1,
    rules=lambda _: layout_rules(),
    **NAMES,
)

GEMMA2 = describe(
    "gemma2",
    architecture="Gemma2ForCausalLM",
    handled=(
        f"{SIZES} {ROPE} head_dim rms_norm_eps attention_bias hidden_activation query_pre_attn_scalar sliding_window "
        "layer_types attn_logit_softcapping final_logit_softcapping"
    ),
    fixed={**ONE_WAY, "hidden_act": _TANH},
    harmless="cache_implementation",
    read=_read_2,
    write=_write_2,
    inert=silent_window,
    rules=lambda _: layout_rules(SANDWICH_NORMS),
    **NAMES,
)
