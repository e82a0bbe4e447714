"""The divergence of two models' next tokens: against float64 NumPy, in value and gradient, alone and on a mesh."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.losses.distillation import TokenHead, token_divergence
from jaxrefine.sharding import MeshConfig, make_mesh

OPTIONS = ({}, {"temperature": 0.6, "softcap": 2.5})
"""Of the student, and of the teacher."""


def make_inputs(num_tokens=13, vocab=29, widths=(8, 6), dtype=jnp.float32):
    """(hidden states, embedding) of the student and of the teacher."""
    rng = np.random.default_rng(0)
    arrays = [[rng.normal(size=(num_tokens, width)), rng.normal(size=(vocab, width))] for width in widths]
    return jax.tree.map(lambda x: jnp.asarray(x, dtype), arrays)


def heads(inputs):
    return [TokenHead(hidden=h, embedding=w, **options) for (h, w), options in zip(inputs, OPTIONS, strict=True)]


WEIGHTS = np.random.default_rng(1).normal(size=64)


def outcome(inputs, **options):
    @functools.partial(jax.value_and_grad, has_aux=True)
    def weighted(inputs):
        values = token_divergence(*heads(inputs), **options)
        return jnp.sum(values * jnp.asarray(WEIGHTS[: values.shape[0]], jnp.float32)), values

    (_, values), gradients = jax.jit(weighted)(inputs)
    return values, gradients


def log_softmax(hidden, embedding, temperature=1.0, softcap=None):
    logits = hidden @ embedding.T
    logits = (logits if softcap is None else softcap * np.tanh(logits / softcap)) / temperature
    return logits - np.log(np.exp(logits).sum(1, keepdims=True))


def by_numpy(arrays, direction):
    s, t = (log_softmax(*pair, **options) for pair, options in zip(arrays, OPTIONS, strict=True))
    first, second = (t, s) if direction == "forward" else (s, t)
    return (np.exp(first) * (first - second)).sum(1)


@pytest.mark.parametrize("chunk_size", [None, 4])
@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_values_and_gradients_equal_numpy_in_float64(direction, chunk_size):
    inputs = make_inputs(num_tokens=5, vocab=7, widths=(3, 2))
    values, gradients = outcome(inputs, direction=direction, learns="both", chunk_size=chunk_size)
    arrays = jax.tree.map(lambda x: np.asarray(x, np.float64), inputs)
    np.testing.assert_allclose(values, by_numpy(arrays, direction), rtol=1e-5)
    for model, pair in enumerate(gradients):
        for part, gradient in enumerate(pair):
            for place in np.ndindex(gradient.shape):
                sums = []
                for step in (1e-6, -1e-6):
                    moved = [[x.copy() for x in one] for one in arrays]
                    moved[model][part][place] += step
                    sums.append(WEIGHTS[:5] @ by_numpy(moved, direction))
                np.testing.assert_allclose(gradient[place], (sums[0] - sums[1]) / 2e-6, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("direction", ["forward", "reverse"])
def test_a_teacher_that_does_not_learn_has_no_gradient_and_the_student_the_same(direction):
    inputs = make_inputs()
    _, (student, teacher) = outcome(inputs, direction=direction, chunk_size=4)
    _, (both, _) = outcome(inputs, direction=direction, learns="both", chunk_size=4)
    assert all((x == 0).all() for x in teacher)
    for x, y in zip(student, both, strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-6 * np.abs(y).max())


def test_a_model_does_not_diverge_from_itself():
    [(hidden, embedding), _] = make_inputs()
    head = TokenHead(hidden=hidden, embedding=embedding)
    same = TokenHead(hidden=hidden, embedding=embedding)
    np.testing.assert_allclose(token_divergence(head, same), np.zeros(13), atol=1e-6)


@pytest.mark.parametrize("vocab", [32, 29])
@pytest.mark.parametrize("chunk_size", [None, 16])
def test_a_mesh_changes_neither_values_nor_gradients(vocab, chunk_size):
    inputs = make_inputs(num_tokens=64, vocab=vocab)
    wanted = outcome(inputs, learns="both", chunk_size=chunk_size)
    with jax.set_mesh(make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))):
        got = outcome(inputs, learns="both", chunk_size=chunk_size)
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=1e-5 * np.abs(y).max())


def test_half_precision_keeps_its_dtypes():
    inputs = make_inputs(dtype=jnp.bfloat16)
    values, gradients = outcome(inputs, learns="both", chunk_size=4)
    assert values.dtype == jnp.float32
    assert [x.dtype for x in jax.tree.leaves(gradients)] == [jnp.bfloat16] * 4


def test_temporary_memory_does_not_grow_with_tokens_times_vocabulary():
    def temporary(num_tokens):
        shapes = [[jax.ShapeDtypeStruct((n, 8), jnp.float32) for n in (num_tokens, 32_000)]] * 2
        total = lambda inputs: jnp.sum(token_divergence(*heads(inputs), chunk_size=256))  # noqa: E731
        return jax.jit(jax.grad(total)).lower(shapes).compile().memory_analysis().temp_size_in_bytes

    assert temporary(4096) - temporary(1024) < 0.01 * 3072 * 4 * 32_000


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"hidden": jnp.zeros((12, 6))}, "student.hidden has 13 tokens and teacher.hidden 12"),
        ({"embedding": jnp.zeros((30, 6))}, "student.embedding has 29 words and teacher.embedding 30"),
    ],
)
def test_models_that_cannot_be_compared_are_refused(change, message):
    (hidden, embedding), (other, others) = make_inputs()
    teacher = TokenHead(**{"hidden": other, "embedding": others} | change)
    with pytest.raises(ValueError, match=message):
        token_divergence(TokenHead(hidden=hidden, embedding=embedding), teacher)
