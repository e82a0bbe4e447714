"""The arithmetic of answers: exact where it can be, to 90 digits elsewhere, and never without a bound."""

from __future__ import annotations

import math
from fractions import Fraction

import hypothesis
import pytest
from hypothesis import strategies as st

from jaxrefine.judging import answer_values as values
from jaxrefine.judging.answer_grammar import parse


def value(text: str) -> complex:
    with values.precise():
        real, imaginary = parse(text).at(0)
        return complex(float(real), float(imaginary))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (r"\sin 1", math.sin(1)),
        (r"\cos 100", math.cos(100)),
        (r"\tan(-2)", math.tan(-2)),
        (r"\arcsin(3/5)", math.asin(0.6)),
        (r"\arccos(-1)", math.pi),
        (r"\arctan 10", math.atan(10)),
        (r"\sinh 2", math.sinh(2)),
        (r"e^{2.5}", math.exp(2.5)),
        (r"2^{\sqrt2}", 2 ** math.sqrt(2)),
        (r"\log 2", math.log10(2)),
        (r"\log_3 7", math.log(7, 3)),
        (r"\sqrt[5]{7}", 7**0.2),
        (r"\sqrt{-4}", 2j),
        (r"\sqrt{3+4i}", 2 + 1j),
        (r"\frac{1+i}{1-i}", 1j),
        (r"|3+4i|", 5.0),
        ("2^3^2", 512.0),
        ("-2^2", -4.0),
        ("6/2*3", 9.0),
        ("1/2/2", 0.25),
        (r"\lceil -\pi \rceil", -3.0),
        (r"\sin^2 2", math.sin(2) ** 2),
        (r"3\sqrt2\cdot2", 6 * math.sqrt(2)),
    ],
)
def test_functions_agree_with_those_of_python(text: str, expected: complex):
    assert value(text) == pytest.approx(expected, rel=1e-14, abs=1e-14)


@hypothesis.given(st.fractions(max_denominator=1000), st.fractions(max_denominator=1000), st.integers(-6, 6))
def test_rational_arithmetic_is_that_of_fractions(a: Fraction, b: Fraction, n: int):
    with values.precise():
        assert values.exact(parse(f"({a})*({b}) - ({a})").at(0)) == a * b - a
        if a:
            assert values.exact(parse(f"({a})^{{{n}}}").at(0)) == a**n


@pytest.mark.parametrize(
    "text",
    ["", "+", "1 2", "2x3", "(1", "1)", "x_", r"\frac{1}", r"\foo", "3!!!!", "a'", "\\sin^{-1} x", "1..2", r"5\frac73"],
)
def test_what_the_grammar_does_not_know_is_unreadable(text: str):
    with values.precise(), pytest.raises(values.UnreadableError):
        parse(text).at(0)


@pytest.mark.parametrize(
    "text",
    [
        "9^9^9",
        "2^{100000}",
        "(x+1)^{9999}",
        "100000!",
        r"\binom{1000}{500}",
        "e^{1000}",
        r"\sin(10^{50})",
        "1e99999",
        "1/0",
        r"\log(-1)",
        "0^{-1}",
        r"\frac{1}{\sqrt2-\sqrt2}",
        "10^{60}+\\sqrt2",
        "(" * 50 + "1" + ")" * 50,
        "1" * 201,
        "1+" * 600 + "1",
    ],
)
def test_what_would_grow_without_bound_is_refused(text: str):
    with values.precise(), pytest.raises(values.UnreadableError):
        values.spell(parse(text).at(0))
