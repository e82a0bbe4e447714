"""What the runs of a comparison say together: quality with intervals, paired with the control, and cost.

A *unit* is one variant trained from one seed. Its record holds, for each metric, one value a held-out prompt (None
where the prompt does not count), and what it cost.
"""

from __future__ import annotations

import dataclasses
import math
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrefine.evaluation.metrics import (
    Interval,
    Resamples,
    bootstrap,
    make_resamples,
    paired_difference,
    smallest_detectable,
)
from jaxrefine.typing import Array, Float

START = "start"
"""The row of the weights that every variant starts from."""


@dataclasses.dataclass(frozen=True)
class Metric:
    """A column of quality; all are shares, higher is better."""

    title: str
    description: str


METRICS: dict[str, Metric] = {
    "greedy_accuracy": Metric("greedy", "the greedy solution of a held-out prompt ends in the right answer"),
    "ranking_accuracy": Metric(
        "ranking",
        "of the common base samples, a better-labelled one scores above a worse one (pairs of a prompt, ties half)",
    ),
    "majority_vote": Metric("vote", "the most frequent answer of the variant's own samples is right"),
    "reranked_accuracy": Metric(
        "re-ranked", "of the common base samples, the one that the variant's scorer likes most is right"
    ),
}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Unit:
    """One variant trained from one seed."""

    variant: str
    seed: int
    quality: Mapping[str, Sequence[float | None]]
    """By metric, one value a held-out prompt; a metric that could not be measured is absent."""
    loss: tuple[float | None, ...] = ()
    """Of each training step."""
    seconds_per_step: float = math.nan
    """Median without the first step."""
    scored_tokens_per_second: float = math.nan
    peak_memory_bytes: float = math.nan
    """XLA's figure for the compiled train step."""
    compile_seconds: float = math.nan
    train_seconds: float = math.nan
    """All training steps of the unit, without compiling."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Quality:
    """One cell of the table."""

    estimate: Interval
    difference: Interval | None
    """From the control, paired by seed and prompt; None for the control itself."""
    smallest_detectable: float | None
    """(z.975 + z.8) · standard error of the difference."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cost:
    """What training a variant costs: medians over its seeds."""

    seconds_per_step: float
    scored_tokens_per_second: float
    peak_memory_bytes: float
    compile_seconds: float
    train_seconds: float


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A variant of the comparison."""

    name: str
    quality: Mapping[str, Quality]
    cost: Cost | None
    """None for the start."""
    losses: tuple[tuple[float | None, ...], ...] = ()
    """Training loss by seed and step."""
    seeds: tuple[int, ...] = ()


@dataclasses.dataclass(frozen=True, kw_only=True)
class Comparison:
    """The whole table."""

    control: str
    rows: tuple[Row, ...]
    unavailable: Mapping[str, str]
    """Metrics that could not be measured, with the reason."""
    left_out: Mapping[str, str] = dataclasses.field(default_factory=dict)
    """Variants that do not fit the data, with the reason."""
    facts: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    """What was compared on what: model, data, sizes, seeds, device."""

    def row(self, name: str) -> Row:
        """The row of this name."""
        return next(row for row in self.rows if row.name == name)

    @property
    def metrics(self) -> tuple[str, ...]:
        """Metrics that were measured, in the order of `METRICS`."""
        return tuple(name for name in METRICS if name not in self.unavailable)


def compare(
    units: Sequence[Unit],
    *,
    control: str,
    start: Mapping[str, Sequence[float | None]],
    unavailable: Mapping[str, str] | None = None,
    left_out: Mapping[str, str] | None = None,
    facts: Mapping[str, Any] | None = None,
    num_resamples: int = 4000,
) -> Comparison:
    """Rows with intervals from one set of draws over seeds and prompts, so that all differences are paired.

    Args:
        units: every variant with every seed that is there; a variant with fewer seeds is compared over those it has.
        control: the variant that the others are measured against.
        start: quality of the common starting weights, one value a prompt; it has no seed.
        unavailable: metrics to leave empty, with the reason.
        left_out: variants that were not run, with the reason.
        facts: for the report.
        num_resamples: draws of the bootstrap.

    Raises:
        ValueError: where the control has no unit.
    """
    names = list(dict.fromkeys(unit.variant for unit in units))
    if control not in names:
        raise ValueError(f"the control {control!r} was not run; there is {', '.join(names) or 'nothing'}")
    unavailable = dict(unavailable or {})
    seeds = sorted({unit.seed for unit in units})
    draws: dict[int, Resamples] = {}
    tables = {
        metric: {name: _table(units, name, metric, seeds) for name in names}
        | {START: np.repeat(_numbers(start[metric])[None], len(seeds), axis=0)}
        for metric in METRICS
        if metric not in unavailable
    }

    def cell(metric: str, name: str) -> Quality:
        table = tables[metric][name]
        resamples = draws.setdefault(table.shape[1], make_resamples(*table.shape, num_resamples=num_resamples))
        difference = None
        if name != control:
            difference = paired_difference(table, tables[metric][control], resamples)
        detectable = None if difference is None else smallest_detectable(difference.standard_error)
        return Quality(estimate=bootstrap(table, resamples), difference=difference, smallest_detectable=detectable)

    rows = [Row(name=START, quality={metric: cell(metric, START) for metric in tables}, cost=None)]
    for name in names:
        mine = sorted((unit for unit in units if unit.variant == name), key=lambda unit: unit.seed)
        rows.append(
            Row(
                name=name,
                quality={metric: cell(metric, name) for metric in tables},
                cost=_cost(mine),
                losses=tuple(tuple(unit.loss) for unit in mine),
                seeds=tuple(unit.seed for unit in mine),
            )
        )
    return Comparison(
        control=control,
        rows=tuple(rows),
        unavailable=unavailable,
        left_out=dict(left_out or {}),
        facts=dict(facts or {}),
    )


def as_json(comparison: Comparison) -> dict[str, Any]:
    """The content of ``metrics.json``: plain JSON, None where there is no number."""
    return {
        "control": comparison.control,
        "facts": _plain(comparison.facts),
        "unavailable": dict(comparison.unavailable),
        "left_out": dict(comparison.left_out),
        "variants": {
            row.name: {
                "seeds": list(row.seeds),
                "quality": {metric: _plain(dataclasses.asdict(cell)) for metric, cell in row.quality.items()},
                "cost": None if row.cost is None else _plain(dataclasses.asdict(row.cost)),
                "losses": _plain(row.losses),
            }
            for row in comparison.rows
        },
    }


def _table(units: Sequence[Unit], name: str, metric: str, seeds: Sequence[int]) -> Float[Array, "S P"]:
    by_seed = {unit.seed: _numbers(unit.quality[metric]) for unit in units if unit.variant == name}
    width = len(next(iter(by_seed.values())))
    return np.stack([by_seed.get(seed, np.full(width, np.nan)) for seed in seeds])


def _numbers(values: Sequence[float | None]) -> Float[Array, " P"]:
    return np.array([np.nan if value is None else value for value in values], dtype=np.float64)


def _cost(units: Sequence[Unit]) -> Cost:
    def middle(name: str) -> float:
        known = [value for unit in units if not math.isnan(value := getattr(unit, name))]
        return statistics.median(known) if known else math.nan

    return Cost(**{field.name: middle(field.name) for field in dataclasses.fields(Cost)})


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, (tuple, list)):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
