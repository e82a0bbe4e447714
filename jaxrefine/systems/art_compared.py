"""What several ART runs come to side by side: settings of one or several seeds, compared on the same queries.

Everything is drawn again by query and by seed (`evaluation.metrics`): differences between methods are paired, and so
are those between settings, on the seeds that both have.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrefine.evaluation.metrics import Interval, bootstrap, make_resamples, paired_difference
from jaxrefine.evaluation.refinement import METHODS
from jaxrefine.typing import Array, Float

CONTRASTS: dict[str, tuple[str, str]] = {
    "does deciding pay?": ("asker", "always"),
    "does the Truster pay?": ("art", "asker"),
    "the Truster, or self-selection?": ("art", "asker_self"),
    "the Truster on everything, or always refine?": ("always_truster", "always"),
    "an Asker, or self decides?": ("asker", "self"),
    "one refinement, or the vote?": ("asker", "majority"),
    "the whole, or the vote?": ("art", "majority"),
}
"""Pairs of methods whose difference within one setting answers a question of the paper's."""
FIGURES = ("precision", "recall", "area", "truster")
"""Of `evaluation.refinement.Detection`."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Row:
    """A method in one or several runs."""

    accuracy: Interval
    each: tuple[float, ...]
    """Accuracy of every run."""
    share_refined: float
    """Mean over the runs."""
    share_reverted: float | None
    """Mean over the runs in which it is known."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Setting:
    """The runs of one name."""

    seeds: tuple[int, ...]
    roles: str
    """Who answered, asked and chose, with their sizes."""
    rows: Mapping[str, Row]
    """By method."""
    contrasts: Mapping[str, Interval]
    """By `CONTRASTS`, those whose two methods were measured."""
    figures: Mapping[str, float | None]
    """Of `FIGURES`, the mean over the runs in which it is known."""
    flops: Mapping[str, float]
    """By phase and role, the mean over the runs."""
    differences: Mapping[str, Interval]
    """Accuracy less that of the first setting, by method; empty for that one and without a common seed."""
    num_paired: int
    """Seeds that it has in common with the first setting."""


@dataclasses.dataclass(frozen=True)
class Finished:
    """A run that is done: what ``metrics.json`` and ``finals.json`` hold."""

    metrics: Mapping[str, Any]
    finals: Mapping[str, Any]

    @property
    def measured(self) -> Mapping[str, Any]:
        """Its figures; a run measures one model."""
        return self.metrics["refinements"][0]


def compared(runs: Mapping[str, Sequence[Finished]], *, num_resamples: int = 4000) -> dict[str, Setting]:
    """The settings, each of one or several runs, measured on the same queries and compared with the first.

    Args:
        runs: by name.
        num_resamples: of the bootstrap.

    Returns:
        Intervals are over queries and, of several runs, over seeds as well; a difference from the first setting is over
        the seeds that both have.

    Raises:
        ValueError: runs of different queries or methods, or a seed twice under one name.
    """
    settings: dict[str, Setting] = {}
    whole = next(iter(runs.values()))
    ids = whole[0].finals["ids"]
    for name, each in runs.items():
        seeds = [one.finals["seed"] for one in each]
        if any(one.finals["ids"] != ids for one in each):
            raise ValueError(f"{name}: its runs were not measured on the queries of {next(iter(runs))}")
        if any(one.finals["right"].keys() != each[0].finals["right"].keys() for one in each):
            raise ValueError(f"{name}: its runs were not measured alike: they differ in methods")
        if len(set(seeds)) < len(seeds):
            raise ValueError(f"{name}: seed {max(seeds, key=seeds.count)} is there twice; another run is --seed N")
        tables, draws = _tables(each), make_resamples(len(each), len(ids), num_resamples=num_resamples)
        both = [seed for seed in seeds if seed in [one.finals["seed"] for one in whole]] if each is not whole else []
        settings[name] = Setting(
            seeds=tuple(seeds),
            roles=each[0].metrics["facts"]["roles"],
            rows={
                method: _row([one.measured["rows"][method] for one in each], bootstrap(table, draws), table)
                for method, table in tables.items()
            },
            contrasts={
                question: paired_difference(tables[one], tables[other], draws)
                for question, (one, other) in CONTRASTS.items()
                if one in tables and other in tables
            },
            figures={key: _mean([one.measured["detection"][key] for one in each]) for key in FIGURES},
            flops=_flops(each),
            differences=_differences(_of(each, both), _of(whole, both), num_resamples) if both else {},
            num_paired=len(both),
        )
    return settings


def _tables(runs: Sequence[Finished]) -> dict[str, Float[Array, "S P"]]:
    """Which queries each method has right, a row a run."""
    return {
        method: np.array([one.finals["right"][method] for one in runs], np.float64)
        for method in METHODS
        if method in runs[0].finals["right"]
    }


def _of(runs: Sequence[Finished], seeds: Sequence[int]) -> list[Finished]:
    by_seed = {one.finals["seed"]: one for one in runs}
    return [by_seed[seed] for seed in seeds]


def _differences(runs: Sequence[Finished], control: Sequence[Finished], num_resamples: int) -> dict[str, Interval]:
    tables, others = _tables(runs), _tables(control)
    shape = next(iter(tables.values())).shape
    draws = make_resamples(*shape, num_resamples=num_resamples)
    return {method: paired_difference(tables[method], others[method], draws) for method in tables if method in others}


def _row(measured: Sequence[Mapping[str, Any]], accuracy: Interval, table: Float[Array, "S P"]) -> Row:
    refined = _mean([one["share_refined"] for one in measured])
    assert refined is not None
    return Row(
        accuracy=accuracy,
        each=tuple(map(float, table.mean(axis=1))),
        share_refined=refined,
        share_reverted=_mean([one["share_reverted"] for one in measured]),
    )


def _flops(runs: Sequence[Finished]) -> dict[str, float]:
    """Of the costs that all runs have."""
    tables = [
        {f"{cost['phase']}: {cost['role']}": float(cost["flops"]) for cost in one.metrics["costs"]} for one in runs
    ]
    return {
        name: math.fsum(table[name] for table in tables) / len(tables)
        for name in tables[0]
        if all(name in table for table in tables)
    }


def _mean(values: Sequence[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return math.fsum(known) / len(known) if known else None
