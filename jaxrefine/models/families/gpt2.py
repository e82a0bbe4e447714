"""GPT-2 and Cerebras-GPT: learned positions, biases everywhere, kernels kept as [in, out].

BTLM is what Cerebras-GPT's maximal-update variants are stored as: the same with scales on embeddings, scores and
logits, and by choice ALiBi and a gated feed-forward block. All three scales are mechanisms of ours, so its weights stay
as they are; ``jaxrefine.conversion.folding`` turns such a model into a plain GPT-2.

Sources: Radford et al. 2019; Dey et al. 2023a, arXiv:2304.03208; Dey et al. 2023b, arXiv:2309.11568.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any

from jaxrefine.config import unknown_name
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import flag, integer, number
from jaxrefine.models.families.described import describe
from jaxrefine.models.families.gpt_layout import (
    ACTIVATION_NAMES,
    divided,
    fused_rules,
    linear_rules,
    norm_rules,
    read_activation,
    renamed,
)
from jaxrefine.models.weights import TRANSPOSE, Rule

ALIASES = {
    "hidden_size": "n_embd",
    "max_position_embeddings": "n_positions",
    "num_attention_heads": "n_head",
    "num_hidden_layers": "n_layer",
}
"""The names that transformers takes as well."""

HARMLESS = (
    "n_ctx n_special predict_special_tokens _num_labels summary_type summary_use_proj summary_activation "
    "summary_proj_to_labels summary_first_dropout attn_pdrop embd_pdrop resid_pdrop gradient_checkpointing"
)
"""Rates of dropout, a head of another task, and what has a meaning in training or in old code only."""

_HANDLED = (
    f"{' '.join((*ALIASES, *ALIASES.values()))} vocab_size n_inner activation_function layer_norm_epsilon "
    "scale_attn_weights scale_attn_by_inverse_layer_idx tie_word_embeddings"
)
_PRECISION = "reorder_and_upcast_attn"  # fp32 scores, which ours are always
_LOGITS = ("mup_output_alpha", "mup_width_scale")
"""Ours is their product, which alone changes logits; the second also is a learning rate's."""


def _read_shared(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """All but the activation and the scales; ``config`` has one name for each attribute."""
    width, heads = integer(config, "n_embd", where), integer(config, "n_head", where)
    return {
        "vocab_size": integer(config, "vocab_size", where),
        "width": width,
        "num_layers": integer(config, "n_layer", where),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": divided(width, heads, ("n_embd", "n_head"), where),
        "hidden_width": integer(config, "n_inner", where, 4 * width),
        "max_positions": integer(config, "n_positions", where, 1024),
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": number(config, "layer_norm_epsilon", where, 1e-5),
        "positions": "learned",
        "gated": False,
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "attention_scale": None if flag(config, "scale_attn_weights", where, True) else 1.0,
        "attention_scale_by_layer": flag(config, "scale_attn_by_inverse_layer_idx", where, False),
        "tie_embeddings": flag(config, "tie_word_embeddings", where, True),
    }


def _write_shared(config: TransformerConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.max_positions,
        "n_embd": config.width,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.hidden_width,
        "activation_function": ACTIVATION_NAMES[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "scale_attn_weights": config.attention_scale != 1.0,
        "scale_attn_by_inverse_layer_idx": config.attention_scale_by_layer,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    config = renamed(config, ALIASES, where)
    return {
        **_read_shared(config, where),
        "activation": read_activation(config, "activation_function", "gelu_new", where),
    }


def _read_btlm(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    config = renamed(config, ALIASES, where)
    shared = _read_shared(config, where)
    gated = config.get("activation_function") == "swiglu"
    positions = config.get("position_embedding_type") or "learned"
    if positions not in ("learned", "alibi"):
        raise ValueError(f"{where}: {unknown_name(positions, ('learned', 'alibi'), 'position_embedding_type')}")
    if flag(config, "mup_scale_qk_dot_by_d", where, False) and shared["attention_scale"] is None:
        shared["attention_scale"] = 1 / shared["head_width"]
    embed_scale = number(config, "mup_embeddings_scale", where, 1.0)
    return {
        **shared,
        "gated": gated,
        "activation": "silu" if gated else read_activation(config, "activation_function", "gelu_new", where),
        "positions": positions,
        "embed_scale": embed_scale,
        "position_scale": embed_scale if positions == "learned" else 1.0,
        "logit_scale": _logit_scale(config, where),
    }


def _logit_scale(config: Mapping[str, Any], where: str) -> float:
    return math.prod(number(config, key, where, 1.0) for key in _LOGITS)


def _write_btlm(config: TransformerConfig) -> dict[str, Any]:
    return {
        **_write_shared(config),
        **({"activation_function": "swiglu"} if config.gated else {}),
        "position_embedding_type": config.positions,
        "mup_embeddings_scale": config.embed_scale,
        "mup_scale_qk_dot_by_d": config.attention_scale == 1 / config.head_width,
    }


def rules(config: TransformerConfig) -> tuple[Rule, ...]:
    """All tensors; of a gated block ``c_fc2`` is the gate."""
    layer = "transformer.h.{layer}"
    up = linear_rules(f"{layer}.mlp.c_fc", "layers/feed_forward/up", TRANSPOSE)
    gate = linear_rules(f"{layer}.mlp.c_fc2", "layers/feed_forward/gate", TRANSPOSE)
    return (
        Rule("transformer.wte.weight", "embed/embedding"),
        Rule("transformer.wpe.weight", "positions/embedding"),
        *norm_rules(f"{layer}.ln_1", "layers/attention_norm"),
        *fused_rules(f"{layer}.attn.c_attn", config, 1, TRANSPOSE),
        *linear_rules(f"{layer}.attn.c_proj", "layers/attention/out", TRANSPOSE),
        *norm_rules(f"{layer}.ln_2", "layers/feed_forward_norm"),
        *up,
        *gate,
        *linear_rules(f"{layer}.mlp.c_proj", "layers/feed_forward/down", TRANSPOSE),
        *norm_rules("transformer.ln_f", "norm"),
        Rule("lm_head.weight", "head/kernel"),
    )


_NAMES: dict[str, Any] = {
    "ignored": (
        r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",
        r"(transformer\.)?relative_pe\.slopes",
    ),
    "prefix": "transformer.",
    "tied": ("lm_head.weight", "transformer.wte.weight"),
}

GPT2 = describe(
    "gpt2",
    architecture="GPT2LMHeadModel",
    handled=_HANDLED,
    harmless=f"{HARMLESS} {_PRECISION}",
    read=_read,
    write=_write_shared,
    rules=rules,
    **_NAMES,
)

_DESCRIBED = describe(
    "btlm",
    architecture="BTLMLMHeadModel",
    handled=f"{_HANDLED} {' '.join(_LOGITS)} mup_embeddings_scale mup_scale_qk_dot_by_d position_embedding_type",
    harmless=f"{HARMLESS} {_PRECISION} auto_map",
    fixed={"alibi_scaling": (None,)},
    read=_read_btlm,
    write=_write_btlm,
    inert=lambda _: " ".join(_LOGITS),
    rules=rules,
    **_NAMES,
)


def _to_hf(config: TransformerConfig, *, dtype: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """The scale of the logits in the factors that the file had, or as one if it is another by now."""
    extra = dict(extra or {})
    if _logit_scale(extra, "extra") != config.logit_scale:
        extra |= dict(zip(_LOGITS, (config.logit_scale, 1.0), strict=True))
    return _DESCRIBED.to_hf(config, dtype=dtype, extra=extra)


BTLM = dataclasses.replace(_DESCRIBED, to_hf=_to_hf)
