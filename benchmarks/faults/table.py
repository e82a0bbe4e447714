"""Every fault of the suite, by name: the one list that the tests and the benchmark go through."""

from __future__ import annotations

from benchmarks.faults.trial import Fault

FAULTS: tuple[Fault, ...] = ()
"""In the order of the report."""
