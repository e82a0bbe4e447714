"""The gradients of a loop over chunks, in tiles of tokens × words: never a second array of the embedding's size.

    by hidden[M, D] = Σ over words g[M, words] · weights[words, D]
    by weights[V, D] = Σ over tokens g[tokens, V]ᵀ · hidden[tokens, D]

Once the log-sum-exp of every token is known, words no longer need each other. In chunks of all words, the whole second
sum would be read and written in fp32 for every chunk; a tile of as many logits, but more tokens and fewer words,
finishes its words before it goes on to the next ones. With c chunks of tokens and b blocks of words, c·V·D + b·M·D
numbers are read and written: least where the tile is square.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrefine.losses.vocabulary import Loop, first_word, over_chunks, over_vocabulary, scattered, summed

SCATTERED_BLOCKS = 8
"""Blocks of words at least, where each is scattered over the devices that split the embedding's width …"""

BLOCK_WORDS = 1024
"""… but none of fewer words than this, for so short a product is slower than what it saves."""


class Tiles(NamedTuple):
    """How one device's gradient is divided."""

    loop: Loop
    """Over the tokens, for each block of words."""
    words: int
    """Of a block; what is left over is a smaller one."""
    num_blocks: int
    """Of that size."""


def make_tiles(loop: Loop, num_tokens: int, num_words: int) -> Tiles:
    """Tiles of at most as many logits as a chunk of the loop has, and as near to a square as tokens allow.

    Args:
        loop: over chunks of all words.
        num_tokens: of this device.
        num_words: of this device.

    >>> from jaxrefine.losses.vocabulary import Loop
    >>> tiles = make_tiles(Loop(rows=1024, num_chunks=8, vocab=128_256, shards=None), 8192, 128_256)
    >>> tiles.loop.num_chunks, tiles.words, tiles.num_blocks
    (1, 16032, 8)
    >>> make_tiles(Loop(rows=4096, num_chunks=2, vocab=1024, shards=None), 8192, 1024).num_blocks
    1
    """
    size = loop.rows * num_words
    square = num_tokens / math.sqrt(size)  # chunks c that make it one; c + square² / c is what is read and written
    around = (max(math.floor(square), 1), math.ceil(square))
    num_chunks = min(min(around, key=lambda c: c + square**2 / c), loop.num_chunks)
    rows = -(-num_tokens // num_chunks)
    fewest = max(-(-rows * num_words // size), 1)
    if loop.turned:  # one block would be an fp32 sum of the gathered embedding's size
        fewest = max(fewest, min(SCATTERED_BLOCKS, num_words // BLOCK_WORDS))
    even = (n for n in range(fewest, min(2 * fewest, num_words) + 1) if num_words % n == 0)
    words = -(-num_words // next(even, fewest))
    return Tiles(loop._replace(rows=rows, num_chunks=num_chunks), words, num_words // words)


ByProducts = Callable[[Sequence[jax.Array], Sequence[jax.Array], jax.Array, Sequence[jax.Array]], Sequence[Any]]
"""(states [C, D] and words [W, D] of each head, the first word, rows [C] …) -> of each head the gradient [C, W] by
states · wordsᵀ, or None where it does not learn."""


def gradients(
    loop: Loop,
    hidden: Sequence[jax.Array],
    weights: Sequence[jax.Array],
    rows: Sequence[jax.Array],
    by_products: ByProducts,
    dtypes: Sequence[Any],
    *,
    whole: bool = False,
) -> tuple[tuple[jax.Array | None, ...], tuple[jax.Array | None, ...]]:
    """On one device: the gradients by hidden states and embeddings, each summed over the devices that share it.

    Args:
        loop: of the forward pass.
        hidden: of each head, [M, D].
        weights: of each head, [V, D] in the dtype of its hidden states, whole in D.
        rows: [M] …, whatever ``by_products`` reads beside them.
        by_products: the gradient of a tile.
        dtypes: of each embedding; None where that head does not learn.
        whole: ``by_products`` takes all tokens and words at once, as where the forward pass kept its logits.

    Returns:
        Of each head [M, D] in the dtype of the hidden states, and [V, D] as the embedding is stored; None where it does
        not learn.
    """
    num_words = weights[0].shape[0]
    tiles = Tiles(loop, num_words, 1) if whole else make_tiles(loop, hidden[0].shape[0], num_words)
    own = first_word(loop, num_words)
    learn = [i for i, dtype in enumerate(dtypes) if dtype is not None]
    is_single = tiles.num_blocks == 1 and tiles.words == num_words

    def block(first: Any, words: Sequence[jax.Array]) -> tuple[list[jax.Array], list[jax.Array]]:
        """The part of these words in the gradients by hidden states; the gradients by these words, in fp32."""

        def chunk(sums: Any, *parts: jax.Array) -> tuple[Any, Any]:
            states, rest = parts[: len(hidden)], parts[len(hidden) :]
            found = by_products(states, words, own + first, rest)
            pairs = [by_inputs(found[i], states[i], words[i], loop) for i in learn]
            by_states = [x.astype(hidden[i].dtype) if is_single else x for i, (x, _) in zip(learn, pairs, strict=True)]
            by_words = [x for _, x in pairs]
            return by_words if sums is None else jax.tree.map(jnp.add, sums, by_words), by_states

        zeros = [jnp.zeros(loop.gradient_shape(words[i]), jnp.float32) for i in learn]
        start = None if tiles.loop.num_chunks == 1 else zeros
        by_words, by_states = over_chunks(tiles.loop, [*hidden, *rows], start, chunk)
        return by_states, [scattered(x, loop) for x in by_words]

    by_states, by_words = block(0, weights) if is_single else _over_blocks(tiles, hidden, weights, learn, block)
    of_hidden: list[jax.Array | None] = [None] * len(hidden)
    of_weights: list[jax.Array | None] = [None] * len(hidden)
    for i, states, words in zip(learn, by_states, by_words, strict=True):
        of_hidden[i] = over_vocabulary(states.astype(hidden[i].dtype), loop)
        of_weights[i] = summed(words, loop).astype(dtypes[i])
    return tuple(of_hidden), tuple(of_weights)


def _over_blocks(
    tiles: Tiles,
    hidden: Sequence[jax.Array],
    weights: Sequence[jax.Array],
    learn: Sequence[int],
    block: Callable[[Any, Sequence[jax.Array]], tuple[list[jax.Array], list[jax.Array]]],
) -> tuple[list[jax.Array], list[jax.Array]]:
    """``block`` on one block of words after the other; the first result is summed, the second joined."""

    def body(total: list[jax.Array], index: jax.Array) -> tuple[list[jax.Array], list[jax.Array]]:
        first = index * tiles.words
        words = [jax.lax.dynamic_slice_in_dim(x, first, tiles.words) for x in weights]
        by_states, by_words = block(first, words)
        return jax.tree.map(jnp.add, total, by_states), by_words

    start = [jnp.zeros(hidden[i].shape, jnp.float32) for i in learn]
    by_states, by_words = jax.lax.scan(body, start, jnp.arange(tiles.num_blocks))
    by_words = [x.reshape(-1, x.shape[-1]) for x in by_words]
    if (done := tiles.num_blocks * tiles.words) < weights[0].shape[0]:
        more, rest = block(done, [x[done:] for x in weights])
        by_states = jax.tree.map(jnp.add, by_states, more)
        by_words = [jnp.concatenate(pair) for pair in zip(by_words, rest, strict=True)]
    return by_states, by_words


def by_inputs(gradient: jax.Array, states: jax.Array, words: jax.Array, loop: Loop) -> tuple[jax.Array, jax.Array]:
    """From the gradient by a tile's product to those by its hidden states and its words, in fp32.

    The latter are of the shape ``loop.gradient_shape``.
    """
    gradient = gradient.astype(states.dtype)
    by_states = jnp.dot(gradient, words, preferred_element_type=jnp.float32)
    factors = (states, gradient) if loop.turned else (gradient, states)
    return by_states, jax.lax.dot_general(*factors, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
