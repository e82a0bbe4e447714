"""OPT: learned positions that start at row 2, biases and ReLU; 350M norms after each block, and embeds more narrowly.

Source: Zhang et al. 2022, arXiv:2205.01068.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import flag, integer
from jaxrefine.models.families.described import describe
from jaxrefine.models.families.gpt_layout import (
    ACTIVATION_NAMES,
    divided,
    linear_rules,
    norm_rules,
    read_activation,
)
from jaxrefine.models.weights import Rule

_HANDLED = (
    "vocab_size hidden_size num_hidden_layers num_attention_heads ffn_dim max_position_embeddings "
    "do_layer_norm_before _remove_final_layer_norm word_embed_proj_dim activation_function enable_bias "
    "tie_word_embeddings"
)


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    width, heads = integer(config, "hidden_size", where), integer(config, "num_attention_heads", where)
    before = flag(config, "do_layer_norm_before", where, True)
    embed_width = integer(config, "word_embed_proj_dim", where, width)
    bias = flag(config, "enable_bias", where, True)
    return {
        "vocab_size": integer(config, "vocab_size", where),
        "width": width,
        "num_layers": integer(config, "num_hidden_layers", where),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": divided(width, heads, ("hidden_size", "num_attention_heads"), where),
        "hidden_width": integer(config, "ffn_dim", where),
        "max_positions": integer(config, "max_position_embeddings", where, 2048),
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": 1e-5,
        "norm_placement": "pre" if before else "post",
        "final_norm": before and not flag(config, "_remove_final_layer_norm", where, False),
        "positions": "learned",
        "position_offset": 2,
        "gated": False,
        "activation": read_activation(config, "activation_function", "relu", where),
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": bias,
        "embed_width": None if embed_width == width else embed_width,
        "tie_embeddings": flag(config, "tie_word_embeddings", where, True),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    before = config.norm_placement == "pre"
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "ffn_dim": config.hidden_width,
        "max_position_embeddings": config.max_positions,
        "do_layer_norm_before": before,
        **({"_remove_final_layer_norm": not config.final_norm} if before else {}),
        "word_embed_proj_dim": config.width if config.embed_width is None else config.embed_width,
        "activation_function": ACTIVATION_NAMES[config.activation],
        "enable_bias": config.qkv_bias,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _rules(config: TransformerConfig) -> tuple[Rule, ...]:
    """A layer's ``final_layer_norm`` is the feed-forward block's; the decoder's is the last."""
    del config
    decoder, layer = "model.decoder", "model.decoder.layers.{layer}"
    return (
        Rule(f"{decoder}.embed_tokens.weight", "embed/embedding"),
        Rule(f"{decoder}.embed_positions.weight", "positions/embedding"),
        Rule(f"{decoder}.project_in.weight", "project_in/kernel"),
        *norm_rules(f"{layer}.self_attn_layer_norm", "layers/attention_norm"),
        *linear_rules(f"{layer}.self_attn.q_proj", "layers/attention/query"),
        *linear_rules(f"{layer}.self_attn.k_proj", "layers/attention/key"),
        *linear_rules(f"{layer}.self_attn.v_proj", "layers/attention/value"),
        *linear_rules(f"{layer}.self_attn.out_proj", "layers/attention/out"),
        *norm_rules(f"{layer}.final_layer_norm", "layers/feed_forward_norm"),
        *linear_rules(f"{layer}.fc1", "layers/feed_forward/up"),
        *linear_rules(f"{layer}.fc2", "layers/feed_forward/down"),
        *norm_rules(f"{decoder}.final_layer_norm", "norm"),
        Rule(f"{decoder}.project_out.weight", "project_out/kernel"),
        Rule("lm_head.weight", "head/kernel"),
    )


OPT = describe(
    "opt",
    architecture="OPTForCausalLM",
    handled=_HANDLED,
    harmless="dropout attention_dropout activation_dropout layerdrop init_std",
    fixed={
        "layer_norm_elementwise_affine": (None, True),
        "learned_embeddings": (None, True),
        "scale_embeddings": (None, False),
    },
    read=_read,
    write=_write,
    inert=lambda config: "" if config.norm_placement == "pre" else "_remove_final_layer_norm",
    rules=_rules,
    prefix="model.",
    tied=("lm_head.weight", "model.decoder.embed_tokens.weight"),
)
