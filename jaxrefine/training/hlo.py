"""What a compiled program's text says: its instructions, how large their results are, and how often loops run them."""

from __future__ import annotations

import dataclasses
import math
import re
from collections.abc import Iterator

_BITS = {
    "pred": 8, "s2": 2, "u2": 2, "s4": 4, "u4": 4, "s8": 8, "u8": 8, "s16": 16, "u16": 16, "s32": 32, "u32": 32,
    "s64": 64, "u64": 64, "f16": 16, "bf16": 16, "f32": 32, "f64": 64, "c64": 64, "c128": 128,
}  # fmt: skip
_ARRAY = re.compile(r"\b(pred|[subfc]\d+|bf16|f8\w*|f4\w*)\[([\d,]*)\]")
_HEADER = re.compile(r"^(ENTRY )?%?([\w.\-]+) \(.*\) -> .* \{$")
_INSTRUCTION = re.compile(r"^\s+(?:ROOT )?%?([\w.\-]+) = (.+?) ([a-z][\w\-]*)\((.*)$")
_CALLED = re.compile(r"(?:calls|to_apply|body|condition|true_computation|false_computation)=%?([\w.\-]+)")
_BRANCHES = re.compile(r"branch_computations=\{([^}]*)\}")
_TRIPS = re.compile(r'"?known_trip_count"?\s*[:=]\s*\{"?n"?\s*[:=]\s*"?(\d+)"?\}')
_CONDITION = re.compile(r"condition=%?([\w.\-]+)")
_OPERAND = re.compile(r"%([\w.\-]+)")
_OP_NAME = re.compile(r'op_name="([^"]*)"')


@dataclasses.dataclass(frozen=True)
class Instruction:
    """One line of a program."""

    name: str
    opcode: str
    type: str
    """Of its result, as it is written: ``bf16[8,128]{1,0}``, or a tuple in brackets."""
    rest: str
    """Operands and attributes."""

    @property
    def op_name(self) -> str:
        """Where in the Python program it comes from; empty where it does not say."""
        found = _OP_NAME.search(self.rest)
        return found.group(1) if found else ""

    @property
    def called(self) -> tuple[str, ...]:
        """Computations that it runs."""
        branches = _BRANCHES.search(self.rest)
        more = [name.strip().lstrip("%") for name in branches.group(1).split(",")] if branches else []
        return (*_CALLED.findall(self.rest), *more)

    @property
    def trips(self) -> int | None:
        """How often a loop runs its body, where the compiler knows."""
        found = _TRIPS.search(self.rest)
        return int(found.group(1)) if found else None


def array_bytes(text: str) -> list[int]:
    """Bytes of every array in a type, padding left aside.

    >>> array_bytes("(bf16[8,128]{1,0:T(8,128)(2,1)}, s32[], f8e4m3fn[4])")
    [2048, 4, 4]
    """
    return [
        -(-_BITS.get(kind, 4 if kind.startswith("f4") else 8) * math.prod(int(n) for n in shape.split(",") if n) // 8)
        for kind, shape in _ARRAY.findall(text)
    ]


def computations(text: str) -> tuple[str, dict[str, list[Instruction]]]:
    """The name of the entry, and every computation's instructions by its name.

    Raises:
        ValueError: text without an entry.
    """
    found: dict[str, list[Instruction]] = {}
    entry = ""
    current: list[Instruction] | None = None
    for line in text.splitlines():
        if header := _HEADER.match(line):
            current = found.setdefault(header.group(2), [])
            entry = header.group(2) if header.group(1) else entry
        elif line.startswith("}"):
            current = None
        elif current is not None and (parts := _INSTRUCTION.match(line)):
            current.append(Instruction(parts.group(1), parts.group(3), parts.group(2), parts.group(4)))
    if not entry:
        raise ValueError("the text of a compiled program has an ENTRY computation, this one has none")
    return entry, found


@dataclasses.dataclass(frozen=True)
class Run:
    """An instruction with how often a call of the program runs it."""

    instruction: Instruction
    times: int
    is_known: bool
    """False where a loop around it runs for as long as its data say: it is then counted as run once."""
    is_fused: bool
    """Inside a fusion or a reduction: its result is no buffer."""


def runs(text: str) -> Iterator[Run]:
    """Every instruction that the entry reaches, bodies of loops multiplied by their number of turns.

    Where the compiler does not say it, a loop runs N times whose condition is "less than N": JAX's scans and XLA's own
    windowed products count from 0 in ones.
    """
    entry, found = computations(text)
    waiting = [(entry, 1, True, False)]
    while waiting:
        name, times, known, fused = waiting.pop()
        for instruction in found.get(name, ()):
            yield Run(instruction, times, known, fused)
            trips = _turns(instruction, found) if instruction.opcode == "while" else 1
            inner = fused or instruction.opcode not in ("while", "call", "conditional", "async-start")
            for called in instruction.called:
                waiting.append((called, times * (trips or 1), known and trips is not None, inner))


def _turns(loop: Instruction, found: dict[str, list[Instruction]]) -> int | None:
    if loop.trips is not None:
        return loop.trips
    name = _CONDITION.search(loop.rest)
    condition = found.get(name.group(1), []) if name else []
    limits = {one.name: one.rest.partition(")")[0] for one in condition if one.opcode == "constant"}
    compared = [one for one in condition if one.opcode == "compare" and "direction=LT" in one.rest]
    if len(compared) != 1:
        return None
    second = _OPERAND.findall(compared[0].rest.partition(")")[0])[-1:]
    limit = limits.get(second[0], "") if second else ""
    return int(limit) if limit.isdigit() else None
