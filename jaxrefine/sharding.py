"""Meshes, and the one table that says where every parameter and activation lives.

Notation of the scaling book: ``A[I_X, J_Y]`` is a matrix whose first axis is split over mesh axis X and second over Y.
Weights are stored ``[L, out_tensor, in_fsdp]`` or ``[L, out_fsdp, in_tensor]``: the width of the model is always split
over ``fsdp`` and gathered where it is used, heads and hidden features over ``tensor``, rows over both data axes.
Slices (TPU slices, or GPU nodes) are joined by a network far slower than the one inside them: only ``data`` spans them,
so that all that crosses is one sum of gradients a step, of which each device sends its own share.
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
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

P = PartitionSpec
_log = logging.getLogger(__name__)

AXES = ("data", "fsdp", "tensor")
ROWS = ("data", "fsdp")
"""The rows of a batch are split over both of these axes."""

HOST = "pinned_host"
"""The kind of memory of the host that devices read and write by themselves."""

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
    (r"(key|recent)$", P()),
)
"""(end of a parameter's path, its placement); the first that matches holds, for optimiser moments too."""

ACTIVATIONS: dict[str, PartitionSpec] = {
    "rows": P(ROWS),
    "hidden": P(ROWS, None, None),
    "heads": P(ROWS, None, "tensor", None),
    "feed_forward": P(ROWS, None, "tensor"),
    "logits": P(ROWS, None, "tensor"),
    "looking_up": P("data", None),
    "looked_up": P("data", None, "fsdp"),
}
"""Placement of activations by name: [B …], [B S D], [B S Q H], [B S F], [B S V]; and of indices [B S] and what is found
[B S D] in a table [V D]: each device of ``fsdp`` takes its part of the width for all rows that ``fsdp`` splits, then
they exchange. Left alone, XLA gathers all rows of the batch onto every device, across slices too."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeshConfig:
    """Sizes of the mesh axes; one of them may be -1, "all devices that are left".

    >>> MeshConfig(fsdp=2).sizes(8)
    (4, 2, 1)
    """

    data: int = -1
    """Copies of the parameters, over all slices together."""
    fsdp: int = 1
    tensor: int = 1
    slices: int = -1
    """TPU slices or GPU nodes, a divisor of ``data``; -1 is as many as the devices say they are of. Given otherwise,
    devices that are all of one slice are split in their order, and 1 lets any axis cross slices."""
    max_unsplit: float = 0.1
    """The share of a device's parameter bytes that may be there only because sizes do not divide; more is an error."""

    def __post_init__(self) -> None:
        given = {name: getattr(self, name) for name in AXES}
        wrong = {name: size for name, size in (given | {"slices": self.slices}).items() if size != -1 and size < 1}
        if wrong:
            raise ValueError(f"mesh sizes must be positive, or -1 for the rest: {wrong}")
        if sum(size == -1 for size in given.values()) > 1:
            raise ValueError(f"at most one mesh axis may be -1 (the rest): {given}")
        if not 0 <= self.max_unsplit <= 1:
            raise ValueError(f"mesh.max_unsplit = {self.max_unsplit} must lie between 0 and 1")

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


def make_mesh(config: MeshConfig | None = None, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh (data, fsdp, tensor) over ``devices``, by default all of them.

    Inside a slice the order is JAX's own for its network; the data axis goes through one slice after the other.

    Args:
        config: sizes; None is ``MeshConfig()``.
        devices: of this run, or of a topology that is only compiled for.

    Raises:
        ValueError: sizes that do not use all devices, or slices that the data axis cannot span.

    >>> dict(make_mesh(MeshConfig(), jax.devices()[:1]).shape)
    {'data': 1, 'fsdp': 1, 'tensor': 1}
    """
    config = config or MeshConfig()
    devices = list(jax.devices() if devices is None else devices)
    data, *inner = config.sizes(len(devices))
    slices = _slices(config, devices, data)
    within = (data // len(slices), *inner)
    if len(slices) == 1 and len({getattr(device, "slice_index", 0) for device in devices}) > 1:
        blocks = [np.array(devices, object).reshape(within)]  # asked for: axes that cross slices
    else:
        blocks = [mesh_utils.create_device_mesh(within, one, allow_split_physical_axes=True) for one in slices]
    return Mesh(np.concatenate(blocks), AXES, axis_types=(AxisType.Auto,) * len(AXES))


def _slices(config: MeshConfig, devices: list[Any], data: int) -> list[list[Any]]:
    """The devices of each slice."""
    found: dict[int, list[Any]] = {}
    for device in devices:
        found.setdefault(getattr(device, "slice_index", 0), []).append(device)
    count = len(found) if config.slices == -1 else config.slices
    if count == 1:
        return [devices]
    if len(found) not in (1, count):
        raise ValueError(
            f"mesh.slices = {count}, but the devices are of {len(found)} slices; allowed: -1, 1, {len(found)}"
        )
    if data % count:
        raise ValueError(
            f"mesh.data = {data} cannot span {count} slices evenly, so fsdp or tensor would cross their slow network; "
            f"give a multiple of {count}, or mesh.slices = 1 to have it so"
        )
    each = len(devices) // count
    groups = [found[index] for index in sorted(found)]
    if len(groups) == 1:
        return [devices[i * each : (i + 1) * each] for i in range(count)]
    if uneven := {index: len(group) for index, group in sorted(found.items()) if len(group) != each}:
        raise ValueError(f"slices of several sizes: {uneven} devices in some, {each} on average")
    return groups


@dataclasses.dataclass(frozen=True)
class Replicated:
    """One axis of one parameter that is not split as the table says, and why."""

    path: str
    shape: tuple[int, ...]
    reason: str
    extra_bytes: int = 0
    """What each device holds more than if it were."""

    def __str__(self) -> str:
        return f"{self.path} {list(self.shape)}: {self.reason}; {self.extra_bytes:,} bytes more on each device"


def path_of(key_path: Sequence[Any]) -> str:
    """A leaf's path as ``model/layers/attention/query/kernel``."""
    return jax.tree_util.keystr(tuple(key_path), simple=True, separator="/")


def rule_of(path: str) -> PartitionSpec | None:
    """The placement that ``RULES`` have for a parameter, or for a moment of it, quantised or not; None without one.

    >>> rule_of("model/layers/attention/query/kernel") == rule_of("1/mu/layers/attention/query/kernel/scales")
    True
    """
    for name in (path, re.sub(r"/(values|scales)$", "", path)):
        for pattern, rule in RULES:
            if re.search(rf"(^|/){pattern}", name):
                return rule
    return None


def _axes(entry: Any) -> tuple[str, ...]:
    return () if entry is None else (entry,) if isinstance(entry, str) else tuple(entry)


def _parts(spec: PartitionSpec, mesh: Any) -> int:
    return math.prod(mesh.shape[name] for entry in spec for name in _axes(entry))


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
        num_bytes = math.prod(shape) * np.dtype(leaf.dtype).itemsize
        rule = rule_of(path)
        if rule is None:
            extra = num_bytes - num_bytes // (mesh.shape["fsdp"] * mesh.shape["tensor"])
            left_out.append(Replicated(path, shape, "no rule for this path", extra))
            return NamedSharding(mesh, P())
        spec, reasons = fit_spec(rule, shape, mesh)
        extra = num_bytes // _parts(spec, mesh) - num_bytes // _parts(rule, mesh)
        left_out.extend(Replicated(path, shape, reason, extra // len(reasons)) for reason in reasons)
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(place, tree), left_out


def param_shardings(tree: Any, mesh: Mesh) -> Any:
    """NamedShardings of every leaf by ``RULES``; on several devices, each axis left whole is logged by name."""
    shardings, left_out = placements(tree, mesh)
    if mesh.size > 1:
        for item in left_out:
            _log.warning("replicated: %s", item)
    return shardings


def check_split(tree: Any, mesh: Mesh, max_unsplit: float) -> None:
    """Refuses parameters of which too much would lie whole on every device, against the rules.

    Args:
        tree: parameters, arrays or ``ShapeDtypeStruct``s.
        mesh: where they go.
        max_unsplit: see ``MeshConfig``.

    Raises:
        ValueError: names the largest of them with its bytes, and the share of all.
    """
    shardings, left_out = placements(tree, mesh)
    held = sum(
        math.prod(sharding.shard_shape(np.shape(leaf))) * np.dtype(leaf.dtype).itemsize
        for leaf, sharding in zip(jax.tree.leaves(tree), jax.tree.leaves(shardings), strict=True)
    )
    extra = sum(item.extra_bytes for item in left_out)
    if extra <= max_unsplit * held:
        return
    largest = sorted(left_out, key=lambda item: -item.extra_bytes)
    more = f", and {len(largest) - 3} more" if len(largest) > 3 else ""
    raise ValueError(
        f"{extra / held:.0%} of the {held:,} bytes of parameters on each device of the mesh {dict(mesh.shape)} would "
        f"be there only because sizes do not divide: {'; '.join(map(str, largest[:3]))}{more}. Give sizes that divide, "
        f"or allow it with mesh.max_unsplit = {math.ceil(100 * extra / held) / 100} (now {max_unsplit})"
    )


def batch_sharding(mesh: Mesh, *, leading: int = 0) -> NamedSharding:
    """Rows over data and fsdp; ``leading`` unsplit axes (microbatches) come before them."""
    return NamedSharding(mesh, P(*(None,) * leading, ROWS))


def check_memory(mesh: Any, kind: str, what: str) -> None:
    """Refuses a kind of memory that the devices of a mesh do not have.

    Args:
        mesh: of devices that are there; those of a topology that is only compiled for are taken at their word.
        kind: such as ``HOST``.
        what: the option that wants it.

    Raises:
        ValueError: names the platform and the kinds that it has.
    """
    device = mesh.devices.flat[0]
    try:
        kinds = sorted(memory.kind for memory in device.addressable_memories())
    except (AttributeError, NotImplementedError, RuntimeError):  # no client behind it: a topology
        return
    if kinds and kind not in kinds:  # the GPUs of a topology name none
        raise ValueError(
            f"{what} needs memory of the kind {kind!r}, which {device.platform} devices here do not have; they have "
            f"{', '.join(kinds)}"
        )


def replicated(mesh: Mesh) -> NamedSharding:
    """The same value on every device."""
    return NamedSharding(mesh, P())


def row_share(mesh: Mesh) -> tuple[int, int]:
    """(index, count): which share of a batch's rows this process must read, of how many.

    Processes that only differ along ``tensor`` need the same rows and get the same index. Shares are numbered by the
    first row block that their processes hold.

    Raises:
        ValueError: this process holds no device of the mesh, or some but not all of what another one holds.
    """
    blocks = mesh.devices.reshape(mesh.shape["data"] * mesh.shape["fsdp"], -1)
    held: dict[int, set[int]] = {}
    for index, block in enumerate(blocks):
        for device in block:
            held.setdefault(device.process_index, set()).add(index)
    me = jax.process_index()
    if me not in held:
        raise ValueError(f"process {me} owns no device of the mesh {dict(mesh.shape)}")
    shares = sorted({tuple(sorted(mine)) for mine in held.values()})
    if sum(map(len, shares)) != len(blocks) or len({len(share) for share in shares}) > 1:
        raise ValueError(
            f"process {me} holds row blocks {sorted(held[me])} of {len(blocks)}: the processes' shares overlap or are "
            f"uneven; choose other sizes than {dict(mesh.shape)}"
        )
    return shares.index(tuple(sorted(held[me]))), len(shares)


def mesh_in_use(*, by_xla: bool = False) -> Any | None:
    """The mesh of ``jax.set_mesh`` with our axes; None without one, or on a single device.

    Args:
        by_xla: None inside a ``shard_map`` too, where nothing is left for XLA to split.
    """
    mesh = jax.sharding.get_abstract_mesh()
    if mesh.empty or mesh.size == 1 or not set(AXES) <= set(mesh.axis_names):
        return None
    return None if by_xla and AxisType.Manual in mesh.axis_types else mesh


def constrain(x: Any, spec: str | PartitionSpec) -> Any:
    """``x`` placed by a name of ``ACTIVATIONS`` or a spec, on the mesh of ``jax.set_mesh``; without one, ``x`` itself.

    Axes that do not divide stay whole: activations are temporary, so this costs no memory between steps.
    """
    if (mesh := mesh_in_use()) is None:
        return x
    if isinstance(spec, str):
        if spec not in ACTIVATIONS:
            raise ValueError(f"no activation named {spec!r}; allowed: {', '.join(ACTIVATIONS)}")
        spec = ACTIVATIONS[spec]
    if len(spec) > x.ndim:
        raise ValueError(f"an activation of shape {list(x.shape)} has fewer axes than its placement {spec}")
    fitted, _ = fit_spec(spec, x.shape, mesh)
    return jax.lax.with_sharding_constraint(x, fitted)


def constrain_params(tree: Any) -> Any:
    """Gradients, or anything else with the paths of parameters, split as those are on the mesh of ``jax.set_mesh``."""
    if (mesh := mesh_in_use()) is None:
        return tree

    def place(key_path: Any, leaf: Any) -> Any:
        fitted, _ = fit_spec(rule_of(path_of(key_path)) or P(), leaf.shape, mesh)
        return jax.lax.with_sharding_constraint(leaf, fitted)

    return jax.tree_util.tree_map_with_path(place, tree)
