"""Routings for people: a table on the terminal, and a Markdown report with figures."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jaxrefine.artefacts.atomic import write_json, write_text
from jaxrefine.evaluation.metrics import Interval
from jaxrefine.evaluation.routing import CHANCE, CONTROL, ORACLE, Measured, MeasuredRouting, RoutingSettings
from jaxrefine.evaluation.routing_plots import save_figures
from jaxrefine.evaluation.tables import jsonable, markdown_table

NOTHING = "–"

PUBLISHED: dict[str, tuple[float, float]] = {
    "WizardCoder": (5.3, 0.06), "WizardLM": (1.83, 0.25), "WizardMath": (4.6, 0.03),
    "Llama-2-chat (best on average)": (2.23, 0.31), "OpenChat": (2.67, 0.19), "Vicuna": (3.4, 0.06),
    "ZOOTER": (1.94, 0.44), "ranking by OAsst": (3.42, 0.19), "ranking by LLM-Blender": (3.39, 0.17),
    "ranking by Auto-J": (2.25, 0.42), "ranking by QwenRM": (1.58, 0.67), "ranking by UltraRM": (1.53, 0.72),
    "oracle": (1.0, 1.0),
}  # fmt: skip
"""(MTR, uplift) of arXiv 2311.08692: six models of 13B, its own benchmarks. Other models and other queries: for the
order of the systems, not for the size of their differences."""

PUBLISHED_SWEEP: dict[str, float] = {
    "hard labels": 2.31, "0": 2.06, "0.1": 2.00, "0.3": 1.97, "0.5": 2.23, "0.7": 2.31, "0.9": 2.31, "1": 2.34,
}  # fmt: skip
"""MTR by β, of arXiv 2311.08692."""


def write_routing_report(
    measured: Sequence[MeasuredRouting],
    settings: RoutingSettings,
    directory: Path,
    *,
    sweep: Mapping[str, str] | None = None,
    title: str = "Routing",
    notes: Sequence[str] = (),
) -> Path:
    """Writes ``metrics.json``, ``report.md`` and its figures.

    Args:
        measured: of `routing.measure`, one a set of queries.
        settings: under which it was measured.
        directory: where to.
        sweep: labels (values of β) to names of systems, for a table and a figure of their own.
        title: heading of the report.
        notes: what must be known to read it: what the rewards are, what the costs.

    Returns:
        The path of ``report.md``.
    """
    sweep = {} if sweep is None else sweep
    figures = save_figures(measured, directory / "figures", sweep=sweep)
    record = {
        "settings": dataclasses.asdict(settings),
        "notes": list(notes),
        "sweep": dict(sweep),
        "sets": [jsonable(dataclasses.asdict(found)) for found in measured],
    }
    write_json(directory / "metrics.json", record)
    links = {name: path.relative_to(directory).as_posix() for name, path in figures.items()}
    path = directory / "report.md"
    write_text(path, routing_markdown(measured, settings, figures=links, sweep=sweep, title=title, notes=notes))
    return path


def print_routing_table(measured: Sequence[MeasuredRouting], console: Console | None = None) -> None:
    """Systems down: reward, difference from the best on average (`*` where it excludes zero), MTR, uplift, answers."""
    console = console if console is not None else Console()
    for found in measured:
        table = Table(title=_heading(found), title_justify="left")
        table.add_column("system")
        for name in ("reward", "± 95 %", "difference", "MTR", "uplift", "answers"):
            table.add_column(name, justify="right", no_wrap=True)
        for name, row in found.systems.items():
            style = "bold" if name == CONTROL else None
            star = "*" if row.difference is not None and row.difference.excludes_zero() else " "
            change = NOTHING if row.difference is None else f"{row.difference.value:+.3f}{star}"
            table.add_row(
                name,
                f"{row.mean.value:.3f}",
                f"{(row.mean.high - row.mean.low) / 2:.3f}",
                change,
                f"{row.mean_rank.value:.2f}",
                f"{row.uplift:.2f}",
                str(row.answers),
                style=style,
            )
        console.print(table)


def routing_markdown(
    measured: Sequence[MeasuredRouting],
    settings: RoutingSettings,
    *,
    figures: Mapping[str, str],
    sweep: Mapping[str, str],
    title: str = "Routing",
    notes: Sequence[str] = (),
) -> str:
    """The report: systems, sweep, subsets, where queries went, figures, how to read it.

    Args:
        measured: of `routing.measure`.
        settings: under which it was measured.
        figures: paths of the figures from the report, by name.
        sweep: labels to names of systems.
        title: heading.
        notes: see `write_routing_report`.
    """
    parts = [f"# {title}", *(["\n".join(f"- {note}" for note in notes)] if notes else [])]
    for found in measured:
        parts += [f"## {_heading(found)}", _verdict(found), _systems(found)]
        if sweep:
            parts += ["### By β", _sweep(found, sweep)]
        parts += ["### Mean reward by subset", _subsets(found), "### Where queries went, in %", _shares(found)]
    captions = {"sweep": "Against β", "cost": "Quality against cost", "entropy": "Quality against reward entropy"}
    for name, caption in captions.items():
        if name in figures:
            parts += [f"## {caption}", f"![{caption.lower()}]({figures[name]})"]
    parts += [
        "## Published",
        "† arXiv 2311.08692, six models of 13B on its own benchmarks, each ensemble ranked against the six alone.",
        markdown_table(
            ["system", "MTR", "uplift"],
            [[f"† *{name}*", f"*{rank:.2f}*", f"*{share:.2f}*"] for name, (rank, share) in PUBLISHED.items()],
        ),
        markdown_table(
            ["† β", *(f"*{name}*" for name in PUBLISHED_SWEEP)],
            [["† MTR", *(f"*{rank:.2f}*" for rank in PUBLISHED_SWEEP.values())]],
        ),
        "## How to read this",
        _reading(settings),
    ]
    return "\n\n".join(parts) + "\n"


def _heading(found: MeasuredRouting) -> str:
    seeds = f", {found.num_seeds} seeds" if found.num_seeds > 1 else ""
    return (
        f"{found.name}: {found.num_queries} held-out queries, {len(found.models)} models, "
        f"{len(found.subsets)} subsets{seeds}"
    )


def _verdict(found: MeasuredRouting) -> str:
    """One sentence a router: does it beat the best single model, or can that not be told?"""
    lines = []
    for name, row in found.systems.items():
        if name in (*found.models, CONTROL, CHANCE, ORACLE) or row.difference is None:
            continue
        change = row.difference
        if not change.excludes_zero():
            said = "cannot be told from"
        else:
            said = "is better than" if change.value > 0 else "is worse than"
        way = "" if row.gap is None else f"; {100 * row.gap:.0f} % of the way to the oracle"
        lines.append(f"- **{name}** {said} the best on average ({found.best}): {_signed(change)}{way}.")
    return "\n".join(lines) if lines else "No router was measured."


def _systems(found: MeasuredRouting) -> str:
    head = ["system", "mean reward", f"difference from {CONTROL}", "MTR", "uplift", "answers"]
    lines = []
    for name, row in found.systems.items():
        shown = f"{CONTROL} ({found.best})" if name == CONTROL else name
        rank = row.mean_rank
        lines.append([
            _escaped(shown), _interval(row.mean), _difference(row),
            f"{rank.value:.2f} [{rank.low:.2f}, {rank.high:.2f}]", f"{row.uplift:.2f}", str(row.answers),
        ])  # fmt: skip
    return markdown_table(head, lines)


def _sweep(found: MeasuredRouting, sweep: Mapping[str, str]) -> str:
    rows = [found.systems[name] for name in sweep.values()]
    return markdown_table(
        ["β", *sweep],
        [
            ["mean reward", *(_interval(row.mean) for row in rows)],
            [f"difference from {CONTROL}", *(_difference(row) for row in rows)],
            ["MTR", *(f"{row.mean_rank.value:.2f}" for row in rows)],
            ["uplift", *(f"{row.uplift:.2f}" for row in rows)],
        ],
    )


def _subsets(found: MeasuredRouting) -> str:
    return markdown_table(
        ["subset", "queries", *(_escaped(name) for name in found.systems)],
        [
            [_escaped(subset), str(count), *(_number(row.subsets[subset]) for row in found.systems.values())]
            for subset, count in found.subsets.items()
        ],
    )


def _shares(found: MeasuredRouting) -> str:
    return markdown_table(
        ["system", *(_escaped(model) for model in found.models)],
        [
            [_escaped(name), *(f"{100 * row.shares[model]:.0f}" for model in found.models)]
            for name, row in found.systems.items()
            if name not in found.models
        ],
    )


def _escaped(name: str) -> str:
    return name.replace("*", "\\*").replace("|", "\\|")


def _number(value: float) -> str:
    return NOTHING if math.isnan(value) else f"{value:.3f}"


def _interval(found: Interval) -> str:
    return f"{found.value:.3f} [{found.low:.3f}, {found.high:.3f}]"


def _signed(change: Interval) -> str:
    return f"{change.value:+.3f} [{change.low:+.3f}, {change.high:+.3f}]"


def _difference(row: Measured) -> str:
    if row.difference is None:
        return NOTHING
    return f"**{_signed(row.difference)}**" if row.difference.excludes_zero() else _signed(row.difference)


def _reading(settings: RoutingSettings) -> str:
    ties = {"best": "equals share the first's rank (1, 1, 3)", "average": "equals share their mean rank (1.5, 1.5, 3)"}
    return "\n".join([
        f"- **{CONTROL}**: the single model with the highest mean reward on the *training* queries. **{ORACLE}**: the "
        f"model that is best for each query, which nobody knows beforehand. **{CHANCE}**: a model at random, exactly.",
        "- **MTR**, mean task rank: the mean over subsets of the rank of a system's mean reward against the single "
        f"models alone (a single model against the others), whatever other systems there are; {ties[settings.ties]}. "
        "**Uplift**: the share of subsets where that rank is 1.",
        "- **answers**: models that must answer a query before one answer is chosen.",
        "- Brackets are 95 % intervals of a bootstrap over queries, n − 1 of n, and over seeds of training where there "
        "are several; differences are paired. Bold: the interval excludes zero.",
        "- Resampled ranks are drawn towards the middle, where systems lie closer together than their means are known: "
        "the interval of a first or last rank need not hold it.",
        "- Of a sweep read the shape: the best of many routers on the same queries is better there than it would be "
        "elsewhere. Other figures show one of them, at the paper's β.",
        "- A query whose chosen model has no known reward does not count for that system.",
        "- Reward entropy is that of the softmax of a query's rewards / "
        f"{settings.entropy_temperature:g}: at 1 all models are equally good and no choice matters.",
    ])  # fmt: skip
