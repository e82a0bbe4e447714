"""The train step and the sampler's two programs, compiled for devices that are not there."""

from __future__ import annotations

import contextlib
import dataclasses
import time
from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.cudnn import without_gpu
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.flops import Work, forward_flops
from jaxrefine.planning.collectives import Collective, collectives
from jaxrefine.planning.devices import program_text
from jaxrefine.planning.roofline import DecodeRoofline, decode_roofline
from jaxrefine.planning.setup import Setup
from jaxrefine.planning.topology import Topology
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sampling.engine_steps import Plan, Slots, admit, advance, empty
from jaxrefine.sampling.generate import padded_length
from jaxrefine.sampling.policies import Form
from jaxrefine.sharding import ROWS, make_mesh, param_shardings
from jaxrefine.training.memory import (
    MemoryUse,
    OutOfMemoryError,
    device_bytes,
    memory_use,
    read_out_of_memory,
    with_largest,
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledTraining:
    """A train step as the compiler sees it."""

    memory: MemoryUse
    sent: tuple[Collective, ...]
    compile_seconds: float


def compile_training(setup: Setup, devices: Sequence[Any], topology: Topology) -> CompiledTraining:
    """Compiles the very train step.

    Raises:
        OutOfMemoryError: the compiler itself refuses it, as that of TPUs does.
    """
    made = setup.made(devices)
    try:
        libraries = without_gpu() if topology.chip.platform == "gpu" else contextlib.nullcontext()
        with libraries, program_text(topology) as (options, text_of):
            step = made.step.compile(made.state, made.batch, compiler_options=options)
            text = text_of(step.call)
    except jax.errors.JaxRuntimeError as error:
        if (refused := read_out_of_memory(error, topology.chip.memory_bytes, made.state)) is not None:
            raise refused from error
        raise
    memory = memory_use(step.call, made.state, available=topology.chip.memory_bytes)
    return CompiledTraining(
        memory=with_largest(memory, text, made.state),
        sent=collectives(text, topology.num_devices),
        compile_seconds=step.compile_seconds,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Program:
    """One of the sampler's programs on one device."""

    name: str
    weights: int
    caches: int
    """Of prompts and candidates, and what else is kept."""
    temporaries: int
    total: int
    available: int
    compile_seconds: float

    @property
    def fits(self) -> bool:
        """Whether it does."""
        return self.total <= self.available


@dataclasses.dataclass(frozen=True, kw_only=True)
class CompiledSampler:
    """Prefill and decode, and how fast decoding can be."""

    programs: tuple[Program, ...]
    rows: int
    columns: int
    prompt: int
    """Tokens of a prompt, padded."""
    room: int
    """Tokens of a text."""
    roofline: DecodeRoofline


def compile_sampler(
    model: TransformerConfig,
    sampling: SamplingConfig,
    *,
    setup: Setup,
    devices: Sequence[Any],
    topology: Topology,
    max_prompt: int,
) -> CompiledSampler:
    """The engine's programs with all slots at work, parameters in bf16 and placed as training places them.

    Raises:
        OutOfMemoryError: the compiler itself refuses one of them.
    """
    mesh = make_mesh(setup.mesh, devices)
    decoder = Decoder(model, dtype=jnp.bfloat16, attention="dense", remat="none")
    shards = setup.row_shards(topology.num_devices)
    columns = min(sampling.columns, len(sampling.policies()))
    rows = -(-sampling.slots // columns // shards) * shards
    prompt, room = padded_length(max_prompt), sampling.max_new_tokens
    on_mesh = mesh if mesh.size > 1 else None
    weights = _weights(decoder, mesh)
    slots = _slots(decoder, mesh, rows=rows, columns=columns, width=prompt, room=room)
    programs = [
        _compiled(name, lowered, weights, slots, topology)
        for name, lowered in _lowered(decoder, on_mesh, mesh, weights, slots, sampling, prompt, shards)
    ]
    each = rows * columns
    caches = device_bytes((slots.cache, slots.prompt_cache))
    flops = forward_flops(
        model, Work(tokens=each, scored=each, pairs=each * (prompt + room), near=each * (prompt + room))
    )
    return CompiledSampler(
        programs=tuple(programs),
        rows=rows,
        columns=columns,
        prompt=prompt,
        room=room,
        roofline=decode_roofline(
            weight_bytes=device_bytes(weights), cache_bytes=caches, flops=flops, slots=each, topology=topology
        ),
    )


def _weights(decoder: Decoder, mesh: Mesh) -> Any:
    one = jax.ShapeDtypeStruct((1, 8), jnp.int32)
    shapes: Any = jax.eval_shape(
        lambda row: decoder.init(jax.random.key(0), row, row, row, method="trunk")["params"], one
    )
    shardings = param_shardings(shapes, mesh)
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, decoder.dtype, sharding=s), shapes, shardings)


def _slots(decoder: Decoder, mesh: Mesh, *, rows: int, columns: int, width: int, room: int) -> Slots:
    """As ``engine_steps.empty`` makes them, placed as it places them."""
    shapes = jax.eval_shape(lambda: empty(decoder, None, rows=rows, columns=columns, width=width, room=room))

    def placed(name: str, x: Any) -> Any:
        axis = int(name in ("cache", "prompt_cache"))
        sharding = NamedSharding(mesh, PartitionSpec(*(None,) * axis, ROWS))
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding)

    fields = [field.name for field in dataclasses.fields(shapes)]
    return Slots(**{name: jax.tree.map(lambda x, name=name: placed(name, x), getattr(shapes, name)) for name in fields})


def _lowered(
    decoder: Decoder,
    on_mesh: Mesh | None,
    mesh: Mesh,
    weights: Any,
    slots: Slots,
    sampling: SamplingConfig,
    prompt: int,
    shards: int,
) -> list[tuple[str, Any]]:
    whole = NamedSharding(mesh, PartitionSpec())

    def given(*shape: int, dtype: Any = jnp.int32) -> Any:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=whole)

    rows, columns = slots.done.shape
    at_once = -(-max(1, min(16 // columns or 1, rows)) // shards) * shards
    policy = sampling.policies()[0]
    plan = Plan(decoder=decoder, form=Form(greedy=policy.greedy, top_k=policy.top_k > 0, top_p=policy.top_p < 1.0),
                mixed=False, mesh=on_mesh)  # fmt: skip
    with jax.set_mesh(mesh):
        prefill = admit.lower(decoder, on_mesh, weights, slots, given(at_once, prompt), given(at_once), given(at_once))
        decode = advance.lower(
            plan, weights, slots, given(8), given(rows), given(dtype=jnp.bool_), given(), given(),
            size=max(sampling.max_new_tokens - 1, 1),
        )  # fmt: skip
    return [("prefill", prefill), ("decode", decode)]


def _compiled(name: str, lowered: Any, weights: Any, slots: Slots, topology: Topology) -> Program:
    start = time.perf_counter()
    try:
        compiled = lowered.compile()
    except jax.errors.JaxRuntimeError as error:
        if (refused := read_out_of_memory(error, topology.chip.memory_bytes)) is not None:
            raise OutOfMemoryError(
                f"{name}: {refused}", need=refused.need, have=refused.have, largest=refused.largest
            ) from error
        raise
    memory = compiled.memory_analysis()
    total = memory.argument_size_in_bytes + memory.output_size_in_bytes + memory.temp_size_in_bytes
    return Program(
        name=name,
        weights=device_bytes(weights),
        caches=device_bytes(slots),
        temporaries=int(memory.temp_size_in_bytes),
        total=int(total - memory.alias_size_in_bytes),
        available=topology.chip.memory_bytes,
        compile_seconds=time.perf_counter() - start,
    )
