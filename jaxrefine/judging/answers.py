"""Final answers of worked solutions: read from the line ``#### 36``, compared as numbers, never guessed.

Only the marked answer counts. The last number of a text is not an answer: taking it would credit accidents. A text
without a readable marked answer is "no answer", which is counted apart from "wrong".
"""

from __future__ import annotations

import re
from decimal import Decimal
from typing import Literal

Outcome = Literal["right", "wrong", "no answer"]

MARKER = "####"
_MAX_DIGITS = 60
_NUMBER = re.compile(
    r"""(?P<sign>[-+−])?\s*[$€£¥]?\s*(?P<inner>[-+−])?
        (?P<whole>[0-9]{1,3}(?:,[0-9]{3})+|[0-9]+|(?=\.[0-9]))
        (?P<fraction>\.[0-9]+)?
        \s*(?P<unit>[%€£¥]|[^\W\d_][^\d=+*/^<>]*)?\.?""",
    re.VERBOSE,
)
_LINE = re.compile(r"####([^\n\r]*)")


def canonical_number(text: str) -> str | None:
    """The one spelling of a decimal number, or None where the text is not exactly one number.

    Thousands commas, a currency sign, a percent sign, a unit in words and trailing zeros do not matter; a sum, a
    range or a second number is not a number.

    Args:
        text: what stands after the marker, or a data set's answer.

    Returns:
        Digits with an optional leading ``-`` and decimal point, or None.

    >>> [canonical_number(text) for text in ("1,200.50", "$ -3", "36 apples.", "-0.0", "1,23", "3 + 4", "36 or 40")]
    ['1200.5', '-3', '36', '0', None, None, None]
    """
    match = _NUMBER.fullmatch(text.strip())
    if match is None or (match["sign"] and match["inner"]):
        return None
    whole, fraction = match["whole"].replace(",", "") or "0", match["fraction"] or ""
    if len(whole) + len(fraction) > _MAX_DIGITS:
        return None
    sign = "-" if (match["sign"] or match["inner"] or "+") in "-−" else ""
    fraction = fraction.rstrip("0").rstrip(".")
    digits = (whole.lstrip("0") or "0") + fraction
    return digits if Decimal(digits) == 0 else sign + digits


def extract(text: str, *, kind: Literal["number", "text"] = "number") -> str | None:
    r"""The canonical key of a solution's marked answer: what stands after ``####`` on its line.

    Several markers must agree: a text that commits to two answers has none.

    Args:
        text: a whole solution.
        kind: "number" reads one decimal number; "text" takes the words as they are, without case and outer spaces.

    Returns:
        A key that is equal for equal answers, or None where no answer is marked or readable.

    >>> extract("So 6 x 6 = 36.\n#### 36"), extract("I think it is 36"), extract("#### 36\n#### 37")
    ('36', None, None)
    >>> extract("#### Blue  whale", kind="text")
    'blue whale'
    """
    keys = {_key(line, kind) for line in _LINE.findall(text)}
    return keys.pop() if len(keys) == 1 else None


def is_right(text: str, answer: str | int | float) -> Outcome:
    """Whether a solution's marked answer equals the known one.

    Args:
        text: a whole solution.
        answer: the known answer; a number is compared as a number, anything else as words.

    Returns:
        "right", "wrong", or "no answer" where the solution marks none that can be read.

    >>> is_right("... #### 1,200.0", 1200), is_right("#### 12", "13"), is_right("so 13", 13)
    ('right', 'wrong', 'no answer')
    """
    known = answer_key(answer)
    given = extract(text, kind="number" if canonical_number(str(answer)) is not None else "text")
    if given is None:
        return "no answer"
    return "right" if given == known else "wrong"


def answer_key(answer: str | int | float) -> str:
    """The key of a known answer, comparable with `extract` of a solution.

    Raises:
        ValueError: where the answer is empty.

    >>> answer_key("1,000"), answer_key(2.50), answer_key("Yes")
    ('1000', '2.5', 'yes')
    """
    spelled = format(Decimal(repr(answer)), "f") if isinstance(answer, float) else str(answer)
    number = canonical_number(spelled)
    key = number if number is not None else _key(spelled, "text")
    if key is None:
        raise ValueError("an answer to compare with must not be empty; leave the field out where there is none")
    return key


def _key(text: str, kind: str) -> str | None:
    if kind == "number":
        return canonical_number(text)
    return " ".join(text.split()).casefold() or None
