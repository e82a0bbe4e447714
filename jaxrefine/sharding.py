"""Meshes, and the one table that says where every parameter and activation lives.

Notation of the scaling book: ``A[I_X, J_Y]`` is a matrix whose first axis is split over mesh axis X and second over Y.
Weights are stored ``[L, out_tensor, in_fsdp]`` or ``[L, out_fsdp, in_tensor]``: the width of the model is always split
over ``fsdp`` and gathered where it is used, heads and hidden features over ``tensor``, rows over both data axes.
"""

from __future__ import annotations

import dataclasses
import logging
import math
import re
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

P = PartitionSpec
_log = logging.getLogger(__name__)

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")
"""The rows of a batch are split over both of these axes."""

RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"embed/embedding$", P("tensor", "fsdp")),
    (r"head/kernel$", P("tensor", "fsdp")),
    (r"head/bias$", P("tensor")),
    (r"(positions|relative|token_types)/embedding$", P(None, "fsdp")),
    (r"project_in/kernel$", P("fsdp", None)),
    (r"project_out/kernel$", P(None, "fsdp")),
    (r"attention/(position_)?(query|key|value)/(kernel|values|scales)$", P(None, "tensor", "fsdp")),
    (r"attention/(position_)?(query|key|value)/bias$", P(None, "tensor")),
    (r"attention/out/(kernel|values|scales)$", P(None, "fsdp", "tensor")),
    (r"feed_forward/(gate|up)/(kernel|values|scales)$", P(None, "tensor", "fsdp")),
    (r"feed_forward/(gate|up)/bias$", P(None, "tensor")),
    (r"feed_forward/down/(kernel|values|scales)$", P(None, "fsdp", "tensor")),
    (r"(query|key|value|gate|up)/a$", P(None, None, "fsdp")),
    (r"(query|key|value|gate|up)/b$", P(None, "tensor", None)),
    (r"(out|down)/a$", P(None, None, "tensor")),
    (r"(out|down)/b$", P(None, "fsdp", None)),
    (r"project_(in|out)/[ab]$", P()),
    (r"(out|down)/bias$", P()),
    (r"\w*norm/(scale|bias)$", P()),
    (r"(embed_projection|convolution|pooler|classifier)/(kernel|bias)$", P()),
    (r"scorer/.*", P()),
    (r"key$", P()),
)
"""(end of a parameter's path, its placement); the first that matches holds, for optimiser moments too."""

ACTIVATIONS: dict[str, PartitionSpec] = {
    "rows": P(ROWS),
    "hidden": P(ROWS, None, None),
    "heads": P(ROWS, None, "tensor", None),
    "feed_forward": P(ROWS, None, "tensor"),
    "logits": P(ROWS, None, "tensor"),
}
"""Placement of activations by name: [B …], [B S D], [B S Q H], [B S F], [B S V]."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Sizes of the mesh axes; one of them may be -1, "all devices that are left".

    >>> MeshConfig(fsdp=2).sizes(8)
    (4, 2, 1)
    """

    data: int = -1
    fsdp: int = 1
    tensor: int = 1

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in AXES}
        wrong = {name: size for name, size in given.items() if size != -1 and size < 1}
        if wrong:
            raise ValueError(f"mesh sizes must be positive, or -1 for the rest: {wrong}")
        if sum(size == -1 for size in given.values()) > 1:
            raise ValueError(f"at most one mesh axis may be -1 (the rest): {given}")

    def sizes(self, num_devices: int) -> tuple[int, ...]:
        """Sizes (data, fsdp, tensor) on ``num_devices`` devices; their product must be that number."""
        given = [getattr(self, name) for name in AXES]
        known = math.prod(size for size in given if size != -1)
        sizes = tuple(num_devices // known if size == -1 else size for size in given)
        if math.prod(sizes) != num_devices:
            raise ValueError(
                f"mesh {dict(zip(AXES, given, strict=True))} needs "
                f"{'a multiple of ' if -1 in given else ''}{known} devices, {num_devices} are there"
            )
        return sizes


def make_mesh(config: MeshConfig | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The mesh (data, fsdp, tensor) over ``devices``, by default all of them, in jax's order.

    >>> dict(make_mesh(MeshConfig(), jax.devices()[:1]).shape)
    {'data': 1, 'fsdp': 1, 'tensor': 1}
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = (config or MeshConfig()).sizes(len(devices))
    return jax.make_mesh(sizes, AXES, axis_types=(AxisType.Auto,) * len(AXES), devices=devices)


@dataclasses.dataclass(frozen=True)
class Replicated:
    """One axis of one parameter that is not split as the table says, and why."""

    path: str
    shape: tuple[int, ...]
    reason: str

    def __str__(self) -> str:
        return f"{self.path} {list(self.shape)}: {self.reason}"


def path_of(key_path: Sequence[Any]) -> str:
    """A leaf's path as ``model/layers/attention/query/kernel``."""
    return jax.tree_util.keystr(tuple(key_path), simple=True, separator="/")


def _axes(entry: Any) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def fit_spec(spec: PartitionSpec, shape: Sequence[int], mesh: Any) -> tuple[PartitionSpec, list[str]]:
    """``spec`` without the mesh axes that do not divide ``shape``, and a sentence for each that was left out."""
    if len(spec) > len(shape):
        return P(), [f"rule {spec} has more axes than its shape"]
    kept: list[Any] = []
    reasons = []
    for axis, entry in enumerate(spec):
        size = math.prod(mesh.shape[name] for name in _axes(entry))
        divides = shape[axis] % size == 0
        if not divides:
            reasons.append(f"axis {axis} does not divide by {'·'.join(_axes(entry))} = {size}")
        kept.append(entry if divides else None)
    return P(*kept), reasons


def placements(tree: Any, mesh: Mesh) -> tuple[Any, list[Replicated]]:
    """NamedShardings of every leaf of ``tree`` by ``RULES``, and what the rules could not place.

    Args:
        tree: arrays or ``ShapeDtypeStruct``s: parameters, optimiser state, a whole train state.
        mesh: as ``make_mesh`` makes it.

    Returns:
        The same tree of ``NamedSharding``, and one ``Replicated`` for each axis that stays whole against its rule.
        Scalars are replicated without a word.
    """
    left_out: list[Replicated] = []

    def place(key_path: Any, leaf: Any) -> NamedSharding:
        path, shape = path_of(key_path), tuple(np.shape(leaf))
        if not shape:
            return NamedSharding(mesh, P())
        for pattern, rule in RULES:
            if re.search(rf"(^|/){pattern}", path):
                spec, reasons = fit_spec(rule, shape, mesh)
                left_out.extend(Replicated(path, shape, reason) for reason in reasons)
                return NamedSharding(mesh, spec)
        left_out.append(Replicated(path, shape, "no rule for this path"))
        return NamedSharding(mesh, P())

    return jax.tree_util.tree_map_with_path(place, tree), left_out


def param_shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedShardings of every leaf by ``RULES``; on several devices, each axis left whole is logged by name."""
    shardings, left_out = placements(tree, mesh)
    if mesh.size > 1:
        for item in left_out:
            _log.warning("replicated: %s", item)
    return shardings


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Rows over data and fsdp; ``leading`` unsplit axes (microbatches) come before them."""
    return NamedSharding(mesh, P(*(None,) * leading, ROWS))


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, P())


def row_share(mesh: Mesh) -> tuple[int, int]:
    """(index, count): which share of a batch's rows this process must read, of how many.

    Processes that only differ along ``tensor`` need the same rows and get the same index.
    """
    blocks = mesh.devices.reshape(mesh.shape["data"] * mesh.shape["fsdp"], -1)
    owners = [frozenset(device.process_index for device in block) for block in blocks]
    me = jax.process_index()
    mine = [index for index, owner in enumerate(owners) if me in owner]
    if not mine:
        raise ValueError(f"process {me} owns no device of the mesh {dict(mesh.shape)}")
    if mine != list(range(mine[0], mine[-1] + 1)) or len(blocks) % len(mine) or mine[0] % len(mine):
        raise ValueError(
            f"process {me} holds row blocks {mine} of {len(blocks)}: not one even, contiguous share; "
            f"reorder the devices of the mesh {dict(mesh.shape)}"
        )
    return mine[0] // len(mine), len(blocks) // len(mine)


def constrain(x: Any, spec: str | PartitionSpec) -> Any:
    """``x`` placed by a name of ``ACTIVATIONS`` or a spec, on the mesh of ``jax.set_mesh``; without one, ``x`` itself.

    Axes that do not divide stay whole: activations are temporary, so this costs no memory between steps.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not set(AXES) <= set(mesh.axis_names):
        return x
    if isinstance(spec, str):
        if spec not in ACTIVATIONS:
            raise ValueError(f"no activation named {spec!r}; allowed: {', '.join(ACTIVATIONS)}")
        spec = ACTIVATIONS[spec]
    if len(spec) > x.ndim:
        raise ValueError(f"an activation of shape {list(x.shape)} has fewer axes than its placement {spec}")
    fitted, _ = fit_spec(spec, x.shape, mesh)
    return jax.lax.with_sharding_constraint(x, fitted)
