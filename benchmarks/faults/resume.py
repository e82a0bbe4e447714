"""T1 to T3: a run that was interrupted, and goes on, is the run that never was."""

from __future__ import annotations

import collections
import dataclasses
import itertools
import os
import pathlib
import signal
from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from benchmarks.faults.runs import (
    GROUPS_PER_STEP,
    NUM_GROUPS,
    OBJECTIVES,
    StopError,
    Training,
    Watched,
    digest,
    records,
    stop_at,
    training,
)
from benchmarks.faults.trial import Fault, Outcome
from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.training.checkpoints import Checkpoints
from jaxrefine.training.interruption import Interrupted
from jaxrefine.training.optimizer import make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import abstract_state, init_state
from jaxrefine.training.step import make_train_step

COMBINATIONS = [
    (name, tuning, parts)
    for turn in range(4)  # so that the first four have every objective, both tunings and both accumulations
    for index, name in enumerate(OBJECTIVES)
    for tuning, parts in [[("full", 1), ("LoRA", 4), ("full", 4), ("LoRA", 1)][(index + turn) % 4]]
]
"""{pairwise, listwise, classification, KL} × {full, LoRA} × accumulation {1, 4}."""


def _turns(_: pathlib.Path) -> Iterator[tuple[str, str, int]]:
    return itertools.cycle(COMBINATIONS)


_WHOLE: dict[tuple[str, str, int], tuple[str, Any]] = {}


def _whole(combination: tuple[str, str, int], directory: pathlib.Path) -> tuple[str, Any]:
    """Digest and records of the run that is not interrupted."""
    if combination not in _WHOLE:
        state = training(*combination).run(directory / "whole")
        _WHOLE[combination] = digest(state), records(directory / "whole")
    return _WHOLE[combination]


def _interrupted(run: Training, workdir: pathlib.Path, stops: list[tuple[int, bool]], **hooks: Any) -> Any:
    """Runs to the end; at each of these steps it stops: dead (True), or told to by SIGTERM."""

    def kill_politely(step: int) -> Any:
        def stop(number: int, _: Any) -> None:
            if number == step:
                os.kill(os.getpid(), signal.SIGTERM)

        return stop

    for step, dead in stops:
        try:
            run.run(workdir, on_metrics=stop_at(step) if dead else kill_politely(step), **hooks)
        except (StopError, Interrupted):
            continue
    return run.run(workdir, **hooks)


def _draw_stops(generator: np.random.Generator, steps: int) -> list[tuple[int, bool]]:
    number = int(generator.integers(1, 4))
    return [(int(step), bool(generator.integers(2))) for step in sorted(generator.choice(steps - 1, number, False) + 1)]


def _resumed(turns: Iterator[tuple[str, str, int]], generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    combination = next(turns)
    run = training(*combination)
    expected, rows = _whole(combination, place)
    stops = _draw_stops(generator, run.config.steps)
    found = digest(_interrupted(run, place / "torn", stops))
    same_rows = records(place / "torn") == rows
    detail = f"{combination}, stopped at {stops}: state {found == expected}, records {same_rows}"
    return Outcome(
        passed=found == expected and same_rows, detail=detail, figures={"interruptions_a_run": float(len(stops))}
    )


def _in_order(_: None, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    run = training("listwise")
    stops = _draw_stops(generator, run.config.steps)
    watched = Watched(run.loader)
    _interrupted(run, place, stops, loader=watched)
    seen = [watched.groups[step] for step in range(run.config.steps)]
    expected = [sorted(step) for step in run.loader.steps]
    epoch = NUM_GROUPS // GROUPS_PER_STEP
    repeated = skipped = 0
    for start in range(0, len(seen), epoch):
        counted = collections.Counter(number for step in seen[start : start + epoch] for number in step)
        repeated += sum(number - 1 for number in counted.values())
        skipped += NUM_GROUPS - len(counted)
    return Outcome(
        passed=seen == expected and not repeated and not skipped and len(watched.groups) == len(expected),
        detail=f"stopped at {stops}: {repeated} repeated, {skipped} skipped",
        figures={"examples_repeated": float(repeated), "examples_skipped": float(skipped)},
    )


_SHAPES = {
    8: MeshConfig(data=2, fsdp=2, tensor=2),
    4: MeshConfig(data=1, fsdp=4),
    2: MeshConfig(data=1, fsdp=1, tensor=2),
}


@dataclasses.dataclass(frozen=True)
class _Meshes:
    run: Training
    meshes: dict[int, Any]
    steps: dict[int, Any]


def _meshes(_: pathlib.Path) -> _Meshes:
    run = training("listwise", "full", 1)
    meshes = {number: make_mesh(shape, jax.devices()[:number]) for number, shape in _SHAPES.items()}
    optimizer = make_optimizer(run.config.optimizer, run.config.steps)
    return _Meshes(run, meshes, {n: make_train_step(run.objective, optimizer, mesh=mesh) for n, mesh in meshes.items()})


def _other_mesh(shared: _Meshes, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    """From 8 devices to 4 to 2; the step after each restore is also computed where the checkpoint was made."""
    run = shared.run
    optimizer = make_optimizer(run.config.optimizer, run.config.steps)
    mesh = shared.meshes[8]
    state = init_state(run.params, optimizer, jax.random.key(0), mesh=mesh)
    problems, worst, index = [], 0.0, 0

    def step(number: int, state: Any) -> tuple[Any, float]:
        batch = to_device(run.loader.batch(index), mesh=shared.meshes[number])
        state, metrics = shared.steps[number](state, batch)
        return state, float(metrics["loss"])

    for here, there in ((8, 4), (4, 2)):
        for _ in range(int(generator.integers(1, 3))):
            state, _loss = step(here, state)
            index += 1
        checkpoints = Checkpoints(place / f"from{here}", run.config.checkpoints)
        checkpoints.save(state, {"step": index})
        saved = digest(state)
        _, expected = step(here, state)
        restored = checkpoints.restore(abstract_state(run.params, optimizer, mesh=shared.meshes[there]))
        checkpoints.close()
        assert restored is not None
        state, position = restored
        if digest(state) != saved or position != {"step": index}:
            problems.append(f"{here} -> {there} devices: the restored bits differ")
        again, found = step(there, state)
        worst = max(worst, abs(found - expected) / abs(expected))
        state, index = again, index + 1
    if worst > 1e-6:
        problems.append(f"the first loss differs by {worst:.2g}")
    return Outcome(passed=not problems, detail="; ".join(problems), figures={"first_loss_relative_difference": worst})


FAULTS = (
    Fault(
        name="T1",
        title="a training stopped one to three times at random steps (dead, or SIGTERM), for each of pairwise, "
        "listwise, classification, KL × full, LoRA × accumulation 1, 4, and run again",
        criterion="SHA-256 of parameters, optimiser, keys, counters and of all records equal those of the run that was "
        "not stopped",
        trial=_resumed,
        prepare=_turns,
        num_trials=320,
        num_fast=4,
        baseline="published: MaxText compares a restored loss with rel_tol 0.1; Levanter and NeMo Automodel have no "
        "bitwise kill-and-resume test in CI",
    ),
    Fault(
        name="T2",
        title="the examples seen across one to three interruptions, two epochs",
        criterion="each example once an epoch, in the order of the run that was not stopped: none twice, none skipped",
        trial=_in_order,
        num_trials=200,
        num_fast=3,
    ),
    Fault(
        name="T3",
        title="a training that goes on from 8 devices to 4 to 2 (data × fsdp × tensor 2×2×2, 1×4×1, 1×1×2) after one "
        "or two steps each",
        criterion="every bit of the restored state the same; its next loss within 1e-6 relative of the one that the "
        "old mesh computes (fp32)",
        trial=_other_mesh,
        prepare=_meshes,
        num_trials=100,
        num_fast=1,
        baseline="published: Levanter says that another number of hosts breaks reproducibility; Grain cannot pack or "
        "mix across a change of hosts (MaxText#3673)",
    ),
)
