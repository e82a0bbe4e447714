r"""Log-probs of given tokens, in chunks against the plain form that holds tokens × vocabulary: seconds and memory.

    python -m benchmarks.bench_logprobs
    python -m benchmarks.bench_logprobs --tokens 4096 16384 --vocabulary 32000 128256 --width 4096 --dtype bfloat16

Both forms are timed in turns, for the value alone and for value and gradient (by hidden states and by embedding);
temporary memory is XLA's own figure for each executable.
"""

from __future__ import annotations

import dataclasses
import itertools
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import tyro

from benchmarks import measure
from jaxrefine.losses.logprobs import default_chunk_size, token_logprobs


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    tokens: tuple[int, ...] = (512, 2048)
    """M."""
    vocabulary: tuple[int, ...] = (4096, 32_000)
    """V."""
    width: int = 128
    """D."""
    chunk_size: int | None = None
    """Tokens a chunk; by default the library's choice."""
    plain: bool = True
    """Measure the plain form too; without, for sizes at which it does not fit."""
    dtype: measure.DType = "auto"
    repeats: int = 5
    seed: int = 0


def plain_logprobs(hidden: jax.Array, embedding: jax.Array, targets: jax.Array) -> jax.Array:
    """The target's entry of log softmax(hidden · embeddingᵀ), with all logits in fp32 at once."""
    weights = embedding.astype(hidden.dtype)
    logits = jnp.einsum("md,vd->mv", hidden, weights, preferred_element_type=jnp.float32)
    return jnp.take_along_axis(jax.nn.log_softmax(logits), targets[:, None], axis=1)[:, 0]


def flops(M: int, V: int, D: int, *, gradient: bool) -> int:
    """Model FLOPs: one product of M × D × V forward, two backward; what the chunked form computes again is not counted.

    >>> flops(2, 3, 5, gradient=True)
    180
    """
    return 2 * M * D * V * (3 if gradient else 1)


def run(options: Options) -> Iterator[dict[str, Any]]:
    """One record for each M and V."""
    around, dtype = measure.environment(), measure.resolve(options.dtype)
    D = options.width

    def chunked(hidden: jax.Array, embedding: jax.Array, targets: jax.Array) -> jax.Array:
        return token_logprobs(hidden, embedding, targets, chunk_size=options.chunk_size)

    forms = {"chunked": chunked} | ({"plain": plain_logprobs} if options.plain else {})
    for M, V in itertools.product(options.tokens, options.vocabulary):
        keys = jax.random.split(jax.random.fold_in(jax.random.key(options.seed), M * V), 3)
        hidden = jax.random.normal(keys[0], (M, D), dtype)
        embedding = jax.random.normal(keys[1], (V, D), jnp.float32) / jnp.float32(D) ** 0.5
        targets = jax.random.randint(keys[2], (M,), 0, V, jnp.int32)
        ways: dict[str, dict[str, Any]] = {}
        for what in ("value", "gradient"):
            compiled = {}
            for name, form in forms.items():
                function = form if what == "value" else _with_gradient(form)
                compiled[name] = jax.jit(function).lower(hidden, embedding, targets).compile()
            calls = {
                name: lambda call=call, given=(hidden, embedding, targets): call(*given)
                for name, call in compiled.items()
            }
            seconds, results = measure.interleaved(calls, repeats=options.repeats, seed=options.seed)
            work = flops(M, V, D, gradient=what == "gradient")
            memory = {name: measure.memory_bytes(call) for name, call in compiled.items()}
            ways[what] = {
                "flops": work,
                **{
                    name: {
                        "seconds": measure.spread(seconds[name]),
                        "memory_bytes": memory[name],
                        **measure.speed(work, measure.spread(seconds[name])["median"], dtype),
                    }
                    for name in forms
                },
            }
            if options.plain:
                ways[what] |= {
                    "time_ratio": measure.ratios(seconds["plain"], seconds["chunked"]),
                    "memory_ratio": measure.memory_ratio(memory["plain"], memory["chunked"]),
                    "relative_difference": measure.relative_difference(results["chunked"], results["plain"]),
                }
            del results
        yield {
            "benchmark": "logprobs",
            **around,
            "seed": options.seed,
            "repeats": options.repeats,
            "dtype": dtype.name,
            "shapes": {"M": M, "V": V, "D": D},
            "chunk_size": min(M, options.chunk_size or default_chunk_size(M, V)),
            "logits_bytes": 4 * M * V,
            **ways,
        }


def _with_gradient(form: Any) -> Any:
    """Value, and gradients by hidden states and embedding of its mean."""

    def mean(hidden: jax.Array, embedding: jax.Array, targets: jax.Array) -> tuple[jax.Array, jax.Array]:
        values = form(hidden, embedding, targets)
        return jnp.mean(values), values

    return jax.value_and_grad(mean, argnums=(0, 1), has_aux=True)


if __name__ == "__main__":
    measure.report(run(tyro.cli(Options, description=__doc__)))
