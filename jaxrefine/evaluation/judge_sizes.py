"""How many records a judge needs: its agreement against their number, as a table and a curve."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console
from rich.table import Table

from jaxrefine.artefacts.atomic import write_json, write_text
from jaxrefine.evaluation.agreement import VERDICTS, Agreement
from jaxrefine.evaluation.judge_report import JudgeReport, as_json
from jaxrefine.evaluation.plots import BLUE, GREY, ORANGE, make_panels
from jaxrefine.evaluation.tables import markdown_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True, kw_only=True)
class SizedJudge:
    """A judge that learned from so many records."""

    num_records: int
    steps: int
    found: JudgeReport
    conflicts: Mapping[str, float]
    """By how it was asked: of the pairs, the share whose verdict the order changed."""


def commonest(found: JudgeReport) -> tuple[str, float]:
    """The verdict that is true most often, and the accuracy of always giving it."""
    confusion = next(iter(found.judges.values())).confusion
    counts = confusion.sum(1).tolist()
    place = counts.index(max(counts))
    return VERDICTS[place], counts[place] / sum(counts)


_TITLES = ("records", "steps", "asked", "accuracy", "95 % interval", "macro F1", "κ", "unreadable", "conflicts")
_LEFT_OUT, _WIDE = frozenset({"steps", "macro F1", "unreadable"}), 110
"""What a terminal of fewer columns than that leaves to the report, so that nothing of the rest is cut."""


def _rows(judges: Sequence[SizedJudge]) -> list[list[str]]:
    def row(judge: SizedJudge, how: str, found: Agreement) -> list[str]:
        return [
            str(judge.num_records), str(judge.steps), how, f"{found.accuracy:.3f}",
            f"{found.interval.low:.3f} – {found.interval.high:.3f}", f"{found.macro.f1:.3f}",
            "–" if found.kappa is None else f"{found.kappa:.3f}", str(found.unread), f"{judge.conflicts[how]:.2f}",
        ]  # fmt: skip

    return [row(judge, how, found) for judge in judges for how, found in judge.found.judges.items()]


def print_sizes(judges: Sequence[SizedJudge], console: Console | None = None) -> None:
    """The table on the terminal."""
    console = console if console is not None else Console()
    table = Table(title=_summary(judges), title_justify="left")
    kept = [place for place, title in enumerate(_TITLES) if console.width >= _WIDE or title not in _LEFT_OUT]
    for place in kept:
        table.add_column(_TITLES[place], justify="right", no_wrap=True)
    for row in _rows(judges):
        table.add_row(*(row[place] for place in kept))
    console.print(table)


def _summary(judges: Sequence[SizedJudge]) -> str:
    verdict, share = commonest(judges[0].found)
    return f"against {judges[0].found.truth} on {judges[0].found.num} held-out pairs; always {verdict}: {share:.3f}"


def sizes_figure(judges: Sequence[SizedJudge]) -> Figure:
    """Accuracy and macro F1 against the number of records, one line a way of asking; dashed: the commonest verdict."""
    figure, (left, right) = make_panels(2, width=3.4, height=2.8)
    numbers = [judge.num_records for judge in judges]
    for how, colour, marker in zip(judges[0].found.judges, (BLUE, ORANGE), ("o", "s"), strict=False):
        found = [judge.found.judges[how] for judge in judges]
        heights = [one.accuracy for one in found]
        below = [one.accuracy - one.interval.low for one in found]
        above = [one.interval.high - one.accuracy for one in found]
        left.errorbar(numbers, heights, yerr=[below, above], color=colour, marker=marker, capsize=2, label=how)
        right.plot(numbers, [one.macro.f1 for one in found], color=colour, marker=marker, label=how)
    left.axhline(commonest(judges[0].found)[1], color=GREY, linestyle="--", linewidth=1)
    for axis, title in ((left, "accuracy"), (right, "macro F1")):
        axis.set_xscale("log")
        axis.set_xticks(numbers, [f"{number:,}" for number in numbers], fontsize=8)
        axis.minorticks_off()
        axis.set_xlabel("records", fontsize=9)
        axis.set_ylabel(title, fontsize=9)
    left.legend(fontsize=8)
    return figure


def write_sizes_report(judges: Sequence[SizedJudge], directory: Path, *, title: str) -> Path:
    """Writes ``metrics.json``, ``report.md`` and the curve; returns the path of ``report.md``.

    Args:
        judges: by their number of records.
        directory: where to.
        title: heading.
    """
    write_json(
        directory / "metrics.json",
        [
            {"records": judge.num_records, "steps": judge.steps, "conflicts": dict(judge.conflicts)}
            | as_json(judge.found)
            for judge in judges
        ],
    )
    file = directory / "figures" / "data_sizes.png"
    file.parent.mkdir(parents=True, exist_ok=True)
    sizes_figure(judges).savefig(file, dpi=160, metadata={"Software": None})
    parts = [
        f"# {title}",
        f"{_summary(judges)[0].upper()}{_summary(judges)[1:]}. Each judge starts anew and learns from the first so "
        "many records of one order, so that a larger set holds the smaller ones; what is unreadable is wrong, and a "
        "verdict that the order changes is a tie.",
        markdown_table(_TITLES, _rows(judges)),
        f"![agreement against the number of records]({file.relative_to(directory).as_posix()})",
    ]
    path = directory / "report.md"
    write_text(path, "\n\n".join(parts) + "\n")
    return path
