"""What would make a step fit, with what each change saves and costs: predicted by formula, or compiled (``search``).

A change is predicted by making the changed step abstractly: what it keeps between calls is exact, what it computes is
the estimate of ``planning.memory``.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Sequence
from typing import Any

from jaxrefine.models.remat import REMAT
from jaxrefine.planning.compiled import CompiledTraining, compile_training
from jaxrefine.planning.memory import logprob_loop, predict
from jaxrefine.planning.roofline import layers_recomputed
from jaxrefine.planning.setup import Setup, with_training
from jaxrefine.planning.topology import Topology
from jaxrefine.scoring.adapted import TuningConfig
from jaxrefine.sharding import MeshConfig
from jaxrefine.training.full_size import AbstractStep
from jaxrefine.training.memory import OutOfMemoryError, gib

_LEAST_SAVING = 0.01
"""Of the total: what saves less is not worth a line."""
_LEAST_CHUNK = 128
"""Tokens on a device: of fewer, a matrix unit has no full tile."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Remedy:
    """One change."""

    change: str
    """As one would write it."""
    costs: str
    saves: int
    """Predicted bytes of a device."""
    setup: Setup
    total: int
    """Predicted, the change made."""

    def __str__(self) -> str:
        return f"{self.change}: about {gib(self.saves)} GiB less; {self.costs}"


def remedies(setup: Setup, devices: Sequence[Any]) -> list[Remedy]:
    """Every single change that saves memory, what saves most first.

    Args:
        setup: that does not fit, or is to fit more easily.
        devices: it runs on.
    """
    before = predict(setup, setup.made(devices)).total
    found = []
    for change, costs, changed in _changes(setup, setup.made(devices), len(devices)):
        try:
            made = changed.made(devices)
        except ValueError:  # sizes that do not divide, an objective that adapters cannot serve
            continue
        if made.rows.tokens.shape[0] > setup.made(devices).rows.tokens.shape[0]:
            continue  # rows would be padded: more work, no less memory
        total = predict(changed, made).total
        if before - total > _LEAST_SAVING * before:
            found.append(Remedy(change=change, costs=costs, saves=before - total, setup=changed, total=total))
    return sorted(found, key=lambda remedy: -remedy.saves)


def _changes(setup: Setup, made: AbstractStep, num_devices: int) -> Iterator[tuple[str, str, Setup]]:
    """(what to write, what it costs, the changed setup)."""
    training, sizes = setup.training, setup.sizes(num_devices)
    model: Any = setup.model
    for name in REMAT:
        more = layers_recomputed(name, model)
        if name != setup.remat and more >= layers_recomputed(setup.remat, model):
            yield f"--remat {name}", f"{more:.0%} of a forward pass again", dataclasses.replace(setup, remat=name)
    for parts in (2, 4, 8):
        number = training.num_microbatches * parts
        if training.groups_per_step % number == 0:
            costs = f"gathers the weights {parts} times as often"
            yield f"--microbatches {number}", costs, with_training(setup, num_microbatches=number)
    if sizes["data"] > 1:
        mesh = MeshConfig(data=1, fsdp=sizes["data"] * sizes["fsdp"], tensor=sizes["tensor"])
        text = f"--data 1 --fsdp {mesh.fsdp}"
        yield text, "gathers weights from more devices", dataclasses.replace(setup, mesh=mesh)
    for factor in (2, 4, 8):
        if sizes["fsdp"] % factor == 0:
            mesh = MeshConfig(data=sizes["data"], fsdp=sizes["fsdp"] // factor, tensor=sizes["tensor"] * factor)
            text = f"--fsdp {mesh.fsdp} --tensor {mesh.tensor}"
            yield text, "sums activations over the tensor axis in every layer", dataclasses.replace(setup, mesh=mesh)
    loop, shards = logprob_loop(setup, made), setup.row_shards(num_devices)
    rows = 0 if loop is None else loop.rows
    for parts in (2, 4):
        if rows // parts >= _LEAST_CHUNK:
            size = rows // parts * shards
            costs = f"reads the output embedding {parts} times as often"
            yield f"--logprob-chunk {size}", costs, dataclasses.replace(setup, logprob_chunk=size)
    if training.tuning.parameters == "all":
        for base, costs in (("bfloat16", "trains low-rank adapters alone"), ("nf4", "the same over 4-bit weights")):
            tuning = TuningConfig(parameters="adapters", base=base, lora=training.tuning.lora)  # type: ignore[arg-type]
            changed = with_training(setup, tuning=tuning)
            yield f"tuning.parameters = 'adapters', tuning.base = {base!r}", costs, changed
    for name, values in _OPTIMIZER.items():
        if hasattr(training.optimizer, name) and training.tuning.parameters == "all":
            for value, costs in values.items():
                if getattr(training.optimizer, name) != value:
                    yield f"optimizer.{name} = {value!r}", costs, with_training(setup, **{f"optimizer__{name}": value})


_OPTIMIZER: dict[str, dict[Any, str]] = {
    "moments": {"bfloat16": "moments of 8 bits of mantissa", "int8": "moments in blocks of 8 bits"},
    "masters": {"bfloat16": "weights in bf16, rounded at random"},
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """One setup that a search compiled."""

    change: str
    predicted: int
    compiled: CompiledTraining | None
    """None: refused by the compiler."""
    need: int
    fits: bool
    setup: Setup


def search(setup: Setup, devices: Sequence[Any], topology: Topology, *, most: int = 8) -> Iterator[Trial]:
    """The cheapest remat policy and the fewest microbatches that fit: compiled, the fastest first, until one fits.

    Fast is: little computed again, then few microbatches, since each gathers the weights anew. What by its prediction
    needs twice what is there is not compiled.

    Args:
        setup: where it begins; its mesh and its fine-tuning stay.
        devices: it runs on.
        topology: of the devices.
        most: setups to compile.
    """
    shards, groups = setup.row_shards(len(devices)), setup.training.groups_per_step
    parts = [number for number in range(1, groups + 1) if groups % number == 0]
    rows = setup.made(devices).rows.tokens.shape[0]
    allowed = [number for number in parts if rows % (number * shards) == 0] or [setup.training.num_microbatches]
    model: Any = setup.model
    ways = [(remat, number) for remat in REMAT for number in allowed]
    order = sorted(ways, key=lambda way: (layers_recomputed(way[0], model), way[1]))
    compiled = 0
    for remat, number in order:
        changed = with_training(dataclasses.replace(setup, remat=remat), num_microbatches=number)
        made = changed.made(devices)
        predicted = predict(changed, made).total
        if made.rows.tokens.shape[0] > rows or predicted > 1.5 * topology.chip.memory_bytes:
            continue
        trial = _trial(changed, devices, topology, predicted)
        compiled += 1
        yield trial
        if trial.fits or compiled == most:
            return


def _trial(setup: Setup, devices: Sequence[Any], topology: Topology, predicted: int) -> Trial:
    change = f"--remat {setup.remat} --microbatches {setup.training.num_microbatches}"
    try:
        compiled = compile_training(setup, devices, topology)
    except OutOfMemoryError as error:
        return Trial(change=change, predicted=predicted, compiled=None, need=error.need, fits=False, setup=setup)
    total = compiled.memory.total
    return Trial(
        change=change, predicted=predicted, compiled=compiled, need=total, fits=compiled.memory.fits, setup=setup
    )
