"""The best of many competitors by comparisons of two: blocks, in each a walk with the winner so far, then a final.

A *match* is two competitors on the same prompts. It is made of two *comparisons*, one in each order of presentation,
and each of those puts a *question* to the judge for every prompt. A competitor has to win more prompts than it loses
to take another's place: after a draw the one that was there first stays.

Source: PandaLM, arXiv:2306.05087 (80 configurations of a model in four blocks of twenty: 79 matches, 158 comparisons).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Callable, Sequence
from typing import Any

from jaxrefine.artefacts.journal import Journal

_TURNED = {"first": "second", "second": "first"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Match:
    """Two competitors on the same prompts.

    >>> match = Match(one="a", other="b", outcomes=("first", "tie", "second", "first", "unparsable"), questions=8)
    >>> match.wins, match.losses, match.ties, match.unread, match.winner
    (2, 1, 1, 1, 'a')
    """

    one: str
    """The competitor that was there first: it stays after a draw."""
    other: str
    outcomes: tuple[str, ...]
    """Of each prompt, both orders together: "first" where ``one`` is better, "second", "tie"; anything else is no
    verdict and counts for neither."""
    questions: int
    """To the judge; a prompt that both answer with one text needs none."""
    conflicts: int = 0
    """Prompts whose verdict the order changed."""

    @property
    def wins(self) -> int:
        """Prompts at which ``one`` is better."""
        return self.outcomes.count("first")

    @property
    def losses(self) -> int:
        """Prompts at which ``other`` is better."""
        return self.outcomes.count("second")

    @property
    def ties(self) -> int:
        """Prompts at which they are equally good."""
        return self.outcomes.count("tie")

    @property
    def unread(self) -> int:
        """Prompts without a verdict."""
        return len(self.outcomes) - self.wins - self.losses - self.ties

    @property
    def winner(self) -> str:
        """``one``, unless it lost more prompts than it won."""
        return self.other if self.losses > self.wins else self.one

    def turned(self) -> Match:
        """The same match with the two in the other order."""
        outcomes = tuple(_TURNED.get(outcome, outcome) for outcome in self.outcomes)
        return dataclasses.replace(self, one=self.other, other=self.one, outcomes=outcomes)

    def record(self) -> dict[str, Any]:
        """All of it as JSON holds it, with the counts."""
        counts = {name: getattr(self, name) for name in ("wins", "losses", "ties", "unread")}
        return {**dataclasses.asdict(self), **counts}


Compare = Callable[[str, str], Match]
"""Plays a match."""


class Matches:
    """Plays every pair once: what a journal holds is not played again, in whichever order the two are named.

    Args:
        compare: plays a match.
        journal: keeps them; a run that was stopped goes on after the last one that was finished.
        num_prompts: of every match; one of another length is an error.
    """

    def __init__(self, compare: Compare, journal: Journal, *, num_prompts: int) -> None:
        self._compare, self._journal, self._num_prompts = compare, journal, num_prompts
        self._known: dict[frozenset[str], Match] = {}
        for record in journal.records().values():
            known = {field.name: record[field.name] for field in dataclasses.fields(Match)}
            self._keep(Match(**known | {"outcomes": tuple(known["outcomes"])}), f"{journal.path}: ")

    def __len__(self) -> int:
        """The number of matches that were played."""
        return len(self._known)

    def __call__(self, one: str, other: str) -> Match:
        """The match of two competitors, in terms of the first named.

        Raises:
            ValueError: a competitor against itself, or a match of another number of prompts.
        """
        if one == other:
            raise ValueError(f"a competitor does not meet itself: {one!r}")
        pair = frozenset((one, other))
        if pair not in self._known:
            match = self._compare(one, other)
            self._keep(match, "")
            self._journal.append(json.dumps([one, other]), match.record())
        match = self._known[pair]
        return match if match.one == one else match.turned()

    def _keep(self, match: Match, where: str) -> None:
        if len(match.outcomes) != self._num_prompts:
            raise ValueError(
                f"{where}the match of {match.one!r} and {match.other!r} has {len(match.outcomes)} prompts; this "
                f"tournament has {self._num_prompts}"
            )
        self._known[frozenset((match.one, match.other))] = match


@dataclasses.dataclass(frozen=True, kw_only=True)
class Budget:
    """What a tournament costs at most, before it starts."""

    matches: int
    num_prompts: int

    @property
    def comparisons(self) -> int:
        """Matches in both orders."""
        return 2 * self.matches

    @property
    def questions(self) -> int:
        """To the judge: one a comparison and prompt; fewer where both competitors answer with one text."""
        return self.comparisons * self.num_prompts

    def __str__(self) -> str:
        """One line for people."""
        return (
            f"{self.matches} matches in both orders: {self.comparisons} comparisons of {self.num_prompts} prompts, at "
            f"most {self.questions} questions to the judge"
        )


@dataclasses.dataclass(frozen=True)
class Bracket:
    """Who meets whom.

    Raises:
        ValueError: no blocks, an empty block, a competitor twice.

    >>> Bracket((("a", "b", "c"), ("d", "e"))).budget(num_prompts=170).questions  # 4 matches · 2 · 170
    1360
    """

    blocks: tuple[tuple[str, ...], ...]

    def __post_init__(self) -> None:
        if not self.blocks or not all(self.blocks):
            raise ValueError(f"a bracket has blocks with competitors in each, got {self.blocks}")
        names = self.competitors
        if repeated := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"competitor {repeated[0]!r} is named twice")

    @property
    def competitors(self) -> tuple[str, ...]:
        """All of them, block by block."""
        return tuple(itertools.chain.from_iterable(self.blocks))

    def budget(self, *, num_prompts: int) -> Budget:
        """The cost: every match takes one competitor out, so there are as many as competitors, less one."""
        return Budget(matches=len(self.competitors) - 1, num_prompts=num_prompts)


def make_bracket(competitors: Sequence[str], num_blocks: int) -> Bracket:
    """Blocks of consecutive competitors, of one size or of two sizes that differ by one.

    Args:
        competitors: in the order in which they meet.
        num_blocks: at most as many as there are competitors.

    Raises:
        ValueError: no blocks, or more than competitors.

    >>> make_bracket("abcde", 2).blocks
    (('a', 'b'), ('c', 'd', 'e'))
    """
    num = len(competitors)
    if not 1 <= num_blocks <= num:
        raise ValueError(f"{num} competitors make 1 to {num} blocks, got num_blocks = {num_blocks}")
    ends = [num * block // num_blocks for block in range(num_blocks + 1)]
    return Bracket(tuple(tuple(competitors[start:end]) for start, end in itertools.pairwise(ends)))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """How a tournament went."""

    champion: str
    winners: tuple[str, ...]
    """Of the blocks, in order."""
    matches: tuple[Match, ...]
    """In the order in which they were played; ``one`` is the incumbent."""


def play(bracket: Bracket, compare: Compare) -> Outcome:
    """Plays a tournament: in each block the incumbent meets the next, then the blocks' winners meet likewise.

    Args:
        bracket: who meets whom.
        compare: plays a match, such as ``Matches``.

    >>> worth = {"a": 1, "b": 3, "c": 2}
    >>> def compare(one, other):
    ...     better = "first" if worth[one] > worth[other] else "second"
    ...     return Match(one=one, other=other, outcomes=(better,), questions=2)
    >>> play(make_bracket("abc", 1), compare).champion
    'b'
    """
    played: list[Match] = []

    def best(competitors: Sequence[str]) -> str:
        incumbent, *challengers = competitors
        for challenger in challengers:
            played.append(compare(incumbent, challenger))
            incumbent = played[-1].winner
        return incumbent

    winners = tuple(best(block) for block in bracket.blocks)
    return Outcome(champion=best(winners), winners=winners, matches=tuple(played))


def round_robin(competitors: Sequence[str], compare: Compare) -> list[Match]:
    """Every competitor against every other, against which a tournament can be checked.

    Args:
        competitors: M of them.
        compare: plays a match; ``Matches`` takes over those of the tournament.

    Returns:
        M (M − 1) / 2 matches.
    """
    return [compare(one, other) for one, other in itertools.combinations(competitors, 2)]
