"""How well do models solve problems, and how well do evaluators tell right solutions from wrong ones?

All models answer the same test problems, and all differences are paired by problem: the same bootstrap draws for all.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import numpy as np

from jaxrefine.config import unknown_name
from jaxrefine.evaluation.metrics import (
    Interval,
    Resamples,
    bootstrap,
    make_resamples,
    paired_difference,
    ranking_accuracy,
    roc_auc,
)
from jaxrefine.evaluation.selection import CONTROL, Pool, Samples
from jaxrefine.selection.oracles import pass_at_n
from jaxrefine.selection.strategies import choose
from jaxrefine.typing import Float

Role = Literal["given", "solutions", "control", "sequential", "joint"]
"""What a generator's training was: none; solutions (SSFT); after those, more of the same (the control), an evaluator
and then solutions again, or a contrast with likelihood beside it."""

METRICS: dict[str, str] = {"pass_at_1": "Pass@1", "maj1": "Maj1@N", "pass_at_n": "Pass@N"}
"""Of generators, by name and title: greedy, the vote of N samples, any of them."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Generator:
    """One model's answers to the test problems."""

    name: str
    role: Role
    history: tuple[str, ...]
    """The models whose weights it came from, the given one first, itself last."""
    greedy: tuple[bool, ...]
    """Whether its greedy solution of each problem is right."""
    samples: tuple[Samples, ...]
    """Its sampled solutions, clustered and graded."""
    compared_with: str | None = None
    """The generator whose further training it is."""

    def __post_init__(self) -> None:
        """Refuses an unknown role, and lists of different lengths."""
        if self.role not in get_args(Role):
            raise ValueError(unknown_name(self.role, get_args(Role), "role of a generator"))
        if not self.samples or len(self.greedy) != len(self.samples):
            raise ValueError(
                f"{self.name}: {len(self.samples)} problems with samples and {len(self.greedy)} greedy solutions; one "
                "of each a problem, and at least one problem"
            )

    def record(self) -> dict[str, Any]:
        """As JSON holds it."""
        return dataclasses.asdict(self)

    @classmethod
    def from_record(cls, record: Mapping[str, Any]) -> Generator:
        """What ``record`` gave, after a round trip through JSON."""
        samples = tuple(
            Samples(id=one["id"], clusters=tuple(one["clusters"]), right=tuple(one["right"]))
            for one in record["samples"]
        )
        lists = {"history": tuple(record["history"]), "greedy": tuple(record["greedy"]), "samples": samples}
        return cls(**{**record, **lists})

    def values(self) -> dict[str, Float[np.ndarray, "1 P"]]:
        """1 where a problem is solved and 0 where not, by metric."""
        votes = [choose(CONTROL, problem.clusters) for problem in self.samples]
        voted = [chosen is not None and one.right[chosen] for chosen, one in zip(votes, self.samples, strict=True)]
        found = {"pass_at_1": self.greedy, "maj1": voted, "pass_at_n": [pass_at_n(one.right) for one in self.samples]}
        return {name: np.array([right], np.float64) for name, right in found.items()}


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredGenerator:
    """One generator's figures."""

    name: str
    role: Role
    history: tuple[str, ...]
    num_problems: int
    num_samples: int
    """Of the problem that has the fewest."""
    solved: dict[str, Interval]
    """By metric."""
    compared_with: str | None
    differences: dict[str, dict[str, Interval]]
    """By other generator and metric: its own less the other's; of the one that it is compared with, and of the controls
    that are compared with the same."""


def measure_generators(
    generators: Sequence[Generator], *, num_resamples: int = 4000, seed: int = 0
) -> list[MeasuredGenerator]:
    """Every generator with intervals over problems, and differences paired by problem.

    Args:
        generators: of the same problems in the same order.
        num_resamples: of the bootstrap.
        seed: of its draws.

    Raises:
        ValueError: no generators, or different problems.

    >>> one = Samples(id="1", clusters=(0, 1, 1), right=(True, False, False))
    >>> made = Generator(name="g", role="given", history=("g",), greedy=(True,), samples=(one,))
    >>> {name: found.value for name, found in measure_generators([made], num_resamples=10)[0].solved.items()}
    {'pass_at_1': 1.0, 'maj1': 0.0, 'pass_at_n': 1.0}
    """
    if not generators:
        raise ValueError("no generators to measure")
    first, *others = generators
    ids = [one.id for one in first.samples]
    for other in others:
        if [one.id for one in other.samples] != ids:
            raise ValueError(f"{first.name} and {other.name} did not answer the same problems in the same order")
    draws = make_resamples(1, len(ids), num_resamples=num_resamples, seed=seed)
    values = {generator.name: generator.values() for generator in generators}
    return [
        MeasuredGenerator(
            name=one.name,
            role=one.role,
            history=one.history,
            num_problems=len(ids),
            num_samples=min(len(problem.right) for problem in one.samples),
            solved={metric: bootstrap(found, draws) for metric, found in values[one.name].items()},
            compared_with=one.compared_with,
            differences={
                other: {
                    metric: paired_difference(found, values[other][metric], draws)
                    for metric, found in values[one.name].items()
                }
                for other in _compared(one, generators)
            },
        )
        for one in generators
    ]


def _compared(one: Generator, generators: Sequence[Generator]) -> list[str]:
    controls = [
        other.name for other in generators if other.role == "control" and other.compared_with == one.compared_with
    ]
    there = {other.name for other in generators}
    wanted = [] if one.compared_with is None else [one.compared_with, *controls]
    return [name for name in dict.fromkeys(wanted) if name in there and name != one.name]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Discrimination:
    """How well an evaluator's scores tell right solutions from wrong ones, of those that state an answer."""

    generator: str
    evaluator: str
    auc: Interval
    """Of all solutions together; 0.5 is chance."""
    within: Interval
    """The share of pairs of one problem's right and wrong solutions that it orders rightly, as a mean over problems;
    re-ranking needs this one, for it never compares solutions of different problems."""
    num_solutions: int
    right_share: float
    num_mixed: int
    """Problems with right and wrong ones."""


def discrimination(pool: Pool, *, num_resamples: int = 2000, seed: int = 0) -> Discrimination:
    """How well a pool's evaluator tells right from wrong.

    Args:
        pool: with scores.
        num_resamples: of the bootstrap over problems.
        seed: of its draws.

    Raises:
        ValueError: a pool without scores.

    >>> one = Samples(id="1", clusters=(0, 1, None), right=(True, False, False), scores=(0.8, 0.3, 0.9))
    >>> found = discrimination(Pool(generator="g", evaluator="e", problems=(one,)), num_resamples=10)
    >>> found.auc.value, found.within.value, found.num_solutions, found.right_share
    (1.0, 1.0, 2, 0.5)
    """
    if pool.evaluator is None:
        raise ValueError(f"{pool.generator}: no evaluator scored these solutions")
    scores, labels, owners, within = [], [], [], []
    for place, problem in enumerate(pool.problems):
        answered = [index for index, cluster in enumerate(problem.clusters) if cluster is not None]
        assert problem.scores is not None
        found = np.array([problem.scores[index] for index in answered], np.float64)
        right = np.array([problem.right[index] for index in answered], np.float64)
        scores.append(found)
        labels.append(right)
        owners.append(np.full(len(answered), place))
        within.append(float(ranking_accuracy(found, right)) if len(set(right.tolist())) > 1 else float("nan"))
    draws = make_resamples(1, len(pool.problems), num_resamples=num_resamples, seed=seed)
    joined = np.concatenate(labels)
    return Discrimination(
        generator=pool.generator,
        evaluator=pool.evaluator,
        auc=_auc(np.concatenate(scores), joined, np.concatenate(owners), draws),
        within=bootstrap(np.array([within]), draws),
        num_solutions=len(joined),
        right_share=float(joined.mean()) if len(joined) else float("nan"),
        num_mixed=int(np.sum(~np.isnan(within))),
    )


def _auc(scores: Float[np.ndarray, " n"], labels: Float[np.ndarray, " n"], owners: Any, draws: Resamples) -> Interval:
    """Whole problems are drawn again, with all of their solutions."""
    value = roc_auc(scores, labels)
    drawn = np.array([roc_auc(scores, labels, weights=counts[owners]) for counts in draws.prompts])
    drawn = drawn[~np.isnan(drawn)]
    if not len(drawn):
        return Interval(value=value, low=np.nan, high=np.nan, standard_error=np.nan)
    low, high = np.quantile(drawn, (0.025, 0.975))
    return Interval(value=value, low=float(low), high=float(high), standard_error=float(drawn.std()))
