"""One way to run one fine-tuning: model, mesh, policy; and the step that it makes, abstract."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

from jaxrefine.models.attention import ATTENTION
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.precision import PRECISION
from jaxrefine.planning.topology import Topology
from jaxrefine.sharding import ROWS, MeshConfig, make_mesh
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.full_size import AbstractStep, abstract_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setup:
    """What is planned."""

    training: Finetuning
    model: TransformerConfig | EncoderConfig
    num_candidates: int
    """Responses a prompt."""
    mesh: MeshConfig = dataclasses.field(default_factory=lambda: MeshConfig(data=1, fsdp=-1))
    remat: str = "full"
    attention: str = "expand"
    precision: str = "bfloat16"
    """A key of ``PRECISION``: of the computation, and of the stored weights."""
    logprobs: str = "xla"
    logprob_chunk: int | None = None

    def sizes(self, num_devices: int) -> dict[str, int]:
        """Of the mesh axes."""
        data, fsdp, tensor = self.mesh.sizes(num_devices)
        return {"data": data, "fsdp": fsdp, "tensor": tensor}

    def made(self, devices: Sequence[Any]) -> AbstractStep:
        """The abstract step on these devices; made once for equal setups."""
        return _made(self, tuple(devices))

    def row_shards(self, num_devices: int) -> int:
        """Devices among which rows are split."""
        sizes = self.sizes(num_devices)
        found = 1
        for axis in ROWS:
            found *= sizes[axis]
        return found


def _made(setup: Setup, devices: tuple[Any, ...]) -> AbstractStep:
    key = (repr(setup), tuple(map(id, devices)))  # options of losses are dicts, which have no hash
    if key not in _MADE:
        _MADE.clear() if len(_MADE) > _MOST_MADE else None
        precision = PRECISION[setup.precision]
        if precision.params == "bfloat16":
            setup = with_training(setup, optimizer__masters="bfloat16")
        _MADE[key] = abstract_step(
            setup.training,
            setup.model,
            num_candidates=setup.num_candidates,
            mesh=make_mesh(setup.mesh, devices),
            remat=setup.remat,
            attention=setup.attention,
            logprobs=setup.logprobs,
            logprob_chunk=setup.logprob_chunk,
            dtype=jnp.dtype(precision.compute),
        )
    return _MADE[key]


_MADE: dict[Any, AbstractStep] = {}
_MOST_MADE = 64


def default_attention(topology: Topology, model: TransformerConfig | EncoderConfig, slots: int) -> tuple[str, str]:
    """The fastest backend that computes this model there, and why it is not the platform's own; "" where it is.

    Args:
        topology: what it is compiled for.
        model: whose heads it must take.
        slots: of a row.
    """
    if not isinstance(model, TransformerConfig):
        return "expand", ""
    own = {"tpu": "splash", "gpu": "cudnn"}[topology.chip.platform]
    backend = ATTENTION[own]
    try:
        backend.check(model, jnp.bfloat16, -(-slots // backend.slot_multiple) * backend.slot_multiple)
    except ValueError as error:
        return "expand", f"{own}: {error}"
    return own, ""


def with_training(setup: Setup, **changes: Any) -> Setup:
    """The setup with other fields of its fine-tuning; dotted names by double underscores: ``optimizer__moments``."""
    training = setup.training
    for name, value in changes.items():
        *path, last = name.split("__")
        parts = [training, *(functools.reduce(getattr, path[: n + 1], training) for n in range(len(path)))]
        changed: Any = dataclasses.replace(parts[-1], **{last: value})
        for step, owner in zip(reversed(path), reversed(parts[:-1]), strict=True):
            changed = dataclasses.replace(owner, **{step: changed})
        training = changed
    return dataclasses.replace(setup, training=training)
