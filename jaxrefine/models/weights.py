"""How other people's checkpoints name the parameters of ours: data, read forwards to import and backwards to export."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

LAYER = "{layer}"
HEAD = "{head}"


@dataclasses.dataclass(frozen=True)
class Transform:
    """What is done to one layer's tensor where their orientation differs from ours; the second undoes the first.

    Args:
      load: theirs to ours.
      save: ours to theirs.
      index: slices of ours to the slices of theirs that ``load`` makes them from; None reads the whole tensor.
    """

    load: Callable[[np.ndarray], np.ndarray]
    save: Callable[[np.ndarray], np.ndarray]
    index: Callable[[tuple[slice, ...]], tuple[slice, ...]] | None = None


TRANSPOSE = Transform(np.transpose, np.transpose, lambda index: index[::-1])
"""For checkpoints that keep linear maps as [in, out]."""


@dataclasses.dataclass(frozen=True)
class Part:
    """The share of one parameter in a tensor that holds several.

    Args:
      groups: the axis is seen as [groups, size].
      size: of a group.
      start: of this parameter in every group.
      stop: its end there.
      axis: of their tensor, before any transform.

    >>> key = Part(groups=2, size=12, start=4, stop=8)
    >>> key.width, key.spans(0, 8), key.spans(2, 6)
    (8, [(4, 8), (16, 20)], [(6, 8), (16, 18)])

    Raises:
      ValueError: columns outside the group.
    """

    groups: int
    size: int
    start: int
    stop: int
    axis: int = 0

    def __post_init__(self) -> None:
        if self.groups < 1 or not 0 <= self.start < self.stop <= self.size:
            raise ValueError(f"{self}: it needs groups >= 1 and 0 <= start < stop <= size")

    @property
    def width(self) -> int:
        """Of the axis of the parameter."""
        return self.groups * (self.stop - self.start)

    def spans(self, start: int, stop: int) -> list[tuple[int, int]]:
        """Where rows start..stop of the parameter are on the axis of their tensor: runs, in order."""
        own = self.stop - self.start
        spans: list[tuple[int, int]] = []
        for group in range(start // own, -(-stop // own)):
            first, last = max(start - group * own, 0), min(stop - group * own, own)
            run = (group * self.size + self.start + first, group * self.size + self.start + last)
            if spans and spans[-1][1] == run[0]:
                run = (spans.pop()[0], run[1])
            spans.append(run)
        return spans


@dataclasses.dataclass(frozen=True)
class Rule:
    """One tensor name of theirs, one parameter path of ours.

    Args:
      theirs: the tensor's name; ``{layer}`` stands for the number of the layer, ``{head}`` for that of the head.
      ours: the path in the parameters; with ``{layer}`` in ``theirs`` the parameter is stacked, [L …], with
        ``{head}`` too, [L heads …].
      transform: None keeps the orientation.
      part: where several rules share the tensor, this one's share; together they cover it.

    >>> rule = Rule("model.layers.{layer}.mlp.up_proj.weight", "layers/feed_forward/up/kernel")
    >>> rule.names((2, 8, 4))
    ['model.layers.0.mlp.up_proj.weight', 'model.layers.1.mlp.up_proj.weight']
    >>> rule.layer("model.layers.3.mlp.up_proj.weight")
    3
    """

    theirs: str
    ours: str
    transform: Transform | None = None
    part: Part | None = None

    @functools.cached_property
    def num_stacked(self) -> int:
        """Axes of the parameter of which each index is a tensor of its own."""
        return (LAYER in self.theirs) + (HEAD in self.theirs)

    @functools.cached_property
    def _pattern(self) -> re.Pattern[str]:
        pattern = re.escape(self.theirs)
        for group, mark in (("layer", LAYER), ("head", HEAD)):
            pattern = pattern.replace(re.escape(mark), rf"(?P<{group}>0|[1-9]\d*)", 1)
        return re.compile(pattern)

    def names(self, shape: tuple[int, ...]) -> list[str]:
        """Their tensors' names for a parameter of that shape, in the order of its stacked axes."""
        places = itertools.product(*map(range, shape[: self.num_stacked]))
        marks = [mark for mark in (LAYER, HEAD) if mark in self.theirs]
        names = []
        for place in places:
            name = self.theirs
            for mark, number in zip(marks, place, strict=True):
                name = name.replace(mark, str(number))
            names.append(name)
        return names

    def layer(self, name: str) -> int | None:
        """The layer that a tensor's name speaks of (0 where nothing is stacked), or None for another tensor's name."""
        match = self._pattern.fullmatch(name)
        if match is None:
            return None
        return int(match["layer"]) if LAYER in self.theirs else 0

    def their_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The shape of each of their tensors, for a parameter of that shape."""
        own = shape[self.num_stacked :]
        if self.transform is not None:
            own = self.transform.save(np.broadcast_to(np.zeros((), np.bool_), own)).shape
        if self.part is None:
            return own
        axis = self.part.axis
        return (*own[:axis], self.part.groups * self.part.size, *own[axis + 1 :])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Family:
    """All that conversion knows of a model family.

    Args:
      model_type: its name in config.json, as it is written.
      from_hf: their config as ours; ``where`` is what errors name; raises ValueError on what it cannot honour.
      to_hf: ours as theirs, with the attributes of ``extra``; raises ValueError on a mechanism they do not have.
      extra: the attributes of their config that ours does not hold (token ids, who wrote it), kept for ``to_hf``.
      rules: all tensors of a model of our config.
      model_types: the names that are read, if ``model_type`` is not the only one.
      ignored: patterns of tensors that hold no parameter, such as tables that can be computed.
      optional: patterns of tensors that are passed over where the config makes no parameter of them.
      renamed: (pattern, replacement) of names that older files have.
      prefix: what base checkpoints leave out in front of every name.
      tied: (head, embedding): tensors that must be equal where the config ties them and a file holds both.
    """

    model_type: str
    from_hf: Callable[..., Any]
    to_hf: Callable[..., dict[str, Any]]
    extra: Callable[[Mapping[str, Any]], dict[str, Any]]
    rules: Callable[[Any], tuple[Rule, ...]]
    model_types: tuple[str, ...] = ()
    ignored: tuple[str, ...] = ()
    optional: tuple[str, ...] = ()
    renamed: tuple[tuple[str, str], ...] = ()
    prefix: str = ""
    tied: tuple[str, str] | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """All names that are read."""
        return self.model_types or (self.model_type,)
