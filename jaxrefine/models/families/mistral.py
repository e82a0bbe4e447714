"""Mistral 7B and what is built alike: LLaMA's layers, each of which may see a window only.

Source: Jiang et al. 2023, arXiv:2310.06825.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import integer, number
from jaxrefine.models.families.described import describe
from jaxrefine.models.families.llama_layout import (
    ACTIVATION_NAMES,
    NAMES,
    ROPE,
    SIZES,
    layout_rules,
    read_activation,
    read_sizes,
    rope_fields,
    write_sizes,
)
from jaxrefine.models.families.rope import write_rope


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    sizes = read_sizes(config, where, head_width=None, max_positions=131_072, tied=False)
    window = config.get("sliding_window", 4096)
    return {
        **sizes,
        **rope_fields(config, where, sizes["head_width"]),
        "norm_eps": number(config, "rms_norm_eps", where, 1e-6),
        "activation": read_activation(config, "hidden_act", "silu", where),
        "window": None if window is None else integer({"sliding_window": window}, "sliding_window", where),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    return {
        **write_sizes(config),
        **write_rope(config),
        "head_dim": config.head_width,
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "rms_norm_eps": config.norm_eps,
        "sliding_window": config.window,
    }


MISTRAL = describe(
    "mistral",
    architecture="MistralForCausalLM",
    handled=f"{SIZES} {ROPE} head_dim hidden_act rms_norm_eps sliding_window",
    read=_read,
    write=_write,
    rules=lambda _: layout_rules(),
    **NAMES,
)
