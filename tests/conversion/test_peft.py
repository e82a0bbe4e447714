"""Adapters in peft's layout: against its own definition, and against peft itself where it is installed."""

from __future__ import annotations

import json
import math
import pathlib
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxrefine.conversion.apply import by_path
from jaxrefine.conversion.peft import load_adapters, save_adapters
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.models.families import family_of
from jaxrefine.models.lora import LoraConfig, init_adapters, merged
from tests.conversion.cases import CASES, FIRST_KNOWN
from tests.conversion.checkpoints import tensors_of, write_checkpoint
from tests.conversion.logits import decoder_logits, relative_error
from tests.conversion.make_reference import tokens_of
from tests.conversion.oracle import load_transformers, logits_of

LORA = LoraConfig(rank=3, alpha=12.0)
SOME = LoraConfig(rank=2, alpha=4.0, targets=("attention/(query|value)",), rank_stabilized=True)
FUSED = ["gpt2", "falcon-7b", "pythia", "bloom"]


def drawn(params: Any, lora: LoraConfig, seed: int = 0) -> Any:
    """Adapters far from zero."""
    with jax.disable_jit():
        adapters = init_adapters(jax.random.key(seed), params, lora)
    rng = np.random.default_rng(seed)
    return jax.tree.map(lambda x: x + jnp.asarray(0.1 * rng.normal(size=x.shape), jnp.float32), adapters)


def model(directory: pathlib.Path, name: str) -> tuple[Any, Any, str]:
    attributes = CASES[name].attributes
    config, params = load_pretrained(write_checkpoint(directory, attributes, tensors_of(attributes)))
    return config, params, attributes["model_type"]


def whole(params: Any, adapters: Any, lora: LoraConfig) -> Any:
    """``merged`` without a compilation for each shape of each family."""
    with jax.disable_jit():
        return merged(params, adapters, lora)


def merged_by_hand(tensors: dict[str, np.ndarray], directory: pathlib.Path, transposed: bool) -> dict[str, np.ndarray]:
    """W + alpha / r · B A of every module that the files name, by peft's definition, in float64."""
    attributes = json.loads((directory / "adapter_config.json").read_text())
    found = load_file(directory / "adapter_model.safetensors")
    result = dict(tensors)
    for name, a in found.items():
        if not name.endswith(".lora_A.weight"):
            continue
        module = name.removeprefix("base_model.model.").removesuffix(".lora_A.weight")
        own = [alpha for key, alpha in attributes["alpha_pattern"].items() if module.endswith(key)]
        ranks = [rank for key, rank in attributes["rank_pattern"].items() if module.endswith(key)]
        rank = (ranks or [attributes["r"]])[0]
        assert a.shape[0] == rank
        assert any(module.endswith(f".{target}") for target in attributes["target_modules"])
        scale = (own or [attributes["lora_alpha"]])[0] / (math.sqrt(rank) if attributes["use_rslora"] else rank)
        b = found[name.replace("lora_A", "lora_B")]
        product = scale * (b.astype(np.float64) @ a.astype(np.float64))
        weight = result[f"{module}.weight"]
        result[f"{module}.weight"] = (weight + (product.T if transposed else product)).astype(np.float32)
    return result


@pytest.mark.parametrize(
    ("name", "lora"),
    [*((name, LORA) for name in (*FIRST_KNOWN, "falcon-40b")), *((name, SOME) for name in ("llama-1", *FUSED))],
)
def test_adapters_merged_into_their_tensors_are_the_merged_model(
    tmp_path: pathlib.Path, name: str, lora: LoraConfig
) -> None:
    config, params, family = model(tmp_path / "base", name)
    adapters = drawn(params, lora)
    save_adapters(tmp_path / "adapters", config, adapters, lora, family=family)
    attributes = CASES[name].attributes
    tensors = merged_by_hand(tensors_of(attributes), tmp_path / "adapters", family in ("gpt2", "btlm"))
    _, theirs = load_pretrained(write_checkpoint(tmp_path / "whole", attributes, tensors))
    ours, theirs = by_path(whole(params, adapters, lora)), by_path(theirs)
    changed = 0
    for path, leaf in theirs.items():
        np.testing.assert_allclose(ours[path], leaf, rtol=0, atol=1e-6 * np.abs(leaf).max(), err_msg=path)
        changed += not np.array_equal(leaf, by_path(params)[path])
    assert changed == len(by_path(adapters)) / 2


@pytest.mark.parametrize("name", ["llama-1", *FUSED])
def test_adapters_come_back_and_a_second_time_bit_for_bit(tmp_path: pathlib.Path, name: str) -> None:
    config, params, family = model(tmp_path / "base", name)
    adapters = drawn(params, LORA)
    save_adapters(tmp_path / "a", config, adapters, LORA, family=family)
    once = load_adapters(tmp_path / "a", config, family=family)
    ours, back = by_path(whole(params, adapters, LORA)), by_path(whole(params, once.adapters, once.lora))
    for path, leaf in ours.items():
        np.testing.assert_allclose(back[path], leaf, rtol=0, atol=1e-6 * np.abs(leaf).max(), err_msg=path)
    save_adapters(tmp_path / "b", config, once.adapters, once.lora, family=family)
    for file in ("adapter_model.safetensors", "adapter_config.json"):
        assert (tmp_path / "b" / file).read_bytes() == (tmp_path / "a" / file).read_bytes()


def peft_logits(directory: pathlib.Path, adapters: pathlib.Path, tokens: np.ndarray, oracle: dict[str, Any]) -> Any:
    torch = pytest.importorskip("torch", reason="peft works with torch models")
    peft = pytest.importorskip("peft", reason="the library that the layout is of")
    with torch.no_grad():
        return logits_of(peft.PeftModel.from_pretrained(load_transformers(directory, oracle), adapters), tokens, None)


@pytest.mark.parametrize("name", ["llama-1", "gemma-1", *FUSED])
def test_peft_computes_the_logits_of_our_merged_model(tmp_path: pathlib.Path, name: str) -> None:
    config, params, family = model(tmp_path / "base", name)
    adapters = drawn(params, LORA)
    save_adapters(tmp_path / "adapters", config, adapters, LORA, family=family)
    tokens = tokens_of(config.vocab_size)
    theirs = peft_logits(tmp_path / "base", tmp_path / "adapters", tokens, CASES[name].oracle or {}).numpy()
    ours = decoder_logits(config, whole(params, adapters, LORA), tokens)
    assert relative_error(ours, theirs) <= 1e-4
    assert relative_error(decoder_logits(config, params, tokens), theirs) > 1e-2


@pytest.mark.parametrize(("name", "stabilized"), [("llama-1", True), *((name, False) for name in ("llama-1", *FUSED))])
def test_what_peft_saves_is_read(tmp_path: pathlib.Path, name: str, stabilized: bool) -> None:
    torch = pytest.importorskip("torch", reason="peft works with torch models")
    peft = pytest.importorskip("peft", reason="the library that the layout is of")
    config, params, family = model(tmp_path / "base", name)
    theirs = peft.get_peft_model(
        load_transformers(tmp_path / "base", CASES[name].oracle or {}),
        peft.LoraConfig(
            r=4,
            lora_alpha=6,
            use_rslora=stabilized,
            target_modules=["q_proj", "up_proj"] if name == "llama-1" and stabilized else "all-linear",
            alpha_pattern={"0.mlp.up_proj": 10} if name == "llama-1" else {},
            layers_to_transform=[1] if name == "llama-1" and stabilized else None,
            fan_in_fan_out=family == "gpt2",
            task_type="CAUSAL_LM",
        ),
    )
    torch.manual_seed(0)
    with torch.no_grad():
        for key, tensor in theirs.named_parameters():
            if "lora_B" in key:
                tensor.normal_(0, 0.2)
        tokens = tokens_of(config.vocab_size)
        expected = logits_of(theirs, tokens, None).numpy()
    theirs.save_pretrained(tmp_path / "adapters")
    found = load_adapters(tmp_path / "adapters", config, family=family)
    assert (found.lora.rank, found.lora.rank_stabilized, found.saved) == (4, stabilized, {})
    assert relative_error(decoder_logits(config, whole(params, found.adapters, found.lora), tokens), expected) <= 1e-4
    assert relative_error(decoder_logits(config, params, tokens), expected) > 1e-2


def test_one_matrix_read_by_query_key_and_value_stays_one(tmp_path: pathlib.Path) -> None:
    config, params, family = model(tmp_path / "base", "gpt2")
    adapters = drawn(params, LoraConfig(rank=3, alpha=12.0, targets=("attention/(query|key|value)",)))
    block = adapters["layers"]["attention"]
    block["key"]["a"] = block["value"]["a"] = block["query"]["a"]
    save_adapters(tmp_path / "a", config, adapters, LORA, family=family)
    written = load_file(tmp_path / "a" / "adapter_model.safetensors")
    assert written["base_model.model.transformer.h.0.attn.c_attn.lora_A.weight"].shape == (3, 16)
    found = load_adapters(tmp_path / "a", config, family=family).adapters
    for path, leaf in by_path(adapters).items():
        np.testing.assert_array_equal(by_path(found)[path], leaf, err_msg=path)


def test_a_reward_head_goes_with_its_adapters(tmp_path: pathlib.Path) -> None:
    config, params, family = model(tmp_path / "base", "llama-1")
    head = np.arange(config.width, dtype=np.float32)[None]
    adapters, saved = drawn(params, LORA), {"score.weight": head}
    save_adapters(tmp_path / "a", config, adapters, LORA, family=family, saved=saved, task_type="SEQ_CLS")
    assert json.loads((tmp_path / "a" / "adapter_config.json").read_text())["modules_to_save"] == ["score"]
    np.testing.assert_array_equal(load_adapters(tmp_path / "a", config, family=family).saved["score.weight"], head)


def written(directory: pathlib.Path) -> tuple[Any, dict[str, Any], dict[str, np.ndarray]]:
    """A small LLaMA's config, and its adapters as they are on the disk."""
    config, params, family = model(directory / "base", "llama-1")
    save_adapters(directory / "a", config, drawn(params, LORA), LORA, family=family)
    return (
        config,
        json.loads((directory / "a" / "adapter_config.json").read_text()),
        load_file(directory / "a" / "adapter_model.safetensors"),
    )


QUERY = "base_model.model.model.layers.1.self_attn.q_proj"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"peft_type": "IA3"}, "peft_type is 'IA3'; allowed: 'LORA'"),
        ({"use_dora": True}, "use_dora = True changes what adapters compute"),
        ({"bias": "all"}, "bias = 'all'; allowed: 'none'"),
        ({"init_lora_weights": "pissa"}, "init_lora_weights = 'pissa' changes the base too"),
        ({"alpha_pattern": {"(a+)+b": 3}}, "alpha_pattern '(a+)+b'; allowed: names of modules"),
        ({"r": 0}, "lora.rank = 0"),
    ],
)
def test_a_config_that_means_something_else_is_refused(tmp_path: pathlib.Path, change: Any, message: str) -> None:
    config, attributes, _ = written(tmp_path)
    (tmp_path / "a" / "adapter_config.json").write_text(json.dumps(attributes | change))
    with pytest.raises(ValueError, match=re.escape(message)):
        load_adapters(tmp_path / "a", config, family="llama")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({f"{QUERY}.lora_A.weight": None}, "self_attn.q_proj has lora_B alone"),
        ({f"{QUERY}.lora_A.weight": np.zeros((3, 5), np.float32)}, "q_proj has A [3, 5] and B"),
        ({f"{QUERY}s.lora_A.weight": np.zeros((3, 4), np.float32)}, "did you mean 'model.layers.0.self_attn.q_proj'"),
        ({"base_model.model.lm_head.weight": np.zeros((3, 4), np.float32)}, "is no adapter of a linear map"),
        ({f"{QUERY.replace('.1.', '.9.')}.lora_A.weight": np.zeros((3, 4), np.float32)}, "layer 9 of a model with 3"),
    ],
)
def test_a_tensor_that_has_no_place_is_named(tmp_path: pathlib.Path, change: Any, message: str) -> None:
    config, _, tensors = written(tmp_path)
    tensors |= change
    save_file(
        {name: value for name, value in tensors.items() if value is not None},
        tmp_path / "a" / "adapter_model.safetensors",
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        load_adapters(tmp_path / "a", config, family="llama")


def test_a_truncated_file_and_missing_files_are_named(tmp_path: pathlib.Path) -> None:
    config, _, _ = written(tmp_path)
    path = tmp_path / "a" / "adapter_model.safetensors"
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(ValueError, match=r"adapter_model\.safetensors: no complete safetensors file"):
        load_adapters(tmp_path / "a", config, family="llama")
    path.unlink()
    with pytest.raises(FileNotFoundError, match=r"no adapters' weights; allowed: adapter_model\.safetensors"):
        load_adapters(tmp_path / "a", config, family="llama")
    with pytest.raises(FileNotFoundError, match=r"adapter_config\.json: no such file"):
        load_adapters(tmp_path / "base", config, family="llama")


def test_adapters_do_not_replace_a_directory_of_other_things(tmp_path: pathlib.Path) -> None:
    config, params, family = model(tmp_path / "base", "llama-1")
    with pytest.raises(ValueError, match=r"holds no adapter_config\.json"):
        save_adapters(tmp_path / "base", config, drawn(params, LORA), LORA, family=family)


def test_every_family_with_fused_maps_is_among_those_read_from_peft() -> None:
    fused = {
        case.attributes["model_type"]
        for case in CASES.values()
        if case.oracle is not None
        and any(
            rule.part is not None
            for rule in family_of(case.attributes["model_type"], "").rules(
                family_of(case.attributes["model_type"], "").from_hf(case.attributes)
            )
        )
    }
    assert fused == {CASES[name].attributes["model_type"] for name in FUSED}
