"""Small StableLMs."""

from __future__ import annotations

from typing import Any

_BASE: dict[str, Any] = {
    "model_type": "stablelm",
    "vocab_size": 113,
    "hidden_size": 64,
    "intermediate_size": 60,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "tie_word_embeddings": False,
}

CASES: dict[str, dict[str, Any]] = {
    "stablelm-3b": _BASE | {"partial_rotary_factor": 0.25},
    "stablelm-2": _BASE | {"partial_rotary_factor": 0.5, "use_qkv_bias": True, "tie_word_embeddings": True},
    "stablelm-2-12b": _BASE
    | {
        "use_parallel_residual": True,
        "qk_layernorm": True,
        "num_key_value_heads": 2,
        "partial_rotary_factor": 0.25,
    },
    "stablelm-new-dialect": {key: value for key, value in _BASE.items() if key != "rope_theta"}
    | {
        "qk_layernorm": True,
        "rope_parameters": {"rope_type": "default", "rope_theta": 50_000.0, "partial_rotary_factor": 0.75},
    },
}
