"""What a decoder is: one frozen description in which a field is a mechanism, never a family's name."""

from __future__ import annotations

import dataclasses

from jaxrefine.config import unknown_name

ROPE_SCALINGS = ("linear", "llama3")
ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "relu")
NORMS = ("rms", "layer")
PLACEMENTS = ("pre", "post", "sandwich")
POSITIONS = ("rope", "alibi", "learned", "none")
QK_NORMS = ("rms", "layer", "l2")


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
    """A causal decoder, mechanism by mechanism.

    The defaults are a pre-norm decoder with RMSNorm, rotary positions, a gated feed-forward block and no biases.

    Args:
      vocab_size: V, rows of the embedding.
      width: D.
      num_layers: L.
      num_heads: Q, query heads.
      num_kv_heads: K, key-value heads; divides ``num_heads`` (1 is multi-query, ``num_heads`` is multi-head).
      head_width: H; need not be ``width / num_heads``.
      hidden_width: F, the feed-forward block.
      max_positions: positions the model was made for; sampling and packing stay below it.
      norm_eps: added to the mean square or the variance inside every norm.
      rope_theta: base of the rotary frequencies.
      rope_scaling: None, or how they are stretched.
      activation: of the feed-forward block, one of ``ACTIVATIONS``; "gelu" is the exact one.
      qkv_bias: biases on query, key and value.
      o_bias: a bias on the attention's output.
      mlp_bias: biases in the feed-forward block.
      tie_embeddings: the head is the embedding itself.
      gated: down(act(gate x) · up x); otherwise down(act(up x)).
      norm: "rms", or "layer" (LayerNorm, which also takes the mean away).
      norm_bias: LayerNorms have a bias.
      norm_unit_offset: norms multiply by 1 + scale, in fp32 before the cast.
      norm_placement: "pre": x + f(n x). "post": n(x + f(x)). "sandwich": x + n'(f(n x)).
      final_norm: a norm after the last layer.
      embed_norm: a norm of what enters the first layer.
      parallel: x + attention(n1 x) + feed_forward(n2 x).
      shared_norm: with ``parallel``, n1 serves both.
      positions: "rope"; "alibi": a linear bias of scores; "learned": a table, added to the embedding; "none".
      position_offset: row of position 0 in the learned table, which has that many rows more.
      position_scale: multiplies the learned positions.
      rope_width: first features of a head that rotate, even; None: all.
      rope_interleaved: pairs are neighbours (2i, 2i + 1) instead of (i, i + half).
      rope_local_theta: base in windowed layers, where frequencies are not scaled either; None: as elsewhere.
      xpos_base: positions over which rotated queries and keys decay by xPos; None: they do not.
      alibi_prescaled: (qk + bias) · scale with slopes rounded to bf16, instead of qk · scale + bias.
      head_bias: a bias on the logits.
      attention_scale: multiplies qk; None: head_width ** -0.5.
      attention_scale_by_layer: the scale is divided by the layer's number, counted from 1.
      attention_softcap: c · tanh(score / c) before the mask; None: none.
      logit_softcap: the same of logits.
      logit_scale: multiplies hidden · embeddingᵀ.
      qk_norm: of queries and keys before they rotate: "rms" over H, one scale for all heads; "layer": LayerNorm
        without bias, a scale a head; "l2": unit length times one scale for all heads; None.
      window: a query sees this many of the last positions, itself included; None: all.
      window_layers: which layers have the window; None: all.
      embed_width: of embedding and head, with maps to and from ``width``; None: ``width``.
      embed_scale: multiplies embeddings, rounded to the dtype of the computation.

    Raises:
      ValueError: a size below 1, an unknown name, or mechanisms that exclude each other.

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
    gated: bool = True
    norm: str = "rms"
    norm_bias: bool = False
    norm_unit_offset: bool = False
    norm_placement: str = "pre"
    final_norm: bool = True
    embed_norm: bool = False
    parallel: bool = False
    shared_norm: bool = False
    positions: str = "rope"
    position_offset: int = 0
    position_scale: float = 1.0
    rope_width: int | None = None
    rope_interleaved: bool = False
    rope_local_theta: float | None = None
    xpos_base: float | None = None
    alibi_prescaled: bool = False
    head_bias: bool = False
    attention_scale: float | None = None
    attention_scale_by_layer: bool = False
    attention_softcap: float | None = None
    logit_softcap: float | None = None
    logit_scale: float = 1.0
    qk_norm: str | None = None
    window: int | None = None
    window_layers: tuple[bool, ...] | None = None
    embed_width: int | None = None
    embed_scale: float = 1.0

    def __post_init__(self) -> None:
        for name in _SIZES:
            if getattr(self, name) is not None and getattr(self, name) < 1:
                raise ValueError(f"TransformerConfig.{name} is {getattr(self, name)}; it must be at least 1")
        for name in _POSITIVE:
            if getattr(self, name) is not None and not getattr(self, name) > 0:
                raise ValueError(f"TransformerConfig.{name} is {getattr(self, name)}; it must be positive")
        for name, allowed in _NAMES.items():
            if getattr(self, name) not in allowed and not (name == "qk_norm" and self.qk_norm is None):
                raise ValueError(unknown_name(getattr(self, name), allowed, f"TransformerConfig.{name}"))
        if self.num_heads % self.num_kv_heads:
            raise ValueError(
                f"TransformerConfig.num_kv_heads is {self.num_kv_heads}; it must divide num_heads = {self.num_heads}"
            )
        if not self.norm_eps >= 0:
            raise ValueError(f"TransformerConfig.norm_eps is {self.norm_eps}; it must not be negative")
        if self.position_offset < 0:
            raise ValueError(f"TransformerConfig.position_offset is {self.position_offset}; it must not be negative")
        if self.positions == "rope":
            self._check_rope()
        self._check_combinations()

    def _check_rope(self) -> None:
        if self.rotated_width % 2:
            name = "head_width" if self.rope_width is None else "rope_width"
            raise ValueError(f"TransformerConfig.{name} is {self.rotated_width}; rotary positions need an even one")
        if self.rotated_width > self.head_width:
            raise ValueError(
                f"TransformerConfig.rope_width is {self.rope_width}; a head has {self.head_width} features"
            )

    def _check_combinations(self) -> None:
        """A field that would have no effect beside the others is a mistake."""
        rope, windowed = self.positions == "rope", self.window is not None
        for name, needs, there in (
            ("norm_bias", "norm = 'layer'", self.norm == "layer"),
            ("shared_norm", "parallel = True", self.parallel),
            ("position_offset", "positions = 'learned'", self.positions == "learned"),
            ("rope_scaling", "positions = 'rope'", rope),
            ("rope_width", "positions = 'rope'", rope),
            ("rope_interleaved", "positions = 'rope'", rope),
            ("rope_local_theta", "positions = 'rope'", rope),
            ("rope_local_theta", "a window", windowed),
            ("xpos_base", "positions = 'rope'", rope),
            ("alibi_prescaled", "positions = 'alibi'", self.positions == "alibi"),
            ("window_layers", "a window", windowed),
        ):
            if getattr(self, name) and not there:
                raise ValueError(f"TransformerConfig.{name} is {getattr(self, name)!r}; it needs {needs}")
        if self.position_scale != 1.0 and self.positions != "learned":
            raise ValueError(
                f"TransformerConfig.position_scale is {self.position_scale}; it needs positions = 'learned'"
            )
        if self.parallel and self.norm_placement != "pre":
            raise ValueError(
                f"TransformerConfig.norm_placement is {self.norm_placement!r}; with parallel = True it must be 'pre'"
            )
        if self.window_layers is not None and len(self.window_layers) != self.num_layers:
            raise ValueError(
                f"TransformerConfig.window_layers has {len(self.window_layers)} entries; num_layers is "
                f"{self.num_layers}"
            )

    @property
    def queries_per_key(self) -> int:
        """Query heads that share one key-value head."""
        return self.num_heads // self.num_kv_heads

    @property
    def rotated_width(self) -> int:
        """Features of a head that rotate."""
        return self.head_width if self.rope_width is None else self.rope_width

    @property
    def embedding_width(self) -> int:
        """Columns of the embedding and of the head: the width of the hidden states that the decoder gives."""
        return self.width if self.embed_width is None else self.embed_width

    @property
    def windowed_layers(self) -> tuple[bool, ...]:
        """Whether each layer has the window, [L]."""
        if self.window is None:
            return (False,) * self.num_layers
        return (True,) * self.num_layers if self.window_layers is None else self.window_layers


_SIZES = (
    "vocab_size",
    "width",
    "num_layers",
    "num_heads",
    "num_kv_heads",
    "head_width",
    "hidden_width",
    "max_positions",
    "rope_width",
    "window",
    "embed_width",
)
_POSITIVE = (
    "rope_theta",
    "rope_local_theta",
    "xpos_base",
    "attention_scale",
    "attention_softcap",
    "logit_softcap",
    "logit_scale",
    "position_scale",
    "embed_scale",
)
_NAMES = {
    "activation": ACTIVATIONS,
    "norm": NORMS,
    "norm_placement": PLACEMENTS,
    "positions": POSITIONS,
    "qk_norm": QK_NORMS,
}
