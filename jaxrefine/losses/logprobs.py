"""Log-probs of given tokens from hidden states and the output embedding, never holding tokens × vocabulary.

The logits of a chunk of tokens are made, used and dropped; only the log-sum-exp of each token is kept, and the
backward pass makes the logits again: 8·M·D·V operations instead of 6, and memory that does not grow with M.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxrefine.losses.reduction import number
from jaxrefine.sharding import ROWS
from jaxrefine.typing import Array, Float, Int

CHUNK_ELEMENTS = 2**22
"""Logits a device holds at once where ``chunk_size`` is not given: 16 MiB in fp32 …"""

CHUNK_TOKENS = 1024
"""… but never fewer tokens than this: with less, reading the embedding and adding to its gradient costs an accelerator
more than the products (8 bytes of gradient against 2 · tokens operations, at some 300 operations a byte)."""


class _Form(NamedTuple):
    """The static part: tokens a chunk, number of chunks, and how logits are made."""

    rows: int
    num_chunks: int
    temperature: float
    softcap: float | None
    entropy: bool


def token_logprobs(
    hidden: Float[Array, "M D"],
    embedding: Float[Array, "V D"],
    targets: Int[Array, " M"],
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> Float[Array, " M"]:
    """Log-prob of each target token, in chunks.

    log softmax(cap(hidden · embeddingᵀ) / temperature)[target],   cap(x) = softcap · tanh(x / softcap)

    The products take their inputs in the dtype of ``hidden`` and accumulate in fp32, backward too; the gradient of the
    embedding is gathered over the chunks in fp32, so give the fp32 parameter itself, not a rounded copy.

    Args:
        hidden: [M D] last hidden states of the scored tokens alone (M may be 0).
        embedding: [V D] output embedding, Hugging Face's orientation, any float dtype.
        targets: [M] token ids, each below V; where padded, any, with a zero cotangent.
        chunk_size: tokens a chunk; by default as few chunks as keep ``CHUNK_ELEMENTS``.
        temperature: > 0, divides the logits.
        softcap: > 0, bounds the logits, before the temperature; None: no bound.

    Returns:
        [M] fp32 in nats.

    Raises:
        ValueError: for a chunk size, temperature or softcap that is not above 0.

    >>> import jax.numpy as jnp
    >>> hidden, embedding = jnp.zeros((3, 2)), jnp.ones((4, 2))
    >>> token_logprobs(hidden, embedding, jnp.array([0, 1, 3]))  # −log 4
    Array([-1.3862944, -1.3862944, -1.3862944], dtype=float32)

    Source: logits made again in the backward pass, as in Wijmans et al. 2024, Cut Your Losses, arXiv 2411.09009.
    """
    return _apply(
        hidden, embedding, targets, chunk_size=chunk_size, temperature=temperature, softcap=softcap, entropy=False
    )[0]


def token_logprobs_and_entropy(
    hidden: Float[Array, "M D"],
    embedding: Float[Array, "V D"],
    targets: Int[Array, " M"],
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
) -> tuple[Float[Array, " M"], Float[Array, " M"]]:
    """Log-prob of each target token, and the entropy of the distribution it was drawn from; both differentiable.

    H = −Σ_v p_v log p_v

    Args:
        hidden: as for ``token_logprobs``.
        embedding: as there.
        targets: as there.
        chunk_size: as there.
        temperature: as there.
        softcap: as there.

    Returns:
        ([M], [M]) fp32 in nats.

    Raises:
        ValueError: as there.

    >>> import jax.numpy as jnp
    >>> _, entropy = token_logprobs_and_entropy(jnp.zeros((1, 2)), jnp.ones((4, 2)), jnp.array([0]))
    >>> round(float(entropy[0]), 6)  # log 4
    1.386294
    """
    return _apply(
        hidden, embedding, targets, chunk_size=chunk_size, temperature=temperature, softcap=softcap, entropy=True
    )


def default_chunk_size(num_tokens: int, vocab_size: int, num_shards: int = 1) -> int:
    """Tokens a chunk: as few equal chunks as hold ``CHUNK_ELEMENTS`` logits, or ``CHUNK_TOKENS`` tokens, on a device.

    A number of chunks that divides the tokens of a device is preferred, so that nothing is padded.

    >>> default_chunk_size(1000, 1024), default_chunk_size(8192, 32_000), default_chunk_size(8192, 32_000, 4)
    (1000, 1024, 4096)
    """
    local = max(-(-num_tokens // num_shards), 1)
    fewest = -(-local // max(CHUNK_ELEMENTS // vocab_size, CHUNK_TOKENS))
    num_chunks = next((n for n in range(fewest, min(2 * fewest, local) + 1) if local % n == 0), fewest)
    return -(-local // num_chunks) * num_shards


def _num_shards() -> int:
    """Among how many devices of the mesh of ``jax.set_mesh`` tokens are split."""
    mesh = jax.sharding.get_abstract_mesh()
    return math.prod(mesh.shape.get(axis, 1) for axis in ROWS)


def _apply(
    hidden: Array,
    embedding: Array,
    targets: Array,
    *,
    chunk_size: int | None,
    temperature: float,
    softcap: float | None,
    entropy: bool,
) -> tuple[jax.Array, jax.Array]:
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is at least 1 token, given {chunk_size}")
    number(temperature, "temperature")
    if softcap is not None:
        number(softcap, "softcap")
    tokens = hidden.shape[0]
    if not tokens:
        return jnp.zeros((0,), jnp.float32), jnp.zeros((0,), jnp.float32)
    rows = min(chunk_size or default_chunk_size(tokens, embedding.shape[0], _num_shards()), tokens)
    form = _Form(rows, -(-tokens // rows), float(temperature), softcap, entropy)
    return _logprobs(jnp.asarray(hidden), jnp.asarray(embedding), jnp.asarray(targets), form)


def _logits(hidden: jax.Array, weights: jax.Array, form: _Form) -> jax.Array:
    """[C V] fp32 from one chunk of hidden states; inputs in their own dtype."""
    logits = jax.lax.dot_general(hidden, weights, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    if form.softcap is not None:
        logits = form.softcap * jnp.tanh(logits / form.softcap)
    return logits / form.temperature


def _is_target(targets: jax.Array, logits: jax.Array) -> jax.Array:
    """[C V] whether a column is the row's target: a compare that fuses, where a scatter would be atomics."""
    return jax.lax.broadcasted_iota(targets.dtype, logits.shape, 1) == targets[:, None]


def _read(logits: jax.Array, targets: jax.Array, form: _Form) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-prob of the targets, entropy (0 unless asked for) and log-sum-exp of one chunk."""
    largest = jnp.max(logits, axis=1)
    exponentials = jnp.exp(logits - largest[:, None])
    mass = jnp.sum(exponentials, axis=1)
    lse = jnp.log(mass) + largest
    chosen = jnp.sum(jnp.where(_is_target(targets, logits), logits, 0.0), axis=1)
    entropy = jnp.zeros_like(lse)
    if form.entropy:  # of shifted logits, so that nothing large cancels
        entropy = jnp.log(mass) - jnp.sum(exponentials * (logits - largest[:, None]), axis=1) / mass
    return chosen - lse, entropy, lse


def _cotangent(logits: jax.Array, rows: Sequence[jax.Array], form: _Form) -> jax.Array:
    """[C V] fp32: the gradient by the product hidden · weightsᵀ of one chunk."""
    targets, lse, entropy, g_logprob, g_entropy = rows
    log_p = logits - lse[:, None]
    p = jnp.exp(log_p)
    gradient = (_is_target(targets, logits).astype(p.dtype) - p) * g_logprob[:, None]
    if form.entropy:
        gradient -= p * (log_p + entropy[:, None]) * g_entropy[:, None]
    gradient /= form.temperature
    if form.softcap is not None:
        gradient *= 1.0 - jnp.square(logits * (form.temperature / form.softcap))
    return gradient


def _split(x: jax.Array, form: _Form) -> jax.Array:
    """[M …] to [rows, num_chunks, …], padded with zeros: chunk c holds tokens c, c + num_chunks, …

    A mesh shards M in contiguous blocks: taken with a stride, every chunk has an equal part of every device's tokens.
    """
    padding = form.rows * form.num_chunks - x.shape[0]
    x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(form.rows, form.num_chunks, *x.shape[1:])


def _join(chunks: jax.Array, num_tokens: int) -> jax.Array:
    """[num_chunks, rows, …], as a scan stacks it, back to [M …]."""
    joined = jnp.swapaxes(chunks, 0, 1)
    return joined.reshape(-1, *joined.shape[2:])[:num_tokens]


def _take(x: jax.Array, index: jax.Array) -> jax.Array:
    return jax.lax.dynamic_index_in_dim(x, index, axis=1, keepdims=False)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _logprobs(hidden: jax.Array, embedding: jax.Array, targets: jax.Array, form: _Form) -> tuple[jax.Array, jax.Array]:
    return _forward(hidden, embedding, targets, form)[0]


def _forward(
    hidden: jax.Array, embedding: jax.Array, targets: jax.Array, form: _Form
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    weights = embedding.astype(hidden.dtype)
    if form.num_chunks == 1:  # within the bound: keep the logits, as the plain form does
        logits = _logits(hidden, weights, form)
        logprobs, entropy, lse = _read(logits, targets, form)
        kept = logits if logits.size <= 4 * CHUNK_ELEMENTS else None
        return (logprobs, entropy), (hidden, embedding, targets, lse, entropy, kept)
    states, words = _split(hidden, form), _split(targets, form)

    def body(_: None, index: jax.Array) -> tuple[None, tuple[jax.Array, jax.Array, jax.Array]]:
        return None, _read(_logits(_take(states, index), weights, form), _take(words, index), form)

    _, read = jax.lax.scan(body, None, jnp.arange(form.num_chunks))
    logprobs, entropy, lse = (_join(x, hidden.shape[0]) for x in read)
    return (logprobs, entropy), (hidden, embedding, targets, lse, entropy, None)


def _backward(
    form: _Form, residuals: Any, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None]:
    hidden, embedding, targets, lse, entropy, kept = residuals
    weights = embedding.astype(hidden.dtype)

    def chunk(states: jax.Array, logits: jax.Array | None, rows: Sequence[jax.Array]) -> tuple[jax.Array, jax.Array]:
        logits = _logits(states, weights, form) if logits is None else logits
        gradient = _cotangent(logits, rows, form).astype(states.dtype)
        by_states = jnp.dot(gradient, weights, preferred_element_type=jnp.float32).astype(states.dtype)
        by_weights = jax.lax.dot_general(gradient, states, (((0,), (0,)), ((), ())), preferred_element_type=jnp.float32)
        return by_states, by_weights

    if form.num_chunks == 1:
        by_hidden, by_weights = chunk(hidden, kept, (targets, lse, entropy, *cotangents))
        return by_hidden, by_weights.astype(embedding.dtype), None
    states = _split(hidden, form)
    rows = [_split(x, form) for x in (targets, lse, entropy, *cotangents)]

    def body(gathered: jax.Array, index: jax.Array) -> tuple[jax.Array, jax.Array]:
        by_states, by_weights = chunk(_take(states, index), None, [_take(x, index) for x in rows])
        return gathered + by_weights, by_states

    gathered, by_hidden = jax.lax.scan(body, jnp.zeros(embedding.shape, jnp.float32), jnp.arange(form.num_chunks))
    return _join(by_hidden, hidden.shape[0]), gathered.astype(embedding.dtype), None


_logprobs.defvjp(_forward, _backward)
