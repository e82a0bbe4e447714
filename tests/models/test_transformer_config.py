"""A decoder's description refuses what no decoder can be."""

from __future__ import annotations

import dataclasses

import pytest

from jaxrefine.models.config import RopeScaling
from tests.models.tiny import CONFIG


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, "width is 0"),
        ({"num_kv_heads": 3}, "must divide num_heads = 4"),
        ({"head_width": 7}, "even"),
        ({"activation": "silo"}, "did you mean 'silu'"),
        ({"norm_eps": -1.0}, "norm_eps"),
        ({"rope_theta": 0.0}, "rope_theta"),
        ({"norm": "rsm"}, "did you mean 'rms'"),
        ({"norm_placement": "sandwhich"}, "did you mean 'sandwich'"),
        ({"positions": "alibbi"}, "did you mean 'alibi'"),
        ({"qk_norm": "l3"}, "did you mean 'l2'"),
        ({"norm_bias": True}, "needs norm = 'layer'"),
        ({"shared_norm": True}, "needs parallel = True"),
        ({"parallel": True, "norm_placement": "post"}, "must be 'pre'"),
        ({"positions": "alibi", "rope_width": 4}, "needs positions = 'rope'"),
        ({"positions": "learned", "position_offset": -1}, "must not be negative"),
        ({"position_offset": 2}, "needs positions = 'learned'"),
        ({"position_scale": 2.0}, "needs positions = 'learned'"),
        ({"alibi_prescaled": True}, "needs positions = 'alibi'"),
        ({"rope_width": 3}, "rope_width is 3; rotary positions need an even one"),
        ({"rope_width": 10}, "a head has 8 features"),
        ({"rope_local_theta": 10.0}, "needs a window"),
        ({"window_layers": (True, False)}, "needs a window"),
        ({"window": 4, "window_layers": (True,)}, "1 entries; num_layers is 2"),
        ({"window": 0}, "window is 0"),
        ({"attention_softcap": 0.0}, "attention_softcap is 0.0"),
        ({"logit_scale": -1.0}, "must be positive"),
    ],
)
def test_nonsense_is_refused_by_name(change, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CONFIG, **change)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"kind": "lama3", "factor": 2.0}, "did you mean 'llama3'"),
        ({"kind": "linear", "factor": 0.0}, "factor is 0.0"),
        ({"kind": "llama3", "factor": 2.0, "low_freq_factor": 4.0, "high_freq_factor": 4.0}, "0 < low < high"),
        ({"kind": "llama3", "factor": 2.0, "original_max_positions": 0}, "original_max_positions is 0"),
    ],
)
def test_nonsense_in_the_scaling_is_refused_by_name(fields, message):
    with pytest.raises(ValueError, match=message):
        RopeScaling(**fields)


def test_an_odd_head_is_refused_only_where_it_rotates():
    assert dataclasses.replace(CONFIG, head_width=7, positions="alibi").head_width == 7
    assert dataclasses.replace(CONFIG, head_width=7, rope_width=6).rotated_width == 6
