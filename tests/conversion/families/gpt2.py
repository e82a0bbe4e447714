"""Small configs of GPT-2, one a mechanism."""

from __future__ import annotations

from typing import Any

_SMALL: dict[str, Any] = {
    "architectures": ["GPT2LMHeadModel"],
    "model_type": "gpt2",
    "vocab_size": 97,
    "n_positions": 32,
    "n_embd": 16,
    "n_layer": 2,
    "n_head": 4,
    "n_inner": None,
    "activation_function": "gelu_new",
    "layer_norm_epsilon": 1e-5,
}

_AS_RELEASED: dict[str, Any] = {
    "attn_pdrop": 0.1,
    "embd_pdrop": 0.1,
    "resid_pdrop": 0.1,
    "bos_token_id": 96,
    "eos_token_id": 96,
    "n_ctx": 32,
    "initializer_range": 0.02,
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
}

CASES: dict[str, dict[str, Any]] = {
    "gpt2": {**_SMALL, **_AS_RELEASED},
    "cerebras-gpt": {
        **_SMALL,
        "n_head": 2,
        "n_inner": 40,
        "activation_function": "gelu",
        "scale_attn_weights": True,
    },
    "gpt2-layer-scaled": {
        **_SMALL,
        "n_layer": 3,
        "n_inner": 24,
        "scale_attn_by_inverse_layer_idx": True,
        "reorder_and_upcast_attn": True,
    },
    "gpt2-unscaled-untied": {
        **_SMALL,
        "n_head": 2,
        "activation_function": "relu",
        "scale_attn_weights": False,
        "tie_word_embeddings": False,
        "layer_norm_epsilon": 1e-3,
    },
}
