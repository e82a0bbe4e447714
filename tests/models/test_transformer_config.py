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
