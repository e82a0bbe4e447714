"""ART runs side by side: one run has its own interval, several have Student's, and runs that differ are refused."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.systems.art_comparison import compared


def outcome(value: float, refined: float, reverted: float | None = None) -> dict:
    interval = {"value": value, "low": value - 0.05, "high": value + 0.05, "standard_error": 0.025}
    return {"accuracy": interval, "share_refined": refined, "share_reverted": reverted}


def finished(directory: pathlib.Path, asker: float, *, queries: int = 200) -> str:
    rows = {"none": outcome(0.4, 0.0), "asker": outcome(asker, 0.7), "art": outcome(asker - 0.1, 0.7, 0.5)}
    (directory / "10-report").mkdir(parents=True)
    record = {"refinements": [{"num_queries": queries, "rows": rows}]}
    (directory / "10-report" / "metrics.json").write_text(json.dumps(record))
    return str(directory)


def test_seeds_are_one_column_and_an_ablation_another(tmp_path):
    runs = [f"tiny={finished(tmp_path / str(n), value)}" for n, value in enumerate((0.5, 0.6, 0.7))]
    runs.append(f"own outputs={finished(tmp_path / 'own', 0.3)}")
    job = dataclasses.replace(config.load("art/comparison"), runs=tuple(runs))
    run_stages(job.stages(), tmp_path / "run", job)
    lines = (tmp_path / "run" / "01-report" / "report.md").read_text().splitlines()
    assert "| method | tiny (3 runs) | own outputs |" in lines
    # 0.6 ± t(0.975, 2 degrees) · 0.1 / √3 = 0.6 ± 4.3027 · 0.057735
    assert "| Asker | 60.0 [35.2, 84.8] | 30.0 [25.0, 35.0] |" in lines
    assert "| Asker + Truster (ART) | 70, 50 | 70, 50 |" in lines
    record = json.loads((tmp_path / "run" / "01-report" / "metrics.json").read_text())
    assert (record["tiny"]["num_runs"], record["own outputs"]["num_runs"]) == (3, 1)
    assert record["tiny"]["rows"]["none"]["accuracy"]["standard_error"] == pytest.approx(0.0, abs=1e-12)


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    job = config.load("art/comparison")
    with pytest.raises(ValueError, match="give yours with --runs NAME=WORKDIR"):
        job.stages()
    with pytest.raises(ValueError, match="NAME=WORKDIR is wanted"):
        dataclasses.replace(job, runs=("somewhere",)).stages()
    with pytest.raises(ValueError, match="there is no finished run in .*empty: no report in it"):
        dataclasses.replace(job, runs=(f"a={tmp_path / 'empty'}",)).stages()
    one, other = ({"num_queries": number, "rows": {}} for number in (200, 100))
    with pytest.raises(ValueError, match="tiny: its runs were not measured alike"):
        compared([one, other], "tiny")
