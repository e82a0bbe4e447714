"""Logits equal to transformers', both directions, every LLaMA variant: 1e-4 of the largest logit, in fp32."""

from __future__ import annotations

import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrefine.conversion.apply import abstract_params, by_path, nested
from jaxrefine.conversion.pretrained import load_pretrained, save_pretrained
from jaxrefine.models.families.llama import from_hf
from tests.conversion.checkpoints import VARIANTS, tensors_of, wave, write_checkpoint
from tests.conversion.logits import decoder_logits, relative_error
from tests.conversion.make_reference import REFERENCE, columns_of, tokens_of

TOLERANCE = 1e-4


def padded_rows(vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of four rows, and which of them are real: two without padding, one padded left, one padded right."""
    slots = np.arange(12)
    return np.tile(tokens_of(vocab_size), (2, 1)), np.stack([slots >= 0, slots >= 0, slots >= 5, slots < 7])


@pytest.fixture(scope="module")
def reference() -> dict[str, np.ndarray]:
    return load_file(REFERENCE)


def test_the_reference_has_every_variant_and_is_small(reference: dict[str, np.ndarray]) -> None:
    assert {name for name in reference if "/" not in name} == set(VARIANTS)
    assert REFERENCE.stat().st_size <= 100_000


@pytest.mark.parametrize("variant", VARIANTS)
def test_logits_equal_the_stored_ones(tmp_path: pathlib.Path, reference: dict[str, np.ndarray], variant: str) -> None:
    attributes = VARIANTS[variant]
    config, params = load_pretrained(write_checkpoint(tmp_path, attributes, tensors_of(attributes)))
    vocab = attributes["vocab_size"]
    ours = decoder_logits(config, params, tokens_of(vocab))[..., columns_of(vocab)]
    assert np.abs(ours - reference[variant]).max() <= TOLERANCE * reference[f"{variant}/largest"][0]


@pytest.mark.parametrize("variant", [name for name in VARIANTS if name != "llama-2-gqa"])
def test_each_mechanism_changes_the_stored_logits(reference: dict[str, np.ndarray], variant: str) -> None:
    """Otherwise parity would say nothing of it."""
    if reference[variant].shape == reference["llama-2-gqa"].shape and variant != "vocab-32001":
        difference = np.abs(reference[variant] - reference["llama-2-gqa"]).max()
        assert difference > 100 * TOLERANCE * reference[f"{variant}/largest"][0]


def transformers_logits(directory: pathlib.Path, tokens: np.ndarray, real: np.ndarray) -> np.ndarray:
    import torch
    from transformers import LlamaForCausalLM

    model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
    positions = np.maximum(real.cumsum(1) - 1, 0)
    with torch.no_grad():
        return model(
            torch.from_numpy(tokens),
            attention_mask=torch.from_numpy(real.astype(np.int64)),
            position_ids=torch.from_numpy(positions),
        ).logits.numpy()


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_what_transformers_saves_gives_its_logits(tmp_path: pathlib.Path, variant: str, dtype: str) -> None:
    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig.from_dict(dict(VARIANTS[variant])))
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            parameter.normal_(1.0 if "norm" in name else 0.0, 0.3)
    model.to(getattr(torch, dtype)).save_pretrained(tmp_path)
    config, params = load_pretrained(tmp_path)
    tokens, real = padded_rows(config.vocab_size)
    ours, theirs = decoder_logits(config, params, tokens, real), transformers_logits(tmp_path, tokens, real)
    for row in range(4):
        assert relative_error(ours[row], theirs[row], real[row]) <= TOLERANCE, row


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_transformers_gives_the_logits_of_what_we_save(tmp_path: pathlib.Path, variant: str, dtype: str) -> None:
    config = from_hf(VARIANTS[variant])
    leaves = by_path(abstract_params(config))
    params = nested({path: jnp.asarray(wave(path, leaf.shape)) for path, leaf in leaves.items()})
    save_pretrained(tmp_path, config, params, dtype=dtype)
    params = jax.tree.map(lambda leaf: leaf.astype(dtype).astype(jnp.float32), params)
    tokens, real = padded_rows(config.vocab_size)
    ours, theirs = decoder_logits(config, params, tokens, real), transformers_logits(tmp_path, tokens, real)
    for row in range(4):
        assert relative_error(ours[row], theirs[row], real[row]) <= TOLERANCE, row


@pytest.mark.torch
@pytest.mark.parametrize("num_files", [1, 3])
def test_bin_files_of_torch_give_the_same_logits(tmp_path: pathlib.Path, num_files: int) -> None:
    import json

    import torch
    from transformers import LlamaConfig, LlamaForCausalLM

    attributes = VARIANTS["llama-3.1"]
    torch.manual_seed(0)
    model = LlamaForCausalLM(LlamaConfig.from_dict(dict(attributes))).eval()
    state: dict[str, Any] = dict(model.state_dict())
    files = {f"pytorch_model-{i + 1:05d}-of-{num_files:05d}.bin": list(state)[i::num_files] for i in range(num_files)}
    if num_files == 1:
        files = {"pytorch_model.bin": list(state)}
    else:
        weight_map = {name: file for file, names in files.items() for name in names}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for file, names in files.items():
        torch.save({name: state[name] for name in names}, tmp_path / file)
    (tmp_path / "config.json").write_text(json.dumps(attributes))
    config, params = load_pretrained(tmp_path)
    tokens = tokens_of(config.vocab_size)
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens)).logits.numpy()
    assert relative_error(decoder_logits(config, params, tokens), theirs) <= TOLERANCE


@pytest.mark.torch
def test_transformers_finds_no_tensor_missing_or_left_over_in_what_we_save(tmp_path: pathlib.Path) -> None:
    from transformers import LlamaForCausalLM

    for variant in ("llama-3.1", "llama-3.2-tied", "attention-bias"):
        attributes = VARIANTS[variant]
        config, params = load_pretrained(write_checkpoint(tmp_path / variant / "a", attributes, tensors_of(attributes)))
        save_pretrained(tmp_path / variant / "b", config, params, max_shard_bytes=50_000, scorer={"x": jnp.ones((2,))})
        loaded: Any = LlamaForCausalLM.from_pretrained(tmp_path / variant / "b", output_loading_info=True)
        for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
            assert not loaded[1][kind], (variant, kind)
