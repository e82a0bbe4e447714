"""Small Gemmas of the three generations."""

from __future__ import annotations

from typing import Any

_BASE: dict[str, Any] = {
    "vocab_size": 107,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "head_dim": 12,
    "max_position_embeddings": 64,
    "rms_norm_eps": 1e-6,
    "rope_theta": 10_000.0,
    "bos_token_id": 2,
    "eos_token_id": 1,
    "pad_token_id": 0,
}
_1 = _BASE | {"model_type": "gemma", "hidden_act": "gelu_pytorch_tanh"}
_2 = _BASE | {
    "model_type": "gemma2",
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 8,
    "sliding_window": 4,
    "attn_logit_softcapping": 50.0,
    "final_logit_softcapping": 30.0,
}
_3 = _BASE | {
    "model_type": "gemma3_text",
    "hidden_activation": "gelu_pytorch_tanh",
    "query_pre_attn_scalar": 12,
    "sliding_window": 4,
    "rope_theta": 1_000_000.0,
    "rope_local_base_freq": 10_000.0,
}

CASES: dict[str, dict[str, Any]] = {
    "gemma-1": _1,
    "gemma-1-mqa-bias": _1
    | {"hidden_act": "gelu", "num_key_value_heads": 1, "attention_bias": True, "tie_word_embeddings": False},
    "gemma-2": _2 | {"cache_implementation": "hybrid"},
    "gemma-2-hard-caps": _2
    | {
        "attn_logit_softcapping": 2.0,
        "final_logit_softcapping": 3.0,
        "query_pre_attn_scalar": 144,
        "layer_types": ["full_attention", "sliding_attention", "sliding_attention"],
    },
    "gemma-2-no-caps": _2 | {"attn_logit_softcapping": None, "final_logit_softcapping": None},
    "gemma-3": _3 | {"sliding_window_pattern": 2},
    "gemma-3-stretched": _3
    | {
        "rope_scaling": {"rope_type": "linear", "factor": 8.0},
        "sliding_window_pattern": 3,
        "query_pre_attn_scalar": 20,
        "final_logit_softcapping": 4.0,
    },
    "gemma-3-new-dialect": {
        key: value for key, value in _3.items() if key not in ("rope_theta", "rope_local_base_freq")
    }
    | {
        "layer_types": ["sliding_attention", "full_attention", "full_attention"],
        "rope_parameters": {
            "full_attention": {"rope_type": "linear", "factor": 4.0, "rope_theta": 500_000.0},
            "sliding_attention": {"rope_type": "default", "rope_theta": 20_000.0},
        },
    },
}
