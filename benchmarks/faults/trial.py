"""One fault, injected many times: what counts as passed, how often it was, and the bound that this many trials give."""

from __future__ import annotations

import dataclasses
import pathlib
import shutil
import statistics
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
from scipy import stats


@dataclasses.dataclass(frozen=True, kw_only=True)
class Outcome:
    """What one trial came to."""

    passed: bool
    detail: str = ""
    """Of a trial that did not pass: what was seen, in a line."""
    figures: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Named quantities of this trial, units in their names, such as ``{"lost_steps": 1.0}``; medians and the largest
    are reported."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Fault:
    """One fault and what withstanding it means."""

    name: str
    """Short and stable, such as "T5"."""
    title: str
    criterion: str
    """What every trial must hold, in a line."""
    trial: Callable[[Any, np.random.Generator, pathlib.Path], Outcome]
    """(what ``prepare`` made, the trial's own generator, an empty directory) -> outcome. An exception is a failure."""
    prepare: Callable[[pathlib.Path], Any] = lambda directory: None
    """(an empty directory) -> what all trials share; made once."""
    num_trials: int
    """Of the full form."""
    num_fast: int = 5
    """Of the form that the tests run."""
    baseline: str = ""
    """What a peer was measured to do, marked as measured or published; empty where nobody measured."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Result:
    """All trials of one fault."""

    fault: Fault
    num_trials: int
    failures: tuple[str, ...]
    """"trial 17: what was seen", one a failed trial."""
    figures: Mapping[str, tuple[float, float]]
    """{name: (median, largest)} over the trials that report it."""
    seconds: float

    @property
    def num_passed(self) -> int:
        """Trials that held the criterion."""
        return self.num_trials - len(self.failures)

    @property
    def failure_bound(self) -> float:
        """Upper end of the 95 % Clopper-Pearson interval of the share of failures, one-sided.

        0 failures in 300 bound it by 1 %.
        """
        failed = len(self.failures)
        test = stats.binomtest(failed, self.num_trials, alternative="less")
        return float(test.proportion_ci(confidence_level=0.95, method="exact").high)


def run(
    fault: Fault,
    directory: pathlib.Path,
    *,
    num_trials: int | None = None,
    seed: int = 0,
    on_trial: Callable[[], object] = lambda: None,
) -> Result:
    """Injects a fault ``num_trials`` times (the full form by default); trial i draws from (seed, the fault, i).

    Args:
        fault: what to inject.
        directory: for what the trials write; made anew, one directory a trial.
        num_trials: instead of the fault's own number.
        seed: of all draws.
        on_trial: called after each trial.
    """
    number = fault.num_trials if num_trials is None else num_trials
    start = time.monotonic()
    shared = directory / "shared"
    shared.mkdir(parents=True)
    prepared = fault.prepare(shared)
    failures: list[str] = []
    figures: dict[str, list[float]] = {}
    for index in range(number):
        place = directory / f"trial{index}"
        place.mkdir()
        generator = np.random.default_rng([seed, *fault.name.encode(), index])
        try:
            outcome = fault.trial(prepared, generator, place)
        except Exception as error:  # an unforeseen error is the very thing a fault must not lead to
            outcome = Outcome(passed=False, detail=f"{type(error).__name__}: {error}")
        if not outcome.passed:
            failures.append(f"trial {index}: {outcome.detail}")
        shutil.rmtree(place, ignore_errors=True)  # a thousand trials leave a hundred thousand files
        for name, value in outcome.figures.items():
            figures.setdefault(name, []).append(value)
        on_trial()
    spread = {name: (statistics.median(values), max(values)) for name, values in figures.items()}
    return Result(
        fault=fault, num_trials=number, failures=tuple(failures), figures=spread, seconds=time.monotonic() - start
    )
