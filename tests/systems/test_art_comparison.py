"""ART runs side by side: seeds of one setting are drawn again with the queries, and runs that differ are refused."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from jaxrefine import config
from jaxrefine.artefacts.stages import run_stages
from jaxrefine.systems.art_compared import Finished, compared

RIGHT = {"none": [1, 0, 0, 0], "always": [1, 1, 1, 0], "asker": [1, 1, 0, 0], "art": [1, 1, 1, 1]}
"""Which of four queries each method has right."""
REFINED = {"none": (0.0, None), "always": (1.0, None), "asker": (0.5, None), "art": (0.5, 0.25)}
"""Shares refined and reverted."""


def finished(
    seed: int, right: dict[str, list[int]] = RIGHT, *, ids: str = "abcd", area: float | None = 0.5
) -> Finished:
    rows = {name: {"share_refined": REFINED[name][0], "share_reverted": REFINED[name][1]} for name in right}
    detection = {"precision": 0.5, "recall": 0.25, "area": area, "truster": None}
    costs = [{"phase": "inference", "role": "ART, the whole", "flops": 1000.0 * (seed + 1)}]
    metrics = {
        "refinements": [{"rows": rows, "detection": detection}],
        "costs": costs,
        "facts": {"roles": "ψ 2M, Asker 1M"},
    }
    return Finished(metrics, {"seed": seed, "ids": list(ids), "right": right})


def written(directory: pathlib.Path, run: Finished) -> str:
    (directory / "10-report").mkdir(parents=True)
    (directory / "10-report" / "metrics.json").write_text(json.dumps(run.metrics))
    (directory / "10-report" / "finals.json").write_text(json.dumps(run.finals))
    return str(directory)


def test_a_setting_is_the_mean_of_its_seeds_and_an_ablation_differs_query_by_query():
    second = RIGHT | {"asker": [1, 1, 1, 1]}
    own = RIGHT | {"asker": [0, 0, 0, 0]}
    found = compared({"tiny": [finished(0, area=0.75), finished(1, second)], "own": [finished(1, own, area=None)]})
    tiny, ablation = found["tiny"], found["own"]
    assert (tiny.seeds, ablation.seeds) == ((0, 1), (1,))
    assert (tiny.rows["asker"].accuracy.value, tiny.rows["asker"].each) == (0.75, (0.5, 1.0))
    assert (tiny.rows["art"].share_refined, tiny.rows["art"].share_reverted) == (0.5, 0.25)
    # The run of seed 1 alone is what the ablation, of that seed too, is compared with: 0 of 4 against 4 of 4.
    assert ablation.num_paired == 1
    assert (ablation.differences["asker"].value, ablation.differences["asker"].high) == (-1.0, -1.0)
    assert ablation.differences["art"].value == 0.0
    assert (tiny.differences, tiny.num_paired) == ({}, 0)
    # Right of eight: 6 by the Asker, 6 by always refining, 8 by the whole.
    assert tiny.contrasts["does deciding pay?"].value == 0.0
    assert tiny.contrasts["does the Truster pay?"].value == 0.25
    assert "one refinement, or the vote?" not in tiny.contrasts
    assert tiny.figures == {"precision": 0.5, "recall": 0.25, "area": 0.625, "truster": None}
    assert ablation.figures["area"] is None
    assert tiny.flops == {"inference: ART, the whole": 1500.0}


def test_the_interval_of_seeds_that_agree_on_every_query_is_that_of_the_queries():
    one, three = (compared({"tiny": [finished(seed) for seed in range(num)]})["tiny"] for num in (1, 3))
    for method in RIGHT:
        low, high = three.rows[method].accuracy.low, three.rows[method].accuracy.high
        assert (low, high) == (one.rows[method].accuracy.low, one.rows[method].accuracy.high)


def test_without_a_common_seed_nothing_is_said_of_the_difference():
    found = compared({"tiny": [finished(0)], "own": [finished(1)]})["own"]
    assert (found.differences, found.num_paired) == ({}, 0)


def test_the_report_has_every_setting_across(tmp_path, capsys):
    runs = [f"tiny={written(tmp_path / str(seed), finished(seed))}" for seed in (0, 1)]
    runs.append(f"own outputs={written(tmp_path / 'own', finished(0))}")
    job = dataclasses.replace(config.load("art/comparison"), runs=tuple(runs), num_resamples=50)
    run_stages(job.stages(), tmp_path / "run", job)
    lines = (tmp_path / "run" / "01-report" / "report.md").read_text().splitlines()
    assert "- **tiny**: seed 0, 1; ψ 2M, Asker 1M" in lines
    assert "| method | tiny (2 runs) | own outputs |" in lines
    assert "| method | own outputs |" in lines  # against tiny
    assert any(line.startswith("| Asker | 50.0 [") and "; 50.0, 50.0 |" in line for line in lines)
    assert "| Asker | +0.0 [+0.0, +0.0] |" in lines
    assert "| Asker + Truster (ART) | 50, 25 | 50, 25 |" in lines
    assert "| Asker: area under ROC | 50.0 | 50.0 |" in lines
    assert "| inference: ART, the whole | 1.5e+03 | 1e+03 |" in lines
    record = json.loads((tmp_path / "run" / "01-report" / "metrics.json").read_text())
    assert record["tiny"]["rows"]["none"]["accuracy"]["value"] == 0.25
    assert "always refine" in capsys.readouterr().out


def test_runs_that_cannot_be_compared_are_refused(tmp_path):
    job = config.load("art/comparison")
    with pytest.raises(ValueError, match="give yours with --runs NAME=WORKDIR"):
        job.stages()
    with pytest.raises(ValueError, match="NAME=WORKDIR is wanted"):
        dataclasses.replace(job, runs=("somewhere",)).stages()
    with pytest.raises(ValueError, match="there is no finished run in .*empty: no report in it"):
        dataclasses.replace(job, runs=(f"a={tmp_path / 'empty'}",)).stages()
    older = written(tmp_path / "older", finished(0))
    (tmp_path / "older" / "10-report" / "finals.json").unlink()
    with pytest.raises(ValueError, match="10-report has no finals.json, .*; remove that directory and run again"):
        dataclasses.replace(job, runs=(f"a={older}",)).stages()
    with pytest.raises(ValueError, match="own: its runs were not measured on the queries of tiny"):
        compared({"tiny": [finished(0)], "own": [finished(0, ids="abce")]})
    with pytest.raises(ValueError, match="tiny: its runs were not measured alike: they differ in methods"):
        compared({"tiny": [finished(0), finished(1, {"none": [1, 0, 0, 0]})]})
    with pytest.raises(ValueError, match="tiny: seed 0 is there twice; another run is --seed N"):
        compared({"tiny": [finished(0), finished(0)]})
