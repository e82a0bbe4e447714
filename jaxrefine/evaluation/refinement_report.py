"""Refinements for people: a table on the terminal, and a Markdown report in the layout of the paper."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from jaxrefine.artefacts.atomic import write_json, write_text
from jaxrefine.evaluation.metrics import Interval
from jaxrefine.evaluation.refinement import (
    CONTROL,
    METHODS,
    OUTCOMES,
    MeasuredRefinement,
    Outcome,
    RefinementSettings,
)
from jaxrefine.evaluation.refinement_costs import Cost
from jaxrefine.evaluation.refinement_plots import save_refinement_figures
from jaxrefine.evaluation.refinement_published import PUBLISHED, PUBLISHED_COSTS, PUBLISHED_MODELS
from jaxrefine.evaluation.tables import jsonable, markdown_table
from jaxrefine.selection.trust import CHOICES, DECISIONS

NOTHING = "–"


def write_refinement_report(
    measured: Sequence[MeasuredRefinement],
    settings: RefinementSettings,
    directory: Path,
    *,
    title: str = "Ask, refine, trust",
    facts: Mapping[str, str] | None = None,
    costs: Sequence[Cost] = (),
    reference: str = "",
) -> Path:
    """Writes ``metrics.json``, ``report.md`` and its figure.

    Args:
        measured: of `refinement.measure_refinement`, one a model and Asker.
        settings: under which it was measured.
        directory: where to.
        title: heading of the report.
        facts: what else there is to say, by name.
        costs: of the roles.
        reference: the role of `costs` whose training the others' is compared with.

    Returns:
        The path of ``report.md``.
    """
    figures = save_refinement_figures(measured, directory / "figures")
    record = {
        "settings": dataclasses.asdict(settings),
        "facts": dict(facts or {}),
        "refinements": [jsonable(dataclasses.asdict(found)) for found in measured],
        "costs": [dataclasses.asdict(cost) for cost in costs],
    }
    write_json(directory / "metrics.json", record)
    links = {name: path.relative_to(directory).as_posix() for name, path in figures.items()}
    text = refinement_markdown(
        measured, settings, figures=links, title=title, facts=facts or {}, costs=costs, reference=reference
    )
    path = directory / "report.md"
    write_text(path, text)
    return path


def print_refinement_table(measured: Sequence[MeasuredRefinement], console: Console | None = None) -> None:
    """Methods down, models across, a table a few models: accuracy with half its interval, share refined.

    A star marks a difference from not refining whose interval excludes zero.
    """
    console = console if console is not None else Console()
    step = max(1, (console.width - 30) // 20)
    for start in range(0, len(measured), step):
        part = measured[start : start + step]
        table = Table(
            title=f"accuracy in % ± half the 95 % interval (share refined); * differs from {METHODS[CONTROL].title}",
            title_justify="left",
        )
        table.add_column("method", no_wrap=True)
        for found in part:
            table.add_column(f"{found.generator}\n{found.asker}", justify="right")
        for name in _named(part):
            table.add_row(METHODS[name].title, *(_short(found.rows.get(name)) for found in part))
        console.print(table)


def refinement_markdown(
    measured: Sequence[MeasuredRefinement],
    settings: RefinementSettings,
    *,
    figures: Mapping[str, str],
    title: str = "Ask, refine, trust",
    facts: Mapping[str, str] | None = None,
    costs: Sequence[Cost] = (),
    reference: str = "",
) -> str:
    """The report: accuracies in the paper's layout, differences and tests, what changed, costs, how to read it.

    Args:
        measured: of `refinement.measure_refinement`.
        settings: under which it was measured.
        figures: paths of the figures from the report, by name.
        title: heading.
        facts: what else there is to say, by name.
        costs: of the roles.
        reference: the role whose training the others' is compared with.
    """
    parts = [f"# {title}", _facts(measured, facts or {}), "## Accuracy"]
    parts += [f"In %, with 95 % intervals over queries. {_decision(settings)}", _accuracies(measured)]
    parts += [
        "† Published by Shridhar et al. 2023 (arXiv 2311.07961), of other models: for the shape of the differences, "
        "not for their size.",
        published_table(),
        f"## Differences from {METHODS[CONTROL].title}",
        "In percentage points, paired by query, bold where the interval excludes zero; p of the exact McNemar test.",
        _differences(measured),
        "## What changed",
        "Refined and reverted in %, then queries by what became of the first answer.",
    ]
    for found in measured:
        parts += [f"### {_name(found)}", _changes(found)]
    parts += ["## Asker and Truster", _detections(measured)]
    if "accuracy_against_share" in figures:
        parts += [
            "## Accuracy against the share refined",
            "Swept by the threshold on the Asker's probability of Yes. The best threshold is chosen on these very "
            "queries, so its accuracy flatters it.",
            curve_table(measured),
            f"![accuracy against the share of refined queries]({figures['accuracy_against_share']})",
        ]
    if costs:
        parts += ["## Cost", _cost_text(reference), cost_table(costs, reference), published_costs()]
    reasons = [(found, METHODS[name].title, why) for found in measured for name, why in found.left_out.items()]
    if reasons:
        parts += ["## Not measured", "\n".join(f"- {_name(found)}: {title}: {why}" for found, title, why in reasons)]
    return "\n\n".join([*parts, "## How to read this", _reading()]) + "\n"


def curve_table(measured: Sequence[MeasuredRefinement]) -> str:
    """Accuracy where 30 to 35 % are refined, which the paper finds best, and at each choice's best threshold.

    Args:
        measured: of `refinement.measure_refinement`; those without a curve are left out.
    """
    lines = []
    for found in measured:
        for choice in found.curve[0].accuracy if found.curve else ():
            best = max(found.curve, key=lambda point: point.accuracy[choice].value)
            nearest = min(found.curve, key=lambda point: abs(point.share_refined - 0.325))
            near = [point for point in found.curve if 0.295 <= point.share_refined <= 0.355]
            points = [("30 to 35 %", point) for point in near] or [("nearest to 30 to 35 %", nearest)]
            points.append(("best", best))
            lines += [
                [
                    _name(found), CHOICES[choice].title, title, f"{100 * point.share_refined:.1f}",
                    f"{point.threshold:.4g}", _accuracy(point.accuracy[choice]),
                ]
                for title, point in points
            ]  # fmt: skip
    return markdown_table(["", "chooses", "threshold", "refined", "from", "accuracy"], lines)


def published_table() -> str:
    """The paper's accuracies, methods down, models across."""
    lines = []
    for row in PUBLISHED:
        accuracies = [_published(row.accuracy.get(model)) for model in PUBLISHED_MODELS]
        lines.append([f"† *{row.method}*", row.asks, row.trusts, *accuracies])
    return markdown_table(["method", "decides", "chooses", *PUBLISHED_MODELS], lines)


def published_costs() -> str:
    """What the paper says of training costs."""
    return "\n".join(f"- † {line}" for line in PUBLISHED_COSTS)


def cost_table(costs: Sequence[Cost], reference: str = "") -> str:
    """Roles down: phase, parameters, tokens, FLOPs, and these against the training of the reference.

    Args:
        costs: of the roles.
        reference: a role among them with a training; empty leaves the last column out.

    Raises:
        ValueError: the reference is no role that is trained.
    """
    base = next((cost for cost in costs if cost.role == reference and cost.phase == "training"), None)
    if reference and base is None:
        raise ValueError(f"reference {reference!r}: none of {sorted({cost.role for cost in costs})} is trained as that")
    head = ["role", "phase", "parameters", "tokens", "FLOPs", *([f"against training {reference}"] if base else [])]
    lines = []
    for cost in costs:
        share = [f"{100 * cost.flops / base.flops:.2f} %"] if base else []
        lines.append([cost.role, cost.phase, _large(cost.params), _large(cost.tokens), f"{cost.flops:.3g}", *share])
    return markdown_table(head, lines)


def _accuracies(measured: Sequence[MeasuredRefinement]) -> str:
    head = ["method", "decides", "chooses", *map(_name, measured)]
    lines = [
        [METHODS[name].title, _decides(name), _chooses(name), *(_interval(found.rows.get(name)) for found in measured)]
        for name in _named(measured)
    ]
    return markdown_table(head, lines)


def _differences(measured: Sequence[MeasuredRefinement]) -> str:
    names = [name for name in _named(measured) if name != CONTROL]
    lines = [[METHODS[name].title, *(_difference(found.rows.get(name)) for found in measured)] for name in names]
    return markdown_table(["method", *map(_name, measured)], lines)


def _changes(found: MeasuredRefinement) -> str:
    lines = [
        [METHODS[name].title, f"{100 * row.share_refined:.1f}", _share(row.share_reverted), *map(str, row.transitions)]
        for name, row in found.rows.items()
    ]
    return markdown_table(["method", "refined", "reverted", *OUTCOMES], lines)


def _detections(measured: Sequence[MeasuredRefinement]) -> str:
    lines = [
        [_name(found), *map(_share, (found.detection.precision, found.detection.recall, found.detection.area)),
         _share(found.detection.truster)]
        for found in measured
    ]  # fmt: skip
    head = ["", "Asker: precision", "Asker: recall", "Asker: area under ROC", "Truster: right one first"]
    return markdown_table(head, lines)


def _facts(measured: Sequence[MeasuredRefinement], facts: Mapping[str, str]) -> str:
    lines = [f"- {name}: {value}" for name, value in facts.items()]
    lines += [
        f"- **{_name(found)}**: {found.num_queries} queries; first and refined answer agree in "
        f"{100 * found.share_agreeing:.1f} %; {found.unstated[0]} first and {found.unstated[1]} refined answers state "
        "nothing"
        for found in measured
    ]
    return "\n".join(lines)


def _decision(settings: RefinementSettings) -> str:
    if settings.decision == "greedy":
        return "The Asker decides by the word that it writes."
    return f"The Asker refines from a probability of Yes of {settings.threshold:g} on."


def _cost_text(reference: str) -> str:
    against = f" The last column: FLOPs against those of training {reference}." if reference else ""
    return f"Counted from the lengths of what was trained on and generated; prompts are computed once.{against}"


def _named(measured: Sequence[MeasuredRefinement]) -> list[str]:
    return [name for name in METHODS if any(name in found.rows for found in measured)]


def _decides(name: str) -> str:
    if name in ("majority", CONTROL):
        return NOTHING
    given = METHODS[name].decision
    return DECISIONS["greedy" if given == "asker" else given].title


def _chooses(name: str) -> str:
    return "vote" if name == "majority" else CHOICES[METHODS[name].choice].title


def _name(found: MeasuredRefinement) -> str:
    return f"{found.generator} / {found.asker}"


def _interval(row: Outcome | None) -> str:
    if row is None:
        return NOTHING
    return _accuracy(row.accuracy)


def _accuracy(found: Interval) -> str:
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _difference(row: Outcome | None) -> str:
    if row is None or row.difference is None or row.p_value is None:
        return NOTHING
    change: Interval = row.difference
    shown = f"{100 * change.value:+.1f} [{100 * change.low:+.1f}, {100 * change.high:+.1f}]"
    return f"{f'**{shown}**' if change.excludes_zero() else shown}, p = {row.p_value:.3g}"


def _short(row: Outcome | None) -> str:
    if row is None:
        return NOTHING
    star = "*" if row.difference is not None and row.difference.excludes_zero() else " "
    half = 50 * (row.accuracy.high - row.accuracy.low)
    return f"{100 * row.accuracy.value:.1f} ±{half:.1f}{star} ({100 * row.share_refined:.0f})"


def _share(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f}"


def _published(value: float | None) -> str:
    return NOTHING if value is None else f"*{value:g}*"


def _large(number: int) -> str:
    for size, letter in ((10**9, "B"), (10**6, "M"), (10**3, "K")):
        if number >= size:
            return f"{number / size:.3g} {letter}"
    return str(number)


def _reading() -> str:
    return "\n".join(
        [
            "- A query that is not refined keeps its first answer; one that is refined gets the refined answer unless "
            "somebody chooses. Equal scores of the Truster keep the first answer.",
            "- **oracle decides** refines exactly the wrong first answers, **oracle chooses** takes a right answer "
            "wherever one of the two is right. Both are right on the same queries, and nothing exceeds them.",
            "- **vote of samples** is the most frequent answer of samples of the same model (maj1@k), of equally "
            "frequent ones the one that came first; its samples are other texts than the first answer.",
            "- **reverted**: of the refined queries, those where the first answer was taken after all.",
            "- An Asker that writes neither Yes nor No refines nothing; an answer that states nothing is wrong.",
            "- Intervals are percentiles of a bootstrap over queries with the same draws for all methods; the test "
            "looks at the queries on which a method and no refinement differ. Neither knows of other training seeds.",
        ]
    )
