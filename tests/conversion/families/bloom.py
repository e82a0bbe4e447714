"""Small configs of BLOOM: numbers of heads that are and are not powers of two, in the words of either release."""

from __future__ import annotations

from typing import Any

CASES: dict[str, dict[str, Any]] = {
    "bloom": {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "vocab_size": 97,
        "hidden_size": 16,
        "n_layer": 2,
        "n_head": 4,
        "layer_norm_epsilon": 1e-5,
    },
    "bloom-as-released": {
        "architectures": ["BloomForCausalLM"],
        "model_type": "bloom",
        "vocab_size": 97,
        "n_embed": 14,
        "n_layer": 2,
        "num_attention_heads": 7,
        "n_inner": None,
        "layer_norm_epsilon": 1e-5,
        "seq_length": 32,
        "apply_residual_connection_post_layernorm": False,
        "attention_dropout": 0.0,
        "attention_softmax_in_fp32": True,
        "bias_dropout_fusion": True,
        "masked_softmax_fusion": True,
        "offset_alibi": 100,
        "hidden_dropout": 0.0,
        "initializer_range": 0.02,
        "pretraining_tp": 4,
        "skip_bias_add": True,
        "skip_bias_add_qkv": False,
        "slow_but_exact": False,
        "unk_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "pad_token_id": 3,
    },
    "bloom-untied": {
        "model_type": "bloom",
        "vocab_size": 97,
        "hidden_size": 12,
        "n_layer": 3,
        "n_head": 3,
        "layer_norm_epsilon": 1e-3,
        "tie_word_embeddings": False,
    },
}
