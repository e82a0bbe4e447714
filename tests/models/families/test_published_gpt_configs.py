"""Published models older than LLaMA by their config.json: read, and written back without a loss."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from jaxrefine.models.families import family_of
from tests.models.families.published_gpt_configs import MEANT_ALIKE, PUBLISHED, ROUNDED

CONFIGS = {name: config for table in (PUBLISHED, ROUNDED) for name, (config, *_) in table.items()}
SECOND_NAMES = {"n_embed", "num_attention_heads"}


@pytest.mark.parametrize("name", CONFIGS)
def test_no_attribute_of_a_published_config_is_lost(name: str) -> None:
    config = CONFIGS[name]
    family = family_of(config["model_type"], "config.json")
    ours = family.from_hf(config)
    written = json.loads(
        json.dumps(family.to_hf(ours, dtype=config.get("torch_dtype", "float32"), extra=family.extra(config)))
    )
    assert family.from_hf(written) == ours
    assert family.extra(written) == family.extra(config)
    dropped = SECOND_NAMES if config["model_type"] == "bloom" else set()
    wanted = {key: value for key, value in config.items() if key not in dropped} | MEANT_ALIKE.get(name, {})
    assert {key: written[key] for key in wanted} == wanted


SMALL: dict[str, dict[str, Any]] = {
    "gpt2": {"vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 2},
    "btlm": {"vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 2},
    "gptj": {"vocab_size": 9, "n_embd": 8, "n_layer": 1, "n_head": 2, "rotary_dim": 4},
    "opt": {"vocab_size": 9, "hidden_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2, "ffn_dim": 8},
    "bloom": {"vocab_size": 9, "hidden_size": 8, "n_layer": 1, "n_head": 2},
    "gpt_neox": {
        "vocab_size": 9,
        "hidden_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "intermediate_size": 8,
    },
}

WRONG: list[tuple[str, dict[str, Any], tuple[str, ...]]] = [
    ("gpt2", {"n_embed": 8}, ("'n_embed' (8)", "did you mean 'n_embd'")),
    ("gpt2", {"hidden_size": 16}, ("n_embd is 8", "hidden_size is 16", "agree")),
    ("gpt2", {"n_head": 3}, ("n_embd is 8", "n_head is 3")),
    ("gpt2", {"activation_function": "gelu_knew"}, ("'gelu_knew'", "did you mean 'gelu_new'")),
    ("gpt2", {"add_cross_attention": True}, ("add_cross_attention is True",)),
    ("gpt2", {"mup_embeddings_scale": 10.0}, ("'mup_embeddings_scale' (10.0)",)),
    ("btlm", {"position_embedding_type": "rotary"}, ("'rotary'", "alibi")),
    ("btlm", {"alibi_scaling": {"type": "linear"}}, ("alibi_scaling", "None")),
    ("gptj", {"rotary_dim": None}, ("rotary_dim is None",)),
    ("gptj", {"rotary_dim": 6}, ("rope_width is 6",)),
    ("gptj", {"rotary": False}, ("rotary is False", "True")),
    ("opt", {"layer_norm_elementwise_affine": False}, ("layer_norm_elementwise_affine is False", "True")),
    ("opt", {"do_layer_norm_before": "yes"}, ("do_layer_norm_before is 'yes'",)),
    (
        "bloom",
        {"apply_residual_connection_post_layernorm": True},
        ("post_layernorm is True",),
    ),
    ("bloom", {"n_inner": 31}, ("n_inner is 31", "32")),
    ("bloom", {"n_embed": 16}, ("hidden_size is 8", "n_embed is 16")),
    ("gpt_neox", {"rotary_pct": 0.4}, ("rope_width is 3",)),
    ("gpt_neox", {"rotary_pct": 0.25, "rope_parameters": {"partial_rotary_factor": 0.5}}, ("0.25", "0.5")),
]


@pytest.mark.parametrize(("model_type", "changed", "parts"), WRONG)
def test_a_wrong_config_is_an_error_that_names_file_and_key(
    model_type: str, changed: dict[str, Any], parts: tuple[str, ...]
) -> None:
    family = family_of(model_type, "config.json")
    small = {"model_type": model_type, **SMALL[model_type]}
    family.from_hf(small)
    with pytest.raises(ValueError) as caught:
        family.from_hf(small | changed, where="models/x/config.json")
    for part in ("models/x/config.json", *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize(
    ("model_type", "changed", "field"),
    [
        ("gpt2", {"norm": "rms", "norm_bias": False}, "norm"),
        ("gpt2", {"o_bias": False}, "o_bias"),
        ("gpt2", {"attention_scale": 0.3}, "attention_scale"),
        ("btlm", {"position_offset": 2}, "position_offset"),
        ("opt", {"norm_eps": 1e-6}, "norm_eps"),
        ("bloom", {"hidden_width": 40}, "hidden_width"),
        ("gptj", {"rope_theta": 5000.0}, "rope_theta"),
        ("gpt_neox", {"shared_norm": True}, "shared_norm"),
    ],
)
def test_what_a_family_lacks_is_refused_on_the_way_out(model_type: str, changed: dict[str, Any], field: str) -> None:
    family = family_of(model_type, "config.json")
    config = family.from_hf({"model_type": model_type, **SMALL[model_type]})
    with pytest.raises(ValueError, match=rf"TransformerConfig\.{field} is .*{model_type}"):
        family.to_hf(dataclasses.replace(config, **changed), dtype="float32")


ALIKE: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "sizes of a GPT-2": (
        "gpt2",
        {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32},
        {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 32},
    ),
    "sizes of a GPT-J": (
        "gptj",
        {"n_embd": 16, "n_layer": 3, "n_head": 4, "n_positions": 32},
        {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 4, "max_position_embeddings": 32},
    ),
    "sizes of a BLOOM": (
        "bloom",
        {"hidden_size": 12, "n_layer": 3, "n_head": 3},
        {"n_embed": 12, "num_hidden_layers": 3, "num_attention_heads": 3},
    ),
    "rotation of a GPT-NeoX": (
        "gpt_neox",
        {"rotary_pct": 0.5, "rotary_emb_base": 500},
        {"rope_parameters": {"rope_type": "default", "rope_theta": 500.0, "partial_rotary_factor": 0.5}},
    ),
    "rotation of a GPT-NeoX, in the words between": (
        "gpt_neox",
        {"rotary_pct": 0.5, "rotary_emb_base": 500, "rope_scaling": {"type": "linear", "factor": 2.0}},
        {
            "partial_rotary_factor": 0.5,
            "rope_theta": 500,
            "rope_scaling": {"rope_type": "linear", "factor": 2.0},
        },
    ),
}


@pytest.mark.parametrize("which", ALIKE)
def test_both_dialects_mean_the_same(which: str) -> None:
    model_type, *dialects = ALIKE[which]
    family = family_of(model_type, "config.json")
    sizes = set().union(*dialects) if "sizes" in which else set()
    common = {key: value for key, value in SMALL[model_type].items() if key not in sizes}
    one, other, both = (
        family.from_hf({"model_type": model_type, **common, **said})
        for said in (*dialects, {**dialects[0], **dialects[1]})
    )
    assert one == other == both
    assert one != family.from_hf({"model_type": model_type, **SMALL[model_type]})


@pytest.mark.parametrize(("width", "rotated"), [(44, 30), (49, 2), (96, 24)])
def test_the_share_of_a_head_that_rotates_survives_its_rounding(width: int, rotated: int) -> None:
    family = family_of("gpt_neox", "config.json")
    sizes = {"hidden_size": 2 * width, "rotary_pct": (rotated + 0.5) / width}
    config = family.from_hf({"model_type": "gpt_neox", **SMALL["gpt_neox"], **sizes})
    assert config.rope_width == rotated
    written = family.to_hf(config, dtype="float32")
    assert int(width * written["rotary_pct"]) == int(width * written["rope_parameters"]["partial_rotary_factor"])
    assert family.from_hf(written) == config


@pytest.mark.torch
@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if config["model_type"] != "btlm"])
def test_transformers_reads_the_same_from_what_we_write(name: str) -> None:
    from transformers import CONFIG_MAPPING

    config = CONFIGS[name]
    family = family_of(config["model_type"], "config.json")
    written = family.to_hf(family.from_hf(config), dtype="float16", extra=family.extra(config))
    read = CONFIG_MAPPING[config["model_type"]].from_dict
    theirs, ours = (read(dict(one | {"torch_dtype": "float16"})).to_dict() for one in (config, written))
    beside = {"rope_theta", "partial_rotary_factor"}
    alike = MEANT_ALIKE.get(name, {})
    assert {**theirs, **{key: alike[key] for key in alike if key in theirs}} == {
        key: value for key, value in ours.items() if key not in beside
    }
