r"""Our steps beside the peers', one run, same machine, same weights, same token ids: ratios with their spread.

    python -m benchmarks.peers --trl-python TRL/bin/python --tunix-python TUNIX/bin/python
    python -m benchmarks.peers --preset gpu-1b --trl-python TRL/bin/python --tunix-python TUNIX/bin/python --write

DPO against TRL's DPOTrainer, fine-tuning against TRL's SFTTrainer and tunix's PeftTrainer, sampling against
transformers' generate; beside them our own shared against our repeated prompts and the log-probs' FLOPs. Each side is a
process with the Python of its own environment (``pip install trl datasets``; ``pip install google-tunix``; with Liger
``liger-kernel`` beside TRL), and all take their steps in turns. A peer that is absent, dies or computes something else
is listed with the reason. The same can be given as JAXREFINE_TRL_PYTHON and JAXREFINE_TUNIX_PYTHON.

``--preset cpu`` (the default) is a model of 16 M parameters that one core trains in seconds; ``gpu-1b`` and ``gpu-3b``
are bf16 with Liger for TRL, layers rematerialised on every side, one side on the device at a time. Every option can be
overridden. Prints one JSON line a side; ``--write`` puts the section into benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import tyro

from benchmarks import measure
from benchmarks.peers import results, workload
from benchmarks.peers.compare import Pythons, Task, figures, sides_of
from benchmarks.peers.sides import ROOT, TAIL_LINES, Rounds, measure_in_turns
from jaxrefine.models.flops import num_params

RESULTS = ROOT / "benchmarks" / "RESULTS.md"
SMALL = measure.Model(vocab_size=8192, width=384, num_layers=6, num_heads=6, num_kv_heads=2, hidden_width=1024)
TURNS = Rounds(rounds=5, warmups=1)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    tasks: tuple[Task, ...] = ("sft", "sampling", "dpo")
    """In the order in which they are measured."""
    trl_python: str = os.environ.get("JAXREFINE_TRL_PYTHON", "")
    """Python of the environment that trl is installed in."""
    tunix_python: str = os.environ.get("JAXREFINE_TUNIX_PYTHON", "")
    """Python of the environment that google-tunix is installed in."""
    transformers_python: str = sys.executable
    """Python of an environment with transformers and torch."""
    candidates: tuple[int, ...] = (2, 4, 8)
    """N of DPO."""
    sampled: tuple[int, ...] = (4,)
    """Candidates of a prompt in sampling."""
    shapes: tuple[tuple[int, int], ...] = ((64, 32),)
    """(P, R)."""
    groups: int = 2
    """Prompts in a batch of DPO, and of sampling; fine-tuning has twice as many sequences."""
    rows: int = 2
    """That our packed batch has."""
    at_once: int = 8
    """Examples of TRL's microbatch (its default); the rest of a batch is accumulated."""
    model: measure.Model = SMALL
    dtype: str = "float32"
    remat: str = "none"
    """Of our layers; anything but "none" turns on TRL's gradient checkpointing and tunix's remat."""
    attention: str = "expand"
    liger: bool = False
    """TRL with Liger's kernels."""
    cores: int | None = 1
    """That each side is held to: on a busy machine threads wait for one another, torch's most of all."""
    rounds: Rounds = TURNS
    learning_rate: float = 1e-5
    tolerance: float = 1e-4
    """Of first losses, relative; later ones may differ by ten times that of the first."""
    logprobs: tuple[int, int, int] = (1024, 384, 8192)
    """(tokens, D, V) of the log-probs alone."""
    own: bool = True
    """Measure ``bench_packing`` and ``bench_logprobs`` too."""
    seed: int = 0
    write: bool = False
    """Put the section into benchmarks/RESULTS.md."""


_GPU: dict[str, Any] = {
    "shapes": ((512, 256), (1024, 256)),
    "groups": 8,
    "rows": 8,
    "dtype": "bfloat16",
    "remat": "full",
    "attention": "cudnn",
    "learning_rate": 1e-6,
    "liger": True,
    "cores": None,
    "rounds": Rounds(rounds=3, steps=5, warmups=3, together=False),
    "tolerance": 2e-2,
    "logprobs": (16_384, 4096, 128_256),
}
PRESETS = {
    "cpu": Options(),
    "gpu-1b": Options(
        model=measure.Model(
            vocab_size=128_256, width=2048, num_layers=16, num_heads=32, num_kv_heads=8, hidden_width=8192
        ),
        **_GPU,
    ),
    "gpu-3b": Options(
        model=measure.Model(
            vocab_size=128_256, width=3072, num_layers=28, num_heads=24, num_kv_heads=8, hidden_width=8192
        ),
        **_GPU,
    ),
}


def comparisons(options: Options) -> Iterator[tuple[Task, workload.Sizes]]:
    """What is compared, in order."""
    for prompt, response in options.shapes:
        for task in options.tasks:
            numbers = {"dpo": options.candidates, "sft": (1,), "sampling": options.sampled}[task]
            groups = options.groups * (2 if task == "sft" else 1)
            for N in numbers:
                yield task, workload.Sizes(groups=groups, candidates=N, prompt=prompt, response=response)


def run(options: Options, directory: pathlib.Path) -> Iterator[dict[str, Any]]:
    """One row for each side of each comparison; weights and token ids lie in ``directory``."""
    longest = max(prompt + response for prompt, response in options.shapes)
    config = workload.write_model(directory / "model", options.model, max_positions=longest, seed=options.seed)
    pythons = Pythons(
        ours=sys.executable,
        trl=options.trl_python,
        tunix=options.tunix_python,
        transformers=options.transformers_python,
    )
    for task, sizes in comparisons(options):
        tokens = directory / f"tokens-{sizes.prompt}-{sizes.response}.json"
        if not tokens.exists():
            workload.write_tokens(
                tokens,
                vocab_size=config.vocab_size,
                groups=2 * options.groups,
                candidates=max((*options.candidates, *options.sampled)),
                prompt=sizes.prompt,
                response=sizes.response,
                seed=options.seed,
            )
        case: dict[str, Any] = {
            "model": str(directory / "model"),
            "tokens": str(tokens),
            **dataclasses.asdict(sizes),
            "rows": options.rows * (2 if task == "sft" else 1),
            "at_once": options.at_once,
            "new": sizes.response,
            "dtype": options.dtype,
            "remat": options.remat,
            "attention": options.attention,
            "liger": options.liger,
            "reference": "stored",
            "learning_rate": options.learning_rate,
            "clip_norm": 1.0,
            "cores": options.cores,
            "seed": options.seed,
            "environment": {"XLA_PYTHON_CLIENT_PREALLOCATE": "false"} if options.rounds.together else {},
        }
        found = measure_in_turns(sides_of(task, case, pythons), options.rounds)
        for name, one in found.items():
            if one.reason:
                print(f"{name}: not measured: {one.reason}", file=sys.stderr)
        yield from figures(
            task, found, sizes=sizes, config=config, dtype=options.dtype, tolerance=options.tolerance, new=case["new"]
        )


def own(options: Options) -> tuple[list[dict[str, Any]], list[dict[str, Any]], list[str]]:
    """Records of ``bench_packing`` and ``bench_logprobs`` at these sizes, each a process of its own; what failed."""
    model = [f"--model.{name.replace('_', '-')}={value}" for name, value in vars(options.model).items()]
    shared = [f"--dtype={options.dtype}", f"--seed={options.seed}", f"--repeats={options.rounds.rounds}"]
    packing: list[dict[str, Any]] = []
    failed: list[str] = []
    for prompt, response in options.shapes:
        for N in options.candidates:
            found, reason = _records([
                "benchmarks.bench_packing", "--candidates", str(N), "--prompts", str(prompt),
                "--responses", str(response), f"--groups={options.groups}", f"--rows={options.rows}",
                "--attention", options.attention, f"--remat={options.remat}", *model, *shared,
            ], options.cores)  # fmt: skip
            packing += found
            failed += reason
    M, D, V = options.logprobs
    logprobs, reason = _records([
        "benchmarks.bench_logprobs", "--tokens", str(M), "--vocabulary", str(V), f"--width={D}", "--no-plain", *shared,
    ], options.cores)  # fmt: skip
    return packing, logprobs, failed + reason


def _records(arguments: Sequence[str], cores: int | None) -> tuple[list[dict[str, Any]], list[str]]:
    """What a benchmark prints, one JSON line a record; and why it stopped, if it did."""
    program = "import os, runpy, sys; sys.argv = sys.argv[1:]; "
    if cores is not None:
        program += f"os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:{cores}]); "
    program += "runpy.run_module(sys.argv[0], run_name='__main__', alter_sys=True)"
    finished = subprocess.run(
        [sys.executable, "-c", program, *arguments],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    failed = []
    if finished.returncode:
        tail = "\n".join(finished.stderr.splitlines()[-TAIL_LINES:])
        failed = [f"{arguments[0]} ended with status {finished.returncode}\n{tail}"]
        print(*failed, file=sys.stderr)
    return [json.loads(line) for line in finished.stdout.splitlines()], failed


def main(arguments: Sequence[str]) -> None:
    """The command: parses, measures, prints, writes."""
    chooser = argparse.ArgumentParser(add_help=False)
    chooser.add_argument("--preset", choices=tuple(PRESETS), default="cpu")
    chosen, rest = chooser.parse_known_args(arguments)
    options = tyro.cli(Options, default=PRESETS[chosen.preset], args=rest, description=__doc__)
    jax.config.update("jax_platforms", "cpu")  # the device is the sides': this process only writes the weights
    record: dict[str, Any] = {
        "preset": chosen.preset,
        "command": " ".join(["python -m benchmarks.peers", *_without_paths(arguments)]),
        "host": measure.environment()["host"],
        "options": dataclasses.asdict(options),
        "num_params": num_params(workload.model_config(options.model, 1)),
        "rows": [],
        "packing": [],
        "logprobs": [],
        "failed": [],
        "finished": False,
    }
    with tempfile.TemporaryDirectory(prefix="peers-") as directory:
        for row in run(options, pathlib.Path(directory)):
            measure.report([row])
            record["rows"].append(row)
            _keep(record, write=options.write)
    if options.own:
        record["packing"], record["logprobs"], record["failed"] = own(options)
        measure.report([*record["packing"], *record["logprobs"]])
    record["finished"] = True
    _keep(record, write=options.write)
    print(results.section(record))


def _keep(record: dict[str, Any], *, write: bool) -> None:
    """Writes what there is so far: a run that is cut short has said what it measured, and that it was."""
    record["load_after"] = os.getloadavg()[0]
    if write:
        results.write(RESULTS, record)


def _without_paths(arguments: Sequence[str]) -> list[str]:
    """The command as it is told: where an environment lies is one machine's affair.

    >>> _without_paths(["--trl-python", "/a/b/python", "--tunix-python=/c", "--seed", "1"])
    ['--trl-python', '…', '--tunix-python=…', '--seed', '1']
    """
    told, hide = [], False
    for argument in arguments:
        name, equals, _ = argument.partition("=")
        path = name.replace("_", "-").endswith("-python")
        told.append("…" if hide else f"{name}=…" if path and equals else argument)
        hide = path and not equals
    return told


if __name__ == "__main__":
    main(sys.argv[1:])
