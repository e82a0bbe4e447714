"""Small Qwen2s and Qwen3s."""

from __future__ import annotations

from typing import Any

_BASE: dict[str, Any] = {
    "vocab_size": 103,
    "hidden_size": 32,
    "intermediate_size": 48,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 1_000_000.0,
    "tie_word_embeddings": False,
    "sliding_window": 4,
}
_2 = _BASE | {"model_type": "qwen2"}
_3 = _BASE | {"model_type": "qwen3", "head_dim": 12}

CASES: dict[str, dict[str, Any]] = {
    "qwen2": _2 | {"use_sliding_window": False, "max_window_layers": 28, "tie_word_embeddings": True},
    "qwen2-later-windows": _2 | {"use_sliding_window": True, "max_window_layers": 1},
    "qwen2-layer-types": _2
    | {
        "use_sliding_window": True,
        "layer_types": ["sliding_attention", "full_attention", "sliding_attention"],
    },
    "qwen3": _3 | {"sliding_window": None},
    "qwen3-bias": _3 | {"attention_bias": True, "num_key_value_heads": 4, "tie_word_embeddings": True},
    "qwen3-windows": _3 | {"use_sliding_window": True, "max_window_layers": 0, "num_key_value_heads": 1},
}
