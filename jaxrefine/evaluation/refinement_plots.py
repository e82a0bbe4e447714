"""The figure of refinements: accuracy against the share of refined queries, with the other methods as points.

Nothing is told by colour alone: every curve and every point has a marker of its own.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from jaxrefine.evaluation.plots import BLACK, BLUE, GREY, ORANGE
from jaxrefine.evaluation.refinement import CONTROL, METHODS, MeasuredRefinement

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

CURVES: dict[str, tuple[str, str, str]] = {
    "refined": ("refined answers are taken", ORANGE, "o"),
    "self": ("self-selection", GREY, "^"),
    "truster": ("Truster", BLUE, "s"),
}
"""Title, colour and marker of the curve of each choice."""
POINTS: dict[str, str] = {
    "self_refine": "v", "self": "P", "asker": "D", "art": "*", "majority": "X", "oracle_decision": "x",
    "oracle_choice": "+",
}  # fmt: skip
"""Markers of single methods."""
_COLUMNS = 3


def save_refinement_figures(measured: Sequence[MeasuredRefinement], directory: Path) -> dict[str, Path]:
    """Draws accuracy against the share refined, one panel a model and Asker.

    Args:
        measured: of `refinement.measure_refinement`.
        directory: gets ``accuracy_against_share.png``.

    Returns:
        The files by name; empty where nobody gave probabilities.
    """
    drawn = [found for found in measured if found.curve]
    if not drawn:
        return {}
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / "accuracy_against_share.png"
    # Without a date and a version in the file, the same figures give the same bytes.
    against_share(drawn).savefig(path, dpi=160, metadata={"Software": None})
    return {"accuracy_against_share": path}


def against_share(measured: Sequence[MeasuredRefinement]) -> Figure:
    """One panel each: curves with intervals, the other methods as points, no refinement as a line."""
    from matplotlib.figure import Figure  # slow to import; a Figure of its own needs neither pyplot nor a display

    columns = min(_COLUMNS, len(measured))
    lines = math.ceil(len(measured) / columns)
    figure = Figure(figsize=(max(6.4, 4.4 * columns), 3.5 * lines + 1.1), layout="constrained")
    grid = list(figure.subplots(lines, columns, squeeze=False).flat)
    for axis in grid[len(measured) :]:
        axis.set_visible(False)
    handles = {}
    for axis, found in zip(grid, measured, strict=False):
        _panel(axis, found)
        drawn, names = axis.get_legend_handles_labels()
        handles.update(dict(zip(names, drawn, strict=True)))
    figure.legend(
        handles.values(),
        handles.keys(),
        loc="outside lower center",
        ncols=3 if columns == 1 else 4,
        fontsize=8,
        frameon=False,
    )
    figure.suptitle("accuracy with 95 % intervals over queries; the dotted line: no refinement", fontsize=9)
    return figure


def _panel(axis: Axes, found: MeasuredRefinement) -> None:
    axis.axhline(100 * found.rows[CONTROL].accuracy.value, color=GREY, linestyle=":", linewidth=1)
    for choice, (title, colour, marker) in CURVES.items():
        points = [(100 * at.share_refined, at.accuracy[choice]) for at in found.curve if choice in at.accuracy]
        if not points:
            continue
        x = np.array([share for share, _ in points])
        y, low, high = (100 * np.array([getattr(a, name) for _, a in points]) for name in ("value", "low", "high"))
        axis.plot(x, y, color=colour, marker=marker, markersize=3, linewidth=1.2, label=title)
        axis.fill_between(x, low, high, color=colour, alpha=0.12, linewidth=0)
    for name, marker in POINTS.items():
        if name in found.rows:
            row = found.rows[name]
            axis.plot([100 * row.share_refined], [100 * row.accuracy.value], linestyle="none", marker=marker,
                      color=BLACK, markersize=6, label=METHODS[name].title)  # fmt: skip
    axis.set_title(f"{found.generator}\n{found.asker}", fontsize=9)
    axis.set_xlabel("refined, %", fontsize=8)
    axis.set_ylabel("right, %", fontsize=8)
    axis.spines[["top", "right"]].set_visible(False)
    axis.tick_params(labelsize=8)
