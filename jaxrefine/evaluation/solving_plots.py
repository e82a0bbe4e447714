"""The figure of generators: greedy, vote and any of N, each with its interval."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from jaxrefine.evaluation.plots import BLACK, BLUE, ORANGE
from jaxrefine.evaluation.solving import METRICS, MeasuredGenerator

_STYLES = {"pass_at_1": (ORANGE, "s"), "maj1": (BLACK, "o"), "pass_at_n": (BLUE, "^")}
"""Colour and marker: nothing is told by colour alone."""


def save_generator_figure(generators: Sequence[MeasuredGenerator], directory: Path) -> Path:
    """Draws ``generators.png``: a line a generator, in the order in which they were trained, the first on top.

    Args:
        generators: of `solving.measure_generators`.
        directory: made if need be.

    Returns:
        The file.
    """
    from matplotlib.figure import Figure  # slow to import; a Figure of its own needs neither pyplot nor a display

    directory.mkdir(parents=True, exist_ok=True)
    figure = Figure(figsize=(6.4, 1.3 + 0.42 * len(generators)), layout="constrained")
    axis = figure.subplots()
    heights = np.arange(len(generators))[::-1]
    for order, (metric, title) in enumerate(METRICS.items()):
        colour, marker = _STYLES[metric]
        found = [one.solved[metric] for one in generators]
        arms = 100 * np.array([[one.value - one.low, one.high - one.value] for one in found]).T
        axis.errorbar(
            [100 * one.value for one in found], heights + 0.18 * (1 - order), xerr=arms.clip(min=0.0), color=colour,
            marker=marker, linestyle="none", markersize=4.5, elinewidth=0.9, capsize=2, label=title,
        )  # fmt: skip
    axis.set_yticks(heights, [" → ".join(one.history) for one in generators], fontsize=8)
    axis.set_ylim(-0.6, len(generators) - 0.4)
    axis.set_xlabel("% of the test problems, with 95 % intervals", fontsize=8)
    axis.tick_params(labelsize=8)
    axis.grid(axis="x", linewidth=0.3)
    axis.spines[["top", "right"]].set_visible(False)
    figure.legend(loc="outside lower center", ncols=3, fontsize=8, frameon=False)
    path = directory / "generators.png"
    # Without a date and a version in the file, the same figures give the same bytes.
    figure.savefig(path, dpi=160, metadata={"Software": None})
    return path
