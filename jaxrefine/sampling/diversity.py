"""Candidates of one prompt that differ: pairwise ROUGE-L under a threshold, drawn again at a higher temperature.

Source: Tuna, arXiv:2310.13385, §3.2.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from typing import NamedTuple

_WORD = re.compile(r"[a-z0-9]+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Diversity:
    """When two candidates of a prompt are too similar, and what is done about it.

    Raises:
      ValueError: a threshold outside (0, 1], a step or a number of tries below 0.
    """

    threshold: float | None = None
    """τ: a candidate whose ROUGE-L with an earlier one reaches it is thrown away and drawn again (Tuna: 0.8); None
    keeps every candidate."""
    temperature_step: float = 0.1
    """What each further try adds to the temperature."""
    tries: int = 3
    """Draws after the first; when all of them fail, the least similar of all draws is kept."""
    drop_duplicates: bool = False
    """Whether a candidate whose text, spaces around it apart, is that of an earlier one is left out in the end."""

    def __post_init__(self) -> None:
        if self.threshold is not None and not 0 < self.threshold <= 1:
            raise ValueError(f"Diversity.threshold is {self.threshold}; ROUGE-L lies above 0 and up to 1 (None: off)")
        if self.temperature_step < 0 or self.tries < 0:
            raise ValueError(
                f"Diversity.temperature_step = {self.temperature_step} and tries = {self.tries} must not be negative"
            )


class Choice(NamedTuple):
    """What is known after some draws: for each candidate the draw that is kept, or None if it must be drawn again."""

    kept: tuple[int | None, ...]

    @property
    def again(self) -> tuple[int, ...]:
        """The candidates that are to be drawn once more."""
        return tuple(n for n, draw in enumerate(self.kept) if draw is None)


def choose_diverse(draws: Sequence[Sequence[str]], rule: Diversity) -> Choice:
    """Which draw of each candidate is kept.

    Rounds as they were drawn: in each, candidates without an accepted draw are taken in order, and the draw of this
    round is accepted if its ROUGE-L with every text accepted so far stays under the threshold. After the last try, the
    draw of a candidate that is least similar to what was accepted is kept (the earliest of equals).

    Args:
      draws: for each candidate the texts drawn so far, the first draw first.
      rule: see ``Diversity``.

    Returns:
      The same choice for the same draws; those that are kept stay kept when more draws are added.

    Raises:
      ValueError: a candidate without a draw, or without one that others of the same round have.

    >>> rule = Diversity(threshold=0.8, tries=2)
    >>> choose_diverse([["a b c"], ["a b c"]], rule).again
    (1,)
    >>> choose_diverse([["a b c"], ["a b c", "a b c d", "A b c."]], rule).kept  # all failed: 1, 0.857, 1
    (0, 1)
    """
    if not all(draws):
        raise ValueError(f"candidate {[bool(texts) for texts in draws].index(False)} has no draw")
    if rule.threshold is None:
        return Choice((0,) * len(draws))
    kept: list[int | None] = [None] * len(draws)
    accepted: list[str] = []
    for turn in range(1 + rule.tries):
        pending = [n for n, draw in enumerate(kept) if draw is None]
        waiting = [n for n in pending if len(draws[n]) <= turn]
        if waiting:
            if len(waiting) < len(pending):
                raise ValueError(f"candidates {waiting} lack draw {turn}, which {len(pending)} candidates need")
            break
        for n in pending:
            likeness = [similarity(text, accepted) for text in draws[n][: turn + 1]]
            if likeness[turn] < rule.threshold:
                kept[n] = turn
            elif turn == rule.tries:
                kept[n] = likeness.index(min(likeness))
            else:
                continue
            accepted.append(draws[n][kept[n] or 0])
    return Choice(tuple(kept))


def similarity(text: str, others: Sequence[str]) -> float:
    """The largest ROUGE-L of a text with any of the others; 0 without others.

    >>> similarity("the red fox", ["a red fox", "a dog"])
    0.6666666666666666
    """
    return max((rouge_l(text, other) for other in others), default=0.0)


def rouge_l(first: str, second: str) -> float:
    """F-measure of the longest common subsequence of words: 2 · lcs / (words of one + words of the other).

    Words as rouge-score takes them, unstemmed: runs of a-z and 0-9 in the lowered text, anything else separates. A text
    without any such word, as one in Chinese, is taken by its characters (rouge-score gives 0 there).

    >>> rouge_l("The cat sat.", "the cat sat"), rouge_l("one two", "three")
    (1.0, 0.0)

    Source: Lin 2004, "ROUGE: a package for automatic evaluation of summaries", §3.
    """
    a, b = _words(first), _words(second)
    return 2 * _common(a, b) / (len(a) + len(b)) if a and b else 0.0


def without_duplicates(texts: Sequence[str]) -> tuple[int, ...]:
    r"""Indices of the texts that no earlier one equals, spaces around them apart.

    >>> without_duplicates(["a", "b", " a\n", "B"])
    (0, 1, 3)
    """
    first = {text.strip(): index for index, text in reversed(list(enumerate(texts)))}
    return tuple(sorted(first.values()))


def _words(text: str) -> list[str]:
    lowered = text.lower()
    return _WORD.findall(lowered) or [letter for letter in lowered if not letter.isspace()]


def _common(a: Sequence[str], b: Sequence[str]) -> int:
    """Length of the longest common subsequence, a row of the table at once in the bits of an integer.

    Source: Hyyrö 2004, "Bit-parallel LCS-length computation revisited", Figure 3.
    """
    where: dict[str, int] = {}
    for position, word in enumerate(a):
        where[word] = where.get(word, 0) | 1 << position
    full = (1 << len(a)) - 1
    row = full
    for word in b:
        matched = row & where.get(word, 0)
        row = ((row + matched) | (row - matched)) & full
    return len(a) - row.bit_count()
