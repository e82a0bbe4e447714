r"""Prompts laid out once against prompts repeated for each candidate: seconds and memory of a gradient, as ratios.

    python -m benchmarks.bench_packing
    python -m benchmarks.bench_packing --candidates 4 8 --prompts 1024 --responses 256 --groups 64 --rows 8 \
        --model.width 2048 --model.num-layers 16 --model.num-heads 16 --model.num-kv-heads 8 --model.hidden-width 8192

The same groups go through the same objective in four ways: shared or repeated prompts, with either attention backend;
all are timed in turns, in one run. "repeated, expand" is what a trainer without sharing does: N separate sequences
(each attends to itself alone, and nothing is padded); every ratio is against it.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import measure
from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.packing import PackingConfig, TokenGroup, pack, usage
from jaxrefine.models.attention import ANYWHERE, attention_backend
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.flops import batch_work, num_params, train_flops
from jaxrefine.scoring.objectives import Objective, ObjectiveConfig, make_objective
from jaxrefine.training.state import init_params

BASELINE = "repeated, expand"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    candidates: tuple[int, ...] = (2, 4, 8)
    """N."""
    prompts: tuple[int, ...] = (128,)
    """P, tokens of a prompt."""
    responses: tuple[int, ...] = (32, 128)
    """R, tokens of each response."""
    groups: int = 2
    """Prompts in a batch."""
    rows: int | None = None
    """Rows that they are packed into; by default one a group."""
    attention: tuple[str, ...] = ANYWHERE
    model: measure.Model = dataclasses.field(default_factory=measure.Model)
    dtype: measure.DType = "auto"
    remat: str = "none"
    repeats: int = 5
    seed: int = 0


def predicted_ratio(N: int, P: int, R: int) -> float:
    """Tokens with repeated prompts over tokens with shared ones: N(P + R) / (P + N·R).

    >>> predicted_ratio(4, 96, 32)
    2.2857142857142856
    """
    return N * (P + R) / (P + N * R)


def make_groups(options: Options, N: int, P: int, R: int) -> list[TokenGroup]:
    """Random tokens; labels that rank the candidates."""
    rng = np.random.default_rng((options.seed, N, P, R))

    def draw(length: int) -> tuple[int, ...]:
        return tuple(rng.integers(1, options.model.vocab_size, length).tolist())

    labels = tuple(float(N - n) for n in range(N))
    return [TokenGroup(i, draw(P), tuple(draw(R) for _ in range(N)), labels=labels) for i in range(options.groups)]


def lay_out(groups: list[TokenGroup], rows: int, *, share: bool, expand: bool) -> PackedBatch:
    """All groups in one batch of rows as full as they can be."""
    free = PackingConfig.fit(groups, rows=rows, multiple=1, share_prompt=share, expand=expand)
    per_row = -(-len(groups) // rows)
    config = PackingConfig.fit(
        groups, rows=rows, multiple=1, slots=per_row * free.slots, share_prompt=share, expand=expand
    )
    [batch] = pack(groups, config)
    return batch


def gradient(objective: Objective) -> Callable[[Any, PackedBatch], tuple[jax.Array, Any]]:
    """(params, batch) -> (loss, its gradient)."""

    def loss(params: Any, batch: PackedBatch) -> jax.Array:
        terms, _ = objective.apply({"params": params}, batch)
        total = jnp.zeros((), jnp.float32)
        for value, count, coefficient in terms.values():
            total += coefficient * value / jnp.maximum(count, 1)
        return total

    return jax.value_and_grad(loss)


def run(options: Options) -> Iterator[dict[str, Any]]:
    """One record for each N, P and R."""
    around, dtype = measure.environment(), measure.resolve(options.dtype)
    rows = options.groups if options.rows is None else options.rows
    attention = tuple(dict.fromkeys((*options.attention, "expand")))
    settings = ObjectiveConfig(loss="margin_ranking", loss_options={"gaps": "mean"}, mle_weight=1.0)
    for N, P, R in itertools.product(options.candidates, options.prompts, options.responses):
        groups = make_groups(options, N, P, R)
        config = options.model.config(P + R)
        params, calls, batches, memory = None, {}, {}, {}
        for layout, backend in itertools.product(("repeated", "shared"), attention):
            name = f"{layout}, {backend}"
            host = lay_out(groups, rows, share=layout == "shared", expand=attention_backend(backend).reads_paths)
            decoder = Decoder(config, dtype=dtype, attention=backend, remat=options.remat)
            objective = make_objective(settings, decoder)
            if params is None:
                params = init_params(objective, jax.random.key(options.seed), host)
            batch = jax.device_put(host)
            compiled = jax.jit(gradient(objective)).lower(params, batch).compile()
            batches[name], memory[name] = host, measure.memory_bytes(compiled)
            calls[name] = lambda compiled=compiled, batch=batch, params=params: compiled(params, batch)
        seconds, results = measure.interleaved(calls, repeats=options.repeats, seed=options.seed)
        loss, grads = results[BASELINE]
        flops = {name: train_flops(config, batch_work(batch)) for name, batch in batches.items()}
        yield {
            "benchmark": "packing",
            **around,
            "seed": options.seed,
            "repeats": options.repeats,
            "dtype": dtype.name,
            "remat": options.remat,
            "model": {**dataclasses.asdict(options.model), "num_params": num_params(config)},
            "shapes": {"N": N, "P": P, "R": R, "groups": options.groups, "rows": rows},
            "ways": {
                name: {
                    "slots": batch.tokens.shape[1],
                    "used": usage(batch)["slots"],
                    "flops": flops[name],
                    "seconds": measure.spread(seconds[name]),
                    "memory_bytes": memory[name],
                    **measure.speed(flops[name], measure.spread(seconds[name])["median"], dtype),
                }
                for name, batch in batches.items()
            },
            "predicted_ratio": predicted_ratio(N, P, R),
            "baseline": BASELINE,
            "flops_ratio": {name: flops[BASELINE] / flops[name] for name in calls},
            "time_ratio": {name: measure.ratios(seconds[BASELINE], seconds[name]) for name in calls},
            "memory_ratio": {name: measure.memory_ratio(memory[BASELINE], memory[name]) for name in calls},
            "relative_difference": {
                name: {
                    "loss": measure.relative_difference(result[0], loss),
                    "gradient": measure.relative_difference(result[1], grads),
                }
                for name, result in results.items()
            },
        }


if __name__ == "__main__":
    measure.report(run(tyro.cli(Options, description=__doc__)))
