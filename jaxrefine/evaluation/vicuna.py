"""Vicuna QA: wins, losses and ties of one model against another by a judge in both orders; and scores of rankings.

Source: Tuna, arXiv:2310.13385, §4 (win/lose/tie against Alpaca; rank i of five systems scores 6 − i).
"""

from __future__ import annotations

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrefine.config import unknown_name
from jaxrefine.data.examples import Candidates
from jaxrefine.data.vicuna import Review
from jaxrefine.evaluation.metrics import Interval, bootstrap, make_resamples
from jaxrefine.judging.pairwise import Compared, Pair, PairwiseJudge, PairwiseSummary, Spoken, summarize_pairs
from jaxrefine.judging.prompts import instruction_of

_TURNED: dict[Spoken, Spoken] = {"first": "second", "second": "first"}
_POINTS = {"first": 1.0, "tie": 0.0, "second": -1.0}


@dataclasses.dataclass(frozen=True, kw_only=True)
class WinLoseTie:
    """Of one model's answers against another's."""

    win: int
    """Both orders prefer ours."""
    lose: int
    """Both orders prefer theirs."""
    tie: int
    """Both orders say so, the orders contradict each other, or the answers are one text."""
    unjudged: int
    """No readable verdict in one of the orders: counts for nobody."""
    advantage: Interval | None
    """(win − lose) / judged with its 95 % interval, by a bootstrap over questions; None where nothing was judged."""

    @property
    def judged(self) -> int:
        """Questions with a verdict."""
        return self.win + self.lose + self.tie

    def record(self) -> dict[str, Any]:
        """Everything by name, for ``metrics.json``."""
        return {**dataclasses.asdict(self), "judged": self.judged}

    def __str__(self) -> str:
        """One line for people."""
        counts = f"win {self.win}, lose {self.lose}, tie {self.tie}"
        counts += f", {self.unjudged} unjudged" if self.unjudged else ""
        if self.advantage is None:
            return counts
        return (
            f"{counts}; advantage {self.advantage.value:+.2f} [{self.advantage.low:+.2f}, {self.advantage.high:+.2f}]"
        )


def win_lose_tie(compared: Iterable[Compared], *, seed: int = 0) -> WinLoseTie:
    """Counts verdicts of pairs (ours, theirs).

    Args:
        compared: of ``PairwiseJudge.compare``, our answer being each pair's first.
        seed: of the bootstrap.

    >>> found = win_lose_tie([Compared("first", "first"), Compared("first", "second"), Compared("tie", "unparsable")])
    >>> found.win, found.lose, found.tie, found.unjudged
    (1, 0, 1, 1)
    """
    outcomes = [pair.outcome for pair in compared]
    counts = Counter(outcomes)
    points = np.array([[_POINTS[outcome] for outcome in outcomes if outcome in _POINTS]])
    advantage = bootstrap(points, make_resamples(*points.shape, seed=seed)) if points.size else None
    judged = points.shape[1]
    return WinLoseTie(
        win=counts["first"],
        lose=counts["second"],
        tie=counts["tie"],
        unjudged=len(outcomes) - judged,
        advantage=advantage,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class VicunaScores:
    """A model against another on Vicuna's questions."""

    overall: WinLoseTie
    by_category: Mapping[str, WinLoseTie]
    judge: PairwiseSummary
    """How far the judge can be trusted: what the order changes, and what could not be read."""

    def record(self) -> dict[str, Any]:
        """Everything by name, for ``metrics.json``."""
        return {
            "overall": self.overall.record(),
            "by_category": {name: found.record() for name, found in self.by_category.items()},
            "judge": self.judge.record(),
        }


def compare_answers(
    judge: PairwiseJudge, ours: Sequence[Candidates], theirs: Sequence[Candidates], *, seed: int = 0
) -> VicunaScores:
    """Asks a judge, in both orders, which of two models answers each question better.

    Args:
        judge: of pairs.
        ours: questions with one response each, ours.
        theirs: the same questions, in any order, with the other model's response.
        seed: of the bootstrap.

    Raises:
        ValueError: no question; questions that are not the same; not one response.
    """
    if not ours:
        raise ValueError("no question to compare answers to")
    others = {question.id: question for question in theirs}
    for question in (*ours, *theirs):
        if len(question.responses) != 1:
            raise ValueError(f"question {question.id!r}: one response is wanted, got {len(question.responses)}")
    for question in ours:
        if question.id not in others:
            raise ValueError(unknown_name(question.id, others, "question"))
    if len(others) != len(ours) or len(theirs) != len(ours):
        raise ValueError(f"{len(ours)} of our answers and {len(theirs)} of theirs: the same questions are wanted, once")
    pairs = [
        Pair(question.id, instruction_of(question), question.responses[0], others[question.id].responses[0])
        for question in ours
    ]
    compared, summary = judge.compare(pairs)
    groups: dict[str, list[Compared]] = defaultdict(list)
    for question, found in zip(ours, compared, strict=True):
        groups[str(question.meta.get("category", "all"))].append(found)
    return VicunaScores(
        overall=win_lose_tie(compared, seed=seed),
        by_category={name: win_lose_tie(found, seed=seed) for name, found in sorted(groups.items())},
        judge=summary,
    )


def compared_of_reviews(
    in_order: Sequence[Review], swapped: Sequence[Review]
) -> tuple[dict[str, Compared], PairwiseSummary]:
    """What published reviews say of pairs that were shown in both orders, by question.

    Args:
        in_order: with the first answer shown first.
        swapped: with the second answer shown first; the same questions, in any order.

    Raises:
        ValueError: a question with a review in one order only, or with two in one.

    >>> found, _ = compared_of_reviews([Review("1", (9.0, 8.0))], [Review("1", (7.0, 9.0))])
    >>> found["1"].outcome
    'first'
    """
    sides = []
    for reviews in (in_order, swapped):
        side = {review.question: review.verdict for review in reviews}
        if len(side) != len(reviews):
            twice = next(name for name, times in Counter(review.question for review in reviews).items() if times > 1)
            raise ValueError(f"question {twice!r} has two reviews in one order")
        sides.append(side)
    one, other = sides
    lonely = sorted(set(one) ^ set(other))
    if lonely:
        raise ValueError(f"question {', '.join(lonely[:8])} has a review in one order only ({len(lonely)} in all)")
    found = {name: Compared(verdict, _TURNED.get(other[name], other[name])) for name, verdict in one.items()}
    return found, summarize_pairs(found.values())


def rank_scores(rankings: Sequence[Mapping[str, int]]) -> dict[str, float]:
    """The mean score of each system over rankings: rank i of N systems scores N + 1 − i (6 − i for Tuna's five).

    Args:
        rankings: of each item by each annotator, system to rank; 1 is best, every rank occurs once.

    Returns:
        By system, the best first; 1 is the lowest mean there can be, N the highest.

    Raises:
        ValueError: no ranking; ranks that are not 1 to N; systems that differ between rankings.

    >>> rank_scores([{"a": 1, "b": 2, "c": 3}, {"a": 2, "b": 1, "c": 3}, {"a": 1, "b": 3, "c": 2}])
    {'a': 2.6666666666666665, 'b': 2.0, 'c': 1.3333333333333333}
    """
    if not rankings:
        raise ValueError("no ranking to score")
    systems = list(rankings[0])
    totals = dict.fromkeys(systems, 0)
    for number, ranking in enumerate(rankings):
        if set(ranking) != set(systems):
            raise ValueError(f"ranking {number} is of {sorted(ranking)}, ranking 0 of {sorted(systems)}")
        if sorted(ranking.values()) != list(range(1, len(systems) + 1)):
            raise ValueError(f"ranking {number}: ranks are 1 to {len(systems)}, each once; got {dict(ranking)}")
        for system, rank in ranking.items():
            totals[system] += len(systems) + 1 - rank
    means = {system: total / len(rankings) for system, total in totals.items()}
    return dict(sorted(means.items(), key=lambda item: -item[1]))
