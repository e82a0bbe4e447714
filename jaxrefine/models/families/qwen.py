"""Qwen2, Qwen2.5 and Qwen3: windows in the later layers if at all, biases (2) or norms (3) on queries and keys.

Sources: Yang et al. 2024, arXiv:2407.10671; Yang et al. 2025, arXiv:2505.09388.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import flag, integer, number
from jaxrefine.models.families.described import describe
from jaxrefine.models.families.llama_layout import (
    ACTIVATION_NAMES,
    NAMES,
    QK_NORMS,
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

_WINDOWS = "use_sliding_window sliding_window max_window_layers layer_types"


def _read_shared(config: Mapping[str, Any], where: str, head_width: int | None) -> dict[str, Any]:
    sizes = read_sizes(config, where, head_width=head_width, max_positions=32_768, tied=False)
    layers = sizes["num_layers"]
    window = None
    if flag(config, "use_sliding_window", where, False) and config.get("sliding_window", 4096) is not None:
        window = integer(config, "sliding_window", where, 4096)
    first = integer(config, "max_window_layers", where, 28)
    by_default = [window is not None and layer >= first for layer in range(layers)]
    windowed = read_windows(config, where, layers, by_default)
    if any(windowed) and window is None:
        raise ValueError(f"{where}: layer_types has sliding_attention, but use_sliding_window or sliding_window is off")
    return {
        **sizes,
        **rope_fields(config, where, sizes["head_width"]),
        **window_fields(window, windowed),
        "norm_eps": number(config, "rms_norm_eps", where, 1e-6),
        "activation": read_activation(config, "hidden_act", "silu", where),
    }


def _write_shared(config: TransformerConfig) -> dict[str, Any]:
    windows: dict[str, Any] = {}
    if config.window is not None:
        types = layer_types(config)
        windows = {
            "use_sliding_window": True,
            "sliding_window": config.window,
            "max_window_layers": types.index("sliding_attention"),
            "layer_types": types,
        }
    return {
        **write_sizes(config),
        **write_rope(config),
        **windows,
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "rms_norm_eps": config.norm_eps,
    }


def _read_2(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    return {**_read_shared(config, where, None), "qkv_bias": True}


def _read_3(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    bias = flag(config, "attention_bias", where, False)
    return {**_read_shared(config, where, 128), "qk_norm": "rms", "qkv_bias": bias, "o_bias": bias}


def _write_3(config: TransformerConfig) -> dict[str, Any]:
    return {**_write_shared(config), "head_dim": config.head_width, "attention_bias": config.qkv_bias}


def _silent(config: TransformerConfig) -> str:
    """Without a window, what is said of windows says nothing."""
    return _WINDOWS if config.window is None else ""


QWEN2 = describe(
    "qwen2",
    architecture="Qwen2ForCausalLM",
    handled=f"{SIZES} {ROPE} {_WINDOWS} hidden_act rms_norm_eps",
    read=_read_2,
    write=_write_shared,
    inert=_silent,
    rules=lambda _: layout_rules(),
    **NAMES,
)

QWEN3 = describe(
    "qwen3",
    architecture="Qwen3ForCausalLM",
    handled=f"{SIZES} {ROPE} {_WINDOWS} head_dim hidden_act rms_norm_eps attention_bias",
    read=_read_3,
    write=_write_3,
    inert=_silent,
    rules=lambda _: layout_rules(more=QK_NORMS),
    **NAMES,
)
