"""Ask, refine, trust: whether an answer is to be refined, and which of the two answers is to be trusted.

A *decision* is taken before anything is refined: by nobody, by the model that answered ("self"), or by an Asker, either
as a threshold on its probability of Yes or as what it writes greedily. A *choice* is taken afterwards, between the
first answer and the refined one. Any decision goes with any choice.

Source: Shridhar et al. 2023, The ART of LLM Refinement (arXiv 2311.07961).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Hashable, Sequence

from jaxrefine.config import unknown_name
from jaxrefine.selection.clusters import by_size

INITIAL, REFINED = 0, 1
"""The places of the two answers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Signals:
    """What is known of one query when decisions and choices are taken; None is what nobody said.

    Raises:
        ValueError: a probability outside 0 … 1, or scores that are not two numbers.

    >>> Signals(yes_probability=0.7).yes_probability
    0.7
    """

    yes_probability: float | None = None
    """The Asker's, that the first answer needs refinement."""
    asker_says_yes: bool | None = None
    """What the Asker writes greedily; None where it wrote neither Yes nor No, which refines nothing."""
    self_says_yes: bool | None = None
    """The same of the model that answered."""
    scores: tuple[float, float] | None = None
    """The Truster's, of the first and the refined answer; higher is better."""
    self_choice: int | None = None
    """Which answer the model that gave them prefers: `INITIAL` or `REFINED`."""

    def __post_init__(self) -> None:
        """Refuses what cannot be a signal."""
        found = self.yes_probability
        if found is not None and not 0.0 <= found <= 1.0:
            raise ValueError(f"yes_probability is within 0 and 1, given {found:g}")
        if self.scores is not None and any(math.isnan(score) for score in self.scores):
            raise ValueError(f"scores are numbers, given {self.scores}")
        if self.self_choice not in (None, INITIAL, REFINED):
            raise ValueError(f"self_choice is {INITIAL} (initial) or {REFINED} (refined), given {self.self_choice}")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decision:
    """A row of `DECISIONS`."""

    title: str
    """Who decides, in the tables."""
    reads: str | None
    """The signal without which it cannot decide; None needs nothing."""


DECISIONS: dict[str, Decision] = {
    "none": Decision(title="–", reads=None),
    "always": Decision(title="always", reads=None),
    "self": Decision(title="self", reads="self_says_yes"),
    "greedy": Decision(title="Asker", reads="asker_says_yes"),
    "threshold": Decision(title="Asker, by threshold", reads="yes_probability"),
    "oracle": Decision(title="oracle", reads=None),
}
"""Who decides whether to refine; "oracle" refines exactly the wrong answers."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """A row of `CHOICES`."""

    title: str
    """Who chooses, in the tables."""
    reads: str | None
    """The signal without which it cannot choose; None needs nothing."""


CHOICES: dict[str, Choice] = {
    "refined": Choice(title="–", reads=None),
    "self": Choice(title="self", reads="self_choice"),
    "truster": Choice(title="Truster", reads="scores"),
    "oracle": Choice(title="oracle", reads=None),
}
"""Who chooses between a first and a refined answer; "refined" takes what was refined, "oracle" a right one."""


def decides_to_refine(name: str, signals: Signals, *, threshold: float = 0.5, right: bool | None = None) -> bool:
    """Whether a query's answer is refined.

    Args:
        name: of `DECISIONS`.
        signals: of the query.
        threshold: for "threshold": the least probability of Yes that refines.
        right: whether the first answer is right; only "oracle" may know.

    Raises:
        ValueError: an unknown name, or a signal that is missing.

    >>> decides_to_refine("threshold", Signals(yes_probability=0.3), threshold=0.3)
    True
    """
    if name not in DECISIONS:
        raise ValueError(unknown_name(name, DECISIONS, "decision"))
    if name in ("none", "always"):
        return name == "always"
    if name == "oracle":
        if right is None:
            raise ValueError("the oracle decides by whether the first answer is right: give right")
        return not right
    if name == "threshold":
        if signals.yes_probability is None:
            raise ValueError("decision 'threshold' reads yes_probability, which nobody said")
        return signals.yes_probability >= threshold
    return bool(signals.asker_says_yes if name == "greedy" else signals.self_says_yes)


def chosen(name: str, signals: Signals, *, right: tuple[bool, bool] | None = None) -> int:
    """Which of a first and a refined answer is trusted.

    Equal scores keep the first answer: a refinement has to be better.

    Args:
        name: of `CHOICES`.
        signals: of the query.
        right: whether each answer is right; only "oracle" may know, which refines where both are alike.

    Returns:
        `INITIAL` or `REFINED`.

    Raises:
        ValueError: an unknown name, or a signal that is missing.

    >>> chosen("truster", Signals(scores=(0.5, 0.5))), chosen("oracle", Signals(), right=(True, False))
    (0, 0)
    """
    if name not in CHOICES:
        raise ValueError(unknown_name(name, CHOICES, "choice"))
    if name == "refined":
        return REFINED
    if name == "oracle":
        if right is None:
            raise ValueError("the oracle chooses by which answers are right: give right")
        return INITIAL if right[INITIAL] and not right[REFINED] else REFINED
    if name == "self":
        if signals.self_choice is None:
            raise ValueError("choice 'self' reads self_choice, which nobody said")
        return signals.self_choice
    if signals.scores is None:
        raise ValueError("choice 'truster' reads scores, which nobody said")
    return REFINED if signals.scores[REFINED] > signals.scores[INITIAL] else INITIAL


def majority_of(answers: Sequence[Hashable | None]) -> int | None:
    """Maj1@k: the first sample with the most frequent answer, what one could have for as many samples as refining has.

    Args:
        answers: canonical keys of a query's samples; None is no answer.

    Returns:
        Its index; of equally frequent answers the one that was given first; None where nobody answered.

    >>> majority_of(["7", "9", "9"]), majority_of(["7", "9", "8"]), majority_of([None, None])
    (1, 0, None)
    """
    groups = by_size(answers)
    return groups[0][0] if groups else None


def thresholds(probabilities: Sequence[float]) -> list[float]:
    """Every threshold that refines another set of queries, the strictest first: nobody, then one value after another.

    Args:
        probabilities: of Yes, one a query.

    Returns:
        Infinity, which refines nothing, then the different probabilities, falling; the last one refines everything.

    >>> thresholds([0.2, 0.9, 0.2])
    [inf, 0.9, 0.2]
    """
    return [math.inf, *sorted(set(probabilities), reverse=True)]


def missing(decision: str, choice: str, signals: Sequence[Signals]) -> str | None:
    """The first signal that a decision and a choice read and a query lacks; None where both can be taken everywhere.

    What an Asker wrote that is neither Yes nor No is no missing signal as long as it wrote Yes or No to anybody.

    Args:
        decision: of `DECISIONS`.
        choice: of `CHOICES`.
        signals: one a query.

    >>> missing("threshold", "refined", [Signals()]), missing("always", "truster", [Signals(scores=(0.0, 1.0))])
    ('yes_probability', None)
    """
    for name in (DECISIONS[decision].reads, CHOICES[choice].reads):
        if name is None:
            continue
        found = [getattr(one, name) is not None for one in signals]
        if not (any(found) if name.endswith("says_yes") else all(found)):
            return name
    return None
