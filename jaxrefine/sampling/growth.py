"""How one batch of prompts grows its candidates: prefill, then steps in segments, the last few in a narrower batch."""

from __future__ import annotations

import dataclasses
import functools
from typing import Any, NamedTuple

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.models.cache import KeyValues, candidate_cache, grown
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.policies import Form, Policy, Values, choose
from jaxrefine.typing import Array, Bool, Float, Int, Key, Params

_CACHE_SIZES = (32, 64, 96, *(128 << doubling for doubling in range(20)))
_SHARE_TO_NARROW = 4


class Grown(NamedTuple):
    """What a batch of prompts became, on the host; beyond its length a row holds zeros."""

    text: Int[np.ndarray, "C N R"]
    logprobs: Float[np.ndarray, "C N R"]
    lengths: Int[np.ndarray, "C N"]


@flax.struct.dataclass(frozen=True)
class State:
    """Candidates that grow side by side."""

    step: Int[Array, ""]
    """Tokens of every candidate that the cache holds."""
    latest: Int[Array, "C N"]
    done: Bool[Array, "C N"]
    text: Int[Array, "C N R"]
    logprobs: Float[Array, "C N R"]
    lengths: Int[Array, "C N"]
    keys: Key[Array, "C N"]
    cache: KeyValues
    prompt_cache: KeyValues
    prompt_lengths: Int[Array, " C"]


def grow(
    decoder: Decoder,
    params: Params,
    policy: Policy,
    tokens: Int[np.ndarray, "C P"],
    lengths: Int[np.ndarray, " C"],
    numbers: np.ndarray,
    *,
    present: Bool[np.ndarray, " C"],
    num_candidates: int,
    max_new_tokens: int,
    eos_id: int,
    key: Key[Array, ""],
) -> Grown:
    """Grows candidates until all have ended or are cut.

    The host looks at the end of a segment only: when the cache is full and takes its next size, or when no prompt has
    more than a quarter of its candidates left (with fewer than four candidates: when a quarter of the prompts is
    left), which go on in a batch that much narrower.

    Args:
      decoder: used for its config and dtype.
      params: in the decoder's dtype.
      policy: how tokens are chosen.
      tokens: prompts, padded at their end.
      lengths: tokens of each.
      numbers: ids of the prompts, folded into their keys.
      present: False marks a row that only fills the batch.
      num_candidates: N.
      max_new_tokens: R.
      eos_id: ends a candidate.
      key: of the whole job.
    """
    form, values, eos = policy.form, policy.values, jnp.int32(eos_id)
    sizes = {"num_candidates": num_candidates, "max_new_tokens": max_new_tokens}
    state = start(decoder, form, params, values, tokens, lengths, numbers, present, eos, key, **sizes)
    C, N = len(tokens), num_candidates
    grown_so_far = Grown(
        np.zeros((C, N, max_new_tokens), np.int32), np.zeros((C, N, max_new_tokens), np.float32), np.zeros((C, N), int)
    )
    places: tuple[np.ndarray, np.ndarray] = (np.arange(C)[:, None], np.arange(N)[None])
    narrow = narrower(C, N)
    for size in cache_lengths(max_new_tokens - 1):
        state = advance(decoder, form, params, values, state, eos, size=size, until=narrow)
        rows, columns = map(int, remaining(state.done))
        if narrow != (0, 0) and 0 < rows <= narrow[0] and columns <= narrow[1]:
            _keep(grown_so_far, state, places)
            state, order = narrowed(state, rows=narrow[0], columns=narrow[1])
            places = tuple(np.broadcast_to(place, (C, N))[order] for place in places)
            narrow = (0, 0)
            state = advance(decoder, form, params, values, state, eos, size=size, until=narrow)
            rows = int(remaining(state.done)[0])
        if rows == 0:
            break
    _keep(grown_so_far, state, places)
    return grown_so_far


def cache_lengths(tokens: int) -> list[int]:
    """Sizes through which a candidate cache grows until it holds ``tokens``: early steps do not attend over all.

    >>> cache_lengths(127), cache_lengths(40), cache_lengths(20), cache_lengths(0)
    ([32, 64, 127], [40], [20], [])
    """
    sizes = [size for size in _CACHE_SIZES if 4 * size <= 3 * tokens]  # a growth by less than a third does not pay
    return [*sizes, tokens] if tokens else []


def narrower(rows: int, columns: int) -> tuple[int, int]:
    """The shape in which the last candidates go on; (0, 0) where there is nothing to gain.

    >>> narrower(8, 16), narrower(128, 1), narrower(2, 3)
    ((8, 4), (32, 1), (0, 0))
    """
    if columns >= _SHARE_TO_NARROW:
        return rows, columns // _SHARE_TO_NARROW
    if rows >= _SHARE_TO_NARROW:
        return rows // _SHARE_TO_NARROW, columns
    return 0, 0


def remaining(done: Bool[Array, "C N"]) -> tuple[Int[Array, ""], Int[Array, ""]]:
    """Prompts that have candidates left, and the most that any of them has left."""
    left = jnp.sum(~done, axis=1, dtype=jnp.int32)
    return jnp.sum(left > 0, dtype=jnp.int32), jnp.max(left)


def _keep(kept: Grown, state: State, places: tuple[np.ndarray, np.ndarray]) -> None:
    """Copies what the state holds to where its candidates belong."""
    text, logprobs, lengths = jax.device_get((state.text, state.logprobs, state.lengths))
    kept.text[places], kept.logprobs[places], kept.lengths[places] = text, logprobs, lengths


@functools.partial(jax.jit, static_argnames=("rows", "columns"))
def _gathered(state: State, *, rows: int, columns: int) -> tuple[State, jax.Array, jax.Array]:
    prompts = jnp.argsort(jnp.all(state.done, axis=1), stable=True)[:rows]
    order = jnp.argsort(state.done[prompts], axis=1, stable=True)[:, :columns]

    def take(x: Array) -> Array:
        return x[prompts[:, None], order]

    def take_layers(x: Array) -> Array:
        return x[:, prompts[:, None], order]

    return (
        State(
            step=state.step,
            latest=take(state.latest),
            done=take(state.done),
            text=take(state.text),
            logprobs=take(state.logprobs),
            lengths=take(state.lengths),
            keys=take(state.keys),
            cache=jax.tree.map(take_layers, state.cache),
            prompt_cache=jax.tree.map(lambda x: x[:, prompts], state.prompt_cache),
            prompt_lengths=state.prompt_lengths[prompts],
        ),
        prompts,
        order,
    )


def narrowed(state: State, *, rows: int, columns: int) -> tuple[State, tuple[np.ndarray, np.ndarray]]:
    """The candidates that are left in a batch of ``rows`` × ``columns``, and the indices they come from."""
    state, prompts, order = _gathered(state, rows=rows, columns=columns)
    prompts, order = jax.device_get((prompts, order))
    return state, (np.broadcast_to(prompts[:, None], order.shape), order)


@functools.partial(jax.jit, static_argnames=("decoder", "form", "num_candidates", "max_new_tokens"))
def start(
    decoder: Decoder,
    form: Form,
    params: Params,
    values: Values,
    tokens: Int[Array, "C P"],
    lengths: Int[Array, " C"],
    numbers: Array,
    present: Bool[Array, " C"],
    eos: Int[Array, ""],
    key: Key[Array, ""],
    *,
    num_candidates: int,
    max_new_tokens: int,
) -> State:
    """Prefill and the first token of every candidate."""
    C, N = tokens.shape[0], num_candidates
    prefilled: Any = decoder.apply({"params": params}, tokens, lengths, method="prefill")
    hidden, prompt_cache = prefilled
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    of_prompts = fold(key, numbers)
    keys = jax.vmap(fold, in_axes=(0, None))(of_prompts, jnp.arange(N, dtype=jnp.uint32))
    logits = jnp.repeat(_logits(decoder, params, hidden[:, None]), N, axis=1)
    token, logprob = _pick(form, values, logits, keys, jnp.int32(0))
    return State(
        step=jnp.int32(0),
        latest=token,
        done=(token == eos) | ~present[:, None],
        text=jnp.zeros((C, N, max_new_tokens), jnp.int32).at[:, :, 0].set(token),
        logprobs=jnp.zeros((C, N, max_new_tokens), jnp.float32).at[:, :, 0].set(logprob),
        lengths=jnp.ones((C, N), jnp.int32),
        keys=keys,
        cache=candidate_cache(decoder.config, prompts=C, candidates=N, length=0, dtype=decoder.dtype),
        prompt_cache=prompt_cache,
        prompt_lengths=lengths,
    )


@functools.partial(jax.jit, static_argnames=("decoder", "form", "size", "until"))
def advance(
    decoder: Decoder,
    form: Form,
    params: Params,
    values: Values,
    state: State,
    eos: Int[Array, ""],
    *,
    size: int,
    until: tuple[int, int],
) -> State:
    """Steps until the cache holds ``size`` tokens or what is left fits into ``until`` prompts × candidates."""

    def more(state: State) -> Array:
        rows, columns = remaining(state.done)
        return (state.step < size) & (rows > 0) & ((rows > until[0]) | (columns > until[1]))

    def one(state: State) -> State:
        decoded: Any = decoder.apply(
            {"params": params},
            state.latest,
            state.step,
            state.prompt_cache,
            state.prompt_lengths,
            state.cache,
            method="decode",
        )
        hidden, cache = decoded
        step = state.step + 1
        token, logprob = _pick(form, values, _logits(decoder, params, hidden), state.keys, step)
        token, logprob = jnp.where(state.done, 0, token), jnp.where(state.done, 0.0, logprob)
        write = functools.partial(jax.lax.dynamic_update_index_in_dim, index=step, axis=2)
        return dataclasses.replace(
            state,
            step=step,
            latest=token,
            done=state.done | (token == eos),
            text=write(state.text, token),
            logprobs=write(state.logprobs, logprob),
            lengths=state.lengths + (~state.done).astype(jnp.int32),
            cache=cache,
        )

    return jax.lax.while_loop(more, one, dataclasses.replace(state, cache=grown(state.cache, size)))


def _logits(decoder: Decoder, params: Params, hidden: Array) -> jax.Array:
    """[C N D] -> [C N V] in fp32."""
    form: Any = decoder.apply({"params": params}, method="logit_form")
    return form.logits(hidden)


def _pick(form: Form, values: Values, logits: Array, keys: Array, step: Array) -> tuple[Array, Array]:
    """The next token of each slot [C N] and the model's own log-probability of it."""
    C, N, V = logits.shape
    logits = logits.reshape(C * N, V)
    folded = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys.reshape(C * N), step)
    token = choose(form, values, logits, folded)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
    logprob = chosen - jax.nn.logsumexp(logits, axis=-1)
    return token.reshape(C, N), logprob.reshape(C, N)
