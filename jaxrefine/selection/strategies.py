"""One of N solutions: by vote, by an evaluator's scores, or by both. The strategies of one paper, and a table of them.

Every strategy is a function of cluster ids and scores, gives the index of a solution, and reads the scores of those
solutions only that `Strategy.scored` names: the others need not be scored, which is what re-ranking the largest
clusters saves. The rule for ties is one and the same: among solutions the one that was given first, among clusters the
one whose first solution was given first.

Source: Liu et al. 2023, "Improving large language model fine-tuning for solving math problems" (arXiv 2310.10047).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Literal

import numpy as np

from jaxrefine.config import unknown_name
from jaxrefine.selection.clusters import Ids, by_size, in_largest
from jaxrefine.typing import Array, Float


def majority(clusters: Ids) -> int | None:
    """Maj1@N: the first solution of the largest cluster.

    Args:
        clusters: one id a solution, None where there is no answer.

    Returns:
        An index; None where nobody answered.

    >>> majority(["7", "9", None, "9"])
    1
    """
    found = by_size(clusters)
    return found[0][0] if found else None


def rerank(clusters: Ids, scores: Float[Array, " N"], *, largest: int | None = None) -> int | None:
    """RR.All, and RR.MajK with ``largest``: the best-scored solution in the K largest clusters.

    argmax_i scores_i over i in the K largest clusters: those clusters are pooled, their sizes have no say any more.

    Args:
        clusters: one id a solution, None where there is no answer.
        scores: higher is better; only those of the K largest clusters are read, the others may be NaN.
        largest: K; None, RR.All, is every cluster.

    Returns:
        An index; None where nobody answered.

    Raises:
        ValueError: where a score that is read is NaN, their number is not that of the solutions, or K is not positive.

    >>> answers, scores = ["7", "9", "9", "8"], np.array([0.4, 0.3, 0.2, 0.9])
    >>> rerank(answers, scores), rerank(answers, scores, largest=2)
    (3, 0)
    """
    return _best(_checked(clusters, scores), in_largest(clusters, largest))


def weighted_rerank(clusters: Ids, scores: Float[Array, " N"], *, largest: int | None = None) -> int | None:
    """W.RR, and W.RR.MajK with ``largest``: the cluster whose scores have the greatest sum, and its best solution.

    argmax_C Σ_{i in C} scores_i over the K largest clusters C. The sum is that of the real numbers, rounded once, so
    equal sums are equal in any order of the solutions.

    Args:
        clusters: one id a solution, None where there is no answer.
        scores: finite and not negative, such as the probability of "correct" (Eq. 7): of rewards or logarithms below
            zero, more solutions would make a sum less.
        largest: K; None, W.RR, is every cluster.

    Returns:
        An index: of the best-scored solution in the winning cluster; None where nobody answered.

    Raises:
        ValueError: where a score that is read is negative, NaN or infinite, their number is not that of the solutions,
            or K is not positive.

    >>> weighted_rerank(["7", "9", "9", "8"], np.array([0.5, 0.3, 0.4, 0.6]))
    2
    """
    values, read = _checked(clusters, scores), set(in_largest(clusters, largest))
    for index in sorted(read):
        if not 0.0 <= values[index] < math.inf:
            raise ValueError(
                f"score {index} is {values[index]:g}: sums need finite scores that are not negative; give "
                "probabilities, such as 1 / (1 + exp(-reward))"
            )
    groups = [members for members in by_size(clusters) if members[0] in read]
    return _best(values, _first_best(groups, lambda members: math.fsum(values[members])))


def majority_of_best(clusters: Ids, scores: Float[Array, " N"], *, top: int = 8) -> int | None:
    """Maj1.TopN: a vote among the best-scored solutions.

    Args:
        clusters: one id a solution, None where there is no answer.
        scores: higher is better; those of all solutions with an answer are read.
        top: how many vote; all of them where there are fewer. Equal scores at the border: who was given first votes.

    Returns:
        An index: of the best-scored solution in the winning cluster; None where nobody answered.

    Raises:
        ValueError: where a score is NaN, their number is not that of the solutions, or ``top`` is not positive.

    >>> majority_of_best(["7", "9", "9", "8"], np.array([0.5, 0.3, 0.4, 0.6]), top=2)
    0
    """
    if top < 1:
        raise ValueError(f"top, the number of solutions that vote, must be at least 1, given {top}")
    values, answered = _checked(clusters, scores), in_largest(clusters)
    _refuse_nan(values, answered)
    voters = set(sorted(answered, key=lambda index: (-values[index], index))[:top])
    groups = by_size([cluster if index in voters else None for index, cluster in enumerate(clusters)])
    return _best(values, groups[0] if groups else [])


def _checked(clusters: Ids, scores: Float[Array, " N"]) -> Float[np.ndarray, " N"]:
    values = np.asarray(scores, np.float64)
    if values.shape != (len(clusters),):
        raise ValueError(f"scores of shape {values.shape} for {len(clusters)} solutions: give one score a solution")
    return values


def _refuse_nan(values: Float[np.ndarray, " N"], read: Sequence[int]) -> None:
    for index in read:
        if math.isnan(values[index]):
            raise ValueError(f"score {index} is NaN: it is read, so it must be a number")


def _best(values: Float[np.ndarray, " N"], among: Sequence[int]) -> int | None:
    """Of equal scores the first, for indices ascend."""
    _refuse_nan(values, among)
    return max(among, key=values.__getitem__, default=None)


def _first_best(groups: Sequence[list[int]], value: Callable[[list[int]], float]) -> list[int]:
    """Of equal values the cluster that was given first."""
    return min(groups, key=lambda members: (-value(members), members[0]), default=[])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Strategy:
    """A row of the table."""

    title: str
    """As the paper writes it."""
    description: str
    """What is chosen."""
    function: Callable[..., int | None]
    """Of clusters, and scores where it reads any."""
    reads: Literal["nothing", "all", "largest"]
    """Whose scores it needs: nobody's, those of all solutions with an answer, or those in the largest clusters."""
    options: tuple[str, ...] = ()
    """Of `choose`, those that it has."""
    sums: bool = False
    """Whether scores are added up; otherwise their order is all that counts."""

    def scored(self, clusters: Ids, *, largest: int = 8) -> list[int]:
        """The solutions that have to be scored before the strategy can choose: its cost.

        >>> STRATEGIES["rr_majk"].scored(["7", "9", None, "9", "8"], largest=1)
        [1, 3]
        """
        if self.reads == "nothing":
            return []
        return in_largest(clusters, largest if self.reads == "largest" else None)


STRATEGIES: dict[str, Strategy] = {
    "maj1": Strategy(
        title="Maj1@N",
        description="the most frequent answer",
        function=majority,
        reads="nothing",
    ),
    "rr_all": Strategy(
        title="RR.All",
        description="the best-scored solution",
        function=rerank,
        reads="all",
    ),
    "rr_majk": Strategy(
        title="RR.MajK",
        description="the best-scored solution in the K largest clusters",
        function=rerank,
        reads="largest",
        options=("largest",),
    ),
    "w_rr": Strategy(
        title="W.RR",
        description="the answer whose solutions' scores have the greatest sum",
        function=weighted_rerank,
        reads="all",
        sums=True,
    ),
    "w_rr_majk": Strategy(
        title="W.RR.MajK",
        description="the same among the K largest clusters",
        function=weighted_rerank,
        reads="largest",
        options=("largest",),
        sums=True,
    ),
    "maj1_topn": Strategy(
        title="Maj1.TopN",
        description="the most frequent answer of the best-scored solutions",
        function=majority_of_best,
        reads="all",
        options=("top",),
    ),
}
"""The strategies by name, in the paper's order; the same table enrols the contract tests."""


def choose(
    name: str, clusters: Ids, scores: Float[Array, " N"] | None = None, *, largest: int = 8, top: int = 8
) -> int | None:
    """The solution that a strategy of the table chooses.

    Args:
        name: of the strategy.
        clusters: one id a solution, None where there is no answer.
        scores: higher is better; None where there are none, which only a vote can do with.
        largest: K, for the strategies that look at the largest clusters.
        top: how many vote in Maj1.TopN.

    Returns:
        An index; None where nobody answered.

    Raises:
        ValueError: where the name is unknown or scores are missing; else as the strategy's own function.

    >>> choose("w_rr", ["7", "9", "9"], np.array([0.9, 0.5, 0.6]))
    2
    """
    if name not in STRATEGIES:
        raise ValueError(unknown_name(name, STRATEGIES, "strategy"))
    strategy = STRATEGIES[name]
    if strategy.reads == "nothing":
        return strategy.function(clusters)
    if scores is None:
        raise ValueError(f"{strategy.title} re-ranks by scores, and none were given")
    given = {"largest": largest, "top": top}
    return strategy.function(clusters, scores, **{option: given[option] for option in strategy.options})
