"""config.json of published models older than LLaMA, as their authors wrote them, with their parameters' number."""

from __future__ import annotations

from typing import Any

_SUMMARY: dict[str, Any] = {
    "summary_activation": None,
    "summary_first_dropout": 0.1,
    "summary_proj_to_labels": True,
    "summary_type": "cls_index",
    "summary_use_proj": True,
}

GPT2: dict[str, Any] = {
    "activation_function": "gelu_new",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.1,
    "bos_token_id": 50256,
    "embd_pdrop": 0.1,
    "eos_token_id": 50256,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_ctx": 1024,
    "n_embd": 768,
    "n_head": 12,
    "n_layer": 12,
    "n_positions": 1024,
    "resid_pdrop": 0.1,
    **_SUMMARY,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    "vocab_size": 50257,
}
CEREBRAS_GPT: dict[str, Any] = {
    "activation_function": "gelu",
    "architectures": ["GPT2LMHeadModel"],
    "attn_pdrop": 0.0,
    "embd_pdrop": 0.0,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gpt2",
    "n_embd": 4096,
    "n_head": 32,
    "n_inner": 16384,
    "n_layer": 32,
    "n_positions": 2048,
    "resid_pdrop": 0.0,
    "scale_attn_weights": True,
    "use_cache": True,
    "vocab_size": 50257,
}
CEREBRAS_GPT_MUP: dict[str, Any] = CEREBRAS_GPT | {
    "architectures": ["BTLMLMHeadModel"],
    "auto_map": {
        "AutoConfig": "cerebras/btlm-3b-8k-base--configuration_btlm.BTLMConfig",
        "AutoModelForCausalLM": "cerebras/btlm-3b-8k-base--modeling_btlm.BTLMLMHeadModel",
    },
    "model_type": "btlm",
    "mup_embeddings_scale": 10,
    "mup_scale_qk_dot_by_d": True,
    "n_embd": 768,
    "n_head": 12,
    "n_inner": 3072,
    "n_layer": 10,
    "position_embedding_type": "learned",
}
BTLM: dict[str, Any] = CEREBRAS_GPT_MUP | {
    "activation_function": "swiglu",
    "alibi_scaling": None,
    "mup_embeddings_scale": 14.6,
    "mup_output_alpha": 2.22,
    "mup_width_scale": 0.1,
    "n_embd": 2560,
    "n_head": 32,
    "n_inner": 6826,
    "n_layer": 32,
    "n_positions": 8192,
    "position_embedding_type": "alibi",
}
OPT: dict[str, Any] = {
    "_remove_final_layer_norm": False,
    "activation_dropout": 0.0,
    "activation_function": "relu",
    "architectures": ["OPTForCausalLM"],
    "attention_dropout": 0.0,
    "bos_token_id": 2,
    "do_layer_norm_before": True,
    "dropout": 0.1,
    "eos_token_id": 2,
    "ffn_dim": 16384,
    "hidden_size": 4096,
    "init_std": 0.02,
    "layerdrop": 0.0,
    "max_position_embeddings": 2048,
    "model_type": "opt",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "pad_token_id": 1,
    "prefix": "</s>",
    "torch_dtype": "float16",
    "transformers_version": "4.21.0.dev0",
    "use_cache": True,
    "vocab_size": 50272,
    "word_embed_proj_dim": 4096,
}
OPT_350M: dict[str, Any] = OPT | {
    "do_layer_norm_before": False,
    "ffn_dim": 4096,
    "hidden_size": 1024,
    "num_attention_heads": 16,
    "num_hidden_layers": 24,
    "word_embed_proj_dim": 512,
}
BLOOM: dict[str, Any] = {
    "apply_residual_connection_post_layernorm": False,
    "architectures": ["BloomForCausalLM"],
    "attention_dropout": 0.0,
    "attention_softmax_in_fp32": True,
    "bias_dropout_fusion": True,
    "bos_token_id": 1,
    "eos_token_id": 2,
    "hidden_dropout": 0.0,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "masked_softmax_fusion": True,
    "model_type": "bloom",
    "n_embed": 4096,
    "n_inner": None,
    "n_layer": 30,
    "num_attention_heads": 32,
    "offset_alibi": 100,
    "pad_token_id": 3,
    "pretraining_tp": 4,
    "seq_length": 2048,
    "skip_bias_add": True,
    "skip_bias_add_qkv": False,
    "transformers_version": "4.20.0",
    "unk_token_id": 0,
    "use_cache": True,
    "vocab_size": 250880,
}
BLOOM_176B: dict[str, Any] = BLOOM | {
    "n_embed": 14336,
    "n_layer": 70,
    "num_attention_heads": 112,
    "slow_but_exact": False,
}
PYTHIA: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu",
    "hidden_size": 4096,
    "initializer_range": 0.02,
    "intermediate_size": 16384,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 32,
    "num_hidden_layers": 32,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.24.0",
    "use_cache": True,
    "use_parallel_residual": True,
    "vocab_size": 50432,
}
STABLELM_ALPHA: dict[str, Any] = PYTHIA | {
    "hidden_size": 6144,
    "intermediate_size": 24576,
    "max_position_embeddings": 4096,
    "num_attention_heads": 48,
    "num_hidden_layers": 16,
}
STABLELM_ALPHA_3B: dict[str, Any] = STABLELM_ALPHA | {
    "hidden_size": 4096,
    "intermediate_size": 16384,
    "num_attention_heads": 32,
    "vocab_size": 50688,
}
GPT_NEOX: dict[str, Any] = {
    "architectures": ["GPTNeoXForCausalLM"],
    "attention_probs_dropout_prob": 0,
    "bos_token_id": 0,
    "eos_token_id": 0,
    "hidden_act": "gelu_fast",
    "hidden_dropout_prob": 0,
    "hidden_size": 6144,
    "initializer_range": 0.02,
    "intermediate_size": 24576,
    "layer_norm_eps": 1e-05,
    "max_position_embeddings": 2048,
    "model_type": "gpt_neox",
    "num_attention_heads": 64,
    "num_hidden_layers": 44,
    "rotary_emb_base": 10000,
    "rotary_pct": 0.25,
    "tie_word_embeddings": False,
    "torch_dtype": "float16",
    "transformers_version": "4.19.0.dev0",
    "use_cache": True,
    "vocab_size": 50432,
}
GPTJ: dict[str, Any] = {
    "activation_function": "gelu_new",
    "architectures": ["GPTJForCausalLM"],
    "attn_pdrop": 0.0,
    "bos_token_id": 50256,
    "embd_pdrop": 0.0,
    "eos_token_id": 50256,
    "gradient_checkpointing": False,
    "initializer_range": 0.02,
    "layer_norm_epsilon": 1e-05,
    "model_type": "gptj",
    "n_embd": 4096,
    "n_head": 16,
    "n_inner": None,
    "n_layer": 28,
    "n_positions": 2048,
    "resid_pdrop": 0.0,
    "rotary": True,
    "rotary_dim": 64,
    "scale_attn_weights": True,
    **_SUMMARY,
    "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50, "temperature": 1.0}},
    "tie_word_embeddings": False,
    "tokenizer_class": "GPT2Tokenizer",
    "transformers_version": "4.18.0.dev0",
    "use_cache": True,
    "vocab_size": 50400,
}

_WHOLE_ON_EVERY_RANK = 16 * 6 + 2
"""Of sixteen layers: vectors of the width in two norms and the biases behind two sums; and the last norm's."""

PUBLISHED: dict[str, tuple[dict[str, Any], int]] = {
    "GPT-2": (GPT2, 124_439_808),
    "OPT 6.7B": (OPT, 6_658_473_984),
    "OPT 350M": (OPT_350M, 331_196_416),
    "BLOOM 7B1": (BLOOM, 7_069_016_064),
    "BLOOM": (BLOOM_176B, 176_247_271_424),
    "Pythia 6.9B": (PYTHIA, 6_857_302_016),
    "GPT-NeoX 20B": (GPT_NEOX, 20_554_567_680),
    "GPT-J 6B": (GPTJ, 6_050_882_784),
    "StableLM-Base-Alpha 3B": (STABLELM_ALPHA_3B, 3_638_525_952 - 3 * _WHOLE_ON_EVERY_RANK * 4096),
    "StableLM-Base-Alpha 7B": (STABLELM_ALPHA, 7_869_358_080 - _WHOLE_ON_EVERY_RANK * 6144),
}
"""Exact counts; GPT-J's is that of its weight file.

StableLM-Alpha's are published as they were trained, with the copies that four and two tensor-parallel ranks had.
"""

ROUNDED: dict[str, tuple[dict[str, Any], float, float]] = {
    "Cerebras-GPT 6.7B": (CEREBRAS_GPT, 6_658e6, 1e6),
    "Cerebras-GPT 111M muP": (CEREBRAS_GPT_MUP, 111e6, 1e6),
    "BTLM 3B": (BTLM, 2.65e9, 0.05e9),
}
"""Counts that are published with few digits: (config.json, count, its last digit)."""

MEANT_ALIKE: dict[str, dict[str, Any]] = {
    "GPT-2": {"n_inner": 3072},
    "GPT-J 6B": {"n_inner": 16384},
    "BLOOM 7B1": {"hidden_size": 4096, "n_head": 32},
    "BLOOM": {"hidden_size": 14336, "n_head": 112},
    "GPT-NeoX 20B": {"hidden_act": "gelu_new"},
}
"""What is written in other words: an absent size as a number, a second name as the first, GELU's tanh form as such."""
