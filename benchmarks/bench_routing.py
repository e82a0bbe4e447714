r"""Queries a second of a router: batched, one at a time, and by hashed words alone.

    python -m benchmarks.bench_routing
    python -m benchmarks.bench_routing --width 768 --num-layers 12 --num-heads 12 --hidden-width 3072 \
        --vocab-size 32000 --queries 4096 --batch-tokens 65536

A DeBERTa-like encoder of random weights routes made-up queries of many lengths; a round before the timed ones compiles.

batched       all queries at once: sorted by length, one compiled shape for each power of two
one by one    each query alone, as a server without batching would see it; the first ``--singles`` of them
words         a linear router of hashed words

Tokens are those of the queries, never padding; ``used`` is the share of the computed slots that holds one. Batched and
alone, a query must get the same probabilities: ``largest_difference`` says how far they are apart.
"""

from __future__ import annotations

import dataclasses
import pathlib
import tempfile
from collections.abc import Iterator
from typing import Any

import jax.numpy as jnp
import numpy as np
import tyro

from benchmarks import measure
from jaxrefine.conversion.loaded import Placement, load_model
from jaxrefine.models.encoder_config import EncoderConfig, RelativePositions
from jaxrefine.selection.features import FeatureRouter
from jaxrefine.selection.router import ModelRouter
from jaxrefine.systems.zooter_routers import new_encoder


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
    """What is measured."""

    queries: int = 512
    longest: int = 128
    """Words of a query: from 4 to so many, evenly in the logarithm."""
    singles: int = 32
    models: int = 6
    """M, to route between."""
    vocab_size: int = 2048
    width: int = 128
    num_layers: int = 4
    num_heads: int = 4
    hidden_width: int = 512
    max_prompt: int = 512
    batch_tokens: int = 16384
    num_features: int = 2048
    dtype: measure.DType = "auto"
    repeats: int = 3
    seed: int = 0


def run(options: Options) -> Iterator[dict[str, Any]]:
    """One record."""
    rng = np.random.default_rng(options.seed)
    words = ["".join(rng.choice(list("abcdefghijklmnop"), size=rng.integers(2, 8))) for _ in range(500)]
    lengths = np.exp(rng.uniform(np.log(4), np.log(options.longest), options.queries)).astype(int)
    prompts = [" ".join(rng.choice(words, size=length)) for length in lengths]
    config = EncoderConfig(
        vocab_size=options.vocab_size, width=options.width, num_layers=options.num_layers,
        num_heads=options.num_heads, head_width=options.width // options.num_heads, hidden_width=options.hidden_width,
        max_positions=options.max_prompt, positions="none",
        relative=RelativePositions(
            max_distance=options.max_prompt, num_buckets=options.max_prompt // 2, shared_projections=True, norm=True
        ),
    )  # fmt: skip
    with tempfile.TemporaryDirectory() as directory:
        start = pathlib.Path(directory) / "encoder"
        new_encoder(start, config, prompts[:200], seed=options.seed)
        loaded = load_model(start, Placement(dtype=measure.resolve(options.dtype).name))
    head = {"kernel": jnp.asarray(rng.normal(size=(options.models, options.width)), jnp.float32)}
    router = ModelRouter(loaded, head, max_prompt=options.max_prompt, batch_tokens=options.batch_tokens)
    linear = FeatureRouter(rng.normal(size=(options.num_features, options.models)), np.zeros(options.models), True, 1.0)
    singles = prompts[: options.singles]
    seconds, found = measure.interleaved(
        {
            "batched": lambda: router.probabilities(prompts),
            "one by one": lambda: np.concatenate([router.probabilities([prompt]) for prompt in singles]),
            "words": lambda: linear.probabilities(prompts),
        },
        repeats=options.repeats,
        seed=options.seed,
    )
    sizes = np.array([min(len(loaded.tokenizer.encode(prompt)) + 1, options.max_prompt) for prompt in prompts])
    slots = 2 ** np.ceil(np.log2(np.maximum(sizes, 32)))
    counts = {"batched": options.queries, "one by one": len(singles), "words": options.queries}
    tokens = {name: int(sizes[:count].sum()) for name, count in counts.items()}
    yield {
        "benchmark": "routing",
        **measure.environment(),
        "seed": options.seed,
        "repeats": options.repeats,
        "dtype": measure.resolve(options.dtype).name,
        "shapes": {"queries": options.queries, "M": options.models, "tokens": int(sizes.sum())},
        "encoder": {name: getattr(options, name) for name in ("width", "num_layers", "num_heads", "hidden_width")},
        "compilations": len(router.shapes),
        "used": float(sizes.sum() / slots.sum()),
        "largest_difference": float(np.abs(found["batched"][: len(singles)] - found["one by one"]).max()),
        "ways": {
            name: {
                "seconds": (spread := measure.spread(values)),
                "queries_per_second": counts[name] / spread["median"],
                "tokens_per_second": tokens[name] / spread["median"],
            }
            for name, values in seconds.items()
        },
    }


def main() -> None:
    measure.report(run(tyro.cli(Options, description=__doc__)))


if __name__ == "__main__":
    main()
