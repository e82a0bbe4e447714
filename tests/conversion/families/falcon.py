"""Small Falcons of the four forms, in both dialects."""

from __future__ import annotations

from typing import Any

_BASE: dict[str, Any] = {
    "model_type": "falcon",
    "vocab_size": 109,
    "hidden_size": 48,
    "num_hidden_layers": 2,
    "num_attention_heads": 6,
    "layer_norm_epsilon": 1e-5,
    "bias": False,
    "alibi": False,
    "new_decoder_architecture": False,
    "multi_query": True,
    "parallel_attn": True,
    "bos_token_id": 11,
    "eos_token_id": 11,
}

CASES: dict[str, dict[str, Any]] = {
    "falcon-7b": _BASE | {"num_kv_heads": 6, "apply_residual_connection_post_layernorm": False},
    "falcon-40b": _BASE | {"new_decoder_architecture": True, "num_kv_heads": 2, "ffn_hidden_size": 80},
    "falcon-11b": _BASE
    | {
        "new_decoder_architecture": True,
        "num_kv_heads": 3,
        "num_ln_in_parallel_attn": 1,
        "ffn_hidden_size": 80,
        "ff_factor": 4,
        "rope_theta": 500_042.0,
        "tie_word_embeddings": False,
    },
    "falcon-rw": _BASE | {"bias": True, "alibi": True, "multi_query": False, "parallel_attn": False},
    "falcon-rw-7-heads": _BASE
    | {
        "hidden_size": 56,
        "num_attention_heads": 7,
        "bias": True,
        "alibi": True,
        "multi_query": False,
        "parallel_attn": False,
    },
    "falcon-heads-in-parallel": _BASE | {"multi_query": False, "bias": True},
    "falcon-one-after-the-other": _BASE | {"parallel_attn": False},
}
"""Published forms first. 40B in the words of its first release is in the tests of the config."""

ORACLE: dict[str, Any] = {"attn_implementation": "sdpa"}
"""transformers 5.23 counts ALiBi twice in its eager attention."""
