"""Figures of selections: accuracy against N, the number of solutions, and against K, the number of clusters.

Nothing is told by colour alone: every line has a marker of its own, and strategies that need no evaluator are dashed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxrefine.evaluation.metrics import Interval
from jaxrefine.evaluation.plots import BLACK, BLUE, GREY, ORANGE
from jaxrefine.evaluation.selection import ORACLES, Measured
from jaxrefine.selection.strategies import STRATEGIES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

STYLES: dict[str, tuple[str, str, str]] = {
    "maj1": (BLACK, "o", "--"),
    "rr_all": (ORANGE, "s", "-"),
    "rr_majk": (BLUE, "^", "-"),
    "w_rr": ("#009E73", "D", "-"),
    "w_rr_majk": ("#CC79A7", "v", "-"),
    "maj1_topn": ("#56B4E9", "P", "-"),
    "pass_at_n": (GREY, "x", ":"),
    "majk_at_n": (GREY, "+", ":"),
}
"""Colour (of Okabe and Ito), marker and line of each curve."""
_COLUMNS = 3


def save_figures(measured: Sequence[Measured], directory: Path) -> dict[str, Path]:
    """Draws both figures.

    Args:
        measured: of `selection.measure`, one panel each.
        directory: gets ``against_n.png`` and ``against_k.png``.

    Returns:
        The files by name.
    """
    directory.mkdir(parents=True, exist_ok=True)
    figures = {
        "against_n": curves(measured, {_title(found): found.against_n for found in measured}, "N, solutions a problem"),
        "against_k": curves(measured, {_title(found): found.against_k for found in measured}, "K, largest clusters"),
    }
    paths = {}
    for name, figure in figures.items():
        paths[name] = directory / f"{name}.png"
        # Without a date and a version in the file, the same figures give the same bytes.
        figure.savefig(paths[name], dpi=160, metadata={"Software": None})
    return paths


def curves(
    measured: Sequence[Measured], found: Mapping[str, Mapping[str, Mapping[int, Interval]]], label: str
) -> Figure:
    """One panel a pool: accuracy with its interval, the points of one N or K side by side.

    Args:
        measured: the pools, in the panels' order.
        found: curves by title of the pool and name.
        label: of the axis of numbers.
    """
    from matplotlib.figure import Figure  # slow to import; a Figure of its own needs neither pyplot nor a display

    lines = math.ceil(len(measured) / _COLUMNS)
    columns = math.ceil(len(measured) / lines)
    figure = Figure(figsize=(4.2 * columns, 3.4 * lines + 0.8), layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis in grid[len(measured) :]:
        axis.set_visible(False)
    handles = {}
    for axis, (title, named) in zip(grid, found.items(), strict=False):
        _panel(axis, title, named, label)
        drawn, names = axis.get_legend_handles_labels()
        handles.update(dict(zip(names, drawn, strict=True)))
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=4, fontsize=8, frameon=False)
    figure.suptitle("accuracy with 95 % intervals over problems", fontsize=9)
    return figure


def _panel(axis: Axes, title: str, named: Mapping[str, Mapping[int, Interval]], label: str) -> None:
    numbers = sorted({number for curve in named.values() for number in curve})
    places = {number: place for place, number in enumerate(numbers)}
    for order, (name, curve) in enumerate(named.items()):
        colour, marker, line = STYLES[name]
        shift = 0.08 * (order - (len(named) - 1) / 2)
        x = np.array([places[number] + shift for number in curve])
        y = 100 * np.array([interval.value for interval in curve.values()])
        arms = (
            100
            * np.array(
                [[interval.value - interval.low, interval.high - interval.value] for interval in curve.values()]
            ).T
        )
        axis.errorbar(x, y, yerr=np.nan_to_num(arms).clip(min=0.0), color=colour, marker=marker, linestyle=line,
                      markersize=4, linewidth=1.2, elinewidth=0.6, capsize=1.5, label=_label(name))  # fmt: skip
    axis.set_xticks(range(len(numbers)), [str(number) for number in numbers])
    axis.set_title(title, fontsize=9)
    axis.set_xlabel(label, fontsize=8)
    axis.set_ylabel("%", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)


def _label(name: str) -> str:
    return ORACLES[name] if name in ORACLES else STRATEGIES[name].title


def _title(found: Measured) -> str:
    scores = found.evaluator if found.evaluator is not None else "no scores"
    return f"{found.generator}\n{scores}"
