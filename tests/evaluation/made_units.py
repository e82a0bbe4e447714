"""Made-up units of a comparison, for tests of what is done with them."""

from __future__ import annotations

import numpy as np

from jaxrefine.evaluation.comparison import METRICS, Unit


def make_units(
    names: tuple[str, ...] = ("mle", "tuna", "dpo"),
    *,
    seeds: tuple[int, ...] = (0, 1, 2),
    prompts: int = 50,
    steps: int = 6,
) -> list[Unit]:
    """Every variant a little better than the one before; the same prompts are hard for all."""
    generator = np.random.default_rng(0)
    difficulty = generator.uniform(size=prompts)
    units = []
    for place, name in enumerate(names):
        for seed in seeds:
            share = 0.45 + 0.1 * place
            quality = {
                metric: (difficulty + 0.05 * generator.normal(size=prompts) < share).astype(float).tolist()
                for metric in METRICS
            }
            units.append(
                Unit(
                    variant=name,
                    seed=seed,
                    quality=quality,
                    loss=tuple((2.0 * 0.8 ** np.arange(steps) + 0.1 * generator.uniform(size=steps)).tolist()),
                    seconds_per_step=0.1 * (place + 1) + 0.01 * seed,
                    scored_tokens_per_second=5000.0 / (place + 1),
                    peak_memory_bytes=float(100 * 2**20),
                    compile_seconds=4.0 + place,
                    train_seconds=0.1 * steps * (place + 1),
                )
            )
    return units


def make_start(prompts: int = 50) -> dict[str, list[float | None]]:
    """A start that is right on every other prompt."""
    return {metric: [float(index % 2) for index in range(prompts)] for metric in METRICS}
