"""What a decoder is: one frozen description in which a field is a mechanism, never a family's name."""

from __future__ import annotations

import dataclasses

from jaxrefine.config import unknown_name

ROPE_SCALINGS = ("linear", "llama3")
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RopeScaling:
    """How rotary frequencies are stretched to reach beyond the positions of the pre-training.

    ``linear`` divides every frequency by ``factor`` (Chen et al. 2023, arXiv:2306.15595). ``llama3`` divides only
    those whose wave is longer than ``original_max_positions / low_freq_factor``, keeps those shorter than
    ``original_max_positions / high_freq_factor``, and interpolates between (Llama Team 2024, arXiv:2407.21783 §3.4).

    Raises:
      ValueError: an unknown kind, a factor that is not positive, or llama3's bounds in the wrong order.
    """

    kind: str
    factor: float
    low_freq_factor: float = 1.0
    high_freq_factor: float = 4.0
    original_max_positions: int = 8192

    def __post_init__(self) -> None:
        if self.kind not in ROPE_SCALINGS:
            raise ValueError(unknown_name(self.kind, ROPE_SCALINGS, "RopeScaling.kind"))
        if not self.factor > 0:
            raise ValueError(f"RopeScaling.factor is {self.factor}; it must be positive")
        if self.kind == "llama3":
            if not 0 < self.low_freq_factor < self.high_freq_factor:
                raise ValueError(
                    f"RopeScaling.low_freq_factor is {self.low_freq_factor} and high_freq_factor is "
                    f"{self.high_freq_factor}; llama3 needs 0 < low < high"
                )
            if self.original_max_positions < 1:
                raise ValueError(
                    f"RopeScaling.original_max_positions is {self.original_max_positions}; it must be >= 1"
                )


@dataclasses.dataclass(frozen=True, kw_only=True)
class TransformerConfig:
    """A causal decoder: pre-norm RMSNorm, rotary positions, grouped-query attention, gated feed-forward.

    Args:
      vocab_size: V, rows of the embedding.
      width: D.
      num_layers: L.
      num_heads: Q, query heads.
      num_kv_heads: K, key-value heads; divides ``num_heads`` (1 is multi-query, ``num_heads`` is multi-head).
      head_width: H, even; need not be ``width / num_heads``.
      hidden_width: F, the feed-forward block.
      max_positions: positions the model was made for; sampling and packing stay below it.
      norm_eps: added to the mean square inside RMSNorm.
      rope_theta: base of the rotary frequencies.
      rope_scaling: None, or how they are stretched.
      activation: of the gate, one of ``ACTIVATIONS``; "gelu" is the exact one.
      qkv_bias: biases on query, key and value.
      o_bias: a bias on the attention's output.
      mlp_bias: biases on gate, up and down.
      tie_embeddings: the head is the embedding itself.

    Raises:
      ValueError: a size below 1, heads that do not divide, an odd head width, an unknown activation.

    >>> tiny = TransformerConfig(vocab_size=64, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4,
    ...                          hidden_width=32)
    >>> tiny.queries_per_key
    2
    """

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    num_kv_heads: int
    head_width: int
    hidden_width: int
    max_positions: int = 2048
    norm_eps: float = 1e-5
    rope_theta: float = 10_000.0
    rope_scaling: RopeScaling | None = None
    activation: str = "silu"
    qkv_bias: bool = False
    o_bias: bool = False
    mlp_bias: bool = False
    tie_embeddings: bool = False

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) < 1:
                raise ValueError(f"TransformerConfig.{name} is {getattr(self, name)}; it must be at least 1")
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"TransformerConfig.num_kv_heads is {self.num_kv_heads}; it must divide num_heads = {self.num_heads}"
            )
        if self.head_width % 2:
            raise ValueError(f"TransformerConfig.head_width is {self.head_width}; rotary positions need an even one")
        if not self.norm_eps >= 0:
            raise ValueError(f"TransformerConfig.norm_eps is {self.norm_eps}; it must not be negative")
        if not self.rope_theta > 0:
            raise ValueError(f"TransformerConfig.rope_theta is {self.rope_theta}; it must be positive")
        if self.activation not in ACTIVATIONS:
            raise ValueError(unknown_name(self.activation, ACTIVATIONS, "TransformerConfig.activation"))

    @property
    def queries_per_key(self) -> int:
        """Query heads that share one key-value head."""
        return self.num_heads // self.num_kv_heads


_SIZES = (
    "vocab_size",
    "width",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_width",
    "hidden_width",
    "max_positions",
)
