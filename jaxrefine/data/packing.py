"""Packing: groups into rows of one static shape, each prompt laid out once (README, "The packed row")."""

from __future__ import annotations

import itertools
from collections import Counter
from collections.abc import Iterable, Iterator

from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import Refused, TokenGroup, tokenize_group
from jaxrefine.data.layout import batch_from_groups, unpack, usage
from jaxrefine.data.shapes import PackingConfig, Size, plan_rows

__all__ = [
    "PackingConfig",
    "Refused",
    "Size",
    "TokenGroup",
    "batch_from_groups",
    "pack",
    "plan_rows",
    "reasons",
    "tokenize_group",
    "unpack",
    "usage",
]


def pack(
    groups: Iterable[TokenGroup | Refused],
    config: PackingConfig,
    *,
    window: int = 4096,
    refused: list[Refused] | None = None,
) -> Iterator[PackedBatch]:
    """All groups once, in batches; the last one is filled up with empty rows.

    Args:
      groups: in any order; rows are planned over ``window`` of them at a time.
      config: the shape.
      window: groups planned together.
      refused: gets what fits no row, with the reason; None raises instead.

    Raises:
      ValueError: a group that fits no row, where ``refused`` is None.
    """
    rows: list[list[TokenGroup]] = []
    stream = iter(groups)
    while chunk := list(itertools.islice(stream, window)):
        kept = []
        for group in chunk:
            reason = group.reason if isinstance(group, Refused) else config.refusal(group)
            if reason is not None and refused is None:
                raise ValueError(f"group {group.group_id}: {reason}")
            if reason is not None and refused is not None:
                refused.append(Refused(group.group_id, reason))
            elif isinstance(group, TokenGroup):
                kept.append(group)
        rows += [[kept[i] for i in row] for row in plan_rows([config.measure(group) for group in kept], config)]
        while len(rows) >= config.rows:
            yield batch_from_groups(rows[: config.rows], config)
            rows = rows[config.rows :]
    if rows:
        yield batch_from_groups(rows, config)


def reasons(refused: Iterable[Refused]) -> dict[str, int]:
    """How many groups were refused for each reason, the most frequent first."""
    return dict(Counter(item.reason for item in refused).most_common())
