"""Losses that make one distribution over choices resemble another."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from jaxrefine.losses.reduction import Mask, as_mask, live, log_softmax, number, one_of
from jaxrefine.typing import Array, Float


def reward_distillation(
    logits: Float[Array, "*batch N"],
    rewards: Float[Array, "*batch N"],
    *,
    where: Mask = None,
    temperature: float = 1.0,
    direction: Literal["forward", "reverse"] = "forward",
) -> Float[Array, "*batch"]:
    """Kullback–Leibler divergence between a router and the softmax of the rewards.

    p = softmax(rewards / temperature),  z = softmax(logits)
    forward: KL(p ‖ z) = Σ p (log p − log z);   reverse: KL(z ‖ p) = Σ z (log z − log p)

    Args:
        logits: [..., M] of the router, one a model.
        rewards: [..., M] raw rewards of the models' answers.
        where: [..., M] rewards that are known; both softmaxes are over these.
        temperature: of the target alone, > 0; the paper uses 1. The logits are not divided by it.
        direction: ``"reverse"`` is the order as printed, ``"forward"`` what distillation usually means.

    Returns:
        [...] one value a query, in nats; 0 where fewer than two rewards are known.

    Raises:
        ValueError: for a temperature not above 0 or an unknown direction, with the nearest.

    >>> import jax.numpy as jnp
    >>> logits, rewards = jnp.array([0.0, 0.0]), jnp.log(jnp.array([3.0, 1.0]))
    >>> round(float(reward_distillation(logits, rewards)), 6)  # log 2 − H(3/4, 1/4)
    0.130812

    Source: ZOOTER, arXiv 2311.08692, the router's KL loss.
    """
    number(temperature, "temperature")
    one_of(direction, ("forward", "reverse"), "direction")
    where = as_mask(where, logits)
    log_z = log_softmax(live(logits, where), where)
    log_p = log_softmax(live(rewards, where) / temperature, where).astype(log_z.dtype)
    first, second = (log_p, log_z) if direction == "forward" else (log_z, log_p)
    return jnp.sum(jnp.where(where, jnp.exp(first) * (first - second), jnp.zeros_like(first)), axis=-1)
