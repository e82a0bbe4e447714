"""The canonical form of an answer, and how forms are made of numbers, expressions, units, sets and intervals."""

from __future__ import annotations

import dataclasses
import hashlib
import re
from fractions import Fraction
from typing import Literal

from jaxrefine.judging import answer_values as values
from jaxrefine.judging.answer_expressions import Expression
from jaxrefine.judging.answer_text import UNITS, Unit
from jaxrefine.judging.answer_values import UnreadableError, Value

Percent = Literal["unit", "value"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Canonical:
    """What an answer says, whatever its spelling."""

    key: str
    """Equal for answers that are equal."""
    strict: str | None = None
    """The key with unit or unknown, where the answer names one: it decides between two answers that have one."""
    near: frozenset[str] = frozenset()
    """Keys that this answer could be meant as (1/2 for 50 %): neither equal nor different."""
    aliases: frozenset[str] = frozenset()
    """Answers that share one without being equal are neither: those that are equal for positive letters, say."""
    value: Fraction | None = None
    """A real number's value, exact or to 40 digits: 0.67 could be meant as 2/3."""
    certain: bool = True
    """Whether another key means another value. False: this text was not understood, or its equality is hard."""

    def named(self, strict: str) -> Canonical:
        """The same value with its unit or unknown."""
        return dataclasses.replace(self, strict=strict)


def digest(text: str) -> str:
    """A name for a text that is too long to be a key."""
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).hexdigest()


def number_form(value: Value) -> Canonical:
    """The form of a number."""
    spelled = values.spell(value)
    plain = "i" not in spelled and "x" not in spelled  # neither complex nor in hexadecimal digits
    return Canonical(key=f"n:{spelled}", value=Fraction(spelled) if plain else None)


def fingerprint(expression: Expression) -> Canonical:
    """The key of an expression: its value, or its values where its letters have their fixed numbers."""
    first = values.spell(expression.at(0))
    if not expression.letters:
        return number_form(expression.at(0))
    try:
        other = values.spell(expression.at(2))
    except UnreadableError:
        other = "?"
    if first == other and values.spell(expression.at(1)) == first:
        return number_form(expression.at(0))
    return Canonical(key=f"e:{short(first)}|{short(other)}", aliases=frozenset({f"positive:{short(first)}"}))


def short(spelled: str) -> str:
    """A spelling, or its digest where it is long."""
    return spelled if len(spelled) <= 64 else digest(spelled)[:40]


def with_unit(found: Canonical, expression: Expression, unit: Unit, percent: Percent) -> Canonical:
    """A number with its unit: equal with or without it, and near what it is in other units of its dimension."""
    if expression.letters:
        return found.named(f"unit:{found.key} {unit.name}")
    value = expression.at(0)
    if unit.dimension == "percent":
        hundredth = number_form(values.multiply(value, values.real(Fraction(1, 100)))).key
        if percent == "value":
            return Canonical(key=hundredth, near=frozenset({found.key}))
        return dataclasses.replace(found, strict=f"unit:{found.key} percent", near=found.near | {hundredth})
    near = set(found.near)
    if unit.name == "angle:degree":
        near.add(number_form(values.multiply(value, (values.DEGREE, values.ZERO))).key)
    elif unit.factor:
        dimension, _, exponent = unit.dimension.partition("^")
        for other in {other for other in UNITS.values() if other.dimension == dimension}:
            factor = unit.factor / other.factor ** int(exponent or 1)
            near.add(number_form(values.multiply(value, values.real(factor))).key)
    return dataclasses.replace(found, strict=f"unit:{found.key} {unit.name}", near=frozenset(near - {found.key}))


def bare(key: str) -> str:
    """A key as a part of another: numbers without their prefix."""
    return key.removeprefix("n:")


def interval(low: str, high: str, opening: str, closing: str) -> str:
    """The key of an interval; an open one has that of the pair of its ends, since both are written (a, b)."""
    kind = "t" if opening + closing == "()" else "i"
    return f"{kind}{opening}{bare(low)};{bare(high)}{closing}"


def unknown(strict: str | None) -> str | None:
    """The unknown of an equation or inequality that is solved for it."""
    if strict is None or not strict.startswith("name:"):
        return None
    return re.split(r"[=>|]| in ", strict.removeprefix("name:").removeprefix("eq "))[0]


def set_form(elements: list[Canonical]) -> Canonical:
    """Elements in any order, once each. Of one unknown the values count, of several the equations."""
    names = {unknown(element.strict) for element in elements} - {None}
    keys = {(element.strict or element.key) if len(names) > 1 else element.key for element in elements}
    certain = all(element.certain for element in elements)
    if len(keys) == 1:
        return dataclasses.replace(elements[0], certain=certain)
    inner = ";".join(sorted(keys))
    strict = f"name:{names.pop()}={inner}" if len(names) == 1 else None
    near = frozenset({"t(" + ";".join(bare(element.key) for element in elements) + ")"})
    return Canonical(key=f"s{{{inner}}}", strict=strict, certain=certain, near=near)


def union_form(pieces: list[Canonical]) -> Canonical:
    """Intervals and sets together, in any order."""
    keys = sorted(
        {key for piece in pieces for key in (piece.key[1:].split("|") if piece.key[0] == "u" else [piece.key])}
    )
    key = keys[0] if len(keys) == 1 else "u" + "|".join(keys)
    names = {unknown(piece.strict) for piece in pieces}
    name = names.pop() if len(names) == 1 else None
    certain = all(piece.certain for piece in pieces)
    return Canonical(key=key, strict=f"name:{name}>{key}" if name else None, certain=certain)


def based_form(sign: str, digits: str, base: str) -> Canonical:
    """A number written in another base: its digits count; what they are worth in base ten is neither equal nor not."""
    strict = f"unit:base{int(base)}:{sign}{digits.casefold()}"
    try:
        value = number_form(values.real(int(sign + digits, int(base)))).key if 2 <= int(base) <= 36 else None
    except ValueError as error:
        raise UnreadableError("no digits of that base") from error
    if not digits.isdigit():
        return Canonical(key=strict, near=frozenset({value} if value else ()))
    shown = number_form(values.real(int(sign + digits)))
    return Canonical(key=shown.key, strict=strict, near=frozenset({value} if value else ()))
