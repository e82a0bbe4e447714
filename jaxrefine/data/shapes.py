"""The one static shape of a data set's batches, and which groups share a row of it.

Rows are planned from lengths alone (best fit, the largest group first), so that every process makes the same plan and
builds only its own rows.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from jaxrefine.data.groups import TokenGroup


class Size(NamedTuple):
    """What a group takes of a row."""

    slots: int
    scored: int
    paths: int
    longest: int
    """Tokens along its longest path."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class PackingConfig:
    """The one static shape of a data set's batches; ``PackingConfig.fit`` chooses it.

    Args:
      rows: B, of a global batch.
      slots: S.
      scored: T; 0 where no token is scored.
      groups: G, at most so many in a row.
      candidates: N, at most so many in a group; 0 for queries to be routed.
      rewards: M models to route between, or 0.
      verdicts: lay out the verdict words of each candidate.
      score_responses: score the tokens of responses; False where only verdict words or heads are read.
      expand: give each row its ``paths`` and ``homes``.
      paths: E; None is the most that G groups of N candidates can have.
      path_length: X; None is S.
      share_prompt: False gives each candidate a prompt of its own: what sharing is measured against.

    Raises:
      ValueError: sizes that no row can have.
    """

    rows: int
    slots: int
    scored: int
    groups: int
    candidates: int
    rewards: int = 0
    verdicts: bool = False
    score_responses: bool = True
    expand: bool = True
    paths: int | None = None
    path_length: int | None = None
    share_prompt: bool = True

    def __post_init__(self) -> None:
        for name, least in (("rows", 1), ("slots", 1), ("scored", 0), ("groups", 1), ("candidates", 0), ("rewards", 0)):
            if (value := getattr(self, name)) < least:
                raise ValueError(f"packing.{name} = {value} must be at least {least}")
        if self.verdicts and not self.candidates:
            raise ValueError("packing.verdicts needs candidates; packing.candidates is 0")

    @property
    def num_leaves_per_candidate(self) -> int:
        """W: the response, and with verdicts its two words."""
        return 3 if self.verdicts else 1

    @property
    def num_paths(self) -> int:
        """E."""
        per_group = max(1, self.candidates) * (2 if self.verdicts else 1)
        return self.groups * per_group if self.paths is None else self.paths

    @property
    def longest_path(self) -> int:
        """X."""
        return self.slots if self.path_length is None else self.path_length

    def measure(self, group: TokenGroup) -> Size:
        """What a group takes of a row, from its lengths.

        >>> config = PackingConfig(rows=1, slots=16, scored=8, groups=1, candidates=2)
        >>> config.measure(TokenGroup(0, (1, 4, 5), ((6, 2), (7, 8, 2))))
        Size(slots=8, scored=5, paths=2, longest=6)
        """
        prompt, lengths = len(group.prompt), [len(response) for response in group.responses]
        if not lengths:
            return Size(prompt, 0, 1, prompt)
        words = group.verdicts if self.verdicts and group.verdicts else ()
        after = len(group.suffix) if words else 0
        spoken = sum(map(len, words))
        prompts = 1 if self.share_prompt else len(lengths)
        return Size(
            slots=prompts * prompt + sum(lengths) + len(lengths) * (after + spoken),
            scored=sum(lengths) * self.score_responses + len(lengths) * spoken,
            paths=len(lengths) * (len(words) or 1),
            longest=prompt + max(lengths) + after + max(map(len, words), default=0),
        )

    def refusal(self, group: TokenGroup) -> str | None:
        """Why a group fits no row of this shape, or None."""
        size = self.measure(group)
        if len(group.responses) > self.candidates:
            return f"more candidates than packing.candidates = {self.candidates}"
        if self.verdicts and group.responses and group.verdicts is None:
            return "it has no verdict words, and packing.verdicts is on"
        if group.rewards is not None and self.rewards and len(group.rewards) != self.rewards:
            return f"its rewards are not packing.rewards = {self.rewards}"
        limits = [("slots", size.slots, self.slots), ("scored", size.scored, self.scored)]
        if self.expand:
            limits += [("paths", size.paths, self.num_paths), ("path_length", size.longest, self.longest_path)]
        over = [f"packing.{name} = {limit}" for name, value, limit in limits if value > limit]
        return f"longer than {', '.join(over)}" if over else None

    @classmethod
    def fit(
        cls, groups: Iterable[TokenGroup], *, rows: int, slots: int | None = None, multiple: int = 32, **options: Any
    ) -> PackingConfig:
        """The tightest shape for these groups.

        Args:
          groups: all of the data set, or a fair part of it.
          rows: B.
          slots: S; None is that of the largest group.
          multiple: S, T and X are rounded up to it.
          **options: ``verdicts``, ``score_responses``, ``expand``, ``share_prompt``.
        """
        groups = list(groups)
        if not groups:
            raise ValueError("PackingConfig.fit: no groups")
        candidates = max(len(group.responses) for group in groups)
        rewards = max(len(group.rewards or ()) for group in groups)
        free = cls(rows=rows, slots=2**30, scored=2**30, groups=2**30, candidates=candidates, rewards=rewards,
                   paths=2**30, path_length=2**30, **options)  # fmt: skip
        sizes = [free.measure(group) for group in groups]
        slots = _up(max(size.slots for size in sizes) if slots is None else slots, multiple)
        roomy = dataclasses.replace(free, slots=slots)
        kept = [size for size in sizes if size.slots <= slots]
        if not kept:
            raise ValueError(f"PackingConfig.fit: no group fits in slots = {slots}")
        planned = [[kept[i] for i in row] for row in plan_rows(kept, roomy)]
        longest = min(slots, _up(max(size.longest for size in kept), multiple))
        return dataclasses.replace(
            roomy,
            scored=_up(max(sum(size.scored for size in row) for row in planned), multiple),
            groups=max(len(row) for row in planned),
            paths=max(sum(size.paths for size in row) for row in planned) if free.expand else None,
            path_length=longest if free.expand else None,
        )


def _up(value: int, multiple: int) -> int:
    return -(-value // multiple) * multiple


def plan_rows(sizes: Sequence[Size], config: PackingConfig) -> list[list[int]]:
    """Which groups share a row: best fit, the largest first; ties by order.

    Args:
      sizes: of groups that each fit a row.
      config: capacity in slots, scored tokens, groups and paths.

    Returns:
      Rows of indices into ``sizes``; every index once.

    >>> config = PackingConfig(rows=1, slots=10, scored=10, groups=4, candidates=1)
    >>> plan_rows([Size(4, 1, 1, 4), Size(7, 1, 1, 7), Size(6, 1, 1, 6), Size(3, 1, 1, 3)], config)
    [[1, 3], [2, 0]]

    Source: best-fit-decreasing; Johnson 1973, "Near-optimal bin packing algorithms".
    """
    paths = config.num_paths if config.expand else 2**31
    capacity = np.array([config.slots, config.scored, config.groups, paths], np.int64)
    costs = np.array([(size.slots, size.scored, 1, size.paths) for size in sizes], np.int64).reshape(-1, 4)
    left = np.empty_like(costs)
    rows: list[list[int]] = []
    for index in np.argsort(-costs[:, 0], kind="stable"):
        room = left[: len(rows)]
        fits = np.flatnonzero((room >= costs[index]).all(1))
        if fits.size:
            best = int(fits[np.argmin(room[fits, 0])])
        else:
            best = len(rows)
            rows.append([])
            left[best] = capacity
        rows[best].append(int(index))
        left[best] -= costs[index]
    return rows
