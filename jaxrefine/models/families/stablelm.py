"""StableLM-3B-4E1T and StableLM 2: LLaMA's layers with LayerNorm and partly rotated heads, in both dialects.

``stablelm_epoch`` is what the first releases say; StableLM 2 12B has parallel blocks with one norm, and a LayerNorm
of its own for each head of queries and keys.

Sources: Tow et al. 2023, StableLM-3B-4E1T; Bellagente et al. 2024, arXiv:2402.17834.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import flag, number
from jaxrefine.models.families.described import describe
from jaxrefine.models.families.llama_layout import (
    ACTIVATION_NAMES,
    NAMES,
    ROPE,
    SIZES,
    layer_rule,
    layout_rules,
    read_activation,
    read_sizes,
    rope_fields,
    write_sizes,
)
from jaxrefine.models.families.rope import write_rope
from jaxrefine.models.weights import Rule

_EITHER = {"norm_eps": "layer_norm_eps", "rope_pct": "partial_rotary_factor", "num_heads": "num_attention_heads"}
"""The older words for attributes, with the newer."""


def _newer(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The newer dialect of either."""
    newer = {key: value for key, value in config.items() if key not in _EITHER}
    for old, new in _EITHER.items():
        if config.get(old) is None:
            continue
        if newer.setdefault(new, config[old]) != config[old]:
            raise ValueError(f"{where}: {old} is {config[old]!r}, {new} is {newer[new]!r}; they must agree")
    return newer


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    config = _newer(config, where)
    sizes = read_sizes(config, where, head_width=None, max_positions=4096, tied=False)
    parallel = flag(config, "use_parallel_residual", where, False)
    return {
        **sizes,
        **rope_fields(config, where, sizes["head_width"], partial=0.25),
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": number(config, "layer_norm_eps", where, 1e-5),
        "activation": read_activation(config, "hidden_act", "silu", where),
        "qkv_bias": flag(config, "use_qkv_bias", where, False),
        "parallel": parallel,
        "shared_norm": parallel,
        "qk_norm": "layer" if flag(config, "qk_layernorm", where, False) else None,
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    return {
        **write_sizes(config),
        **write_rope(config, partial=True),
        "layer_norm_eps": config.norm_eps,
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "use_qkv_bias": config.qkv_bias,
        "use_parallel_residual": config.parallel,
        "qk_layernorm": config.qk_norm == "layer",
    }


def _rules(_: TransformerConfig) -> tuple[Rule, ...]:
    return layout_rules(
        more=(
            layer_rule("self_attn.q_layernorm.norms.{head}.weight", "attention/query_norm/scale"),
            layer_rule("self_attn.k_layernorm.norms.{head}.weight", "attention/key_norm/scale"),
        )
    )


STABLELM = describe(
    "stablelm",
    model_types=("stablelm", "stablelm_epoch"),
    architecture="StableLmForCausalLM",
    handled=(
        f"{SIZES} {ROPE} partial_rotary_factor layer_norm_eps hidden_act use_qkv_bias use_parallel_residual "
        f"qk_layernorm {' '.join(_EITHER)}"
    ),
    fixed={"rotary_scaling_factor": (1.0, None)},
    dropped="auto_map",
    read=_read,
    write=_write,
    rules=_rules,
    **NAMES,
)
