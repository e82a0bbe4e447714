"""GPT-NeoX, which Pythia and StableLM-alpha are too: parallel blocks behind two norms, heads that rotate in part.

Sources: Black et al. 2022, arXiv:2204.06745; Biderman et al. 2023, arXiv:2304.01373.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

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
from jaxrefine.models.families.rope import read_rope, write_rope
from jaxrefine.models.weights import Rule

_OLDER = {"rotary_emb_base": "rope_theta", "rotary_pct": "partial_rotary_factor"}
"""The first releases' words for what others call otherwise."""


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    config = renamed(config, _OLDER, where)
    width, heads = integer(config, "hidden_size", where), integer(config, "num_attention_heads", where)
    head_width = divided(width, heads, ("hidden_size", "num_attention_heads"), where)
    theta, scaling, partial = read_rope(config, where, partial=0.25)
    rope_width = int(head_width * partial)
    bias = flag(config, "attention_bias", where, True)
    return {
        "vocab_size": integer(config, "vocab_size", where),
        "width": width,
        "num_layers": integer(config, "num_hidden_layers", where),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": head_width,
        "hidden_width": integer(config, "intermediate_size", where),
        "max_positions": integer(config, "max_position_embeddings", where, 2048),
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": number(config, "layer_norm_eps", where, 1e-5),
        "rope_theta": theta,
        "rope_scaling": scaling,
        "rope_width": None if rope_width == head_width else rope_width,
        "parallel": flag(config, "use_parallel_residual", where, True),
        "gated": False,
        "activation": read_activation(config, "hidden_act", "gelu", where),
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": True,
        "tie_embeddings": flag(config, "tie_word_embeddings", where, False),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    rope = write_rope(config, partial=True)
    return {
        **rope,
        **{older: rope[newer] for older, newer in _OLDER.items()},
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "intermediate_size": config.hidden_width,
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "max_position_embeddings": config.max_positions,
        "layer_norm_eps": config.norm_eps,
        "use_parallel_residual": config.parallel,
        "attention_bias": config.qkv_bias,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _rules(config: TransformerConfig) -> tuple[Rule, ...]:
    layer = "gpt_neox.layers.{layer}"
    return (
        Rule("gpt_neox.embed_in.weight", "embed/embedding"),
        *norm_rules(f"{layer}.input_layernorm", "layers/attention_norm"),
        *fused_rules(f"{layer}.attention.query_key_value", config, config.num_heads),
        *linear_rules(f"{layer}.attention.dense", "layers/attention/out"),
        *norm_rules(f"{layer}.post_attention_layernorm", "layers/feed_forward_norm"),
        *linear_rules(f"{layer}.mlp.dense_h_to_4h", "layers/feed_forward/up"),
        *linear_rules(f"{layer}.mlp.dense_4h_to_h", "layers/feed_forward/down"),
        *norm_rules("gpt_neox.final_layer_norm", "norm"),
        Rule("embed_out.weight", "head/kernel"),
    )


GPT_NEOX = describe(
    "gpt_neox",
    architecture="GPTNeoXForCausalLM",
    handled=(
        "vocab_size hidden_size num_hidden_layers num_attention_heads intermediate_size hidden_act "
        "max_position_embeddings layer_norm_eps use_parallel_residual attention_bias tie_word_embeddings "
        f"rope_scaling rope_parameters {' '.join((*_OLDER, *_OLDER.values()))}"
    ),
    harmless="custom_pipelines",
    read=_read,
    write=_write,
    rules=_rules,
    renamed=(("lm_head.weight", "embed_out.weight"),),
    ignored=(r"(gpt_neox\.)?layers\.\d+\.attention\.(bias|masked_bias|rotary_emb\.inv_freq)",),
    prefix="gpt_neox.",
    tied=("embed_out.weight", "gpt_neox.embed_in.weight"),
)
