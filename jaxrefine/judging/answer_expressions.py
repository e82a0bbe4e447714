"""Expressions as nodes: functions from the numbers that letters stand for to a value."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
from collections.abc import Callable
from fractions import Fraction

from jaxrefine.judging import answer_values as values
from jaxrefine.judging.answer_values import UnreadableError, Value

Node = Callable[[Callable[[str], Fraction]], Value]
"""An expression: where its letters are given numbers, it is a value."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Expression:
    """A text that the grammar has read."""

    node: Node
    """From the values of the letters to the value of the expression."""
    letters: frozenset[str]
    """Its variables."""
    polynomial: bool
    """Whether no letter stands under a root, in a denominator, in an exponent or in a function."""

    def at(self, point: int) -> Value:
        """The value where each letter has the number that is its own at this point (the third is negative)."""
        return self.node(lambda name: letter_value(name, point))


@functools.lru_cache(maxsize=4096)
def letter_value(name: str, point: int) -> Fraction:
    """A rational number between 1/2 and 3 (negative at point 2), the same for this letter wherever it occurs."""
    digest = int.from_bytes(hashlib.sha256(f"{point}:{name}".encode()).digest()[:4], "big")
    size = Fraction(1, 2) + Fraction(digest % 2_500_009, 1_000_003)
    return -size if point == 2 else size


def constant(value: Value) -> Node:
    """The same value whatever the letters are."""
    return lambda letters: value


DEGREE = constant((values.DEGREE, values.ZERO))
"""A degree, in radians."""


def letter_missing(name: str) -> Fraction:
    """The value of letters where none may stand."""
    raise UnreadableError(f"{name!r} where a number must stand")


def fold(operation: Callable[[Value, Value], Value], nodes: list[Node]) -> Node:
    """One node a sum or product, however many parts it has: evaluation is no deeper than the brackets."""
    if len(nodes) == 1:
        return nodes[0]
    return lambda letters: functools.reduce(operation, [node(letters) for node in nodes])


def negate(a: Node) -> Node:
    """The negative of a node."""
    return lambda letters: values.negate(a(letters))


def inverse(a: Node) -> Node:
    """One over a node."""
    return lambda letters: values.invert(a(letters))
