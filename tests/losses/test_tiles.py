"""Gradients in tiles of tokens × words: as closed forms in float64, whatever the tile."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.losses import TokenHead, token_divergence, token_logprobs_and_entropy
from jaxrefine.losses.tiles import make_tiles
from jaxrefine.losses.vocabulary import Loop


def softmax(logits):
    e = np.exp(logits - logits.max(axis=1, keepdims=True))
    return e / e.sum(axis=1, keepdims=True)


@pytest.mark.parametrize(
    ("tokens", "vocab", "chunk_size", "tile"),
    [
        (24, 60, 24, (24, 60, 1)),  # a single chunk is a single tile
        (24, 60, 8, (24, 20, 3)),  # all tokens, a third of the words
        (23, 60, 8, (23, 20, 3)),
        (24, 59, 8, (24, 20, 2)),  # two blocks of 20 words and one of 19
        (60, 24, 5, (12, 8, 3)),  # several chunks of tokens for each block
        (60, 4, 12, (12, 4, 1)),  # wide enough already
    ],
    ids=str,
)
def test_gradients_are_the_closed_forms(tokens, vocab, chunk_size, tile):
    tiles = make_tiles(Loop(chunk_size, -(-tokens // chunk_size), vocab, None), tokens, vocab)
    assert (tiles.loop.rows, tiles.words, tiles.num_blocks) == tile

    rng = np.random.default_rng(0)
    hidden, embedding = rng.normal(size=(tokens, 6)), rng.normal(size=(vocab, 6))
    targets, a, b = rng.integers(0, vocab, tokens), rng.normal(size=tokens), rng.normal(size=tokens)

    def weighted(hidden, embedding):
        logprobs, entropy = token_logprobs_and_entropy(hidden, embedding, jnp.asarray(targets), chunk_size=chunk_size)
        return jnp.sum(jnp.asarray(a, jnp.float32) * logprobs) + jnp.sum(jnp.asarray(b, jnp.float32) * entropy)

    arrays = (jnp.asarray(hidden, jnp.float32), jnp.asarray(embedding, jnp.float32))
    by_hidden, by_embedding = jax.jit(jax.grad(weighted, argnums=(0, 1)))(*arrays)

    p = softmax(hidden @ embedding.T)
    entropy = -(p * np.log(p)).sum(axis=1, keepdims=True)
    by_logits = (np.eye(vocab)[targets] - p) * a[:, None] - p * (np.log(p) + entropy) * b[:, None]
    for got, wanted in ((by_hidden, by_logits @ embedding), (by_embedding, by_logits.T @ hidden)):
        np.testing.assert_allclose(got, wanted, rtol=0, atol=2e-6 * np.abs(wanted).max())


def test_both_heads_of_a_divergence_have_their_gradients_in_tiles():
    rng = np.random.default_rng(0)
    widths, vocab, tokens = (6, 4), 59, 24
    hidden = [rng.normal(size=(tokens, width)) for width in widths]
    embeddings = [rng.normal(size=(vocab, width)) for width in widths]
    g = rng.normal(size=tokens)

    def weighted(hidden, embeddings):
        student, teacher = (TokenHead(hidden=h, embedding=w) for h, w in zip(hidden, embeddings, strict=True))
        return jnp.sum(jnp.asarray(g, jnp.float32) * token_divergence(student, teacher, learns="both", chunk_size=8))

    arrays = [[jnp.asarray(x, jnp.float32) for x in xs] for xs in (hidden, embeddings)]
    by_hidden, by_embeddings = jax.jit(jax.grad(weighted, argnums=(0, 1)))(*arrays)

    s, t = (softmax(h @ w.T) for h, w in zip(hidden, embeddings, strict=True))
    apart = np.log(t) - np.log(s)
    divergence = (t * apart).sum(axis=1, keepdims=True)
    for i, by_logits in enumerate(((s - t) * g[:, None], t * (apart - divergence) * g[:, None])):
        wanted = by_logits @ embeddings[i], by_logits.T @ hidden[i]
        for got, want in zip((by_hidden[i], by_embeddings[i]), wanted, strict=True):
            np.testing.assert_allclose(got, want, rtol=0, atol=2e-6 * np.abs(want).max())
