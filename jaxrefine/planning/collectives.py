"""What a compiled step sends between devices, by kind and bytes, read from the program's text.

Bodies of loops count as often as they run. Traffic is what one device sends along a ring of the n devices of a group:
(n - 1)/n of what an all-gather makes or a reduce-scatter reads, twice that for an all-reduce.
"""

from __future__ import annotations

import dataclasses
import math
import re

from jaxrefine.planning.topology import Topology
from jaxrefine.training.hlo import Instruction, array_bytes, runs

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute", "ragged-all-to-all",
         "collective-broadcast")  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collective:
    """All collectives of one kind over groups of one size."""

    kind: str
    group: int
    """Devices that take part."""
    count: int
    """A step, turns of loops included."""
    bytes: int
    """A device sends in a step."""
    largest: str
    """Where in the program most of it comes from."""
    is_complete: bool
    """False where a loop runs for as long as its data say, and was counted once."""


def collectives(text: str, num_devices: int) -> tuple[Collective, ...]:
    """The collectives of a compiled program, most bytes first.

    Args:
        text: of the compiled program.
        num_devices: of its mesh.
    """
    found: dict[tuple[str, int], list[tuple[int, int, str, bool]]] = {}
    for run in runs(text):
        instruction = run.instruction
        kind = instruction.opcode.removesuffix("-start")
        if kind not in KINDS:
            continue
        group = group_size(instruction.rest, num_devices)
        if group > 1:
            sent = run.times * traffic(instruction, group)
            found.setdefault((kind, group), []).append((run.times, sent, instruction.op_name, run.is_known))
    made = []
    for (kind, group), items in found.items():
        places: dict[str, int] = {}
        for _, sent, place, _ in items:
            places[place] = places.get(place, 0) + sent
        made.append(
            Collective(
                kind=kind,
                group=group,
                count=sum(item[0] for item in items),
                bytes=sum(item[1] for item in items),
                largest=max(places, key=lambda place: places[place]),
                is_complete=all(item[3] for item in items),
            )
        )
    return tuple(sorted(made, key=lambda collective: -collective.bytes))


def traffic(instruction: Instruction, group: int) -> int:
    """Bytes that one device sends when a collective runs once.

    >>> traffic(Instruction("x", "all-gather", "bf16[8,128]{1,0}", ""), 4)  # 2048 bytes, three quarters of them others'
    1536
    >>> traffic(Instruction("x", "all-gather-start", "(bf16[2,128], bf16[8,128])", ""), 4)
    1536
    >>> traffic(Instruction("x", "reduce-scatter", "f32[256]", ""), 4)
    3072
    >>> traffic(Instruction("x", "all-reduce", "f32[4]", ""), 4)
    24
    """
    kind = instruction.opcode.removesuffix("-start")
    result = sum(array_bytes(instruction.type))
    # A tuple of operands and results; of all-reduce-start, results alone.
    whole = instruction.opcode.endswith("-start") and kind not in ("all-reduce",)
    others = group - 1
    if kind == "all-gather":
        return (result if not whole else result * group // (group + 1)) * others // group
    if kind == "reduce-scatter":
        return (result * group if not whole else result * group // (group + 1)) * others // group
    if kind == "all-reduce":
        return 2 * result * others // group
    sent = result // 2 if whole else result
    return sent if kind.startswith("collective") else sent * others // group


_LISTED = re.compile(r"replica_groups=\{\{([\d,]*)\}")
_IOTA = re.compile(r"replica_groups=\[(\d+(?:,\d+)*)\]<=")
_NAMED = re.compile(r"replica_groups=mesh\[([^\]]*)\]\s*\{([^}]*)\}")


def group_size(attributes: str, num_devices: int) -> int:
    """Devices of a group of a collective, from its attributes.

    >>> group_size("replica_groups={{0,1,2,3},{4,5,6,7}}", 8), group_size("replica_groups=[2,4]<=[8]", 8)
    (4, 4)
    >>> group_size("replica_groups=mesh['a'=1,'b'=8,'c'=2] {'b','c'}", 16), group_size("replica_groups={}", 8)
    (16, 8)
    """
    if found := _LISTED.search(attributes):
        return len(found.group(1).split(","))
    if found := _IOTA.search(attributes):
        return math.prod(int(size) for size in found.group(1).split(",")[1:])
    if found := _NAMED.search(attributes):
        sizes = dict(part.replace("'", "").split("=") for part in found.group(1).split(","))
        return math.prod(int(sizes[name.strip(" '")]) for name in found.group(2).split(",") if name.strip())
    return num_devices


def collective_seconds(collective: Collective, topology: Topology) -> float:
    """Time for its bytes alone at the speed of the network that joins its group, one axis of it."""
    chip = topology.chip
    return collective.bytes / (chip.link if collective.group <= chip.domain else chip.outside)
