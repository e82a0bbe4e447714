"""Cached decoding: a prompt's keys and values once, its candidates' apart, attention merged by log-sum-exp.

For N candidates of a prompt of P tokens the cache holds P + N R positions, not N (P + R); and all queries that share
a prompt meet its keys in one matrix product.
"""

from __future__ import annotations

import functools

import flax.struct
import jax
import jax.numpy as jnp
from jax.tree_util import Partial
from jax.typing import DTypeLike

from jaxrefine.models.attention import Attend, attend
from jaxrefine.models.attention_scores import ScoreRule
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.masks import hide
from jaxrefine.models.products import einsum_fp32
from jaxrefine.typing import Array, Float, Int


@flax.struct.dataclass(frozen=True)
class KeyValues:
    """Keys and values of every layer: [L C K P H] of prompts, [L C N K R H] of candidates."""

    keys: Float[Array, "*shape"]
    values: Float[Array, "*shape"]


def candidate_cache(
    config: TransformerConfig, *, prompts: int, candidates: int, length: int, dtype: DTypeLike
) -> KeyValues:
    """An empty cache of candidates, [L C N K R H].

    Args:
      config: sizes.
      prompts: C.
      candidates: N of each prompt.
      length: R, tokens that it can hold.
      dtype: the decoder's.
    """
    shape = (config.num_layers, prompts, candidates, config.num_kv_heads, length, config.head_width)
    return KeyValues(jnp.zeros(shape, dtype), jnp.zeros(shape, dtype))


def grown(cache: KeyValues, length: int) -> KeyValues:
    """The same candidates with room for ``length`` tokens; at least what there is."""
    more = length - cache.keys.shape[-2]

    def pad(x: Array) -> Array:
        return jnp.pad(x, ((0, 0),) * (x.ndim - 2) + ((0, more), (0, 0)))

    return KeyValues(pad(cache.keys), pad(cache.values))


def written(cache: KeyValues, new: KeyValues, step: Int[Array, "*each"]) -> KeyValues:
    """The cache with ``new`` [L C N K 1 H] at position ``step`` of every candidate, one for all or [C N]."""

    def write(old: Array, now: Array) -> Array:
        return jax.lax.dynamic_update_slice_in_dim(old, now, step, axis=old.ndim - 2)

    def write_each(old: Array, now: Array) -> Array:
        C, N = step.shape
        rows, columns = jnp.arange(C)[:, None], jnp.arange(N)[None]
        place = jnp.minimum(step, old.shape[-2] - 1)  # what is beyond the end belongs to a text that has ended
        return jnp.asarray(old).at[:, rows, columns, :, place].set(jnp.moveaxis(now[..., 0, :], 0, 2))

    if step.ndim:
        return KeyValues(write_each(cache.keys, new.keys), write_each(cache.values, new.values))

    return KeyValues(write(cache.keys, new.keys), write(cache.values, new.values))


def prefill_attend(length: int) -> Attend:
    """Causal attention over prompts padded at their end; hands back their keys and values as the layer's state."""
    return Partial(_prefill, jnp.tril(jnp.ones((1, length, length), bool)))


def _prefill(
    causal: jax.Array, q: jax.Array, k: jax.Array, v: jax.Array, state: None, rule: ScoreRule
) -> tuple[Array, KeyValues]:
    del state
    positions = jnp.arange(causal.shape[-1], dtype=jnp.int32)[None]
    return attend(q, k, v, causal, rule, (positions, positions)), KeyValues(
        jnp.swapaxes(k, 1, 2), jnp.swapaxes(v, 1, 2)
    )


def decode_attend(lengths: Int[Array, " C"], step: Int[Array, "*each"], read: int | None = None) -> Attend:
    """Attention of one new token a candidate over its prompt, its earlier tokens and itself.

    The layer's state is (prompt keys and values, candidate keys and values); what comes back are the new token's own.

    Args:
      lengths: tokens of each prompt.
      step: tokens that every candidate's cache already holds; one for all of them, or one each, [C N].
      read: positions of the candidates' cache that are looked at, the first ones; no step may be larger. None is all.

    Source: Juravsky et al. 2024, arXiv:2402.05099, §3 (attention split at a shared prefix).
    """
    return Partial(functools.partial(_decode, read) if read else _decode_all, jnp.asarray(lengths), jnp.asarray(step))


def _decode(
    read: int | None,
    lengths: jax.Array,
    step: jax.Array,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    state: tuple[KeyValues, KeyValues],
    rule: ScoreRule,
) -> tuple[jax.Array, KeyValues]:
    prompt, own = state
    own = jax.tree.map(lambda x: x[..., :read, :], own)
    C, N, Q, H = q.shape
    K = k.shape[2]
    P, R = prompt.keys.shape[-2], own.keys.shape[-2]
    q = (q.astype(jnp.float32) / rule.divisor).astype(q.dtype).reshape(C, N, K, Q // K, H)

    in_prompt = jnp.arange(P, dtype=lengths.dtype)[None] < lengths[:, None]
    slots = jnp.arange(R, dtype=step.dtype)
    shared = einsum_fp32("cnkgh,ckph->ckngp", q, prompt.keys)
    alone = einsum_fp32("cnkgh,cnkrh->cnkgr", q, own.keys)
    itself = jnp.asarray(rule.capped(einsum_fp32("cnkgh,cnkh->cnkg", q, k)[..., None]))
    places = jnp.arange(P, dtype=lengths.dtype)[None], lengths[:, None] + jnp.arange(R, dtype=lengths.dtype)[None]
    if step.ndim:  # all of it with an axis N
        now = (lengths[:, None] + step.astype(lengths.dtype))[..., None]
        in_prompt, before = in_prompt[:, None], slots[None, None] < step[..., None]
        places = places[0][:, None], places[1][:, None]
    else:
        now, before = (lengths + step.astype(lengths.dtype))[:, None], (slots < step)[None]
    shared = jnp.asarray(hide(*_ruled(shared, in_prompt, rule, now, places[0], 2)))
    alone = jnp.asarray(hide(*_ruled(alone, before, rule, now, places[1], 1)))

    shared_top = jnp.moveaxis(jnp.max(shared, axis=-1, keepdims=True), 1, 2)
    top = jnp.maximum(jnp.maximum(shared_top, jnp.max(alone, axis=-1, keepdims=True)), itself)
    shared = jnp.exp(shared - jnp.moveaxis(top, 2, 1))
    alone, itself = jnp.exp(alone - top), jnp.exp(itself - top)

    total = jnp.sum(alone, axis=-1, keepdims=True) + itself
    total += jnp.moveaxis(jnp.sum(shared, axis=-1, keepdims=True), 1, 2)
    out = einsum_fp32("ckngp,ckph->cnkgh", shared.astype(v.dtype), prompt.values)
    out += einsum_fp32("cnkgr,cnkrh->cnkgh", alone.astype(v.dtype), own.values)
    out += itself * v[:, :, :, None].astype(jnp.float32)
    new = KeyValues(k[:, :, :, None], v[:, :, :, None])
    return (out / total).astype(v.dtype).reshape(C, N, Q, H), new


_decode_all = functools.partial(_decode, None)


def _ruled(
    scores: jax.Array, visible: jax.Array, rule: ScoreRule, queries: jax.Array, keys: jax.Array, candidates: int
) -> tuple[jax.Array, jax.Array]:
    """Cap, bias and window of scores [C … U], whose axis ``candidates`` is N; with the mask in their rank.

    Args:
      scores: [C K N G U] or [C N K G U].
      visible: [C U] or [1 U] where all candidates of a prompt see alike, else [C N U] or [C 1 U].
      rule: of the layer.
      queries: positions [C 1], or [C N 1].
      keys: positions [C U] or [1 U], or [C 1 U] or [1 1 U].
      candidates: 2 or 1, where N is.
    """
    scores = jnp.asarray(rule.capped(scores))
    bias, near = rule.bias(queries, keys), rule.near(queries, keys)
    if bias is not None:
        K = scores.shape[3 - candidates]
        heads = jnp.moveaxis(bias.reshape(K, -1, *bias.shape[1:]), 2, 0)
        each = queries.ndim == 3
        scores = scores + (jnp.moveaxis(heads, 3, candidates) if each else jnp.expand_dims(heads, candidates))
    if near is not None:
        visible = visible & near
    if visible.ndim == 3:
        return scores, jnp.moveaxis(visible[:, :, None, None], 1, candidates)
    return scores, visible[:, None, None, None]
