"""GPT-J: attention and feed-forward beside each other behind one norm, rotary positions on pairs of neighbours.

Source: Wang and Komatsuzaki 2021, GPT-J-6B.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import flag, integer, number
from jaxrefine.models.families.described import describe
from jaxrefine.models.families.gpt2 import ALIASES, HARMLESS
from jaxrefine.models.families.gpt_layout import (
    ACTIVATION_NAMES,
    divided,
    linear_rules,
    norm_rules,
    read_activation,
    renamed,
)
from jaxrefine.models.weights import Rule

_THETA = 10_000.0


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    config = renamed(config, ALIASES, where)
    width, heads = integer(config, "n_embd", where), integer(config, "n_head", where)
    head_width = divided(width, heads, ("n_embd", "n_head"), where)
    if config.get("rotary_dim", 0) is None:
        raise ValueError(f"{where}: rotary_dim is None; it must be an even integer up to {head_width}")
    rope_width = integer(config, "rotary_dim", where, 64)
    return {
        "vocab_size": integer(config, "vocab_size", where),
        "width": width,
        "num_layers": integer(config, "n_layer", where),
        "num_heads": heads,
        "num_kv_heads": heads,
        "head_width": head_width,
        "hidden_width": integer(config, "n_inner", where, 4 * width),
        "max_positions": integer(config, "n_positions", where, 2048),
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": number(config, "layer_norm_epsilon", where, 1e-5),
        "parallel": True,
        "shared_norm": True,
        "rope_theta": _THETA,
        "rope_width": None if rope_width == head_width else rope_width,
        "rope_interleaved": True,
        "gated": False,
        "activation": read_activation(config, "activation_function", "gelu_new", where),
        "mlp_bias": True,
        "head_bias": True,
        "tie_embeddings": flag(config, "tie_word_embeddings", where, False),
    }


def _write(config: TransformerConfig) -> dict[str, Any]:
    return {
        "vocab_size": config.vocab_size,
        "n_positions": config.max_positions,
        "n_embd": config.width,
        "n_layer": config.num_layers,
        "n_head": config.num_heads,
        "n_inner": config.hidden_width,
        "rotary_dim": config.head_width if config.rope_width is None else config.rope_width,
        "activation_function": ACTIVATION_NAMES[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "tie_word_embeddings": config.tie_embeddings,
    }


def _rules(config: TransformerConfig) -> tuple[Rule, ...]:
    del config
    layer = "transformer.h.{layer}"
    return (
        Rule("transformer.wte.weight", "embed/embedding"),
        *norm_rules(f"{layer}.ln_1", "layers/attention_norm"),
        *linear_rules(f"{layer}.attn.q_proj", "layers/attention/query"),
        *linear_rules(f"{layer}.attn.k_proj", "layers/attention/key"),
        *linear_rules(f"{layer}.attn.v_proj", "layers/attention/value"),
        *linear_rules(f"{layer}.attn.out_proj", "layers/attention/out"),
        *linear_rules(f"{layer}.mlp.fc_in", "layers/feed_forward/up"),
        *linear_rules(f"{layer}.mlp.fc_out", "layers/feed_forward/down"),
        *norm_rules("transformer.ln_f", "norm"),
        *linear_rules("lm_head", "head"),
    )


GPTJ = describe(
    "gptj",
    architecture="GPTJForCausalLM",
    handled=(
        f"{' '.join((*ALIASES, *ALIASES.values()))} vocab_size n_inner rotary_dim activation_function "
        "layer_norm_epsilon tie_word_embeddings"
    ),
    harmless=HARMLESS,
    fixed={"rotary": (None, True), "scale_attn_weights": (None, True)},
    read=_read,
    write=_write,
    rules=_rules,
    ignored=(r"(transformer\.)?h\.\d+\.attn\.(bias|masked_bias)",),
    prefix="transformer.",
    tied=("lm_head.weight", "transformer.wte.weight"),
)
