"""Losses that make one distribution resemble another: over choices, and over the vocabulary."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, Literal, NamedTuple

import jax
import jax.numpy as jnp

from jaxrefine.losses.reduction import Mask, as_mask, live, log_softmax, number, one_of
from jaxrefine.losses.tiles import gradients
from jaxrefine.losses.vocabulary import (
    Loop,
    by_product,
    first_word,
    fitted,
    gathered,
    make_logits,
    make_loop,
    on_devices,
    over_chunks,
    over_vocabulary,
)
from jaxrefine.typing import Array, Float

Direction = Literal["forward", "reverse"]


def reward_distillation(
    logits: Float[Array, "*batch N"],
    rewards: Float[Array, "*batch N"],
    *,
    where: Mask = None,
    temperature: float = 1.0,
    direction: Direction = "forward",
) -> Float[Array, "*batch"]:
    """Kullback–Leibler divergence between a router and the softmax of the rewards.

    p = softmax(rewards / temperature),  z = softmax(logits)
    forward: KL(p ‖ z) = Σ p (log p − log z);   reverse: KL(z ‖ p) = Σ z (log z − log p)

    Args:
        logits: [..., M] of the router, one a model.
        rewards: [..., M] raw rewards of the models' answers.
        where: [..., M] rewards that are known; both softmaxes are over these.
        temperature: of the target alone, > 0; the paper uses 1. The logits are not divided by it.
        direction: ``"reverse"`` is the order as printed, ``"forward"`` what distillation usually means.

    Returns:
        [...] one value a query, in nats; 0 where fewer than two rewards are known.

    Raises:
        ValueError: for a temperature not above 0 or an unknown direction, with the nearest.

    >>> import jax.numpy as jnp
    >>> logits, rewards = jnp.array([0.0, 0.0]), jnp.log(jnp.array([3.0, 1.0]))
    >>> round(float(reward_distillation(logits, rewards)), 6)  # log 2 − H(3/4, 1/4)
    0.130812

    Source: ZOOTER, arXiv 2311.08692, the router's KL loss.
    """
    number(temperature, "temperature")
    one_of(direction, ("forward", "reverse"), "direction")
    where = as_mask(where, logits)
    log_z = log_softmax(live(logits, where), where)
    log_p = log_softmax(live(rewards, where) / temperature, where).astype(log_z.dtype)
    first, second = (log_p, log_z) if direction == "forward" else (log_z, log_p)
    return jnp.sum(jnp.where(where, jnp.exp(first) * (first - second), jnp.zeros_like(first)), axis=-1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TokenHead:
    """One model's next-token distributions: softmax(cap(hidden · embeddingᵀ) / temperature)."""

    hidden: Float[Array, "M D"]
    """Last hidden states of the tokens."""
    embedding: Float[Array, "V D"]
    """Output embedding; V is the same for both models, D need not be."""
    temperature: float = 1.0
    """> 0."""
    softcap: float | None = None
    """> 0, bounds the logits before the temperature; None: no bound."""

    def __post_init__(self) -> None:
        number(self.temperature, "temperature")
        if self.softcap is not None:
            number(self.softcap, "softcap")


def token_divergence(
    student: TokenHead,
    teacher: TokenHead,
    *,
    direction: Direction = "forward",
    learns: Literal["student", "both"] = "student",
    chunk_size: int | None = None,
) -> Float[Array, " M"]:
    """Kullback–Leibler divergence between two models' distributions of each next token, never holding [M, V].

    forward: KL(teacher ‖ student) = Σ_v t_v (log t_v − log s_v);   reverse: KL(student ‖ teacher)

    In chunks of tokens, split over a mesh, and made again in the backward pass, as ``token_logprobs`` is.

    Args:
        student: the model that is to resemble the other.
        teacher: that other.
        direction: "forward" is the mean over the teacher's words, "reverse" over the student's.
        learns: whether the teacher has a gradient too; otherwise its is zero, and is not computed.
        chunk_size: tokens a chunk; by default as few as ``token_logprobs`` takes.

    Returns:
        [M] fp32 in nats.

    Raises:
        ValueError: two vocabularies, two numbers of tokens, an unknown direction, or a chunk size below 1.

    >>> import jax.numpy as jnp
    >>> student = TokenHead(hidden=jnp.ones((1, 1)), embedding=jnp.zeros((2, 1)))
    >>> teacher = TokenHead(hidden=jnp.ones((1, 1)), embedding=jnp.log(jnp.array([[3.0], [1.0]])))
    >>> round(float(token_divergence(student, teacher)[0]), 6)  # log 2 − H(3/4, 1/4)
    0.130812

    Source: Hinton et al. 2015, arXiv 1503.02531; Gu et al. 2023, MiniLLM, arXiv 2306.08543 (reverse).
    """
    one_of(direction, ("forward", "reverse"), "direction")
    one_of(learns, ("student", "both"), "learns")
    (M, _), (N, _) = student.hidden.shape, teacher.hidden.shape
    (V, _), (W, _) = student.embedding.shape, teacher.embedding.shape
    if M != N:
        raise ValueError(f"student.hidden has {M} tokens and teacher.hidden {N}: give both the same tokens")
    if V != W:
        raise ValueError(
            f"student.embedding has {V} words and teacher.embedding {W}: only one vocabulary can be compared"
        )
    heads = (student, teacher) if direction == "reverse" else (teacher, student)
    widths = [head.embedding.shape[1] for head in heads]
    loop = make_loop(max(M, 1), V, widths, chunk_size)
    if not M:
        return jnp.zeros((0,), jnp.float32)
    hidden, embeddings = fitted(loop, [head.hidden for head in heads], [head.embedding for head in heads])
    form = _Pair(
        loop,
        tuple((float(head.temperature), head.softcap) for head in heads),
        tuple(learns == "both" or head is student for head in heads),
        tuple(str(head.embedding.dtype) for head in heads),
    )
    return _divergence(tuple(hidden), tuple(embeddings), form)[:M]


class _Pair(NamedTuple):
    """The static part, of KL(first ‖ second)."""

    loop: Loop
    options: tuple[tuple[float, float | None], ...]
    learns: tuple[bool, ...]
    dtypes: tuple[str, ...]

    def logits(self, states: Any, words: Any, first: jax.Array) -> list[jax.Array]:
        return [
            make_logits(state, word, first, self.loop, temperature=temperature, softcap=softcap)
            for state, word, (temperature, softcap) in zip(states, words, self.options, strict=True)
        ]


def _spread(first: jax.Array, second: jax.Array) -> tuple[jax.Array, ...]:
    """Of one chunk: each one's largest logit and Σ e, and Σ e₁ (l₁ - l₂), all of shifted logits; [C] each."""
    largest = [jnp.max(logits, axis=1) for logits in (first, second)]
    shifted = [logits - top[:, None] for logits, top in zip((first, second), largest, strict=True)]
    exponentials = [jnp.exp(logits) for logits in shifted]
    apart = jnp.sum(exponentials[0] * (shifted[0] - shifted[1]), axis=1)
    return (*largest, *(jnp.sum(e, axis=1) for e in exponentials), apart)


def _joined(read: tuple[jax.Array, ...], loop: Loop) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Divergence and both log-sum-exps from what each part of the vocabulary says."""
    own, masses, apart = read[:2], read[2:4], read[4]
    tops = [over_vocabulary(x, loop, jax.lax.pmax) for x in own]
    weights = [jnp.exp(x - top) for x, top in zip(own, tops, strict=True)]
    moved = (own[0] - tops[0]) - (own[1] - tops[1])
    apart = over_vocabulary(weights[0] * (apart + masses[0] * moved), loop)
    logs = [jnp.log(over_vocabulary(weight * mass, loop)) for weight, mass in zip(weights, masses, strict=True)]
    divergence = apart / jnp.exp(logs[0]) - logs[0] + logs[1]
    return divergence, logs[0] + tops[0], logs[1] + tops[1]


@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _divergence(hidden: tuple[jax.Array, ...], embeddings: tuple[jax.Array, ...], form: _Pair) -> jax.Array:
    return _forward(hidden, embeddings, form)[0]


def _forward(hidden: tuple[jax.Array, ...], embeddings: tuple[jax.Array, ...], form: _Pair) -> tuple[jax.Array, Any]:
    def run(*arrays: jax.Array) -> Any:
        weights = [gathered(w, h.dtype, form.loop) for h, w in zip(arrays[:2], arrays[2:], strict=True)]
        first = first_word(form.loop, weights[0].shape[0])

        def chunk(_: None, *states: jax.Array) -> tuple[None, tuple[jax.Array, ...]]:
            return None, _spread(*form.logits(states, weights, first))

        return *_joined(over_chunks(form.loop, arrays[:2], None, chunk)[1], form.loop), *weights

    kinds = ["tokens"] * 2 + ["embedding"] * 2
    results = ("tokens",) * 3 + ("gathered",) * 2
    divergence, *lses, first, second = on_devices(form.loop, run, kinds, results)(*hidden, *embeddings)
    kept = embeddings if form.loop.shards is None else (first, second)
    return divergence, (hidden, kept, divergence, lses)


def _backward(form: _Pair, residuals: Any, cotangent: jax.Array) -> tuple[Any, Any]:
    hidden, stored, divergence, lses = residuals
    loop = form.loop

    def run(*arrays: jax.Array) -> Any:
        weights = [w.astype(h.dtype) for h, w in zip(arrays[:2], arrays[2:4], strict=True)]

        def by_products(states: Any, words: Any, first: jax.Array, rows: Any) -> list[jax.Array | None]:
            divergence, g, *lses = rows
            logits = form.logits(states, words, first)
            logs = [x - lse[:, None] for x, lse in zip(logits, lses, strict=True)]
            one, other = (jnp.exp(x) for x in logs)
            by_logits = one * (logs[0] - logs[1] - divergence[:, None]), other - one
            return [
                by_product(by_logit * g[:, None], logit, first, loop, temperature=temperature, softcap=softcap)
                if learns
                else None
                for by_logit, logit, (temperature, softcap), learns in zip(
                    by_logits, logits, form.options, form.learns, strict=True
                )
            ]

        dtypes = [dtype if learns else None for dtype, learns in zip(form.dtypes, form.learns, strict=True)]
        return gradients(loop, arrays[:2], weights, arrays[4:], by_products, dtypes)

    results = tuple(tuple(kind if on else None for on in form.learns) for kind in ("tokens", "embedding"))
    kinds = ["tokens"] * 2 + ["gathered"] * 2 + ["tokens"] * 4
    return on_devices(loop, run, kinds, results)(*hidden, *stored, divergence, cotangent, *lses)


_divergence.defvjp(_forward, _backward)
