"""Several ART runs side by side: ablations beside the run that they change, and runs that differ in their seed as one.

Its one stage reads what the report stages of finished runs left: ``metrics.json`` and, query by query, which method was
right (``finals.json``).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Mapping, Sequence

from rich.console import Console
from rich.table import Table

from jaxrefine.artefacts.atomic import read_json, write_json, write_text
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage
from jaxrefine.evaluation.metrics import Interval
from jaxrefine.evaluation.refinement import METHODS
from jaxrefine.evaluation.tables import change_in_points, jsonable, markdown_table
from jaxrefine.systems.art_compared import CONTRASTS, FIGURES, Finished, Row, Setting, compared
from jaxrefine.systems.art_run import FINALS

METRICS = "metrics.json"
NOTHING = "–"


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArtComparison:
    """A table of finished runs."""

    runs: tuple[str, ...] = ()
    """``NAME=WORKDIR`` of finished ART runs; those of one name are seeds of one setting. The others are compared with
    the first one named."""
    num_resamples: int = 4000
    """Of the bootstrap over queries and seeds."""
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
        """The directories of the runs' reports, by name.

        Raises:
            ValueError: a run that is not written NAME=WORKDIR, or has no report.
        """
        places: dict[str, list[pathlib.Path]] = {}
        for given in self.runs:
            name, equals, workdir = given.partition("=")
            if not (name and equals and workdir):
                raise ValueError(f"--runs {given!r}: NAME=WORKDIR is wanted")
            reports = sorted(pathlib.Path(workdir).expanduser().glob(f"*-report/{METRICS}"))
            if len(reports) != 1:
                raise ValueError(f"--runs {given!r}: there is no finished run in {workdir}: no report in it")
            if not (reports[0].parent / FINALS).is_file():
                raise ValueError(
                    f"--runs {given!r}: {reports[0].parent} has no {FINALS}, as an earlier version reported; remove "
                    "that directory and run again: the report alone is made anew"
                )
            places.setdefault(name, []).append(reports[0].parent)
        return places

    def report(self, directory: pathlib.Path) -> None:
        """Prints the table, writes ``metrics.json`` and ``report.md``."""
        settings = compared(
            {
                name: [Finished(read_json(place / METRICS), read_json(place / FINALS)) for place in places]
                for name, places in self.found().items()
            },
            num_resamples=self.num_resamples,
        )
        write_json(directory / METRICS, {name: jsonable(dataclasses.asdict(found)) for name, found in settings.items()})
        _print(settings, Console())
        path = directory / "report.md"
        write_text(path, comparison_markdown(settings, title=self.title))
        say(f"report: {path}")


def comparison_markdown(settings: Mapping[str, Setting], *, title: str) -> str:
    """The report.

    Args:
        settings: of `art_compared.compared`, by name.
        title: heading.
    """
    first, *others = settings
    names = [f"{name} ({len(found.seeds)} runs)" if len(found.seeds) > 1 else name for name, found in settings.items()]
    methods = _methods(settings)

    def table(
        label: str, keys: Sequence[str], titles: Sequence[str], cell: Callable[[Setting, str], str], start: int = 0
    ) -> str:
        found = list(settings.values())[start:]
        lines = [[text, *(cell(one, key) for one in found)] for key, text in zip(keys, titles, strict=True)]
        return markdown_table([label, *names[start:]], lines)

    titles = [METHODS[method].title for method in methods]
    parts = [
        f"# {title}",
        "\n".join(
            f"- **{name}**: seed {', '.join(map(str, found.seeds))}; {found.roles}" for name, found in settings.items()
        ),
        "## Accuracy",
        "In %, with 95 % intervals over queries, of several runs over their seeds as well; then each run's own.",
        table("method", methods, titles, lambda found, method: _whole(found.rows.get(method))),
    ]
    if others:
        paired = ", ".join(f"{name} {settings[name].num_paired}" for name in others)
        parts += [
            f"## Against {first}",
            f"Accuracy less that of {first}, in points, on the same queries and the seeds that both have ({paired}); "
            "bold where the interval excludes zero. With one seed the interval knows of no other.",
            table("method", methods, titles, lambda found, method: _change(found.differences.get(method)), 1),
        ]
    parts += [
        "## Questions",
        "Of two methods within a setting: the difference of accuracy in points, paired by query and seed.",
        table(
            "question",
            list(CONTRASTS),
            [f"{asks} {METHODS[one].title} − {METHODS[other].title}" for asks, (one, other) in CONTRASTS.items()],
            lambda found, question: _change(found.contrasts.get(question)),
        ),
        "## Refined, and reverted of those",
        "In % of the queries, and of the refined ones where somebody chooses.",
        table("method", methods, titles, lambda found, method: _shares(found.rows.get(method))),
        "## Asker and Truster",
        "In %; by chance the area under ROC is 50, and so is the Truster's share.",
        table(
            "",
            FIGURES,
            ["Asker: precision", "Asker: recall", "Asker: area under ROC", "Truster: right one first"],
            lambda found, key: _percent(found.figures[key]),
        ),
    ]  # fmt: skip
    costs = list(dict.fromkeys(key for found in settings.values() for key in found.flops))
    if costs:
        parts += [
            "## FLOPs",
            table("phase and role", costs, costs, lambda found, key: _number(found.flops.get(key))),
        ]  # fmt: skip
    return "\n\n".join(parts) + "\n"


def _print(settings: Mapping[str, Setting], console: Console) -> None:
    """Methods down, a few settings across, as many tables as are needed."""
    step = max(1, (console.width - 30) // 18)
    for start in range(0, len(settings), step):
        part = dict(list(settings.items())[start : start + step])
        table = Table(title="accuracy in % ± half the 95 % interval (share refined)", title_justify="left")
        table.add_column("method", no_wrap=True)
        for name in part:
            table.add_column(name, justify="right")
        for method in _methods(part):
            table.add_row(METHODS[method].title, *(_short(found.rows.get(method)) for found in part.values()))
        console.print(table)


def _methods(settings: Mapping[str, Setting]) -> list[str]:
    return [method for method in METHODS if any(method in found.rows for found in settings.values())]


def _short(row: Row | None) -> str:
    if row is None:
        return NOTHING
    half = 50 * (row.accuracy.high - row.accuracy.low)
    return f"{100 * row.accuracy.value:.1f} ±{half:.1f} ({100 * row.share_refined:.0f})"


def _whole(row: Row | None) -> str:
    if row is None:
        return NOTHING
    found = row.accuracy
    each = f"; {', '.join(f'{100 * value:.1f}' for value in row.each)}" if len(row.each) > 1 else ""
    return f"{100 * found.value:.1f} [{100 * found.low:.1f}, {100 * found.high:.1f}]{each}"


def _change(found: Interval | None) -> str:
    return NOTHING if found is None else change_in_points(found)


def _shares(row: Row | None) -> str:
    if row is None:
        return NOTHING
    back = "" if row.share_reverted is None else f", {100 * row.share_reverted:.0f}"
    return f"{100 * row.share_refined:.0f}{back}"


def _number(value: float | None) -> str:
    return NOTHING if value is None else f"{value:.3g}"


def _percent(value: float | None) -> str:
    return NOTHING if value is None else f"{100 * value:.1f}"
