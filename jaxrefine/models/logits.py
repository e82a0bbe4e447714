"""From hidden states to logits: the one description that scoring, sampling and tests read."""

from __future__ import annotations

from typing import Any

import flax.struct
import jax
import jax.numpy as jnp

from jaxrefine.models.products import einsum_fp32
from jaxrefine.typing import Array, Float


@flax.struct.dataclass(frozen=True)
class LogitForm:
    """logits = cap(scale · hidden · embeddingᵀ + bias), cap(x) = softcap · tanh(x / softcap)."""

    embedding: Float[Array, "V D"]
    bias: Float[Array, " V"] | None = None
    scale: float = flax.struct.field(pytree_node=False, default=1.0)
    softcap: float | None = flax.struct.field(pytree_node=False, default=None)
    implementation: str = flax.struct.field(pytree_node=False, default="xla")
    """Of ``losses.logprobs``."""
    chunk_size: int | None = flax.struct.field(pytree_node=False, default=None)
    """Of ``losses.logprobs``."""

    def logits(self, hidden: Float[Array, "*batch D"]) -> Float[Array, "*batch V"]:
        """All logits of each hidden state, fp32; products in its dtype, accumulated in fp32.

        >>> LogitForm(jnp.array([[1.0], [2.0]]), scale=3.0).logits(jnp.array([[1.0]])).tolist()
        [[3.0, 6.0]]
        """
        logits = einsum_fp32("...d,vd->...v", hidden, jnp.asarray(self.embedding).astype(hidden.dtype))
        if self.scale != 1.0:
            logits = self.scale * logits
        if self.bias is not None:
            logits = logits + jnp.expand_dims(self.bias.astype(jnp.float32), tuple(range(logits.ndim - 1)))
        return logits if self.softcap is None else self.softcap * jnp.tanh(logits / self.softcap)

    def folded(self, hidden: Float[Array, "*batch D"]) -> tuple[Array, Array, dict[str, Any]]:
        """The same in the words of ``losses.logprobs``, whose logits are cap(hidden · embeddingᵀ) / temperature.

        Returns:
          Hidden states and embedding, with a column more for a bias; the options ``temperature``, ``softcap``,
          ``implementation`` and ``chunk_size``.
        """
        embedding = self.embedding
        if self.bias is not None:
            column = (self.bias.astype(jnp.float32) / self.scale).astype(embedding.dtype)
            embedding = jnp.concatenate([embedding, column[:, None]], axis=1)
            hidden = jnp.concatenate([hidden, jnp.ones((*hidden.shape[:-1], 1), hidden.dtype)], axis=-1)
        softcap = None if self.softcap is None else self.softcap / self.scale
        options = {"temperature": 1.0 / self.scale, "softcap": softcap}
        return hidden, embedding, options | {"implementation": self.implementation, "chunk_size": self.chunk_size}


def logit_form(model: Any) -> LogitForm:
    """What a bound model says of its logits; one that only has ``output_embedding()`` has the plain product."""
    if hasattr(model, "logit_form"):
        return model.logit_form()
    return LogitForm(jax.tree.map(jnp.asarray, model.output_embedding()))
