"""Small configs of LLaMA, one a mechanism."""

from __future__ import annotations

from typing import Any

_BASE: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
}
_LLAMA3_ROPE = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}

CASES: dict[str, dict[str, Any]] = {
    "llama-1": _BASE | {"rms_norm_eps": 1e-6},
    "llama-2-gqa": _BASE | {"num_key_value_heads": 2},
    "llama-2-mqa": _BASE | {"num_key_value_heads": 1},
    "llama-3": _BASE | {"num_key_value_heads": 2, "rope_theta": 500_000.0},
    "llama-3.1": _BASE | {"num_key_value_heads": 2, "rope_theta": 500_000.0, "rope_scaling": _LLAMA3_ROPE},
    "llama-3.2-tied": _BASE
    | {
        "num_key_value_heads": 2,
        "rope_theta": 500_000.0,
        "rope_scaling": _LLAMA3_ROPE | {"factor": 32.0},
        "tie_word_embeddings": True,
    },
    "linear-scaling": _BASE | {"rope_scaling": {"type": "linear", "factor": 4.0}},
    "attention-bias": _BASE | {"num_key_value_heads": 2, "attention_bias": True},
    "mlp-bias": _BASE | {"mlp_bias": True},
    "explicit-head-width": _BASE | {"head_dim": 12, "num_key_value_heads": 2},
    "vocab-32001": _BASE | {"vocab_size": 32_001, "hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 1},
}
"""config.json of one small model a mechanism, in the dialect of the hub."""
