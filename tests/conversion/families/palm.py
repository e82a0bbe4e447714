"""Small PaLMs."""

from __future__ import annotations

from typing import Any

_BASE: dict[str, Any] = {
    "model_type": "palm",
    "num_tokens": 97,
    "dim": 24,
    "depth": 3,
    "heads": 4,
    "dim_head": 8,
    "ff_mult": 2,
}

CASES: dict[str, dict[str, Any]] = {
    "palm": _BASE,
    "palm-2025": _BASE | {"gamma_offset": 1, "heads": 3},
    "palm-qk-norm": _BASE | {"qk_rmsnorm": True, "qk_scale": 8.0, "rotary_xpos_scale_base": 16.0, "max_seq_len": 64},
    "palm-qk-norm-unscaled": _BASE | {"qk_rmsnorm": True, "qk_scale": None},
    "palm-no-xpos": _BASE | {"use_xpos": False, "ff_mult": 4},
}

ORACLE = None
"""transformers has no PaLM."""
