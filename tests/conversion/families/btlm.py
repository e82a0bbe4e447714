"""Small configs of BTLM: Cerebras-GPT's maximal-update variants, and BTLM's own ALiBi and gate."""

from __future__ import annotations

from typing import Any

from tests.conversion.families.gpt2 import CASES as PLAIN

_SMALL = PLAIN["gpt2"] | {
    "architectures": ["BTLMLMHeadModel"],
    "model_type": "btlm",
    "auto_map": {"AutoModelForCausalLM": "cerebras/btlm-3b-8k-base--modeling_btlm.BTLMLMHeadModel"},
    "activation_function": "gelu",
    "position_embedding_type": "learned",
    "mup_embeddings_scale": 10.0,
    "mup_scale_qk_dot_by_d": True,
}

CASES: dict[str, dict[str, Any]] = {
    "cerebras-gpt-mup": {**_SMALL, "mup_output_alpha": 2.5, "mup_width_scale": 0.25},
    "btlm-3b": {
        **_SMALL,
        "n_embd": 12,
        "n_head": 6,
        "n_inner": 20,
        "activation_function": "swiglu",
        "position_embedding_type": "alibi",
        "alibi_scaling": None,
        "mup_embeddings_scale": 14.6,
        "mup_output_alpha": 2.22,
        "mup_width_scale": 0.1,
        "scale_attn_by_inverse_layer_idx": True,
    },
}

ORACLE = None
"""transformers has no BTLM; ``test_btlm.py`` has its equations."""
