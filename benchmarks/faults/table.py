"""Every fault of the suite, by name: the one list that the tests and the benchmark go through."""

from __future__ import annotations

from benchmarks.faults import (
    accounts,
    damage,
    endpoints,
    foreign_files,
    guards,
    interruptions,
    judges,
    leaks,
    mutants,
    records,
    resume,
    untrusted,
)
from benchmarks.faults.trial import Fault

FAULTS: tuple[Fault, ...] = (
    *resume.FAULTS,
    *interruptions.FAULTS,
    *damage.FAULTS,
    *guards.FAULTS,
    *mutants.FAULTS,
    *records.FAULTS,
    *endpoints.FAULTS,
    *accounts.FAULTS,
    *judges.FAULTS,
    *untrusted.FAULTS,
    *foreign_files.FAULTS,
    *leaks.FAULTS,
)
"""In the order of the report."""
