"""Accelerators by name: what a chip has, how many there are, and what compiling for them without them takes.

No jax here: the environment must be set before jax is imported.

Sources: cloud.google.com/tpu/docs (v5e, v5p, v6e: peak, memory bandwidth, links), NVIDIA's data sheets (H100 and H200
SXM, dense bf16); memory that a program can use is what XLA's TPU compiler names when a program does not fit, and what
the driver reports of GPUs.
"""

from __future__ import annotations

import dataclasses
import importlib.util
import math
import os
import re
import sys
from collections.abc import Mapping, MutableMapping
from typing import Literal

from jaxrefine.config import unknown_name

GIB = 2**30

Platform = Literal["tpu", "gpu"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Chip:
    """One accelerator."""

    name: str
    platform: Platform
    memory_bytes: int
    """That a program can use."""
    flops: float
    """Peak, bf16, operations a second."""
    bandwidth: float
    """Of its memory, bytes a second."""
    link: float
    """Bytes a second at which it takes part in an all-gather along one axis of its fast network (both directions)."""
    efficiency: float
    """Share of the peak that large matrix products reach: an assumption (the middle of what is published)."""
    outside: float = 0.0
    """Bytes a second beyond the fast network, a device: between nodes."""
    domain: int = 2**30
    """Devices that the fast network joins."""


CHIPS: dict[str, Chip] = {
    chip.name: chip
    for chip in (
        Chip(name="v5e", platform="tpu", memory_bytes=int(15.75 * GIB), flops=197e12, bandwidth=819e9, link=9e10,
             efficiency=0.85),
        Chip(name="v5p", platform="tpu", memory_bytes=int(95.74 * GIB), flops=459e12, bandwidth=2765e9, link=1.8e11,
             efficiency=0.87),
        Chip(name="v6e", platform="tpu", memory_bytes=int(31.25 * GIB), flops=918e12, bandwidth=1640e9, link=1.8e11,
             efficiency=0.70),
        Chip(name="h100", platform="gpu", memory_bytes=int(79.1 * GIB), flops=989e12, bandwidth=3352e9, link=4.5e11,
             efficiency=0.75, outside=5e10, domain=8),
        Chip(name="h200", platform="gpu", memory_bytes=int(139.8 * GIB), flops=989e12, bandwidth=4800e9, link=4.5e11,
             efficiency=0.75, outside=5e10, domain=8),
    )
}  # fmt: skip
"""By name; between GPU nodes 400 Gb/s a device."""

_CORES_A_CHIP = {"v5p": 2}
"""What the number in a name counts, where it is not chips: v5p-128 are 64 chips."""
_FORMS = "v5e-16, v5p-128 (counts cores: 64 chips), v6e-256, v5p:2x2x2 (chips), h100x8, h200x16"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Topology:
    """So many chips of a kind, joined."""

    name: str
    chip: Chip
    shape: tuple[int, ...]
    """Chips along each axis of the torus; of GPUs, nodes and GPUs of a node."""

    @property
    def num_devices(self) -> int:
        """Chips."""
        return math.prod(self.shape)

    @property
    def is_one_domain(self) -> bool:
        """Whether the fast network joins all of them."""
        return self.num_devices <= self.chip.domain


def parse_topology(name: str) -> Topology:
    """The topology of a name.

    Args:
        name: as a cloud names it ("v5e-16", "v5p-128"), as a shape in chips ("v5p:2x2x2"), or GPUs ("h100x8").

    Raises:
        ValueError: an unknown chip or size; names what is allowed.

    >>> parse_topology("v5p-128").shape, parse_topology("v6e-256").num_devices, parse_topology("h100x16").shape
    ((4, 4, 4), 256, (2, 8))
    """
    found = re.fullmatch(r"([a-z]+\d+[a-z]?)(?:([-x])(\d+)|:(\d+(?:x\d+)+))", name.strip().lower().replace(" ", ""))
    if found is None:
        raise ValueError(f"topology {name!r}: give a chip and how many, as in {_FORMS}; chips: {', '.join(CHIPS)}")
    kind, sign, number, shape = found.groups()
    if kind not in CHIPS:
        raise ValueError(unknown_name(kind, CHIPS, "chip"))
    chip = CHIPS[kind]
    if shape is not None:
        sizes = tuple(int(size) for size in shape.split("x"))
        axes = 3 if kind == "v5p" else 2
        if chip.platform != "tpu" or len(sizes) != axes or min(sizes) < 1:
            raise ValueError(f"topology {name!r}: a shape is that of a TPU, of {axes} axes for {kind}; as in {_FORMS}")
        return Topology(name=name, chip=chip, shape=sizes)
    if (sign == "x") != (chip.platform == "gpu"):
        other = f"{kind}{'x' if chip.platform == 'gpu' else '-'}{number}"
        raise ValueError(f"topology {name!r}: did you mean {other!r}? As in {_FORMS}")
    count = int(number)
    if chip.platform == "gpu":
        if count < 1 or (count > chip.domain and count % chip.domain):
            raise ValueError(f"topology {name!r}: 1 … {chip.domain} GPUs, or whole nodes of {chip.domain}")
        return Topology(name=name, chip=chip, shape=(max(1, count // chip.domain), min(count, chip.domain)))
    shapes = {math.prod(sizes) * _CORES_A_CHIP.get(kind, 1): sizes for sizes in _SHAPES[kind]}
    if count not in shapes:
        sizes_of = ", ".join(f"{kind}-{number}" for number in shapes)
        raise ValueError(f"topology {name!r}: there is no such slice. Allowed: {sizes_of}; or a shape, as in {_FORMS}")
    return Topology(name=name, chip=chip, shape=shapes[count])


_PLANE = ((1, 1), (2, 2), (2, 4), (4, 4), (4, 8), (8, 8), (8, 16), (16, 16))
_SHAPES: dict[str, tuple[tuple[int, ...], ...]] = {
    "v5e": _PLANE,
    "v6e": _PLANE,
    "v5p": (
        (2, 2, 1), (2, 2, 2), (2, 2, 4), (2, 4, 4), (4, 4, 4), (4, 4, 8), (4, 8, 8), (8, 8, 8), (8, 8, 16), (8, 16, 16),
        (16, 16, 16), (16, 16, 24),
    ),
}  # fmt: skip

_ENVIRONMENT: dict[Platform, dict[str, str]] = {
    "tpu": {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"},
    "gpu": {"JAX_PLATFORMS": "cpu,cuda", "CUDA_VISIBLE_DEVICES": "-1", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"},
}
_EFFORT = "JAX_EXEC_TIME_OPTIMIZATION_EFFORT"
_EXTRAS: dict[Platform, tuple[tuple[str, ...], str, str]] = {
    "tpu": (("libtpu",), "plan-tpu", "pip install 'jaxrefine[plan-tpu]'"),
    "gpu": (
        ("jax_plugins.xla_cuda12",),
        "plan-gpu",
        "pip install 'jaxrefine[plan-gpu]'",
    ),
}
"""Modules that compile for a platform, the extra that brings them, and how to install it."""


class MissingExtraError(ValueError):
    """What compiles for a platform is not installed."""


class LateEnvironmentError(ValueError):
    """jax was imported before the environment was set that compiling for absent hardware needs."""


def check_extra(platform: Platform) -> None:
    """Refuses a platform whose compiler is not installed.

    Raises:
        MissingExtraError: names the extra and the command.
    """
    modules, extra, command = _EXTRAS[platform]
    if missing := [name for name in modules if not _is_installed(name)]:
        raise MissingExtraError(
            f"planning for a {platform.upper()} needs {', '.join(missing)}, the extra {extra!r}: {command}"
        )


def _is_installed(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except ModuleNotFoundError:  # the package that it would be in is absent
        return False


def prepare(platform: Platform, environ: MutableMapping[str, str] = os.environ) -> None:
    """Sets the environment in which jax compiles for hardware that is not there; before jax is imported.

    Args:
        platform: "tpu" or "gpu".
        environ: changed.

    Raises:
        LateEnvironmentError: jax was imported with another one.
    """
    wanted = environment(platform, environ)
    late = {name: value for name, value in wanted.items() if environ.get(name) != value and name != _EFFORT}
    if environ is os.environ and late and "jax" in sys.modules:
        shown = " ".join(f"{name}={value}" for name, value in late.items())
        raise LateEnvironmentError(f"jax was imported already; start the process with {shown}")
    environ.update(wanted)


def environment(platform: Platform, given: Mapping[str, str] | None = None) -> dict[str, str]:
    """The variables, by name: no device is looked for, and little time is spent on the speed of the program.

    >>> environment("tpu")["JAX_PLATFORMS"]
    'cpu'
    """
    return {**_ENVIRONMENT[platform], _EFFORT: (given or {}).get(_EFFORT, "-1.0")}
