r"""The wrapping of answers taken off: delimiters, spacing, fonts, look-alikes, units and signs of currency.

What ``\text{…}`` held is kept between two marks, so that its words are not read as products of letters.
"""

from __future__ import annotations

import dataclasses
import re
import unicodedata
from fractions import Fraction

OPEN, CLOSE = "\x01", "\x02"
"""The marks around words that stood in ``\\text{…}``."""

_LOOKALIKES = str.maketrans(
    {
        **dict.fromkeys("−–—‐‑﹣－", "-"),
        **dict.fromkeys("×✕∙⋅·", "*"),
        **dict.fromkeys("“”„″", '"'),
        **dict.fromkeys("‘’′", "'"),
        **dict.fromkeys("\u200b\u200c\u200d\u2060\ufeff", ""),
        "÷": "/",
        "∕": "/",
        "⁄": "/",
        "≤": "\\le ",
        "≥": "\\ge ",
        "≠": "\\neq ",
        "≈": "\\approx ",
        "∞": "\\infty ",
        "π": "\\pi ",
        "θ": "\\theta ",
        "√": "\\sqrt ",
        "∪": "\\cup ",
        "∈": "\\in ",
        "±": "\\pm ",
        "°": "^\\circ ",
        "∅": "\\emptyset ",
        "ℝ": "\\mathbb{R}",
        **{character: f"_{{{digit}}}" for digit, character in enumerate("₀₁₂₃₄₅₆₇₈₉")},
    }
)
_RAISED = re.compile("[⁺⁻]?[⁰¹²³⁴⁵⁶⁷⁸⁹]+")
_VULGAR = re.compile("[¼½¾⅐-⅞]")
_TEXT = re.compile(r"\\(?:text|mbox|textbf|textit|textrm|textnormal|mathrm|operatorname|hbox|rm)\s*\{([^{}]*)\}")
_FONT = re.compile(r"\\(?:mathbf|mathit|mathsf|mathcal|boldsymbol|bm|ensuremath|underline)\s*\{([^{}]*)\}")
_SPACES = re.compile(
    r"(?<!\\)\\[,;:!> ]|~|\\(?:quad|qquad|hspace\{[^{}]*\}|displaystyle|textstyle|limits|nolimits|hfill)(?![A-Za-z])"
)
_SIZES = re.compile(r"\\(?:left|right|[bB]igg?[lrm]?|middle)(?![A-Za-z])\s*(\.(?=\s*[|\\]|$))?")
_THIN = re.compile(r"(?<=\d)\s*(?:\\[,!; ]|\{,\}|\\!\s*,\s*\\!|,\s*\\!|\\!\s*,)\s*(?=\d{3}(?!\d))")
_TIMES_TEN = re.compile(r"(?<=\d)\s*[xX]\s*(?=10\s*\^)")
_PHANTOM = re.compile(r"\\phantom\s*(?:\{[^{}]*\}|.)")
_SYNONYMS = tuple(
    (re.compile(rf"\\{name}(?![A-Za-z])"), meant)
    for name, meant in {
        "leqslant": "\\\\le ",
        "leq": "\\\\le ",
        "geqslant": "\\\\ge ",
        "geq": "\\\\ge ",
        "lt": "<",
        "gt": ">",
        "ne": "\\\\neq ",
        "lvert": "|",
        "rvert": "|",
        "vert": "|",
        "mid": "|",
        "degree": "^\\\\circ ",
        "lbrace": "\\\\{",
        "rbrace": "\\\\}",
        "dots": "\\\\ldots ",
        "cdots": "\\\\ldots ",
        "dbinom": "\\\\binom",
        "tbinom": "\\\\binom",
        "varnothing": "\\\\emptyset ",
        "dollar": "$",
        "percent": "%",
        "colon": ":",
        "lbrack": "[",
        "rbrack": "]",
        "imath": "i",
        "R": "\\\\mathbb{R}",
        "reals": "\\\\mathbb{R}",
        "to": "\\\\to ",
        "land": "\\\\text{and}",
        "lor": "\\\\text{or}",
        "wedge": "\\\\text{and}",
        "vee": "\\\\text{or}",
    }.items()
)
_DELIMITERS = (("$$", "$$"), ("$", "$"), ("\\(", "\\)"), ("\\[", "\\]"), ("**", "**"), ("`", "`"), ('"', '"'))


def clean(text: str) -> str:
    r"""One layer of dress taken off: an answer as the grammars below read it.

    >>> clean(r"$\displaystyle \left( 2,\, \dfrac{1}{2} \right).$")
    '( 2, \\dfrac{1}{2} )'
    >>> clean(r"14{,}641"), clean("１２½"), clean(r"\boxed{3\text{ cm}}") == "3\x01 cm\x02"
    ('14641', '12 1/2', True)
    """
    if not text.isascii():
        text = _RAISED.sub(lambda found: "^{" + unicodedata.normalize("NFKC", found[0]) + "}", text)
        text = _VULGAR.sub(lambda found: " " + unicodedata.normalize("NFKC", found[0]).replace("⁄", "/"), text)
        text = unicodedata.normalize("NFKC", text.translate(_LOOKALIKES))
    text = _strip(text.replace(OPEN, "").replace(CLOSE, "")).replace("**", "^")
    if "\\" in text:
        text = _THIN.sub("", _PHANTOM.sub(" ", text))
        for pattern, meant in _SYNONYMS:
            text = pattern.sub(meant, text)
        text = _SIZES.sub(" ", _SPACES.sub(" ", text))
        text = _TEXT.sub(_marked, _strip(text))
        text = _FONT.sub(r" \1 ", text)
        text = text.replace("\\$", "$").replace("\\%", "%").replace("\\#", "#").replace("\\&", "&")
    elif "{,}" in text:
        text = _THIN.sub("", text)
    return " ".join(_TIMES_TEN.sub("*", text).split())


def _strip(text: str) -> str:
    """Without outer spaces, final punctuation, delimiters of mathematics and one outer box."""
    for _ in range(6):
        before, text = text, text.strip()
        if not text.endswith(".."):
            text = text.rstrip(".,;:").strip()
        text = text.removesuffix("\\") if not text.endswith("\\\\") else text.removesuffix("\\\\")
        for start, end in _DELIMITERS:
            inner = text[len(start) : len(text) - len(end)]
            wrapped = len(text) > len(start) + len(end) and text.startswith(start) and text.endswith(end)
            if wrapped and start not in inner.replace("\\" + start, "") and not (start == "$" and inner.endswith("\\")):
                text = inner
        boxed = re.match(r"\\(?:boxed|fbox)\s*\{", text)
        if boxed and closing(text, boxed.end() - 1) == len(text) - 1:
            text = text[boxed.end() : -1]
        if text == before:
            break
    return text


def closing(text: str, opening: int) -> int | None:
    r"""Where the brace that opens here is closed, or None; ``\{`` and ``\}`` do not count.

    >>> closing(r"{a{b}\}}", 0)
    7
    """
    depth, at = 0, opening
    while at < len(text):
        character = text[at]
        if character == "\\":
            at += 2
            continue
        depth += (character == "{") - (character == "}")
        if not depth:
            return at
        at += 1
    return None


def _marked(found: re.Match[str]) -> str:
    inner = found[1]
    if len(inner.strip()) == 1 and inner.strip().islower() and inner.strip() not in _SINGLE:
        return f" {inner} "
    return f"{OPEN}{inner}{CLOSE}"


def unmarked(text: str) -> str:
    r"""Without the marks of ``\text{…}``."""
    return " ".join(text.replace(OPEN, " ").replace(CLOSE, " ").split())


@dataclasses.dataclass(frozen=True)
class Unit:
    """What a number is counted in."""

    name: str
    """The same for all spellings of a unit."""
    dimension: str
    """What it measures; units of one dimension can be turned into one another."""
    factor: Fraction
    """How many of the dimension's first unit it is."""


_UNIT_TABLE = """
percent: % percent percentage pct =1
angle: degree degrees deg =1 | radian radians rad =0
money: dollar dollars usd $ buck bucks =1 | cent cents ¢ =1/100
euro: euro euros eur € =1
pound: gbp £ =1
yen: yen jpy ¥ =1
rupee: rupee rupees rs ₹ =1
length: m meter meters metre metres =1 | km kilometer kilometers kilometre kilometres =1000
length: cm centimeter centimeters centimetre centimetres =1/100
length: mm millimeter millimeters millimetre millimetres =1/1000
imperial: in inch inches =1 | ft foot feet =12 | yd yard yards =36 | mi mile miles =63360
time: s sec secs second seconds =1 | min mins minute minutes =60 | h hr hrs hour hours =3600
time: day days =86400 | week weeks =604800
age: month months =1 | year years yr yrs =12
mass: g gram grams =1 | kg kilogram kilograms kilo kilos =1000 | mg milligram milligrams =1/1000
weight: oz ounce ounces =1 | lb lbs pound pounds =16 | ton tons =32000
volume: l liter liters litre litres =1 | ml milliliter milliliters millilitre millilitres =1/1000
speed: mph =1
velocity: kph kmh =1
"""  # fmt: skip


def _units() -> dict[str, Unit]:
    table = {}
    for line in _UNIT_TABLE.strip().splitlines():
        dimension, _, kinds = line.partition(": ")
        for kind in kinds.split(" | "):
            names, _, factor = kind.partition(" =")
            first = names.split()[0]
            table.update({name: Unit(f"{dimension}:{first}", dimension, Fraction(factor)) for name in names.split()})
    return table


UNITS = _units()
"""Every spelling of a unit that is known. Others are words, and do not matter."""

CURRENCIES = "$€£¥₹"
_SINGLE = frozenset(["m", "s", "h", "g", "l"])
_STOP = frozenset(
    [
        "than",
        "or",
        "and",
        "to",
        "from",
        "if",
        "is",
        "are",
        "of",
        "be",
        "not",
        "more",
        "less",
        "times",
        "plus",
        "minus",
        "over",
        "by",
        "the",
        "when",
        "where",
        "for",
        "all",
    ]
)
_TRAILING_TEXT = re.compile(rf"\s*{OPEN}([^{OPEN}{CLOSE}]*){CLOSE}\s*(?:\^\s*\{{?\s*([23])\s*\}}?)?\s*\.?$")
_TRAILING_WORDS = re.compile(
    r"(?<=[\d)}.\s])\s*\b([A-Za-z]{2,}\.?(?:[ /-]+[A-Za-z]{2,}\.?){0,3})\s*(?:\^\s*\{?\s*([23])\s*\}?)?$"
)
_DEGREE = re.compile(r"\s*\^\s*(?:\\circ|\{\s*\\circ\s*\})(?:\s*([CF])\b)?$")
_ANGLE_OF = re.compile(r"(?:sin|cos|tan|cot|sec|csc)")
_FUNCTION_WORDS = frozenset(
    [
        "sqrt",
        "pi",
        "sin",
        "cos",
        "tan",
        "cot",
        "sec",
        "csc",
        "log",
        "ln",
        "exp",
        "arcsin",
        "arccos",
        "arctan",
        "infty",
        "inf",
        "oo",
    ]
)


def split_unit(text: str) -> tuple[str, Unit | None]:
    r"""The number and its known unit; words that are no known unit are dropped and None.

    >>> split_unit("$12"), split_unit("36 apples")
    (('12', Unit(name='money:dollar', dimension='money', factor=Fraction(1, 1))), ('36', None))
    >>> split_unit(clean(r"5\text{ cm}^2"))[1].name, split_unit("50%")[0]
    ('length:cm^2', '50')
    """
    sign = ""
    rest = text
    if rest[:1] in ("-", "+") and rest[1:].lstrip()[:1] in tuple(CURRENCIES):
        sign, rest = rest[0], rest[1:].lstrip()
    if rest and rest[0] in CURRENCIES:
        inner, _ = split_unit(rest[1:].strip())
        return sign + inner, UNITS[rest[0]]
    if rest and rest[-1] in CURRENCIES + "¢%":
        return rest[:-1].strip(), UNITS[rest[-1]]
    if (degree := _DEGREE.search(rest)) and not _ANGLE_OF.search(rest):
        return rest[: degree.start()].strip(), UNITS["degrees"] if not degree[1] else None
    found = _TRAILING_TEXT.search(rest)
    if found and found.start():
        return _with_unit(rest[: found.start()], found[1], found[2], text)
    found = _TRAILING_WORDS.search(rest)
    if found and found.start() and any(character.isdigit() for character in rest[: found.start()]):
        return _with_unit(rest[: found.start()], found[1], found[2], text)
    return text, None


def _with_unit(number: str, words: str, exponent: str | None, text: str) -> tuple[str, Unit | None]:
    named = words.strip().rstrip(".").casefold().replace(".", "")
    parts = re.split(r"[\s/-]+", named)
    if not named or any(part in _STOP or part in _FUNCTION_WORDS for part in parts) or len(parts) > 4:
        return text, None
    if parts[0] in ("sq", "square"):
        parts, exponent = parts[1:], "2"
    elif parts[0] in ("cu", "cubic"):
        parts, exponent = parts[1:], "3"
    unit = UNITS.get(parts[0]) if len(parts) == 1 else None
    if unit and exponent:
        unit = Unit(f"{unit.name}^{exponent}", f"{unit.dimension}^{exponent}", unit.factor ** int(exponent))
    return number.strip(), unit
