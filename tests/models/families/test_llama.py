"""LLaMA's config.json: both dialects in, both out, and no attribute that goes unnoticed."""

from __future__ import annotations

import json
from typing import Any

import pytest

from jaxrefine.models.config import RopeScaling, TransformerConfig
from jaxrefine.models.families import family_of
from jaxrefine.models.families.llama import LLAMA, extra_attributes, from_hf, to_hf
from tests.conversion.checkpoints import VARIANTS

SMALL: dict[str, Any] = {
    "model_type": "llama",
    "vocab_size": 97,
    "hidden_size": 32,
    "intermediate_size": 56,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
}
_ROPE3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 8192,
}
_SCALING3 = RopeScaling(
    kind="llama3", factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0, original_max_positions=8192
)

HUB: dict[str, dict[str, Any]] = {
    "LLaMA-1 7B, first conversions": SMALL
    | {
        "architectures": ["LLaMAForCausalLM"],
        "bos_token_id": 0,
        "eos_token_id": 1,
        "pad_token_id": -1,
        "hidden_act": "silu",
        "initializer_range": 0.02,
        "max_sequence_length": 2048,
        "rms_norm_eps": 1e-06,
        "torch_dtype": "float16",
        "transformers_version": "4.27.0.dev0",
        "use_cache": True,
    },
    "Alpaca 7B": SMALL | {"vocab_size": 32001, "pretraining_tp": 1, "rope_scaling": None, "torch_dtype": "float32"},
    "Llama 2 70B": SMALL
    | {
        "_name_or_path": "meta-llama/Llama-2-70b-hf",
        "architectures": ["LlamaForCausalLM"],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "max_position_embeddings": 4096,
        "num_key_value_heads": 2,
        "pretraining_tp": 1,
        "rms_norm_eps": 1e-05,
        "rope_scaling": None,
        "tie_word_embeddings": False,
        "transformers_version": "4.32.0.dev0",
    },
    "Llama 3.1 8B": SMALL
    | {
        "attention_bias": False,
        "attention_dropout": 0.0,
        "bos_token_id": 128000,
        "eos_token_id": [128001, 128008, 128009],
        "mlp_bias": False,
        "num_key_value_heads": 2,
        "rms_norm_eps": 1e-05,
        "rope_scaling": _ROPE3,
        "rope_theta": 500000.0,
        "torch_dtype": "bfloat16",
    },
    "Llama 3.2 1B": SMALL
    | {"head_dim": 8, "rope_scaling": _ROPE3 | {"factor": 32.0}, "rope_theta": 500000.0, "tie_word_embeddings": True},
    "as transformers 5 writes it": SMALL
    | {
        "attention_bias": False,
        "dtype": "bfloat16",
        "head_dim": 8,
        "max_position_embeddings": 16384,
        "mlp_bias": False,
        "num_key_value_heads": 4,
        "pad_token_id": None,
        "rope_parameters": _ROPE3 | {"rope_theta": 500000.0},
        "transformers_version": "5.23.0",
    },
}


def test_absent_attributes_have_the_defaults_of_transformers() -> None:
    assert from_hf(SMALL) == TransformerConfig(
        vocab_size=97,
        width=32,
        num_layers=3,
        num_heads=4,
        num_kv_heads=4,
        head_width=8,
        hidden_width=56,
        max_positions=2048,
        norm_eps=1e-6,
        rope_theta=10_000.0,
    )


@pytest.mark.parametrize("name", HUB)
def test_published_configs_are_read(name: str) -> None:
    assert from_hf(HUB[name]).width == 32


@pytest.mark.parametrize("config", [*HUB.values(), *VARIANTS.values()], ids=[*HUB, *VARIANTS])
def test_a_config_survives_the_way_to_json_and_back(config: dict[str, Any]) -> None:
    ours = from_hf(config)
    written = json.loads(json.dumps(to_hf(ours, dtype="bfloat16", extra=extra_attributes(config))))
    assert from_hf(written) == ours
    assert extra_attributes(written) == extra_attributes(config)


@pytest.mark.torch
@pytest.mark.parametrize("config", [*HUB.values(), *VARIANTS.values()], ids=[*HUB, *VARIANTS])
def test_transformers_reads_the_same_from_what_we_write(config: dict[str, Any]) -> None:
    from transformers import LlamaConfig

    config = {key: value for key, value in config.items() if key != "max_sequence_length"}  # an alias of the first ones
    written = to_hf(from_hf(config), dtype="bfloat16", extra=extra_attributes(config))
    theirs, ours = (
        LlamaConfig.from_dict(json.loads(json.dumps(one | {"torch_dtype": None, "dtype": "bfloat16"}))).to_dict()
        for one in (config | {"architectures": ["LlamaForCausalLM"]}, written)
    )
    theirs["rope_parameters"].pop("type", None)  # the older word, which transformers keeps beside the newer
    assert ours == theirs


def test_both_dialects_of_rope_mean_the_same() -> None:
    old = SMALL | {"rope_theta": 5e5, "rope_scaling": _ROPE3}
    new = SMALL | {"rope_parameters": _ROPE3 | {"rope_theta": 5e5}}
    assert from_hf(old) == from_hf(new) == from_hf(old | new)
    assert from_hf(old).rope_scaling == _SCALING3
    assert from_hf(old).rope_theta == 500_000.0


def test_the_older_word_for_the_kind_of_scaling_is_read() -> None:
    scaling = from_hf(SMALL | {"rope_scaling": {"type": "linear", "factor": 2.0}}).rope_scaling
    assert scaling == RopeScaling(kind="linear", factor=2.0)


def test_an_attention_bias_is_on_all_four_maps() -> None:
    config = from_hf(SMALL | {"attention_bias": True})
    assert config.qkv_bias
    assert config.o_bias
    assert not config.mlp_bias


WRONG: dict[str, tuple[dict[str, Any], tuple[str, ...]]] = {
    "a misspelt attribute": ({"hiden_act": "silu"}, ("'hiden_act' ('silu')", "did you mean 'hidden_act'")),
    "a mechanism of another family": ({"sliding_window": 4096}, ("'sliding_window' (4096)",)),
    "quantised weights": ({"quantization_config": {"bits": 4}}, ("quantization_config",)),
    "code of its own": ({"auto_map": {"AutoModel": "x.Y"}}, ("auto_map",)),
    "another activation": ({"hidden_act": "gelu"}, ("hidden_act is 'gelu'", "'silu'")),
    "pruned heads": ({"pruned_heads": {"0": [1]}}, ("pruned_heads",)),
    "another model type": ({"model_type": "mistral"}, ("model_type is 'mistral'", "'llama'")),
    "text for a number": ({"hidden_size": "32"}, ("hidden_size is '32'", "integer")),
    "a fraction for a count": ({"num_hidden_layers": 2.5}, ("num_hidden_layers is 2.5", "integer")),
    "a flag for a count": ({"vocab_size": True}, ("vocab_size is True", "integer")),
    "text for an epsilon": ({"rms_norm_eps": "1e-5"}, ("rms_norm_eps is '1e-5'", "number")),
    "a number for a flag": ({"tie_word_embeddings": 1}, ("tie_word_embeddings is 1", "true or false")),
    "no vocabulary": ({"vocab_size": None}, ("'vocab_size' is missing",)),
    "heads that do not divide": ({"num_attention_heads": 5}, ("hidden_size is 32", "num_attention_heads is 5")),
    "no heads": ({"num_attention_heads": 0}, ("num_attention_heads is 0",)),
    "key heads that do not divide": ({"num_key_value_heads": 3}, ("num_kv_heads is 3",)),
    "an odd head": ({"head_dim": 7}, ("head_width is 7",)),
    "unknown scaling": ({"rope_scaling": {"rope_type": "yarn", "factor": 2.0}}, ("rope_scaling", "'yarn'", "llama3")),
    "a misspelt part of it": (
        {"rope_scaling": {"type": "linear", "facter": 2.0}},
        ("rope_scaling", "'facter'", "did you mean 'factor'"),
    ),
    "scaling without its factor": ({"rope_scaling": {"type": "linear"}}, ("rope_scaling", "'factor' is missing")),
    "a factor of another kind": ({"rope_scaling": {"type": "linear", "factor": 2.0, "low_freq_factor": 1.0}}, ("low",)),
    "scaling that is no object": ({"rope_scaling": 2.0}, ("rope_scaling is 2.0", "object")),
    "two kinds at once": ({"rope_scaling": {"type": "linear", "rope_type": "llama3", "factor": 2.0}}, ("agree",)),
    "bounds in the wrong order": ({"rope_scaling": _ROPE3 | {"low_freq_factor": 5.0}}, ("low_freq_factor is 5.0",)),
    "part of the head rotated": (
        {"rope_parameters": {"partial_rotary_factor": 0.5}},
        ("partial_rotary_factor is 0.5",),
    ),
    "dialects that disagree": (
        {"rope_theta": 1e4, "rope_parameters": {"rope_type": "default", "rope_theta": 5e5}},
        ("rope_theta", "10000.0", "500000.0"),
    ),
    "scalings that disagree": ({"rope_scaling": _ROPE3, "rope_parameters": {"rope_theta": 5e5}}, ("disagree",)),
    "lengths that disagree": ({"max_sequence_length": 5, "max_position_embeddings": 6}, ("5", "6", "agree")),
}


@pytest.mark.parametrize("which", WRONG)
def test_a_wrong_config_is_an_error_that_names_file_and_key(which: str) -> None:
    changed, parts = WRONG[which]
    with pytest.raises(ValueError) as caught:
        from_hf(SMALL | changed, where="models/x/config.json")
    for part in ("models/x/config.json", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("changed", "part"),
    [
        ({"activation": "gelu"}, "activation is 'gelu'"),
        ({"qkv_bias": True}, "qkv_bias is True, o_bias is False"),
        ({"num_heads": 3, "num_kv_heads": 1}, "num_heads = 3"),
    ],
)
def test_what_a_llama_lacks_is_refused_on_the_way_out(changed: dict[str, Any], part: str) -> None:
    sizes = {"vocab_size": 9, "width": 8, "num_layers": 1, "num_heads": 2, "num_kv_heads": 2, "head_width": 4}
    with pytest.raises(ValueError, match=part):
        to_hf(TransformerConfig(**(sizes | {"hidden_width": 8} | changed)), dtype="float32")


def test_unknown_extra_attributes_are_refused_on_the_way_out() -> None:
    with pytest.raises(ValueError, match="'bos_token'.*did you mean 'bos_token_id'"):
        to_hf(from_hf(SMALL), dtype="float32", extra={"bos_token": 1})


def test_a_rate_of_dropout_changes_nothing_and_is_kept() -> None:
    config = SMALL | {"attention_dropout": 0.1, "resid_pdrop": 0.2}
    assert from_hf(config) == from_hf(SMALL)
    kept = extra_attributes(config)
    assert (
        to_hf(from_hf(config), dtype="float32", extra=kept).items()
        >= {"attention_dropout": 0.1, "resid_pdrop": 0.2}.items()
    )


def test_every_rule_has_a_name_and_a_path_of_its_own() -> None:
    rules = LLAMA.rules(from_hf(SMALL))
    assert len({rule.theirs for rule in rules}) == len({rule.ours for rule in rules}) == len(rules)


@pytest.mark.parametrize("name", ["lama", None, 3])
def test_an_unknown_family_is_an_error_that_names_the_known(name: Any) -> None:
    with pytest.raises(ValueError, match=r"config\.json: unknown model_type .*llama"):
        family_of(name, "config.json")
