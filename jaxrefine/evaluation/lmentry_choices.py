"""Which of the options of an LMentry question a reply chooses.

One option named is the choice. Of two, the first of which the relation of the task is said (longer, before, rhymes) is
the choice, or the other one: where it is the relation's opposite (shorter, after), a negation, or stands after "than".
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping, Sequence

from jaxrefine.evaluation.lmentry_text import words

_NEGATION = re.compile(r"\b(?:not|never|cannot)\b|n't\b")
_READ = 2000
"""Characters of a reply of which a choice is read: a model that does not stop costs no more."""
_PART = re.compile(r"[,;.:!?]|\b(?:but|while|whereas|although|because|since|so)\b")
"""Ends what is said of one option."""
_BOUNDARY = re.compile(rf"{_PART.pattern}|\b(?:and|or)\b")
"""Ends what a negation is said of."""
_QUOTE = r"[\"']?"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Relation:
    """The words of a question's relation and those of its opposite."""

    direct: tuple[str, ...]
    opposite: tuple[str, ...] = ()
    objects: tuple[str, ...] = ()
    """Words right after which stands what something is compared *with*: "longer than"."""

    def nearest(self, text: str, start: int, end: int) -> bool | None:
        """Whether the relation's word that is nearest to a place is a direct one; None where there is no word."""
        best: tuple[int, bool] | None = None
        for direct, found in ((True, self.direct), (False, self.opposite)):
            for word in found:
                for match in re.finditer(rf"(?<![a-z]){word}(?![a-z])", text):
                    distance = max(start - match.end(), match.start() - end, 0)
                    if best is None or distance < best[0]:
                        best = distance, direct
        return None if best is None else best[1]


_MORE = ("more", "longer", "longest", "most")
_FEWER = ("less", "fewer", "fewest", "shorter", "shortest", "least")
_BIGGER = ("bigger", "biggest", "larger", "largest", "greater", "greatest", "higher", "more")
_SMALLER = ("smaller", "smallest", "less", "lesser", "lower", "lowest", "fewer")

RELATIONS: dict[str, Relation] = {
    "more_letters": Relation(direct=_MORE, opposite=_FEWER, objects=("than",)),
    "less_letters": Relation(direct=_FEWER, opposite=_MORE, objects=("than",)),
    "bigger_number": Relation(direct=_BIGGER, opposite=_SMALLER, objects=("than",)),
    "smaller_number": Relation(direct=_SMALLER, opposite=_BIGGER, objects=("than",)),
    "first_alphabetically": Relation(
        direct=("first", "before", "precedes", "earlier"),
        opposite=("after", "second", "last", "later", "follows"),
        objects=("than", "before", "after", "precedes", "follows"),
    ),
    "rhyming_word": Relation(direct=("rhyme", "rhymes", "rhyming")),
    "homophones": Relation(
        direct=("sound", "sounds", "homophone", "homophones", "alike", "pronounced", "pronunciation")
    ),
}
"""Of the tasks that offer two options."""

_ASSOCIATED = re.compile(r"\b(?:associated|association|related|relates?|connected|belongs?|similar|different)\b")


def _without_list(text: str, patterns: Sequence[re.Pattern[str]]) -> str:
    """A text without a list of all the options, as a reply repeats it from the question."""
    one_of = "|".join(f"(?:{pattern.pattern})" for pattern in patterns)
    item = rf"{_QUOTE}(?:{one_of}){_QUOTE}"
    between = r"(?:\s*,\s*(?:and\s+|or\s+)?|\s+(?:and|or)\s+)"
    several = rf"{item}(?:{between}{item}){{{len(patterns) - 1}}}"
    kind = r"(?:the\s+)?(?:two\s+|following\s+|given\s+)?(?:(?:words|numbers|options|list)\s*:?\s*)?\[?"
    lead = r"\b(?:of|from|between|among|in|out of)\s+"
    # without a preposition, "isle, and classroom does not" lists nothing: the last word begins a clause of its own
    verb = r"(?!\s+(?:does|do|is|are|has|have|comes?|sounds?|rhymes?|isn't|doesn't|hasn't)\b)"
    return re.sub(rf"(?:{lead}{kind}{several}|{kind}{several}{verb})\]?\s*[,:-]*", " ", text, count=1)


def chosen(text: str, options: Mapping[str, re.Pattern[str]], relation: Relation) -> str | None:
    """Which of two options a plain reply chooses; None where it chooses neither or cannot be told.

    Args:
        text: of ``plain``.
        options: two names with where they are mentioned.
        relation: of the question.

    >>> from jaxrefine.evaluation.lmentry_text import mention
    >>> options = {name: mention(name) for name in ("no", "chat")}
    >>> chosen('"no" is shorter than "chat".', options, RELATIONS["more_letters"])
    'chat'
    """
    bare = set(words(text))
    for name in options:
        if bare == {name}:
            return name
    if re.search(r"\bneither\b", text):
        return None
    text = _without_list(text[:_READ], list(options.values()))
    places = _places(text, options)
    if not places:
        return None
    masked = _masked(text, places)
    start, end, first = next(
        (place for place in places[:8] if relation.nearest(*_within(masked, place, _PART)) is not None), places[0]
    )
    other = next(name for name in options if name != first)
    direct = relation.nearest(*_within(masked, (start, end, first), _PART))
    if direct is None:
        direct = relation.nearest(masked, start, end)
    if direct is None:
        if any(name != first for _, _, name in places):
            return None
        direct = True
    flips = not direct
    flips ^= bool(_NEGATION.search(_within(masked, (start, end, first), _BOUNDARY)[0]))
    if relation.objects:
        compared = rf"\b(?:{'|'.join(relation.objects)})\s+(?:the (?:word|number)\s+)?{_QUOTE}$"
        flips ^= bool(re.search(compared, masked[:start]))
    return other if flips else first


def _places(text: str, options: Mapping[str, re.Pattern[str]]) -> list[tuple[int, int, str]]:
    """Start, end and name of every mention; of an option that stands in quotes somewhere, only of those.

    "Silver" comes after "after" names the option twice otherwise.
    """
    found = []
    for name, pattern in options.items():
        spans = [match.span() for match in pattern.finditer(text)]
        quoted = [
            (start, end) for start, end in spans if text[:start].endswith(("'", '"')) and text[end:][:1] in "'\".,"
        ]
        found += [(start, end, name) for start, end in quoted or spans]
    return sorted(found)


def _masked(text: str, places: Sequence[tuple[int, int, str]]) -> str:
    """A text whose options are blanked: "second", "not" or "least" may be among them, and then say nothing."""
    for start, end, _ in places:
        text = f"{text[:start]}{'#' * (end - start)}{text[end:]}"
    return text


def _within(text: str, place: tuple[int, int, str], boundary: re.Pattern[str]) -> tuple[str, int, int]:
    """The part of a text around a mention, between two boundaries, and where in it the mention stands."""
    start, end, _ = place
    ends = [match.end() for match in boundary.finditer(text, 0, start)]
    first = ends[-1] if ends else 0
    following = boundary.search(text, end)
    return text[first : following.start() if following else len(text)], start - first, end - first


def chosen_of_several(text: str, options: Mapping[str, re.Pattern[str]], *, negated: bool) -> str | None:
    """Which of several options a plain reply chooses as the most, or least, associated; None where it cannot be told.

    Args:
        text: of ``plain``.
        options: names with where they are mentioned.
        negated: the question is for the least: "x is not related" then chooses x, and otherwise chooses nothing.

    >>> from jaxrefine.evaluation.lmentry_text import mention
    >>> options = {name: mention(name) for name in ("truck", "bus", "hen")}
    >>> chosen_of_several('of the words "truck", "bus", and "hen", it is hen', options, negated=False)
    'hen'
    """
    bare = set(words(text))
    for name in options:
        if bare == {name}:
            return name
    text = _without_list(text[:_READ], list(options.values()))
    places = _places(text, options)
    if not places:
        return None
    start, end, first = places[0]
    masked = _masked(text, places)
    if any(name != first for _, _, name in places) and not _ASSOCIATED.search(masked):
        return None
    clause, _, _ = _within(masked, (start, end, first), _BOUNDARY)
    denied = bool(_NEGATION.search(clause))
    opposite = bool(re.search(r"\bmost\b" if negated else r"\bleast\b", clause))
    return None if opposite or (denied and not negated) else first


def yes_or_no(text: str) -> str | None:
    """The verdict that a plain reply begins with, or else the only one that it has.

    >>> yes_or_no("no, they are not."), yes_or_no("the answer is yes"), yes_or_no("yes or no?")
    ('no', 'yes', None)
    """
    found = words(text)
    if re.match(r"[\"'(]*(?:yes|no)\b", text) and not re.match(r"[\"'(]*(?:yes|no)\b[\"')]*\s*(?:or|/)", text):
        return found[0]
    said = {word for word in found if word in ("yes", "no")}
    return said.pop() if len(said) == 1 else None
