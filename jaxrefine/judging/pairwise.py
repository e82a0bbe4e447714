"""The pairwise judge: which of two responses is better, asked in both orders; what the order changes is a tie.

An answer that cannot be read is a class of its own: it counts for nobody, and its rate is reported.

Source: PandaLM, arXiv:2306.05087 (both orders, a contradiction is a tie).
"""

from __future__ import annotations

import dataclasses
import itertools
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any, Literal, Protocol, runtime_checkable

from jaxrefine.data.examples import Candidates, Comparison
from jaxrefine.judging.prompts import instruction_of
from jaxrefine.judging.provenance import Done, Provenance, Result, Unjudged, details_of, distinct, labelled

VERSION = "1"

Spoken = Literal["first", "second", "tie", "unparsable", "unanswered", "refused"]
"""What was said in one order: a verdict; or none, because the answer cannot be read, there is none, or the texts are
too long to be asked about."""
SPOKEN: tuple[Spoken, ...] = ("first", "second", "tie", "unparsable", "unanswered", "refused")

_TURNED: dict[Spoken, Spoken] = {"first": "second", "second": "first"}


@dataclasses.dataclass(frozen=True)
class Pair:
    """Two responses to an instruction."""

    id: str
    instruction: str
    first: str
    second: str


@dataclasses.dataclass(frozen=True)
class Compared:
    """What was said of a pair in both orders, each in terms of the pair's own first and second.

    >>> Compared("first", "second").outcome, Compared("first", "first").outcome, Compared("tie", "unparsable").outcome
    ('tie', 'first', 'unparsable')
    """

    in_order: Spoken
    """With the first response shown first."""
    swapped: Spoken
    """With the second shown first, turned back."""
    identical: bool = False
    """The two are one text: nobody was asked."""

    @property
    def outcome(self) -> Spoken:
        """The verdict; a tie where the orders contradict each other; without one where either order gave none."""
        for missing in ("refused", "unanswered", "unparsable"):
            if missing in (self.in_order, self.swapped):
                return missing
        return self.in_order if self.in_order == self.swapped else "tie"

    @property
    def conflict(self) -> Literal["reversed", "wavering"] | None:
        """How the orders contradict: each names another winner, or one of them a winner and the other a tie."""
        said = {self.in_order, self.swapped}
        if len(said) == 1 or not said <= {"first", "second", "tie"}:
            return None
        return "wavering" if "tie" in said else "reversed"

    def comparison(self, pair: Pair) -> Comparison | None:
        """The pair with its verdict; None without one."""
        outcome = self.outcome
        if outcome not in ("first", "second", "tie"):
            return None
        return Comparison(pair.id, pair.instruction, pair.first, pair.second, outcome)


@dataclasses.dataclass(frozen=True, kw_only=True)
class PairwiseSummary:
    """Counts over pairs, and the rates that say how far a judge can be trusted."""

    first: int
    second: int
    tie: int
    """Ties of any origin: both orders say so, the orders contradict, the two texts are one."""
    reversed: int
    """Each order names another winner."""
    wavering: int
    """One order names a winner, the other a tie."""
    shown_first: int
    """Of those reversed: the winner was the one shown first, both times."""
    identical: int
    """Pairs of one text: a tie without asking."""
    unparsable: int
    unanswered: int
    refused: int

    @property
    def pairs(self) -> int:
        """All of them."""
        return self.first + self.second + self.tie + self.unparsable + self.unanswered + self.refused

    @property
    def conflict_rate(self) -> float:
        """Of pairs with a readable verdict in both orders: those whose verdict the order changes."""
        return _share(self.reversed + self.wavering, self.first + self.second + self.tie - self.identical)

    @property
    def tie_rate(self) -> float:
        """Of pairs with a verdict: ties of any origin."""
        return _share(self.tie, self.first + self.second + self.tie)

    @property
    def unparsable_rate(self) -> float:
        """Of pairs that were answered in both orders: those with an answer that cannot be read."""
        answered = self.first + self.second + self.tie - self.identical + self.unparsable
        return _share(self.unparsable, answered)

    def record(self) -> dict[str, float]:
        """Counts and rates by name."""
        rates = {name: getattr(self, name) for name in ("conflict_rate", "tie_rate", "unparsable_rate")}
        return {**dataclasses.asdict(self), "pairs": self.pairs, **rates}

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.pairs} pairs: first {self.first}, second {self.second}, tie {self.tie}; the order changes "
            f"{self.conflict_rate:.1%} ({self.reversed} reversed, {self.shown_first} of them to what is shown first; "
            f"{self.wavering} wavering); unparsable {self.unparsable_rate:.1%}, unanswered {self.unanswered}, "
            f"refused {self.refused}"
        )


def _share(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def summarize_pairs(compared: Iterable[Compared]) -> PairwiseSummary:
    """Counts what was said of pairs.

    >>> summarize_pairs([Compared("first", "first"), Compared("first", "second")]).conflict_rate
    0.5
    """
    compared = list(compared)
    outcomes = Counter(pair.outcome for pair in compared)
    conflicts = Counter(pair.conflict for pair in compared)
    return PairwiseSummary(
        **{name: outcomes[name] for name in SPOKEN},
        reversed=conflicts["reversed"],
        wavering=conflicts["wavering"],
        shown_first=sum(pair.conflict == "reversed" and pair.in_order == "first" for pair in compared),
        identical=sum(pair.identical for pair in compared),
    )


def comparisons_of(results: Iterable[Result | None]) -> list[Compared]:
    """What ``PairwiseJudge`` noted of every pair of these examples, labelled or not, as of a file that it wrote."""
    found = []
    for result in results:
        details: Mapping[str, Any] = {}
        if result is not None:
            details = result.details if isinstance(result, Unjudged) else details_of(result)
        for _, _, in_order, swapped, identical in details.get("pairs", ()):
            found.append(Compared(in_order, swapped, identical))
    return found


@runtime_checkable
class Asker(Protocol):
    """Says of each question, (instruction, shown first, shown second), which is better."""

    model: str
    model_version: str
    prompt_digest: str
    settings: Mapping[str, Any]

    def ask(self, questions: Sequence[tuple[str, str, str]], done: Callable[[int, Spoken], None]) -> None:
        """Calls ``done`` once for each question, in any order."""


class PairwiseJudge:
    """Labels responses by comparisons of all pairs of them, each in both orders.

    A label is the mean over a response's readable comparisons of 1 for a win, ½ for a tie, 0 for a loss: of two
    responses (1, 0), (½, ½) or (0, 1). Different responses are compared once; equal ones get equal labels.

    Args:
        asker: ``GenerativeAsker`` or ``LikelihoodAsker``.
    """

    def __init__(self, asker: Asker) -> None:
        self._asker = asker
        self.provenance = Provenance(
            judge="pairwise",
            version=VERSION,
            model=asker.model,
            model_version=asker.model_version,
            prompt=asker.prompt_digest,
            settings=asker.settings,
        )

    def compare(
        self, pairs: Sequence[Pair], *, done: Callable[[int, Compared], None] | None = None
    ) -> tuple[list[Compared], PairwiseSummary]:
        """What is said of each pair in both orders, and the counts over all of them.

        Args:
            pairs: to be compared; two equal texts are a tie without asking.
            done: called with the index and the result of each pair as soon as it is there.
        """
        found: dict[int, Compared] = {}

        def finish(index: int, result: Compared) -> None:
            found[index] = result
            if done is not None:
                done(index, result)

        asked = []
        for index, pair in enumerate(pairs):
            if pair.first.strip() == pair.second.strip():
                finish(index, Compared("tie", "tie", identical=True))
            else:
                asked.append(index)
        questions = []
        for pair in (pairs[index] for index in asked):
            questions.append((pair.instruction, pair.first, pair.second))
            questions.append((pair.instruction, pair.second, pair.first))
        said: dict[int, Spoken] = {}

        def spoken(number: int, verdict: Spoken) -> None:
            said[number] = verdict
            place = number // 2
            if 2 * place in said and 2 * place + 1 in said:
                turned = _TURNED.get(said[2 * place + 1], said[2 * place + 1])
                finish(asked[place], Compared(said[2 * place], turned))

        self._asker.ask(questions, spoken)
        results = [found[index] for index in range(len(pairs))]
        return results, summarize_pairs(results)

    def __call__(
        self, examples: Sequence[Candidates], *, done: Done | None = None, known: Collection[int] = ()
    ) -> list[Result | None]:
        """Labels every example; ``comparisons_of`` its results gives what was said of each pair."""
        results: list[Result | None] = [None] * len(examples)
        kinds: dict[int, tuple[list[int], list[int]]] = {}
        pairs: list[Pair] = []
        owners: list[tuple[int, int, int]] = []
        left: Counter[int] = Counter()
        compared: dict[int, list[tuple[int, int, Compared]]] = {}

        def finish(index: int, result: Result) -> None:
            results[index] = result
            if done is not None:
                done(index, result)

        def one(number: int, result: Compared) -> None:
            index, first, second = owners[number]
            compared[index].append((first, second, result))
            left[index] -= 1
            if not left[index]:
                finish(index, self._labelled(examples[index], kinds[index], sorted(compared[index], key=_by_place)))

        for index, example in enumerate(examples):
            if index in known:
                continue
            firsts, places = distinct(example.responses)
            if len(firsts) < 2:
                reason = "fewer than two different responses: nothing to compare"
                finish(index, Unjudged(id=example.id, kind="refused", reason=reason))
                continue
            kinds[index], compared[index] = (firsts, places), []
            for first, second in itertools.combinations(range(len(firsts)), 2):
                texts = (example.responses[firsts[first]], example.responses[firsts[second]])
                pairs.append(Pair(example.id, instruction_of(example), *texts))
                owners.append((index, first, second))
                left[index] += 1
        self.compare(pairs, done=one)
        return results

    def _labelled(
        self, example: Candidates, kinds: tuple[list[int], list[int]], compared: list[tuple[int, int, Compared]]
    ) -> Result:
        firsts, places = kinds
        points: list[list[float]] = [[] for _ in firsts]
        for first, second, result in compared:
            if result.outcome in _POINTS:
                points[first].append(_POINTS[result.outcome])
                points[second].append(1.0 - _POINTS[result.outcome])
        noted = [[firsts[i], firsts[j], pair.in_order, pair.swapped, pair.identical] for i, j, pair in compared]
        lost = Counter(pair.outcome for _, _, pair in compared)
        for kind in ("unanswered", "refused", "unparsable"):
            if lost[kind] and (kind != "unparsable" or not all(points)):
                reason = f"{lost[kind]} of {len(compared)} comparisons {_SAID[kind]}"
                return Unjudged(id=example.id, kind=kind, reason=reason, details={"pairs": noted})
        means = [sum(of_kind) / len(of_kind) for of_kind in points]
        return labelled(example, [means[place] for place in places], self.provenance, {"pairs": noted})


_SAID = {"unanswered": "unanswered", "refused": "refused: longer than rows.max_prompt", "unparsable": "unparsable"}
_POINTS: dict[Spoken, float] = {"first": 1.0, "tie": 0.5, "second": 0.0}


def _by_place(entry: tuple[int, int, Compared]) -> tuple[int, int]:
    return entry[:2]
