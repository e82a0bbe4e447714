"""How a token is chosen from logits: greedy, temperature, top-k, top-p; no sort, one pair of uniforms a token."""

from __future__ import annotations

import dataclasses
import math

import jax
import jax.numpy as jnp

from jaxrefine.typing import Array, Bool, Float, Int, Key

_BLOCK = 32


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
    """Truncate, temper, draw.

    Args:
      temperature: divides the logits; 0 takes the likeliest token.
      top_k: keep the k likeliest tokens (and what ties with the last of them); 0 keeps all.
      top_p: keep the smallest set of likeliest tokens whose tempered probability reaches p (and what ties with the
        last of them), after ``top_k``; 1 keeps all.

    Raises:
      ValueError: a temperature below 0, a top_k below 0, a top_p outside (0, 1].

    >>> Policy(temperature=0).greedy
    True

    Source: Fan et al. 2018, arXiv:1805.04833 (top-k); Holtzman et al. 2020, arXiv:1904.09751 (top-p).
    """

    temperature: float = 1.0
    top_k: int = 0
    top_p: float = 1.0

    def __post_init__(self) -> None:
        if not (self.temperature >= 0 and math.isfinite(self.temperature)):
            raise ValueError(f"Policy.temperature is {self.temperature}; it must be 0 (greedy) or positive and finite")
        if self.top_k < 0:
            raise ValueError(f"Policy.top_k is {self.top_k}; it must be 0 (keep all) or positive")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"Policy.top_p is {self.top_p}; it must be above 0 and at most 1 (keep all)")

    @property
    def greedy(self) -> bool:
        """Whether nothing is drawn."""
        return self.temperature == 0

    @property
    def form(self) -> Form:
        """What is compiled: two policies of one form share a compiled program."""
        return Form(greedy=self.greedy, top_k=self.top_k > 0, top_p=self.top_p < 1)

    @property
    def values(self) -> Values:
        """What the compiled program reads."""
        scale = 1.0 if self.greedy else 1.0 / self.temperature
        return {
            "inverse_temperature": jnp.float32(scale),
            "top_k": jnp.int32(self.top_k),
            "top_p": jnp.float32(self.top_p),
        }


Values = dict[str, jax.Array]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Form:
    """Which steps a policy has."""

    greedy: bool
    top_k: bool
    top_p: bool


Greedy = Policy(temperature=0.0)


def choose(form: Form, values: Values, logits: Float[Array, "M V"], keys: Key[Array, " M"]) -> Int[Array, " M"]:
    """One token a row.

    Args:
      form: of the policy; static.
      values: of the policy.
      logits: fp32.
      keys: one a row, so that a row's token does not depend on the other rows.

    Returns:
      int32 token ids.

    >>> policy = Policy(temperature=0)
    >>> keys = jax.random.split(jax.random.key(0), 1)
    >>> choose(policy.form, policy.values, jnp.array([[0.0, 2.0, 1.0]]), keys).tolist()
    [1]
    """
    if form.greedy:
        return likeliest(logits)
    return draw(truncated(form, values, logits), keys)


def likeliest(logits: Float[Array, "M V"]) -> Int[Array, " M"]:
    """The first of the largest (a max and a min: several times faster than argmax on CPU)."""
    return _first(logits == jnp.max(logits, axis=-1, keepdims=True))


def truncated(form: Form, values: Values, logits: Float[Array, "M V"]) -> Float[Array, "M V"]:
    """Unnormalised tempered probabilities, 1 at the likeliest token and exactly 0 at those cut off."""
    shifted = logits - jnp.max(logits, axis=-1, keepdims=True)
    weights = jnp.exp(shifted * values["inverse_temperature"])
    if form.top_k:
        ones = jnp.ones_like(shifted)
        order = jnp.exp(jnp.maximum(shifted, -80.0))  # a temperature near 0 would tie what underflows
        weights = jnp.where(_head(order, ones, values["top_k"].astype(jnp.float32)), weights, 0.0)
    if form.top_p:
        mass = values["top_p"] * jnp.sum(weights, axis=-1)
        weights = jnp.where(_head(weights, weights, mass), weights, 0.0)
    return weights


def _head(order: jax.Array, measure: jax.Array, enough: jax.Array) -> Bool[Array, "M V"]:
    """Entries at or above the largest value of ``order`` at which ``measure`` summed over them is ``enough``.

    A bisection on the bits of non-negative floats, which order as integers do: exact after 31 halvings.
    """
    bits = jax.lax.bitcast_convert_type(order, jnp.int32)
    low = jnp.zeros(order.shape[:1], jnp.int32)  # always enough, up to rounding
    high = jnp.max(bits, axis=-1) + 1  # never enough
    enough = jnp.broadcast_to(enough, low.shape)

    def halve(_: jax.Array, bounds: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        low, high = bounds
        middle = low + (high - low) // 2
        reached = jnp.sum(jnp.where(bits >= middle[:, None], measure, 0.0), axis=-1) >= enough
        return jnp.where(reached, middle, low), jnp.where(reached, high, middle)

    low, _ = jax.lax.fori_loop(0, 31, halve, (low, high))
    return bits >= low[:, None]


def draw(weights: Float[Array, "M V"], keys: Key[Array, " M"]) -> Int[Array, " M"]:
    """One index a row with probability proportional to its weight; never one of weight 0.

    By inversion in two levels, a block of 32 and then within it, each with a uniform of its own: no noise of the
    size of the vocabulary, and a resolution of 2^-46.
    """
    M, V = weights.shape
    num_blocks = -(-V // _BLOCK)
    blocks = jnp.pad(weights, ((0, 0), (0, num_blocks * _BLOCK - V))).reshape(M, num_blocks, _BLOCK)
    uniforms = jax.vmap(lambda key: jax.random.uniform(key, (2, 1)))(keys)
    block = _invert(jnp.sum(blocks, axis=-1), uniforms[:, 0])
    inside = jnp.take_along_axis(blocks, block[:, None, None], axis=1)[:, 0]
    return block * _BLOCK + _invert(inside, uniforms[:, 1])


def _invert(weights: jax.Array, uniform: jax.Array) -> jax.Array:
    sums = jnp.cumsum(weights, axis=-1)
    positive = weights > 0
    reached = positive & (sums > uniform * sums[:, -1:])
    first = _first(reached)
    last = weights.shape[-1] - 1 - _first(positive[:, ::-1])
    return jnp.minimum(first, last)  # rounding at the very end reaches nothing


def _first(where: jax.Array) -> jax.Array:
    """Index of the first True of each row; the number of columns where there is none."""
    columns = jnp.arange(where.shape[-1], dtype=jnp.int32)[None]
    return jnp.min(jnp.where(where, columns, where.shape[-1]), axis=-1)
