"""Who beats whom as a picture: an arrow from winner to loser, a dashed line between two that are similar."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from jaxrefine.evaluation.agreement import Standings
from jaxrefine.evaluation.plots import BLACK, BLUE, GREY, make_panels

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def standings_graph(standings: Standings, *, least: int = 5, title: str = "") -> Figure:
    """The graph of who beats whom: models on a circle, the best at the top and then clockwise.

    Args:
        standings: of at least two models.
        least: a lead below this is none, see ``Standings.edges``.
        title: above it.

    Source: PandaLM, arXiv:2306.05087 (its graph of comparisons).
    """
    figure, [axis] = make_panels(1, width=5.6, height=5.2)
    order = ranked(standings)
    turn = 2 * math.pi / len(order)
    place = {model: (math.sin(turn * i), math.cos(turn * i)) for i, model in enumerate(order)}
    beats, similar = standings.edges(least=least)
    number = {model: i for i, model in enumerate(standings.models)}
    box = {"boxstyle": "round,pad=0.35", "facecolor": "white", "edgecolor": BLACK, "linewidth": 0.8}
    names = {
        model: axis.text(x, y, model, ha="center", va="center", fontsize=8, bbox=box, zorder=3)
        for model, (x, y) in place.items()
    }
    for winner, loser in beats:
        i, j = number[winner], number[loser]
        ends = {"patchA": names[winner].get_bbox_patch(), "patchB": names[loser].get_bbox_patch()}
        arrow = {"arrowstyle": "-|>", "color": BLUE, "linewidth": 1.3, "shrinkA": 0, "shrinkB": 2, **ends}
        axis.annotate("", place[loser], xytext=place[winner], arrowprops=arrow)
        _label(axis, place[winner], place[loser], f"{standings.wins[i, j]}:{standings.wins[j, i]}")
    for one, other in similar:
        i, j = number[one], number[other]
        axis.plot(*zip(place[one], place[other], strict=True), color=GREY, linestyle="--", linewidth=1, zorder=0)
        _label(axis, place[one], place[other], f"{standings.wins[i, j]}:{standings.wins[j, i]}")
    axis.set_xlim(-1.45, 1.45)
    axis.set_ylim(-1.25, 1.25)
    axis.set_axis_off()
    axis.set_title(title or f"arrow: wins; dashed: |wins − losses| < {least}", fontsize=9)
    return figure


def _label(axis: object, start: tuple[float, float], end: tuple[float, float], text: str) -> None:
    """Nearer to the start, so that labels of crossing lines do not meet."""
    x, y = (a + (b - a) * 0.3 for a, b in zip(start, end, strict=True))
    box = {"boxstyle": "round,pad=0.1", "facecolor": "white", "edgecolor": "none"}
    axis.text(x, y, text, fontsize=7, color=BLACK, ha="center", va="center", bbox=box)  # type: ignore[attr-defined]


def ranked(standings: Standings) -> list[str]:
    """The models by their share of points, the best first; those without a comparison last."""
    shares = [-1.0 if math.isnan(share) else float(share) for share in standings.shares()]
    return [standings.models[i] for i in sorted(range(len(shares)), key=lambda i: (-shares[i], i))]
