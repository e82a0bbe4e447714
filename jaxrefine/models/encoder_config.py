"""What an encoder is: one frozen description in which a field is a mechanism, never a family's name."""

from __future__ import annotations

import dataclasses

from jaxrefine.config import unknown_name
from jaxrefine.models.config import ACTIVATIONS

ENCODER_ACTIVATIONS = (*ACTIVATIONS, "tanh")
ENCODER_POSITIONS = ("learned", "none")
RELATIVE_TERMS = ("content_to_position", "position_to_content")


@dataclasses.dataclass(frozen=True, kw_only=True)
class RelativePositions:
    """Attention that reads how far apart two tokens are: disentangled attention.

    Args:
      max_distance: distances beyond it are alike.
      num_buckets: distances up to half of it are told apart, larger ones share logarithmic buckets; None tells all
        apart. The table has two rows for each.
      terms: of ``RELATIVE_TERMS``: which products with a distance are added to the product of query and key.
      shared_projections: distances are projected by the maps of queries and keys; otherwise by maps of their own.
      norm: a LayerNorm of the table.

    Raises:
      ValueError: buckets that are odd, fewer than 4 or too many for the distance; an unknown, doubled or missing term.

    Source: He et al. 2021, arXiv:2006.03654, §3.1; He et al. 2023, arXiv:2111.09543 (buckets, shared projections).
    """

    max_distance: int
    num_buckets: int | None = None
    terms: tuple[str, ...] = RELATIVE_TERMS
    shared_projections: bool = False
    norm: bool = False

    def __post_init__(self) -> None:
        where = "RelativePositions"
        if self.max_distance < 2:
            raise ValueError(f"{where}.max_distance is {self.max_distance}; it must be at least 2")
        if self.num_buckets is not None and not (
            self.num_buckets >= 4 and self.num_buckets % 2 == 0 and self.num_buckets // 2 + 1 < self.max_distance
        ):
            raise ValueError(
                f"{where}.num_buckets is {self.num_buckets}, max_distance is {self.max_distance}; it must be even, at "
                "least 4, and half of it below max_distance - 1"
            )
        for term in self.terms:
            if term not in RELATIVE_TERMS:
                raise ValueError(unknown_name(term, RELATIVE_TERMS, f"{where}.terms"))
        if not self.terms or len(set(self.terms)) < len(self.terms):
            raise ValueError(f"{where}.terms is {self.terms}; it must name one or two of {', '.join(RELATIVE_TERMS)}")

    @property
    def span(self) -> int:
        """Half the rows of the table."""
        return self.max_distance if self.num_buckets is None else self.num_buckets


@dataclasses.dataclass(frozen=True, kw_only=True)
class Convolution:
    """A convolution of the embeddings that is added to the output of the first layer.

    Args:
      width: tokens that it sees, odd.
      groups: into which the features are divided.
      activation: one of ``ENCODER_ACTIVATIONS``.

    Raises:
      ValueError: an even width, no groups, an unknown activation.
    """

    width: int
    groups: int = 1
    activation: str = "tanh"

    def __post_init__(self) -> None:
        if self.width < 1 or self.width % 2 == 0:
            raise ValueError(f"Convolution.width is {self.width}; it must be odd")
        if self.groups < 1:
            raise ValueError(f"Convolution.groups is {self.groups}; it must be at least 1")
        if self.activation not in ENCODER_ACTIVATIONS:
            raise ValueError(unknown_name(self.activation, ENCODER_ACTIVATIONS, "Convolution.activation"))


@dataclasses.dataclass(frozen=True, kw_only=True)
class EncoderConfig:
    """A bidirectional transformer: post-norm LayerNorm with biases everywhere, exact softmax attention.

    Args:
      vocab_size: V, rows of the embedding.
      width: D.
      num_layers: L.
      num_heads: Q.
      head_width: H; need not be ``width / num_heads``.
      hidden_width: F, the feed-forward block.
      max_positions: the positions that it was made for; rows of the table of learned positions.
      norm_eps: added to the variance inside LayerNorm.
      activation: of the feed-forward block, one of ``ENCODER_ACTIVATIONS``; "gelu" is the exact one.
      positions: "learned" or "none", added to the embedding.
      position_offset: the row of position 0; the table has so many rows more.
      num_token_types: rows of the table of token types, added to the embedding; 0 is no such table.
      embed_width: of the tables; None is D, and anything else is mapped to D without a bias.
      relative: None, or attention that reads distances.
      convolution: None, or one beside the first layer.
      pooler: None, or the activation of a dense layer on the pooled state.
      num_labels: None, or the outputs of a linear classifier on that.

    Raises:
      ValueError: a size below 1, groups that do not divide the width, an unknown name.

    >>> tiny = EncoderConfig(vocab_size=64, width=16, num_layers=2, num_heads=4, head_width=4, hidden_width=32)
    >>> tiny.positions, tiny.relative
    ('learned', None)
    """

    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    head_width: int
    hidden_width: int
    max_positions: int = 512
    norm_eps: float = 1e-12
    activation: str = "gelu"
    positions: str = "learned"
    position_offset: int = 0
    num_token_types: int = 0
    embed_width: int | None = None
    relative: RelativePositions | None = None
    convolution: Convolution | None = None
    pooler: str | None = None
    num_labels: int | None = None

    def __post_init__(self) -> None:
        sizes = ("vocab_size", "width", "num_layers", "num_heads", "head_width", "hidden_width", "max_positions")
        for name in (*sizes, "embed_width", "num_labels"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"EncoderConfig.{name} is {value}; it must be at least 1")
        for name in ("position_offset", "num_token_types", "norm_eps"):
            if not getattr(self, name) >= 0:
                raise ValueError(f"EncoderConfig.{name} is {getattr(self, name)}; it must not be negative")
        if self.positions not in ENCODER_POSITIONS:
            raise ValueError(unknown_name(self.positions, ENCODER_POSITIONS, "EncoderConfig.positions"))
        for name in ("activation", "pooler"):
            value = getattr(self, name)
            if value not in ENCODER_ACTIVATIONS and not (name == "pooler" and value is None):
                raise ValueError(unknown_name(value, ENCODER_ACTIVATIONS, f"EncoderConfig.{name}"))
        if self.convolution is not None and self.width % self.convolution.groups:
            raise ValueError(
                f"EncoderConfig.convolution.groups is {self.convolution.groups}; it must divide width = {self.width}"
            )

    @property
    def table_width(self) -> int:
        """Width of the embedding and of the tables added to it."""
        return self.width if self.embed_width is None else self.embed_width
