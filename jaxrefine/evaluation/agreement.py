"""How far a judge agrees with people: accuracy, Cohen's κ, macro precision, recall and F1, and who beats whom.

A verdict that could not be read is a class that nobody wins by: it is wrong, unless asked otherwise by name.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal

import numpy as np

from jaxrefine.config import unknown_name
from jaxrefine.evaluation.metrics import Interval, bootstrap, make_resamples
from jaxrefine.typing import Float, Int

VERDICTS = ("first", "second", "tie")
"""The classes, in the order of a confusion matrix; its last column is whatever else was said."""

Unread = Literal["wrong", "tie", "left out"]
UNREAD: tuple[Unread, ...] = ("wrong", "tie", "left out")
"""What becomes of predictions that are no verdict."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClassScores:
    """Of one class, or their means."""

    precision: float
    """Of those predicted, the share that is right; 0 where none is predicted."""
    recall: float
    """Of those that are so, the share that is found; 0 where there are none."""
    f1: float
    """Harmonic mean of the two; of the mean: the mean of the classes' F1."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Agreement:
    """A judge against the truth."""

    num: int
    """Items counted."""
    accuracy: float
    interval: Interval
    """Of the accuracy: 95 %, by a bootstrap over items."""
    kappa: float | None
    """Cohen's κ; None where chance alone agrees always."""
    macro: ClassScores
    """Unweighted means over the three classes."""
    by_class: Mapping[str, ClassScores]
    confusion: Int[np.ndarray, "3 4"]
    """Rows: the truth, columns: the prediction, both in the order of ``VERDICTS``, then what is no verdict."""

    @property
    def unread(self) -> int:
        """Predictions that are no verdict, as far as they were counted."""
        return int(self.confusion[:, -1].sum())


def agreement(truth: Sequence[str], predicted: Sequence[str], *, unread: Unread = "wrong", seed: int = 0) -> Agreement:
    """Compares verdicts with the true ones.

    Args:
        truth: of each item; one of ``VERDICTS``.
        predicted: of each item; anything that is none of ``VERDICTS`` is no verdict ("unparsable", "garbage", …).
        unread: what becomes of those: "wrong", "tie" (as PandaLM's released code has it), or "left out".
        seed: of the bootstrap.

    Raises:
        ValueError: unequal lengths, no items left, a truth that is no verdict.

    >>> found = agreement(["first", "first", "second", "tie"], ["first", "second", "second", "unparsable"])
    >>> found.accuracy, round(found.macro.f1, 4), found.unread
    (0.5, 0.4444, 1)

    Source: PandaLM, arXiv:2306.05087 (accuracy, precision, recall, F1); Cohen 1960,
    doi:10.1177/001316446002000104 (κ).
    """
    if unread not in UNREAD:
        raise ValueError(unknown_name(unread, UNREAD, "way with unread verdicts"))
    if len(truth) != len(predicted):
        raise ValueError(f"{len(truth)} true verdicts and {len(predicted)} predicted ones")
    for verdict in truth:
        if verdict not in VERDICTS:
            raise ValueError(unknown_name(verdict, VERDICTS, "true verdict"))
    pairs = list(zip(truth, predicted, strict=True))
    if unread == "left out":
        pairs = [pair for pair in pairs if pair[1] in VERDICTS]
    if not pairs:
        raise ValueError("no verdicts to compare")
    other = VERDICTS.index("tie") if unread == "tie" else len(VERDICTS)
    rows = np.array([VERDICTS.index(true) for true, _ in pairs])
    columns = np.array([VERDICTS.index(said) if said in VERDICTS else other for _, said in pairs])
    confusion = np.zeros((3, 4), np.int64)
    np.add.at(confusion, (rows, columns), 1)
    right, found, there = np.diag(confusion[:, :3]), confusion[:, :3].sum(0), confusion.sum(1)
    precision, recall = _ratio(right, found), _ratio(right, there)
    f1 = _ratio(2 * right, found + there)
    hits = (rows == columns).astype(np.float64)
    return Agreement(
        num=len(pairs),
        accuracy=float(hits.mean()),
        interval=bootstrap(hits[None], make_resamples(1, len(pairs), num_resamples=2000, seed=seed)),
        kappa=kappa([true for true, _ in pairs], [(*VERDICTS, "none")[column] for column in columns]),
        macro=ClassScores(precision=float(precision.mean()), recall=float(recall.mean()), f1=float(f1.mean())),
        by_class={
            name: ClassScores(precision=float(precision[i]), recall=float(recall[i]), f1=float(f1[i]))
            for i, name in enumerate(VERDICTS)
        },
        confusion=confusion,
    )


def _ratio(part: np.ndarray, whole: np.ndarray) -> np.ndarray:
    return np.divide(part, whole, out=np.zeros(len(part)), where=whole > 0)


def kappa(one: Sequence[str], other: Sequence[str]) -> float | None:
    """Cohen's κ = (p_o − p_e) / (1 − p_e): agreement beyond that of chance.

    Args:
        one: what one annotator said of each item.
        other: what another one said of the same items.

    Returns:
        At most 1; None where both say the same one thing of all items.

    >>> kappa(["first", "first", "tie", "tie"], ["first", "tie", "tie", "tie"])
    0.5
    """
    if len(one) != len(other) or not one:
        raise ValueError(f"κ wants the same items twice, got {len(one)} and {len(other)}")
    agreed = sum(a == b for a, b in zip(one, other, strict=True)) / len(one)
    counts = Counter(one), Counter(other)
    chance = sum(counts[0][said] * counts[1][said] for said in counts[0]) / len(one) ** 2
    return None if chance == 1 else (agreed - chance) / (1 - chance)


def majority(said: Sequence[str]) -> str | None:
    """What more than half of the annotators say; None where no such thing is.

    >>> majority(["tie", "first", "tie"]), majority(["first", "second", "tie"])
    ('tie', None)
    """
    verdict, count = Counter(said).most_common(1)[0]
    return verdict if 2 * count > len(said) else None


@dataclasses.dataclass(frozen=True, kw_only=True)
class Standings:
    """Who beats whom among several models."""

    models: tuple[str, ...]
    wins: Int[np.ndarray, "M M"]
    """How often the model of the row beat that of the column."""
    ties: Int[np.ndarray, "M M"]

    def lead(self) -> Int[np.ndarray, "M M"]:
        """Wins less losses of the row's model against the column's."""
        return self.wins - self.wins.T

    def edges(self, *, least: int = 5) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
        """The graph of who beats whom.

        Args:
            least: a lead below this is none: the two are similar.

        Returns:
            (winner, loser) of each pair that met and has a lead; the pairs that are similar.

        Source: PandaLM, arXiv:2306.05087 (the graph of who beats whom).
        """
        lead, met = self.lead(), self.wins + self.wins.T + self.ties
        beats, similar = [], []
        for i, one in enumerate(self.models):
            for j in range(i + 1, len(self.models)):
                if not met[i, j]:
                    continue
                if abs(lead[i, j]) < least:
                    similar.append((one, self.models[j]))
                else:
                    beats.append((one, self.models[j]) if lead[i, j] > 0 else (self.models[j], one))
        return beats, similar

    def cycle(self, *, least: int = 5) -> list[str] | None:
        """Models that beat each other in a circle, which no ranking can show; None where the graph has no circle."""
        beats, _ = self.edges(least=least)
        left = set(self.models)
        while True:
            beaten = {loser for winner, loser in beats if winner in left and loser in left}
            unbeaten = left - beaten
            if not unbeaten:
                break
            left -= unbeaten
        if not left:
            return None
        path = [min(left, key=self.models.index)]  # each one left is beaten by one left: walk from winner to winner
        while path.count(path[-1]) < 2:
            path.append(next(winner for winner, loser in beats if loser == path[-1] and winner in left))
        return path[path.index(path[-1]) : -1][::-1]

    def shares(self) -> Float[np.ndarray, " M"]:
        """Of each model: wins and half of ties over all its comparisons; NaN where it has none."""
        points = (self.wins + 0.5 * self.ties).sum(1)
        total = (self.wins + self.wins.T + self.ties).sum(1)
        return np.divide(points, total, out=np.full(len(points), np.nan), where=total > 0)


def standings(compared: Iterable[tuple[str, str, str]]) -> Standings:
    """Counts comparisons (first model, second model, verdict); what is no verdict counts for nobody.

    >>> found = standings([("a", "b", "first"), ("b", "a", "first"), ("a", "b", "tie"), ("a", "b", "unparsable")])
    >>> found.wins.tolist(), found.ties.tolist()
    ([[0, 1], [1, 0]], [[0, 1], [1, 0]])
    """
    compared = list(compared)
    models = tuple(dict.fromkeys(model for one, other, _ in compared for model in (one, other)))
    place = {model: i for i, model in enumerate(models)}
    wins, ties = np.zeros((len(models),) * 2, np.int64), np.zeros((len(models),) * 2, np.int64)
    for one, other, verdict in compared:
        if one == other:
            raise ValueError(f"a model does not meet itself: {one!r}")
        i, j = place[one], place[other]
        if verdict == "first":
            wins[i, j] += 1
        elif verdict == "second":
            wins[j, i] += 1
        elif verdict == "tie":
            ties[i, j] += 1
            ties[j, i] += 1
    return Standings(models=models, wins=wins, ties=ties)
