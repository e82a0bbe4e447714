r"""Training adapters beside training everything: seconds a step, memory, and how exact each base is.

    python -m benchmarks.bench_lora
    python -m benchmarks.bench_lora --model.vocab-size 32000 --model.width 2048 --model.num-layers 16 --lora.rank 64

Predicted: a step of all parameters is 6 operations a weight and token, of adapters 4, since frozen weights have no
gradient: 0.67 of the time where products rule it, and more where weights must be made from few bits twice. Of a fp32
weight with its gradient and two moments, 16 bytes, a bf16 base keeps 2, int8 1.06 and NF4 0.56.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks import bench_train_step, measure
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.flops import num_params
from jaxrefine.models.lora import LoraConfig, init_adapters
from jaxrefine.models.quantized import num_bytes
from jaxrefine.scoring.adapted import AdaptedObjective, Base, freeze
from jaxrefine.scoring.objectives import make_objective
from jaxrefine.sharding import make_mesh
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import init_params, init_state
from jaxrefine.training.step import make_train_step

KIND = "ranking"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    bases: tuple[Base, ...] = ("bfloat16", "int8", "nf4")
    """Beside training everything, the reference."""
    lora: LoraConfig = dataclasses.field(default_factory=LoraConfig)
    groups: int = 8
    rows: int = 4
    candidates: int = 4
    prompt: int = 96
    response: int = 64
    model: measure.Model = dataclasses.field(default_factory=measure.Model)
    dtype: measure.DType = "auto"
    repeats: int = 5
    seed: int = 0


def run(options: Options) -> Iterator[dict[str, Any]]:
    """One record for all parameters, and one for each base."""
    around, dtype = measure.environment(), measure.resolve(options.dtype)
    config = options.model.config(options.prompt + options.response + 8)
    mesh = make_mesh(devices=jax.devices()[:1])
    optimizer = make_optimizer(OptimizerConfig(schedule="constant"), 1000)
    objective = make_objective(bench_train_step.KINDS[KIND], Decoder(config, dtype=dtype, attention="expand"))
    shapes = {name: getattr(options, name) for name in ("groups", "rows", "candidates", "prompt", "response", "model")}
    host = bench_train_step.make_batch(
        bench_train_step.Options(**shapes, seed=options.seed), bench_train_step.KINDS[KIND], expand=True
    )
    whole = init_params(objective, jax.random.key(options.seed), host, mesh=mesh)
    batch = to_device(host, mesh=mesh)
    calls, compiled, held = {}, {}, {}
    for base in ("all", *options.bases):
        trained: Any = objective
        params, frozen = whole, None
        if base != "all":
            trained, frozen = AdaptedObjective(objective, options.lora), freeze(whole["model"], base)
            params = {"adapters": init_adapters(jax.random.key(1), whole["model"], options.lora)}
        state = init_state(params, optimizer, jax.random.key(options.seed), mesh=mesh, frozen=frozen)
        step = make_train_step(trained, optimizer, mesh=mesh)
        compiled[base] = step.compile(state, batch)
        held[base] = {
            "trained": sum(leaf.size for leaf in jax.tree.leaves(params)),
            "state_bytes": num_bytes(state),
            "drift": _drift(objective, trained, whole, params, frozen, host),
        }
        calls[base] = bench_train_step.stepper(step, state, batch)
    for call in calls.values():
        call()
    seconds, metrics = measure.interleaved(calls, repeats=options.repeats, seed=options.seed)
    of_all = measure.spread(seconds["all"])["median"]
    for base, taken in seconds.items():
        median = measure.spread(taken)["median"]
        yield {
            "benchmark": "lora",
            **around,
            "seed": options.seed,
            "repeats": options.repeats,
            "dtype": dtype.name,
            "base": base,
            "rank": None if base == "all" else options.lora.rank,
            "model": {**dataclasses.asdict(options.model), "num_params": num_params(config)},
            "shapes": {"B": host.tokens.shape[0], "S": host.tokens.shape[1], "T": host.targets.shape[1]},
            **held[base],
            "state_ratio": held["all"]["state_bytes"] / held[base]["state_bytes"],
            "seconds": measure.spread(taken),
            "time_ratio": median / of_all,
            "flops_ratio": compiled[base].flops / compiled["all"].flops,  # XLA's counts: loops once, in both
            "peak_memory_bytes": compiled[base].peak_memory_bytes,
            "peak_ratio": compiled["all"].peak_memory_bytes / compiled[base].peak_memory_bytes,
            "compile_seconds": compiled[base].compile_seconds,
            "finite": bool(metrics[base]["finite"]),
        }


def _drift(objective: Any, trained: Any, whole: Any, params: Any, frozen: Any, host: Any) -> float:
    """Mean |difference| of the candidates' scores before any step, as a share of their mean size: rounding alone."""
    score = jax.jit(lambda p: objective.apply({"params": p}, host, method="score").scores)
    expected = score(whole)
    if frozen is None:
        return 0.0
    given = {"params": params, "frozen": frozen}
    found = jax.jit(lambda variables: trained.apply(variables, host, method="score").scores)(given)
    return float(jnp.mean(jnp.abs(found - expected)) / jnp.mean(jnp.abs(expected)))


if __name__ == "__main__":
    measure.report(run(tyro.cli(Options, description=__doc__)))
