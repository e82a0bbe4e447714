"""Every family's small configs, found in ``tests/conversion/families``."""

from __future__ import annotations

import importlib
import pathlib
from typing import Any, NamedTuple

_DIRECTORY = pathlib.Path(__file__).with_name("families")


class Case(NamedTuple):
    """One small model."""

    module: str
    attributes: dict[str, Any]
    oracle: dict[str, Any] | None
    """What transformers is told beside the directory; None where transformers has no such model."""
    first: bool
    """Whether it is the first of its module, which stands for the family where one is enough."""


def _found() -> dict[str, Case]:
    cases = {}
    for path in sorted(_DIRECTORY.glob("*.py")):
        module = importlib.import_module(f"tests.conversion.families.{path.stem}")
        oracle = getattr(module, "ORACLE", {})
        for i, (name, attributes) in enumerate(module.CASES.items()):
            assert name not in cases, f"two cases are called {name}"
            cases[name] = Case(path.stem, attributes, oracle, i == 0)
    return cases


CASES: dict[str, Case] = _found()
FIRST = [name for name, case in CASES.items() if case.first]
KNOWN_TO_TRANSFORMERS = [name for name, case in CASES.items() if case.oracle is not None]
FIRST_KNOWN = [name for name in FIRST if name in KNOWN_TO_TRANSFORMERS]
