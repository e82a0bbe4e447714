"""Small Mistrals."""

from __future__ import annotations

from typing import Any

_BASE: dict[str, Any] = {
    "model_type": "mistral",
    "vocab_size": 101,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10_000.0,
    "sliding_window": None,
}

CASES: dict[str, dict[str, Any]] = {
    "mistral-window": _BASE | {"sliding_window": 4},
    "mistral-no-window": _BASE | {"rope_theta": 1e6},
    "mistral-head-width": _BASE | {"head_dim": 12, "num_key_value_heads": 1, "tie_word_embeddings": True},
    "mistral-new-dialect": {key: value for key, value in _BASE.items() if key != "rope_theta"}
    | {"rope_parameters": {"rope_type": "linear", "factor": 2.0, "rope_theta": 50_000.0}, "sliding_window": 7},
}
