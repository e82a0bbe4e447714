"""Several ART runs side by side: ablations beside the run that they change, and runs that differ in their seed as one.

Its one stage reads the ``metrics.json`` of finished runs.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table
from scipy.stats import t as student

from jaxrefine.artefacts.atomic import read_json, write_json, write_text
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage
from jaxrefine.evaluation.metrics import Interval
from jaxrefine.evaluation.refinement import METHODS
from jaxrefine.evaluation.tables import jsonable, markdown_table

METRICS = "metrics.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A method in one or several runs."""

    accuracy: Interval
    share_refined: float
    """Mean over the runs."""
    share_reverted: float | None
    """Mean over the runs in which it is known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArtComparison:
    """A table of finished runs."""

    runs: tuple[str, ...] = ()
    """``NAME=WORKDIR`` of finished ART runs; those of one name are seeds of one setting."""
    title: str = "Ask, refine, trust: runs side by side"

    def stages(self) -> list[Stage]:
        """The report.

        Raises:
            ValueError: no runs, or one that is not finished.
        """
        if not self.runs:
            raise ValueError("nothing to compare: give yours with --runs NAME=WORKDIR …")
        self.found()
        return [Stage("report", self.report)]

    def found(self) -> dict[str, list[pathlib.Path]]:
        """The files of the runs, by name.

        Raises:
            ValueError: a run that is not written NAME=WORKDIR, or has no report.
        """
        files: dict[str, list[pathlib.Path]] = {}
        for given in self.runs:
            name, equals, workdir = given.partition("=")
            if not (name and equals and workdir):
                raise ValueError(f"--runs {given!r}: NAME=WORKDIR is wanted")
            reports = sorted(pathlib.Path(workdir).expanduser().glob(f"*-report/{METRICS}"))
            if len(reports) != 1:
                raise ValueError(f"--runs {given!r}: there is no finished run in {workdir}: no report in it")
            files.setdefault(name, []).append(reports[0])
        return files

    def report(self, directory: pathlib.Path) -> None:
        """Prints the table, writes ``metrics.json`` and ``report.md``."""
        columns = {
            name: compared([read_json(file)["refinements"][0] for file in files], name)
            for name, files in self.found().items()
        }
        counts = {name: len(files) for name, files in self.found().items()}
        write_json(
            directory / METRICS,
            {
                name: {
                    "num_runs": counts[name],
                    "rows": {method: jsonable(dataclasses.asdict(row)) for method, row in rows.items()},
                }
                for name, rows in columns.items()
            },
        )
        table = Table(title="accuracy in % ± half the 95 % interval (share refined)", title_justify="left")
        table.add_column("method", no_wrap=True)
        for name in columns:
            table.add_column(name, justify="right")
        for method in _methods(columns):
            table.add_row(METHODS[method].title, *(_short(rows.get(method)) for rows in columns.values()))
        Console().print(table)
        path = directory / "report.md"
        write_text(path, comparison_markdown(columns, counts, title=self.title))
        say(f"report: {path}")


def compared(measured: Sequence[Mapping[str, Any]], name: str) -> dict[str, Row]:
    """The rows of one setting, by method.

    Args:
        measured: of each of its runs, as ``metrics.json`` has them.
        name: for the message.

    Returns:
        Of several runs the mean accuracy, with Student's interval over runs; of one its own, over queries.

    Raises:
        ValueError: runs of different numbers of queries, or that measured different methods.
    """
    if len({one["num_queries"] for one in measured}) > 1 or len({tuple(sorted(one["rows"])) for one in measured}) > 1:
        raise ValueError(f"{name}: its runs were not measured alike: they differ in queries or methods")
    rows = {}
    for method in measured[0]["rows"]:
        each = [one["rows"][method] for one in measured]
        values = [one["accuracy"]["value"] for one in each]
        reverted = [one["share_reverted"] for one in each if one["share_reverted"] is not None]
        rows[method] = Row(
            accuracy=Interval(**each[0]["accuracy"]) if len(values) == 1 else over_runs(values),
            share_refined=math.fsum(one["share_refined"] for one in each) / len(each),
            share_reverted=math.fsum(reverted) / len(reverted) if reverted else None,
        )
    return rows


def over_runs(values: Sequence[float]) -> Interval:
    """The mean of several runs with Student's 95 % interval.

    >>> found = over_runs([0.5, 0.6, 0.7])  # 0.6 ± 4.303 · 0.1 / √3
    >>> round(found.value, 6), round(found.high, 4)
    (0.6, 0.8484)
    """
    num = len(values)
    mean = math.fsum(values) / num
    error = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (num - 1) / num)
    half = float(student.ppf(0.975, num - 1)) * error
    return Interval(value=mean, low=mean - half, high=mean + half, standard_error=error)


def comparison_markdown(columns: Mapping[str, Mapping[str, Row]], counts: Mapping[str, int], *, title: str) -> str:
    """The report.

    Args:
        columns: the rows of each setting.
        counts: its number of runs.
        title: heading.
    """
    names = [f"{name} ({counts[name]} runs)" if counts[name] > 1 else name for name in columns]
    methods = _methods(columns)

    def table(cell: Any) -> str:
        lines = [[METHODS[method].title, *(cell(rows.get(method)) for rows in columns.values())] for method in methods]
        return markdown_table(["method", *names], lines)

    return "\n\n".join(
        [
            f"# {title}",
            "## Accuracy",
            "In %, with 95 % intervals: of several runs over these (Student's: wide for few), of one over its queries.",
            table(_whole),
            "## Refined, and reverted of those",
            "In % of the queries, and of the refined ones where somebody chooses.",
            table(_shares),
        ]
    ) + "\n"  # fmt: skip


def _methods(columns: Mapping[str, Mapping[str, Row]]) -> list[str]:
    return [method for method in METHODS if any(method in rows for rows in columns.values())]


def _short(row: Row | None) -> str:
    if row is None:
        return "–"
    half = 50 * (row.accuracy.high - row.accuracy.low)
    return f"{100 * row.accuracy.value:.1f} ±{half:.1f} ({100 * row.share_refined:.0f})"


def _whole(row: Row | None) -> str:
    if row is None:
        return "–"
    found = row.accuracy
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]"


def _shares(row: Row | None) -> str:
    if row is None:
        return "–"
    back = "" if row.share_reverted is None else f", {100 * row.share_reverted:.0f}"
    return f"{100 * row.share_refined:.0f}{back}"
