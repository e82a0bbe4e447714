"""Tables in Markdown and numbers in JSON, as every report writes them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from jaxrefine.evaluation.metrics import Interval


def markdown_table(head: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """A table whose first column stands left and whose others stand right.

    >>> print(markdown_table(["model", "%"], [["a", "1"]]))
    | model | % |
    | --- | ---: |
    | a | 1 |
    """
    rule = ["---", *("---:" for _ in head[1:])]
    return "\n".join("| " + " | ".join(cells) + " |" for cells in [head, rule, *lines])


def change_in_points(change: Interval) -> str:
    """A difference of shares and its interval, in points; bold where the interval excludes zero.

    >>> change_in_points(Interval(value=0.05, low=0.01, high=0.1, standard_error=0.02))
    '**+5.0 [+1.0, +10.0]**'
    >>> change_in_points(Interval(value=0.05, low=-0.01, high=0.1, standard_error=0.03))
    '+5.0 [-1.0, +10.0]'
    """
    shown = f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    return f"**{shown}**" if change.excludes_zero() else shown


def jsonable(value: object) -> object:
    """Numbers that JSON has not become null, and keys that are numbers become text.

    >>> jsonable({1: (float("nan"), 2.0)})
    {'1': [None, 2.0]}
    """
    if isinstance(value, Mapping):
        return {str(key): jsonable(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [jsonable(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
