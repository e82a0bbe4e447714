"""Two answers compared by their canonical forms, and many of them sorted into clusters."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Literal

from jaxrefine.judging.answer_keys import Canonical

Equivalence = Literal["equal", "different", "undecided", "no answer"]
Verdict = Literal["equal", "different", "undecided"]
_MAX_PLACES = 12


def compare(a: Canonical, b: Canonical) -> tuple[Verdict, bool]:
    """What the keys say, and whether that is final: where it is not, a grader that tries harder may be asked.

    Args:
        a: one answer's form.
        b: the other's; the order does not matter.

    Returns:
        (verdict, final).
    """
    if a.key == b.key:
        return ("different", True) if _conflict(a.strict, b.strict) else ("equal", True)
    if a.strict is not None and a.strict == b.strict:
        return "equal", True
    if a.key in b.near or b.key in a.near or a.aliases & b.aliases:
        return "undecided", True
    if a.value is not None and b.value is not None and (_rounds(a.value, b.value) or _rounds(b.value, a.value)):
        return "undecided", True
    if a.certain and b.certain:
        return "different", True
    return "undecided", False


def _conflict(a: str | None, b: str | None) -> bool:
    """Whether both name a unit, or both an unknown, and not the same."""
    return a is not None and b is not None and a != b and a.partition(":")[0] == b.partition(":")[0]


def _rounds(decimal: Fraction, other: Fraction) -> bool:
    """Whether a decimal of two and more places is another, unending number rounded or cut at its last place."""
    places = _places(decimal)
    if places is None or not 2 <= places <= _MAX_PLACES or _places(other) is not None or (decimal < 0) != (other < 0):
        return False
    rest = (abs(other) - abs(decimal)) * 10**places
    return -Fraction(1, 2) <= rest < 1


def _places(number: Fraction) -> int | None:
    """How many decimal places a number has, or None where they do not end (by the 15th)."""
    for places in range(16):
        if (number * 10**places).denominator == 1:
            return places
    return None


def partition(
    texts: Sequence[str | None],
    forms: Sequence[Canonical | None],
    ask: Callable[[str, str], Verdict] | None = None,
) -> list[int | None]:
    """Cluster numbers of answers, in order of first occurrence; None where there is no answer.

    Equal keys are one cluster. Where a unit or an unknown is named in several ways under one key, each way is a cluster
    and the answers that name none are one more. An answer that was not understood joins the cluster that ``ask`` finds
    it equal to, if that is one and no more: the result is the same for every order of the answers.

    Args:
        texts: the answers.
        forms: their canonical forms.
        ask: compares two answers by other means; only asked where one of the two forms is not certain.

    >>> from jaxrefine.judging.answer_keys import canonical
    >>> texts = ["0.5", "2", "1/2", "", "x=2"]
    >>> partition(texts, [canonical(text) for text in texts])
    [0, 1, 0, None, 1]
    """
    groups = _by_key(forms)
    if ask is not None:
        groups = _joined(texts, forms, groups, ask)
    numbers: dict[str, int] = {}
    return [None if group is None else numbers.setdefault(group, len(numbers)) for group in groups]


def _by_key(forms: Sequence[Canonical | None]) -> list[str | None]:
    """A group for each answer: those of one strict key are together, and those of one key where nothing conflicts."""
    named: dict[str, set[str]] = {}
    for form in forms:
        if form is not None:
            named.setdefault(form.key, set()).update({form.strict} if form.strict else ())
    forest = _Forest()
    nodes: list[str | None] = []
    for form in forms:
        if form is None:
            nodes.append(None)
            continue
        stricts = named[form.key]
        if len({strict.partition(":")[0] for strict in stricts}) == len(stricts):
            for strict in stricts:
                forest.join("key " + form.key, "strict " + strict)
        nodes.append("strict " + form.strict if form.strict else "key " + form.key)
    return [None if node is None else forest.root(node) for node in nodes]


def _joined(
    texts: Sequence[str | None],
    forms: Sequence[Canonical | None],
    groups: list[str | None],
    ask: Callable[[str, str], Verdict],
) -> list[str | None]:
    """Groups of answers that were not understood joined to one another, or to the one group they equal."""
    shown: dict[str, tuple[str, Canonical]] = {}
    for text, form, group in zip(texts, forms, groups, strict=True):
        if text is not None and form is not None and group is not None:
            shown[group] = min(shown.get(group, (text, form)), (text, form), key=lambda pair: pair[0])
    unsure = sorted(group for group, (_, form) in shown.items() if not form.certain)
    sure = sorted(set(shown) - set(unsure))

    def equal(one: str, other: str) -> bool:
        (a, form_a), (b, form_b) = shown[one], shown[other]
        return not compare(form_a, form_b)[1] and ask(*sorted((a, b))) == "equal"

    forest = _Forest()
    for place, group in enumerate(unsure):
        for other in unsure[place + 1 :]:
            if equal(group, other):
                forest.join(group, other)
    touched: dict[str, set[str]] = {}
    for group in unsure:
        touched.setdefault(forest.root(group), set()).update(other for other in sure if equal(group, other))
    for root, others in touched.items():
        if len(others) == 1:
            forest.join(root, others.pop())
    return [None if group is None else forest.root(group) for group in groups]


class _Forest:
    """Union-find; the smallest name is the root, so that it does not depend on the order of the joins."""

    def __init__(self) -> None:
        self._parent: dict[str, str] = {}

    def root(self, node: str) -> str:
        while (parent := self._parent.get(node, node)) != node:
            node = parent
        return node

    def join(self, one: str, other: str) -> None:
        low, high = sorted((self.root(one), self.root(other)))
        self._parent[high] = low
