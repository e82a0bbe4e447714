r"""Where an answer is cut: at commas, at relations, at brackets, and at ``\pm``."""

from __future__ import annotations

import re
from collections.abc import Iterator

from jaxrefine.judging.answer_text import CLOSE, OPEN

ENVIRONMENT = re.compile(r"\\begin\{(\w+)\}(?:\{[^{}]*\})?(.*)\\end\{\1\}", re.DOTALL)
"""One whole environment: its name and its body."""
BOTH_SIGNS = re.compile(r"\\pm(?![A-Za-z])|\\mp(?![A-Za-z])|\+/-|\+-")
"""± or ∓."""

_CONJUNCTION = re.compile(
    rf"\s*(?:,|;|&)?\s*(?:{OPEN}\s*,?\s*(and|or)\s*{CLOSE}|(?<![A-Za-z\\])(and|or)(?![A-Za-z]))\s*", re.IGNORECASE
)
_TOKEN = re.compile(r"\\begin\{\w+\}|\\end\{\w+\}|\\[{}]|\\[A-Za-z]+|\\.|.", re.DOTALL)
_OPENING = frozenset("([{")
_CLOSING = frozenset(")]}")
_RELATIONS = {"=": "=", "<": "<", ">": ">", "\\le": "<=", "\\ge": ">=", "\\neq": "!=", "\\in": "in", "\\approx": "="}


def _tokens(text: str) -> Iterator[tuple[int, str, int]]:
    """(position, token, depth of brackets before it)."""
    depth = 0
    for found in _TOKEN.finditer(text):
        token = found[0]
        opens = token in _OPENING or token == "\\{" or token.startswith("\\begin{")
        closes = token in _CLOSING or token == "\\}" or token.startswith("\\end{")
        if closes:
            depth -= 1
        yield found.start(), token, depth
        if opens:
            depth += 1


def closing_bracket(text: str) -> int | None:
    """Where the bracket that opens the text is closed, or None where it is not; any bracket closes any."""
    for at, token, depth in _tokens(text):
        if depth == 0 and at and (token in _CLOSING or token == "\\}"):
            return at
    return None


def split(text: str, *, words: bool = True) -> tuple[list[str], bool]:
    r"""The parts of a list, and whether "and" stood between two of them.

    >>> split(r"1, (2, 3) and 4"), split("(1, 2)")
    ((['1', '(2, 3)', '4'], True), (['(1, 2)'], False))
    """
    conjunction = False
    if words:

        def comma(found: re.Match[str]) -> str:
            nonlocal conjunction
            conjunction |= (found[1] or found[2]).casefold() == "and"
            return ", "

        text = _CONJUNCTION.sub(comma, text)
    parts, start = [], 0
    for at, token, depth in _tokens(text):
        if depth == 0 and token in (",", ";"):
            parts.append(text[start:at])
            start = at + 1
    parts.append(text[start:])
    return [part.strip() for part in parts if part.strip()], conjunction


def relations(text: str) -> tuple[list[str], list[str]]:
    r"""The sides of a chain of relations, and the relations.

    >>> relations(r"1 \le x < 3"), relations("x + 1")
    ((['1', 'x', '3'], ['<=', '<']), (['x + 1'], []))
    """
    parts, operators, start = [], [], 0
    skip = -1
    for at, token, depth in _tokens(text):
        if depth or token not in _RELATIONS or at == skip:
            continue
        operator = _RELATIONS[token]
        length = len(token)
        if token in "<>=" and text[at + 1 : at + 2] == "=":
            operator, length, skip = {"<": "<=", ">": ">=", "=": "="}[token], 2, at + 1
        if token == "=" and text[at - 1 : at] == "!":
            operator = "!="
        parts.append(text[start:at].rstrip(" !:" if operator in ("!=", "=") else " ").strip())
        operators.append(operator)
        start = at + length
    parts.append(text[start:].strip())
    return parts, operators


def signs(text: str) -> list[str]:
    r"""The two answers that ± stands for; all ± of one answer change together.

    >>> signs(r"2 \pm \sqrt{3}"), signs("4")
    (['2 + \\sqrt{3}', '2 - \\sqrt{3}'], ['4'])
    """
    if not BOTH_SIGNS.search(text):
        return [text]
    upper = BOTH_SIGNS.sub(lambda found: "-" if found[0] == "\\mp" else "+", text)
    lower = BOTH_SIGNS.sub(lambda found: "+" if found[0] == "\\mp" else "-", text)
    return [upper, lower]
