"""Each fault of the suite, injected a few times: the full numbers come from ``python -m benchmarks.faults``."""

from __future__ import annotations

import pathlib

import pytest

from benchmarks.faults.table import FAULTS
from benchmarks.faults.trial import Fault, run


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.name)
def test_fault_is_withstood(fault: Fault, tmp_path: pathlib.Path) -> None:
    result = run(fault, tmp_path / fault.name, num_trials=fault.num_fast)
    assert result.num_trials == fault.num_fast > 0
    assert not result.failures, "\n".join(result.failures)
