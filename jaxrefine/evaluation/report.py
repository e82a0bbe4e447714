"""A comparison for people: a table on the terminal, and a Markdown report with figures."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jaxrefine.artefacts.atomic import write_json, write_text
from jaxrefine.evaluation.comparison import METRICS, START, Comparison, Quality, Row, as_json
from jaxrefine.evaluation.plots import save_figures
from jaxrefine.evaluation.tables import change_in_points, markdown_table

NOTHING = "–"

_WIDE = 128
_COST_TITLES = ("s/step", "scored tok/s", "peak MiB", "compile s")


def write_report(comparison: Comparison, directory: Path, *, title: str = "Loss variants") -> Path:
    """Writes ``metrics.json``, ``report.md`` and its figures.

    Args:
        comparison: from `comparison.compare`.
        directory: where to.
        title: heading of the report.

    Returns:
        The path of ``report.md``.
    """
    figures = save_figures(comparison, directory / "figures")
    write_json(directory / "metrics.json", as_json(comparison))
    links = {name: path.relative_to(directory).as_posix() for name, path in figures.items()}
    path = directory / "report.md"
    write_text(path, markdown(comparison, figures=links, title=title))
    return path


def print_table(comparison: Comparison, console: Console | None = None) -> None:
    """Quality and cost on the terminal; two tables where it is narrow.

    An estimate comes with half its interval's width, and `*` where it differs from the control.
    """
    console = console if console is not None else Console()
    title = f"quality in %, ± half the 95 % interval; * differs from {comparison.control}"
    quality = {row.name: [_short(row.quality.get(metric)) for metric in METRICS] for row in comparison.rows}
    cost = {row.name: _cost_cells(row) for row in comparison.rows}
    titles = [metric.title for metric in METRICS.values()]
    if console.width >= _WIDE:
        console.print(
            _table(comparison, title, [*titles, *_COST_TITLES], {name: quality[name] + cost[name] for name in cost})
        )
    else:
        console.print(_table(comparison, title, titles, quality))
        console.print(_table(comparison, "cost of training", _COST_TITLES, cost))
    for line in _footnotes(comparison):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _table(comparison: Comparison, title: str, titles: Sequence[str], cells: Mapping[str, Sequence[str]]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("variant", no_wrap=True)
    for column in titles:
        table.add_column(column, justify="right", no_wrap=True)
    for name, values in cells.items():
        style = "bold" if name == comparison.control else "dim" if name == START else None
        table.add_row(name, *values, style=style)
    return table


def markdown(comparison: Comparison, *, figures: Mapping[str, str], title: str = "Loss variants") -> str:
    """The report: what was compared, quality, differences from the control, cost, figures, how to read it.

    Args:
        comparison: from `comparison.compare`.
        figures: paths of the figures from the report, by name.
        title: heading.
    """
    parts = [
        f"# {title}",
        _facts(comparison),
        "## Quality",
        "Shares in %, with 95 % intervals.",
        _quality_table(comparison),
    ]
    if "quality" in figures:
        parts.append(f"![quality of each variant with intervals]({figures['quality']})")
    parts += [
        f"## Differences from {comparison.control}",
        "In percentage points, paired by seed and prompt. In brackets the 95 % interval; after it the smallest true "
        "difference that this run would have found four times in five.",
        _difference_table(comparison),
        *_footnotes(comparison),
        "## Cost",
        _cost_table(comparison),
    ]
    if "seconds" in figures:
        parts.append(f"![quality against seconds]({figures['seconds']})")
    if "losses" in figures:
        parts += ["## Training", f"![training loss of each variant]({figures['losses']})"]
    return "\n\n".join([*parts, "## How to read this", _reading(comparison)]) + "\n"


def _facts(comparison: Comparison) -> str:
    return "\n".join(f"- {name}: {value}" for name, value in comparison.facts.items())


def _footnotes(comparison: Comparison) -> list[str]:
    lines = [f"{METRICS[name].title}: {NOTHING} {reason}" for name, reason in comparison.unavailable.items()]
    lines += [f"{name} was left out: {reason}" for name, reason in comparison.left_out.items()]
    measured = {
        METRICS[metric].title: [
            row.quality[metric].smallest_detectable
            for row in comparison.rows
            if row.name not in (START, comparison.control)
        ]
        for metric in comparison.metrics
    }
    worst = {name: max(size for size in sizes if size is not None) for name, sizes in measured.items() if any(sizes)}
    found = ", ".join(f"{name} {100 * size:.1f}" for name, size in worst.items() if math.isfinite(size))
    if found:
        lines.append(
            "Smallest difference that this run could have detected (power 80 %, the worst variant), in points: " + found
        )
    return lines


def _quality_table(comparison: Comparison) -> str:
    head = ["variant", *(METRICS[metric].title for metric in METRICS)]
    lines = [
        [_name(row, comparison), *(_long(row.quality.get(metric)) for metric in METRICS)] for row in comparison.rows
    ]
    return markdown_table(head, lines)


def _difference_table(comparison: Comparison) -> str:
    head = ["variant", *(METRICS[metric].title for metric in METRICS)]
    lines = [
        [row.name, *(_difference(row.quality.get(metric)) for metric in METRICS)]
        for row in comparison.rows
        if row.name != comparison.control
    ]
    return markdown_table(head, lines)


def _cost_table(comparison: Comparison) -> str:
    lines = [[row.name, *_cost_cells(row)] for row in comparison.rows if row.cost is not None]
    return markdown_table(["variant", *_COST_TITLES], lines)


def _name(row: Row, comparison: Comparison) -> str:
    return f"**{row.name}** (control)" if row.name == comparison.control else row.name


def _short(cell: Quality | None) -> str:
    if cell is None or math.isnan(cell.estimate.value):
        return NOTHING
    star = "*" if cell.difference is not None and cell.difference.excludes_zero() else " "
    half = 50 * (cell.estimate.high - cell.estimate.low)
    return f"{100 * cell.estimate.value:.1f} ±{half:.1f}{star}"


def _long(cell: Quality | None) -> str:
    if cell is None or math.isnan(cell.estimate.value):
        return NOTHING
    estimate = cell.estimate
    return f"{100 * estimate.value:.1f} [{100 * estimate.low:.1f}, {100 * estimate.high:.1f}]"


def _difference(cell: Quality | None) -> str:
    if cell is None or cell.difference is None or math.isnan(cell.difference.value):
        return NOTHING
    shown, size = change_in_points(cell.difference), cell.smallest_detectable
    return f"{shown} ({100 * size:.1f})" if size is not None else shown


def _cost_cells(row: Row) -> list[str]:
    if row.cost is None:
        return [NOTHING] * len(_COST_TITLES)
    cost = row.cost
    values = (
        (cost.seconds_per_step, "{:.3g}"),
        (cost.scored_tokens_per_second, "{:,.0f}"),
        (cost.peak_memory_bytes / 2**20, "{:,.0f}"),
        (cost.compile_seconds, "{:.1f}"),
    )
    return [NOTHING if math.isnan(value) else form.format(value) for value, form in values]


def _reading(comparison: Comparison) -> str:
    num_comparisons = sum(row.name not in (START, comparison.control) for row in comparison.rows)
    lines = [f"- **{metric.title}**: {metric.description}." for metric in METRICS.values()]
    lines += [
        f"- **{START}**: the weights before any training, scored by their mean log-prob a token.",
        "- Intervals are percentiles of a bootstrap that draws seeds and prompts again, independently, n − 1 of n "
        "(which makes the variance over few seeds unbiased). All rows use the same draws, so differences are paired.",
        "- The smallest detectable difference is (z.975 + z.8) · SE = 2.80 · SE of the paired difference. A difference "
        "below it that was not found is not shown to be absent.",
        f"- No correction for looking at many variants: of {num_comparisons} that equal the control in truth, one in "
        "twenty would be marked in each column by chance.",
        "- Cost: seconds a step are the median without the first step; peak memory is XLA's figure for the compiled "
        "train step (arguments, outputs and temporaries, less what is donated); compile seconds are paid once "
        "a variant.",
    ]
    return "\n".join(lines)
