"""What a compiled step needs of a device's memory, by kind, beside what the device has; and what to do about too much.

A step that does not fit is better refused before the run than by a traceback of the allocator in it.
"""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from jaxrefine.sharding import path_of
from jaxrefine.training.compilation import CompiledStep, Step
from jaxrefine.training.hlo import array_bytes, runs
from jaxrefine.training.state import TrainState

GIB = 2**30
NUM_LARGEST = 5


@dataclasses.dataclass(frozen=True)
class Buffer:
    """One piece of memory of a device."""

    name: str
    """The path of a parameter or moment; of what is computed, where in the program."""
    bytes: int

    def __str__(self) -> str:
        return f"{gib(self.bytes)} GiB  {self.name}"


@dataclasses.dataclass(frozen=True, kw_only=True)
class MemoryUse:
    """Bytes on one device: the fullest one, where they differ."""

    parameters: int
    optimizer: int
    frozen: int
    batch: int
    temporaries: int
    """Gradients, activations, and everything else that lives inside a step."""
    total: int
    """As XLA has it: all of these, outputs that take no donated place, and what alignment adds."""
    available: int | None = None
    """What the device has for it; None where it does not say."""
    largest: tuple[Buffer, ...] = ()

    @property
    def fits(self) -> bool:
        """Whether it does; also where the device does not say."""
        return self.available is None or self.total <= self.available

    @property
    def other(self) -> int:
        """What no kind accounts for."""
        known = self.parameters + self.optimizer + self.frozen + self.batch + self.temporaries
        return max(self.total - known, 0)


class OutOfMemoryError(ValueError):
    """A step does not fit the device. ``need`` and ``have`` are bytes, ``largest`` buffers."""

    def __init__(self, message: str, *, need: int, have: int, largest: Sequence[Buffer] = ()) -> None:
        super().__init__(message)
        self.need, self.have, self.largest = need, have, tuple(largest)


def gib(amount: float) -> str:
    """Bytes in GiB, for tables.

    >>> gib(23 * 2**29)
    '11.50'
    """
    return f"{amount / GIB:.2f}"


def device_bytes(tree: Any) -> int:
    """Bytes on one device of a tree of placed arrays or ``ShapeDtypeStruct``s; what has no placement counts whole."""
    return sum(_leaf_bytes(leaf) for leaf in jax.tree.leaves(tree))


def _leaf_bytes(leaf: Any) -> int:
    shape = tuple(np.shape(leaf))
    sharding = getattr(leaf, "sharding", None)
    if sharding is not None:
        shape = sharding.shard_shape(shape)
    return math.prod(shape) * leaf.dtype.itemsize


def state_buffers(state: TrainState) -> list[Buffer]:
    """What a step keeps from one call to the next, the largest first, by path."""
    parts = {"params": state.params, "opt_state": state.opt_state, "frozen": state.frozen}
    found = [
        Buffer(f"{part}/{path_of(path)}", _leaf_bytes(leaf))
        for part, tree in parts.items()
        for path, leaf in jax.tree_util.tree_leaves_with_path(tree)
    ]
    return sorted(found, key=lambda buffer: -buffer.bytes)


def temporary_buffers(text: str) -> list[Buffer]:
    """What a compiled program makes, the largest first: one for each place in the Python program."""
    found: dict[str, int] = {}
    for run in runs(text):
        instruction = run.instruction
        if run.is_fused or instruction.opcode in _NO_BUFFER or instruction.opcode.endswith("-done"):
            continue
        for size in array_bytes(instruction.type):
            name = _place(instruction.op_name) or f"compiler's own {instruction.opcode} {instruction.name}"
            found[name] = max(found.get(name, 0), size)
    return sorted((Buffer(name, size) for name, size in found.items()), key=lambda buffer: -buffer.bytes)


_NO_BUFFER = ("parameter", "tuple", "get-tuple-element", "bitcast", "while", "conditional", "constant", "call")
_NOISE = re.compile(r"\b(?:jit|jvp|transpose|vmap|closed_call|body|while|rematted_computation|checkpoint)\b|[()]")


def _place(op_name: str) -> str:
    """The part of an operation's name that a reader of the model knows.

    >>> _place("jit(function)/transpose(jvp(Objective))/Objective.score/model/layers/while/body/attention/dot_general")
    'function/Objective/Objective.score/model/layers/attention/dot_general'
    """
    return "/".join(part for part in _NOISE.sub("", op_name).split("/") if part)


def memory_use(compiled: Any, state: TrainState, *, available: int | None = None) -> MemoryUse:
    """What XLA says that a compiled train step needs on one device.

    Args:
        compiled: jax's compiled function: ``CompiledStep.call``.
        state: that it was compiled for, placed.
        available: bytes of the device.
    """
    memory = compiled.memory_analysis()
    kept = _kept(state)
    if memory is None:
        return dataclasses.replace(kept, available=available)
    arguments = int(memory.argument_size_in_bytes)
    total = arguments + int(memory.output_size_in_bytes) + int(memory.temp_size_in_bytes)
    total -= int(memory.alias_size_in_bytes)
    return dataclasses.replace(
        kept,
        batch=max(arguments - kept.total, 0),
        temporaries=int(memory.temp_size_in_bytes),
        total=total,
        available=available,
    )


def _kept(state: TrainState) -> MemoryUse:
    """What is there between steps alone."""
    parts = [device_bytes(tree) for tree in (state.params, state.opt_state, state.frozen)]
    return MemoryUse(parameters=parts[0], optimizer=parts[1], frozen=parts[2], batch=0, temporaries=0, total=sum(parts))


def with_largest(use: MemoryUse, text: str, state: TrainState) -> MemoryUse:
    """The same with its largest buffers; ``text`` is the program's, megabytes of it for a large model."""
    buffers = [*state_buffers(state)[:NUM_LARGEST], *temporary_buffers(text)[:NUM_LARGEST]]
    largest = tuple(sorted(buffers, key=lambda buffer: -buffer.bytes)[:NUM_LARGEST])
    return dataclasses.replace(use, largest=largest)


_NEEDS = (
    re.compile(r"[Uu]sed ([\d.]+)([KMGT]?) of ([\d.]+)([KMGT]?) hbm"),
    re.compile(r"\(([\d.]+)([KMGT]?)i?B?\) exceeds (?:the )?available [^(]*\(([\d.]+)([KMGT]?)"),
)
_SIZE = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30, "T": 2**40}
_ALLOCATION = re.compile(r"Size: ([\d.]+)([KMGT]?).*?(?=\n\s*\d+\. Size|\Z)", re.DOTALL)


def read_out_of_memory(error: Exception, available: int, state: TrainState | None = None) -> OutOfMemoryError | None:
    """What a compiler's refusal says: need, have, largest buffers; None for any other error.

    Args:
        error: of jax.
        available: bytes that there are, where the refusal does not say.
        state: whose largest parts are named where the refusal names none.

    >>> found = read_out_of_memory(RuntimeError(
    ...     "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory in memory space hbm. Used 71.67G of "
    ...     "15.75G hbm. Exceeded hbm capacity by 55.92G."), available=0)
    >>> gib(found.need), gib(found.have)
    ('71.67', '15.75')
    """
    text = str(error)
    if "RESOURCE_EXHAUSTED" not in text:
        return None
    need, have = 0, available
    for pattern in _NEEDS:
        if found := pattern.search(text):
            number, unit, limit, limit_unit = found.groups()
            need, have = round(float(number) * _SIZE[unit]), round(float(limit) * _SIZE[limit_unit])
            break
    largest = []
    for found in _ALLOCATION.finditer(text):
        name = re.search(r'op_name="([^"]*)"', found.group())
        shape = re.search(r"Shape: (\S+)", found.group())
        where = _place(name.group(1)) if name else ""
        what = f"{where} {shape.group(1).partition('{')[0]}" if shape else where
        largest.append(Buffer(what.strip() or "unnamed", round(float(found.group(1)) * _SIZE[found.group(2)])))
    if state is not None and not largest:
        largest = state_buffers(state)
    message = f"the step needs {gib(need)} GiB of a device's memory, {gib(have)} GiB are there"
    return OutOfMemoryError(message, need=need, have=have, largest=largest[:NUM_LARGEST])


def explain(use: MemoryUse, remedies: Sequence[str] = ()) -> str:
    """Why a step does not fit: need, have, kinds, largest buffers, remedies."""
    have = "what the device does not say" if use.available is None else f"{gib(use.available)} GiB"
    kinds = ("parameters", "optimizer", "frozen", "batch", "temporaries")
    shares = ", ".join(f"{kind} {gib(getattr(use, kind))}" for kind in kinds if getattr(use, kind))
    lines = [f"the step needs {gib(use.total)} GiB of each device's memory, of {have}: {shares}"]
    if use.largest:
        lines += ["largest buffers:", *(f"  {buffer}" for buffer in use.largest)]
    if remedies:
        lines += ["what would help:", *(f"  {remedy}" for remedy in remedies)]
    return "\n".join(lines)


def device_memory(device: Any) -> int | None:
    """Bytes of a device that a program may use; None where it does not say, as a CPU."""
    stats = getattr(device, "memory_stats", lambda: None)()
    return int(stats["bytes_limit"]) if stats and "bytes_limit" in stats else None


def compile_checked(step: Step, state: TrainState, batch: Any, *, num_microbatches: int = 1) -> CompiledStep:
    """The preflight of a run: compiles its step, and refuses one that the devices cannot hold before it is called.

    Args:
        step: a train step.
        state: arrays or ``ShapeDtypeStruct``s.
        batch: likewise.
        num_microbatches: of the step, for what is advised.

    Raises:
        OutOfMemoryError: with need, have, the largest buffers and remedies in its message.
    """
    have = device_memory(step.mesh.local_devices[0]) if step.mesh.local_devices else None
    try:
        compiled = step.compile(state, batch)
    except jax.errors.JaxRuntimeError as error:
        refused = read_out_of_memory(error, have or 0, state)
        if refused is None:
            raise
        kept = _kept(state)
        use = dataclasses.replace(
            kept,
            temporaries=max(refused.need - kept.total, 0),
            total=refused.need,
            available=refused.have,
            largest=refused.largest,
        )
        raise _refusal(use, num_microbatches) from error
    executable: Any = compiled.call
    use = memory_use(executable, state, available=have)
    if not use.fits:
        raise _refusal(with_largest(use, executable.as_text(), state), num_microbatches)
    return compiled


def _refusal(use: MemoryUse, num_microbatches: int) -> OutOfMemoryError:
    message = explain(use, first_remedies(use, num_microbatches=num_microbatches))
    return OutOfMemoryError(message, need=use.total, have=use.available or 0, largest=use.largest)


def first_remedies(use: MemoryUse, *, num_microbatches: int) -> list[str]:
    """What helps most, from the kinds alone; ``jaxrefine plan`` compiles them.

    >>> use = MemoryUse(parameters=4, optimizer=8, frozen=0, batch=0, temporaries=2, total=14, available=10)
    >>> [remedy.partition(":")[0] for remedy in first_remedies(use, num_microbatches=1)]
    ['low-rank adapters', 'twice the fsdp axis', 'bfloat16 moments', 'num_microbatches = 2']
    """
    state = use.parameters + use.optimizer
    found = [
        (state // 2, "twice the fsdp axis: more devices that share parameters, moments and gradients"),
        (use.optimizer + use.parameters // 2, "low-rank adapters: tuning.parameters = 'adapters', a base in bfloat16"),
        (use.optimizer // 2, "bfloat16 moments: optimizer.moments = 'bfloat16'"),
        (use.temporaries // 2, f"num_microbatches = {2 * num_microbatches}: half the rows at once (at most)"),
    ]
    ranked = sorted(found, key=lambda item: -item[0])
    return [f"{text} (about {gib(saved)} GiB less)" for saved, text in ranked if saved]
