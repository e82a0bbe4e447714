"""Arithmetic for answers: rational numbers exactly, everything else to 90 digits, nothing without a bound.

A value is a pair (real, imaginary); each part is a `Fraction` while it is exact and a `Decimal` after that. Every
operation refuses what would grow or lose digits (`UnreadableError`), so that no answer can take long or much memory.
"""

from __future__ import annotations

import contextlib
import decimal
import math
from collections.abc import Callable, Iterator
from decimal import Decimal
from fractions import Fraction

Part = Fraction | Decimal
Value = tuple[Part, Part]

ZERO: Fraction = Fraction(0)
MAX_BITS = 40_000
MAX_EXPONENT = 10_000
MAX_FACTORIAL = 400
MAX_ROOT = 64
_PRECISION = 90
_LARGEST = Decimal(10) ** 40
_NOISE = Decimal(10) ** -75
_RATIONAL = Decimal(10) ** -60
_MAX_DENOMINATOR = 10**15
PI = Decimal(
    "3.14159265358979323846264338327950288419716939937510582097494459230781640628620899862803482534211706798214808651"
)

DEGREE = decimal.Context(prec=_PRECISION).divide(PI, Decimal(180))
"""One degree in radians."""


class UnreadableError(ValueError):
    """The text is no expression of this grammar, or too big to be worked out here."""


@contextlib.contextmanager
def precise() -> Iterator[None]:
    """Decimal arithmetic of this thread to 90 digits; overflow, 0/0 and the like become `UnreadableError`."""
    traps = [decimal.InvalidOperation, decimal.DivisionByZero, decimal.Overflow]
    with decimal.localcontext(decimal.Context(prec=_PRECISION, Emax=10_000, Emin=-10_000, traps=traps)):
        try:
            yield
        except (ArithmeticError, RecursionError) as error:
            raise UnreadableError(type(error).__name__) from error


def real(part: Part | int) -> Value:
    """A real number as a value."""
    return (Fraction(part) if isinstance(part, int) else part, ZERO)


def exact(value: Value) -> Fraction | None:
    """The rational number that a value is, or None."""
    part, imaginary = value
    return part if isinstance(part, Fraction) and imaginary == 0 and isinstance(imaginary, Fraction) else None


def integer(value: Value) -> int | None:
    """The whole number that a value is, or None."""
    number = exact(value)
    return int(number) if number is not None and number.denominator == 1 else None


def approximate(part: Part) -> Decimal:
    """A part as a Decimal; numbers beyond 10^±40 would swallow what is added to them."""
    if isinstance(part, Decimal):
        return part
    if not part:
        return Decimal(0)
    if abs(part.numerator.bit_length() - part.denominator.bit_length()) > 130:
        raise UnreadableError("a number is too large or too small beside an irrational one")
    return _whole(part.numerator) / _whole(part.denominator)


def _whole(number: int) -> Decimal:
    if number.bit_length() > 4_000:
        raise UnreadableError("too many digits beside an irrational number")
    return Decimal(number)


def _sized(part: Part) -> Part:
    if isinstance(part, Fraction):
        if max(part.numerator.bit_length(), part.denominator.bit_length()) > MAX_BITS:
            raise UnreadableError("too many digits")
    elif abs(part) > _LARGEST:
        raise UnreadableError("too large an irrational number")
    return part


def _plus(a: Part, b: Part) -> Part:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _sized(a + b)
    return _sized(approximate(a) + approximate(b))


def _times(a: Part, b: Part) -> Part:
    if isinstance(a, Fraction) and isinstance(b, Fraction):
        return _sized(a * b)
    if (isinstance(a, Fraction) and not a) or (isinstance(b, Fraction) and not b):
        return ZERO
    return _sized(approximate(a) * approximate(b))


def add(a: Value, b: Value) -> Value:
    """A + b."""
    return _plus(a[0], b[0]), _plus(a[1], b[1])


def negate(a: Value) -> Value:
    """−a."""
    return -a[0], -a[1]


def multiply(a: Value, b: Value) -> Value:
    """A · b."""
    if not a[1] and not b[1]:
        return _times(a[0], b[0]), ZERO
    return (
        _plus(_times(a[0], b[0]), -_times(a[1], b[1])),
        _plus(_times(a[0], b[1]), _times(a[1], b[0])),
    )


def invert(a: Value) -> Value:
    """1 / a, for what is surely not zero."""
    if a[0] and isinstance(a[0], Fraction) and not a[1]:
        return 1 / a[0], ZERO
    size = _plus(_times(a[0], a[0]), _times(a[1], a[1]))
    if not size or (isinstance(size, Decimal) and size <= _NOISE):
        raise UnreadableError("a division by zero")
    over = 1 / size
    return _times(a[0], over), -_times(a[1], over)


def root(a: Value, degree: int) -> Value:
    """The real root where there is one (odd degrees of negative numbers too), else the principal one."""
    if not 1 <= degree <= MAX_ROOT:
        raise UnreadableError("no such root")
    return _rational_power(a, Fraction(1, degree))


def power(base: Value, exponent: Value) -> Value:
    """base^exponent: whole exponents by squaring, others by the principal logarithm of a real base."""
    number = exact(exponent)
    if number is not None and number.denominator == 1:
        return _whole_power(base, int(number))
    if number is not None:
        return _rational_power(base, number)
    if base[1] != 0:
        raise UnreadableError("a complex base with an irrational exponent")
    size = approximate(base[0])
    if abs(size) < _NOISE:
        raise UnreadableError("a power of zero")
    logarithm: Value = (abs(size).ln(), PI if size < 0 else ZERO)
    return exponential(multiply(logarithm, exponent))


def _whole_power(base: Value, exponent: int) -> Value:
    if abs(exponent) > MAX_EXPONENT:
        raise UnreadableError("too large an exponent")
    if exponent < 0:
        return invert(_whole_power(base, -exponent))
    bits = max(max(part.numerator.bit_length(), part.denominator.bit_length()) if isinstance(part, Fraction) else 1
               for part in base)  # fmt: skip
    if bits * exponent > MAX_BITS and abs(base[0]) not in (0, 1):
        raise UnreadableError("too large a power")
    result, square = real(1), base
    while exponent:
        if exponent & 1:
            result = multiply(result, square)
        exponent >>= 1
        if exponent:
            square = multiply(square, square)
    return result


def _rational_power(base: Value, exponent: Fraction) -> Value:
    degree = exponent.denominator
    if base[1] != 0:
        if degree != 2:
            raise UnreadableError("a root of a complex number")
        return _whole_power(_complex_square_root(base), exponent.numerator)
    number = base[0]
    if isinstance(number, Fraction) and degree <= MAX_ROOT:
        top, bottom = _exact_root(abs(number.numerator), degree), _exact_root(number.denominator, degree)
        if top is not None and bottom is not None:
            found = Fraction(top, bottom)
            if number >= 0:
                return _whole_power(real(found), exponent.numerator)
            if degree % 2:
                return _whole_power(real(-found), exponent.numerator)
            if degree == 2:
                return _whole_power((ZERO, found), exponent.numerator)
    size = approximate(number)
    if abs(size) < _NOISE:
        if exponent > 0:
            return real(0)
        raise UnreadableError("a division by zero")
    if degree == 2:
        half: Value = (ZERO, (-size).sqrt()) if size < 0 else (size.sqrt(), ZERO)
        return _whole_power(half, exponent.numerator)
    magnitude = _bounded_exp(abs(size).ln() * approximate(exponent))
    if size > 0:
        return magnitude, ZERO
    if degree % 2:
        return (-magnitude if exponent.numerator % 2 else magnitude), ZERO
    angle = PI * approximate(exponent)
    return magnitude * cosine(angle), magnitude * sine(angle)


def _complex_square_root(a: Value) -> Value:
    x, y = approximate(a[0]), approximate(a[1])
    size = (x * x + y * y).sqrt()
    up, over = ((size + x) / 2).sqrt(), ((size - x) / 2).sqrt()
    return up, (over if y >= 0 else -over)


def _exact_root(number: int, degree: int) -> int | None:
    """The whole root, or None: from a float's guess upwards would lose big numbers, so by bisection of bits."""
    if degree == 1 or number in (0, 1):
        return number
    if degree == 2:
        found = math.isqrt(number)
    else:
        low, high = 0, 1 << (number.bit_length() // degree + 1)
        while low < high:
            middle = (low + high + 1) // 2
            low, high = (middle, high) if middle**degree <= number else (low, middle - 1)
        found = low
    return found if found**degree == number else None


def _bounded_exp(x: Decimal) -> Decimal:
    if abs(x) > 90:
        raise UnreadableError("too large an exponential")
    return x.exp()


def exponential(a: Value) -> Value:
    """e^a, complex too."""
    size = _bounded_exp(approximate(a[0]))
    if a[1] == 0:
        return size, ZERO
    angle = approximate(a[1])
    return size * cosine(angle), size * sine(angle)


def logarithm(a: Value) -> Value:
    """The natural logarithm of a positive number."""
    x = _real_part(a)
    if x < _NOISE:
        raise UnreadableError("a logarithm of what is not positive")
    return x.ln(), ZERO


def factorial(a: Value) -> Value:
    """N! of a whole number up to `MAX_FACTORIAL`."""
    n = integer(a)
    if n is None or not 0 <= n <= MAX_FACTORIAL:
        raise UnreadableError("no factorial that is worked out here")
    return real(math.factorial(n))


def binomial(a: Value, b: Value) -> Value:
    """N over k of whole numbers up to `MAX_FACTORIAL`."""
    n, k = integer(a), integer(b)
    if n is None or k is None or not 0 <= n <= MAX_FACTORIAL or k < 0:
        raise UnreadableError("no binomial that is worked out here")
    return real(math.comb(n, k))


def absolute(a: Value) -> Value:
    """|a|, of complex numbers too."""
    if a[1] == 0:
        return (a[0] if a[0] >= 0 else -a[0]), ZERO
    return root((_plus(_times(a[0], a[0]), _times(a[1], a[1])), ZERO), 2)


def rounded(a: Value, *, up: bool) -> Value:
    """Floor or ceiling of a real number; what is within noise of a whole number is that number."""
    if a[1] != 0:
        raise UnreadableError("a complex number has no floor")
    number = a[0]
    if isinstance(number, Decimal):
        nearest = number.to_integral_value()
        number = Fraction(nearest) if abs(number - nearest) < _RATIONAL else Fraction(number)
    return real(math.ceil(number) if up else math.floor(number))


def _real_part(a: Value) -> Decimal:
    if a[1] != 0:
        raise UnreadableError("a complex argument")
    return approximate(a[0])


def sine(x: Decimal) -> Decimal:
    """Sin x by its series, reduced to one turn."""
    if abs(x) > 10**6:
        raise UnreadableError("too large an angle")
    x = x % (2 * PI)
    term = total = x
    n = 1
    while abs(term) > Decimal(10) ** -95:
        term = -term * x * x / ((n + 1) * (n + 2))
        total += term
        n += 2
    return total


def cosine(x: Decimal) -> Decimal:
    """Cos x."""
    return sine(x + PI / 2)


def _arctangent(x: Decimal) -> Decimal:
    doublings = 0
    while abs(x) > Decimal("0.05"):
        x = x / (1 + (1 + x * x).sqrt())
        doublings += 1
    term = total = x
    n = 1
    while abs(term) > Decimal(10) ** -95:
        term = -term * x * x
        total += term / (n + 2)
        n += 2
    return total * 2**doublings


def _arcsine(x: Decimal) -> Decimal:
    if abs(x) > 1:
        raise UnreadableError("no real arc")
    return PI / 2 * int(x) if abs(x) == 1 else _arctangent(x / (1 - x * x).sqrt())


def _over(top: Decimal, bottom: Decimal) -> Decimal:
    if abs(bottom) < _NOISE:
        raise UnreadableError("a pole")
    return top / bottom


_REAL: dict[str, Callable[[Decimal], Decimal]] = {
    "sin": sine,
    "cos": cosine,
    "tan": lambda x: _over(sine(x), cosine(x)),
    "cot": lambda x: _over(cosine(x), sine(x)),
    "sec": lambda x: _over(Decimal(1), cosine(x)),
    "csc": lambda x: _over(Decimal(1), sine(x)),
    "arcsin": _arcsine,
    "arccos": lambda x: PI / 2 - _arcsine(x),
    "arctan": _arctangent,
    "sinh": lambda x: (_bounded_exp(x) - _bounded_exp(-x)) / 2,
    "cosh": lambda x: (_bounded_exp(x) + _bounded_exp(-x)) / 2,
}


def _of_real(function: Callable[[Decimal], Decimal]) -> Callable[[Value], Value]:
    return lambda a: (function(_real_part(a)), ZERO)


FUNCTIONS: dict[str, Callable[[Value], Value]] = {
    "exp": exponential,
    "ln": logarithm,
    "log": lambda a: multiply(logarithm(a), invert(logarithm(real(10)))),
    **{name: _of_real(function) for name, function in _REAL.items()},
}
"""Functions of one argument. ``log`` without a base is the decimal one."""


def spell(value: Value) -> str:
    """One spelling of a value: a rational number as it is, anything else to 40 digits.

    An irrational result that agrees with a rational number of a small denominator to 60 digits is that number:
    (√3)² is 3.

    >>> spell((Fraction(6, 4), Fraction(0))), spell((Fraction(0), Fraction(2)))
    ('3/2', '0+2i')
    """
    parts = [_spell_part(part) for part in value]
    return parts[0] if parts[1] == "0" else f"{parts[0]}+{parts[1]}i"


def _spell_part(part: Part) -> str:
    if isinstance(part, Decimal):
        if abs(part) < _NOISE:
            return "0"
        near = Fraction(part).limit_denominator(_MAX_DENOMINATOR)
        if abs(approximate(near) - part) > _RATIONAL * max(Decimal(1), abs(part)):
            return f"{part:.40e}"
        part = near
    if (
        max(part.numerator.bit_length(), part.denominator.bit_length()) > 4_000
    ):  # decimal digits cost n², and are capped
        return f"{part.numerator:#x}/{part.denominator:#x}"
    return str(part)
