"""Equations up to a constant factor, and inequalities as intervals."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction

from jaxrefine.judging import answer_values as values
from jaxrefine.judging.answer_expressions import Expression
from jaxrefine.judging.answer_forms import Canonical, interval, number_form, short
from jaxrefine.judging.answer_grammar import parse
from jaxrefine.judging.answer_values import UnreadableError, Value


def _residuals(expression: Expression) -> list[Value]:
    return [expression.at(point) for point in (0, 1, 2)]


def equation_form(expression: Expression) -> Canonical:
    """An equation as its difference of sides, up to a constant factor; solved where it is linear in one unknown."""
    residuals = _residuals(expression)
    if not expression.letters or values.exact(residuals[0]) == 0:
        raise UnreadableError("an equation between numbers")
    over = values.invert(residuals[0])
    ratios = ":".join(short(values.spell(values.multiply(value, over))) for value in residuals[1:])
    names = ",".join(sorted(expression.letters))
    strict = f"name:eq {names}|{ratios}"
    solution = _linear_root(expression)
    if solution is not None:
        return number_form(solution).named(strict)
    return Canonical(key=strict, strict=strict, certain=expression.polynomial)


def _linear(expression: Expression) -> tuple[Value, Value] | None:
    """(slope, value at 0) where the expression is a + b·x of one letter."""
    if len(expression.letters) != 1 or not expression.polynomial:
        return None
    at: Callable[[int], Value] = lambda number: expression.node(lambda name: Fraction(number))  # noqa: E731
    zero, one, three = at(0), at(1), at(3)
    slope = values.add(one, values.negate(zero))
    bent = values.add(values.add(three, values.negate(zero)), values.multiply(slope, values.real(-3)))
    if values.spell(bent) != "0" or values.spell(slope) == "0":
        return None
    return slope, zero


def _linear_root(expression: Expression) -> Value | None:
    found = _linear(expression)
    return values.negate(values.multiply(found[1], values.invert(found[0]))) if found else None


def inequality_form(parts: list[str], operators: list[str]) -> Canonical:
    """Inequalities of one unknown as an interval; one of several unknowns by its difference of sides."""
    low = high = None
    brackets = ["(", ")"]
    letter = ""
    for left, operator, right in zip(parts, operators, parts[1:], strict=False):
        expression = parse(f"({left})-({right})")
        found = _linear(expression)
        if found is None:
            return _general_inequality(parts, operators)
        letter = min(expression.letters)
        bound = number_form(values.negate(values.multiply(found[1], values.invert(found[0])))).key
        if operator == "!=":
            if len(operators) > 1:
                raise UnreadableError("a mixed chain")
            key = "u" + "|".join(sorted([interval("-inf", bound, "(", ")"), interval(bound, "inf", "(", ")")]))
            return Canonical(key=key, strict=f"name:{letter}>{key}")
        above = (operator[0] == ">") == (values.approximate(found[0][0]) > 0)
        if (low if above else high) is not None:
            raise UnreadableError("two bounds on one side")
        if above:
            low, brackets[0] = bound, "[" if operator.endswith("=") else "("
        else:
            high, brackets[1] = bound, "]" if operator.endswith("=") else ")"
    key = interval(low or "-inf", high or "inf", *brackets)
    return Canonical(key=key, strict=f"name:{letter}>{key}")


def _general_inequality(parts: list[str], operators: list[str]) -> Canonical:
    if len(operators) > 1 or operators[0] == "!=":
        raise UnreadableError("a chain of several unknowns")
    left, right = parts if operators[0][0] == "<" else parts[::-1]
    residuals = _residuals(parse(f"({right})-({left})"))
    over = values.invert(values.absolute(residuals[0]))
    ratios = ":".join(short(values.spell(values.multiply(value, over))) for value in residuals)
    return Canonical(key=f"{'0<=' if operators[0].endswith('=') else '0<'} {ratios}", certain=False)
