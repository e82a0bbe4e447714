"""Who sees whom: one integer a token covers causality, padding, packing and sharing."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrefine.typing import Array, Bool, Float, Int

MINIMUM = -1e30
"""What a hidden score becomes: finite, so that a row without any visible key has finite values and gradients."""


def tree_mask(ends: Int[Array, "*batch S"]) -> Bool[Array, "*batch S S"]:
    """Query slot q sees key slot k exactly when k <= q < ends[k].

    Args:
      ends: the slot after token k's subtree; padding holds its own slot + 1.

    Returns:
      [..., q, k].

    >>> tree_mask(jnp.array([4, 2, 4, 4])).astype(int).tolist()  # a prompt, two responses of one and two tokens
    [[1, 0, 0, 0], [1, 1, 0, 0], [1, 0, 1, 0], [1, 0, 1, 1]]
    """
    slots = jnp.arange(ends.shape[-1], dtype=jnp.int32)
    shape = (1,) * (ends.ndim - 1)
    queries, keys = slots.reshape(*shape, -1, 1), slots.reshape(*shape, 1, -1)
    return (keys <= queries) & (queries < jnp.asarray(ends)[..., None, :])


def hide(scores: Float[Array, "*shape"], visible: Bool[Array, "*#shape"]) -> Float[Array, "*shape"]:
    """Scores with everything invisible at the finite ``MINIMUM``; the mask has the rank of the scores."""
    return jnp.where(visible, scores, jnp.asarray(MINIMUM, scores.dtype))
