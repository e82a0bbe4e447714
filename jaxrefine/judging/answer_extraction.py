r"""Where foreign solutions state their final answer: ``#### 36``, ``\boxed{36}``, "The answer is 36", a last line.

A style says where to look. Nothing is taken from elsewhere: the last number of a text is not an answer.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Callable

from jaxrefine.judging.answer_text import closing

MAX_ANSWER = 20_000
"""Characters of an answer that are kept; what is longer is no answer anybody states."""
MAX_LINE = 2_000
"""Characters of a sentence that are looked at: the patterns below take the square of it."""

_BOX = re.compile(r"\\(?:boxed|fbox|framebox)(?![A-Za-z])\s*")
_MARK = re.compile(r"####([^\n\r]*)")
_PHRASE = re.compile(
    r"(?:\b(?:final|correct|right)\s+)?\b(?:answer|result|solution)\b(?:\s+(?:to|of|for)\s[^.:\n]{1,80}?)?"
    r"[*_\s]*(?:\s(?:is|are|equals|was)\b\s*(?:that\b)?:?|:|=)[*_\s]*([^\n\r]*)",
    re.IGNORECASE,
)
_SHORT = re.compile(r"^[ \t*_>#-]*(?:A|Ans)\s*[:.][ \t*_]*([^\n\r]*)", re.MULTILINE)
_HEADING = re.compile(r"^[ \t]*#{1,6}[ \t]*(?:final )?answer\b[:*_\s]*([^\r\n]+)", re.IGNORECASE | re.MULTILINE)
_REASON = re.compile(r",?\s+(?:because|since|which|as|so|and so|so that|for|where|given)\s", re.IGNORECASE)
_SENTENCE = re.compile(r"[.!?]\s+(?=[A-Z\\(\[I])")
_BETWEEN = re.compile(
    r"[\s,;$}]*(?:\\[)\]])?[\s,;]*(?:and|or|\\text\s*\{\s*(?:and|or)\s*\})?[\s,;$]*(?:\\[(\[])?[\s$]*"
)
_NO_ANSWER = re.compile(
    r"(?:indeed |clearly |not )?(?:correct|right|wrong|reasonable|true|this|that|it|as follows|going to)\b.*",
    re.IGNORECASE,
)
_PREFACE = re.compile(
    r"^(?:the|a|an|just|simply|only|then|therefore|thus)\s+(?:[a-z]+\s+){0,4}?(?=\$|\\[(\[]|\\begin)", re.IGNORECASE
)
_ENDING = re.compile(
    r".*(?:\b(?:is|are|was|were|equals?|gives?(?: me| us)?|get|obtain|have|be|makes?)\b|=|\\approx|:)\s*"
    r"(?:(?:also|just|simply|always|exactly|only|indeed|equal to|equivalent to|to) )*(.+)$",
    re.IGNORECASE | re.DOTALL,
)
_DISPLAY = re.compile(r"\\(?:begin|end)\{(?:align|aligned|equation|gather|split)\*?\}")
_COUNTED = re.compile(r"([-$]{0,2}\d[\d.,]*(?:/\d+)?)\s+[a-z]{2,}(?:\s+[a-z]+)+", re.IGNORECASE)
_SPANS = re.compile(r"\$\$(.+?)\$\$|\$((?:\\\$|[^$])+)\$|\\\((.+?)\\\)|\\\[(.+?)\\\]")
_EQUALS = re.compile(r"(?<![<>!\\])=(?!=)")
_MORE = re.compile(r",?\s*(?:and|or)\s*[$\\]|,\s*[$\\]")
_MATH = re.compile(r"^\W{0,3}(\$\$.+?\$\$|\$(?:\\\$|[^$])+\$|\\\(.+?\\\)|\\\[.+?\\\])")


def boxed(text: str) -> str | None:
    r"""What the last ``\boxed`` holds, with its inner braces; None where there is none or it is never closed.

    Boxes that only commas, "and" or "or" stand between are one answer of several parts.

    >>> boxed(r"so \boxed{1}. Or rather \boxed{\frac{1}{2}}."), boxed(r"\boxed 7"), boxed(r"\boxed{3")
    ('\\frac{1}{2}', '7', None)
    >>> boxed(r"$x = \boxed{2}$ or $\boxed{3}$"), boxed(r"$\boxed{2}$ or $\boxed{3}$.")
    ('2, 3', '2, 3')
    """
    parts: list[str] = []
    after = 0
    for found in _BOX.finditer(text):
        between = text[after : found.start()]
        if not parts or len(between) > 40 or not _BETWEEN.fullmatch(between):
            parts = []
        start = found.end()
        if start < after:  # a box in a box
            continue
        end: int | None = start + 1
        if text[start : start + 1] == "{":
            end = closing(text[: start + MAX_ANSWER], start)
        if end is None:
            return None
        parts.append(text[start:end].removeprefix("{"))
        after = end + 1
    return _stated(", ".join(parts)) if parts else None


def marked(text: str) -> str | None:
    """What stands after the last ``####`` on its line."""
    found = _MARK.findall(text)
    return _stated(found[-1]) if found else None


def phrased(text: str) -> str | None:
    r"""What the last "the answer is …", "Answer: …", "A: …" or heading "Answer" states, without the reasons after it.

    >>> phrased("Hence the answer is $x = 3$, because 2x = 6."), phrased("It is 4.\nA: 1,200")
    ('$x = 3$', '1,200')
    >>> phrased("# Answer\n\n25"), phrased("Nothing is said of 7.")
    ('25', None)
    """
    matches = [found for pattern in (_PHRASE, _SHORT, _HEADING) for found in pattern.finditer(text)]
    for found in sorted(matches, key=lambda found: -found.start(1)):
        stated = _predicate(found[1])
        if stated is not None:
            return stated
    return None


def _predicate(text: str) -> str | None:
    """What a sentence states after "is", without the sentence around it; None where it is prose."""
    stated = _PREFACE.sub("", text.strip()[:MAX_LINE])
    if not stated.strip(" *_$.:") or _NO_ANSWER.match(stated):
        return None
    if mathematics := _MATH.match(stated):
        rest = stated[mathematics.end() :].strip()
        alone = not rest or rest[0] in ".,;" or _REASON.match(" " + rest) or len(rest.split()) > 2
        if alone and not _MORE.match(rest):
            return _stated(mathematics[1])
    stated = _REASON.split(_SENTENCE.split(stated, maxsplit=1)[0], maxsplit=1)[0]
    prose = re.findall(r"(?<![\\A-Za-z])[a-z]{2,}", _SPANS.sub(" ", stated))
    if len(prose) > 4 or (stated.count("$") % 2 and stated.strip().endswith(("$", "$."))):
        return None
    return _stated(stated)


def last_line(text: str) -> str | None:
    """The last line that is not empty, whole: for outputs that are a bare answer or end with one."""
    lines = text.strip().splitlines()
    return _stated(lines[-1]) if lines else None


def anywhere(text: str) -> str | None:
    """The last box; else the last ``####``; else the last phrase. Never a number that is not stated as the answer."""
    for style in (boxed, marked, phrased):
        if (found := style(text)) is not None:
            return found
    return None


def concluded(text: str) -> str | None:
    r"""`anywhere`; else the end of the last sentence that states a value, as "So there are $12$ ways." does.

    For solutions that end in prose. It is a guess, though of one sentence: never part of "auto".

    >>> concluded("It is even.\nSo the area is $x = 12$ square units.\nThat is all."), concluded("We get 4 + 3 = 7.")
    ('12', '7')
    """
    if (found := anywhere(text)) is not None:
        return found
    for line in reversed(text.strip().splitlines()[-3:]):
        line = line.strip()[-MAX_LINE:].rstrip(".!")
        value, spans = None, list(_SPANS.finditer(line))
        if spans:
            value = next(group for group in spans[-1].groups() if group)
        after = line[spans[-1].end() :] if spans else line
        if (ending := _ENDING.match(after)) and any(character.isdigit() for character in ending[1]):
            value = ending[1]
        if value is not None:
            value = _EQUALS.split(_DISPLAY.sub(" ", value))[-1].strip(" &")
            counted = _COUNTED.match(value)  # "12 ways to seat them": the rest of the sentence is no unit
            return _stated(counted[1] if counted else value)
    return None


def _stated(text: str) -> str | None:
    stated = text[:MAX_ANSWER].strip().strip("*_").strip()
    return stated if stated and len(text) <= MAX_ANSWER else None


STYLES: dict[str, Callable[[str], str | None]] = {
    "marker": marked,
    "boxed": boxed,
    "phrase": phrased,
    "last line": last_line,
    "auto": anywhere,
    "conclusion": concluded,
}
"""Where to look for the answer, by name."""


def by_style(style: str) -> Callable[[str], str | None]:
    """The extractor of a name.

    Raises:
        ValueError: where there is none, with the nearest.
    """
    if style not in STYLES:
        near = difflib.get_close_matches(style, STYLES, n=1, cutoff=0.0)
        raise ValueError(f"style = {style!r} is not one of {', '.join(STYLES)}; did you mean {near[0]!r}?")
    return STYLES[style]
