"""How other people's checkpoints name the parameters of ours: data, read forwards to import and backwards to export."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from jaxrefine.models.config import TransformerConfig

LAYER = "{layer}"


@dataclasses.dataclass(frozen=True)
class Transform:
    """What is done to one layer's tensor where their orientation differs from ours; the second undoes the first."""

    load: Callable[[np.ndarray], np.ndarray]
    save: Callable[[np.ndarray], np.ndarray]


TRANSPOSE = Transform(np.transpose, np.transpose)
"""For checkpoints that keep linear maps as [in, out]."""


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor name of theirs, one parameter path of ours.

    Args:
      theirs: the tensor's name; ``{layer}`` stands for the number of the layer.
      ours: the path in the decoder's parameters; with ``{layer}`` in ``theirs`` the parameter is stacked, [L …].
      transform: None keeps the orientation.

    >>> rule = Rule("model.layers.{layer}.mlp.up_proj.weight", "layers/feed_forward/up/kernel")
    >>> rule.name(3)
    'model.layers.3.mlp.up_proj.weight'
    >>> rule.layer("model.layers.3.mlp.up_proj.weight")
    3
    """

    theirs: str
    ours: str
    transform: Transform | None = None

    @property
    def stacked(self) -> bool:
        """Whether it stands for one tensor a layer."""
        return LAYER in self.theirs

    def name(self, layer: int) -> str:
        """Their tensor's name for one layer."""
        return self.theirs.replace(LAYER, str(layer))

    def layer(self, name: str) -> int | None:
        """The layer that a tensor's name speaks of (0 where nothing is stacked), or None for another tensor's name."""
        pattern = re.escape(self.theirs).replace(re.escape(LAYER), r"(0|[1-9]\d*)")
        match = re.fullmatch(pattern, name)
        if match is None:
            return None
        return int(match[1]) if self.stacked else 0


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """All that conversion knows of a model family.

    Args:
      model_type: its name in config.json.
      from_hf: their config as ours; ``where`` is what errors name; raises ValueError on what it cannot honour.
      to_hf: ours as theirs, with the attributes of ``extra``; raises ValueError on a mechanism they do not have.
      extra: the attributes of their config that ours does not hold (token ids, who wrote it), kept for ``to_hf``.
      rules: all tensors.
      ignored: patterns of tensors that hold no parameter, such as tables that can be computed.
      prefix: what base checkpoints leave out in front of every name.
      tied: (head, embedding): tensors that must be equal where the config ties them and a file holds both.
    """

    model_type: str
    from_hf: Callable[..., TransformerConfig]
    to_hf: Callable[..., dict[str, Any]]
    extra: Callable[[Mapping[str, Any]], dict[str, Any]]
    rules: tuple[Rule, ...]
    ignored: tuple[str, ...] = ()
    prefix: str = ""
    tied: tuple[str, str] | None = None
