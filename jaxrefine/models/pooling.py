"""One vector for each sequence of a packed row: its first token's, its last token's, or their mean."""

from __future__ import annotations

from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxrefine.config import unknown_name
from jaxrefine.typing import Array, Bool, Float, Int


def sequence_mask(ends: Int[Array, "B S"]) -> Bool[Array, "B S S"]:
    """Query slot q sees key slot k exactly when ``ends[q] == ends[k]``: both ways within a sequence, never beyond.

    Args:
      ends: the slot after each token's sequence; padding holds its own slot + 1.

    Returns:
      [B, q, k].

    >>> sequence_mask(jnp.array([[2, 2, 3, 4]])).astype(int).tolist()  # a sequence of two tokens, two of padding
    [[[1, 1, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]]
    """
    ends = jnp.asarray(ends)
    return ends[:, :, None] == ends[:, None, :]


def first_slots(ends: Int[Array, "B S"]) -> Int[Array, "B S"]:
    """The slot at which each slot's sequence begins.

    >>> first_slots(jnp.array([[2, 2, 5, 5, 5, 6]])).tolist()
    [[0, 0, 2, 2, 2, 5]]
    """
    ends = jnp.asarray(ends)
    slots = jnp.broadcast_to(jnp.arange(ends.shape[1], dtype=jnp.int32)[None], ends.shape)
    begins = jnp.concatenate([jnp.ones_like(ends[:, :1], bool), ends[:, 1:] != ends[:, :-1]], axis=1)
    return jax.lax.cummax(jnp.where(begins, slots, 0), axis=1)


def _at(hidden: Array, slots: Array) -> jax.Array:
    """Hidden states [B S D] at slots [B S]."""
    return jnp.take_along_axis(jnp.asarray(hidden), jnp.asarray(slots)[..., None], axis=1, mode="clip")


def _first(hidden: Array, ends: Array) -> jax.Array:
    return _at(hidden, first_slots(ends))


def _last(hidden: Array, ends: Array) -> jax.Array:
    return _at(hidden, jnp.asarray(ends) - 1)


def _mean(hidden: Array, ends: Array) -> jax.Array:
    first = first_slots(ends)
    wide = jnp.asarray(hidden).astype(jnp.float32)
    total = jax.vmap(lambda row, to: jax.ops.segment_sum(row, to, row.shape[0]))(wide, first)
    length = (jnp.asarray(ends) - first).astype(jnp.float32)
    return (_at(total, first) / length[..., None]).astype(hidden.dtype)


POOLINGS: dict[str, Callable[[Array, Array], jax.Array]] = {"first": _first, "last": _last, "mean": _mean}
"""Name -> function of hidden states [B S D] and ends [B S]."""


def pool(hidden: Float[Array, "B S D"], ends: Int[Array, "B S"], how: str) -> Float[Array, "B S D"]:
    """Each slot's sequence as one vector, at every slot of the sequence.

    Args:
      hidden: of each token.
      ends: the slot after each token's sequence.
      how: a key of ``POOLINGS``; a mean is taken in fp32.

    Raises:
      ValueError: an unknown name.

    >>> pool(jnp.array([[[1.0], [3.0], [7.0]]]), jnp.array([[2, 2, 3]]), "mean")[..., 0].tolist()
    [[2.0, 2.0, 7.0]]
    """
    if how not in POOLINGS:
        raise ValueError(unknown_name(how, POOLINGS, "pooling"))
    return POOLINGS[how](hidden, ends)
