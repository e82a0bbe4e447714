"""The results as Markdown: one section a preset in ``benchmarks/RESULTS.md``, written by the command itself."""

from __future__ import annotations

import pathlib
import re
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.peers.targets import NOT_MEASURED, PUBLISHED, sharing, targets
from jaxrefine.evaluation.tables import markdown_table

TITLES = {
    "cpu": "A small model on a CPU",
    "gpu-1b": "A model of 1.5B on one GPU",
    "gpu-3b": "A model of 3.6B on one GPU",
}
TASKS = {
    "dpo": "DPO step, N = {candidates}, P = {prompt}, R = {response}, {groups} prompts",
    "sft": "Fine-tuning step, {groups} sequences, P = {prompt}, R = {response}",
    "sampling": "Sampling {candidates} candidates of each of {groups} prompts, P = {prompt}, {response} new tokens",
}
HEAD = (
    "side", "seconds", "× ours", "CPU s", "× ours", "candidates/s", "tokens/s", "MFU", "memory, MB", "loss 1, 2",
)  # fmt: skip
PREFACE = """# Our steps beside the peers'

Written by `python -m benchmarks.peers --write`; a section is of one preset and one run of that command.

* **The same for all sides of a table**: weights (random, fp32 on disk, loaded by each side's own loader), token ids,
  AdamW (constant rate, no decay, gradients clipped to 1), compute type, the loss; all prompts are P tokens and all
  responses R, so that nobody pads. The first loss must agree (DPO's is log 2 everywhere), the later ones too, and when
  sampling the greedy text; a side that computes something else is refused and gets no figures.
* **Each side** is a process of its own in its own environment and runs its own loop: TRL's `Trainer.train`, tunix's
  `PeftTrainer.train`, transformers' `generate`, our `make_train_step` and `Engine`. A step is what lies between two
  batches: forward, backward, clipping, optimiser, metrics. Sides take their steps in turns, in an order of its own each
  round.
* **Figures** are medians over rounds with quartiles in brackets. "× ours" is a side's time over ours, round by round:
  above 1 it is slower than ours, below 1 faster. "tokens" are the candidates' own, each counted once on every side.
  CPU seconds are what the process computed, whatever else ran on the machine.
* **N > 2**: TRL has pairs only, so its DPO gets the first response with each of the others, N − 1 pairs, and the loss
  is the mean over them on both sides. The ranking of N + likelihood on the same candidates is ours alone: its loss is
  another, its cost is what is compared.
* **TRL** 1.16 has its own fused head (no logits are kept) and has switched DPO's `padding_free` off; its trainers run
  at their defaults but for what all sides share. **tunix** 0.1.7 has no mixed precision, and its LLaMA rotates with
  base 10⁶ whatever its config says, so all sides do.
* **Memory** is the device's peak where there is one; on a CPU the process's peak beyond what it held when its
  libraries were imported (compilation included).
"""


def section(record: Mapping[str, Any]) -> str:
    """One run: what it ran on, a table a comparison, the targets."""
    parts = [f"## {TITLES[record['preset']]}\n", _conditions(record)]
    rows = record["rows"]
    seen: list[tuple[str, str]] = []
    for row in rows:
        key = (row["task"], TASKS[row["task"]].format(**row["sizes"]))
        if key not in seen:
            seen.append(key)
    if not record["finished"]:
        parts.append("**Unfinished**: the run was cut short, or is still going; what is missing was not measured.")
    for task, title in sorted(seen, key=lambda key: list(TASKS).index(key[0])):
        some = [row for row in rows if row["task"] == task and TASKS[task].format(**row["sizes"]) == title]
        parts.append(f"### {title}\n\n" + markdown_table(HEAD, [_line(row) for row in some]))
        reasons = [f"{row['side']}: {NOT_MEASURED}: {_first_and_last(row['reason'])}" for row in some if row["reason"]]
        if reasons:
            parts.append("\n".join(f"* {reason}" for reason in reasons))
    parts.append("### Our own modes\n\n" + _own(record["packing"], record["logprobs"]))
    if record["failed"]:
        parts.append("\n".join(f"* {NOT_MEASURED}: {_first_and_last(reason)}" for reason in record["failed"]))
    goals = targets(rows, record["packing"], record["logprobs"])
    parts.append("### Targets on one H200\n\n" + markdown_table(("target", "measured", "on"), goals))
    return "\n\n".join(parts) + "\n"


def published() -> str:
    """The table of what others have published."""
    head = ("what", "whose, and how", "figure", "source")
    text = "## Published by others\n\nRead at the source, not measured here; other data, sizes and machines.\n\n"
    return text + markdown_table(head, PUBLISHED) + "\n"


def write(path: pathlib.Path, record: Mapping[str, Any]) -> None:
    """Puts one preset's section into the file and leaves the others' as they are."""
    old = path.read_text() if path.exists() else ""
    parts = [PREFACE]
    for preset in TITLES:
        kept = re.search(rf"<!-- {preset} -->\n(.*?)<!-- /{preset} -->", old, re.DOTALL)
        if preset == record["preset"]:
            body = section(record)
        elif kept:
            body = kept[1]
        else:
            body = f"## {TITLES[preset]}\n\n{NOT_MEASURED}: `python -m benchmarks.peers --preset {preset} --write`\n"
        parts.append(f"<!-- {preset} -->\n{body}<!-- /{preset} -->\n")
    path.write_text("\n".join([*parts, published()]))


def _conditions(record: Mapping[str, Any]) -> str:
    options, model = record["options"], record["options"]["model"]
    versions = dict(sorted({
        name: version for row in record["rows"] for name, version in row["facts"].get("versions", {}).items()
    }.items()))  # fmt: skip
    devices = sorted({str(row["facts"]["device"]) for row in record["rows"] if "device" in row["facts"]})
    rounds = options["rounds"]
    lines = [
        f"`{record['command']}`",
        f"* device: {', '.join(devices) or 'none answered'}; host: {record['host']['machine']}, "
        f"{record['host']['cores']} cores, run queue {record['host']['load']:.1f} before and "
        f"{record['load_after']:.1f} after" + (
            f"; every side held to {options['cores']} core(s)" if options["cores"] else ""
        ),
        f"* model: LLaMA of {record['num_params'] / 1e6:.1f} M parameters (D = {model['width']}, "
        f"L = {model['num_layers']}, Q = {model['num_heads']}, K = {model['num_kv_heads']}, "
        f"F = {model['hidden_width']}, V = {model['vocab_size']}), computed in {options['dtype']}, "
        f"remat {options['remat']}, our attention {options['attention']}",
        f"* {rounds['rounds']} rounds of {rounds['steps']} step(s) after {rounds['warmups']} to warm up, "
        + ("all sides loaded" if rounds["together"] else "one side at a time") + f"; seed {options['seed']}; first "
        f"losses agree to {options['tolerance']:g} of themselves, later ones to ten times that",
        "* versions: " + ", ".join(f"{name} {version}" for name, version in versions.items()),
    ]  # fmt: skip
    return "\n".join([lines[0], "", *lines[1:]])


def _line(row: Mapping[str, Any]) -> list[str]:
    if row["reason"]:
        return [row["side"], NOT_MEASURED, *("" for _ in HEAD[2:])]
    memory = (row["memory_bytes"] - row["imported_bytes"]) / 2**20
    return [
        row["side"],
        _spread(row["seconds"], 3),
        _spread(row["ratio"], 2) if "ratio" in row else "1",
        _spread(row["cpu_seconds"], 3),
        _spread(row["cpu_ratio"], 2) if "cpu_ratio" in row else "1",
        f"{row['candidates_per_second']:.2f}",
        f"{row['tokens_per_second']:.0f}",
        "–" if row["mfu"] is None else f"{100 * row['mfu']:.1f} %",
        f"{memory:.0f}",
        ", ".join(f"{loss:.6f}" for loss in row["losses"][:2]) or "–",
    ]


def _own(packing: Sequence[Mapping[str, Any]], logprobs: Sequence[Mapping[str, Any]]) -> str:
    lines = []
    for record in packing:
        sizes, ratio = record["shapes"], record["time_ratio"].get("shared, expand")
        quartiles = f", with `expand` {_spread(ratio, 2)}" if ratio else ""
        lines.append([
            f"gradient, prompts shared, N = {sizes['N']}, P = {sizes['P']}, R = {sizes['R']} (`bench_packing`)",
            f"{sharing(record):.2f} × as fast as prompts repeated{quartiles}; "
            f"{record['predicted_ratio']:.2f} × fewer tokens",
        ])  # fmt: skip
    for record in logprobs:
        sizes = record["shapes"]
        speeds = [
            f"{what} {record[what]['chunked']['flops_per_second'] / 1e12:.3g} TFLOP/s" for what in ("value", "gradient")
        ]
        lines.append([
            f"log-probs, {sizes['M']} tokens, D = {sizes['D']}, V = {sizes['V']}, {record['dtype']} (`bench_logprobs`)",
            ", ".join(speeds),
        ])  # fmt: skip
    return markdown_table(("what", "measured"), lines) if lines else NOT_MEASURED


def _spread(found: Mapping[str, float], digits: int) -> str:
    return f"{found['median']:.{digits}f} [{found['low_quartile']:.{digits}f}–{found['high_quartile']:.{digits}f}]"


def _first_and_last(reason: str) -> str:
    """A crash's traceback is for the terminal: here what it began and ended with."""
    lines = reason.strip().splitlines()
    return lines[0] if len(lines) < 2 else f"{lines[0]}: {lines[-1].strip()}"
