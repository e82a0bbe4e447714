"""Disentangled attention: queries and keys are also compared with a table of distances."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.models.encoder_config import RelativePositions
from jaxrefine.models.masks import hide
from jaxrefine.models.products import einsum_fp32
from jaxrefine.typing import Array, Bool, Float, Int


def distance_buckets(relative: RelativePositions) -> Int[np.ndarray, " distances"]:
    """The bucket of each distance 0 .. max_distance; larger ones share the last.

    Up to half the number of buckets a distance is its own bucket; beyond, ceil(log(d / half) / log((max - 1) / half)
    · (half - 1)) + half, so that max_distance - 1 is in the last bucket but one.

    Args:
      relative: the largest distance and the number of buckets.

    Returns:
      [max_distance + 1], from 0 to ``relative.span``.

    >>> distance_buckets(RelativePositions(max_distance=16, num_buckets=8)).tolist()
    [0, 1, 2, 3, 4, 5, 5, 6, 6, 6, 7, 7, 7, 7, 7, 7, 8]

    Source: He et al. 2021, DeBERTa-v2, https://github.com/microsoft/DeBERTa (make_log_bucket_position).
    """
    distances = np.arange(relative.max_distance + 1)
    if relative.num_buckets is None:
        return distances.astype(np.int32)
    half = relative.num_buckets // 2
    logs = np.log(np.maximum(distances, half) / half)
    far = np.ceil(logs / logs[relative.max_distance - 1] * (half - 1)) + half
    return np.minimum(np.where(distances <= half, distances, far), relative.span).astype(np.int32)


def table_rows(positions: Int[Array, "B S"], relative: RelativePositions) -> Int[Array, "B S S"]:
    """The row of the table of distances for each pair: bucket(q - k) + span, which has 2 · span rows.

    Args:
      positions: of each token in its sequence.
      relative: how distances share rows.

    Returns:
      [B, q, k].

    >>> table_rows(jnp.arange(3)[None], RelativePositions(max_distance=2)).tolist()
    [[[2, 1, 0], [3, 2, 1], [3, 3, 2]]]
    """
    buckets, span = distance_buckets(relative), relative.span
    signed = np.concatenate([-buckets[:0:-1], buckets])
    rows = jnp.asarray(np.clip(signed + span, 0, 2 * span - 1), jnp.int32)
    positions = jnp.asarray(positions)
    distances = positions[:, :, None] - positions[:, None, :]
    limit = relative.max_distance
    return rows.at[jnp.clip(distances, -limit, limit) + limit].get(mode="promise_in_bounds")


def disentangled_attend(
    q: Float[Array, "B S Q H"],
    k: Float[Array, "B S Q H"],
    v: Float[Array, "B S Q H"],
    visible: Bool[Array, "B S S"],
    *,
    rows: Int[Array, "B S S"] | None = None,
    position_keys: Float[Array, "R Q H"] | None = None,
    position_queries: Float[Array, "R Q H"] | None = None,
) -> Float[Array, "B S Q H"]:
    """softmax((q kᵀ + q Kᵀ[row] + k Qᵀ[row]) / sqrt(terms · H)) v over visible keys, scores and softmax in fp32.

    Without the two tables this is plain attention.

    Args:
      q: queries.
      k: keys.
      v: values.
      visible: which key each query sees.
      rows: of ``table_rows``.
      position_keys: the table of distances as keys, or None for no product of content with position.
      position_queries: as queries, or None for no product of position with content.

    Returns:
      Like ``q``.

    >>> one = jnp.ones((1, 2, 1, 4))
    >>> disentangled_attend(one, one, one, jnp.ones((1, 2, 2), bool)).shape
    (1, 2, 1, 4)

    Source: He et al. 2021, arXiv:2006.03654, Eq. 4.
    """
    scores = einsum_fp32("bqnh,bknh->bnqk", q, k)
    terms = 1
    if position_keys is not None:
        assert rows is not None
        terms += 1
        scores = scores + _pick(einsum_fp32("bqnh,rnh->bnqr", q, position_keys), rows)
    if position_queries is not None:
        assert rows is not None
        terms += 1
        by_key = _pick(einsum_fp32("bknh,rnh->bnkr", k, position_queries), jnp.swapaxes(rows, 1, 2))
        scores = scores + jnp.swapaxes(by_key, 2, 3)
    scores = scores / math.sqrt(terms * q.shape[-1])
    weights = jax.nn.softmax(hide(scores, visible[:, None]), axis=-1).astype(v.dtype)
    return jnp.einsum("bnqk,bknh->bqnh", weights, v)


def _pick(products: Array, rows: Array) -> jax.Array:
    """Products [B Q S R] at rows [B S U] of their last axis -> [B Q S U]."""
    return jnp.take_along_axis(jnp.asarray(products), jnp.asarray(rows)[:, None], axis=-1, mode="promise_in_bounds")
