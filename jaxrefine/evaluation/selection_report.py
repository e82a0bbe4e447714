"""Selections for people: a table on the terminal, and a Markdown report in the layout of the paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jaxrefine.artefacts.atomic import write_json, write_text
from jaxrefine.evaluation.selection import CONTROL, ONE, ORACLES, Measured, Selected, SelectionSettings
from jaxrefine.evaluation.selection_plots import save_figures
from jaxrefine.evaluation.tables import change_in_points, jsonable, markdown_table
from jaxrefine.selection.strategies import STRATEGIES

NOTHING = "–"
_WIDE = 150
TITLES: dict[str, str] = {
    ONE: "one at random",
    **{name: strategy.title for name, strategy in STRATEGIES.items()},
    **ORACLES,
}
"""Of every row, in the order of the tables."""

PUBLISHED: dict[str, dict[str, float]] = {
    "PaLM 2-L, margin evaluator": {
        "maj1": 55.2, "rr_all": 57.0, "rr_majk": 59.4, "w_rr": 60.8, "w_rr_majk": 60.8, "maj1_topn": 59.4,
        "pass_at_n": 82.8,
    },
    "PaLM 2-L, cross-entropy evaluator": {
        "maj1": 55.2, "rr_all": 56.8, "rr_majk": 59.4, "w_rr": 60.8, "w_rr_majk": 61.2, "maj1_topn": 60.0,
        "pass_at_n": 82.8,
    },
    "PaLM 2-L, margin evaluator, K = 8": {"maj1": 55.2, "rr_all": 57.0, "rr_majk": 58.8},
    "PaLM 2-L, cross-entropy evaluator, K = 8": {"maj1": 55.2, "rr_all": 56.8, "rr_majk": 58.8},
    "PaLM 2-S*, margin evaluator, K = 8": {"maj1": 38.8, "rr_all": 32.4, "rr_majk": 36.6, "pass_at_n": 72.6},
    "PaLM 2-S*, cross-entropy evaluator, K = 8": {"maj1": 38.8, "rr_all": 33.6, "rr_majk": 35.4, "pass_at_n": 72.6},
}  # fmt: skip
"""Accuracies in % of arXiv 2310.10047 on its 500 problems of MATH, N = 64, generator trained on both sources: Tables 3
and 4. Other models and other problems: for the shape of the differences, not for their size."""

PUBLISHED_TRANSFER: dict[tuple[str, str], tuple[float, float]] = {
    ("PaLM 2-S*", "PaLM 2-S*"): (32.4, 36.6),
    ("PaLM 2-S*", "PaLM 2-L"): (48.4, 50.6),
    ("PaLM 2-L", "PaLM 2-S*"): (46.0, 46.4),
    ("PaLM 2-L", "PaLM 2-L"): (56.8, 58.8),
}
"""(RR.All, RR.Top-8) in % by (evaluator, generator), of arXiv 2310.10047, Table 6."""


def write_selection_report(
    measured: Sequence[Measured], settings: SelectionSettings, directory: Path, *, title: str = "Selection"
) -> Path:
    """Writes ``metrics.json``, ``report.md`` and its figures.

    Args:
        measured: of `selection.measure`, one a pool.
        settings: under which it was measured.
        directory: where to.
        title: heading of the report.

    Returns:
        The path of ``report.md``.
    """
    figures = save_figures(measured, directory / "figures")
    record = {
        "settings": dataclasses.asdict(settings),
        "pools": [jsonable(dataclasses.asdict(found)) for found in measured],
    }
    write_json(directory / "metrics.json", record)
    links = {name: path.relative_to(directory).as_posix() for name, path in figures.items()}
    path = directory / "report.md"
    write_text(path, selection_markdown(measured, settings, figures=links, title=title))
    return path


def print_selection_table(measured: Sequence[Measured], console: Console | None = None) -> None:
    """Pools down, strategies across: accuracy, then the share of solutions scored; several tables where it is narrow.

    An accuracy comes with half its interval's width, and `*` where it differs from that of Maj1@N.
    """
    console = console if console is not None else Console()
    title = f"accuracy in %, ± half the 95 % interval; * differs from {TITLES[CONTROL]}"
    cells = {_name(found): {name: _short(found.rows.get(name)) for name in TITLES} for found in measured}
    names = list(TITLES)
    step = len(names) if console.width >= _WIDE else 3
    for start in range(0, len(names), step):
        console.print(_terminal(title, cells, names[start : start + step]))
    shares = {_name(found): {name: _share(found.rows.get(name)) for name in STRATEGIES} for found in measured}
    console.print(_terminal("cost: solutions scored, in %", shares, list(STRATEGIES)))


def _terminal(title: str, cells: Mapping[str, Mapping[str, str]], names: Sequence[str]) -> Table:
    table = Table(title=title, title_justify="left")
    table.add_column("solutions / evaluator")
    for name in names:
        table.add_column(TITLES[name], justify="right", no_wrap=True, style="bold" if name == CONTROL else None)
    for pool, values in cells.items():
        table.add_row(pool, *(values[name] for name in names))
    return table


def selection_markdown(
    measured: Sequence[Measured], settings: SelectionSettings, *, figures: Mapping[str, str], title: str = "Selection"
) -> str:
    """The report: accuracies in the paper's layout, differences, costs, transfer, figures, how to read it.

    Args:
        measured: of `selection.measure`, one a pool.
        settings: under which it was measured.
        figures: paths of the figures from the report, by name.
        title: heading.
    """
    facts = "\n".join(f"- {line}" for line in dict.fromkeys(_facts(found) for found in measured))
    parts = [f"# {title}", facts, *selection_sections(measured, settings, figures=figures)]
    return "\n\n".join([*parts, "## How to read this", reading()]) + "\n"


def selection_sections(
    measured: Sequence[Measured], settings: SelectionSettings, *, figures: Mapping[str, str]
) -> list[str]:
    """The report's sections between its head and how to read it: accuracy, differences, cost, transfer, figures.

    Args:
        measured: of `selection.measure`, one a pool.
        settings: under which it was measured.
        figures: paths of the figures from the report, by name.
    """
    head = ["solutions", *TITLES.values()]
    ours = [[_name(found), *(_interval(found.rows.get(name)) for name in TITLES)] for found in measured]
    published = [
        [f"† *{_escaped(name)}*", *(f"*{row[column]:.1f}*" if column in row else NOTHING for column in TITLES)]
        for name, row in PUBLISHED.items()
    ]
    strategies = [name for name in STRATEGIES if name != CONTROL]
    parts = [
        "## Accuracy",
        f"In %, with 95 % intervals over problems; K = {settings.largest}, TopN = {settings.top}. † published by Liu "
        "et al. 2023 (arXiv 2310.10047) for other models, N = 64 and 500 problems of MATH.",
        markdown_table(head, [*ours, *published]),
        f"## Differences from {TITLES[CONTROL]}",
        "In percentage points, paired by problem; bold where the interval excludes zero.",
        markdown_table(
            ["solutions", *(TITLES[name] for name in strategies)],
            [[_name(found), *(_difference(found.rows.get(name)) for name in strategies)] for found in measured],
        ),
        "## Cost",
        "Share of all solutions that an evaluator has to score, in %.",
        markdown_table(
            ["solutions", *(strategy.title for strategy in STRATEGIES.values())],
            [[_name(found), *(_share(found.rows.get(name)) for name in STRATEGIES)] for found in measured],
        ),
        "## Any evaluator on any generator",
        f"RR.All / RR.MajK in %, K = {settings.largest}; evaluators down, generators across.",
        transfer_table(measured),
    ]
    captions = {"against_n": "Accuracy against N", "against_k": "Accuracy against K"}
    for name, caption in captions.items():
        if name in figures:
            parts += [f"## {caption}", f"![{caption.lower()}]({figures[name]})"]
    return parts


def transfer_table(measured: Sequence[Measured]) -> str:
    """Evaluators down, generators across, RR.All / RR.MajK in each cell; then the published grid.

    Args:
        measured: of `selection.measure`; pools without an evaluator are left out.
    """
    cells = {
        (found.evaluator, found.generator): f"{_percent(found.rows['rr_all'])} / {_percent(found.rows['rr_majk'])}"
        for found in measured
        if found.evaluator is not None
    }
    published = {key: f"*{all_:.1f} / {top:.1f}*" for key, (all_, top) in PUBLISHED_TRANSFER.items()}
    grids = [_grid(cells)] if cells else ["No evaluator's scores were given."]
    return "\n\n".join([*grids, "† published (K = 8):", _grid(published)])


def _grid(found: Mapping[tuple[str, str], str]) -> str:
    cells = {(_escaped(evaluator), _escaped(name)): cell for (evaluator, name), cell in found.items()}
    evaluators = list(dict.fromkeys(evaluator for evaluator, _ in cells))
    generators = list(dict.fromkeys(generator for _, generator in cells))
    lines = [
        [evaluator, *(cells.get((evaluator, generator), NOTHING) for generator in generators)]
        for evaluator in evaluators
    ]
    return markdown_table(["evaluator", *generators], lines)


def _escaped(name: str) -> str:
    return name.replace("*", "\\*")


def _name(found: Measured) -> str:
    return found.generator if found.evaluator is None else f"{found.generator} / {found.evaluator}"


def _size(found: Measured) -> str:
    fewest, most = found.num_solutions
    return f"{found.num_problems} × {fewest if fewest == most else f'{fewest}–{most}'}"


def _facts(found: Measured) -> str:
    return (
        f"**{found.generator}**: {_size(found)} solutions; {found.undecided_problems} problems have right and wrong "
        f"ones, so that selection can matter; clusters with right and wrong ones: {found.mixed_clusters}"
    )


def _percent(row: Selected) -> str:
    return f"{100 * row.accuracy.value:.1f}"


def _interval(row: Selected | None) -> str:
    if row is None:
        return NOTHING
    return f"{_percent(row)} [{100 * row.accuracy.low:.1f}, {100 * row.accuracy.high:.1f}]"


def _share(row: Selected | None) -> str:
    return NOTHING if row is None or row.scored is None else f"{100 * row.scored:.1f}"


def _difference(row: Selected | None) -> str:
    if row is None or row.difference is None:
        return NOTHING
    return change_in_points(row.difference)


def _short(row: Selected | None) -> str:
    if row is None:
        return NOTHING
    star = "*" if row.difference is not None and row.difference.excludes_zero() else " "
    return f"{_percent(row)} ±{50 * (row.accuracy.high - row.accuracy.low):.1f}{star}"


def reading() -> str:
    """What the strategies choose, how ties are settled, and what the intervals are."""
    lines = [f"- **{strategy.title}**: {strategy.description}." for strategy in STRATEGIES.values()]
    lines += [
        "- **Pass@N**: a right solution is among all; **MajK@N**: it is in the K largest clusters. No strategy exceeds "
        "the first, RR.MajK and W.RR.MajK do not exceed the second.",
        f"- **{TITLES[ONE]}**: the mean share of right solutions, which is Pass@1 without bias.",
        "- Ties: of equal solutions the one that was given first; of equal clusters the one whose first solution was "
        "given first. A solution without an answer is in no cluster: it is neither scored nor chosen.",
        "- Against N: the mean over subsets of N of a problem's solutions, all of them or as many as were drawn, each "
        "in a random order, so that ties favour nobody; Pass@N there is the unbiased estimate.",
        "- Intervals are percentiles of a bootstrap over problems, n − 1 of n, with the same draws for all strategies. "
        "Where all n problems agree it has no width; the exact interval then reaches 1 − 0.025^(1/n) further: 31 "
        "points for n = 10, 7 for n = 50.",
    ]
    return "\n".join(lines)
