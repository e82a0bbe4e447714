"""Every family, in and out: configs, weights, logits and gradients, over the cases of ``tests/conversion/families``."""

from __future__ import annotations

import functools
import json
import pathlib
import tempfile
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrefine.conversion.apply import by_path
from jaxrefine.conversion.exporting import export
from jaxrefine.conversion.pretrained import load_pretrained, save_pretrained
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.families import FAMILIES, family_of
from jaxrefine.models.weights import Family
from jaxrefine.typing import Params
from tests.conversion.cases import CASES, FIRST, FIRST_KNOWN, KNOWN_TO_TRANSFORMERS
from tests.conversion.checkpoints import BFLOAT16, tensors_of, write_checkpoint
from tests.conversion.logits import decoder_logits, relative_error
from tests.conversion.make_reference import REFERENCE, columns_of, tokens_of
from tests.conversion.oracle import load_transformers, logits_of, transformers_logits

TOLERANCE = 1e-4


def padded_rows(vocab_size: int) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of four rows, and which of them are real: two without padding, one padded left, one padded right."""
    slots = np.arange(12)
    return np.tile(tokens_of(vocab_size), (2, 1)), np.stack([slots >= 0, slots >= 0, slots >= 5, slots < 7])


@functools.cache
def loaded(name: str) -> tuple[TransformerConfig, Params, np.ndarray]:
    """A case's config, parameters, and logits of ``padded_rows``."""
    attributes = CASES[name].attributes
    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(pathlib.Path(directory), attributes, tensors_of(attributes))
        config, params = load_pretrained(directory)
        params = jax.tree.map(jnp.array, params)
    return config, params, decoder_logits(config, params, *padded_rows(config.vocab_size))


def family_named(name: str) -> Family:
    return family_of(CASES[name].attributes["model_type"], name)


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        assert (value.dtype, value.shape) == (other[name].dtype, other[name].shape), name
        assert value.tobytes() == other[name].tobytes(), name


def test_every_family_has_cases() -> None:
    assert {case.attributes["model_type"] for case in CASES.values()} >= {
        family.model_type for family in FAMILIES.values()
    }


@pytest.mark.parametrize("name", CASES)
def test_a_config_survives_the_way_to_json_and_back(name: str) -> None:
    family, attributes = family_named(name), CASES[name].attributes
    ours = family.from_hf(attributes)
    written = json.loads(json.dumps(family.to_hf(ours, dtype="bfloat16", extra=family.extra(attributes))))
    assert family.from_hf(written) == ours
    assert family.extra(written) == family.extra(attributes)


def come_back(directory: pathlib.Path, name: str, dtype: Any = np.float32, **layout: Any) -> None:
    """Writes, loads, saves and compares a case's weights."""
    attributes = CASES[name].attributes
    tensors = tensors_of(attributes, dtype)
    config, params = load_pretrained(write_checkpoint(directory / "a", attributes, tensors, **layout))
    family = family_named(name)
    save_pretrained(directory / "b", config, params, dtype=np.dtype(dtype).name, family=family.model_type)
    assert_same_bits(load_file(directory / "b" / "model.safetensors"), tensors)


@pytest.mark.parametrize("name", CASES)
def test_weights_come_back_bit_for_bit(tmp_path: pathlib.Path, name: str) -> None:
    come_back(tmp_path, name)


@pytest.mark.parametrize("name", FIRST)
def test_a_tuned_model_is_saved_in_the_family_of_the_directory_it_came_from(tmp_path: pathlib.Path, name: str) -> None:
    attributes = CASES[name].attributes
    source = write_checkpoint(tmp_path / "a", attributes, tensors_of(attributes))
    config, params = load_pretrained(source)
    save_pretrained(tmp_path / "b", config, params, tokenizer_dir=source)
    written = json.loads((tmp_path / "b" / "config.json").read_text())
    assert family_of(written["model_type"], "b") is family_named(name)


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("name", FIRST)
def test_shards_of_half_precision_come_back_bit_for_bit(tmp_path: pathlib.Path, name: str, layout: str) -> None:
    come_back(tmp_path, name, BFLOAT16, layout=layout, num_shards=3)


@pytest.mark.parametrize("name", FIRST)
def test_a_base_checkpoint_without_its_prefix_is_read(tmp_path: pathlib.Path, name: str) -> None:
    attributes, family = CASES[name].attributes, family_named(name)
    bare = {key.removeprefix(family.prefix): value for key, value in tensors_of(attributes).items()}
    _, params = load_pretrained(write_checkpoint(tmp_path, attributes, bare))
    whole = by_path(loaded(name)[1])
    assert all(np.array_equal(leaf, whole[path]) for path, leaf in by_path(params).items())


@functools.cache
def reference(module: str) -> dict[str, np.ndarray]:
    return load_file(REFERENCE / f"{module}.safetensors")


@pytest.mark.parametrize("name", KNOWN_TO_TRANSFORMERS)
def test_logits_equal_the_stored_ones(name: str) -> None:
    stored = reference(CASES[name].module)
    config, _, logits = loaded(name)
    ours = logits[:2][..., columns_of(config.vocab_size)]
    assert np.abs(ours - stored[name]).max() <= TOLERANCE * stored[f"{name}/largest"][0]


def test_the_stored_logits_are_of_the_cases_and_small() -> None:
    stored = {path.stem: reference(path.stem) for path in REFERENCE.glob("*.safetensors")}
    found = {name for tensors in stored.values() for name in tensors if "/" not in name}
    assert found >= set(KNOWN_TO_TRANSFORMERS)
    assert sum(path.stat().st_size for path in REFERENCE.iterdir()) <= 2500 * len(found)


@pytest.mark.parametrize("name", [name for name in KNOWN_TO_TRANSFORMERS if name not in FIRST])
def test_each_mechanism_changes_the_stored_logits(name: str) -> None:
    """Otherwise parity would say nothing of it."""
    module = CASES[name].module
    first = next(other for other in FIRST if CASES[other].module == module)
    stored = reference(module)
    if stored[name].shape == stored[first].shape:
        assert np.abs(stored[name] - stored[first]).max() > 100 * TOLERANCE * stored[f"{name}/largest"][0]


@pytest.mark.torch
@pytest.mark.parametrize("name", KNOWN_TO_TRANSFORMERS)
def test_transformers_gives_the_logits_of_what_we_save(tmp_path: pathlib.Path, name: str) -> None:
    config, params, ours = loaded(name)
    family, oracle = family_named(name), CASES[name].oracle or {}
    extra = family.extra(CASES[name].attributes)
    save_pretrained(tmp_path, config, params, family=family.model_type, extra=extra, max_shard_bytes=50_000)
    tokens, real = padded_rows(config.vocab_size)
    theirs = transformers_logits(tmp_path, tokens, real, oracle)
    for row in range(4):
        assert relative_error(ours[row], theirs[row], real[row]) <= TOLERANCE, row


@pytest.mark.torch
@pytest.mark.parametrize("name", FIRST_KNOWN)
def test_what_transformers_saves_is_read(tmp_path: pathlib.Path, name: str) -> None:
    import torch

    config, params, _ = loaded(name)
    family, oracle = family_named(name), CASES[name].oracle or {}
    save_pretrained(tmp_path / "a", config, params, family=family.model_type, dtype=jnp.bfloat16)
    load_transformers(tmp_path / "a", oracle).to(torch.bfloat16).save_pretrained(tmp_path / "b")
    read, of_theirs = load_pretrained(tmp_path / "b", param_dtype=None)
    assert read == config
    rounded = jax.tree.map(lambda leaf: leaf.astype(jnp.bfloat16), params)
    assert all(np.array_equal(leaf, by_path(rounded)[path]) for path, leaf in by_path(of_theirs).items())


def gradients(config: TransformerConfig, params: Params, tokens: np.ndarray) -> Params:
    """Of the summed negative log-probabilities of each row's tokens after the first."""
    decoder = Decoder(config, dtype=jnp.float32, attention="dense")
    B, S = tokens.shape
    slots = jnp.broadcast_to(jnp.arange(S, dtype=jnp.int32), (B, S))

    @jax.jit
    @jax.grad
    def loss(params: Params) -> jax.Array:
        arrays = jnp.asarray(tokens, jnp.int32), slots, jnp.full((B, S), S, jnp.int32)
        hidden = decoder.apply({"params": params}, *arrays, method="trunk")
        logits = decoder.apply({"params": params}, method="logit_form").logits(hidden)
        logprobs = jax.nn.log_softmax(logits[:, :-1])
        return -jnp.take_along_axis(logprobs, jnp.asarray(tokens)[:, 1:, None], axis=-1).sum()

    return loss(params)


SAMPLE = ("llama-1", "gpt2", "bloom", "gemma-2", "pythia", "opt-350m")
"""One of each kind of positions, of norm placement, of parallel and of projected embeddings."""


@pytest.mark.torch
@pytest.mark.parametrize("name", SAMPLE)
def test_gradients_equal_those_of_torch(tmp_path: pathlib.Path, name: str) -> None:
    import torch

    config, params, _ = loaded(name)
    family = family_named(name)
    save_pretrained(tmp_path, config, params, family=family.model_type)
    tokens = tokens_of(config.vocab_size)
    model = load_transformers(tmp_path, CASES[name].oracle or {})
    logprobs = torch.log_softmax(logits_of(model, tokens, None)[:, :-1].float(), -1)
    (-logprobs.gather(-1, torch.from_numpy(tokens)[:, 1:, None]).sum()).backward()
    model.save_pretrained(
        tmp_path / "gradients",
        state_dict={key: parameter.grad for key, parameter in model.named_parameters() if parameter.grad is not None},
    )
    theirs = load_file(tmp_path / "gradients" / "model.safetensors")
    ours = dict(export(family.rules(config), by_path(gradients(config, params, tokens)), None, family.model_type))
    assert set(ours) == set(theirs)
    largest = max(float(np.abs(value).max()) for value in theirs.values())
    for key, value in theirs.items():
        assert np.abs(ours[key] - value).max() <= TOLERANCE * largest, key
