r"""The train step of each kind of objective: tokens and scored tokens a second, FLOPs, memory, seconds to compile.

    python -m benchmarks.bench_train_step
    python -m benchmarks.bench_train_step --groups 64 --rows 32 --prompt 512 --response 256 --candidates 4 \
        --remat dots --model.vocab-size 128256 --model.width 2048 --model.num-layers 16 --model.num-heads 32 \
        --model.num-kv-heads 8 --model.hidden-width 8192

A step is all that training does between two batches: forward, backward, clipping, AdamW, metrics; the batch is on the
device. Kinds are timed in turns.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np
import tyro

from benchmarks import measure
from jaxrefine.config import unknown_name
from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.packing import PackingConfig, TokenGroup, pack, usage
from jaxrefine.models.attention import ATTENTION
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.flops import batch_work, num_params, train_flops
from jaxrefine.scoring.objectives import ObjectiveConfig, make_objective
from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import init_params, init_state
from jaxrefine.training.step import make_train_step

KINDS: dict[str, ObjectiveConfig] = {
    "likelihood": ObjectiveConfig(mle_weight=1.0),
    "ranking": ObjectiveConfig(loss="margin_ranking", loss_options={"gaps": "mean"}, mle_weight=1.0),
    "pairwise": ObjectiveConfig(loss="pairwise_logistic", scorer="reward", mle_weight=1.0),
    "classification": ObjectiveConfig(loss="verdict_cross_entropy", scorer="verdict", mle_weight=1.0),
    "preference": ObjectiveConfig(loss="dpo"),
    "distillation": ObjectiveConfig(loss="reward_distillation", scorer="router", num_models=4),
}
"""One objective of each kind of supervision."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    kinds: tuple[str, ...] = tuple(KINDS)
    attention: tuple[str, ...] = ("expand",)
    groups: int = 8
    """Prompts in a batch."""
    rows: int = 4
    """Rows that they are packed into."""
    candidates: int = 4
    """N."""
    prompt: int = 96
    """P."""
    response: int = 64
    """R of the longest; lengths are spread evenly from half of it."""
    model: measure.Model = dataclasses.field(default_factory=measure.Model)
    dtype: measure.DType = "auto"
    remat: str = "none"
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    num_devices: int = 1
    num_microbatches: int = 1
    repeats: int = 5
    seed: int = 0

    def __post_init__(self) -> None:
        for given, allowed, what in ((self.kinds, KINDS, "kind"), (self.attention, ATTENTION, "attention")):
            for name in given:
                if name not in allowed:
                    raise ValueError(unknown_name(name, allowed, what))
        if self.candidates < 2:
            raise ValueError(f"candidates = {self.candidates}: a ranking needs at least 2")


def make_batch(options: Options, objective: ObjectiveConfig, *, expand: bool) -> PackedBatch:
    """Random tokens with all that an objective may read: labels, reference scores, verdict words or rewards."""
    rng, N, V = np.random.default_rng(options.seed), options.candidates, options.model.vocab_size
    routed, verdicts = objective.scorer == "router", objective.scorer == "verdict"

    def draw(length: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, V, length).tolist())

    groups = []
    for number in range(options.groups):
        lengths = np.linspace(options.response, max(1, options.response // 2), N).astype(int)
        prompt, responses = draw(options.prompt), tuple(draw(int(length)) for length in rng.permutation(lengths))
        rewards = tuple(rng.normal(size=objective.num_models or 1).tolist())
        groups.append(TokenGroup(
            number,
            prompt,
            () if routed else responses,
            labels=() if routed else tuple(float(n % 2) for n in range(N)),
            reference_scores=() if routed else tuple(-float(len(response)) for response in responses),
            suffix=(1, 2) if verdicts else (),
            verdicts=((3,), (4, 5)) if verdicts else None,
            rewards=rewards if routed else None,
        ))  # fmt: skip
    fixed: dict[str, Any] = {"rows": options.rows, "multiple": 1, "verdicts": verdicts, "expand": expand}
    largest = PackingConfig.fit(groups, **fixed).slots
    slots = -(-options.groups // options.rows) * largest
    [batch] = pack(groups, PackingConfig.fit(groups, slots=slots, **fixed))
    return batch


def run(options: Options) -> Iterator[dict[str, Any]]:
    """One record for each kind and attention backend."""
    around, dtype = measure.environment(), measure.resolve(options.dtype)
    config = options.model.config(options.prompt + options.response + 8)
    mesh = make_mesh(options.mesh, jax.devices()[: options.num_devices])
    optimizer = make_optimizer(OptimizerConfig(schedule="constant"), 1000)
    calls: dict[str, Callable[[], Any]] = {}
    made: dict[str, tuple[str, str, PackedBatch, Any]] = {}
    for kind in options.kinds:
        for backend in options.attention:
            name = f"{kind}, {backend}"
            decoder = Decoder(config, dtype=dtype, attention=backend, remat=options.remat)
            objective = make_objective(KINDS[kind], decoder)
            host = make_batch(options, KINDS[kind], expand=ATTENTION[backend].reads_paths)
            params = init_params(objective, jax.random.key(options.seed), host, mesh=mesh)
            state = init_state(params, optimizer, jax.random.key(options.seed), mesh=mesh)
            batch = to_device(host, mesh=mesh, num_microbatches=options.num_microbatches)
            step = make_train_step(objective, optimizer, mesh=mesh, num_microbatches=options.num_microbatches)
            made[name] = (kind, backend, host, step.compile(state, batch))
            calls[name] = stepper(step, state, batch)
    first = {name: float(call()["loss"]) for name, call in calls.items()}
    seconds, metrics = measure.interleaved(calls, repeats=options.repeats, seed=options.seed)
    for name, (kind, backend, host, compiled) in made.items():
        work = batch_work(host)
        flops, taken = train_flops(config, work), measure.spread(seconds[name])
        yield {
            "benchmark": "train_step",
            **around,
            "seed": options.seed,
            "repeats": options.repeats,
            "dtype": dtype.name,
            "remat": options.remat,
            "kind": kind,
            "attention": backend,
            "objective": dataclasses.asdict(KINDS[kind]),
            "model": {**dataclasses.asdict(options.model), "num_params": num_params(config)},
            "shapes": {
                "B": host.tokens.shape[0],
                "S": host.tokens.shape[1],
                "T": host.targets.shape[1],
                "G": host.group_ids.shape[1],
                "N": host.num_candidates,
                "microbatches": options.num_microbatches,
                "devices": options.num_devices,
            },
            "used": usage(host),
            "tokens": work.tokens,
            "scored_tokens": work.scored,
            "flops": flops,
            "seconds": taken,
            "tokens_per_second": work.tokens / taken["median"],
            "scored_tokens_per_second": work.scored / taken["median"],
            **measure.speed(flops / options.num_devices, taken["median"], dtype),
            "compile_seconds": compiled.compile_seconds,
            "peak_memory_bytes": compiled.peak_memory_bytes,
            "first_loss": first[name],
            "last_loss": float(metrics[name]["loss"]),
            "finite": bool(metrics[name]["finite"]),
        }


def stepper(step: Any, state: Any, batch: PackedBatch) -> Callable[[], Any]:
    """A call that takes the next step and gives its metrics; the state is donated from one to the next."""
    held = [state]

    def call() -> Any:
        held[0], metrics = step(held[0], batch)
        jax.block_until_ready(held[0].params)
        return metrics

    return call


if __name__ == "__main__":
    measure.report(run(tyro.cli(Options, description=__doc__)))
