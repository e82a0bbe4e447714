r"""A small grammar of mathematical expressions, in LaTeX or plain text, and their fingerprints.

Nothing of the text is ever run: characters become nodes, nodes become numbers (`answer_values`). What the grammar does
not know is `UnreadableError`, never guessed. An expression with letters in it is compared by its exact values at fixed
points of those letters, so two spellings of a polynomial have one fingerprint, whatever their form.
"""

from __future__ import annotations

import functools
import re
from collections.abc import Callable
from fractions import Fraction

from jaxrefine.judging import answer_values as values
from jaxrefine.judging.answer_expressions import (
    DEGREE,
    Expression,
    Node,
    constant,
    fold,
    inverse,
    letter_missing,
    negate,
)
from jaxrefine.judging.answer_values import UnreadableError, Value

MAX_LENGTH = 1_000
MAX_DEPTH = 40
MAX_DIGITS = 200
_NUMBER = re.compile(r"\d+(?:\.\d+)?|\.\d+")
_SCIENTIFIC = re.compile(r"[eE][-+]?\d{1,5}(?![\d.])")
_DEGREES = re.compile(r"\s*(?:\\circ|\{\s*\\circ\s*\})")
_INDEX = re.compile(r"\{\s*(\w+)\s*\}|(\w)")
_COMMAND = re.compile(r"\\([A-Za-z]+)")
_WORD = re.compile(r"[A-Za-z]+")
_GREEK = frozenset(
    [
        "alpha",
        "beta",
        "gamma",
        "delta",
        "epsilon",
        "varepsilon",
        "zeta",
        "eta",
        "theta",
        "vartheta",
        "kappa",
        "lambda",
        "mu",
        "nu",
        "xi",
        "rho",
        "sigma",
        "tau",
        "phi",
        "varphi",
        "chi",
        "psi",
        "omega",
        "Gamma",
        "Delta",
        "Theta",
        "Lambda",
        "Sigma",
        "Phi",
        "Psi",
        "Omega",
        "ell",
    ]
)
_TIMES = ("\\cdot", "\\times", "*")
_OVER = ("\\div", "/")
_CLOSERS = frozenset(")}]|+-/*,;=<>^_!")


def parse(text: str) -> Expression:
    r"""Reads one expression.

    Args:
        text: cleaned of units, signs of currency and delimiters (`answer_text.clean`).

    Raises:
        UnreadableError: where it is not of this grammar, or longer, deeper or with more digits than is read here.

    >>> from jaxrefine.judging.answer_values import precise, spell
    >>> with precise():
    ...     spell(parse(r"2\frac{1}{2} + \sqrt{9}").at(0))
    '11/2'
    >>> sorted(parse("2xy + y^2").letters)
    ['x', 'y']
    """
    if len(text) > MAX_LENGTH:
        raise UnreadableError("too long")
    if sum(character.isdigit() for character in text) > MAX_DIGITS:
        raise UnreadableError("too many digits")
    reader = _Reader(text)
    node = reader.sum(0)
    if reader.peek():
        raise UnreadableError(f"{reader.peek()!r} does not belong here")
    return Expression(node=node, letters=frozenset(reader.letters), polynomial=reader.polynomial)


class _Reader:
    """Recursive descent over the characters; each method reads one level of binding."""

    def __init__(self, text: str) -> None:
        self.text, self.at = text, 0
        self.letters: set[str] = set()
        self.polynomial = True

    def peek(self) -> str:
        """The next token: a LaTeX command with its backslash, or one character; empty at the end."""
        while self.at < len(self.text) and self.text[self.at].isspace():
            self.at += 1
        command = _COMMAND.match(self.text, self.at)
        return command[0] if command else self.text[self.at : self.at + 1]

    def take(self, *tokens: str) -> str:
        """Takes the next token where it is one of these."""
        found = self.peek()
        if not found or found not in tokens:
            return ""
        self.at += len(found)
        return found

    def need(self, token: str) -> None:
        if not self.take(token):
            raise UnreadableError(f"{token!r} is missing")

    def deeper(self, depth: int) -> int:
        if depth >= MAX_DEPTH:
            raise UnreadableError("too deep")
        return depth + 1

    def unlike_polynomial(self, read: Callable[[], Node]) -> Node:
        """What is read here may hold no letter if the whole is to be a polynomial."""
        letters, self.letters = self.letters, set()
        node = read()
        if self.letters:
            self.polynomial = False
        self.letters |= letters
        return node

    def sum(self, depth: int, stop: str = "") -> Node:
        depth = self.deeper(depth)
        nodes = [self.product(depth, stop)]
        while sign := self.take("+", "-"):
            other = self.product(depth, stop)
            nodes.append(other if sign == "+" else negate(other))
        return fold(values.add, nodes)

    def product(self, depth: int, stop: str = "") -> Node:
        if sign := self.take("-", "+"):
            inner = self.product(self.deeper(depth), stop)
            return negate(inner) if sign == "-" else inner
        nodes = [self.power(depth, stop)]
        while True:
            if self.take(*_TIMES):
                nodes.append(self.signed(depth, stop))
            elif self.take(*_OVER):
                nodes.append(inverse(self.unlike_polynomial(lambda: self.signed(depth, stop))))
            elif self.juxtaposed(stop):
                nodes.append(self.power(depth, stop))
            else:
                return fold(values.multiply, nodes)

    def signed(self, depth: int, stop: str) -> Node:
        if self.take("-"):
            return negate(self.signed(self.deeper(depth), stop))
        return self.power(depth, stop)

    def juxtaposed(self, stop: str) -> bool:
        token = self.peek()
        if not token or token == stop or token in _CLOSERS or token in (*_TIMES, *_OVER):
            return False
        if token[0].isdigit() or token == ".":
            raise UnreadableError("a number right after a factor")
        return token not in ("\\rfloor", "\\rceil")

    def power(self, depth: int, stop: str = "") -> Node:
        return self.powers(self.atom(self.deeper(depth), stop), self.deeper(depth))

    def powers(self, node: Node, depth: int) -> Node:
        """Takes exponents, factorials and degrees after an atom; exponents bind to the right."""
        while True:
            if self.take("!"):
                node = self.outside(node, values.factorial)
            elif self.take("^"):
                if degrees := _DEGREES.match(self.text, self.at):
                    self.at = degrees.end()
                    node = fold(values.multiply, [node, DEGREE])
                    continue
                node = self.raised(node, depth)
            else:
                return node

    def outside(self, node: Node, function: Callable[[Value], Value]) -> Node:
        if self.letters:
            self.polynomial = False
        return lambda letters: function(node(letters))

    def raised(self, base: Node, depth: int) -> Node:
        before, self.letters = self.letters, set()
        exponent = self.exponent(self.deeper(depth))
        if self.letters:
            self.polynomial = False
        elif before:
            number = values.integer(exponent(lambda name: Fraction(1)))
            self.polynomial &= number is not None and number >= 0
        self.letters |= before
        return lambda letters: values.power(base(letters), exponent(letters))

    def exponent(self, depth: int) -> Node:
        if self.take("{"):
            return self.closed(depth, "}")
        if sign := self.take("-", "+"):
            inner = self.exponent(self.deeper(depth))
            return negate(inner) if sign == "-" else inner
        node = self.atom(depth, "")
        if self.take("^"):
            return self.raised(node, depth)
        return node

    def closed(self, depth: int, closer: str) -> Node:
        node = self.sum(depth, closer)
        self.need(closer)
        return node

    def atom(self, depth: int, stop: str) -> Node:
        depth = self.deeper(depth)
        token = self.peek()
        if token in ("(", "{", "["):
            self.take(token)
            return self.closed(depth, {"(": ")", "{": "}", "[": "]"}[token])
        if token == "|" and stop != "|":
            self.take("|")
            return self.outside(self.closed(depth, "|"), values.absolute)
        if token.startswith("\\"):
            return self.command(depth, stop)
        if token and (token.isdigit() or token == "."):
            return self.number(depth)
        if token.isalpha() and token.isascii():
            return self.word(depth, stop)
        raise UnreadableError(f"{token!r} is not read" if token else "an expression ends too early")

    def number(self, depth: int) -> Node:
        found = _NUMBER.match(self.text, self.at)
        if not found:
            raise UnreadableError("a stray point")
        text = found[0]
        self.at = found.end()
        if scientific := _SCIENTIFIC.match(self.text, self.at):
            power = int(scientific[0][1:])
            if abs(power) > 5_000:
                raise UnreadableError("too large an exponent")
            self.at = scientific.end()
            return constant(values.real(Fraction(text) * Fraction(10) ** power))
        whole = values.real(Fraction(text))
        if "." not in text and self.peek() in ("\\frac", "\\dfrac", "\\tfrac", "\\cfrac"):
            return self.mixed(whole, depth)
        if self.take("_"):
            raise UnreadableError("a number with an index")
        return constant(whole)

    def mixed(self, whole: Value, depth: int) -> Node:
        """A whole number right before a fraction of whole numbers is a mixed number, never a product."""
        start, before = self.at, set(self.letters)
        self.take("\\frac", "\\dfrac", "\\tfrac", "\\cfrac")
        top, bottom = self.argument(depth), self.argument(depth)
        if self.letters == before:
            none: Callable[[str], Fraction] = letter_missing
            n, d = values.integer(top(none)), values.integer(bottom(none))
            if n is not None and d is not None and n >= 0 and d > 0:
                if n >= d:
                    raise UnreadableError("a mixed number or a product")
                return constant(values.add(whole, values.real(Fraction(n, d))))
        self.at, self.letters = start, before
        return constant(whole)

    def argument(self, depth: int, *, digits: bool = False) -> Node:
        r"""What a command takes: a group, or the next sign alone (``\frac34``); with ``digits`` a whole number."""
        if self.take("{"):
            return self.closed(self.deeper(depth), "}")
        token = self.peek()
        if token.isdigit() and not digits:
            self.at += 1
            return constant(values.real(int(token)))
        return self.atom(self.deeper(depth), "")

    def command(self, depth: int, stop: str) -> Node:
        token = self.peek()
        self.at += len(token)
        name = token[1:]
        if name in ("frac", "dfrac", "tfrac", "cfrac"):
            top = self.argument(depth)
            return fold(values.multiply, [top, inverse(self.unlike_polynomial(lambda: self.argument(depth)))])
        if name == "sqrt":
            return self.root(depth)
        if name in ("binom", "dbinom", "tbinom"):
            top, bottom = self.argument(depth), self.argument(depth)
            self.polynomial &= not self.letters
            return lambda letters: values.binomial(top(letters), bottom(letters))
        if name in ("lfloor", "lceil"):
            inner = self.sum(depth)
            self.need("\\r" + name[1:])
            return self.outside(inner, functools.partial(values.rounded, up=name == "lceil"))
        if name == "pi":
            return constant((values.PI, values.ZERO))
        if name in values.FUNCTIONS:
            return self.function(name, depth, stop)
        if name in _GREEK:
            return self.letter(token)
        raise UnreadableError(f"{token} is not read")

    def root(self, depth: int) -> Node:
        degree = 2
        if self.take("["):
            order = values.integer(self.closed(depth, "]")(letter_missing))
            if order is None:
                raise UnreadableError("a root of no whole degree")
            degree = order
        inner = self.unlike_polynomial(lambda: self.argument(depth, digits=True))
        return lambda letters: values.root(inner(letters), degree)

    def word(self, depth: int, stop: str) -> Node:
        found = _WORD.match(self.text, self.at)
        word = found[0] if found else ""
        for name in ("sqrt", *_PLAIN):
            if word.startswith(name) and (name != "log" or not word.startswith("logic")):
                self.at += len(name)
                if name == "sqrt":
                    return self.root(depth)
                if name == "pi":
                    return constant((values.PI, values.ZERO))
                return self.function(_PLAIN[name], depth, stop)
        self.at += 1
        if word[0] == "i" and self.peek() != "_":
            return constant((values.ZERO, Fraction(1)))
        if word[0] == "e" and self.peek() != "_":
            return lambda letters: values.exponential(values.real(1))
        return self.letter(word[0])

    def letter(self, name: str) -> Node:
        if self.take("_"):
            index = _INDEX.match(self.text, self.at)
            if not index:
                raise UnreadableError("an index that is not read")
            self.at = index.end()
            name = f"{name}_{index[1] or index[2]}"
        if self.text[self.at : self.at + 1] == "'":
            raise UnreadableError("a derivative")
        self.letters.add(name)
        return lambda letters: (letters(name), values.ZERO)

    def function(self, name: str, depth: int, stop: str) -> Node:
        depth = self.deeper(depth)
        base: Node | None = None
        if name == "log" and self.take("_"):
            base = self.unlike_polynomial(lambda: self.argument(depth, digits=True))
        exponent: Node | None = None
        if self.take("^"):
            exponent = self.exponent(depth)
            if values.integer(exponent(letter_missing)) == -1:
                raise UnreadableError("an inverse or a reciprocal")
        apply = values.FUNCTIONS["ln" if base else name]
        inner = self.unlike_polynomial(lambda: self.operand(depth, stop))

        def node(letters: Callable[[str], Fraction]) -> Value:
            result = apply(inner(letters))
            if base is not None:
                result = values.multiply(result, values.invert(values.logarithm(base(letters))))
            return result if exponent is None else values.power(result, exponent(letters))

        return node

    def operand(self, depth: int, stop: str) -> Node:
        """Brackets alone, or a product up to the next sign or function: sin 2x cos y is sin(2x) · cos(y)."""
        if self.peek() in ("(", "{"):
            return self.power(depth, stop)
        node = self.power(depth, stop)
        while self.juxtaposed(stop) and self.peek()[1:] not in values.FUNCTIONS and self.peek() not in ("(", "["):
            node = fold(values.multiply, [node, self.power(depth, stop)])
        return node


_PLAIN = {
    "pi": "pi",
    "asin": "arcsin",
    "acos": "arccos",
    "atan": "arctan",
    **{name: name for name in sorted(values.FUNCTIONS, key=len, reverse=True)},
}
