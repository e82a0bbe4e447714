r"""The canonical form of an answer: one key for all its spellings.

Two answers are equal when their keys are equal, so that equality is symmetric and transitive, and clusters do not
depend on order. What a person may leave out (a unit, the name of the unknown) is not in the key but in a second, strict
one, which counts where both answers have it: "5", "x = 5" and "5 cm" are equal; "5 cm" and "5 m" are not.
"""

from __future__ import annotations

import dataclasses
import functools
import re
from fractions import Fraction

from jaxrefine.judging import answer_values as values
from jaxrefine.judging.answer_forms import (
    Canonical,
    Percent,
    bare,
    based_form,
    digest,
    fingerprint,
    interval,
    number_form,
    set_form,
    union_form,
    with_unit,
)
from jaxrefine.judging.answer_grammar import parse
from jaxrefine.judging.answer_relations import equation_form, inequality_form
from jaxrefine.judging.answer_structure import BOTH_SIGNS, ENVIRONMENT, closing_bracket, relations, signs, split
from jaxrefine.judging.answer_text import CLOSE, OPEN, clean, split_unit, unmarked
from jaxrefine.judging.answer_values import UnreadableError

MAX_LENGTH = 2_000
MAX_PARTS = 64
MAX_NESTING = 12
MAX_READS = 400
_PLAIN = re.compile(r"-?\d{1,60}(?:\.\d{1,60})?")
_THOUSANDS = re.compile(r"(?<![\d.,])\d{1,3}(?:,\d{3})+(?![\d,])")
_SPACED_THOUSANDS = re.compile(r"-?\d{1,3}(?: \d{3})+(?:\.\d+)?")
_MIXED = re.compile(r"(?<![\d.^_/*])(\d+)\s+(\d+)\s*/\s*(\d+)(?![\d.])")
_BASED = re.compile(r"(-?)\s*([0-9A-Fa-f]+)\s*_\s*\{?\s*(\d{1,2})\s*\}?")
_REPEATING = re.compile(r"(\d*)\.(\d*)\\overline\s*\{\s*(\d+)\s*\}")
_CHOICE = re.compile(r"(?:option|choice)?\s*(?:\(\s*([A-Z])\s*\)|([A-Z])\s*\)?)[.:]?", re.IGNORECASE)
_CHOICE_TEXT = re.compile(r"\(?([A-J])[).:]\s+\S.*")
_NAME = re.compile(r"(\\?[A-Za-z]+(?:_(?:\w|\{\w+\}))?)(?:\s*\(\s*[A-Za-z](?:\s*,\s*[A-Za-z])*\s*\))?")
_BUILDER = re.compile(r"[A-Za-z](?:\s*\\in\s*\\mathbb\s*\{?R\}?)?\s*[|:]\s*([^|:]+)")
_APPROXIMATELY = re.compile(
    rf"(?:\\approx|\\sim|~|{OPEN}?\s*(?:approximately|about|approx\.?|roughly)\b\s*{CLOSE}?)\s*"
)
_ARTICLE = re.compile(r"^(?:the|an|a)\s+")
_WORDY = re.compile(r"[\w\s'\"\-.,:;&/()?!]*")
_RUNS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+")
_MATH_WORDS = re.compile(
    "|".join(sorted([*values.FUNCTIONS, "sqrt", "pi", "asin", "acos", "atan"], key=len, reverse=True))
)
_PHRASE = re.compile(r"[A-Za-z][A-Za-z'. -]*")
_BARE_LOG = re.compile(r"log(?!\s*_)")
_MEANT = {
    **dict.fromkeys(("yes", "true", "correct"), "text:yes"),
    **dict.fromkeys(("no", "false", "incorrect"), "text:no"),
    **dict.fromkeys(("all real numbers", "all reals", "\\mathbb{r}", "\\mathbb r", "real numbers"), "t(-inf;inf)"),
    **dict.fromkeys(("no solution", "no solutions", "no real solution", "no real solutions", "none", "empty set",
                     "\\emptyset", "\\{\\}", "\\{ \\}"), "set:empty"),
    **dict.fromkeys(("\\infty", "+\\infty", "infinity", "infinite", "oo"), "inf"),
    **dict.fromkeys(("-\\infty", "-infinity", "-oo"), "-inf"),
    **dict.fromkeys(("undefined", "dne", "does not exist"), "text:undefined"),
}  # fmt: skip
_ONES = (
    "zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine",
    "ten", "eleven", "twelve", "thirteen", "fourteen", "fifteen", "sixteen", "seventeen", "eighteen", "nineteen",
)  # fmt: skip
_TENS = ("twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety")
_NUMBER_WORDS = {
    **{word: n for n, word in enumerate(_ONES)},
    **{word: 10 * n for n, word in enumerate(_TENS, 2)},
    "hundred": 100, "one hundred": 100, "thousand": 1000, "one thousand": 1000,
}  # fmt: skip


@functools.lru_cache(maxsize=8192)
def _cached(text: str, percent: Percent) -> Canonical | None:
    return _canonical(text, percent)


def forget() -> None:
    """Empties the cache of answers read before (their forms do not change: for timing)."""
    _cached.cache_clear()


def canonical(text: str | None, *, percent: Percent = "unit") -> Canonical | None:
    r"""The canonical form of one answer, worked out in this process, in bounded time.

    Args:
        text: an answer, with or without LaTeX; not a whole solution.
        percent: what a percent sign is. "unit" drops it like a unit (10 % is 10); "value" reads 10 % as 1/10.

    Returns:
        The form, or None where there is no answer.

    >>> canonical(r"\frac{36}{72}").key, canonical("0.50").key, canonical(r"{1/2}, 3").key
    ('n:1/2', 'n:1/2', 's{n:1/2;n:3}')
    >>> canonical("  ") is None
    True
    """
    if text is None or not text.strip():
        return None
    if len(text) > MAX_LENGTH:
        return Canonical(key="long:" + digest(" ".join(text.split())), certain=False)
    return _cached(text, percent)


def _canonical(text: str, percent: Percent) -> Canonical | None:
    if _PLAIN.fullmatch(text):
        return number_form(values.real(Fraction(text)))
    cleaned = clean(text)
    if not any(character.isalnum() for character in cleaned) and "\\" not in cleaned:
        return None
    try:
        with values.precise():
            return _Reader(percent).read(cleaned, 0)
    except (_TangledError, UnreadableError):
        return _text(cleaned)


class _TangledError(Exception):
    """The answer is nested so deeply, or in so many parts, that it is left as text."""


class _Reader:
    """Reads one cleaned answer by its structure, from the outermost inwards."""

    def __init__(self, percent: Percent) -> None:
        self.percent, self.reads = percent, 0

    def read(self, text: str, depth: int) -> Canonical | None:
        text = text.strip()
        if not text:
            return None
        self.reads += 1
        if depth > MAX_NESTING or self.reads > MAX_READS:
            raise _TangledError
        for attempt in _ATTEMPTS:
            try:
                found = attempt(self, text, depth)
            except UnreadableError:
                continue
            if found is not None:
                return found
        return _text(text)

    def known(self, text: str, depth: int) -> Canonical | None:
        """Numbers, words with one meaning, choices, numbers of another base, words in a text command."""
        if _PLAIN.fullmatch(text):
            return number_form(values.real(Fraction(text)))
        if text[0] == OPEN and text[-1] == CLOSE and OPEN not in text[1:] and text[1:-1].strip():
            return self.read(clean(text[1:-1]), depth + 1)
        said = _ARTICLE.sub("", unmarked(text).casefold()).rstrip(".")
        if said in _MEANT:
            return Canonical(key=_MEANT[said])
        tens, _, ones = said.replace(" ", "-").partition("-")
        if said in _NUMBER_WORDS:
            return number_form(values.real(_NUMBER_WORDS[said]))
        if tens in _NUMBER_WORDS and ones in _ONES[1:10] and _NUMBER_WORDS[tens] >= 20:
            return number_form(values.real(_NUMBER_WORDS[tens] + _ONES.index(ones)))
        if choice := _CHOICE.fullmatch(unmarked(text)) or _CHOICE_TEXT.fullmatch(unmarked(text)):
            letter = next(group for group in choice.groups() if group)
            if letter.isupper() or len(text) > 1:
                return Canonical(key=f"choice:{letter}", aliases=frozenset({f"letter:{letter.casefold()}"}))
        if based := _BASED.fullmatch(unmarked(text)):
            return based_form(*based.groups())
        return None

    def shortened(self, text: str, depth: int) -> Canonical | None:
        """Without "approximately"; thousands joined; repeating decimals as fractions."""
        shorter = _APPROXIMATELY.sub("", text, count=1) if _APPROXIMATELY.match(text) else text
        if "_" not in shorter and _SPACED_THOUSANDS.fullmatch(shorter):
            shorter = shorter.replace(" ", "")
        if "(" not in shorter and "[" not in shorter and "{" not in shorter.replace("{,}", ""):
            shorter = _THOUSANDS.sub(lambda found: found[0].replace(",", ""), shorter)
        elif not any(shorter.startswith(opening) for opening in ("(", "[", "\\{", "{")):
            shorter = _top_thousands(shorter)
        shorter = _MIXED.sub(r"(\1+\2/\3)", shorter)
        shorter = _REPEATING.sub(_repeated, shorter)
        return self.read(shorter, depth + 1) if shorter != text else None

    def listed(self, text: str, depth: int) -> Canonical | None:
        """Several answers, in any order: 1, 2 and 3; x = 1 or x = 2; ±1; {1, 2}."""
        inner = text
        if text.startswith("\\{") and closing_bracket(text) == len(text) - 2:
            inner = text[2:-2].strip()
            if builder := _BUILDER.fullmatch(inner):
                return self.must(builder[1], depth)
            if relations(inner)[1] or "|" in inner:
                return None
        elif text.startswith("{") and closing_bracket(text) == len(text) - 1 and len(split(text[1:-1])[0]) > 1:
            inner = text[1:-1]
        parts, conjunction = split(inner)
        if len(parts) == 1 and inner == text and not BOTH_SIGNS.search(text):
            return None
        if len(parts) > MAX_PARTS:
            raise UnreadableError("too many parts")
        read = [self.must(spelling, depth) for part in parts for spelling in signs(part)]
        if all(element.key[0] in "iu" or element.key.startswith("t(-inf") or element.key.endswith(";inf)")
               for element in read) and len(read) > 1:  # fmt: skip
            if conjunction:
                raise UnreadableError("an intersection")
            return union_form(read)
        return set_form(read)

    def must(self, text: str, depth: int) -> Canonical:
        found = self.read(text, depth + 1)
        if found is None:
            raise UnreadableError("an empty part")
        return found

    def related(self, text: str, depth: int) -> Canonical | None:
        """Equations, inequalities, membership."""
        parts, operators = relations(text)
        if not operators:
            return None
        if len(operators) > 6:
            raise UnreadableError("too long a chain")
        if operators == ["in"]:
            inner = self.must(parts[1], depth)
            return inner.named(f"name:{parts[0]} in {inner.strict or inner.key}")
        if set(operators) == {"="}:
            return self.equation(parts, depth)
        if "in" in operators or "=" in operators:
            raise UnreadableError("a mixed chain")
        return inequality_form(parts, operators)

    def equation(self, parts: list[str], depth: int) -> Canonical:
        left, right = parts[0], parts[-1]
        words = unmarked(left)
        name = _NAME.fullmatch(words)
        if name is None or (words == left and len(name[1]) > 1 and name[1][0] != "\\" and "_" not in name[1]):
            if re.fullmatch(r"[A-Za-z][A-Za-z .]*", words) and len(words) > 2:
                return self.must(right, depth)  # "Area = 12": a label, no unknown
            expression = parse(f"({left})-({right})")
            if fingerprint(expression).key == "n:0":  # 3 + 4 = 7 says 7
                return self.must(right, depth)
            return equation_form(expression)
        value = self.must(right, depth)
        letter = name[1]
        if not value.certain:
            return dataclasses.replace(value, strict=f"name:{letter}={value.key}")
        if value.strict is not None or value.key[0] not in "ne":
            return value.named(f"name:{letter}={value.strict or value.key}")
        try:
            return value.named(equation_form(parse(f"{letter}-({split_unit(right)[0]})")).strict or value.key)
        except UnreadableError:
            return value.named(f"name:{letter}={value.key}")

    def bracketed(self, text: str, depth: int) -> Canonical | None:
        """Tuples, intervals, unions of intervals, matrices."""
        pieces = [piece.strip() for piece in text.split("\\cup")]
        if len(pieces) > 1:
            return union_form([self.must(piece, depth) for piece in pieces])
        if matrix := ENVIRONMENT.fullmatch(text):
            return self.matrix(matrix[1], matrix[2], depth)
        if text[0] not in "([" or closing_bracket(text) != len(text) - 1:
            return None
        parts, _ = split(text[1:-1], words=False)
        if len(parts) < 2:
            return None
        if len(parts) > MAX_PARTS:
            raise UnreadableError("too many parts")
        elements = [self.must(part, depth) for part in parts]
        keys = [element.key for element in elements]
        certain = all(element.certain for element in elements)
        if len(parts) == 2 and text[0] + text[-1] != "()":
            return Canonical(key=interval(keys[0], keys[1], text[0], text[-1]), certain=certain)
        inner = ";".join(bare(key) for key in keys)
        near = {set_form(elements).key, f"m{len(keys)}x1:{inner}", f"m1x{len(keys)}:{inner}"}
        return Canonical(key=f"t({inner})", near=frozenset(near), certain=certain)

    def matrix(self, kind: str, body: str, depth: int) -> Canonical:
        if kind not in ("pmatrix", "bmatrix", "matrix", "Bmatrix", "array", "smallmatrix"):
            raise UnreadableError(f"{kind} is not read")
        rows = [row.split("&") for row in re.split(r"\\\\(?:\[[^\]]*\])?", body.replace("\\hline", "")) if row.strip()]
        if not rows or len({len(row) for row in rows}) != 1 or len(rows) * len(rows[0]) > MAX_PARTS:
            raise UnreadableError("no matrix")
        elements = [self.must(cell, depth) for row in rows for cell in row]
        inner = ";".join(bare(element.key) for element in elements)
        near = {f"t({inner})"} if 1 in (len(rows), len(rows[0])) and len(elements) > 1 else set()
        certain = all(element.certain for element in elements)
        return Canonical(key=f"m{len(rows)}x{len(rows[0])}:{inner}", near=frozenset(near), certain=certain)

    def ratio(self, text: str, depth: int) -> Canonical | None:
        """2 : 3 is not 2/3, but could be meant so."""
        parts = text.split(":")
        if not 2 <= len(parts) <= 6 or re.search(r"(?<![\\A-Za-z])[A-Za-z]{2}", text):
            return None
        terms = [fingerprint(parse(part)) for part in parts]
        inner = ";".join(bare(term.key) for term in terms)
        near = frozenset({fingerprint(parse(f"({parts[0]})/({parts[1]})")).key} if len(parts) == 2 else ())
        scaled = [fingerprint(parse(f"({part})/({parts[0]})")).key for part in parts]
        return Canonical(key=f"ratio:{inner}", near=near, aliases=frozenset({"ratio:" + ";".join(scaled)}))

    def expression(self, text: str, depth: int) -> Canonical | None:
        """A number or an expression, with or without a unit."""
        rest, unit = split_unit(text)
        rest, other = split_unit(rest) if rest != text else (rest, None)
        unit = unit or other
        if OPEN in rest:
            return None
        if _PHRASE.fullmatch(rest) and any(len(_MATH_WORDS.sub("", run)) > 2 for run in rest.split()):
            return None
        for run in _RUNS.findall(rest):
            left = _MATH_WORDS.sub("", run)
            if len(left) > 3 or (run == rest and len(run) > 2 and left):
                return None
        rest = _top_thousands(rest)
        expression = parse(rest)
        found = fingerprint(expression)
        if _BARE_LOG.search(rest):
            found = dataclasses.replace(found, certain=False)
        if expression.letters and re.fullmatch(r"[A-Za-z]", rest):
            found = dataclasses.replace(found, aliases=found.aliases | {f"letter:{rest.casefold()}"})
        before_letter = re.fullmatch(r"(-?[\d.]+) ?[a-zA-Z]", rest)
        if before_letter:  # 5 m: metres or five times m
            found = dataclasses.replace(
                found, near=found.near | {number_form(values.real(Fraction(before_letter[1]))).key}
            )
        return with_unit(found, expression, unit, self.percent) if unit else found


def _repeated(found: re.Match[str]) -> str:
    whole, fixed, repeating = found[1] or "0", found[2], found[3]
    nines = (10 ** len(repeating) - 1) * 10 ** len(fixed)
    return f"({int(whole + fixed + repeating) - int(whole + fixed)}/{nines})"


def _top_thousands(text: str) -> str:
    parts, depth, start = [], 0, 0
    for at, character in enumerate(text):
        if character in "([{":
            if not depth:
                parts.append(_THOUSANDS.sub(lambda found: found[0].replace(",", ""), text[start:at]))
                start = at
            depth += 1
        elif character in ")]}":
            depth -= 1
            if not depth:
                parts.append(text[start : at + 1])
                start = at + 1
    return "".join([*parts, _THOUSANDS.sub(lambda found: found[0].replace(",", ""), text[start:])])


def _text(text: str) -> Canonical:
    said = unmarked(text)
    plain = re.sub(r"(?<=[a-z])\.", "", said.casefold())
    words = _ARTICLE.sub("", " ".join(re.findall(r"[^\s.,:;!?\"()]+", plain)))
    certain = bool(_WORDY.fullmatch(said)) and any(len(run) > 1 for run in _RUNS.findall(said)) and "\\" not in said
    return Canonical(key=f"text:{words or said}", certain=certain)


_ATTEMPTS = (
    _Reader.known, _Reader.shortened, _Reader.listed, _Reader.related, _Reader.bracketed, _Reader.ratio,
    _Reader.expression,
)  # fmt: skip
"""In this order; the first that reads the answer has it."""
