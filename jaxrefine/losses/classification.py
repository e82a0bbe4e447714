"""Losses over candidates judged one by one as right or wrong."""

from __future__ import annotations

import jax.numpy as jnp

from jaxrefine.losses.reduction import Labels, Mask, as_float, as_mask, live
from jaxrefine.typing import Array, Float


def verdict_cross_entropy(
    log_p_correct: Float[Array, "*batch N"],
    log_p_incorrect: Float[Array, "*batch N"],
    labels: Labels,
    *,
    where: Mask = None,
) -> Float[Array, "*batch N"]:
    """Cross-entropy of the right verdict among the whole vocabulary.

    −[right] log p(correct) − [wrong] log p(incorrect)

    Args:
        log_p_correct: [..., N] in nats, the full-vocabulary log-prob of the verdict "correct" (Eq. 5).
        log_p_incorrect: [..., N] of the verdict "incorrect" (Eq. 6).
        labels: [..., N]; right where above 0, wrong otherwise.
        where: [..., N].

    Returns:
        [..., N] one value a candidate, 0 where masked.

    >>> import jax.numpy as jnp
    >>> verdict_cross_entropy(jnp.array([-0.5, -0.25]), jnp.array([-2.0, -3.0]), jnp.array([1.0, 0.0])).tolist()
    [0.5, 3.0]

    Source: arXiv 2310.10047, Eq. 9.
    """
    where = as_mask(where, labels)
    correct, incorrect = live(log_p_correct, where), live(log_p_incorrect, where)
    return jnp.where(as_float(labels) > 0, -correct, -incorrect.astype(correct.dtype))
