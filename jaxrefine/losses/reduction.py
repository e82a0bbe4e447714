"""What all losses of a group share: which candidates count, which pairs, who is above whom, and guarded averages.

Scores and labels: higher is better. A masked candidate is as good as removed: whatever it holds, NaN included,
neither the value nor a gradient sees it. Everything is computed in fp32 (float64 stays float64).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrefine.config import unknown_name
from jaxrefine.typing import Array, Bool, Float, Int

Labels = Float[Array, "*batch N"] | Int[Array, "*batch N"] | Bool[Array, "*batch N"]
"""One label a candidate, higher is better; right / wrong labels are 1 / 0 or booleans."""

Mask = Bool[Array, "*batch N"] | None
"""Candidates that take part; None: all of them."""

Ties = Literal["index", "skip"]
"""What equal labels mean: ``"index"`` ranks them by their index, ``"skip"`` ranks them alike and drops the pair."""

REQUIRED: Any = type("Required", (), {"__repr__": lambda self: "REQUIRED"})()
"""Default of a hyper-parameter that has none."""


def pair_count(labels: Labels, where: Mask = None, *, ties: Ties = "skip") -> Float[Array, "*batch"]:
    """Number of pairs of which one candidate is ranked above the other.

    Args:
        labels: [..., N].
        where: [..., N].
        ties: ``"skip"`` counts pairs with label_j > label_k; ``"index"`` also pairs of equal labels.

    Returns:
        [...] fp32, a whole number; zero where there is nothing to compare.

    >>> import jax.numpy as jnp
    >>> pair_count(jnp.array([[1.0, 0.0, 1.0, 0.0], [1.0, 1.0, 1.0, 1.0]])).tolist()
    [4.0, 0.0]
    """
    labels, where = _labels(labels, where)
    return jnp.sum(above(labels, where, ties), axis=(-2, -1), dtype=jnp.float32)


def has_pair(labels: Labels, where: Mask = None, *, ties: Ties = "skip") -> Bool[Array, "*batch"]:
    """Whether any candidate of the group is ranked above another: whether there is anything to learn from it."""
    labels, where = _labels(labels, where)
    return jnp.any(above(labels, where, ties), axis=(-2, -1))


def live(values: Any, where: Bool[Array, "*batch N"]) -> Float[Array, "*batch N"]:
    """``values`` in fp32 at least, and zero where masked, so that nothing behind a mask reaches a value or gradient."""
    values = as_float(values)
    return jnp.where(where, values, jnp.zeros_like(values))


def as_float(values: Any) -> Array:
    """``values`` in fp32, or in float64 where it is that already."""
    values = jnp.asarray(values)
    return values.astype(values.dtype if values.dtype == jnp.float64 else jnp.float32)


def as_mask(where: Mask, values: Any) -> Bool[Array, "*batch N"]:
    """The mask itself, or one that leaves nothing out."""
    return jnp.ones(jnp.shape(values), bool) if where is None else jnp.asarray(where)


def above(
    labels: Float[Array, "*batch N"], where: Bool[Array, "*batch N"], ties: Ties = "skip"
) -> Bool[Array, "*batch N N"]:
    """[..., j, k] whether candidate j is ranked above candidate k, both among ``where``."""
    one_of(ties, ("index", "skip"), "ties")
    higher, lower = labels[..., :, None], labels[..., None, :]
    ranked = higher > lower
    if ties == "index":
        ranked |= (higher == lower) & jnp.broadcast_to(jnp.tri(labels.shape[-1], k=-1, dtype=bool).T, ranked.shape)
    return ranked & where[..., :, None] & where[..., None, :]


def ranks(
    labels: Float[Array, "*batch N"], where: Bool[Array, "*batch N"], ties: Ties = "skip"
) -> Float[Array, "*batch N"]:
    """Position in descending label order, the best at 0: by ``ties="skip"`` dense ranks, equal labels alike."""
    ranked = above(labels, where, ties)
    if ties == "skip":  # count each distinct label once, at its first candidate
        alike = (labels[..., :, None] == labels[..., None, :]) & where[..., :, None] & where[..., None, :]
        earlier = jnp.broadcast_to(jnp.tri(labels.shape[-1], k=-1, dtype=bool).T, alike.shape)
        first = ~jnp.any(alike & earlier, axis=-2)
        ranked = ranked & first[..., :, None]
    return jnp.sum(ranked, axis=-2).astype(labels.dtype)


def differences(scores: Float[Array, "*batch N"]) -> Float[Array, "*batch N N"]:
    """[..., j, k] s_j − s_k: positive where the model agrees that j is better than k."""
    return scores[..., :, None] - scores[..., None, :]


def mean_over_pairs(values: Float[Array, "*batch N N"], pairs: Bool[Array, "*batch N N"]) -> Float[Array, "*batch"]:
    """The average over the pairs of each group; 0 for a group without one."""
    count = jnp.sum(pairs, axis=(-2, -1)).astype(values.dtype)
    return sum_over_pairs(values, pairs) / jnp.maximum(count, 1)


def sum_over_pairs(values: Float[Array, "*batch N N"], pairs: Bool[Array, "*batch N N"]) -> Float[Array, "*batch"]:
    """The sum over the pairs of each group."""
    return jnp.sum(jnp.where(pairs, values, jnp.zeros_like(values)), axis=(-2, -1))


def log_sum_exp(values: Float[Array, "*batch N"], where: Bool[Array, "*batch N"]) -> Float[Array, "*batch"]:
    """Log Σ exp over ``where``; 0, without gradient, where that is empty."""
    low = jnp.asarray(jnp.finfo(values.dtype).min, values.dtype)
    largest = jax.lax.stop_gradient(jnp.max(values, axis=-1, keepdims=True, where=where, initial=low))
    largest = jnp.where(jnp.any(where, axis=-1, keepdims=True), largest, jnp.zeros_like(largest))
    shifted = jnp.where(where, values - largest, jnp.zeros_like(values))
    total = jnp.sum(jnp.where(where, jnp.exp(shifted), jnp.zeros_like(values)), axis=-1)
    return jnp.log(jnp.where(total > 0, total, jnp.ones_like(total))) + largest[..., 0]


def log_softmax(values: Float[Array, "*batch N"], where: Bool[Array, "*batch N"]) -> Float[Array, "*batch N"]:
    """Log softmax over ``where``, and 0 elsewhere."""
    return jnp.where(where, values - log_sum_exp(values, where)[..., None], jnp.zeros_like(values))


def one_of(value: object, allowed: Sequence[str], what: str) -> None:
    """Refuses a value that is not among those allowed, naming the nearest."""
    if value not in allowed:
        raise ValueError(unknown_name(value, allowed, f"value of {what}"))


def number(value: Any, what: str, *, low: float = 0.0, inclusive: bool = False) -> None:
    """Refuses what is not a finite number above ``low`` (or equal to it, if ``inclusive``)."""
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{what} is a number, given {value!r}" + (": it has no default" if value is REQUIRED else ""))
    if not math.isfinite(value) or value < low or (value == low and not inclusive):
        raise ValueError(f"{what} is a finite number {'>=' if inclusive else '>'} {low:g}, given {value!r}")


def _labels(labels: Any, where: Mask) -> tuple[Float[Array, "*batch N"], Bool[Array, "*batch N"]]:
    where = as_mask(where, labels)
    return live(labels, where), where
