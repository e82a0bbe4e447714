"""Is refining worth it? Accuracy of every way to ask, refine and trust, on the same answers; what changes, how often.

Values are one a query; intervals come from a bootstrap over queries (`metrics.bootstrap`) with the same draws for all
methods, and every method is tested against not refining on the queries on which the two differ (`exact_mcnemar`).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Literal

import numpy as np
from scipy.stats import binomtest, rankdata

from jaxrefine.evaluation.metrics import Interval, Resamples, bootstrap, make_resamples, paired_difference
from jaxrefine.selection.trust import (
    CHOICES,
    INITIAL,
    Signals,
    chosen,
    decides_to_refine,
    majority_of,
    missing,
    thresholds,
)
from jaxrefine.typing import Array, Bool, Float

CONTROL = "none"
"""The method that the others are compared with: it refines nothing."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """What one text of a model comes to."""

    key: str | None
    """Canonical, so that equal keys are equal answers; None where none is stated."""
    right: bool


@dataclasses.dataclass(frozen=True, kw_only=True)
class Query:
    """One query with its first and its refined answer, and what everybody says of them."""

    id: str
    initial: Answer
    refined: Answer
    signals: Signals = dataclasses.field(default_factory=Signals)
    votes: tuple[Answer, ...] = ()
    """Samples of the same model, for the vote; without them the vote is not measured."""
    self_refined: Answer | None = None
    """Of Self-Refine: the model's own feedback in place of an Asker's questions."""

    def __post_init__(self) -> None:
        """Refuses right answers that were never stated."""
        for found in (self.initial, self.refined, *self.votes, *([self.self_refined] if self.self_refined else [])):
            if found.right and found.key is None:
                raise ValueError(f"query {self.id!r}: an answer that states nothing cannot be right")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Refinements:
    """All queries of one model with one Asker and one Truster."""

    generator: str
    """The model that answers and refines, ψ."""
    asker: str = "Asker"
    """Who asks, with its size."""
    truster: str = "Truster"
    """Who chooses, with its size."""
    queries: tuple[Query, ...]

    def __post_init__(self) -> None:
        """Refuses no queries, and votes of different numbers."""
        if not self.queries:
            raise ValueError(f"{self.generator}: no queries")
        if len(sizes := {len(query.votes) for query in self.queries}) > 1:
            raise ValueError(f"{self.generator}: every query needs as many votes, got {sorted(sizes)}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Method:
    """A row of the table: a decision, and a choice between the two answers."""

    title: str
    decision: str
    """Of `selection.trust.DECISIONS`; "asker" is "greedy" or "threshold", as the settings have it."""
    choice: str
    """Of `selection.trust.CHOICES`."""


METHODS: dict[str, Method] = {
    CONTROL: Method(title="no refinement", decision="none", choice="refined"),
    "self_refine": Method(title="Self-Refine", decision="always", choice="refined"),
    "self": Method(title="self decides", decision="self", choice="refined"),
    "always": Method(title="always refine", decision="always", choice="refined"),
    "asker": Method(title="Asker", decision="asker", choice="refined"),
    "asker_self": Method(title="Asker + self-selection", decision="asker", choice="self"),
    "art": Method(title="Asker + Truster (ART)", decision="asker", choice="truster"),
    "always_self": Method(title="always + self-selection", decision="always", choice="self"),
    "always_truster": Method(title="always + Truster", decision="always", choice="truster"),
    "majority": Method(title="vote of samples", decision="none", choice="refined"),
    "oracle_decision": Method(title="oracle decides", decision="oracle", choice="refined"),
    "oracle_choice": Method(title="oracle chooses", decision="always", choice="oracle"),
}
"""In the order of the tables; "self_refine" and "majority" have answers of their own."""
OUTCOMES = ("right to right", "right to wrong", "wrong to right", "wrong to wrong")
"""What becomes of the first answer."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class RefinementSettings:
    """How refinements are measured."""

    decision: Literal["greedy", "threshold"] = "greedy"
    """What stands for the Asker's decision: the word that it writes, or its probability of Yes."""
    threshold: float = 0.5
    """The least probability of Yes that refines."""
    num_points: int = 21
    """Of the curve of accuracy against the share refined, both ends included."""
    num_resamples: int = 4000
    """Of the bootstrap."""
    seed: int = 0
    """Of the bootstrap."""

    def __post_init__(self) -> None:
        """Refuses a curve without ends and a threshold that is no probability."""
        if self.num_points < 2:
            raise ValueError(f"num_points = {self.num_points}: a curve has at least its two ends")
        if not 0.0 <= self.threshold <= 1.0:
            raise ValueError(f"threshold = {self.threshold:g} is within 0 and 1")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What a method achieves."""

    accuracy: Interval
    difference: Interval | None
    """Accuracy less the control's, paired by query; None for the control."""
    p_value: float | None
    """Of `exact_mcnemar` against the control; None for the control."""
    share_refined: float
    """Of all queries, those whose answer was refined (for the vote and Self-Refine, all)."""
    share_reverted: float | None
    """Of the refined, those where the first answer was taken after all; None where nobody chooses or nothing is
    refined."""
    transitions: tuple[int, int, int, int]
    """Queries by `OUTCOMES`, from the first answer to the final one."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Point:
    """Accuracy at one threshold."""

    threshold: float
    share_refined: float
    accuracy: dict[str, Interval]
    """By choice."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Detection:
    """How well the Asker and the Truster tell right from wrong; None where it cannot be said."""

    precision: float | None
    """Of the queries that the Asker refines, those whose first answer is wrong."""
    recall: float | None
    """Of the queries whose first answer is wrong, those that the Asker refines."""
    area: float | None
    """Probability that a wrong first answer has a higher probability of Yes than a right one; equal ones are half."""
    truster: float | None
    """Of the queries of which exactly one answer is right, those where the Truster scores it higher; equal is half."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MeasuredRefinement:
    """The figures of one model with one Asker."""

    generator: str
    asker: str
    truster: str
    num_queries: int
    share_agreeing: float
    """Queries whose first and refined answer are the same; two that state none are."""
    unstated: tuple[int, int]
    """First and refined answers that state nothing: wrong, and counted apart."""
    rows: dict[str, Outcome]
    """By method, those that could be measured."""
    left_out: dict[str, str]
    """The others, and why."""
    curve: tuple[Point, ...]
    """Accuracy against the share refined, swept by the threshold; empty without probabilities."""
    detection: Detection


def exact_mcnemar(values: Bool[Array, " P"], control: Bool[Array, " P"]) -> float:
    """The two-sided p-value that two methods are right equally often, from the queries where only one of them is.

    b, c: queries that only the first, only the second has right; p = P(as uneven as b, c or more | Binomial(b + c, ½)).

    Args:
        values: whether the method is right, one a query.
        control: the same of the other method, on the same queries.

    Returns:
        1 where they never differ.

    >>> exact_mcnemar(np.array([True] * 6 + [False]), np.array([False] * 6 + [True]))  # 2 · (1 + 7) / 2^7
    0.125

    Source: McNemar 1947; in the exact form of the sign test.
    """
    one, other = np.asarray(values, bool), np.asarray(control, bool)
    better, worse = int((one & ~other).sum()), int((other & ~one).sum())
    return 1.0 if better + worse == 0 else float(binomtest(better, better + worse, 0.5).pvalue)


def measure_refinement(found: Refinements, settings: RefinementSettings) -> MeasuredRefinement:
    """Every method whose signals are there, on one set of answers.

    >>> wrong, right = Answer(key="4", right=False), Answer(key="5", right=True)
    >>> query = Query(id="1", initial=wrong, refined=right, signals=Signals(yes_probability=0.9, asker_says_yes=True))
    >>> rows = measure_refinement(Refinements(generator="m", queries=(query,)), RefinementSettings()).rows
    >>> rows["none"].accuracy.value, rows["asker"].accuracy.value, "art" in rows
    (0.0, 1.0, False)
    """
    queries = found.queries
    draws = make_resamples(1, len(queries), num_resamples=settings.num_resamples, seed=settings.seed)
    rows: dict[str, Outcome] = {}
    left_out: dict[str, str] = {}
    for name in METHODS:
        reason = _why_not(name, queries, settings)
        if reason is None:
            rows[name] = _outcome(name, queries, settings, draws)
        else:
            left_out[name] = reason
    return MeasuredRefinement(
        generator=found.generator,
        asker=found.asker,
        truster=found.truster,
        num_queries=len(queries),
        share_agreeing=float(np.mean([query.initial.key == query.refined.key for query in queries])),
        unstated=(sum(q.initial.key is None for q in queries), sum(q.refined.key is None for q in queries)),
        rows=rows,
        left_out=left_out,
        curve=_curve(queries, settings, draws),
        detection=_detection(queries, settings),
    )


def _decision(name: str, settings: RefinementSettings) -> str:
    given = METHODS[name].decision
    return settings.decision if given == "asker" else given


def _why_not(name: str, queries: Sequence[Query], settings: RefinementSettings) -> str | None:
    if name == "majority":
        return None if queries[0].votes else "no samples to vote"
    if name == "self_refine":
        return None if all(query.self_refined for query in queries) else "no answers refined by own feedback"
    lacking = missing(_decision(name, settings), METHODS[name].choice, [query.signals for query in queries])
    return None if lacking is None else f"nobody gave {lacking}"


def final(name: str, query: Query, settings: RefinementSettings) -> tuple[bool, int | None, bool]:
    """What a method makes of a query: whether it refines, which answer it chooses, and whether that one is right.

    Args:
        name: of `METHODS`.
        query: with the signals that the method reads.
        settings: the Asker's decision.

    Returns:
        (refined, `INITIAL` or `REFINED` where it refined and else None, right).
    """
    if name == "majority":
        place = majority_of([vote.key for vote in query.votes])
        return True, None, place is not None and query.votes[place].right
    if name == "self_refine":
        assert query.self_refined is not None
        return True, None, query.self_refined.right
    refines = decides_to_refine(
        _decision(name, settings), query.signals, threshold=settings.threshold, right=query.initial.right
    )
    return (True, *_choose(METHODS[name].choice, query)) if refines else (False, None, query.initial.right)


def _choose(choice: str, query: Query) -> tuple[int, bool]:
    place = chosen(choice, query.signals, right=(query.initial.right, query.refined.right))
    return place, (query.initial, query.refined)[place].right


def _outcome(name: str, queries: Sequence[Query], settings: RefinementSettings, draws: Resamples) -> Outcome:
    finals = [final(name, query, settings) for query in queries]
    before = np.array([query.initial.right for query in queries])
    after = np.array([right for _, _, right in finals])
    places = [place for refined, place, _ in finals if refined and place is not None]
    chooses = METHODS[name].choice != "refined" and bool(places)
    other = name != CONTROL
    return Outcome(
        accuracy=bootstrap(_table(after), draws),
        difference=paired_difference(_table(after), _table(before), draws) if other else None,
        p_value=exact_mcnemar(after, before) if other else None,
        share_refined=float(np.mean([refined for refined, _, _ in finals])),
        share_reverted=float(np.mean([place == INITIAL for place in places])) if chooses else None,
        transitions=transitions(before, after),
    )


def transitions(before: Bool[Array, " P"], after: Bool[Array, " P"]) -> tuple[int, int, int, int]:
    """Queries by `OUTCOMES`.

    >>> transitions(np.array([True, True, False]), np.array([True, False, True]))
    (1, 1, 1, 0)
    """
    one, other = np.asarray(before, bool), np.asarray(after, bool)
    pairs = ((one & other), (one & ~other), (~one & other), (~one & ~other))
    right_right, right_wrong, wrong_right, wrong_wrong = (int(pair.sum()) for pair in pairs)
    return right_right, right_wrong, wrong_right, wrong_wrong


def _curve(queries: Sequence[Query], settings: RefinementSettings, draws: Resamples) -> tuple[Point, ...]:
    signals = [query.signals for query in queries]
    if missing("threshold", "refined", signals) is not None:
        return ()
    probabilities = np.array([signal.yes_probability for signal in signals], np.float64)
    choices = [name for name in CHOICES if missing("always", name, signals) is None and name != "oracle"]
    before = np.array([query.initial.right for query in queries])
    after = {name: np.array([_choose(name, query)[1] for query in queries]) for name in choices}
    points = []
    for threshold in _spread(probabilities, settings.num_points):
        refined = probabilities >= threshold
        accuracy = {name: bootstrap(_table(np.where(refined, after[name], before)), draws) for name in choices}
        points.append(Point(threshold=threshold, share_refined=float(refined.mean()), accuracy=accuracy))
    return tuple(points)


def _spread(probabilities: Float[np.ndarray, " P"], num_points: int) -> list[float]:
    """Thresholds whose shares of refined queries are nearest to evenly spread ones; each once, both ends included."""
    every = thresholds(probabilities.tolist())
    shares = np.array([(probabilities >= threshold).mean() for threshold in every])
    nearest = {int(np.argmin(np.abs(shares - wanted))) for wanted in np.linspace(0.0, 1.0, num_points)}
    return [every[index] for index in sorted(nearest)]


def _detection(queries: Sequence[Query], settings: RefinementSettings) -> Detection:
    signals = [query.signals for query in queries]
    wrong = np.array([not query.initial.right for query in queries])
    precision = recall = area = truster = None
    if missing(settings.decision, "refined", signals) is None:
        refined = np.array([decides_to_refine(settings.decision, s, threshold=settings.threshold) for s in signals])
        precision = float(wrong[refined].mean()) if refined.any() else None
        recall = float(refined[wrong].mean()) if wrong.any() else None
    if missing("threshold", "refined", signals) is None and 0 < wrong.sum() < len(wrong):
        ranks = rankdata([signal.yes_probability for signal in signals])
        num = int(wrong.sum())
        area = float((ranks[wrong].sum() - num * (num + 1) / 2) / (num * (len(wrong) - num)))
    uneven = [query for query in queries if query.initial.right != query.refined.right]
    if uneven and missing("always", "truster", signals) is None:
        truster = float(np.mean([_favours_right(query) for query in uneven]))
    return Detection(precision=precision, recall=recall, area=area, truster=truster)


def _favours_right(query: Query) -> float:
    assert query.signals.scores is not None
    first, second = query.signals.scores
    if first == second:
        return 0.5
    return float((first > second) == query.initial.right)


def _table(values: Bool[np.ndarray, " P"]) -> Float[np.ndarray, "1 P"]:
    """One a query, as the table of one seed that `bootstrap` wants."""
    return values.astype(np.float64)[None]
