"""Length of responses by their rank: how much a judge likes long ones."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from jaxrefine.data.examples import Candidates
from jaxrefine.evaluation.plots import BLUE, GREY, ORANGE

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def length_by_rank(examples: Sequence[Candidates]) -> tuple[float, ...]:
    """Mean words of the responses at each rank, the best first; equal labels are ranked in their order.

    Only prompts with as many responses as the largest has count, so that every rank is a mean over the same prompts.

    >>> first = Candidates("1", "p", ("a b c", "a"), (0.0, 1.0))
    >>> length_by_rank([first, Candidates("2", "p", ("a b c", ""), (2.0, 1.0))])
    (2.0, 1.5)
    """
    most = max((len(example.responses) for example in examples), default=0)
    counted = [example for example in examples if len(example.responses) == most]
    totals = [0.0] * most
    for example in counted:
        order = sorted(range(most), key=lambda n: -example.labels[n])
        for rank, place in enumerate(order):
            totals[rank] += len(example.responses[place].split())
    return tuple(total / len(counted) for total in totals)


def draw_lengths(lengths: Mapping[str, Sequence[float]]) -> Figure:
    """A line a ranking."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(5.0, 3.2), layout="constrained")
    axis = figure.subplots()
    for number, (name, found) in enumerate(lengths.items()):
        colour, marker = (BLUE, ORANGE, GREY)[number % 3], "os^Dv"[number % 5]
        axis.plot(range(1, len(found) + 1), found, color=colour, marker=marker, label=name, linewidth=1)
    axis.set_xlabel("rank (1 is best)")
    axis.set_ylabel("mean words")
    axis.set_xticks(range(1, max((len(found) for found in lengths.values()), default=1) + 1))
    axis.grid(alpha=0.3)
    axis.legend(fontsize=7)
    return figure
