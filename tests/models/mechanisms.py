"""Decoders that together use every mechanism, each in company it is met in or must bear."""

from __future__ import annotations

import dataclasses

from jaxrefine.models.config import RopeScaling
from tests.models.tiny import CONFIG

_LAYER_NORM = {"norm": "layer", "norm_bias": True}
_BIASES = {"qkv_bias": True, "o_bias": True, "mlp_bias": True}

FIELDS = {
    "learned positions, scale by layer": {
        **_LAYER_NORM,
        **_BIASES,
        "num_kv_heads": 4,
        "gated": False,
        "activation": "gelu_tanh",
        "positions": "learned",
        "position_offset": 2,
        "position_scale": 3.0,
        "embed_scale": 2.5,
        "attention_scale_by_layer": True,
        "tie_embeddings": True,
        "logit_scale": 0.3,
        "max_positions": 64,
    },
    "post-norm, projected embedding": {
        **_LAYER_NORM,
        **_BIASES,
        "gated": False,
        "activation": "relu",
        "positions": "learned",
        "norm_placement": "post",
        "final_norm": False,
        "embed_width": 10,
        "max_positions": 64,
    },
    "linear bias, embedding norm": {
        **_LAYER_NORM,
        **_BIASES,
        "num_heads": 6,
        "num_kv_heads": 6,
        "head_width": 5,
        "gated": False,
        "activation": "gelu",
        "positions": "alibi",
        "embed_norm": True,
        "attention_scale": 0.7,
    },
    "prescaled linear bias, window in one layer": {
        **_LAYER_NORM,
        "num_heads": 6,
        "positions": "alibi",
        "alibi_prescaled": True,
        "parallel": True,
        "window": 4,
        "window_layers": (False, True),
    },
    "parallel, some features rotate": {
        **_LAYER_NORM,
        **_BIASES,
        "parallel": True,
        "gated": False,
        "activation": "gelu",
        "rope_width": 4,
    },
    "parallel, one norm, neighbours rotate, head bias": {
        **_LAYER_NORM,
        "mlp_bias": True,
        "parallel": True,
        "shared_norm": True,
        "rope_width": 6,
        "rope_interleaved": True,
        "head_bias": True,
        "logit_scale": 1.7,
        "logit_softcap": 5.0,
    },
    "sandwich, caps, windows by turns": {
        "norm_unit_offset": True,
        "norm_placement": "sandwich",
        "activation": "gelu_tanh",
        "num_layers": 3,
        "window": 3,
        "window_layers": (True, False, True),
        "attention_softcap": 2.0,
        "attention_scale": 0.25,
        "logit_softcap": 3.0,
        "embed_scale": 5.0,
        "tie_embeddings": True,
    },
    "local base, scaled global one, normalised heads": {
        "norm_unit_offset": True,
        "qk_norm": "rms",
        "num_layers": 3,
        "window": 5,
        "window_layers": (True, True, False),
        "rope_theta": 1e5,
        "rope_local_theta": 20.0,
        "rope_scaling": RopeScaling(kind="linear", factor=8.0),
        "head_bias": True,
        "tie_embeddings": True,
    },
    "window and local base in all layers, a norm a head": {
        "norm": "layer",
        "qk_norm": "layer",
        "window": 4,
        "rope_local_theta": 50.0,
        "rope_width": 4,
    },
    "decaying rotations, unit queries and keys": {
        "norm": "layer",
        "num_kv_heads": 1,
        "parallel": True,
        "shared_norm": True,
        "xpos_base": 16.0,
        "qk_norm": "l2",
        "attention_scale": 8.0,
    },
    "no positions": {"positions": "none", "head_width": 7, "norm_unit_offset": True, "norm": "layer"},
}

MECHANISMS = {name: dataclasses.replace(CONFIG, **fields) for name, fields in FIELDS.items()}
