"""The likelihood of a response: supervised fine-tuning, and the MLE term beside every other loss."""

from __future__ import annotations

from typing import Literal

import jax.numpy as jnp

from jaxrefine.losses.reduction import as_mask, live, one_of
from jaxrefine.typing import Array, Bool, Float


def negative_log_likelihood(
    token_logprobs: Float[Array, "*batch T"],
    *,
    where: Bool[Array, "*batch T"] | None = None,
    normalize: Literal["sum", "mean", "token"] = "sum",
) -> Float[Array, "*batch"] | Float[Array, "*batch T"]:
    """Negative log-likelihood of a response from the log-probs of its tokens.

    −Σ_t log p_t,   −(1/T) Σ_t log p_t,   or  −log p_t itself

    Args:
        token_logprobs: [..., T] in nats.
        where: [..., T] the response's own tokens: not the prompt's, not padding.
        normalize: ``"sum"`` (SSFT: one value a response), ``"mean"`` (Tuna: one value a response, divided by its
            length), ``"token"`` (PandaLM averages over the tokens of a batch: one value a token, 0 where masked).

    Returns:
        [...] one value a response, or [..., T] one a token.

    Raises:
        ValueError: for an unknown ``normalize``, with the nearest.

    >>> import jax.numpy as jnp
    >>> float(negative_log_likelihood(jnp.array([-1.0, -2.0, -9.0]), where=jnp.array([True, True, False])))
    3.0

    Source: arXiv 2310.10047, Eq. 2–4 (sum); Tuna, arXiv 2310.13385, Eq. 1–2 (mean); PandaLM, arXiv 2306.05087 (token).
    """
    one_of(normalize, ("sum", "mean", "token"), "normalize")
    where = as_mask(where, token_logprobs)
    losses = -live(token_logprobs, where)
    if normalize == "token":
        return losses
    total = jnp.sum(losses, axis=-1)
    if normalize == "sum":
        return total
    return total / jnp.maximum(jnp.sum(where, axis=-1).astype(total.dtype), 1)
