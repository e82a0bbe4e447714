"""A plan: one fine-tuning on one topology, compiled without it: what it needs, sends and takes, and what would help."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from jaxrefine.config import unknown_name
from jaxrefine.models.config import TransformerConfig
from jaxrefine.planning.compiled import CompiledSampler, CompiledTraining, compile_sampler, compile_training
from jaxrefine.planning.devices import absent_devices
from jaxrefine.planning.memory import Predicted, predict
from jaxrefine.planning.remedies import Remedy, Trial, remedies, search
from jaxrefine.planning.roofline import Roofline, roofline, updated_bytes
from jaxrefine.planning.setup import Setup, default_attention, with_training
from jaxrefine.planning.shapes import model_shape, size_in_name
from jaxrefine.planning.topology import Topology
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sharding import MeshConfig
from jaxrefine.training.full_size import AbstractStep, NamedFinetuning
from jaxrefine.training.memory import OutOfMemoryError, device_bytes

Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What a command line may change."""

    model: str | None = None
    """A directory, or a published size; None is the config's own."""
    training: str | None = None
    """Which of the config's fine-tunings; None is the one that needs most memory."""
    mesh: dict[str, int] = dataclasses.field(default_factory=dict)
    """Sizes by axis; None of them is the config's own mesh."""
    remat: str | None = None
    attention: str | None = None
    logprob_chunk: int | None = None
    microbatches: int | None = None
    groups: int | None = None
    """Prompts a step."""
    candidates: int | None = None
    """Responses a prompt."""
    compile_sampler: bool = True
    compile_training: bool = True
    """False: by formula alone."""
    search: bool = False


def options_of(flags: Mapping[str, str], numbers: Mapping[str, int]) -> Options:
    """The options of a command line: flags as they were written, and those of them that are numbers.

    >>> options_of({"--search": "", "--remat": "dots"}, {"--fsdp": 4}).mesh
    {'fsdp': 4}
    """
    compiles = "--no-compile" not in flags
    return Options(
        model=flags.get("--model"),
        training=flags.get("--training"),
        mesh={axis: numbers[f"--{axis}"] for axis in ("data", "fsdp", "tensor") if f"--{axis}" in numbers},
        remat=flags.get("--remat"),
        attention=flags.get("--attention"),
        logprob_chunk=numbers.get("--logprob-chunk"),
        microbatches=numbers.get("--microbatches"),
        groups=numbers.get("--groups"),
        candidates=numbers.get("--candidates"),
        compile_sampler=compiles and "--no-sampler" not in flags,
        compile_training=compiles,
        search="--search" in flags,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class PlanResult:
    """What is known of one fine-tuning on one topology."""

    config: str
    training: str
    model: str
    topology: Topology
    setup: Setup
    remark: str
    """Why the attention is not the platform's own; "" where it is."""
    made: AbstractStep
    predicted: Predicted
    compiled: CompiledTraining | None
    refusal: OutOfMemoryError | None
    """Of the compiler."""
    roofline: Roofline | None
    """None for an encoder, whose FLOPs are not counted."""
    sampler: CompiledSampler | None
    sampler_refusal: OutOfMemoryError | None
    remedies: tuple[Remedy, ...]
    trials: tuple[Trial, ...]
    others: dict[str, int]
    """Predicted bytes of the config's other fine-tunings."""

    @property
    def need(self) -> int:
        """Bytes of a device: compiled, else as the compiler refused them, else predicted."""
        if self.compiled is not None:
            return self.compiled.memory.total
        return self.refusal.need if self.refusal is not None else self.predicted.total

    @property
    def fits(self) -> bool:
        """Whether training does."""
        return self.refusal is None and self.need <= self.topology.chip.memory_bytes


def fine_tunings_of(configured: Any, name: str) -> list[NamedFinetuning]:
    """What a config trains.

    Raises:
        ValueError: a config that trains nothing by fine-tuning.
    """
    ask = getattr(configured, "fine_tunings", None)
    found: list[NamedFinetuning] = ask() if callable(ask) else []
    if not found:
        raise ValueError(
            f"{name}: {type(configured).__name__} fine-tunes nothing, so there is no step to plan; plan one of tuna/…, "
            "math/…, art/…, zooter/…, pandalm/…, finetuning/…"
        )
    return found


def make_plan(
    configured: Any, name: str, topology: Topology, options: Options, *, say: Say = lambda text: None
) -> PlanResult:
    """Plans a config; see ``PlanResult``.

    Args:
        configured: with ``fine_tunings()`` and, if it has one, ``placement``.
        name: of the config.
        topology: where it is to run.
        options: what differs from the config.
        say: gets a line before what takes long.

    Raises:
        ValueError: no such fine-tuning, model, axis or backend, or what does not fit together.
    """
    devices = absent_devices(topology)
    size = size_in_name(name)
    items = fine_tunings_of(configured, name)
    found = {item.name: dataclasses.replace(item, model=item.model or size) for item in items}
    if options.training is not None and options.training not in found:
        raise ValueError(unknown_name(options.training, found, f"fine-tuning of {name}"))
    setups = {key: _setup(item, configured, topology, options) for key, item in found.items()}
    totals = _totals({key: setup for key, (setup, _) in setups.items()}, devices, only=options.training)
    chosen = options.training or max(totals, key=lambda key: totals[key])
    setup, remark = setups[chosen]
    result = plan_setup(
        setup, devices, topology, options=options, say=say, remark=remark,
        label=(name, chosen, str(options.model or _model_name(found[chosen]))),
    )  # fmt: skip
    return dataclasses.replace(result, others={key: total for key, total in totals.items() if key != chosen})


def plan_setup(
    setup: Setup,
    devices: Sequence[Any],
    topology: Topology,
    *,
    options: Options,
    label: tuple[str, str, str],
    remark: str = "",
    say: Say = lambda text: None,
) -> PlanResult:
    """The same of one setup; ``label`` is (config, fine-tuning, model)."""
    made = setup.made(devices)
    compiled, refusal = None, None
    if options.compile_training:
        say(f"compiling the train step of {label[1]} for {topology.num_devices} × {topology.chip.name} …")
        try:
            compiled = compile_training(setup, devices, topology)
        except OutOfMemoryError as error:
            refusal = error
    sampler, sampler_refusal = None, None
    if options.compile_sampler and isinstance(setup.model, TransformerConfig):
        say("compiling the sampler's prefill and decode …")
        training = setup.training
        sampling = SamplingConfig(num_candidates=max(setup.num_candidates, 1), max_new_tokens=training.max_response)
        try:
            sampler = compile_sampler(setup.model, sampling, setup=setup, devices=devices, topology=topology,
                                      max_prompt=training.max_prompt)  # fmt: skip
        except OutOfMemoryError as error:
            sampler_refusal = error
    result = PlanResult(
        config=label[0], training=label[1], model=label[2], topology=topology, setup=setup, remark=remark, made=made,
        predicted=predict(setup, made), compiled=compiled, refusal=refusal,
        roofline=_roofline(setup, made, topology, compiled), sampler=sampler, sampler_refusal=sampler_refusal,
        remedies=(), trials=(), others={},
    )  # fmt: skip
    found = () if result.fits else tuple(remedies(setup, devices))
    trials = []
    if options.search:
        for trial in search(setup, devices, topology):
            say(f"{trial.change}: {'fits' if trial.fits else 'does not fit'}")
            trials.append(trial)
    return dataclasses.replace(result, remedies=found, trials=tuple(trials))


def _setup(item: NamedFinetuning, configured: Any, topology: Topology, options: Options) -> tuple[Setup, str]:
    given = options.model if options.model is not None else item.model
    model = model_shape(given, head=False) if given is None or isinstance(given, str) else given
    placement = getattr(configured, "placement", None)
    mesh = MeshConfig(data=1, fsdp=-1)
    if options.mesh:
        free = "fsdp" if "fsdp" not in options.mesh else "data" if "data" not in options.mesh else None
        sizes = {"data": 1, "fsdp": 1, "tensor": 1} | ({free: -1} if free else {}) | options.mesh
        mesh = MeshConfig(**sizes)
    elif placement is not None and placement.mesh != MeshConfig():
        mesh = placement.mesh
    attention, remark = options.attention, ""
    if attention is None:
        attention, remark = default_attention(topology, model, item.training.slots)
    own = getattr(placement, "remat", "none")
    dtype = getattr(placement, "dtype", "auto")
    setup = Setup(
        training=item.training,
        model=model,
        num_candidates=item.num_candidates if options.candidates is None else options.candidates,
        mesh=mesh,
        remat=options.remat or (own if own != "none" else "full"),
        attention=attention,
        precision="bfloat16" if dtype == "auto" else dtype,
        logprobs=getattr(placement, "logprobs", "xla"),
        logprob_chunk=options.logprob_chunk or getattr(placement, "logprob_chunk", None),
    )
    if options.microbatches is not None:
        setup = with_training(setup, num_microbatches=options.microbatches)
    if options.groups is not None:
        setup = with_training(setup, groups_per_step=options.groups)
    return setup, remark


def _totals(setups: dict[str, Setup], devices: Sequence[Any], only: str | None) -> dict[str, int]:
    """Predicted bytes by name; steps that differ in numbers alone are made once."""
    found: dict[str, int] = {}
    seen: dict[str, int] = {}
    for name, setup in setups.items():
        if only is not None and name != only:
            continue
        training = setup.training
        same = repr((training.objective.loss, training.objective.scorer, bool(training.objective.mle_weight),
                     training.groups_per_step, training.num_microbatches, training.max_prompt, training.max_response,
                     training.slots, training.tuning, training.mle_on, setup.num_candidates, setup.model))  # fmt: skip
        if same not in seen:
            seen[same] = predict(setup, setup.made(devices)).total
        found[name] = seen[same]
    return found


def _model_name(item: NamedFinetuning) -> str:
    return "shipped" if item.model is None else item.model if isinstance(item.model, str) else "of the config"


def _roofline(
    setup: Setup, made: AbstractStep, topology: Topology, compiled: CompiledTraining | None
) -> Roofline | None:
    if not isinstance(setup.model, TransformerConfig):
        return None
    params = device_bytes(made.state.params)
    return roofline(
        setup.model,
        made.rows,
        topology=topology,
        remat=setup.remat,
        attention=setup.attention,
        num_microbatches=made.num_microbatches,
        row_shards=setup.row_shards(topology.num_devices),
        updated_bytes=updated_bytes(params, device_bytes(made.state.opt_state)),
        sent=() if compiled is None else compiled.sent,
    )


def versions() -> dict[str, str]:
    """Of what compiled."""
    return {"jax": jax.__version__}
