"""Faults injected in numbers, with seeds: ``python -m benchmarks.faults [NAME …] [--trials N] [--seed S] [--write]``.

Prints a line a fault as it ends; ``--write`` puts the table into benchmarks/RELIABILITY.md, keeping the rows of faults
that this run did not inject. Exit code 1: a trial failed; 2: no such fault.
"""

from __future__ import annotations

import argparse
import os
import pathlib
import sys
import tempfile

# Before jax starts: devices for the changes of mesh. Nothing is lost where the flags are there already.
os.environ.setdefault("JAX_PLATFORMS", "cpu")
if "device_count" not in os.environ.get("XLA_FLAGS", ""):
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8".strip()

from rich.console import Console

from benchmarks.faults.report import REPORT, line, write
from benchmarks.faults.table import FAULTS
from benchmarks.faults.trial import run
from jaxrefine.artefacts.progress import progress
from jaxrefine.config import unknown_name


def main(arguments: list[str]) -> int:
    """Injects the named faults, or all of them, and says what was seen."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.faults", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help="such as T5; all of them by default")
    parser.add_argument("--trials", type=int, help="of each fault, instead of its own number")
    parser.add_argument("--seed", type=int, default=0, help="of all draws")
    parser.add_argument("--write", action="store_true", help=f"put the table into {REPORT.name}")
    parser.add_argument("--list", action="store_true", help="name the faults and inject none")
    options = parser.parse_args(arguments)
    console = Console()
    known = {fault.name: fault for fault in FAULTS}
    for name in options.names:
        if name not in known:
            console.print(unknown_name(name, known, "fault"), highlight=False)
            return 2
    if options.trials is not None and options.trials < 1:
        parser.error(f"--trials {options.trials} must be at least 1")
    chosen = [known[name] for name in options.names] or list(FAULTS)
    if options.list:
        for fault in chosen:
            console.print(f"{fault.name}: {fault.title} ({fault.num_trials})", highlight=False)
        return 0
    failed = 0
    for fault in chosen:
        number = options.trials or fault.num_trials
        with (
            tempfile.TemporaryDirectory(prefix="faults-") as scratch,
            progress(number, f"{fault.name} {fault.title}", unit="trials") as bar,
        ):
            result = run(
                fault, pathlib.Path(scratch) / fault.name, num_trials=number, seed=options.seed, on_trial=bar.advance
            )
        failed += len(result.failures)
        console.print(line(result), markup=False, highlight=False, soft_wrap=True)
        for failure in result.failures[:10]:
            console.print(f"  {failure}", markup=False, highlight=False, soft_wrap=True)
        if options.write:  # after each, so that what was measured stays if a later one never ends
            write(REPORT, [result], seed=options.seed, order=list(known))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
