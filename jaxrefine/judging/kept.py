"""Comparisons that are on disk once they are made, so that no two texts are ever compared twice."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence

from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import progress
from jaxrefine.config import digest
from jaxrefine.judging.pairwise import Compared, Pair, PairwiseJudge, Spoken
from jaxrefine.selection.tournament import Match

_TURNED: Mapping[Spoken, Spoken] = {"first": "second", "second": "first"}


class KeptComparisons:
    """A pairwise judge that remembers: what it said of two texts holds in whichever order they come again.

    Args:
        judge: asked in both orders.
        journal: of this judge alone; what is there is not asked again.
    """

    def __init__(self, judge: PairwiseJudge, journal: Journal) -> None:
        self._judge, self._journal = judge, journal
        provenance = judge.provenance.digest()
        if any(record["by"] != provenance for record in journal.records().values()):
            raise ValueError(f"{journal.path} holds what another judge said; keep each judge's in a file of its own")
        self._by = provenance
        self._known = {str(key): Compared(*record["said"]) for key, record in journal.records().items()}

    @property
    def questions(self) -> int:
        """Put to the judge so far, in earlier runs too: two a pair of texts that were compared."""
        return 2 * sum(not compared.identical for compared in self._known.values())

    def compare(self, pairs: Sequence[Pair], *, description: str = "") -> list[Compared]:
        """What is said of each pair in both orders.

        Args:
            pairs: ids are not read; two equal texts are a tie without asking.
            description: of a progress bar; without it there is none.
        """
        keys = [_key(pair) for pair in pairs]
        asked: dict[str, Pair] = {}
        for pair, (key, _) in zip(pairs, keys, strict=True):
            if key not in self._known:
                asked.setdefault(key, _ordered(pair))
        self._ask(asked, description)
        return [turned(self._known[key]) if is_turned else self._known[key] for key, is_turned in keys]

    def match(self, one: str, other: str, pairs: Sequence[Pair]) -> Match:
        """Two competitors on the same prompts.

        Args:
            one: the first responses' competitor.
            other: the second responses'.
            pairs: one a prompt.
        """
        compared = self.compare(pairs)
        return Match(
            one=one,
            other=other,
            outcomes=tuple(both.outcome for both in compared),
            questions=2 * sum(not both.identical for both in compared),
            conflicts=sum(both.conflict is not None for both in compared),
        )

    def _ask(self, asked: Mapping[str, Pair], description: str) -> None:
        names, pairs = list(asked), list(asked.values())
        if not pairs:
            return
        bar = progress(len(pairs), description, unit="pairs") if description else None

        def done(index: int, compared: Compared) -> None:
            record = {"by": self._by, "said": [compared.in_order, compared.swapped, compared.identical]}
            self._journal.append(names[index], record)
            self._known[names[index]] = compared
            if bar is not None:
                bar.advance()

        if bar is None:
            self._judge.compare(pairs, done=done)
            return
        with bar:
            self._judge.compare(pairs, done=done)


class KeptReplies:
    """What a judge wrote, on disk once it is read: a `judging.verdicts.Heard`.

    Args:
        journal: of this judge alone.
    """

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        self._texts: dict[str, str] = {str(key): text for key, text in journal.records().items()}

    def __call__(self, question: tuple[str, str, str], text: str) -> None:
        """Keeps a reply; a question that is asked again, after a stop, has the same."""
        key = digest(list(question))
        if key not in self._texts:
            self._journal.append(key, text)
            self._texts[key] = text

    def of(self, pair: Pair) -> str:
        """The reply to a pair in its own order; "" where nobody was asked."""
        return self._texts.get(digest([pair.instruction, pair.first, pair.second]), "")


def turned(compared: Compared) -> Compared:
    """The same in terms of the other order.

    >>> turned(Compared("first", "tie"))
    Compared(in_order='tie', swapped='second', identical=False)
    """
    one, other = compared.swapped, compared.in_order
    return dataclasses.replace(compared, in_order=_TURNED.get(one, one), swapped=_TURNED.get(other, other))


def _ordered(pair: Pair) -> Pair:
    if pair.first <= pair.second:
        return pair
    return dataclasses.replace(pair, first=pair.second, second=pair.first)


def _key(pair: Pair) -> tuple[str, bool]:
    """Of the two texts in their own order, and whether the pair has them in the other."""
    ordered = _ordered(pair)
    return digest([pair.instruction, ordered.first, ordered.second]), ordered is not pair
