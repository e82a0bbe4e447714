"""Answers, pickles and files as somebody who means harm would write them; what runs leaves a canary behind."""

from __future__ import annotations

import os
import pathlib
import pickle
from typing import Any

from tests.conversion.checkpoints import call, tensor, text

CANARY = "canary-that-was-run"

ANSWERS = (
    # nesting
    "(" * 5000 + "1" + ")" * 5000,
    "{" * 5000,
    "[" * 900 + "]" * 900,
    "(1," * 300 + "2" + ")" * 300,
    "((a,b)," * 200,
    r"\frac{1}{" * 150 + "2" + "}" * 150,
    r"\sqrt{" * 300 + "2" + "}" * 300,
    r"\boxed{" * 300 + "1" + "}" * 300,
    r"\text{" * 300 + "a" + "}" * 300,
    r"\left(" * 300 + "1" + r"\right)" * 300,
    r"\{" * 500 + r"\}" * 500,
    "|1|" * 300,
    "-" * 400 + "1",
    # towers
    "9^9^9",
    "9^{9^{9^9}}",
    "9**9**9**9",
    "10^{10^{10}}",
    "2^{" * 30 + "2" + "}" * 30,
    "e^{e^{e^{e^{10}}}}",
    "x^" * 500 + "2",
    "(x+y+z)^{10000}",
    "x^{1000}y^{1000}z^{1000}" * 10,
    "2^{1000000000}",
    r"\sqrt[9999999]{2^{9999999}}",
    # factorials, binomials, series, huge arguments
    "100000!",
    "((9!)!)!",
    "9!!!!!!",
    r"\binom{1000000}{500000}",
    r"\binom{400}{200}^{9999}",
    r"\binom{\binom{99}{49}}{\binom{98}{48}}",
    r"\sum_{k=1}^{10^{12}} k!",
    r"\prod_{k=1}^{10^9} k",
    r"\sin(10^{100000})",
    r"\int_0^{\infty} e^{-x^{x^{x}}} dx",
    r"\lim_{n \to \infty} \left(1 + \frac{1}{n}\right)^{n^{n}}",
    # size
    "1" * 200_000,
    "0." + "3" * 200_000,
    "1e" + "9" * 1000,
    "x" * 1_000_000,
    "a " * 500_000,
    "-" + " " * 1_000_000 + "1",
    "1+" * 900 + "1",
    "1," * 900,
    "1=" * 900 + "1",
    "1:" * 700,
    r"\pm " * 400,
    "[1,2]\\cup" * 150 + "[3,4]",
    r"\begin{pmatrix}" + "1&" * 600 + r"1\end{pmatrix}",
    r"\sin " * 200 + "x",
    r"\frac" * 300,
    "1/" * 500 + "1",
    "$" * 2000,
    "\\" * 2000,
    # code
    f"__import__('os').system('touch {CANARY}')",
    f"open('{CANARY}', 'w')",
    f"exec(\"open('{CANARY}', 'w')\")",
    f'eval(\'__import__("os").mkdir("{CANARY}")\')',
    f"[c for c in ().__class__.__bases__[0].__subclasses__()][-1].__init__.__globals__['open']('{CANARY}','w')",
    "().__class__.__bases__[0].__subclasses__()",
    "x.__class__.__mro__[1]",
    "lambda: 1",
    r"\input{/etc/passwd}",
    rf"\write18{{touch {CANARY}}}",
    r"\newcommand{\x}{\x\x}\x",
    r"\def\a{\a\a}\a",
    rf"\text{{__import__('os').mkdir('{CANARY}')}}",
    rf"\operatorname{{exec}}(open('{CANARY}','w'))",
    rf"\mathrm{{eval}}(open('{CANARY}','w'))",
    "sympify('1')",
    "{{7*7}}",
    "%s%n",
    # characters
    "\x00\x01\x02",
    "\ud800",
    "а + б",  # Cyrillic
    "⁹⁹⁹",
    "١٢٣",  # Arabic digits
    "1\u202e2",
    "𝟏𝟐",
    "0^0",
    r"\infty - \infty",
    "nan",
)
"""As a hostile or broken model might give them."""


class Attack:
    """Pickles to a call."""

    def __init__(self, function: Any, *arguments: Any) -> None:
        self.reduced = function, arguments

    def __reduce__(self) -> Any:
        return self.reduced


def pickles(canary: pathlib.Path) -> dict[str, tuple[bytes, str]]:
    """Programs that try to run something, with the name that the refusal must give."""
    touch = f"touch {canary}"
    code = f"open({str(canary)!r}, 'w').close()"
    system = f"{os.system.__module__}.system"
    one = tensor("0", "Float", 1, 0, (1,), (1,))
    return {
        **{
            f"os.system, protocol {protocol}": (pickle.dumps({"a": Attack(os.system, touch)}, protocol), system)
            for protocol in range(6)
        },
        "exec": (pickle.dumps(Attack(exec, code), 2), "__builtin__.exec"),
        "eval by stack": (b"\x80\x04" + b"\x8c\x08builtins\x8c\x04eval\x93" + text(code) + b"\x85R.", "builtins.eval"),
        "os.system by INST": (b"(" + text(touch) + b"ios\nsystem\n.", "os.system"),
        "os.system by OBJ": (b"\x80\x02(cos\nsystem\n" + text(touch) + b"o.", "os.system"),
        "an extension code": (b"\x80\x02\x82\x01.", "EXT1"),
        "a new object": (b"\x80\x02ccollections\nOrderedDict\n)\x81.", "NEWOBJ"),
        "a persistent id by text": (b"Pos.system\n.", "PERSID"),
        "a module's attribute": (call("collections", "namedtuple", b")") + b".", "collections.namedtuple"),
        "a dotted path": (b"\x80\x04" + text("collections") + text("OrderedDict.__init__") + b"\x93.", "__init__"),
        "a storage's module": (
            call("torch.storage", "_load_from_bytes", b")") + b".",
            "torch.storage._load_from_bytes",
        ),
        "another constructor": (
            call("torch._utils", "_rebuild_parameter", b")") + b".",
            "torch._utils._rebuild_parameter",
        ),
        "numpy's constructor": (
            call("numpy.core.multiarray", "_reconstruct", b")") + b".",
            "numpy.core.multiarray._reconstruct",
        ),
        "torch.load": (call("torch", "load", text(str(canary)) + b"\x85") + b".", "torch.load"),
        "after a good tensor": (
            b"\x80\x02}(" + text("a") + one + text("b") + call("os", "system", text(touch) + b"\x85") + b"u.",
            "os.system",
        ),
    }


def module(canary: str) -> str:
    """The text of a Python module that leaves the canary behind when it is imported."""
    classes = "".join(f"class {name}: pass\n" for name in ("Model", "Config", "Tokenizer"))
    return f"import pathlib\npathlib.Path({canary!r}).touch()\n{classes}"


def template(canary: str) -> str:
    """A chat template that leaves the canary behind where a template engine lets it reach Python."""
    return (
        "{{ cycler.__init__.__globals__.os.system('touch " + canary + "') }}{% for m in messages %}{{ m }}{% endfor %}"
    )


YAML = """base: &a [x, x, x, x, x, x, x, x, x]
more: &b [*a, *a, *a, *a, *a, *a, *a, *a, *a]
much: &c [*b, *b, *b, *b, *b, *b, *b, *b, *b]
run: !!python/object/apply:os.system ["touch {canary}"]
"""
"""What no part of the library reads: it has no YAML."""
