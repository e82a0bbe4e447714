"""Chunked token log-probs: the plain form's values and gradients, in memory that does not grow with the tokens."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.losses import token_logprobs, token_logprobs_and_entropy
from jaxrefine.losses.vocabulary import CHUNK_ELEMENTS, CHUNK_TOKENS, default_chunk_size

FORMS = [{}, {"temperature": 0.7}, {"softcap": 3.0}, {"temperature": 1.9, "softcap": 2.0}]


def naive(hidden, embedding, targets, *, temperature=1.0, softcap=None):
    """(log-probs, entropies) with all logits at once, differentiated by JAX."""
    logits = jnp.dot(hidden, embedding.astype(hidden.dtype).T, preferred_element_type=jnp.float32)
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    log_p = jax.nn.log_softmax(logits / temperature)
    return jnp.take_along_axis(log_p, targets[:, None], axis=1)[:, 0], -jnp.sum(jnp.exp(log_p) * log_p, axis=1)


def make_inputs(num_tokens=13, width=8, vocab=29, seed=0, dtype=jnp.float32):
    rng = np.random.default_rng(seed)
    hidden = jnp.asarray(rng.normal(size=(num_tokens, width)), dtype)
    embedding = jnp.asarray(rng.normal(size=(vocab, width)), jnp.float32)
    return hidden, embedding, jnp.asarray(rng.integers(0, vocab, num_tokens), jnp.int32)


def weigh(num_tokens, seed=1):
    rng = np.random.default_rng(seed)
    return [jnp.asarray(rng.normal(size=num_tokens), jnp.float32) for _ in range(2)]


def outcome(function, hidden, embedding, targets, **form):
    """Values, and gradients of a weighted sum by hidden states and embedding."""
    a, b = weigh(hidden.shape[0])

    def weighted(hidden, embedding):
        logprobs, entropy = function(hidden, embedding, targets, **form)
        return jnp.sum(a * logprobs) + jnp.sum(b * entropy), (logprobs, entropy)

    return jax.jit(jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True))(hidden, embedding)


def assert_close(got, wanted, tolerance):
    """Relative to the largest entry: single entries may cancel."""
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, rtol=tolerance, atol=tolerance * np.abs(y).max())


@pytest.mark.parametrize(
    ("form", "chunk_size"), [*((form, 4) for form in FORMS), (FORMS[0], None), (FORMS[3], 1), (FORMS[3], 13)], ids=str
)
def test_values_and_gradients_equal_the_plain_form(form, chunk_size):
    inputs = make_inputs()
    got = outcome(functools.partial(token_logprobs_and_entropy, chunk_size=chunk_size), *inputs, **form)
    assert_close(got, outcome(naive, *inputs, **form), 1e-5)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_without_the_entropy_the_log_probs_are_the_same(chunk_size):
    hidden, embedding, targets = make_inputs()
    both = functools.partial(token_logprobs_and_entropy, chunk_size=chunk_size)
    one = functools.partial(token_logprobs, chunk_size=chunk_size)
    total = lambda function: lambda h, w: jnp.sum(jnp.arange(13.0) * function(h, w, targets))  # noqa: E731
    got = jax.jit(jax.value_and_grad(total(one), argnums=(0, 1)))(hidden, embedding)
    wanted = jax.jit(jax.value_and_grad(total(lambda *x: both(*x)[0]), argnums=(0, 1)))(hidden, embedding)
    assert_close(got, wanted, 1e-6)


@pytest.mark.parametrize("chunk_size", [None, 4])
def test_bfloat16_states_agree_with_the_plain_form_and_gradients_keep_their_dtypes(chunk_size):
    hidden, embedding, targets = make_inputs(dtype=jnp.bfloat16)
    function = functools.partial(token_logprobs_and_entropy, chunk_size=chunk_size)
    (got_sum, got), got_gradients = outcome(function, hidden, embedding, targets)
    (_, wanted), wanted_gradients = outcome(naive, hidden, embedding, targets)
    assert_close(got, wanted, 1e-5)  # forward: the same products, fp32 after them
    assert got_sum.dtype == jnp.float32
    assert [g.dtype for g in got_gradients] == [jnp.bfloat16, jnp.float32]
    assert_close(got_gradients, wanted_gradients, 2e-2)  # backward: rounded to 8 bits before both products


def test_the_gradient_of_an_fp32_embedding_is_gathered_in_fp32():
    # 4096 equal tokens: 4096 times the gradient of one. Summed in bf16 it would stop growing at about 256 times.
    hidden = jnp.ones((4096, 4), jnp.bfloat16)
    embedding, targets = jnp.zeros((2, 4)), jnp.zeros(4096, jnp.int32)
    total = lambda w: jnp.sum(token_logprobs(hidden, w, targets, chunk_size=16))  # noqa: E731
    by_embedding = jax.jit(jax.grad(total))(embedding)
    np.testing.assert_allclose(by_embedding, [[2048.0] * 4, [-2048.0] * 4])


@pytest.mark.parametrize("form", FORMS, ids=str)
def test_gradients_agree_with_finite_differences_in_float64(form):
    hidden, embedding, targets = (np.asarray(x) for x in make_inputs(num_tokens=5, width=3, vocab=7))
    a, b = (np.asarray(x, np.float64) for x in weigh(5))

    def weighted(hidden, embedding):
        logits = hidden.astype(np.float64) @ embedding.astype(np.float64).T
        if form.get("softcap"):
            logits = form["softcap"] * np.tanh(logits / form["softcap"])
        logits /= form.get("temperature", 1.0)
        log_p = logits - np.log(np.exp(logits).sum(1, keepdims=True))
        return a @ log_p[np.arange(5), targets] - b @ (np.exp(log_p) * log_p).sum(1)

    function = functools.partial(token_logprobs_and_entropy, chunk_size=2)
    (value, _), found = outcome(function, jnp.asarray(hidden), jnp.asarray(embedding), jnp.asarray(targets), **form)
    np.testing.assert_allclose(value, weighted(hidden, embedding), rtol=1e-5)
    arrays = [hidden.astype(np.float64), embedding.astype(np.float64)]
    for index, gradient in enumerate(found):
        for place in np.ndindex(arrays[index].shape):
            moved = []
            for sign in (1e-6, -1e-6):
                shifted = [x.copy() for x in arrays]
                shifted[index][place] += sign
                moved.append(weighted(*shifted))
            np.testing.assert_allclose(gradient[place], (moved[0] - moved[1]) / 2e-6, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [1e4, -1e4])
def test_extreme_logits_stay_finite(size):
    hidden, embedding = jnp.full((3, 1), size), jnp.array([[1.0], [0.0], [-1.0]])
    (_, (logprobs, entropy)), gradients = outcome(
        functools.partial(token_logprobs_and_entropy, chunk_size=2), hidden, embedding, jnp.arange(3, dtype=jnp.int32)
    )
    np.testing.assert_allclose(logprobs, -1e4 * np.array([0, 1, 2]) if size > 0 else -1e4 * np.array([2, 1, 0]))
    np.testing.assert_array_equal(entropy, np.zeros(3))
    assert all(np.all(np.isfinite(g)) for g in gradients)


def test_no_tokens_have_no_log_probs_and_zero_gradients():
    hidden, embedding, targets = make_inputs(num_tokens=0)
    (_, (logprobs, entropy)), gradients = outcome(token_logprobs_and_entropy, hidden, embedding, targets)
    assert logprobs.shape == entropy.shape == (0,)
    assert gradients[0].shape == (0, 8)
    np.testing.assert_array_equal(gradients[1], np.zeros((29, 8)))


def test_tokens_with_a_zero_cotangent_give_no_gradient():
    hidden, embedding, targets = make_inputs()
    where = np.arange(13) % 3 != 0
    total = lambda h, w: jnp.sum(jnp.where(where, token_logprobs(h, w, targets, chunk_size=4), 0.0))  # noqa: E731
    by_hidden, by_embedding = jax.jit(jax.grad(total, argnums=(0, 1)))(hidden, embedding)
    np.testing.assert_array_equal(by_hidden[~where], 0.0)
    alone = jax.jit(jax.grad(lambda w: jnp.sum(token_logprobs(hidden[where], w, targets[where]))))(embedding)
    np.testing.assert_allclose(by_embedding, alone, rtol=1e-5, atol=1e-5)


def test_vmap_over_two_models_equals_each_alone():
    inputs = [make_inputs(seed=seed) for seed in (0, 1)]
    stacked = jax.vmap(functools.partial(token_logprobs, chunk_size=4))(
        *(jnp.stack(x) for x in zip(*inputs, strict=True))
    )
    for got, one in zip(stacked, inputs, strict=True):
        np.testing.assert_allclose(got, naive(*one)[0], rtol=1e-5, atol=1e-5)


def temporary_bytes(function, num_tokens, vocab=32_000, width=16):
    """What XLA sets aside for value and gradients beside inputs and outputs."""
    shapes = (
        jax.ShapeDtypeStruct((num_tokens, width), jnp.float32),
        jax.ShapeDtypeStruct((vocab, width), jnp.float32),
        jax.ShapeDtypeStruct((num_tokens,), jnp.int32),
    )
    total = lambda h, w, t: jnp.sum(function(h, w, t))  # noqa: E731
    compiled = jax.jit(jax.value_and_grad(total, argnums=(0, 1))).lower(*shapes).compile()
    return compiled.memory_analysis().temp_size_in_bytes


def test_temporary_memory_does_not_grow_with_tokens_times_vocabulary():
    chunked = {m: temporary_bytes(token_logprobs, m) for m in (1024, 2048, 4096, 8192)}
    plain = {m: temporary_bytes(lambda *x: naive(*x)[0], m) for m in (2048, 8192)}
    logits = 4 * 32_000  # bytes of one token's
    assert plain[8192] - plain[2048] > 0.9 * 6144 * logits  # the measure does see tokens × vocabulary
    assert chunked[8192] - chunked[2048] < 0.01 * 6144 * logits
    assert chunked[8192] < 3.5 * CHUNK_TOKENS * logits
    assert chunked[8192] < 0.5 * plain[8192]


def test_smaller_chunks_need_less_memory():
    sizes = [temporary_bytes(functools.partial(token_logprobs, chunk_size=chunk), 2048) for chunk in (64, 512)]
    assert sizes[0] < 0.35 * sizes[1]


def test_default_chunks_are_few_even_and_bounded():
    for num_tokens in (1, 7, 1000, 1024, 5000, 8192, 100_003):
        for vocab in (64, 1024, 32_000, 128_256, 10_000_000):
            rows = default_chunk_size(num_tokens, vocab)
            assert rows * vocab <= CHUNK_ELEMENTS or rows <= CHUNK_TOKENS
            num_chunks = -(-num_tokens // rows)
            fewest = -(-num_tokens // max(CHUNK_ELEMENTS // vocab, CHUNK_TOKENS))
            assert fewest <= num_chunks <= 2 * fewest
            assert rows * num_chunks - num_tokens < num_chunks
    assert default_chunk_size(4096, 1024) == 4096  # a small vocabulary: one chunk
    assert default_chunk_size(8192, 32_000, num_shards=8) == 8192  # 1024 tokens on each of 8 devices


@pytest.mark.parametrize(
    ("form", "message"),
    [
        ({"chunk_size": 0}, "chunk_size is at least 1 token, given 0"),
        ({"temperature": 0.0}, "temperature is a finite number > 0"),
        ({"softcap": -1.0}, "softcap is a finite number > 0"),
    ],
)
def test_impossible_settings_are_refused(form, message):
    with pytest.raises(ValueError, match=message):
        token_logprobs(*make_inputs(), **form)
