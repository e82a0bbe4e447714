"""What differs from layer to layer, as arrays that the scan over layers reads beside the parameters."""

from __future__ import annotations

import flax.struct
import jax.numpy as jnp
import numpy as np

from jaxrefine.models.config import TransformerConfig
from jaxrefine.typing import Array, Bool, Float


@flax.struct.dataclass(frozen=True)
class Choices:
    """Of all layers, [L]; inside the scan, of one. None: alike for all, and ``config`` says what."""

    windowed: Bool[Array, "*L"] | None = None
    """Whether the layer has the window."""
    number: Float[Array, "*L"] | None = None
    """Of the layer, counted from 1."""


def layer_choices(config: TransformerConfig) -> Choices:
    """The choices of all layers.

    >>> config = TransformerConfig(vocab_size=8, width=4, num_layers=2, num_heads=1, num_kv_heads=1, head_width=4,
    ...                            hidden_width=4, window=3, window_layers=(True, False))
    >>> layer_choices(config).windowed.tolist()
    [True, False]
    """
    windows = config.windowed_layers
    number = jnp.arange(1, config.num_layers + 1, dtype=jnp.float32)
    return Choices(
        windowed=jnp.asarray(np.array(windows)) if len(set(windows)) > 1 else None,
        number=number if config.attention_scale_by_layer else None,
    )
