"""Attention over packed rows: backends by name, all exact, none chosen silently.

``dense`` scores every pair of slots of a row under the tree mask: the reference. ``expand`` lays every
root-to-leaf path of the row out by itself and runs plain causal attention on it; only queries, keys and values are
copied, so all matmuls of the layer still see each prompt once.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.tree_util import Partial

from jaxrefine.config import unknown_name
from jaxrefine.models.attention_scores import ScoreRule
from jaxrefine.models.masks import hide, tree_mask
from jaxrefine.models.products import einsum_fp32
from jaxrefine.typing import Array, Bool, Float, Int

Attend = Callable[..., tuple[jax.Array, Any]]
"""(q [B S Q H], k [B S K H], v [B S K H], the layer's state, its ScoreRule) -> (output [B S Q H], the state)."""


def attend(
    q: Float[Array, "B S Q H"],
    k: Float[Array, "B U K H"],
    v: Float[Array, "B U K H"],
    visible: Bool[Array, "#B S U"],
    rule: ScoreRule | None = None,
    positions: tuple[Int[Array, "#B S"], Int[Array, "#B U"]] | None = None,
) -> Float[Array, "B S Q H"]:
    """softmax(score(q, k)) v over visible keys, the softmax in fp32.

    Query heads that share a key-value head are an axis of the product: keys and values are never repeated.

    Args:
      q: queries.
      k: keys; K divides Q.
      v: values.
      visible: which key each query sees; a query that sees none gets the mean of all values.
      rule: how products become scores; None: q · k / sqrt(H).
      positions: of queries and keys; needed where the rule has a bias or a window.

    Returns:
      Like ``q``.

    >>> one = jnp.ones((1, 1, 2, 4))
    >>> attend(one, one[:, :, :1], one[:, :, :1], jnp.ones((1, 1, 1), bool)).shape
    (1, 1, 2, 4)

    Source: Ainslie et al. 2023, arXiv:2305.13245 (grouped queries).
    """
    B, S, Q, H = q.shape
    K = k.shape[2]
    grouped = q.reshape(B, S, K, Q // K, H)
    scores = einsum_fp32("bskgh,bukh->bkgsu", grouped, k) / (math.sqrt(H) if rule is None else rule.divisor)
    if rule is not None:
        scores, visible = _ruled(scores, jnp.asarray(visible), rule, positions)
    weights = jax.nn.softmax(hide(scores, visible[:, None, None]), axis=-1).astype(v.dtype)
    return jnp.einsum("bkgsu,bukh->bskgh", weights, v).reshape(B, S, Q, H)


def _ruled(scores: jax.Array, visible: jax.Array, rule: ScoreRule, positions: Any) -> tuple[jax.Array, jax.Array]:
    """Cap, bias and window: scores [B K G S U] and what is visible [B S U]."""
    scores = jnp.asarray(rule.capped(scores))
    if not rule.by_position:
        return scores, visible
    queries, keys = jnp.asarray(positions[0])[:, :, None], jnp.asarray(positions[1])[:, None, :]
    bias, near = rule.bias(queries, keys), rule.near(queries, keys)
    if bias is not None:
        scores = scores + jnp.moveaxis(bias.reshape(*scores.shape[1:3], *bias.shape[1:]), 2, 0)
    return scores, visible if near is None else visible & near


def _dense(
    visible: jax.Array,
    positions: jax.Array | None,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    state: Any = None,
    rule: ScoreRule | None = None,
) -> tuple[Array, Any]:
    return attend(q, k, v, visible, rule, None if positions is None else (positions, positions)), state


def _expand(
    slots: jax.Array,
    homes: jax.Array,
    positions: jax.Array | None,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    state: Any = None,
    rule: ScoreRule | None = None,
) -> tuple[Array, Any]:
    B, S, Q, H = q.shape
    _, E, X = slots.shape
    flat = slots.reshape(B, E * X)

    def along_paths(x: jax.Array) -> jax.Array:
        rows = x.reshape(B, S, -1)
        return _take(rows, flat).reshape(B * E, X, *x.shape[2:])

    causal = jnp.tril(jnp.ones((1, X, X), bool))
    pair = None if positions is None else (positions, positions)
    out = attend(along_paths(q), along_paths(k), along_paths(v), causal, rule, pair)
    return _take(out.reshape(B, E * X, Q * H), homes).reshape(B, S, Q, H), state


def _take(rows: Array, slots: Array) -> jax.Array:
    """Rows [B U C] at slots [B S] -> [B S C]."""
    return jax.vmap(lambda row, slot: row.at[slot].get(mode="promise_in_bounds"))(rows, slots)


def dense(
    *, ends: Int[Array, "B S"], paths: Any = None, homes: Any = None, positions: Int[Array, "B S"] | None = None
) -> Attend:
    """Every pair of slots of a row, under the tree mask of ``ends``; paths and homes are not needed."""
    del paths, homes
    return Partial(_dense, tree_mask(ends), None if positions is None else jnp.asarray(positions))


def expand(
    *,
    ends: Any = None,
    paths: Int[Array, "B E X"] | None = None,
    homes: Int[Array, "B S"] | None = None,
    positions: Int[Array, "B S"] | None = None,
) -> Attend:
    """Plain causal attention along each root-to-leaf path.

    Args:
      ends: not needed.
      paths: slots along each path, padded at its end with -1.
      homes: flat index e * X + x from which each slot takes its output.
      positions: of each slot.

    Raises:
      ValueError: a batch packed without paths and homes.
    """
    del ends
    if paths is None or homes is None:
        raise ValueError(
            "attention='expand' reads batch.paths and batch.homes, and this batch has none: "
            "pack with PackingConfig(expand=True), or take attention='dense'"
        )
    slots = jnp.maximum(jnp.asarray(paths), 0)
    if positions is not None:
        B, E, X = slots.shape
        positions = _take(jnp.asarray(positions)[..., None], slots.reshape(B, E * X)).reshape(B * E, X)
    return Partial(_expand, slots, jnp.asarray(homes), positions)


ATTENTION: dict[str, Callable[..., Attend]] = {"dense": dense, "expand": expand}
"""Name -> function of a batch's ends, paths, homes and positions that prepares, once a step, what every layer calls."""


def make_attend(name: str, **layout: Any) -> Attend:
    """The named backend, prepared for one batch.

    Args:
      name: a key of ``ATTENTION``.
      **layout: ``ends``, ``paths``, ``homes`` of the batch; ``positions`` where scores depend on them.

    Raises:
      ValueError: an unknown name.
    """
    if name not in ATTENTION:
        raise ValueError(unknown_name(name, ATTENTION, "attention backend"))
    return ATTENTION[name](**layout)
