"""Log-probs of given tokens from hidden states and the output embedding, never holding tokens × vocabulary.

The logits of a chunk of tokens are made, used and dropped; only the log-sum-exp of each token is kept, and the
backward pass makes the logits again: 8·M·D·V operations instead of 6, and memory that does not grow with M. On a mesh
(``jax.set_mesh``) tokens and vocabulary are split over its devices: ``vocabulary`` says how.
"""

from __future__ import annotations

import functools
import logging
from collections.abc import Sequence
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrefine.losses.logprob_kernel import Numbers, check_width, gradient_chunk, read_chunk
from jaxrefine.losses.reduction import number, one_of
from jaxrefine.losses.tiles import gradients
from jaxrefine.losses.vocabulary import (
    CHUNK_ELEMENTS,
    Loop,
    by_product,
    columns,
    default_chunk_size,
    first_word,
    fitted,
    gathered,
    make_logits,
    make_loop,
    on_devices,
    over_chunks,
    over_vocabulary,
)
from jaxrefine.typing import Array, Float, Int

__all__ = ["default_chunk_size", "token_logprobs", "token_logprobs_and_entropy"]


Implementation = Literal["xla", "pallas"]
"""Who computes a chunk: "pallas" is a TPU kernel, worth it on v6e (``logprob_kernel`` says why)."""

_log = logging.getLogger(__name__)


class _Form(NamedTuple):
    """The static part: the loop, and how logits are made."""

    loop: Loop
    temperature: float
    softcap: float | None
    entropy: bool
    embedding_dtype: str
    implementation: Implementation

    @property
    def options(self) -> dict[str, Any]:
        return {"temperature": self.temperature, "softcap": self.softcap}

    @property
    def keeps_weights(self) -> bool:
        """Until the backward pass: where they were gathered, which is then done once and not twice."""
        return self.loop.shards is not None and self.loop.shards.width is not None

    @property
    def numbers(self) -> Numbers:
        return Numbers(self.temperature, self.softcap, self.entropy)

    def part(self, targets: jax.Array, words: jax.Array, first: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Targets as columns of ``words``, which begin with ``first``, and how many of these are of the vocabulary."""
        return targets - first, jnp.minimum(self.loop.vocab - first, words.shape[0])

    def keeps_logits(self, hidden: jax.Array, embedding: jax.Array) -> bool:
        """As the plain form does: where one chunk is all, and within a bound."""
        parts = 1 if self.loop.shards is None else self.loop.shards.row_parts * self.loop.shards.vocab_parts
        if self.implementation != "xla":
            return False
        return self.loop.num_chunks == 1 and hidden.shape[0] * embedding.shape[0] <= 4 * CHUNK_ELEMENTS * parts


def token_logprobs(
    hidden: Float[Array, "M D"],
    embedding: Float[Array, "V D"],
    targets: Int[Array, " M"],
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    implementation: Implementation = "xla",
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
        implementation: who computes a chunk; "pallas" runs on TPUs alone.

    Returns:
        [M] fp32 in nats.

    Raises:
        ValueError: for a chunk size, temperature or softcap that is not above 0, or a width that "pallas" cannot take.

    >>> import jax.numpy as jnp
    >>> hidden, embedding = jnp.zeros((3, 2)), jnp.ones((4, 2))
    >>> token_logprobs(hidden, embedding, jnp.array([0, 1, 3]))  # −log 4
    Array([-1.3862944, -1.3862944, -1.3862944], dtype=float32)

    Source: logits made again in the backward pass, as in Wijmans et al. 2024, Cut Your Losses, arXiv 2411.09009.
    """
    return _apply(
        hidden, embedding, targets, chunk_size=chunk_size, temperature=temperature, softcap=softcap,
        implementation=implementation, entropy=False,
    )[0]  # fmt: skip


def token_logprobs_and_entropy(
    hidden: Float[Array, "M D"],
    embedding: Float[Array, "V D"],
    targets: Int[Array, " M"],
    *,
    chunk_size: int | None = None,
    temperature: float = 1.0,
    softcap: float | None = None,
    implementation: Implementation = "xla",
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
        implementation: as there.

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
        hidden, embedding, targets, chunk_size=chunk_size, temperature=temperature, softcap=softcap,
        implementation=implementation, entropy=True,
    )  # fmt: skip


def _apply(
    hidden: Array,
    embedding: Array,
    targets: Array,
    *,
    chunk_size: int | None,
    temperature: float,
    softcap: float | None,
    implementation: Implementation,
    entropy: bool,
) -> tuple[jax.Array, jax.Array]:
    number(temperature, "temperature")
    one_of(implementation, ("xla", "pallas"), "implementation")
    if implementation == "pallas":
        check_width(hidden.shape[1], hidden.dtype)
    if softcap is not None:
        number(softcap, "softcap")
    tokens = hidden.shape[0]
    _log.info("log-probs: %s, %d tokens, %d words", implementation, tokens, embedding.shape[0])
    loop = make_loop(max(tokens, 1), embedding.shape[0], [embedding.shape[1]], chunk_size)
    if not tokens:
        return jnp.zeros((0,), jnp.float32), jnp.zeros((0,), jnp.float32)
    form = _Form(loop, float(temperature), softcap, entropy, str(embedding.dtype), implementation)
    (hidden, targets), (embedding,) = fitted(loop, [hidden, targets], [embedding])
    logprobs, entropies = _logprobs(hidden, embedding, targets, form)
    return logprobs[:tokens], entropies[:tokens]


def _read(logits: jax.Array, targets: jax.Array, first: jax.Array, form: _Form) -> tuple[jax.Array, ...]:
    """Of one chunk: largest logit, Σ e, the target's logit and Σ e (l - largest), e = exp(l - largest); [C] each."""
    largest = jnp.max(logits, axis=1)
    shifted = logits - largest[:, None]
    exponentials = jnp.exp(shifted)
    mass = jnp.sum(exponentials, axis=1)
    chosen = jnp.sum(jnp.where(_is_target(targets, logits, first), logits, 0.0), axis=1)
    spread = jnp.sum(exponentials * shifted, axis=1) if form.entropy else jnp.zeros_like(mass)
    return largest, mass, chosen, spread


def _is_target(targets: jax.Array, logits: jax.Array, first: jax.Array) -> jax.Array:
    """[C W] whether a column is the row's target: a compare that fuses, where a scatter would be atomics."""
    return columns(logits, first) == targets[:, None]


def _over_shards(read: tuple[jax.Array, ...], form: _Form) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Log-prob of the targets, entropy (0 unless asked for) and log-sum-exp, from what each part of V says."""
    own, mass, chosen, spread = read
    largest = over_vocabulary(own, form.loop, jax.lax.pmax)
    weight = jnp.exp(own - largest)
    spread = over_vocabulary(weight * (spread + (own - largest) * mass), form.loop)
    mass = over_vocabulary(weight * mass, form.loop)
    lse = jnp.log(mass) + largest
    entropy = jnp.log(mass) - spread / mass if form.entropy else jnp.zeros_like(lse)
    return over_vocabulary(chosen, form.loop) - lse, entropy, lse


def _cotangent(logits: jax.Array, rows: Sequence[jax.Array], first: jax.Array, form: _Form) -> jax.Array:
    """[C W] fp32: the gradient by the product hidden · wordsᵀ of one tile."""
    targets, lse, entropy, g_logprob, g_entropy = rows
    log_p = logits - lse[:, None]
    p = jnp.exp(log_p)
    gradient = (_is_target(targets, logits, first).astype(p.dtype) - p) * g_logprob[:, None]
    if form.entropy:
        gradient -= p * (log_p + entropy[:, None]) * g_entropy[:, None]
    return by_product(gradient, logits, first, form.loop, **form.options)


@functools.partial(jax.custom_vjp, nondiff_argnums=(3,))
def _logprobs(hidden: jax.Array, embedding: jax.Array, targets: jax.Array, form: _Form) -> tuple[jax.Array, jax.Array]:
    return _forward(hidden, embedding, targets, form)[0]


def _forward(
    hidden: jax.Array, embedding: jax.Array, targets: jax.Array, form: _Form
) -> tuple[tuple[jax.Array, jax.Array], Any]:
    keeps = form.keeps_logits(hidden, embedding)

    def run(hidden: jax.Array, embedding: jax.Array, targets: jax.Array) -> tuple[Any, ...]:
        weights = gathered(embedding, hidden.dtype, form.loop)
        first = first_word(form.loop, weights.shape[0])

        def chunk(_: None, states: jax.Array, targets: jax.Array) -> tuple[Any, Any]:
            if form.implementation == "pallas":
                return None, read_chunk(states, weights, *form.part(targets, weights, first), form.numbers)
            logits = make_logits(states, weights, first, form.loop, **form.options)
            return logits if keeps else None, _read(logits, targets, first, form)

        kept, read = over_chunks(form.loop, [hidden, targets], None, chunk)
        return _over_shards(read, form), kept, weights if form.keeps_weights else None

    kinds = ("tokens",) * 3, "logits" if keeps else None, "gathered" if form.keeps_weights else None
    run = on_devices(form.loop, run, ["tokens", "embedding", "tokens"], kinds)
    (logprobs, entropy, lse), kept, weights = run(hidden, embedding, targets)
    return (logprobs, entropy), (hidden, embedding if weights is None else weights, targets, lse, entropy, kept)


def _backward(
    form: _Form, residuals: Any, cotangents: tuple[jax.Array, jax.Array]
) -> tuple[jax.Array, jax.Array, None]:
    hidden, stored, targets, lse, entropy, kept = residuals
    keeps = kept is not None

    def run(hidden: jax.Array, stored: jax.Array, *rest: jax.Array) -> tuple[jax.Array | None, jax.Array | None]:
        weights = stored if form.keeps_weights else gathered(stored, hidden.dtype, form.loop)
        rows, logits = rest[:5], rest[5] if keeps else None

        def by_products(states: Any, words: Any, first: jax.Array, rows: Sequence[jax.Array]) -> list[jax.Array]:
            if form.implementation == "pallas":
                targets, limit = form.part(rows[0], words[0], first)
                return [gradient_chunk(states[0], words[0], [targets, *rows[1:]], limit, form.numbers)]
            made = make_logits(states[0], words[0], first, form.loop, **form.options) if logits is None else logits
            return [_cotangent(made, rows, first, form)]

        (by_hidden,), (by_weights,) = gradients(
            form.loop, [hidden], [weights], rows, by_products, [form.embedding_dtype], whole=keeps
        )
        return by_hidden, by_weights

    kinds = ["tokens", "gathered" if form.keeps_weights else "embedding", *["tokens"] * 5, *["logits"] * keeps]
    given = (hidden, stored, targets, lse, entropy, *cotangents, *[kept] * keeps)
    return *on_devices(form.loop, run, kinds, ("tokens", "embedding"))(*given), None


_logprobs.defvjp(_forward, _backward)
