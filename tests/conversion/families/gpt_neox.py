"""Small configs of GPT-NeoX, Pythia and StableLM-alpha, one a mechanism."""

from __future__ import annotations

from typing import Any

_SMALL: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "model_type": "gpt_neox",
    "vocab_size": 97,
    "hidden_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 48,
    "max_position_embeddings": 32,
    "layer_norm_eps": 1e-5,
}

CASES: dict[str, dict[str, Any]] = {
    "pythia": {
        **_SMALL,
        "hidden_act": "gelu",
        "rotary_pct": 0.25,
        "rotary_emb_base": 10000,
        "use_parallel_residual": True,
        "tie_word_embeddings": False,
        "initializer_range": 0.02,
        "bos_token_id": 0,
        "eos_token_id": 0,
    },
    "stablelm-alpha": {
        **_SMALL,
        "hidden_size": 24,
        "num_attention_heads": 2,
        "rotary_pct": 0.5,
        "num_hidden_layers": 3,
    },
    "gpt-neox-20b": {
        **_SMALL,
        "hidden_act": "gelu_fast",
        "rotary_pct": 0.25,
        "rotary_emb_base": 100,
        "attention_probs_dropout_prob": 0,
        "hidden_dropout_prob": 0,
    },
    "sequential-whole-heads-tied": {
        **_SMALL,
        "rotary_pct": 1.0,
        "use_parallel_residual": False,
        "attention_bias": False,
        "tie_word_embeddings": True,
    },
    "scaled-new-dialect": {
        **_SMALL,
        "rope_parameters": {
            "rope_type": "linear",
            "factor": 2.0,
            "rope_theta": 1000.0,
            "partial_rotary_factor": 0.5,
        },
    },
}
