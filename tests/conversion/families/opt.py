"""Small configs of OPT, one a mechanism."""

from __future__ import annotations

from typing import Any

_SMALL: dict[str, Any] = {
    "architectures": ["OPTForCausalLM"],
    "model_type": "opt",
    "vocab_size": 97,
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "ffn_dim": 40,
    "max_position_embeddings": 32,
    "activation_function": "relu",
    "do_layer_norm_before": True,
    "word_embed_proj_dim": 16,
    "bos_token_id": 2,
    "eos_token_id": 2,
    "pad_token_id": None,
}

CASES: dict[str, dict[str, Any]] = {
    "opt": {
        **_SMALL,
        "_remove_final_layer_norm": False,
        "attention_dropout": 0.0,
        "dropout": 0.1,
        "init_std": 0.02,
        "layerdrop": 0.0,
        "prefix": "</s>",
    },
    "opt-350m": {**_SMALL, "do_layer_norm_before": False, "word_embed_proj_dim": 10, "num_hidden_layers": 3},
    "opt-without-last-norm": {**_SMALL, "_remove_final_layer_norm": True, "num_attention_heads": 2},
    "opt-galactica": {
        **_SMALL,
        "activation_function": "gelu",
        "enable_bias": False,
        "learned_embeddings": True,
        "scale_embeddings": False,
        "tie_word_embeddings": False,
    },
    "opt-untied-projections": {**_SMALL, "word_embed_proj_dim": 24, "tie_word_embeddings": False},
}
