"""Candidates from a decoder: each prompt is read once, its N candidates grow side by side from it."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator, Sequence

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.models.cache import KeyValues, candidate_cache, grown
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.policies import Form, Policy, Values, choose
from jaxrefine.typing import Array, Bool, Float, Int, Key, Params

SLOTS = 128
"""Candidates that grow at once where no batch size is given (measured: benchmarks/bench_generate.py)."""


@dataclasses.dataclass(frozen=True)
class Sample:
    """One candidate.

    ``tokens`` ends with EOS when ``finished``; a sample that was cut by length holds none. ``logprobs`` has one
    entry a token, EOS included: log-probabilities of the model itself, whatever the policy tempered or truncated.
    """

    tokens: tuple[int, ...]
    logprobs: tuple[float, ...]
    finished: bool

    @property
    def content(self) -> tuple[int, ...]:
        """The tokens without EOS: what to decode into text."""
        return self.tokens[:-1] if self.finished else self.tokens


def generate(
    decoder: Decoder,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    prompt_ids: Sequence[int] | None = None,
    num_candidates: int = 1,
    max_new_tokens: int,
    policy: Policy,
    eos_id: int,
    key: Key[Array, ""],
    batch_size: int | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> list[list[Sample]]:
    """Samples ``num_candidates`` continuations of every prompt.

    The key of token t of candidate n is fold_in(fold_in(fold_in(key, prompt id), n), t): a text depends on its prompt,
    its id and its number, and on nothing else in the job.

    Args:
      decoder: its ``dtype`` is the one computed in; ``attention`` and ``remat`` play no part.
      params: of the decoder.
      prompts: token ids, BOS included, none empty.
      prompt_ids: one number a prompt, 0 … 2^32 - 1; their index by default.
      num_candidates: N.
      max_new_tokens: at which a candidate is cut, EOS included.
      policy: how a token is chosen; temperature, top_k and top_p do not recompile.
      eos_id: ends a candidate.
      key: of the whole job.
      batch_size: prompts at once; by default as many as give ``SLOTS`` candidates.
      progress: called as prompts are done with their number and the total.

    Returns:
      For every prompt, in the given order, its N samples.

    Raises:
      ValueError: an empty prompt, one that leaves no room, ids that are too many, too few or out of range.

    >>> from jaxrefine.models.config import TransformerConfig
    >>> config = TransformerConfig(vocab_size=64, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4,
    ...                            hidden_width=32)
    >>> decoder = Decoder(config, dtype=jnp.float32, attention="dense")
    >>> row = jnp.zeros((1, 8), jnp.int32), jnp.arange(8)[None], jnp.full((1, 8), 8)
    >>> params = decoder.init(jax.random.key(0), *row, method="trunk")["params"]
    >>> [[a, b]] = generate(decoder, params, [[1, 5, 9]], num_candidates=2, max_new_tokens=4, policy=Policy(),
    ...                     eos_id=2, key=jax.random.key(1))
    >>> len(a.tokens) == len(a.logprobs) <= 4
    True
    """
    samples: list[list[Sample]] = [[] for _ in prompts]
    batches = iterate(
        decoder,
        params,
        prompts,
        prompt_ids=prompt_ids,
        num_candidates=num_candidates,
        max_new_tokens=max_new_tokens,
        policy=policy,
        eos_id=eos_id,
        key=key,
        batch_size=batch_size,
    )
    for done, (index, candidates) in enumerate(batches, 1):
        samples[index] = candidates
        if progress is not None:
            progress(done, len(prompts))
    return samples


def iterate(
    decoder: Decoder,
    params: Params,
    prompts: Sequence[Sequence[int]],
    *,
    prompt_ids: Sequence[int] | None = None,
    num_candidates: int = 1,
    max_new_tokens: int,
    policy: Policy,
    eos_id: int,
    key: Key[Array, ""],
    batch_size: int | None = None,
) -> Iterator[tuple[int, list[Sample]]]:
    """The same as ``generate``, a prompt at a time as batches finish: (index of the prompt, its samples).

    Prompts are taken by length, shortest first, so that a batch pads little and compiled shapes are few. Whoever
    keeps what comes out can leave those prompts out of the next call and gets the same texts for the rest.
    """
    ids = range(len(prompts)) if prompt_ids is None else prompt_ids
    _check(decoder, prompts, ids, num_candidates, max_new_tokens, batch_size)
    if not prompts:
        return
    decoder = decoder.clone(parent=None, attention="dense", remat="none")  # one compiled program for all of them
    params = jax.tree.map(lambda x: jnp.asarray(x, decoder.dtype), params)
    rows = batch_size or max(1, SLOTS // num_candidates)
    rows = min(rows, len(prompts)) if batch_size is None else rows
    order = sorted(range(len(prompts)), key=lambda index: (padded_length(len(prompts[index])), index))
    for first in range(0, len(order), rows):
        chosen = order[first : first + rows]
        width = padded_length(max(len(prompts[index]) for index in chosen))
        tokens, lengths = np.zeros((rows, width), np.int32), np.ones(rows, np.int32)
        numbers = np.zeros(rows, np.uint32)
        for row, index in enumerate(chosen):
            lengths[row] = len(prompts[index])
            tokens[row, : lengths[row]] = prompts[index]
            numbers[row] = ids[index]
        state = _run(
            decoder,
            policy,
            params,
            tokens,
            lengths,
            numbers,
            present=np.arange(rows) < len(chosen),
            num_candidates=num_candidates,
            max_new_tokens=max_new_tokens,
            eos_id=eos_id,
            key=key,
        )
        yield from zip(chosen, _samples(state, len(chosen), eos_id), strict=True)


def padded_length(length: int) -> int:
    """The static length that a prompt is padded to: powers of two from 32, above 512 four steps a doubling.

    >>> [padded_length(n) for n in (1, 33, 100, 129, 1000, 1025)]
    [32, 64, 128, 256, 1024, 1280]
    """
    power = max(32, 1 << (length - 1).bit_length())
    step = power if power <= 512 else power // 8
    return -(-length // step) * step


def cache_lengths(tokens: int) -> list[int]:
    """Sizes through which a candidate cache grows until it holds ``tokens``: early steps do not attend over all.

    >>> cache_lengths(127), cache_lengths(40), cache_lengths(20), cache_lengths(0)
    ([32, 64, 127], [40], [20], [])
    """
    sizes = [size for size in _CACHE_SIZES if 4 * size <= 3 * tokens]  # a growth by less than a third does not pay
    return [*sizes, tokens] if tokens else []


_CACHE_SIZES = (32, 64, 96, *(128 << n for n in range(20)))


@flax.struct.dataclass(frozen=True)
class _State:
    step: Int[Array, ""]  # tokens of every candidate that the cache holds
    latest: Int[Array, "C N"]
    done: Bool[Array, "C N"]
    text: Int[Array, "C N R"]
    logprobs: Float[Array, "C N R"]
    lengths: Int[Array, "C N"]


def _run(
    decoder: Decoder,
    policy: Policy,
    params: Params,
    tokens: np.ndarray,
    lengths: np.ndarray,
    numbers: np.ndarray,
    *,
    present: np.ndarray,
    num_candidates: int,
    max_new_tokens: int,
    eos_id: int,
    key: jax.Array,
) -> _State:
    """One batch, from prefill until all is done; the host looks once a segment."""
    form, values, eos = policy.form, policy.values, jnp.int32(eos_id)
    sizes = {"num_candidates": num_candidates, "max_new_tokens": max_new_tokens}
    state, keys, prompt_cache = _start(
        decoder, form, params, values, tokens, lengths, numbers, present, eos, key, **sizes
    )
    C, N = state.latest.shape
    cache = candidate_cache(decoder.config, prompts=C, candidates=N, length=0, dtype=decoder.dtype)
    for size in cache_lengths(max_new_tokens - 1):
        if bool(jnp.all(state.done)):
            break
        state, cache = _advance(
            decoder, form, params, values, state, keys, prompt_cache, lengths, cache, eos, size=size
        )
    return state


@functools.partial(jax.jit, static_argnames=("decoder", "form", "num_candidates", "max_new_tokens"))
def _start(
    decoder: Decoder,
    form: Form,
    params: Params,
    values: Values,
    tokens: jax.Array,
    lengths: jax.Array,
    numbers: jax.Array,
    present: jax.Array,
    eos: jax.Array,
    key: jax.Array,
    *,
    num_candidates: int,
    max_new_tokens: int,
) -> tuple[_State, jax.Array, KeyValues]:
    """Prefill and the first token of every candidate."""
    C, N = tokens.shape[0], num_candidates
    hidden, cache = decoder.apply({"params": params}, tokens, lengths, method="prefill")
    fold = jax.vmap(jax.random.fold_in, in_axes=(0, None))
    keys = jax.vmap(lambda number: jax.random.fold_in(key, number))(numbers)
    keys = jax.vmap(fold, in_axes=(None, 0), out_axes=1)(keys, jnp.arange(N, dtype=jnp.uint32))
    logits = jnp.repeat(_logits(decoder, params, hidden[:, None]), N, axis=1)
    token, logprob = _pick(form, values, logits, keys, jnp.int32(0))
    state = _State(
        step=jnp.int32(0),
        latest=token,
        done=(token == eos) | ~present[:, None],
        text=jnp.zeros((C, N, max_new_tokens), jnp.int32).at[:, :, 0].set(token),
        logprobs=jnp.zeros((C, N, max_new_tokens), jnp.float32).at[:, :, 0].set(logprob),
        lengths=jnp.ones((C, N), jnp.int32),
    )
    return state, keys, cache


@functools.partial(jax.jit, static_argnames=("decoder", "form", "size"))
def _advance(
    decoder: Decoder,
    form: Form,
    params: Params,
    values: Values,
    state: _State,
    keys: jax.Array,
    prompt_cache: KeyValues,
    lengths: jax.Array,
    cache: KeyValues,
    eos: jax.Array,
    *,
    size: int,
) -> tuple[_State, KeyValues]:
    """Tokens until the cache holds ``size`` or every candidate is done."""

    def unfinished(carry: tuple[_State, KeyValues]) -> jax.Array:
        state, _ = carry
        return (state.step < size) & ~jnp.all(state.done)

    def one(carry: tuple[_State, KeyValues]) -> tuple[_State, KeyValues]:
        state, cache = carry
        hidden, cache = decoder.apply(
            {"params": params}, state.latest, state.step, prompt_cache, lengths, cache, method="decode"
        )
        step = state.step + 1
        token, logprob = _pick(form, values, _logits(decoder, params, hidden), keys, step)
        token, logprob = jnp.where(state.done, 0, token), jnp.where(state.done, 0.0, logprob)
        write = functools.partial(jax.lax.dynamic_update_index_in_dim, index=step, axis=2)
        return _State(
            step=step,
            latest=token,
            done=state.done | (token == eos),
            text=write(state.text, token),
            logprobs=write(state.logprobs, logprob),
            lengths=state.lengths + (~state.done).astype(jnp.int32),
        ), cache

    return jax.lax.while_loop(unfinished, one, (state, grown(cache, size)))


def _logits(decoder: Decoder, params: Params, hidden: jax.Array) -> jax.Array:
    """[C N D] -> [C N V] in fp32."""
    embedding = decoder.apply({"params": params}, method="output_embedding")
    return jnp.einsum("cnd,vd->cnv", hidden, embedding, preferred_element_type=jnp.float32)


def _pick(
    form: Form, values: Values, logits: jax.Array, keys: jax.Array, step: jax.Array
) -> tuple[jax.Array, jax.Array]:
    """The next token of each slot [C N] and the model's own log-probability of it."""
    C, N, V = logits.shape
    logits = logits.reshape(C * N, V)
    folded = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys.reshape(C * N), step)
    token = choose(form, values, logits, folded)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
    logprob = chosen - jax.nn.logsumexp(logits, axis=-1)
    return token.reshape(C, N), logprob.reshape(C, N)


def _samples(state: _State, rows: int, eos_id: int) -> Iterator[list[Sample]]:
    text, logprobs, lengths = jax.device_get((state.text, state.logprobs, state.lengths))
    for row in range(rows):
        candidates = []
        for n, length in enumerate(lengths[row].tolist()):
            tokens = tuple(text[row, n, :length].tolist())
            candidates.append(Sample(tokens, tuple(logprobs[row, n, :length].tolist()), tokens[-1] == eos_id))
        yield candidates


def _check(
    decoder: Decoder,
    prompts: Sequence[Sequence[int]],
    ids: Sequence[int],
    num_candidates: int,
    max_new_tokens: int,
    batch_size: int | None,
) -> None:
    for name, value in (
        ("num_candidates", num_candidates),
        ("max_new_tokens", max_new_tokens),
        ("batch_size", 1 if batch_size is None else batch_size),
    ):
        if value < 1:
            raise ValueError(f"{name} is {value}; it must be at least 1")
    if len(ids) != len(prompts):
        raise ValueError(f"{len(ids)} prompt_ids for {len(prompts)} prompts; give one each")
    room = decoder.config.max_positions - max_new_tokens
    for prompt, number in zip(prompts, ids, strict=True):
        if not len(prompt):
            raise ValueError(f"the prompt with id {number} is empty; a prompt has at least one token (BOS)")
        if len(prompt) > room:
            raise ValueError(
                f"the prompt with id {number} has {len(prompt)} tokens; with max_new_tokens = {max_new_tokens} and "
                f"max_positions = {decoder.config.max_positions} it may have {room}"
            )
        if not 0 <= number < 2**32:
            raise ValueError(f"prompt id {number} is outside 0 … 2^32 - 1")
