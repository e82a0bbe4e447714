"""Log-probs with tokens and vocabulary split over a mesh: one device's values, and what is communicated when."""

from __future__ import annotations

import functools
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrefine.losses import token_logprobs, token_logprobs_and_entropy
from jaxrefine.sharding import MeshConfig, fit_spec, make_mesh

TOKENS, WIDTH = 64, 8


def make_inputs(vocab, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(TOKENS, WIDTH)), dtype)
    embedding = jnp.asarray(rng.normal(size=(vocab, WIDTH)), jnp.float32)
    return hidden, embedding, jnp.asarray(rng.integers(0, vocab, TOKENS), jnp.int32)


def make_step(function, **options):
    """Values and gradients of a weighted sum of both results."""
    rng = np.random.default_rng(1)
    a, b = (jnp.asarray(rng.normal(size=TOKENS), jnp.float32) for _ in range(2))

    def weighted(hidden, embedding, targets):
        logprobs, entropy = function(hidden, embedding, targets, **options)
        return jnp.sum(a * logprobs) + jnp.sum(b * entropy), (logprobs, entropy)

    return jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True)


def compiled(mesh, step, inputs):
    """The step for arrays that lie as a train step has them."""
    specs = PartitionSpec(("data", "fsdp")), PartitionSpec("tensor", "fsdp"), PartitionSpec(("data", "fsdp"))
    places = [NamedSharding(mesh, fit_spec(spec, x.shape, mesh)[0]) for spec, x in zip(specs, inputs, strict=True)]
    with jax.set_mesh(mesh):
        sharded = jax.jit(step, in_shardings=places, out_shardings=((None, (places[2],) * 2), tuple(places[:2])))
        return sharded.lower(*inputs).compile(), [jax.device_put(x, s) for x, s in zip(inputs, places, strict=True)]


def assert_close(got, wanted, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max())


@pytest.mark.parametrize(
    ("sizes", "vocab", "options"),
    [
        ({"data": 8}, 96, {"chunk_size": 16}),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 96, {"chunk_size": 16}),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 95, {"chunk_size": 16, "temperature": 0.7, "softcap": 2.0}),
        ({"data": 2, "fsdp": 2, "tensor": 2}, 95, {"temperature": 0.7, "softcap": 2.0}),
        ({"data": 1, "fsdp": 1, "tensor": 8}, 9, {"chunk_size": 20}),  # 9 words on 8 devices: two each, four have none
    ],
    ids=str,
)
def test_a_mesh_changes_neither_values_nor_gradients(sizes, vocab, options):
    inputs = make_inputs(vocab)
    step = make_step(token_logprobs_and_entropy, **options)
    wanted = jax.jit(step)(*inputs)
    program, placed = compiled(make_mesh(MeshConfig(**sizes)), step, inputs)
    assert_close(program(*placed), wanted)


def test_where_a_gradient_is_scattered_a_single_chunk_is_divided_too(monkeypatch):
    monkeypatch.setattr("jaxrefine.losses.tiles.BLOCK_WORDS", 4)
    monkeypatch.setattr("jaxrefine.losses.logprobs.CHUNK_ELEMENTS", 0)  # keep no logits
    inputs = make_inputs(96)
    step = make_step(token_logprobs_and_entropy)
    wanted = jax.jit(step)(*inputs)
    program, placed = compiled(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), step, inputs)
    assert_close(program(*placed), wanted)
    inside = _collectives(program.as_text()[: program.as_text().index("\nENTRY")])
    assert [(shape.split("{")[0], kind) for shape, kind in inside] == [("f32[4,6]", "reduce-scatter")]  # 48 words in 8


@pytest.fixture(scope="module")
def text():
    """The program of one device: 16 tokens in chunks of 4, half of 96 words."""
    step = make_step(token_logprobs_and_entropy, chunk_size=16)
    program, _ = compiled(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)), step, make_inputs(96, jnp.bfloat16))
    return program.as_text()


def _collectives(text):
    kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
    return re.findall(rf"= (.*?) ({kinds})(?:-start)?\(", text)


def test_the_loops_communicate_nothing_but_each_finished_block_of_the_gradient(text):
    entry = text[text.index("\nENTRY") :]
    assert len(re.findall(r" while\(", entry)) == 2  # forward and backward
    assert _collectives(entry)
    inside = _collectives(text[: text.index("\nENTRY")])
    assert [(shape.split("{")[0], kind) for shape, kind in inside] == [("f32[4,12]", "reduce-scatter")]


def test_the_embedding_is_gathered_once_and_its_gradient_scattered_once(text):
    found = [kind for _, kind in _collectives(text)]
    assert found.count("all-gather") == 1
    assert found.count("reduce-scatter") == 1  # in a loop over four blocks of words
    [gathered] = [shape for shape, kind in _collectives(text) if kind == "all-gather"]
    assert "[48,8]" in gathered


def test_no_device_holds_logits_of_more_than_a_chunk_of_its_tokens_and_its_part_of_the_vocabulary(text):
    shapes = {tuple(map(int, dims.split(","))) for dims in re.findall(r"\b(?:f32|bf16|pred|s32)\[([\d,]+)\]", text)}
    assert {(4, 48), (16, 12)} <= shapes  # forward; backward, as many in a tile nearer to a square
    assert not [shape for shape in shapes if 96 in shape]
    assert {shape for shape in shapes if 48 in shape} <= {(4, 48), (48, 4), (48, 8), (8, 48), (48,)}


def test_tokens_that_no_mesh_divides_have_the_same_log_probs():
    hidden, embedding, targets = (x[:13] if x.shape[0] == TOKENS else x for x in make_inputs(40))
    wanted = token_logprobs(hidden, embedding, targets)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        got = jax.jit(functools.partial(token_logprobs, chunk_size=8))(hidden, embedding, targets)
    assert_close(got, wanted)


def test_a_vocabulary_that_does_not_divide_is_padded_and_that_is_said(caplog):
    shapes = [jax.ShapeDtypeStruct(x.shape, x.dtype) for x in make_inputs(95)]
    with caplog.at_level(logging.INFO, "jaxrefine"), jax.set_mesh(make_mesh(MeshConfig(data=4, tensor=2))):
        jax.eval_shape(token_logprobs, *shapes)
    assert "a vocabulary of 95 over tensor = 2: padded to 96" in caplog.text
