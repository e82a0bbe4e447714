"""How good is a selection? Accuracy of every strategy on sampled solutions, what it costs, and how both grow.

Values are one a problem; intervals come from a bootstrap over problems (`metrics.bootstrap`), with the same draws for
all strategies, so that differences are paired.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrefine.evaluation.metrics import Interval, Resamples, bootstrap, make_resamples, paired_difference
from jaxrefine.selection.oracles import majority_at_n, pass_at_k, pass_at_n
from jaxrefine.selection.strategies import STRATEGIES, choose

CONTROL = "maj1"
"""The strategy that the others are compared with: it needs no evaluator."""
ORACLES: dict[str, str] = {"pass_at_n": "Pass@N", "majk_at_n": "MajK@N"}
"""What no strategy exceeds, by name and title."""
ONE = "one"
"""The row of one solution drawn at random: the mean share of right ones, Pass@1 without bias."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Samples:
    """One problem's sampled solutions: clustered, graded, and scored by an evaluator."""

    id: str
    """Of the problem."""
    clusters: tuple[int | None, ...]
    """Equal numbers, equal answers; None where a solution states no answer."""
    right: tuple[bool, ...]
    """Whether each solution is right."""
    scores: tuple[float, ...] | None = None
    """Of an evaluator, higher is better; sums of them make sense (probabilities). None where there is no evaluator."""

    def __post_init__(self) -> None:
        """Refuses lists of different lengths, and none at all."""
        if not self.clusters:
            raise ValueError(f"problem {self.id!r} has no solutions to select from")
        for name, found in (("right", self.right), ("scores", self.scores)):
            if found is not None and len(found) != len(self.clusters):
                raise ValueError(
                    f"problem {self.id!r}: {len(self.clusters)} solutions need as many {name}, got {len(found)}"
                )

    def subset(self, indices: Sequence[int]) -> Samples:
        """Those solutions alone."""
        return Samples(
            id=self.id,
            clusters=tuple(self.clusters[index] for index in indices),
            right=tuple(self.right[index] for index in indices),
            scores=None if self.scores is None else tuple(self.scores[index] for index in indices),
        )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Pool:
    """All problems of one generator, scored by one evaluator."""

    generator: str
    """Whose solutions they are."""
    evaluator: str | None
    """Whose scores; None where there are none."""
    problems: tuple[Samples, ...]

    def __post_init__(self) -> None:
        """Refuses scores without a name, a name without scores, and no problems at all."""
        if not self.problems:
            raise ValueError(f"{self.generator}: no problems")
        for problem in self.problems:
            if (problem.scores is None) != (self.evaluator is None):
                found = "no scores" if problem.scores is None else "scores"
                raise ValueError(
                    f"{self.generator}: problem {problem.id!r} has {found}, evaluator is {self.evaluator!r}"
                )

    @property
    def name(self) -> str:
        """Generator and evaluator."""
        return self.generator if self.evaluator is None else f"{self.generator} / {self.evaluator}"

    @property
    def fewest(self) -> int:
        """Solutions of the problem that has the fewest."""
        return min(len(problem.clusters) for problem in self.problems)

    @property
    def strategies(self) -> tuple[str, ...]:
        """Those that can be measured: without scores only those that read none."""
        return tuple(
            name for name, strategy in STRATEGIES.items() if self.evaluator is not None or strategy.reads == "nothing"
        )


def pool_from_record(record: Mapping[str, Any]) -> Pool:
    """The pool that ``dataclasses.asdict`` gave, after a round trip through JSON."""
    problems = tuple(
        Samples(
            id=problem["id"],
            clusters=tuple(problem["clusters"]),
            right=tuple(problem["right"]),
            scores=None if problem["scores"] is None else tuple(problem["scores"]),
        )
        for problem in record["problems"]
    )
    return Pool(generator=record["generator"], evaluator=record["evaluator"], problems=problems)


@dataclasses.dataclass(frozen=True, kw_only=True)
class SelectionSettings:
    """How selections are measured."""

    largest: int = 8
    """K, how many of the largest clusters RR.MajK, W.RR.MajK and MajK@N look at."""
    top: int = 8
    """How many of the best-scored solutions vote in Maj1.TopN."""
    clusters: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16)
    """Values of K for the curves; those above the most clusters that any problem has are left out."""
    samples: tuple[int, ...] = (1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48, 64)
    """Values of N for the curves; those above the fewest solutions that any problem has are left out."""
    num_draws: int = 128
    """Subsets of N solutions drawn a problem, for the curves; all of them where there are no more."""
    num_resamples: int = 4000
    """Of the bootstrap."""
    seed: int = 0
    """Of the subsets and the bootstrap."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Selected:
    """What a strategy achieves."""

    accuracy: Interval
    """Share of problems for which it chooses a right solution."""
    difference: Interval | None
    """Its accuracy less the control's, paired by problem; None for the control and the oracles."""
    scored: float | None
    """Share of all solutions that the evaluator has to score; None for the oracles."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Measured:
    """One pool's figures."""

    generator: str
    evaluator: str | None
    num_problems: int
    num_solutions: tuple[int, int]
    """The fewest and the most a problem."""
    mixed_clusters: int
    """Clusters with right and wrong solutions: there, cluster and labels disagree."""
    undecided_problems: int
    """Problems with right and wrong solutions: on the others selection makes no difference."""
    rows: dict[str, Selected]
    """One solution at random, strategies and oracles, by name."""
    against_k: dict[str, dict[int, Interval]]
    """Accuracy by K, of the strategies and the oracle that have it."""
    against_n: dict[str, dict[int, Interval]]
    """Accuracy by N, of everything."""


def measure(pool: Pool, settings: SelectionSettings) -> Measured:
    """Every strategy on one pool.

    Args:
        pool: the solutions.
        settings: K, top, curves, bootstrap.

    Returns:
        Accuracies with intervals, costs, and curves.

    >>> problem = Samples(id="1", clusters=(0, 1, 1), right=(True, False, False), scores=(0.9, 0.2, 0.3))
    >>> found = measure(Pool(generator="g", evaluator="e", problems=(problem,)), SelectionSettings(num_resamples=10))
    >>> [found.rows[name].accuracy.value for name in ("maj1", "rr_all", "w_rr")]
    [0.0, 1.0, 1.0]
    """
    draws = make_resamples(1, len(pool.problems), num_resamples=settings.num_resamples, seed=settings.seed)
    sizes = [len(problem.clusters) for problem in pool.problems]
    rights = [_right_by_cluster(problem) for problem in pool.problems]
    return Measured(
        generator=pool.generator,
        evaluator=pool.evaluator,
        num_problems=len(pool.problems),
        num_solutions=(min(sizes), max(sizes)),
        mixed_clusters=sum(len(found) > 1 for clusters in rights for found in clusters.values()),
        undecided_problems=sum(0 < sum(problem.right) < len(problem.right) for problem in pool.problems),
        rows=_rows(pool, settings, draws),
        against_k=_against_k(pool, settings, draws),
        against_n=_against_n(pool, settings, draws),
    )


def _rows(pool: Pool, settings: SelectionSettings, draws: Resamples) -> dict[str, Selected]:
    control = _values(pool.problems, _chosen_right, CONTROL, settings)
    one = _values(pool.problems, _pass_at, 1)
    rows = {ONE: _selected(one, control, draws, scored=0.0)}
    for name in pool.strategies:
        values = _values(pool.problems, _chosen_right, name, settings)
        other = None if name == CONTROL else control
        rows[name] = _selected(values, other, draws, scored=_share_scored(name, pool, settings))
    for name in ORACLES:
        values = _values(pool.problems, _oracle, name, settings.largest)
        rows[name] = _selected(values, None, draws, scored=None)
    return rows


def _against_k(pool: Pool, settings: SelectionSettings, draws: Resamples) -> dict[str, dict[int, Interval]]:
    most = max(len(set(problem.clusters) - {None}) for problem in pool.problems)
    wanted = sorted({k for k in settings.clusters if k <= most} | {max(most, 1)})
    names = [name for name in pool.strategies if "largest" in STRATEGIES[name].options]
    curves: dict[str, dict[int, Interval]] = {name: {} for name in [*names, "majk_at_n"]}
    for k in wanted:
        at_k = dataclasses.replace(settings, largest=k)
        for name in names:
            values = _values(pool.problems, _chosen_right, name, at_k)
            curves[name][k] = bootstrap(values, draws)
        values = _values(pool.problems, _oracle, "majk_at_n", k)
        curves["majk_at_n"][k] = bootstrap(values, draws)
    return curves


def _against_n(pool: Pool, settings: SelectionSettings, draws: Resamples) -> dict[str, dict[int, Interval]]:
    wanted = sorted({n for n in settings.samples if n <= pool.fewest} | {pool.fewest})
    curves: dict[str, dict[int, Interval]] = {name: {} for name in [*pool.strategies, "pass_at_n"]}
    for n in wanted:
        drawn = [list(_subsets(problem, n, settings, place)) for place, problem in enumerate(pool.problems)]
        for name in pool.strategies:
            values = [[float(np.mean([_chosen_right(part, name, settings) for part in parts])) for parts in drawn]]
            curves[name][n] = bootstrap(np.array(values), draws)
        exact = _values(pool.problems, _pass_at, n)
        curves["pass_at_n"][n] = bootstrap(exact, draws)
    return curves


def _subsets(problem: Samples, n: int, settings: SelectionSettings, place: int) -> Iterator[Samples]:
    """Subsets of n solutions: all of them, or as many as are drawn.

    Each is put into an order of its own, or the first ones given would win every tie; all solutions keep theirs.
    """
    size = len(problem.clusters)
    if n == size:
        yield problem
        return
    generator = np.random.default_rng((settings.seed, place, n))
    if math.comb(size, n) <= settings.num_draws:
        for indices in itertools.combinations(range(size), n):
            yield problem.subset(generator.permutation(indices).tolist())
        return
    for _ in range(settings.num_draws):
        yield problem.subset(generator.choice(size, n, replace=False).tolist())


def _values(problems: Sequence[Samples], value: Callable[..., float], *options: Any) -> np.ndarray:
    """One a problem, as the table of one seed that `bootstrap` wants."""
    return np.array([[float(value(problem, *options)) for problem in problems]])


def _chosen_right(problem: Samples, name: str, settings: SelectionSettings) -> float:
    scores = None if problem.scores is None else np.array(problem.scores, np.float64)
    chosen = choose(name, problem.clusters, scores, largest=settings.largest, top=settings.top)
    return 0.0 if chosen is None else float(problem.right[chosen])


def _oracle(problem: Samples, name: str, largest: int) -> float:
    if name == "pass_at_n":
        return float(pass_at_n(problem.right))
    return float(majority_at_n(problem.clusters, problem.right, largest=largest))


def _pass_at(problem: Samples, k: int) -> float:
    return pass_at_k(len(problem.right), sum(problem.right), k)


def _share_scored(name: str, pool: Pool, settings: SelectionSettings) -> float:
    scored = [len(STRATEGIES[name].scored(problem.clusters, largest=settings.largest)) for problem in pool.problems]
    return sum(scored) / sum(len(problem.clusters) for problem in pool.problems)


def _selected(values: np.ndarray, control: np.ndarray | None, draws: Resamples, *, scored: float | None) -> Selected:
    difference = None if control is None else paired_difference(values, control, draws)
    return Selected(accuracy=bootstrap(values, draws), difference=difference, scored=scored)


def _right_by_cluster(problem: Samples) -> dict[int, set[bool]]:
    found: dict[int, set[bool]] = {}
    for cluster, right in zip(problem.clusters, problem.right, strict=True):
        if cluster is not None:
            found.setdefault(cluster, set()).add(right)
    return found
