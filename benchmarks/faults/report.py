"""What the faults came to: a line on the terminal, a row of benchmarks/RELIABILITY.md."""

from __future__ import annotations

import fcntl
import os
import pathlib
import platform
import re
from collections.abc import Sequence
from importlib import metadata

import jax

from benchmarks.faults.trial import Result
from jaxrefine.artefacts.atomic import write_text
from jaxrefine.artefacts.progress import duration

REPORT = pathlib.Path(__file__).parent.parent / "RELIABILITY.md"
HEAD = """# Faults, injected

Written by `python -m benchmarks.faults [NAME …] --write`: every row is what the named command saw on the machine that
the row names, with a fixed seed. "Failures ≤" is the upper end of the one-sided 95 % Clopper-Pearson interval of the
share of trials that fail: 0 of 300 bound it by 1 %. Figures are median (largest) over the trials that report them.
Peers' figures are marked as measured (by us, with the versions named) or published.
"""
_COLUMNS = ("fault", "what is done", "what every trial must hold", "passed", "failures ≤", "figures", "peers", "how")


def line(result: Result) -> str:
    """One fault in a line, for people."""
    figures = f"; {_figures(result)}" if result.figures else ""
    return (
        f"{result.fault.name}: {result.num_passed}/{result.num_trials} passed "
        f"(failures ≤ {_percent(result.failure_bound)} at 95 %){figures}; {duration(result.seconds)}"
    )


def write(path: pathlib.Path, results: Sequence[Result], *, seed: int, order: Sequence[str]) -> None:
    """Puts the rows of ``results`` into the table, and keeps those of other faults.

    Args:
        path: the report; made where it is not there.
        results: of this run.
        seed: of this run.
        order: names of all faults that there are here; rows of others, whose data is elsewhere, come after them.
    """
    lock = os.open(path.parent, os.O_RDONLY)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX)  # another run may write its rows at the same time
        rows = read_rows(path) | {result.fault.name: _row(result, seed) for result in results}
        others = [name for name in rows if name not in order]
        body = [rows[name] for name in (*order, *others) if name in rows]
        missing = [name for name in order if name not in rows]
        table = ["| " + " | ".join(cells) + " |" for cells in (_COLUMNS, ["---"] * len(_COLUMNS), *body)]
        table += ["", f"Not run yet: {', '.join(missing)}."] if missing else []
        write_text(path, "\n".join([HEAD, *table]) + "\n")
    finally:
        os.close(lock)


def read_rows(path: pathlib.Path) -> dict[str, list[str]]:
    """{name of a fault: its cells} of a report that ``write`` made; nothing where there is none."""
    if not path.is_file():
        return {}
    split = [re.split(r"(?<!\\)\|", text)[1:-1] for text in path.read_text().splitlines() if text.startswith("| ")]
    rows = [[cell.strip() for cell in cells] for cells in split if len(cells) == len(_COLUMNS)]
    return {cells[0]: cells for cells in rows if cells[0] not in (_COLUMNS[0], "---")}


def _row(result: Result, seed: int) -> list[str]:
    fault = result.fault
    passed = f"{result.num_passed} of {result.num_trials}"
    if result.failures:
        passed += f"; the first that did not: {result.failures[0]}"
    cells = [fault.name, fault.title, fault.criterion, passed, _percent(result.failure_bound), _figures(result),
             fault.baseline or "not measured", _how(result, seed)]  # fmt: skip
    return [" ".join(cell.replace("|", r"\|").split()) for cell in cells]


def _figures(result: Result) -> str:
    return ", ".join(
        f"{name.replace('_', ' ')} {median:.3g}" + (f" ({largest:.3g})" if largest != median else "")
        for name, (median, largest) in result.figures.items()
    )


def _percent(share: float) -> str:
    return f"{100 * share:.2g} %"


def _how(result: Result, seed: int) -> str:
    device = jax.devices()[0]
    versions = ", ".join(f"{name} {metadata.version(name)}" for name in ("jax", "orbax-checkpoint"))
    return (
        f"seed {seed}, {duration(result.seconds)}; "
        f"{device.device_kind} ({platform.machine()}, {os.cpu_count()} cores), "
        f"Python {platform.python_version()}, {versions}"
    )
