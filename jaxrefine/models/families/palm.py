"""The public PaLM layout: parallel blocks, one fused projection, multi-query attention, SwiGLU, xPos, no biases.

Attributes are the arguments of the public implementation's constructor, as it has no config.json, and four more:
``max_seq_len``, ``use_xpos``, ``qk_scale`` (what scores are multiplied by if ``qk_rmsnorm``; absent or None is the
inverse root of a head's width, as since the spring of 2023; before it was 8) and ``gamma_offset``, which is 1 for
files of 2025 and later, whose norms multiply by 1 + gamma, and 0 for those before, such as the published models of
150M to 2.1B parameters.

Rows of the fused projection are [queries | key | value | up | gate]: the gate is the second half.

Sources: Chowdhery et al. 2022, arXiv:2204.02311, §2; Sun et al. 2022, arXiv:2212.10554 (xPos).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import flag, integer, number
from jaxrefine.models.families.described import describe
from jaxrefine.models.weights import Part, Rule

FUSED = "layers.{layer}.fn.fused_attn_ff_proj.weight"
XPOS_BASE = 512


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    width = integer(config, "dim", where)
    head_width = integer(config, "dim_head", where, 64)
    normed = flag(config, "qk_rmsnorm", where, False)
    scale = None if not normed or config.get("qk_scale") is None else number(config, "qk_scale", where)
    offset = number(config, "gamma_offset", where, 0)
    if offset not in (0, 1):
        raise ValueError(f"{where}: gamma_offset is {offset}; allowed: 0, 1")
    return {
        "vocab_size": integer(config, "num_tokens", where),
        "width": width,
        "num_layers": integer(config, "depth", where),
        "num_heads": integer(config, "heads", where, 8),
        "num_kv_heads": 1,
        "head_width": head_width,
        "hidden_width": width * integer(config, "ff_mult", where, 4),
        "max_positions": integer(config, "max_seq_len", where, 8192),
        "norm": "layer",
        "norm_eps": 1e-5,
        "norm_unit_offset": offset == 1,
        "activation": "silu",
        "parallel": True,
        "shared_norm": True,
        "tie_embeddings": True,
        "xpos_base": number(config, "rotary_xpos_scale_base", where, XPOS_BASE)
        if flag(config, "use_xpos", where, True)
        else None,
        "qk_norm": "l2" if normed else None,
        "attention_scale": None if scale == head_width**-0.5 else scale,
    }


def _silent(config: TransformerConfig) -> str:
    """What says nothing without its switch."""
    silent = {"rotary_xpos_scale_base": config.xpos_base is None, "qk_scale": config.qk_norm is None}
    return " ".join(key for key, says_nothing in silent.items() if says_nothing)


def _write(config: TransformerConfig) -> dict[str, Any]:
    xpos = {} if config.xpos_base is None else {"rotary_xpos_scale_base": config.xpos_base}
    scale = {} if config.qk_norm is None else {"qk_scale": config.attention_scale}
    return {
        "num_tokens": config.vocab_size,
        "dim": config.width,
        "depth": config.num_layers,
        "heads": config.num_heads,
        "dim_head": config.head_width,
        "ff_mult": config.hidden_width // config.width,
        "max_seq_len": config.max_positions,
        "qk_rmsnorm": config.qk_norm == "l2",
        "gamma_offset": int(config.norm_unit_offset),
        "use_xpos": config.xpos_base is not None,
        **xpos,
        **scale,
    }


def _rules(config: TransformerConfig) -> tuple[Rule, ...]:
    sizes = {
        "attention/query": config.num_heads * config.head_width,
        "attention/key": config.head_width,
        "attention/value": config.head_width,
        "feed_forward/up": config.hidden_width,
        "feed_forward/gate": config.hidden_width,
    }
    fused, start, whole = [], 0, sum(sizes.values())
    for name, size in sizes.items():
        part = Part(groups=1, size=whole, start=start, stop=start + size)
        fused.append(Rule(FUSED, f"layers/{name}/kernel", part=part))
        start += size
    return (
        Rule("token_emb.weight", "embed/embedding"),
        Rule("layers.{layer}.fn.norm.gamma", "layers/attention_norm/scale"),
        *fused,
        Rule("layers.{layer}.fn.q_scale", "layers/attention/query_norm/scale"),
        Rule("layers.{layer}.fn.k_scale", "layers/attention/key_norm/scale"),
        Rule("layers.{layer}.fn.attn_out.weight", "layers/attention/out/kernel"),
        Rule("layers.{layer}.fn.ff_out.2.weight", "layers/feed_forward/down/kernel"),
        Rule("norm.gamma", "norm/scale"),
    )


PALM = describe(
    "palm",
    architecture="PaLM",
    handled=(
        "num_tokens dim depth heads dim_head ff_mult max_seq_len qk_rmsnorm qk_scale gamma_offset use_xpos "
        "rotary_xpos_scale_base"
    ),
    fixed={"causal": (True,), "attn_dropout": (0, 0.0), "ff_dropout": (0, 0.0), "flash_attn": (False, True)},
    read=_read,
    write=_write,
    inert=_silent,
    rules=_rules,
    ignored=(r"layers\.\d+\.fn\.rotary_emb\.(inv_freq|scale)", r"(layers\.\d+\.fn\.)?norm\.beta"),
    tied=("to_logits.weight", "token_emb.weight"),
)
