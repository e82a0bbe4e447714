"""Small configs of GPT-J, one a mechanism."""

from __future__ import annotations

from typing import Any

_SMALL: dict[str, Any] = {
    "architectures": ["GPTJForCausalLM"],
    "model_type": "gptj",
    "vocab_size": 97,
    "n_positions": 32,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 2,
    "n_inner": None,
    "rotary_dim": 4,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}

CASES: dict[str, dict[str, Any]] = {
    "gpt-j": {
        **_SMALL,
        "attn_pdrop": 0.0,
        "embd_pdrop": 0.0,
        "resid_pdrop": 0.0,
        "gradient_checkpointing": False,
        "rotary": True,
        "scale_attn_weights": True,
        "summary_type": "cls_index",
        "tie_word_embeddings": False,
    },
    "gpt-j-whole-heads": {**_SMALL, "rotary_dim": 8, "n_inner": 24, "n_layer": 3, "activation_function": "gelu"},
    "gpt-j-tied": {**_SMALL, "rotary_dim": 2, "tie_word_embeddings": True},
}
