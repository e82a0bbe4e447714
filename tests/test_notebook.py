"""The notebook runs from its first cell to its last, goes on, and refuses a CPU beside an idle accelerator."""

from __future__ import annotations

import json
import os
import pathlib
import shlex
import stat
from typing import Any

import nbformat
import pytest
from nbclient import NotebookClient

from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import write_candidates
from tests.evaluation.tiny_model import save_tiny_model

ROOT = pathlib.Path(__file__).parent.parent
NOTEBOOK = ROOT / "benchmarks" / "loss_variants.ipynb"
SMALL = (
    "--only dpo --seeds 0 --steps 2 --groups-per-step 2 --num-train 12 --num-held-out 4 --num-base-samples 2 "
    "--num-votes 2 --num-resamples 50"
)
OWN = "--only reward_logistic --seeds 0 --steps 2 --groups-per-step 2 --num-resamples 50 --slots 64"


def cells() -> dict[str, Any]:
    return {cell["id"]: cell for cell in nbformat.read(NOTEBOOK, 4).cells}


def text_of(cell: Any) -> str:
    """All that a cell showed, as text."""
    shown = []
    for output in cell.outputs:
        shown.append(output.get("text", ""))
        shown += [output.get("data", {}).get(kind, "") for kind in ("text/plain", "text/html", "text/markdown")]
    return "\n".join(shown)


def images_of(cell: Any) -> int:
    return sum("image/png" in output.get("data", {}) for output in cell.outputs)


@pytest.mark.slow
def test_the_notebook_runs_and_goes_on_where_it_was(tmp_path: pathlib.Path):
    model = save_tiny_model(tmp_path / "tiny")
    file = tmp_path / "own.jsonl"
    rows = [Candidates(f"own-{n}", f"{n}+1?\n", (f"#### {n + 1}", f"#### {n}"), (0.7, 0.2)) for n in range(12)]
    write_candidates(file, rows)
    lengths = "--lengths.prompt 32 --lengths.response 16"
    settings = {
        "FLAGS": SMALL,
        "WORKDIR": "shipped",
        "OWN_MODEL": str(model),
        "OWN_CANDIDATES": str(file),
        "OWN_FLAGS": f"{OWN} {lengths}",
        "OWN_WORKDIR": "own",
    }
    notebook = nbformat.read(NOTEBOOK, 4)
    again = nbformat.v4.new_code_cell(cells()["run"].source, id="again")
    notebook.cells.append(again)
    one_device = " ".join(flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag)
    environment = os.environ | {"XLA_FLAGS": one_device}  # as a laptop has
    environment |= {"PYTHONPATH": str(ROOT), "JAXREFINE_NOTEBOOK": json.dumps(settings)}
    client = NotebookClient(notebook, timeout=900, resources={"metadata": {"path": str(tmp_path)}})
    client.execute(env=environment)

    done = {cell["id"]: cell for cell in notebook.cells}
    assert "jaxrefine" in text_of(done["device"])
    assert "2 of 2 runs" in text_of(done["run"])
    assert "<td>dpo</td>" in text_of(done["run"])
    assert images_of(done["run"]) == 1
    assert images_of(done["report"]) == images_of(done["own"]) - 1 == 3
    assert "## Differences from mle" in text_of(done["report"])
    assert "reward_logistic" in text_of(done["own"])
    assert "2 of 2 runs" in text_of(done["again"])
    assert (tmp_path / "shipped" / "05-variants" / "units.jsonl").read_text().count('"variant"') == 2
    metrics = json.loads((tmp_path / "shipped" / "06-report" / "metrics.json").read_text())
    assert set(metrics["variants"]) == {"start", "mle", "dpo"}


def test_the_notebook_is_committed_without_outputs():
    for cell in cells().values():
        assert not cell.get("outputs")
        assert cell.get("execution_count") is None


def test_the_one_install_line_pins_what_is_there():
    lines = [line.strip() for cell in cells().values() for line in cell.source.splitlines()]
    assert [line for line in lines if line.startswith(("%pip", "!pip"))] == ["%pip install -q {SOURCE} {PINS}"]
    source = cells()["install"].source.replace("%pip install -q {SOURCE} {PINS}", "pass")
    found: dict[str, Any] = {}
    exec(source, found)
    assert {pin.partition("==")[0] for pin in shlex.split(found["PINS"])} == {"jax", "jaxlib", "flax", "numpy"}


def test_a_setting_that_the_notebook_does_not_have_is_named(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("JAXREFINE_NOTEBOOK", json.dumps({"FLAG": ""}))
    with pytest.raises(NameError, match="no setting 'FLAG'"):
        exec(cells()["parameters"].source, {})


@pytest.mark.slow
def test_an_attached_gpu_that_jax_does_not_use_is_an_error(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    program = tmp_path / "nvidia-smi"
    program.write_text("#!/bin/sh\necho 'GPU 0: Some Card (UUID: GPU-1)'\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", str(tmp_path), prepend=os.pathsep)
    found: dict[str, Any] = {"json": json, "os": os}
    exec(cells()["device"].source, found)  # the tests ask for the CPU: JAX_PLATFORMS=cpu
    assert "x cpu" in capsys.readouterr().out
    attached, device = found["accelerators"](), found["probe"]()
    assert attached[0] == "GPU 0: Some Card"
    with pytest.raises(RuntimeError, match="attached: GPU 0: Some Card.*; but JAX computes on the CPU"):
        found["check_device"](attached, device, None)
    turing = {**device, "platform": "gpu", "capability": "7.5"}
    assert found["check_device"](attached, turing, None) == ["--dtype", "float32"]
    assert found["check_device"](attached, {**turing, "capability": "9.0"}, None) == []
