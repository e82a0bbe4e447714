r"""Final answers: read where they are stated, compared as mathematics, never guessed.

Two strictnesses. The shipped world of word problems marks its answers ``#### 36``; `extract`, `is_right` and
`answer_key` read that line as a number and nothing else. Foreign solutions state theirs in many ways and spellings:
`extract` with a style reads them, `equivalent` compares two and `cluster` sorts many by one canonical key
(`answer_keys`), with math-verify in killable processes (`grading_pool`) for what the key does not settle.

The last number of a text is not an answer: taking it would credit accidents. A text without a readable answer is "no
answer", which is counted apart from "wrong"; what cannot be settled is "undecided", and is counted too.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from decimal import Decimal
from typing import Literal

from jaxrefine.judging import answer_extraction, grading_pool
from jaxrefine.judging.answer_keys import Percent, canonical
from jaxrefine.judging.answer_text import clean
from jaxrefine.judging.equivalence import Equivalence, Verdict, compare, partition
from jaxrefine.judging.grading_pool import GradingPool

Grader = GradingPool | Literal["shared"] | None
Outcome = Literal["right", "wrong", "no answer"]

MARKER = "####"
_MAX_DIGITS = 60
_MAX_TEXT = 2_000
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
    text = text.strip()
    match = _NUMBER.fullmatch(text) if len(text) <= _MAX_TEXT else None
    if match is None or (match["sign"] and match["inner"]):
        return None
    whole, fraction = match["whole"].replace(",", "") or "0", match["fraction"] or ""
    if len(whole) + len(fraction) > _MAX_DIGITS:
        return None
    sign = "-" if (match["sign"] or match["inner"] or "+") in "-−" else ""
    fraction = fraction.rstrip("0").rstrip(".")
    digits = (whole.lstrip("0") or "0") + fraction
    return digits if Decimal(digits) == 0 else sign + digits


def extract(text: str, *, kind: Literal["number", "text", "raw"] | None = None, style: str = "marker") -> str | None:
    r"""A solution's stated answer.

    With the style "marker" it is what stands after ``####`` on its line, and several markers must agree: a text that
    commits to two answers has none. The other styles are for foreign data, where the last statement counts.

    Args:
        text: a whole solution.
        kind: "number" reads one decimal number and gives its canonical key; "text" gives the words without case and
            outer spaces; "raw" the answer as it is written, for `equivalent` and `cluster`. By default "number" for
            the style "marker" and "raw" for the others.
        style: where the answer stands: one of `answer_extraction.STYLES`: "marker" (``#### 36``), "boxed" (the last
            ``\boxed{36}``), "phrase" ("The answer is 36", "A: 36"), "last line", "auto" (box, else marker, else
            phrase), or "conclusion" (the same, else the end of the last sentence).

    Returns:
        The answer, equal keys for equal answers unless ``kind`` is "raw"; None where none is stated or readable.

    Raises:
        ValueError: where the style is unknown.

    >>> extract("So 6 x 6 = 36.\n#### 36"), extract("I think it is 36"), extract("#### 36\n#### 37")
    ('36', None, None)
    >>> extract("#### Blue  whale", kind="text"), extract(r"Thus \boxed{\frac{1}{2}}.", style="auto")
    ('blue whale', '\\frac{1}{2}')
    """
    find = answer_extraction.by_style(style)
    if style != "marker" or kind == "raw":
        stated = find(text)
        return stated if stated is None or kind in (None, "raw") else _key(stated, kind)
    keys = {_key(line, kind or "number") for line in _LINE.findall(text)}
    return keys.pop() if len(keys) == 1 else None


def equivalent(
    a: str | int | float | None,
    b: str | int | float | None,
    *,
    percent: Percent = "unit",
    grader: Grader = "shared",
) -> Equivalence:
    r"""Whether two answers mean the same, whatever their spelling.

    Numbers (decimals, fractions, mixed numbers, thousands, scientific notation), expressions, equations, intervals and
    inequalities, sets and lists (in any order), tuples, matrices, choices, yes and no, words. A unit, a sign of
    currency, an unknown's name may be missing on one side; where both name one, they must agree. Exact: 0.33 is not
    1/3, but as it could be meant so, the pair is undecided.

    Args:
        a: an answer, not a whole solution; None or blank is no answer.
        b: another; the outcome does not depend on their order.
        percent: "unit" drops a percent sign as a unit (10 % equals 10; 10 % and 0.1 are undecided); "value" reads
            10 % as 0.1.
        grader: the processes to ask where the canonical keys do not settle it: "shared" is one pool of this program,
            started when first needed; None asks nobody.

    Returns:
        "equal", "different", "undecided" or "no answer".

    Raises:
        ImportError: where math-verify is needed and not installed.

    >>> equivalent(r"\dfrac{1}{2}", "0.5"), equivalent("x = 5", "5 cm"), equivalent("(1, 2)", "(2, 1)")
    ('equal', 'equal', 'different')
    >>> equivalent("1/3", "0.33"), equivalent("36", None)
    ('undecided', 'no answer')
    """
    spelled = [_spelled(a), _spelled(b)]
    forms = [canonical(text, percent=percent) for text in spelled]
    if forms[0] is None or forms[1] is None:
        return "no answer"
    verdict, final = compare(forms[0], forms[1])
    return verdict if final else _ask(grader, spelled[0] or "", spelled[1] or "")


def cluster(
    answers: Sequence[str | int | float | None], *, percent: Percent = "unit", grader: Grader = "shared"
) -> list[int | None]:
    r"""Sorts answers into clusters of equal ones: for voting and re-ranking.

    Args:
        answers: the answers of one question's candidates; None or blank is no answer.
        percent: as in `equivalent`.
        grader: as in `equivalent`.

    Returns:
        One cluster number an answer, 0, 1, … in order of first occurrence; None where there is no answer. The clusters
        are the same for every order of the answers: equality is that of one key, so it is symmetric and transitive.

    >>> cluster(["1/2", r"\frac{2}{4}", "0.5 cm", None, "5 x 10^{-1}", "2"], grader=None)
    [0, 0, 0, None, 0, 1]
    """
    spelled = [_spelled(answer) for answer in answers]
    forms = [canonical(text, percent=percent) for text in spelled]
    return partition(spelled, forms, None if grader is None else lambda a, b: _ask(grader, a, b))


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
    spelled = _spelled(answer) or ""
    number = canonical_number(spelled)
    key = number if number is not None else _key(spelled, "text")
    if key is None:
        raise ValueError("an answer to compare with must not be empty; leave the field out where there is none")
    return key


def _key(text: str, kind: str) -> str | None:
    if kind == "number":
        return canonical_number(text)
    return " ".join(text.split()).casefold() or None


def _spelled(answer: str | int | float | None) -> str | None:
    if answer is None or isinstance(answer, str):
        return answer
    return format(Decimal(repr(answer)), "f") if isinstance(answer, float) else str(answer)


def _ask(grader: Grader, a: str, b: str) -> Verdict:
    if grader is None or not (grading_pool.fits(a) and grading_pool.fits(b)):
        return "undecided"
    pool = grading_pool.shared() if grader == "shared" else grader
    return pool.compare(*(clean(text).replace("\x01", "\\text{").replace("\x02", "}") for text in (a, b)))
