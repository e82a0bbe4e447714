"""Several models on the same tasks: means with intervals, paired differences from one of them, wins and losses.

Values are tables [seeds, units] by model, task and metric; every model of a comparison has the same units.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.table import Table

from jaxrefine.artefacts.atomic import write_json, write_text
from jaxrefine.config import unknown_name
from jaxrefine.evaluation.metrics import Interval, Resamples, bootstrap, make_resamples, paired_difference
from jaxrefine.evaluation.plots import BLUE, GREY
from jaxrefine.evaluation.tables import jsonable, markdown_table
from jaxrefine.typing import Array, Float

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

Values = Mapping[str, Mapping[str, Mapping[str, Float[Array, "S U"]]]]
"""By model, task and metric; a model of one seed is compared with each seed of the others."""

SHARES = ("accuracy", "ROUGE-L")
"""Metrics in [0, 1], shown in %."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cell:
    """What a model reached."""

    estimate: Interval
    difference: Interval | None
    """From the baseline, paired; None of the baseline itself."""
    wins: tuple[int, int, int] | None
    """Units and seeds on which it was better than the baseline, worse, and alike."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelComparison:
    """Cells by task, metric and model."""

    baseline: str
    cells: Mapping[str, Mapping[str, Mapping[str, Cell]]]
    num: Mapping[str, tuple[int, int]]
    """Seeds and units by task."""

    def record(self) -> dict[str, Any]:
        """Everything by name, for ``metrics.json``; what is not finite is null."""
        return {
            "baseline": self.baseline,
            "num": {task: {"seeds": seeds, "units": units} for task, (seeds, units) in self.num.items()},
            "tasks": jsonable({
                task: {
                    metric: {model: dataclasses.asdict(cell) for model, cell in by_model.items()}
                    for metric, by_model in metrics.items()
                }
                for task, metrics in self.cells.items()
            }),
        }  # fmt: skip


def compare_models(values: Values, baseline: str, *, num_resamples: int = 4000) -> ModelComparison:
    """Means and paired differences, all from the same draws of seeds and units.

    Args:
        values: tables [S, U]; a table of one seed stands for all of them.
        baseline: the model that the others are measured against.
        num_resamples: of the bootstrap.

    Raises:
        ValueError: an unknown baseline; models with other tasks, metrics or units than the baseline.

    >>> values = {"a": {"t": {"accuracy": np.array([[0.0, 1.0]])}}, "b": {"t": {"accuracy": np.array([[1.0, 1.0]])}}}
    >>> cell = compare_models(values, "a").cells["t"]["accuracy"]["b"]
    >>> cell.estimate.value, cell.difference.value, cell.wins
    (1.0, 0.5, (1, 0, 1))
    """
    if baseline not in values:
        raise ValueError(unknown_name(baseline, values, "baseline"))
    cells: dict[str, dict[str, dict[str, Cell]]] = {}
    num = {}
    for task, metrics in values[baseline].items():
        cells[task] = {}
        for metric, control in metrics.items():
            tables = {}
            for model, tasks in values.items():
                if metric not in tasks.get(task, {}):
                    raise ValueError(f"model {model!r} has no {metric} of task {task!r}, and {baseline!r} has")
                tables[model] = np.asarray(tasks[task][metric], np.float64)
                if tables[model].shape[1] != np.shape(control)[1]:
                    given, wanted = tables[model].shape[1], np.shape(control)[1]
                    raise ValueError(f"task {task!r}: {model!r} has {given} units, {baseline!r} {wanted}")
            seeds = max(len(table) for table in tables.values())
            whole = {model: _every_seed(table, seeds, model) for model, table in tables.items()}
            num[task] = (seeds, whole[baseline].shape[1])
            draws = make_resamples(*whole[baseline].shape, num_resamples=num_resamples)
            cells[task][metric] = {
                model: _cell(table, None if model == baseline else whole[baseline], draws)
                for model, table in whole.items()
            }
    return ModelComparison(baseline=baseline, cells=cells, num=num)


def _every_seed(table: Float[Array, "S U"], seeds: int, model: str) -> Float[Array, "every U"]:
    if len(table) not in (1, seeds):
        raise ValueError(f"model {model!r} has {len(table)} seeds, others have {seeds}: one, or all of them")
    return np.repeat(table, seeds, axis=0) if len(table) == 1 else table


def _cell(table: Float[Array, "S U"], control: Float[Array, "S U"] | None, draws: Resamples) -> Cell:
    estimate = bootstrap(table, draws)
    if control is None:
        return Cell(estimate=estimate, difference=None, wins=None)
    change = table - control
    wins = (int((change > 0).sum()), int((change < 0).sum()), int((change == 0).sum()))
    return Cell(estimate=estimate, difference=paired_difference(table, control, draws), wins=wins)


def mean_rank_scores(tables: Mapping[str, Float[Array, "S U"]]) -> dict[str, float]:
    """Human-style scores from a judge's: on each unit the i-th of N models gets N + 1 − i points; equals share.

    Args:
        tables: a judge's scores by model; a table of one seed stands for all of them.

    Returns:
        The mean over units and seeds by model, the best first: 1 is the lowest there can be, N the highest.

    >>> mean_rank_scores({"a": np.array([[3.0, 1.0]]), "b": np.array([[2.0, 1.0]]), "c": np.array([[1.0, 0.0]])})
    {'a': 2.75, 'b': 2.25, 'c': 1.0}

    Source: Tuna, arXiv:2310.13385, §4 (five systems ranked by people: rank i scores 6 − i).
    """
    seeds = max(len(table) for table in tables.values())
    whole = np.stack([_every_seed(np.asarray(table), seeds, model) for model, table in tables.items()])
    points = 1.0 + (whole[:, None] > whole[None]).sum(1) + ((whole[:, None] == whole[None]).sum(1) - 1) / 2
    means = {model: float(points[place].mean()) for place, model in enumerate(tables)}
    return dict(sorted(means.items(), key=lambda item: -item[1]))


def print_model_table(comparison: ModelComparison, console: Console | None = None) -> None:
    """One table a task on the terminal."""
    console = console if console is not None else Console()
    for task, metrics in comparison.cells.items():
        seeds, units = comparison.num[task]
        title = f"{task}: {units} units, {seeds} seeds; ± half the 95 % interval, * differs from {comparison.baseline}"
        table = Table(title=title, title_justify="left")
        table.add_column("model", no_wrap=True)
        for metric in metrics:
            table.add_column(_title(metric), justify="right", no_wrap=True)
        table.add_column("win / lose / tie", justify="right", no_wrap=True)
        for model in next(iter(metrics.values())):
            cells = [by_model[model] for by_model in metrics.values()]
            shown = [_short(metric, cell) for metric, cell in zip(metrics, cells, strict=True)]
            table.add_row(model, *shown, _wins(metrics, model), style="bold" if model == comparison.baseline else None)
        console.print(table)


def write_model_report(
    comparison: ModelComparison,
    directory: Path,
    *,
    title: str,
    facts: Mapping[str, str],
    sections: Sequence[str] = (),
    more: Mapping[str, Any] | None = None,
) -> Path:
    """Writes ``metrics.json``, ``report.md`` and its figure.

    Args:
        comparison: of `compare_models`.
        directory: where to.
        title: heading of the report.
        facts: what was compared, on what, by name.
        sections: further Markdown, after the tables.
        more: for ``metrics.json``, beside the comparison.

    Returns:
        The path of ``report.md``.
    """
    (directory / "figures").mkdir(parents=True, exist_ok=True)
    draw_models(comparison).savefig(directory / "figures" / "models.png", dpi=160, metadata={"Software": None})
    write_json(directory / "metrics.json", {**comparison.record(), "facts": dict(facts), **(more or {})})
    parts = [f"# {title}", "\n".join(f"- {name}: {value}" for name, value in facts.items())]
    for task, metrics in comparison.cells.items():
        seeds, units = comparison.num[task]
        parts += [f"## {task}", f"{units} units, {seeds} seeds. Mean [95 % interval].", _markdown(comparison, metrics)]
        wins = {model: _wins(metrics, model) for model in next(iter(metrics.values())) if model != comparison.baseline}
        parts.append(
            f"Better / worse / alike than {comparison.baseline} by {_title(_deciding(metrics))}, over units and seeds: "
            + "; ".join(f"{model} {shown}" for model, shown in wins.items())
            + "."
        )
    parts += ["![the models on each task](figures/models.png)", *sections]
    path = directory / "report.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path


def draw_models(comparison: ModelComparison) -> Figure:
    """One panel a task: each model's primary metric with its interval; the baseline's as a line."""
    from matplotlib.figure import Figure

    tasks = list(comparison.cells)
    models = list(next(iter(comparison.cells[tasks[0]].values())))
    figure = Figure(figsize=(max(4.0, 4.2 * len(tasks)), 1.2 + 0.35 * len(models)), layout="constrained")
    panels: Any = figure.subplots(1, len(tasks), sharey=True, squeeze=False)
    for axis, task in zip(panels[0], tasks, strict=True):
        metric = next(iter(comparison.cells[task]))
        _draw_task(axis, comparison, task, metric, models)
    panels[0][0].set_yticks(range(len(models)), models)
    panels[0][0].invert_yaxis()
    return figure


def _draw_task(axis: Axes, comparison: ModelComparison, task: str, metric: str, models: Sequence[str]) -> None:
    by_model, scale = comparison.cells[task][metric], 100.0 if metric in SHARES else 1.0
    axis.axvline(scale * by_model[comparison.baseline].estimate.value, color=GREY, linestyle="--", linewidth=1)
    for place, model in enumerate(models):
        found = by_model[model].estimate
        sides = [[scale * (found.value - found.low)], [scale * (found.high - found.value)]]
        wide = sides if all(math.isfinite(side[0]) for side in sides) else None
        colour = GREY if model == comparison.baseline else BLUE
        axis.errorbar(scale * found.value, place, xerr=wide, fmt="o", color=colour, capsize=3, markersize=5)
    axis.set_title(task, fontsize=10)
    axis.set_xlabel(_title(metric))
    axis.grid(axis="x", alpha=0.3)


def _title(metric: str) -> str:
    return f"{metric}, %" if metric in SHARES else metric


def _deciding(metrics: Mapping[str, Any]) -> str:
    """The metric by which a unit is won: the judge's score where there is one."""
    return "judge" if "judge" in metrics else next(iter(metrics))


def _wins(metrics: Mapping[str, Mapping[str, Cell]], model: str) -> str:
    wins = metrics[_deciding(metrics)][model].wins
    return "" if wins is None else " / ".join(map(str, wins))


def _short(metric: str, cell: Cell) -> str:
    scale, found = 100.0 if metric in SHARES else 1.0, cell.estimate
    mark = "*" if cell.difference is not None and cell.difference.excludes_zero() else " "
    half = scale * (found.high - found.low) / 2
    return f"{scale * found.value:.2f}{mark}" + (f"± {half:.2f}" if math.isfinite(half) else "")


def _markdown(comparison: ModelComparison, metrics: Mapping[str, Mapping[str, Cell]]) -> str:
    head = ["model"]
    for metric in metrics:
        head += [_title(metric), f"− {comparison.baseline}"]
    lines = []
    for model in next(iter(metrics.values())):
        line = [model]
        for metric, by_model in metrics.items():
            line += [_long(metric, by_model[model].estimate), _long(metric, by_model[model].difference)]
        lines.append(line)
    return markdown_table(head, lines)


def _long(metric: str, found: Interval | None) -> str:
    if found is None:
        return "–"
    scale = 100.0 if metric in SHARES else 1.0
    if not math.isfinite(found.low):
        return f"{scale * found.value:.2f}"
    return f"{scale * found.value:.2f} [{scale * found.low:.2f}, {scale * found.high:.2f}]"
