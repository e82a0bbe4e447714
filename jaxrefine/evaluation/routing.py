"""How good is a routing? Mean reward, mean task rank and uplift over subsets, cost, and where routing can help at all.

Values are one a query (and a seed of training); intervals come from a bootstrap over both (`metrics.bootstrap`), with
the same draws for all systems, so that differences are paired.
"""

from __future__ import annotations

import dataclasses
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from jaxrefine.evaluation.metrics import Interval, Resamples, bootstrap, make_resamples, paired_difference
from jaxrefine.selection.routing import always, by_chance, cost_curve, oracle, quality
from jaxrefine.typing import Array, Float

CONTROL, ORACLE, CHANCE = "best on average", "oracle", "random"
"""Names of the systems that are always there; the first is what others are compared with."""
Ties = Literal["best", "average"]

_EQUAL = 1e-9
"""Means that differ by less are equal."""
_RANKED_RESAMPLES = 1000
_CHUNK = 250


@dataclasses.dataclass(frozen=True, kw_only=True)
class RoutingSettings:
    """How routings are measured."""

    ties: Ties = "best"
    """The rank of equals: "best", the rank of the first of them (1, 1, 3: with the best model of a subset one is first
    there, and the oracle's mean task rank can be 1); "average", their mean (1.5, 1.5, 3)."""
    entropy_bins: int = 5
    """Bins of equally many queries for quality against reward entropy."""
    entropy_temperature: float = 1.0
    """Reward entropy is that of softmax(rewards / temperature)."""
    cost_points: int = 25
    """Of a curve of quality against cost."""
    num_resamples: int = 4000
    """Of the bootstrap; for ranks at most 1000."""
    seed: int = 0
    """Of the bootstrap."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Rewarded:
    """Held-out queries with the true reward of every model."""

    name: str
    models: tuple[str, ...]
    rewards: Float[Array, "Q M"]
    """NaN where unknown."""
    subsets: tuple[tuple[str, ...], ...]
    """Of each query, all that it is in."""
    best: tuple[int, ...]
    """For each query the model that is best on average on the *training* queries: of several folds each has its own."""
    costs: tuple[float, ...] = ()
    """Of an answer of each model, in any unit; empty where they are not known."""

    def __post_init__(self) -> None:
        """Refuses no queries, and sizes that do not agree."""
        found = (len(self.subsets), len(self.models))
        fits = self.rewards.shape == found and len(self.best) == found[0] and len(self.costs) in (0, found[1])
        if not self.subsets or not fits:
            raise ValueError(
                f"{self.name}: {found[0]} queries and {found[1]} models, rewards of shape {self.rewards.shape}, "
                f"{len(self.best)} best, {len(self.costs)} costs"
            )

    @property
    def by_subset(self) -> dict[str, np.ndarray]:
        """The queries of each subset, in order of appearance."""
        names = dict.fromkeys(name for found in self.subsets for name in found)
        return {name: np.array([row for row, found in enumerate(self.subsets) if name in found]) for name in names}


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class Routing:
    """What one system did with the held-out queries."""

    assignments: tuple[Float[Array, "Q M"], ...]
    """Shares of each query, one array a seed."""
    probabilities: Float[Array, "Q M"] | None = None
    """Of a router, for its curve of quality against cost."""
    answers: int = 1
    """Models that have to answer a query: 1 of a router, M where all answers are there before one is chosen."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One system's figures."""

    mean: Interval
    """Mean reward."""
    difference: Interval | None
    """From the best on average, paired; None for that itself."""
    mean_rank: Interval
    """Mean task rank (MTR): over subsets, against the single models; lower is better."""
    uplift: float
    """Share of subsets on which no single model is better."""
    subsets: dict[str, float]
    """Mean reward of each."""
    shares: dict[str, float]
    """Of the queries, by model."""
    answers: int
    gap: float | None
    """Share of the way from the best on average to the oracle; None where there is none."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredRouting:
    """All systems on one set of queries."""

    name: str
    models: tuple[str, ...]
    best: str
    """Of the single models, on the training queries; of folds that differ all of them, the most frequent first."""
    num_queries: int
    num_seeds: int
    subsets: dict[str, int]
    """Queries of each."""
    systems: dict[str, Measured]
    """Single models by their names, then the rest."""
    entropy: list[float]
    """Mean reward entropy of each bin, as a share of the highest possible."""
    by_entropy: dict[str, list[Interval]]
    """Mean reward in each bin, of systems that are not single models."""
    cost_curves: dict[str, list[tuple[float, float]]]
    """(cost, mean reward) of routers, and of single models one point each; empty without costs."""


def task_ranks(
    values: Float[Array, "*r K"], pool: Float[Array, "*r P K"], *, ties: Ties = "best"
) -> Float[Array, "*r K"]:
    """The rank of a system on each of K subsets among itself and a pool of others.

    rank = 1 + number of the pool that is better [+ half the number of equals, where ties = "average"]

    The pool is explicit, for a rank means nothing without it: the paper's published values fit each ensemble ranked
    against the six single models alone, not among all ensembles. A single model is ranked against the others.

    Args:
        values: of the system, higher is better; NaN has no rank.
        pool: of its P rivals, itself not among them.
        ties: see `RoutingSettings`.

    >>> task_ranks(np.array([2.0, 1.0]), np.array([[1.0, 1.0], [3.0, 0.0]])).tolist()
    [2.0, 1.0]

    Source: ZOOTER, arXiv 2311.08692, §4 (MTR).
    """
    own, others = np.asarray(values, np.float64), np.asarray(pool, np.float64)
    ahead = others - own[..., None, :]
    ranks = 1.0 + (ahead > _EQUAL).sum(-2)
    if ties == "average":
        ranks = ranks + 0.5 * (np.abs(ahead) <= _EQUAL).sum(-2)
    return np.where(np.isnan(own), np.nan, ranks)


def uplift(ranks: Float[Array, " K"]) -> float:
    """The share of subsets on which a system is first.

    >>> uplift(np.array([1.0, 2.0, 1.0, 1.5]))
    0.5
    """
    known = np.asarray(ranks)[~np.isnan(ranks)]
    return float((known == 1.0).mean()) if len(known) else math.nan


def reward_entropy(rewards: Float[Array, "Q M"], *, temperature: float = 1.0) -> Float[Array, " Q"]:
    """Entropy of the softmax of each query's known rewards, as a share of the highest: 1 where all models are equal.

    A query of high entropy has little to gain from routing; a reward model that cannot tell answers apart gives many.

    Args:
        rewards: NaN where unknown.
        temperature: divides them.

    Returns:
        In [0, 1]; NaN where fewer than two are known.

    >>> reward_entropy(np.log(np.array([[1.0, 1.0], [0.9, 0.1]]))).round(4).tolist()
    [1.0, 0.469]
    """
    table = np.asarray(rewards, np.float64) / temperature
    known = ~np.isnan(table)
    counts = known.sum(1)
    raised = np.where(known, np.exp(table - np.max(np.where(known, table, -np.inf), axis=1, keepdims=True)), 0.0)
    shares = raised / np.maximum(raised.sum(1, keepdims=True), 1e-300)
    entropy = -(shares * np.log(np.where(shares > 0, shares, 1.0))).sum(1)
    return np.where(counts > 1, entropy / np.log(np.maximum(counts, 2)), np.nan)


def measure(held_out: Rewarded, routings: Mapping[str, Routing], settings: RoutingSettings) -> MeasuredRouting:
    """Measures every single model, chance, the best on average, the routings given, and the oracle.

    Args:
        held_out: queries that no router was trained on.
        routings: by name, with equally many seeds or one.
        settings: ties, bins, bootstrap.

    Raises:
        ValueError: a name that is taken, or different numbers of seeds.
    """
    table = np.asarray(held_out.rewards, np.float64)
    shape = (len(held_out.subsets), len(held_out.models))
    singles = {name: Routing(assignments=(always(m, shape),)) for m, name in enumerate(held_out.models)}
    ensembles: dict[str, Routing] = {
        CHANCE: Routing(assignments=(by_chance(~np.isnan(table)),)),
        CONTROL: Routing(assignments=(np.eye(shape[1])[np.asarray(held_out.best)],)),
        **routings,
        ORACLE: Routing(assignments=(oracle(table),), answers=shape[1]),
    }
    if taken := {CHANCE, CONTROL, ORACLE, *singles} & set(routings) or {CHANCE, CONTROL, ORACLE} & set(singles):
        raise ValueError(f"{held_out.name}: a routing is called {min(taken)!r}, which is the name of another system")
    everything = {**singles, **ensembles}
    num_seeds = _num_seeds(held_out.name, everything)
    values = {name: _values(found, table, num_seeds) for name, found in everything.items()}
    draws = make_resamples(num_seeds, shape[0], num_resamples=settings.num_resamples, seed=settings.seed)
    by_subset = held_out.by_subset
    exact = {name: _subset_means(found, by_subset, None) for name, found in values.items()}
    means = {name: bootstrap(found, draws) for name, found in values.items()}
    ranks = _mean_ranks(values, by_subset, list(singles), draws, settings.ties)
    systems = {}
    for name, found in everything.items():
        pool = np.stack([exact[rival][0] for rival in singles if rival != name] or [np.full(len(by_subset), -np.inf)])
        own = task_ranks(exact[name][0], pool, ties=settings.ties)
        low, high, error = ranks[name]
        spread = means[ORACLE].value - means[CONTROL].value
        systems[name] = Measured(
            mean=means[name],
            difference=None if name == CONTROL else paired_difference(values[name], values[CONTROL], draws),
            mean_rank=Interval(value=_mean(own), low=low, high=high, standard_error=error),
            uplift=uplift(own),
            subsets=dict(zip(by_subset, exact[name][0].tolist(), strict=True)),
            shares=_shares(held_out.models, found),
            answers=found.answers,
            gap=(means[name].value - means[CONTROL].value) / spread if spread > _EQUAL else None,
        )
    entropy, by_entropy = _by_entropy(table, {name: values[name] for name in ensembles}, settings, num_seeds)
    return MeasuredRouting(
        name=held_out.name,
        models=held_out.models,
        best=" or ".join(held_out.models[place] for place, _ in Counter(held_out.best).most_common()),
        num_queries=shape[0],
        num_seeds=num_seeds,
        subsets={name: len(rows) for name, rows in by_subset.items()},
        systems=systems,
        entropy=entropy,
        by_entropy=by_entropy,
        cost_curves=_cost_curves(held_out, routings, means, settings),
    )


def _num_seeds(name: str, everything: Mapping[str, Routing]) -> int:
    counts = {len(found.assignments) for found in everything.values()} - {1}
    if len(counts) > 1:
        raise ValueError(
            f"{name}: routings have {', '.join(map(str, sorted(counts)))} seeds; give equally many, or one"
        )
    return max(counts, default=1)


def _values(found: Routing, table: np.ndarray, num_seeds: int) -> np.ndarray:
    """[S Q]."""
    rows = [quality(assignment, table) for assignment in found.assignments]
    return np.stack(rows * (num_seeds if len(rows) == 1 else 1))


def _subset_means(values: np.ndarray, by_subset: Mapping[str, np.ndarray], draws: Resamples | None) -> np.ndarray:
    """Mean of each subset [R K], for every draw; for all queries once [1 K] where there are no draws."""
    counted = ~np.isnan(values)
    filled, mask = np.where(counted, values, 0.0), counted.astype(np.float64)
    seeds = np.ones((1, len(values))) if draws is None else np.asarray(draws.seeds)
    prompts = np.ones((1, values.shape[1])) if draws is None else np.asarray(draws.prompts)
    columns = []
    for rows in by_subset.values():
        weights = prompts[:, rows]
        sums = ((seeds @ filled[:, rows]) * weights).sum(1)
        counts = ((seeds @ mask[:, rows]) * weights).sum(1)
        columns.append(np.where(counts > 0, sums / np.maximum(counts, 1e-300), np.nan))
    return np.stack(columns, axis=1) if columns else np.zeros((len(seeds), 0))


def _mean_ranks(
    values: Mapping[str, np.ndarray],
    by_subset: Mapping[str, np.ndarray],
    singles: Sequence[str],
    draws: Resamples,
    ties: Ties,
) -> dict[str, tuple[float, float, float]]:
    """(low, high, standard error) of each system's mean task rank."""
    found: dict[str, list[np.ndarray]] = {name: [] for name in values}
    total = min(_RANKED_RESAMPLES, len(draws.seeds))
    for start in range(0, total, _CHUNK):
        part = slice(start, min(start + _CHUNK, total))
        drawn = Resamples(seeds=draws.seeds[part], prompts=draws.prompts[part])
        means = {name: _subset_means(table, by_subset, drawn) for name, table in values.items()}
        for name, own in means.items():
            rivals = [means[rival] for rival in singles if rival != name]
            pool = np.stack(rivals, axis=1) if rivals else np.full((len(own), 1, own.shape[1]), -np.inf)
            ranks = task_ranks(own, pool, ties=ties)
            known = ~np.isnan(ranks)
            found[name].append(np.where(known, ranks, 0.0).sum(1) / np.maximum(known.sum(1), 1))
    result = {}
    for name, parts in found.items():
        drawn_ranks = np.concatenate(parts)
        low, high = np.quantile(drawn_ranks, [0.025, 0.975])
        result[name] = (float(low), float(high), float(drawn_ranks.std(ddof=1)) if len(drawn_ranks) > 1 else math.nan)
    return result


def _shares(models: Sequence[str], found: Routing) -> dict[str, float]:
    stacked = np.concatenate(found.assignments)
    means = stacked[~np.isnan(stacked).any(1)].mean(0) if len(stacked) else np.zeros(len(models))
    return dict(zip(models, means.tolist(), strict=True))


def _by_entropy(
    table: np.ndarray, values: Mapping[str, np.ndarray], settings: RoutingSettings, num_seeds: int
) -> tuple[list[float], dict[str, list[Interval]]]:
    entropy = reward_entropy(table, temperature=settings.entropy_temperature)
    known = entropy[~np.isnan(entropy)]
    if not len(known):
        return [], {}
    edges = np.unique(np.quantile(known, np.linspace(0, 1, settings.entropy_bins + 1)[1:-1]))
    bins = np.where(np.isnan(entropy), -1, np.searchsorted(edges, entropy))
    rows = [np.flatnonzero(bins == number) for number in range(len(edges) + 1)]
    rows = [found for found in rows if len(found)]
    draws = [make_resamples(num_seeds, len(found), num_resamples=1000, seed=settings.seed) for found in rows]
    curves = {
        name: [bootstrap(found[:, part], drawn) for part, drawn in zip(rows, draws, strict=True)]
        for name, found in values.items()
    }
    return [float(entropy[part].mean()) for part in rows], curves


def _cost_curves(
    held_out: Rewarded, routings: Mapping[str, Routing], means: Mapping[str, Interval], settings: RoutingSettings
) -> dict[str, list[tuple[float, float]]]:
    if not held_out.costs:
        return {}
    costs = np.asarray(held_out.costs, np.float64)
    curves = {name: [(float(cost), means[name].value)] for name, cost in zip(held_out.models, costs, strict=True)}
    for name, found in routings.items():
        if found.probabilities is not None:
            points = cost_curve(found.probabilities, costs, held_out.rewards, num_points=settings.cost_points)
            curves[name] = [(point.cost, point.quality) for point in points]
    return curves


def _mean(ranks: Array) -> float:
    known = ranks[~np.isnan(ranks)]
    return float(known.mean()) if len(known) else math.nan
