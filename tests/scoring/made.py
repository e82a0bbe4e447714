"""Groups drawn at random, and a model small enough to differentiate many times."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.data.packing import TokenGroup
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder

CONFIG = TransformerConfig(
    vocab_size=17, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4, hidden_width=24
)
LONGEST_PROMPT, LONGEST_RESPONSE = 5, 4
VERDICTS = ((12, 13), (11,))
"""A word of two tokens and a word of one, in this order: the other way round every verdict is "right" but for 1e-4."""


def decoder(attention: str = "dense") -> Decoder:
    return Decoder(CONFIG, dtype=jnp.float32, attention=attention)


@jax.jit
def params(seed: int | jax.Array = 0) -> dict:
    """The decoder's, with embeddings of unit size and larger kernels, so that scores vary and no norm magnifies."""
    tokens = jnp.zeros((1, 4), jnp.int32)
    row = (tokens, jnp.arange(4, dtype=jnp.int32)[None], jnp.full((1, 4), 4, jnp.int32))
    fresh = decoder().init(jax.random.key(seed), *row, method="trunk")["params"]
    factors = {"embed": 6.0, "layers": 1.5, "head": 2.0}
    return {name: _scaled(tree, factors.get(name, 1.0)) for name, tree in fresh.items()}


def _scaled(tree: dict, factor: float) -> dict:
    def leaf(path: tuple, value: jax.Array) -> jax.Array:
        return value if path[-1].key == "scale" else value * factor

    return jax.tree_util.tree_map_with_path(leaf, tree)


def groups(rng: np.random.Generator, candidates: list[int], *, binary: bool = False) -> list[TokenGroup]:
    """One group for each number of candidates; unequal lengths, tied labels, some candidates not ranked."""
    made = []
    for group_id, num in enumerate(candidates):
        prompt = rng.integers(3, 17, rng.integers(1, LONGEST_PROMPT + 1))
        responses = [rng.integers(3, 17, rng.integers(1, LONGEST_RESPONSE + 1)) for _ in range(num)]
        labels = rng.integers(0, 2 if binary else 4, num)
        made.append(
            TokenGroup(
                group_id,
                tuple(prompt.tolist()),
                tuple(tuple(response.tolist()) for response in responses),
                labels=tuple(labels.astype(float).tolist()),
                rank_where=tuple((rng.random(num) < 0.85).tolist()),
                mle_weight=tuple(rng.integers(0, 3, num).astype(float).tolist()),
                reference_scores=tuple((-3.0 * rng.random(num) - 5.0).tolist()),
                suffix=(9, 10),
                verdicts=VERDICTS,
            )
        )
    return made
