"""BTLM against its equations in float64, and folded into a plain GPT-2: the same logits, here and in transformers."""

from __future__ import annotations

import dataclasses
import pathlib
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from scipy.special import erf, expit, softmax

from jaxrefine.conversion.folding import fold_scales
from jaxrefine.conversion.pretrained import load_pretrained, save_pretrained
from jaxrefine.models.config import TransformerConfig
from tests.conversion.checkpoints import wave, write_checkpoint
from tests.conversion.families.btlm import CASES
from tests.conversion.logits import decoder_logits, relative_error
from tests.conversion.make_reference import tokens_of

TOLERANCE = 1e-4
SLOPES = np.array([2.0**-2, 2.0**-4, 2.0**-6, 2.0**-8, 2.0**-1, 2.0**-3])
"""Of six heads: four as for four, then every other of those for eight (Press et al. 2021, arXiv:2108.12409)."""


def tensors_of(attributes: dict[str, Any]) -> dict[str, np.ndarray]:
    """All tensors by name."""
    width, positions = attributes["n_embd"], attributes["n_positions"]
    hidden = attributes["n_inner"] or 4 * width
    shapes: dict[str, tuple[int, ...]] = {"transformer.wte.weight": (attributes["vocab_size"], width)}
    if attributes["position_embedding_type"] == "learned":
        shapes["transformer.wpe.weight"] = (positions, width)
    maps = {"attn.c_attn": (width, 3 * width), "attn.c_proj": (width, width)}
    maps |= {"mlp.c_fc": (width, hidden), "mlp.c_proj": (hidden, width)}
    if attributes["activation_function"] == "swiglu":
        maps["mlp.c_fc2"] = (width, hidden)
    for layer in range(attributes["n_layer"]):
        for name, shape in maps.items():
            shapes[f"transformer.h.{layer}.{name}.weight"] = shape
            shapes[f"transformer.h.{layer}.{name}.bias"] = shape[1:]
        for name in ("ln_1", "ln_2"):
            shapes |= dict.fromkeys((f"transformer.h.{layer}.{name}.{kind}" for kind in ("weight", "bias")), (width,))
    shapes |= dict.fromkeys(("transformer.ln_f.weight", "transformer.ln_f.bias"), (width,))
    return {name: 0.6 * wave(name, shape) + (1 if ".ln_" in name else 0) for name, shape in shapes.items()}


def equations(attributes: dict[str, Any], tensors: dict[str, np.ndarray], tokens: np.ndarray) -> np.ndarray:
    """Logits [B S V] in float64."""
    weights = {name.removeprefix("transformer."): value.astype(np.float64) for name, value in tensors.items()}
    B, S = tokens.shape
    heads, learned = attributes["n_head"], attributes["position_embedding_type"] == "learned"
    distance = np.arange(S)[:, None] - np.arange(S)

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        centred = x - x.mean(-1, keepdims=True)
        scaled = centred / np.sqrt((centred**2).mean(-1, keepdims=True) + attributes["layer_norm_epsilon"])
        return scaled * weights[f"{name}.weight"] + weights[f"{name}.bias"]

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ weights[f"{name}.weight"] + weights[f"{name}.bias"]

    x = weights["wte.weight"][tokens] + (weights["wpe.weight"][:S] if learned else 0)
    x = x * attributes["mup_embeddings_scale"]
    for layer in range(attributes["n_layer"]):
        fused = linear(norm(x, f"h.{layer}.ln_1"), f"h.{layer}.attn.c_attn")
        q, k, v = (part.reshape(B, S, heads, -1) for part in np.split(fused, 3, axis=-1))
        scores = np.einsum("bqhd,bkhd->bhqk", q, k) / q.shape[-1]
        if attributes.get("scale_attn_by_inverse_layer_idx"):
            scores /= layer + 1
        if not learned:
            scores -= SLOPES[:, None, None] * distance
        mixed = np.einsum("bhqk,bkhd->bqhd", softmax(np.where(distance < 0, -np.inf, scores), axis=-1), v)
        x = x + linear(mixed.reshape(B, S, -1), f"h.{layer}.attn.c_proj")
        inner = norm(x, f"h.{layer}.ln_2")
        up = linear(inner, f"h.{layer}.mlp.c_fc")
        if attributes["activation_function"] == "swiglu":
            gate = linear(inner, f"h.{layer}.mlp.c_fc2")
            up = up * gate * expit(gate)
        else:
            up = up * (1 + erf(up / np.sqrt(2))) / 2
        x = x + linear(up, f"h.{layer}.mlp.c_proj")
    scale = attributes["mup_output_alpha"] * attributes["mup_width_scale"]
    return norm(x, "ln_f") @ weights["wte.weight"].T * scale


@pytest.mark.parametrize("case", CASES)
def test_logits_are_those_of_the_equations(tmp_path: pathlib.Path, case: str) -> None:
    attributes = CASES[case]
    tensors = tensors_of(attributes)
    config, params = load_pretrained(write_checkpoint(tmp_path, attributes, tensors))
    tokens = tokens_of(config.vocab_size)
    ours = decoder_logits(config, params, tokens)
    assert relative_error(ours, equations(attributes, tensors, tokens)) <= TOLERANCE


@pytest.mark.parametrize("key", ["mup_embeddings_scale", "mup_output_alpha", "mup_scale_qk_dot_by_d"])
def test_each_scale_changes_the_logits(tmp_path: pathlib.Path, key: str) -> None:
    attributes = CASES["cerebras-gpt-mup"]
    tensors = tensors_of(attributes)
    tokens = tokens_of(attributes["vocab_size"])
    with_scale, without = (
        decoder_logits(*load_pretrained(write_checkpoint(tmp_path / name, given, tensors)), tokens)
        for name, given in (("a", attributes), ("b", {name: attributes[name] for name in attributes if name != key}))
    )
    assert relative_error(with_scale, without) > 100 * TOLERANCE


@pytest.mark.parametrize("case", CASES)
def test_folding_leaves_no_scale_and_the_same_logits(tmp_path: pathlib.Path, case: str) -> None:
    attributes = CASES[case]
    config, params = load_pretrained(write_checkpoint(tmp_path, attributes, tensors_of(attributes)))
    tokens = tokens_of(config.vocab_size)
    plain, folded = fold_scales(config, params)
    assert (plain.embed_scale, plain.logit_scale, plain.attention_scale, plain.tie_embeddings) == (1, 1, None, False)
    assert relative_error(decoder_logits(plain, folded, tokens), decoder_logits(config, params, tokens)) <= TOLERANCE


def test_folding_a_model_without_scales_changes_nothing(tmp_path: pathlib.Path) -> None:
    scales = ("mup_embeddings_scale", "mup_output_alpha", "mup_width_scale", "mup_scale_qk_dot_by_d")
    attributes = {key: value for key, value in CASES["cerebras-gpt-mup"].items() if key not in scales}
    config, params = load_pretrained(write_checkpoint(tmp_path, attributes, tensors_of(attributes)))
    plain, folded = fold_scales(config, params)
    assert plain == config
    assert folded == params


def test_a_gpt2_cannot_hold_the_scales_themselves(tmp_path: pathlib.Path) -> None:
    attributes = CASES["cerebras-gpt-mup"]
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", attributes, tensors_of(attributes)))
    with pytest.raises(ValueError, match=r"TransformerConfig\.(attention|embed|position)_scale is .*gpt2"):
        save_pretrained(tmp_path / "b", config, params, family="gpt2")
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize("mechanism", [{"qk_norm": "rms"}, {"embed_norm": True}, {"alibi_prescaled": True}])
def test_folding_across_a_norm_is_refused(mechanism: dict[str, Any]) -> None:
    config = TransformerConfig(
        vocab_size=8,
        width=8,
        num_layers=1,
        num_heads=2,
        num_kv_heads=2,
        head_width=4,
        hidden_width=8,
        embed_scale=3.0,
        attention_scale=0.1,
    )
    with pytest.raises(ValueError, match=next(iter(mechanism))):
        fold_scales(dataclasses.replace(config, **mechanism), {"embed": {"embedding": jnp.zeros((8, 8))}})


@pytest.mark.torch
def test_transformers_gives_the_logits_of_a_folded_model_as_a_gpt2(tmp_path: pathlib.Path) -> None:
    import torch
    from transformers import GPT2LMHeadModel

    attributes = CASES["cerebras-gpt-mup"]
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", attributes, tensors_of(attributes)))
    tokens = tokens_of(config.vocab_size)
    save_pretrained(tmp_path / "b", *fold_scales(config, params), family="gpt2")
    model = GPT2LMHeadModel.from_pretrained(tmp_path / "b", dtype=torch.float32).eval()
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens)).logits.numpy()
    assert relative_error(decoder_logits(config, params, tokens), theirs) <= TOLERANCE
