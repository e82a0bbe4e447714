"""An experiment in solving problems for people: tables in the paper's layout beside the published ones, and figures."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jaxrefine.artefacts.atomic import write_json, write_text
from jaxrefine.evaluation.metrics import Interval
from jaxrefine.evaluation.selection import Measured, Pool, Selected, SelectionSettings, measure
from jaxrefine.evaluation.selection_plots import save_figures
from jaxrefine.evaluation.selection_report import (
    NOTHING,
    print_selection_table,
    reading,
    selection_sections,
)
from jaxrefine.evaluation.solving import (
    METRICS,
    Discrimination,
    Generator,
    MeasuredGenerator,
    discrimination,
    measure_generators,
)
from jaxrefine.evaluation.solving_plots import save_generator_figure
from jaxrefine.evaluation.tables import change_in_points, jsonable, markdown_table

PUBLISHED_GENERATORS: dict[str, tuple[float, float, float]] = {
    "PaLM 2-S\\*, 4-shot": (17.4, 27.2, 67.8),
    "PaLM 2-S\\*, MATH": (19.8, 32.4, 74.8),
    "PaLM 2-S\\*, PRM800K": (20.8, 41.2, 73.8),
    "PaLM 2-S\\*, both": (22.6, 38.8, 72.6),
    "PaLM 2-L, 4-shot": (33.4, 47.6, 79.4),
    "PaLM 2-L, MATH": (32.8, 49.2, 82.2),
    "PaLM 2-L, PRM800K": (34.8, 54.2, 83.4),
    "PaLM 2-L, both": (35.6, 55.2, 82.8),
}
"""Pass@1, Maj1@64 and Pass@64 in % of arXiv 2310.10047, Table 3, on its 500 problems of MATH."""

PUBLISHED_LOSSES: dict[str, tuple[float, float, float]] = {
    "PaLM 2-S\\*, margin": (38.8, 32.4, 36.6),
    "PaLM 2-S\\*, cross-entropy": (38.8, 33.6, 35.4),
    "PaLM 2-L, margin": (55.2, 57.0, 58.8),
    "PaLM 2-L, cross-entropy": (55.2, 56.8, 58.8),
}
"""Maj1@64, RR.All and RR.Top-8 in %, Table 4."""

PUBLISHED_SEQUENTIAL: dict[str, tuple[float, float, float]] = {
    "PaLM 2-L, start": (35.6, 55.2, 82.8),
    "PaLM 2-L, after a margin evaluator": (37.6, 57.2, 82.6),
    "PaLM 2-L, after a cross-entropy evaluator": (36.2, 56.6, 82.2),
}
"""Pass@1, Maj1@64 and Pass@64 in %, Table 7. It has no control."""

_OTHERS = (
    "† published by Liu et al. 2023 (arXiv 2310.10047) for other models, N = 64 and 500 problems of MATH: for the "
    "shape of the differences, not for their size."
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SolvingReport:
    """All that was measured."""

    generators: tuple[MeasuredGenerator, ...]
    pools: tuple[Measured, ...]
    discriminations: tuple[Discrimination, ...]


def write_solving_report(
    generators: Sequence[Generator],
    pools: Sequence[Pool],
    settings: SelectionSettings,
    directory: Path,
    *,
    title: str,
    facts: Mapping[str, str],
) -> SolvingReport:
    """Measures; writes ``metrics.json``, ``report.md`` and its figures.

    Args:
        generators: of the same problems.
        pools: of their samples, one an evaluator and generator; there may be none.
        settings: K, top, curves, bootstrap.
        directory: where to.
        title: heading of the report.
        facts: what a reader has to know, by name.

    Returns:
        The figures that were written.
    """
    draws = {"num_resamples": settings.num_resamples, "seed": settings.seed}
    votes = [Pool(generator=one.name, evaluator=None, problems=one.samples) for one in generators]
    report = SolvingReport(
        generators=tuple(measure_generators(generators, **draws)),
        pools=tuple(measure(pool, settings) for pool in pools),
        discriminations=tuple(discrimination(pool, **draws) for pool in pools),
    )
    curves = report.pools or tuple(measure(pool, settings) for pool in votes)
    figures = save_figures(curves, directory / "figures")
    figures["generators"] = save_generator_figure(report.generators, directory / "figures")
    links = {name: path.relative_to(directory).as_posix() for name, path in figures.items()}
    write_json(
        directory / "metrics.json",
        {
            "facts": dict(facts),
            "settings": dataclasses.asdict(settings),
            **{field: jsonable([dataclasses.asdict(one) for one in getattr(report, field)]) for field in _FIELDS},
        },
    )
    text = solving_markdown(report, settings, title=title, facts=facts, figures=links)
    write_text(directory / "report.md", text)
    return report


_FIELDS = [field.name for field in dataclasses.fields(SolvingReport)]


def solving_markdown(
    report: SolvingReport,
    settings: SelectionSettings,
    *,
    title: str,
    facts: Mapping[str, str],
    figures: Mapping[str, str],
) -> str:
    """The report: generators, evaluators, losses, strategies, transfer, the tasks in sequence, figures.

    Args:
        report: what was measured.
        settings: under which it was measured.
        title: heading.
        facts: what a reader has to know, by name.
        figures: paths of the figures from the report, by name.
    """
    parts = [f"# {title}", "\n".join(f"- **{name}**: {value}" for name, value in facts.items())]
    parts += [
        "## Generators",
        f"In %, with 95 % intervals over problems. {_OTHERS}",
        generator_table(report.generators),
    ]
    if "generators" in figures:
        parts.append(f"![generators]({figures['generators']})")
    if report.discriminations:
        parts += [
            "## Can the evaluators tell right from wrong?",
            "Of the solutions that state an answer. AUC: of all together, 50 is chance; within a problem: of pairs "
            "of a right and a wrong one, which is what re-ranking needs.",
            discrimination_table(report.discriminations),
            "## Cluster re-ranking by the evaluator's loss",
            f"In %; K = {settings.largest}. † as above, K = 8.",
            loss_table(report.pools),
        ]
    again = [one for one in report.generators if one.differences]
    if again:
        parts += [
            "## Trained further: tasks in sequence, tasks together, and the control",
            "In %; differences in percentage points, paired by problem, bold where the interval excludes zero. The "
            "control goes on from the same generator with as many steps on solutions as the others took in all. No "
            "numbers of Eq. 11–13 and of a control are at hand.",
            sequence_table(report.generators),
        ]
    if report.pools:
        parts += selection_sections(report.pools, settings, figures=figures)
    else:
        parts += [f"![accuracy]({figures[name]})" for name in ("against_n",) if name in figures]
    return "\n\n".join([*parts, "## How to read this", reading()]) + "\n"


def generator_table(generators: Sequence[MeasuredGenerator]) -> str:
    """The layout of Table 3: ours, then the published rows."""
    ours = [
        [one.name, " → ".join(one.history), *(_interval(one.solved[metric]) for metric in METRICS)]
        for one in generators
    ]
    published = [[f"† *{name}*", NOTHING, *_published(row)] for name, row in PUBLISHED_GENERATORS.items()]
    return markdown_table(["generator", "weights", *METRICS.values()], [*ours, *published])


def discrimination_table(found: Sequence[Discrimination]) -> str:
    """Evaluators by generator: how well their scores tell right from wrong."""
    head = ["evaluator", "solutions of", "AUC", "within a problem", "problems with both", "solutions", "right"]
    lines = [
        [one.evaluator, one.generator, _interval(one.auc), _interval(one.within), str(one.num_mixed),
         str(one.num_solutions), f"{100 * one.right_share:.1f}"]
        for one in found
    ]  # fmt: skip
    return markdown_table(head, lines)


def loss_table(pools: Sequence[Measured]) -> str:
    """The layout of Table 4: the vote, the best-scored solution, the best-scored of the K largest clusters."""
    columns = {"maj1": "Maj1@N", "rr_all": "RR.All", "rr_majk": "RR.MajK"}
    ours = [[f"{one.evaluator}, on {one.generator}", *(_selected(one.rows[name]) for name in columns)] for one in pools]
    published = [[f"† *{name}*", *_published(row)] for name, row in PUBLISHED_LOSSES.items()]
    return markdown_table(["evaluator", *columns.values()], [*ours, *published])


def sequence_table(generators: Sequence[MeasuredGenerator]) -> str:
    """The layout of Table 7, with differences from the start and from the control."""
    compared = {one.compared_with for one in generators}
    lines = []
    for one in generators:
        if one.name not in compared and not one.differences:
            continue
        start = one.differences.get(one.compared_with or "")
        control = next((found for name, found in one.differences.items() if name != one.compared_with), None)
        lines.append(
            [
                " → ".join(one.history),
                "start" if one.compared_with is None else one.role,
                *(_interval(one.solved[metric]) for metric in METRICS),
                *(_change(None if start is None else start[metric]) for metric in _COMPARED),
                *(_change(None if control is None else control[metric]) for metric in _COMPARED),
            ]
        )
    published = [
        [f"† *{name}*", NOTHING, *_published(row), *[NOTHING] * 4] for name, row in PUBLISHED_SEQUENTIAL.items()
    ]
    less = [f"{METRICS[metric]} − {other}" for other in ("start", "control") for metric in _COMPARED]
    return markdown_table(["weights", "training", *METRICS.values(), *less], [*lines, *published])


_COMPARED = ("pass_at_1", "maj1")


def print_solving_tables(report: SolvingReport, console: Console | None = None) -> None:
    """Generators, evaluators, and strategies where there are any."""
    console = console if console is not None else Console()
    table = Table(title="generators: solved in %, ± half the 95 % interval", title_justify="left")
    table.add_column("generator")
    for title in METRICS.values():
        table.add_column(title, justify="right", no_wrap=True)
    for one in report.generators:
        table.add_row(one.name, *(_half(one.solved[metric]) for metric in METRICS))
    console.print(table)
    if not report.discriminations:
        return
    table = Table(title="evaluators: right above wrong, in % (50 is chance)", title_justify="left")
    table.add_column("evaluator / solutions of")
    for title in ("AUC", "within a problem"):
        table.add_column(title, justify="right", no_wrap=True)
    for found in report.discriminations:
        table.add_row(f"{found.evaluator} / {found.generator}", _half(found.auc), _half(found.within))
    console.print(table)
    print_selection_table(report.pools, console)


def _interval(found: Interval) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _selected(row: Selected) -> str:
    return _interval(row.accuracy)


def _half(found: Interval) -> str:
    return f"{100 * found.value:.1f} ±{50 * (found.high - found.low):.1f}"


def _change(change: Interval | None) -> str:
    return NOTHING if change is None else change_in_points(change)


def _published(row: Sequence[float]) -> list[str]:
    return [f"*{value:.1f}*" for value in row]
