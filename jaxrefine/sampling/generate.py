"""Candidates from a decoder: each prompt is read once, its N candidates grow side by side from it."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.growth import Grown, grow
from jaxrefine.sampling.policies import Policy
from jaxrefine.typing import Array, Key, Params

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
        grown = grow(
            decoder,
            params,
            policy,
            tokens,
            lengths,
            numbers,
            present=np.arange(rows) < len(chosen),
            num_candidates=num_candidates,
            max_new_tokens=max_new_tokens,
            eos_id=eos_id,
            key=key,
        )
        yield from zip(chosen, _samples(grown, len(chosen), eos_id), strict=True)


def padded_length(length: int) -> int:
    """The static length that a prompt is padded to: powers of two from 32, above 512 four steps a doubling.

    >>> [padded_length(n) for n in (1, 33, 100, 129, 1000, 1025)]
    [32, 64, 128, 256, 1024, 1280]
    """
    power = max(32, 1 << (length - 1).bit_length())
    step = power if power <= 512 else power // 8
    return -(-length // step) * step


def _samples(grown: Grown, rows: int, eos_id: int) -> Iterator[list[Sample]]:
    for row in range(rows):
        candidates = []
        for n, length in enumerate(grown.lengths[row].tolist()):
            tokens = tuple(grown.text[row, n, :length].tolist())
            logprobs = tuple(grown.logprobs[row, n, :length].tolist())
            candidates.append(Sample(tokens, logprobs, tokens[-1] == eos_id))
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
