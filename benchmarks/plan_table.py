"""The README's table of plans: LLaMA 7B, 13B and 70B with four objectives, on hardware that need not be there.

    python -m benchmarks.plan_table                         # all rows; minutes each for a TPU, half a minute for GPUs
    python -m benchmarks.plan_table --only h100 --limit 4   # rows whose name contains h100, at most four of them
    python -m benchmarks.plan_table --print                 # the table of what was compiled so far
    python -m benchmarks.plan_table --print --compact       # a line a model and hardware, as the README has it

Each row is one `jaxrefine plan`, in a process of its own; what is done is kept in the directory and not done again.
Needs the extras plan-tpu and plan-gpu. Sizes are the compiler's, speeds are formulas: nothing here was measured.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import pathlib
import subprocess
import sys
from collections.abc import Iterable
from typing import Any

from jaxrefine.planning.topology import parse_topology

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Row:
    """One plan."""

    model: str
    objective: str
    topology: str
    flags: tuple[str, ...] = ()

    @property
    def name(self) -> str:
        """Of its file."""
        return "-".join((self.model, self.objective, self.topology)).replace(":", "_").replace(" ", "_")

    @property
    def command(self) -> list[str]:
        """After ``jaxrefine``."""
        config, training, groups_a_row = OBJECTIVES[self.objective]
        rows = max(PROMPTS // groups_a_row, devices := parse_topology(self.topology).num_devices)
        size = ["--groups", str(rows * groups_a_row), "--microbatches", str(rows // devices), "--data", "1"]
        chosen = ["--training", training, "--model", self.model, "--topology", self.topology]
        return ["plan", config, *chosen, *size, *self.flags]


PROMPTS = 128
"""Of a step; as many more as give each device a row."""
OBJECTIVES = {
    "SFT": ("tuna/llama_7b", "sft", 2),
    "Tuna": ("tuna/llama_7b", "c", 1),
    "verdict": ("math/reranking", "margin", 1),
    "Truster": ("art/llama_13b", "truster", 1),
}
"""The config and the fine-tuning of each, and how many of its groups share a row."""

TOPOLOGIES = {
    "llama-7b": ("v5e-16", "v5p-16", "h100x8"),
    "llama-13b": ("v6e-16", "v5p-32", "h100x8"),
    "llama-70b": ("v6e-256", "v5p-128", "h200x32"),
}
ROWS = (
    *(Row(model, objective, name) for model, names in TOPOLOGIES.items() for name in names for objective in OBJECTIVES),
    Row("palm-540b", "SFT", "v5p:8x16x16", ("--no-compile",)),
)
"""PaLM by formula and shapes alone."""


def compile_rows(rows: Iterable[Row], directory: pathlib.Path) -> list[str]:
    """Plans what is not there yet; names what failed, whose errors are beside the others' results."""
    directory.mkdir(parents=True, exist_ok=True)
    failed = []
    for row in rows:
        target = directory / f"{row.name}.json"
        if target.exists():
            continue
        sys.stderr.write(f"{row.name}\n")
        unfinished = target.with_suffix(".partial")
        command = [sys.executable, "-m", "jaxrefine", *row.command, "--json", str(unfinished)]
        if "--no-compile" not in row.flags:
            command.append("--no-sampler")
        finished = subprocess.run(command, capture_output=True, text=True, check=False)
        target.with_suffix(".txt").write_text(finished.stdout)
        if unfinished.exists():
            unfinished.rename(target)
        else:
            failed.append(row.name)
            target.with_suffix(".error").write_text(finished.stderr)
    return failed


HEADER = (
    "model", "objective", "hardware", "tokens", "GiB a device", "of", "", "PFLOP a step", "GiB sent", "s ≥", "MFU ≤"
)  # fmt: skip


def table(rows: Iterable[Row], directory: pathlib.Path) -> str:
    """Markdown; rows that were not compiled say so."""
    lines = ["| " + " | ".join(HEADER) + " |", "|" + " --- |" * len(HEADER)]
    for row in rows:
        path = directory / f"{row.name}.json"
        found = json.loads(path.read_text()) if path.exists() else None
        cells = [row.model, row.objective, row.topology, *(_cells(found) if found else ("not compiled",))]
        lines.append("| " + " | ".join([*cells, *("",) * (len(HEADER) - len(cells))]) + " |")
    return "\n".join(lines)


def _cells(found: dict[str, Any]) -> list[str]:
    speed = found["roofline"]
    compiled = found["compiled"]
    sent = sum(item["bytes"] for item in compiled["collectives"]) / GIB if compiled else None
    by = "" if compiled or found["refused"] else " (formula)"
    return [
        f"{speed['tokens']:,}",
        f"{found['need'] / GIB:.1f}{by}",
        f"{found['available'] / GIB:.1f}",
        "fits" if found["fits"] else "no",
        f"{speed['model_flops'] / 1e15:.1f}",
        "–" if sent is None else f"{sent:.1f}",
        f"{speed['step_seconds']:.2f}" if compiled else "–",
        f"{speed['mfu']:.0%}" if compiled else "–",
    ]


def compact(rows: Iterable[Row], directory: pathlib.Path) -> str:
    """Markdown: a line a model and hardware; of each objective GiB a device, seconds and MFU."""
    found: dict[tuple[str, str], dict[str, list[str]]] = {}
    memory: dict[tuple[str, str], str] = {}
    for row in rows:
        path, key = directory / f"{row.name}.json", (row.model, row.topology)
        found.setdefault(key, {})
        if path.exists():
            _, need, memory[key], fits, _, _, seconds, mfu = _cells(json.loads(path.read_text()))
            speed = [] if seconds == "–" else [f"{seconds} s", mfu]
            found[key][row.objective] = [f"{need} GiB" if fits == "fits" else f"**{need} GiB**", *speed]
    lines = ["| model | hardware | GiB | " + " | ".join(OBJECTIVES) + " |", "|" + " --- |" * (3 + len(OBJECTIVES))]
    for (model, topology), cells in found.items():
        texts = [", ".join(cells.get(objective, ["–"])) for objective in OBJECTIVES]
        lines.append(f"| {model} | {topology} | {memory.get((model, topology), '–')} | {' | '.join(texts)} |")
    return "\n".join(lines)


def main() -> int:
    """Plans and prints."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--directory", type=pathlib.Path, default=pathlib.Path("runs/plan_table"))
    parser.add_argument("--only", default="", help="rows whose name contains this")
    parser.add_argument("--limit", type=int, default=len(ROWS), help="rows at most")
    parser.add_argument("--print", action="store_true", help="compile nothing")
    parser.add_argument("--compact", action="store_true", help="print a line a model and hardware")
    options = parser.parse_args()
    chosen = [row for row in ROWS if options.only in row.name][: options.limit]
    failed = [] if options.print else compile_rows(chosen, options.directory)
    shown = compact if options.compact else table
    sys.stdout.write(shown(chosen if options.only else ROWS, options.directory) + "\n")
    if failed:
        sys.stderr.write(f"failed: {', '.join(failed)}; their errors are in {options.directory}\n")
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
