"""BLOOM: ALiBi instead of positions, a norm after the embedding, each head's query, key and value in one tensor.

Source: BigScience Workshop 2022, arXiv:2211.05100.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import check_value, flag, integer, number
from jaxrefine.models.families.described import describe
from jaxrefine.models.families.gpt_layout import divided, fused_rules, linear_rules, norm_rules, renamed
from jaxrefine.models.weights import Rule

_ALIASES = {"n_embed": "hidden_size", "num_hidden_layers": "n_layer", "num_attention_heads": "n_head"}

_TRAINING = (
    "hidden_dropout attention_dropout slow_but_exact attention_softmax_in_fp32 bias_dropout_fusion "
    "masked_softmax_fusion offset_alibi skip_bias_add skip_bias_add_qkv"
)
"""How it was trained, and in which order sums are taken."""


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    config = renamed(config, _ALIASES, where)
    width, heads = integer(config, "hidden_size", where), integer(config, "n_head", where)
    if "n_inner" in config:
        check_value(config, "n_inner", (None, 4 * width), where)
    return {
        "vocab_size": integer(config, "vocab_size", where),
        "width": width,
        "num_layers": integer(config, "n_layer", where),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": divided(width, heads, ("hidden_size", "n_head"), where),
        "hidden_width": 4 * width,
        "max_positions": integer(config, "seq_length", where, 2048),
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": number(config, "layer_norm_epsilon", where, 1e-5),
        "embed_norm": True,
        "positions": "alibi",
        "gated": False,
        "activation": "gelu_tanh",
        "qkv_bias": True,
        "o_bias": True,
        "mlp_bias": True,
        "tie_embeddings": flag(config, "tie_word_embeddings", where, True),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "seq_length": config.max_positions,
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _rules(config: TransformerConfig) -> tuple[Rule, ...]:
    layer = "transformer.h.{layer}"
    return (
        Rule("transformer.word_embeddings.weight", "embed/embedding"),
        *norm_rules("transformer.word_embeddings_layernorm", "embed_norm"),
        *norm_rules(f"{layer}.input_layernorm", "layers/attention_norm"),
        *fused_rules(f"{layer}.self_attention.query_key_value", config, config.num_heads),
        *linear_rules(f"{layer}.self_attention.dense", "layers/attention/out"),
        *norm_rules(f"{layer}.post_attention_layernorm", "layers/feed_forward_norm"),
        *linear_rules(f"{layer}.mlp.dense_h_to_4h", "layers/feed_forward/up"),
        *linear_rules(f"{layer}.mlp.dense_4h_to_h", "layers/feed_forward/down"),
        *norm_rules("transformer.ln_f", "norm"),
        Rule("lm_head.weight", "head/kernel"),
    )


BLOOM = describe(
    "bloom",
    architecture="BloomForCausalLM",
    handled=(
        f"{' '.join((*_ALIASES, *_ALIASES.values()))} vocab_size n_inner seq_length layer_norm_epsilon "
        "tie_word_embeddings"
    ),
    harmless=_TRAINING,
    fixed={"apply_residual_connection_post_layernorm": (None, False)},
    read=_read,
    write=_write,
    inert=lambda _: "n_inner",  # it may only repeat the width
    rules=_rules,
    prefix="transformer.",
    tied=("lm_head.weight", "transformer.word_embeddings.weight"),
)
