"""How a reply to an LMentry task is read: its plain form, its words, and what it claims the answer to be."""

from __future__ import annotations

import re
from collections.abc import Collection

_QUOTES = str.maketrans({"“": '"', "”": '"', "„": '"', "«": '"', "»": '"', "‘": "'", "’": "'", "`": "'", "_": " "})
_WORD = re.compile(r"[a-z0-9]+(?:['-][a-z0-9]+)*")
_QUOTED = re.compile(r"""(?<![a-z0-9])["']([a-z0-9]+(?:['-][a-z0-9]+)*)[.,!?]?["'](?![a-z0-9])""")
_INSIDE = re.compile(r"""([,.!?])(["'])(?=\s|$)""")
_NUMBERED = re.compile(r"\A[0-9]+[.)] (?=[\"'a-z])")
_LEAD = re.compile(r"\A(?:(?:the |my |correct |final |possible )*answer(?: is)?|a)\s*:\s*")
_ARTICLE = re.compile(r"(?:the (?:word|words|letter|number)|an?|the)\s+")

_LEADS_TO = r"(?:\b(?:is|are|be|by|with|about|suggest|for)\s|[:=]|\s-\s)\s*(?:the (?:word|letter|number)\s+)?"
_FOLLOWS = (
    r"(?:is|comes|follows|precedes|succeeds|immediately|right|appears|would|contains?|uses|has|starts|begins|ends|"
    r"does|doesn't|rhymes|sounds)"
)
_EXISTS = re.compile(r"(?:there|it|this|that|he|she|they|here|these|those)\s+(?:is|has|would|does|doesn't)\s+(?!the\b)")
"""What begins a sentence about something, rather than says that "there" or "it" is the answer."""

_SMALL = ("one", "two", "three", "four", "five", "six", "seven", "eight", "nine")
_TEENS = ("ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen")
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_VALUES = {
    **{word: value for value, word in enumerate(("zero", *_SMALL, *_TEENS))},
    **{word: 10 * ten for ten, word in enumerate(_TENS, 2)},
}
_GROUPED = re.compile(rf"(?<=thousand),(?= (?:{'|'.join(_VALUES)})\b)")
_SPELLED = re.compile(
    r"\b(?:{ones})(?:[ -](?:hundred|thousand)(?:[ -]and)?(?=[ -](?:{ones}|hundred)\b)|[ -](?:hundred|thousand)"
    r"|(?<=ty)[ -](?:{small})|(?<=and)[ -](?:{ones})|(?<=hundred)[ -](?:{ones})|(?<=thousand)[ -](?:{ones}))*\b".format(
        ones="|".join(sorted(_VALUES, key=len, reverse=True)), small="|".join(_SMALL)
    )
)
_THOUSANDS = re.compile(r"(?<=[0-9]),(?=[0-9]{3}(?![0-9]))")


def plain(reply: str, *, cut: bool = False) -> str:
    r"""A reply in lower case with straight quotes, single spaces, and without a leading "Answer:" or "1.".

    Punctuation inside of closing quotes moves outside.

    Args:
        reply: a model's.
        cut: keep what stands before the first line end, and of that what stands before the first full stop.

    >>> plain(" Answer:  “Chat” has\n more."), plain("Chat. Also\nno", cut=True)
    ('"chat" has more.', 'chat')
    """
    text = reply.strip()
    if cut:
        text = text.split("\n")[0].split(".")[0]
    text = _INSIDE.sub(r"\2\1", " ".join(text.lower().translate(_QUOTES).split()))
    for lead in (_LEAD, _NUMBERED):
        text = lead.sub("", text, count=1)
    return text


def words(text: str) -> list[str]:
    """The words of a plain text; a hyphen or an apostrophe within one belongs to it.

    >>> words("an 'x-ray', 12 isn't.")
    ['an', 'x-ray', '12', "isn't"]
    """
    return _WORD.findall(text)


def mention(word: str) -> re.Pattern[str]:
    """Where a word or a number stands by itself: not as a part of another."""
    return re.compile(rf"(?<![a-z0-9])(?<![0-9][.,]){re.escape(word)}(?![a-z0-9]|[.,][0-9])")


def with_digits(text: str) -> str:
    """A plain text whose numbers in words are written in digits, and without thousands commas.

    >>> with_digits("it is one thousand and forty-two, not 1,024 or ninety.")
    'it is 1042, not 1024 or 90.'
    """
    return _THOUSANDS.sub("", _SPELLED.sub(lambda match: str(_value(match[0])), _GROUPED.sub("", text)))


def _value(spelled: str) -> int:
    total = current = 0
    for word in re.split(r"[ -]", spelled):
        if word == "thousand":
            total, current = total + max(current, 1) * 1000, 0
        elif word == "hundred":
            current = max(current, 1) * 100
        elif word != "and":
            current += _VALUES[word]
    return total + current


def is_only(text: str, answer: str) -> bool:
    """Whether a plain text is a word alone, however often, with no more than quotes or "the word" around it.

    >>> is_only('the word "chat".', "chat"), is_only("chat, chat", "chat"), is_only("a chat", "chat")
    (True, True, True)
    """
    rest = _ARTICLE.sub("", text, count=1) if _ARTICLE.match(text) and words(text) != [answer] else text
    found = words(rest)
    return bool(found) and set(found) == {answer}


def claimed(text: str, *, ignored: Collection[str] = ()) -> str | None:
    """The one word that a plain text says is the answer, or None where it says none.

    In this order: the only word; the only word in quotes; what ends the first sentence after "is", ":" and the like;
    what begins the text before a verb.

    Args:
        text: a plain reply.
        ignored: words of the question, which are no answer where they stand in quotes or end a sentence.

    >>> claimed("how about apple?"), claimed('"apple" contains "p"', ignored=["p"]), claimed("a red apple fell")
    ('apple', 'apple', None)
    """
    found = words(text)
    rest = words(_ARTICLE.sub("", text, count=1)) if _ARTICLE.match(text) else found
    for several in (found, rest):
        if len(set(several)) == 1:
            return several[0]
    quoted = set(_QUOTED.findall(text)) - set(ignored)
    if len(quoted) == 1:
        return quoted.pop()
    if not quoted:
        word = r"[\"']?([a-z0-9]+(?:['-][a-z0-9]+)*)[\"']?"
        ending = re.search(rf"{_LEADS_TO}(?:an?\s+)?{word}\s*$", re.split(r"[.!?](?:\s|$)", text, maxsplit=1)[0])
        if ending and ending[1] not in ignored:
            return ending[1]
        if _EXISTS.match(text):
            return None
        if beginning := re.match(rf"(?:(?:the word|an?|the)\s+)?{word}\s+{_FOLLOWS}\b", text):
            return beginning[1]
    return None
