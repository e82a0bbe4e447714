"""Figures of routings: quality against β, against cost, and against reward entropy.

Nothing is told by colour alone: every line has a marker of its own.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxrefine.evaluation.metrics import Interval
from jaxrefine.evaluation.plots import BLACK, BLUE, GREY, ORANGE
from jaxrefine.evaluation.routing import CHANCE, CONTROL, ORACLE, MeasuredRouting

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_PAPER = "0.3"
_MARKERS = "osD^vP<>*X"
_COLOURS = (BLUE, "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#F0E442")
_FIXED = {CONTROL: (ORANGE, "s", "--"), ORACLE: (BLACK, "^", ":"), CHANCE: (GREY, "x", ":")}


def save_figures(measured: Sequence[MeasuredRouting], directory: Path, *, sweep: Mapping[str, str]) -> dict[str, Path]:
    """Draws what there is to draw.

    Args:
        measured: one panel each.
        directory: gets ``sweep.png``, ``cost.png`` and ``entropy.png``.
        sweep: labels in the figure's order to names of systems; without two of them there is no such figure.

    Returns:
        The files by name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    figures: dict[str, Figure] = {}
    if len(sweep) > 1:
        figures["sweep"] = sweep_figure(measured, sweep)
    hidden = _hidden(sweep)
    if any(found.cost_curves for found in measured):
        figures["cost"] = cost_figure([found for found in measured if found.cost_curves], hidden)
    if any(len(found.entropy) > 1 for found in measured):
        figures["entropy"] = entropy_figure([found for found in measured if len(found.entropy) > 1], hidden)
    paths = {}
    for name, figure in figures.items():
        paths[name] = directory / f"{name}.png"
        # Without a date and a version in the file, the same figures give the same bytes.
        figure.savefig(paths[name], dpi=160, metadata={"Software": None})
    return paths


def _hidden(sweep: Mapping[str, str]) -> set[str]:
    """All of a sweep but one, which is not chosen by what it reached: the paper's β, or the first."""
    kept = sweep.get(_PAPER, next(iter(sweep.values()), ""))
    return {name for name in sweep.values() if name != kept} if len(sweep) > 1 else set()


def sweep_figure(measured: Sequence[MeasuredRouting], sweep: Mapping[str, str]) -> Figure:
    """Mean reward above, mean task rank below, each with its interval; dashed: the best on average."""
    figure, grid = _panels(2, len(measured))
    for column, found in enumerate(measured):
        control = found.systems[CONTROL]
        for line, (title, level, pick) in enumerate(
            (("mean reward", control.mean.value, "mean"), ("mean task rank, lower is better", control.mean_rank.value,
                                                         "mean_rank"))
        ):  # fmt: skip
            axis = grid[line][column]
            intervals = [getattr(found.systems[name], pick) for name in sweep.values()]
            _curve(axis, list(range(len(sweep))), intervals, BLUE, "o", "-", "router")
            axis.axhline(level, color=ORANGE, linestyle="--", linewidth=1, label=CONTROL)
            axis.set_xticks(range(len(sweep)), list(sweep), fontsize=8)
            axis.set_title(f"{found.name}: {title}", fontsize=9)
            axis.set_xlabel("β", fontsize=8)
    grid[0][0].legend(fontsize=7, frameon=False)
    return figure


def cost_figure(measured: Sequence[MeasuredRouting], hidden: Collection[str] = ()) -> Figure:
    """Mean reward against mean cost: single models as named points, a line a router that is not hidden."""
    figure, grid = _panels(1, len(measured))
    for axis, found in zip(grid[0], measured, strict=True):
        shown = {name: points for name, points in found.cost_curves.items() if name not in hidden}
        styles = _styles([name for name in shown if name not in found.models])
        for name, points in shown.items():
            x, y = [point[0] for point in points], [point[1] for point in points]
            if name in found.models:
                axis.plot(x, y, marker="D", color=GREY, linestyle="none", markersize=5)
                axis.annotate(name, (x[0], y[0]), xytext=(3, 3), textcoords="offset points", fontsize=6, color=GREY)
            else:
                colour, marker, line = styles[name]
                axis.plot(x, y, color=colour, marker=marker, linestyle=line, markersize=3, linewidth=1.2, label=name)
        axis.set_title(found.name, fontsize=9)
        axis.set_xlabel("mean cost of an answer", fontsize=8)
        axis.set_ylabel("mean reward", fontsize=8)
        axis.legend(fontsize=7, frameon=False)
    return figure


def entropy_figure(measured: Sequence[MeasuredRouting], hidden: Collection[str] = ()) -> Figure:
    """Mean reward of queries by their reward entropy: where all models are equal there is nothing to choose."""
    figure, grid = _panels(1, len(measured))
    for axis, found in zip(grid[0], measured, strict=True):
        shown = {name: intervals for name, intervals in found.by_entropy.items() if name not in hidden}
        styles = _styles(list(shown))
        for name, intervals in shown.items():
            _curve(axis, found.entropy, intervals, *styles[name], name)
        axis.set_title(found.name, fontsize=9)
        axis.set_xlabel("reward entropy, as a share of the highest", fontsize=8)
        axis.set_ylabel("mean reward", fontsize=8)
        axis.legend(fontsize=6, frameon=False)
    return figure


def _styles(names: Sequence[str]) -> dict[str, tuple[str, str, str]]:
    free = [name for name in names if name not in _FIXED]
    given = {
        name: (_COLOURS[n % len(_COLOURS)], _MARKERS[n % len(_MARKERS)], "-" if n < len(_COLOURS) else "-.")
        for n, name in enumerate(free)
    }
    return {name: _FIXED.get(name) or given[name] for name in names}


def _curve(
    axis: Axes, x: Sequence[float], intervals: Sequence[Interval], colour: str, marker: str, line: str, label: str
) -> None:
    y = np.array([interval.value for interval in intervals])
    arms = np.array([[one.value - one.low, one.high - one.value] for one in intervals]).T
    axis.errorbar(np.asarray(x, float), y, yerr=np.nan_to_num(arms).clip(min=0.0), color=colour, marker=marker,
                  linestyle=line, markersize=4, linewidth=1.2, elinewidth=0.6, capsize=1.5, label=label)  # fmt: skip


def _panels(lines: int, columns: int) -> tuple[Figure, list[list[Axes]]]:
    from matplotlib.figure import Figure  # slow to import; a Figure of its own needs neither pyplot nor a display

    figure = Figure(figsize=(4.6 * columns, 3.2 * lines), layout="constrained")
    grid = [list(row) for row in figure.subplots(lines, columns, squeeze=False)]
    for axis in (axis for row in grid for axis in row):
        axis.spines[["top", "right"]].set_visible(False)
        axis.tick_params(labelsize=8)
    return figure, grid
