"""Families described by how they are read and written: strict, lossless, and honest about what they cannot say."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from jaxrefine.models.families.falcon import FALCON
from jaxrefine.models.families.gemma import GEMMA, GEMMA2
from jaxrefine.models.families.gemma3 import GEMMA3
from jaxrefine.models.families.mistral import MISTRAL
from jaxrefine.models.families.palm import PALM
from jaxrefine.models.families.qwen import QWEN2, QWEN3
from jaxrefine.models.families.stablelm import STABLELM
from jaxrefine.models.weights import Family
from tests.conversion.families import falcon, gemma, mistral, palm, qwen, stablelm

CASES: dict[str, dict[str, Any]] = {
    name: case for module in (mistral, qwen, gemma, falcon, stablelm, palm) for name, case in module.CASES.items()
}

WRONG: dict[str, tuple[Family, str, dict[str, Any], tuple[str, ...]]] = {
    "a misspelt attribute": (MISTRAL, "mistral-window", {"sliding_windows": 4}, ("did you mean 'sliding_window'",)),
    "a window that is no number": (MISTRAL, "mistral-window", {"sliding_window": "4"}, ("sliding_window is '4'",)),
    "an empty window": (MISTRAL, "mistral-window", {"sliding_window": 0}, ("window is 0",)),
    "an unknown activation": (MISTRAL, "mistral-window", {"hidden_act": "sulu"}, ("did you mean 'silu'",)),
    "another family": (QWEN2, "qwen2", {"model_type": "qwen3"}, ("model_type is 'qwen3'", "'qwen2'")),
    "windows without a length": (
        QWEN3,
        "qwen3",
        {"layer_types": ["sliding_attention"] * 3},
        ("layer_types", "use_sliding_window"),
    ),
    "too few layer types": (QWEN2, "qwen2-layer-types", {"layer_types": ["full_attention"]}, ("a list of 3",)),
    "an unknown layer type": (
        QWEN2,
        "qwen2-layer-types",
        {"layer_types": ["full_attention", "sliding_atention", "full_attention"]},
        ("did you mean 'sliding_attention'",),
    ),
    "attention both ways": (
        GEMMA2,
        "gemma-2",
        {"use_bidirectional_attention": True},
        ("use_bidirectional_attention is True",),
    ),
    "soft-caps in a Gemma 1": (
        GEMMA,
        "gemma-1",
        {"final_logit_softcapping": 30.0},
        ("final_logit_softcapping is 30.0",),
    ),
    "soft-caps in attention of a Gemma 3": (
        GEMMA3,
        "gemma-3",
        {"attn_logit_softcapping": 50.0},
        ("attn_logit_softcapping is 50.0",),
    ),
    "a scale of nothing": (GEMMA2, "gemma-2", {"query_pre_attn_scalar": 0}, ("query_pre_attn_scalar is 0.0",)),
    "scaled windows": (
        GEMMA3,
        "gemma-3",
        {"rope_parameters": {"sliding_attention": {"rope_type": "linear", "factor": 2.0}}},
        ("sliding_attention has a scaling",),
    ),
    "one rotary table for two": (GEMMA3, "gemma-3", {"rope_parameters": {"rope_theta": 1.0}}, ("full_attention",)),
    "two norms before the new architecture": (
        FALCON,
        "falcon-7b",
        {"num_ln_in_parallel_attn": 2},
        ("num_ln_in_parallel_attn is 2",),
    ),
    "the new architecture, one after the other": (
        FALCON,
        "falcon-40b",
        {"parallel_attn": False},
        ("parallel_attn is False",),
    ),
    "the residual behind the norm": (
        FALCON,
        "falcon-7b",
        {"apply_residual_connection_post_layernorm": True},
        ("apply_residual_connection_post_layernorm is True",),
    ),
    "dialects that disagree": (FALCON, "falcon-7b", {"n_head": 3}, ("n_head is 3", "agree")),
    "heads that do not divide": (FALCON, "falcon-7b", {"num_attention_heads": 5}, ("hidden_size is 48",)),
    "epsilons that disagree": (STABLELM, "stablelm-3b", {"norm_eps": 1e-6}, ("norm_eps is 1e-06", "agree")),
    "an odd number of rotated features": (
        STABLELM,
        "stablelm-3b",
        {"partial_rotary_factor": 0.2},
        ("rope_width is 3",),
    ),
    "an offset between two": (PALM, "palm", {"gamma_offset": 0.5}, ("gamma_offset is 0.5",)),
    "an encoder": (PALM, "palm", {"causal": False}, ("causal is False",)),
}


@pytest.mark.parametrize("which", WRONG)
def test_a_wrong_config_is_an_error_that_names_file_and_key(which: str) -> None:
    family, case, changed, parts = WRONG[which]
    with pytest.raises(ValueError) as caught:
        family.from_hf(CASES[case] | changed, where="models/x/config.json")
    for part in ("models/x/config.json", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("family", "case", "changed", "parts"),
    [
        (MISTRAL, "mistral-window", {"qkv_bias": True}, ("qkv_bias is True", "mistral")),
        (QWEN2, "qwen2", {"qkv_bias": False}, ("qkv_bias is False", "qwen2")),
        (QWEN3, "qwen3", {"qk_norm": None}, ("qk_norm is None", "qwen3")),
        (GEMMA, "gemma-1", {"activation": "silu"}, ("activation is 'silu'", "gemma")),
        (GEMMA2, "gemma-2", {"embed_scale": 1.0}, ("embed_scale is 1.0", "gemma2")),
        (FALCON, "falcon-rw", {"mlp_bias": False}, ("mlp_bias is False", "falcon")),
        (STABLELM, "stablelm-3b", {"norm": "rms", "norm_bias": False}, ("norm is 'rms'", "stablelm")),
        (PALM, "palm", {"hidden_width": 60}, ("hidden_width is 60", "palm")),
    ],
)
def test_a_mechanism_that_a_family_lacks_is_refused_on_the_way_out(
    family: Family, case: str, changed: dict[str, Any], parts: tuple[str, ...]
) -> None:
    config = dataclasses.replace(family.from_hf(CASES[case]), **changed)
    with pytest.raises(ValueError) as caught:
        family.to_hf(config, dtype="float32")
    for part in parts:
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("family", "older", "newer"),
    [
        (
            STABLELM,
            {"model_type": "stablelm_epoch", "norm_eps": 1e-6, "rope_pct": 0.5, "num_heads": 4},
            {"layer_norm_eps": 1e-6, "partial_rotary_factor": 0.5},
        ),
        (
            GEMMA3,
            {"rope_theta": 5e5, "rope_local_base_freq": 2e4, "sliding_window_pattern": 2},
            {
                "layer_types": ["sliding_attention", "full_attention"],
                "rope_parameters": {"full_attention": {"rope_theta": 5e5}, "sliding_attention": {"rope_theta": 2e4}},
            },
        ),
        (
            QWEN2,
            {"use_sliding_window": True, "sliding_window": 8, "max_window_layers": 1},
            {
                "use_sliding_window": True,
                "sliding_window": 8,
                "layer_types": ["full_attention", "sliding_attention"],
            },
        ),
    ],
)
def test_both_dialects_mean_the_same(family: Family, older: dict[str, Any], newer: dict[str, Any]) -> None:
    sizes = {
        "vocab_size": 9,
        "hidden_size": 32,
        "intermediate_size": 8,
        "num_hidden_layers": 2,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    one, other = (family.from_hf({"model_type": family.model_type} | sizes | words) for words in (older, newer))
    assert one == other


def test_the_first_release_of_falcon_40b_is_read() -> None:
    older = {"model_type": "RefinedWeb", "n_head": 6, "n_layer": 2, "n_head_kv": 2, "hidden_size": 48, "vocab_size": 9}
    newer = falcon.CASES["falcon-40b"] | {"ffn_hidden_size": 192, "vocab_size": 9}
    assert FALCON.from_hf(older | {"parallel_attn": True, "alibi": False, "bias": False}) == FALCON.from_hf(newer)


def test_attributes_of_a_window_that_is_off_are_kept_and_those_of_one_that_is_on_are_made() -> None:
    off, on = CASES["qwen2"], CASES["qwen2-later-windows"]
    assert QWEN2.extra(off) == {"use_sliding_window": False, "sliding_window": 4, "max_window_layers": 28}
    assert QWEN2.extra(on) == {}
    written = QWEN2.to_hf(QWEN2.from_hf(on), dtype="float32", extra=QWEN2.extra(off))
    assert written["use_sliding_window"] is True
    assert written["layer_types"] == ["full_attention", "sliding_attention", "sliding_attention"]
