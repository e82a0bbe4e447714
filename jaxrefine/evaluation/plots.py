"""Figures of a comparison: quality with intervals, loss curves, quality against seconds.

Nothing is told by colour alone: what differs from the control is filled, what does not is hollow, and every point
bears its name. Colours are those of Okabe and Ito, which all kinds of colour vision tell apart.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from jaxrefine.evaluation.comparison import METRICS, START, Comparison, Quality, Row

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

BLUE, ORANGE, GREY, BLACK = "#0072B2", "#D55E00", "#8A8A8A", "#222222"
_MAX_PANELS_IN_A_ROW = 4


def save_figures(comparison: Comparison, directory: Path) -> dict[str, Path]:
    """Draws what the comparison holds.

    Args:
        comparison: from `comparison.compare`.
        directory: gets ``quality.png``, ``losses.png`` and ``seconds.png``.

    Returns:
        The files by name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    figures = {"quality": quality(comparison), "losses": losses(comparison), "seconds": seconds(comparison)}
    paths = {}
    for name, figure in figures.items():
        paths[name] = directory / f"{name}.png"
        # Without a date and a version in the file, the same comparison gives the same bytes.
        figure.savefig(paths[name], dpi=160, metadata={"Software": None})
    return paths


def quality(comparison: Comparison) -> Figure:
    """One panel a metric: each variant's estimate and interval beside the control's."""
    metrics = comparison.metrics
    rows = list(reversed(comparison.rows))
    figure, panels = make_panels(len(metrics), width=3.1, height=0.9 + 0.32 * len(rows), share_y=True)
    for axis, metric in zip(panels, metrics, strict=True):
        reference = comparison.row(comparison.control).quality[metric].estimate
        axis.axvspan(100 * reference.low, 100 * reference.high, color=GREY, alpha=0.15, linewidth=0)
        axis.axvline(100 * reference.value, color=GREY, linestyle="--", linewidth=1)
        for height, row in enumerate(rows):
            _point(axis, row.quality[metric], height, _colour(row, comparison), vertical=False)
        axis.set_title(METRICS[metric].title, fontsize=10)
        axis.set_xlabel("%", fontsize=9)
        axis.set_yticks(range(len(rows)), [row.name for row in rows], fontsize=9)
        axis.set_ylim(-0.7, len(rows) - 0.3)
    figure.suptitle(
        f"95 % intervals over seeds and prompts; dashed: {comparison.control}; filled: differs from it", fontsize=9
    )
    return figure


def losses(comparison: Comparison) -> Figure:
    """One panel a variant, each with its own scale: losses of different kinds cannot be compared by height."""
    rows = [row for row in comparison.rows if row.losses]
    figure, panels = make_panels(len(rows), width=2.4, height=1.9)
    for axis, row in zip(panels, rows, strict=True):
        length = min(len(curve) for curve in row.losses)
        curves = np.array([[math.nan if value is None else value for value in curve[:length]] for curve in row.losses])
        steps = np.arange(1, length + 1)
        for curve in curves:
            axis.plot(steps, curve, color=GREY, linewidth=0.7, alpha=0.8)
        axis.plot(steps, curves.mean(axis=0), color=_colour(row, comparison), linewidth=1.6)
        axis.set_title(row.name, fontsize=9)
        axis.set_xlabel("step", fontsize=8)
    figure.suptitle("training loss: each seed (grey) and their mean", fontsize=9)
    return figure


def seconds(comparison: Comparison) -> Figure:
    """Quality against the seconds that training took, compiling included."""
    wanted = [name for name in ("greedy_accuracy", "reranked_accuracy") if name in comparison.metrics]
    metrics: list[str] = [*wanted] or [*comparison.metrics[:1]]
    figure, panels = make_panels(len(metrics), width=5.0, height=3.8)
    for axis, metric in zip(panels, metrics, strict=True):
        start = comparison.row(START).quality[metric].estimate.value
        axis.axhline(100 * start, color=GREY, linestyle=":", linewidth=1)
        axis.annotate(START, (0.0, 100 * start), xycoords=("axes fraction", "data"), xytext=(2, 1),
                      textcoords="offset points", fontsize=8, color=GREY, ha="left", va="bottom")  # fmt: skip
        rows = [row for row in comparison.rows if row.cost is not None]
        spots = []
        for row in rows:
            assert row.cost is not None
            x = row.cost.train_seconds + np.nan_to_num(row.cost.compile_seconds)
            _point(axis, row.quality[metric], x, _colour(row, comparison), vertical=True)
            spots.append((x, 100 * row.quality[metric].estimate.value, row.name))
        _name_spots(axis, spots)
        axis.set_title(METRICS[metric].title, fontsize=10)
        axis.set_xlabel("seconds of one run, compiling included", fontsize=9)
        axis.set_ylabel("%", fontsize=9)
        axis.margins(x=0.12)
    return figure


def _point(axis: Axes, cell: Quality, at: float, colour: str, *, vertical: bool) -> None:
    estimate = cell.estimate
    if math.isnan(estimate.value):
        return
    differs = cell.difference is not None and cell.difference.excludes_zero()
    centre = 100 * estimate.value
    arms = np.nan_to_num(np.array([[centre - 100 * estimate.low], [100 * estimate.high - centre]])).clip(min=0.0)
    place: dict[str, Any] = (
        {"x": [at], "y": [centre], "yerr": arms} if vertical else {"x": [centre], "y": [at], "xerr": arms}
    )
    axis.errorbar(**place, fmt="o", color=colour, markersize=5, capsize=2, linewidth=0.8 if vertical else 1.2,
                  markerfacecolor=colour if differs else "white")  # fmt: skip


def _name_spots(axis: Axes, spots: Sequence[tuple[float, float, str]]) -> None:
    """Names in a column to the right, evenly spread in the order of height, each with a thin line to its point."""
    ordered = sorted(spots, key=lambda spot: (spot[1], spot[0]))
    for index, (x, y, name) in enumerate(ordered):
        height = (index + 0.5) / len(ordered)
        line = {"arrowstyle": "-", "color": GREY, "linewidth": 0.5, "relpos": (0.0, 0.5)}
        axis.annotate(name, (x, y), xytext=(1.06, height), textcoords="axes fraction", fontsize=8, color=BLACK,
                      ha="left", va="center", arrowprops=line)  # fmt: skip


def _colour(row: Row, comparison: Comparison) -> str:
    return GREY if row.name == START else ORANGE if row.name == comparison.control else BLUE


def make_panels(count: int, *, width: float, height: float, share_y: bool = False) -> tuple[Figure, list[Axes]]:
    """A figure of ``count`` panels, at most four in a row, each of ``width`` × ``height`` inches."""
    from matplotlib.figure import Figure  # slow to import; a Figure of its own needs neither pyplot nor a display

    columns = max(1, min(count, _MAX_PANELS_IN_A_ROW))
    lines = max(1, math.ceil(count / columns))
    figure = Figure(figsize=(width * columns + 0.8, height * lines + 0.4), layout="constrained")
    grid = figure.subplots(lines, columns, squeeze=False, sharey=share_y)
    flat = list(grid.flat)
    for axis in flat[count:]:
        axis.set_visible(False)
    for axis in flat[:count]:
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, flat[:count]
