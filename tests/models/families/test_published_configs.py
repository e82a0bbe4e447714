"""Published models by their config.json: read, counted without a weight in memory, written back without a loss."""

from __future__ import annotations

import json
import math
from typing import Any

import jax
import pytest

from jaxrefine.conversion.apply import abstract_params
from jaxrefine.models.families import family_of
from tests.models.families import published_gpt_configs
from tests.models.families.published_configs import PUBLISHED, ROUNDED

COUNTED = PUBLISHED | published_gpt_configs.PUBLISHED
ROUGHLY_COUNTED = ROUNDED | published_gpt_configs.ROUNDED
CONFIGS = {name: config for table in (PUBLISHED, ROUNDED) for name, (config, *_) in table.items()}


def _count(config: dict[str, Any]) -> int:
    family = family_of(config["model_type"], "config.json")
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(abstract_params(family.from_hf(config))))


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_are_as_many_as_published(name: str) -> None:
    config, count = COUNTED[name]
    assert _count(config) == count


@pytest.mark.parametrize("name", ROUGHLY_COUNTED)
def test_parameters_are_as_many_as_published_to_its_last_digit(name: str) -> None:
    config, count, digit = ROUGHLY_COUNTED[name]
    assert abs(_count(config) - count) <= digit


@pytest.mark.parametrize("name", CONFIGS)
def test_a_published_config_survives_the_way_to_json_and_back(name: str) -> None:
    config = CONFIGS[name]
    family = family_of(config["model_type"], "config.json")
    ours = family.from_hf(config)
    written = json.loads(json.dumps(family.to_hf(ours, dtype="bfloat16", extra=family.extra(config))))
    as_written = family_of(written["model_type"], "config.json")
    assert as_written.from_hf(written) == ours
    assert as_written.extra(written) == family.extra(config)


@pytest.mark.parametrize("name", [name for name, config in CONFIGS.items() if "text_config" not in config])
def test_no_attribute_of_a_published_config_is_lost(name: str) -> None:
    """Those are written back in today's words, or as they were; code of its own is what transformers has taken over."""
    config = CONFIGS[name]
    family = family_of(config["model_type"], "config.json")
    written = family.to_hf(
        family.from_hf(config), dtype=config.get("torch_dtype", "float32"), extra=family.extra(config)
    )
    older = {
        "norm_eps",
        "rope_pct",
        "num_heads",
        "n_head",
        "n_head_kv",
        "n_layer",
        "sliding_window_pattern",
        "auto_map",
    }
    changed = {"architectures", "model_type"} if config["model_type"] != written["model_type"] else set()
    said_otherwise = {"hidden_act"} if config.get("hidden_act") == "gelu" else set()
    for key in set(config) - older - changed - said_otherwise - {"architectures"}:
        assert written[key] == config[key], key
