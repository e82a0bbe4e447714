"""Work over a local Ray cluster: the same bytes as here, dead workers replaced and named, errors not tried again."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Iterator

import pytest

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.examples import Instruction
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.training import runs as trained_runs
from jaxrefine.training.cluster import Cluster, WorkerLostError, on_cluster
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.grid import Axis, Grid, grid_runs, train_grid
from jaxrefine.training.loop import NonFiniteError
from jaxrefine.training.optimizer import OptimizerConfig
from jaxrefine.training.runs import FAILED, Run, run_all
from tests.evaluation.tiny_model import save_tiny_model

INSTRUCTIONS = [Instruction(str(n), f"{n}+1?", f"{n + 1}") for n in range(4)]
SFT = Finetuning(
    objective=ObjectiveConfig(mle_weight=1.0), optimizer=OptimizerConfig(schedule="constant"),
    groups_per_step=2, max_prompt=16, max_response=8, slots=32, checkpoints=None,
)  # fmt: skip
GRID = Grid(epochs=(1, 2), axes=(Axis(path="optimizer.learning_rate", values=(1e-2, 1e-3)),))


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    """Two workers of this machine, which compute as this process does."""
    ray = pytest.importorskip("ray", reason="the extra is not installed")
    ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False)
    yield Cluster(by="ray", address="local", retries=1)
    ray.shutdown()


@pytest.fixture(scope="module")
def start(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return save_tiny_model(tmp_path_factory.mktemp("start"))


def contents(directory: pathlib.Path) -> dict[str, bytes]:
    """Every file but the log of steps, which holds times."""
    files = (path for path in directory.rglob("*") if path.is_file() and path.name != "metrics.jsonl")
    return {path.relative_to(directory).as_posix(): path.read_bytes() for path in files}


def test_a_grid_over_a_cluster_leaves_the_files_of_one_run_after_the_other(cluster, start, tmp_path, monkeypatch):
    one = Placement(num_devices=1)
    monkeypatch.chdir(tmp_path)  # where the workers are not
    here, there = (
        train_grid(start, INSTRUCTIONS, SFT, GRID, pathlib.Path(name), cluster=where, placement=one)
        for name, where in (("here", None), ("there", cluster))
    )
    assert list(here) == list(there) == ["0.01 epoch 1", "0.01 epoch 2", "0.001 epoch 1", "0.001 epoch 2"]
    found = contents(tmp_path / "there")
    assert {"0.01/model/model.safetensors", "0.001/epochs/1/model.safetensors"} <= set(found)
    assert found == contents(tmp_path / "here")


def test_what_is_finished_is_not_sent_again(start, tmp_path, monkeypatch):
    runs = grid_runs(start, SFT, GRID, tmp_path, prefix="small ")
    write_json(runs[0].directory / "model" / "config.json", {})
    write_json(runs[1].directory / FAILED, {"run": "small 0.001", "reason": "a loss of NaN"})
    new = Run(name="default", start=start, config=SFT, directory=tmp_path / "default")
    sent = []
    monkeypatch.setattr(trained_runs, "on_cluster", lambda work, items, cluster, description: sent.append(list(items)))
    monkeypatch.setattr(trained_runs, "finetune", lambda *args, **options: None)
    run_all([*runs, new], INSTRUCTIONS, cluster=Cluster(by="ray"))
    assert sent == [["3/3: default"]]


def test_a_run_that_may_not_diverge_says_so_and_one_that_may_notes_it(start, tmp_path, monkeypatch):
    def diverges(*args, **options):
        raise NonFiniteError(7, {"num_bad_in_a_row": 5.0}, {})

    monkeypatch.setattr(trained_runs, "finetune", diverges)
    run = Run(name="default", start=start, config=SFT, directory=tmp_path)
    with pytest.raises(NonFiniteError):
        run_all([run], INSTRUCTIONS)
    run_all([dataclasses.replace(run, may_diverge=True)], INSTRUCTIONS)
    assert read_json(tmp_path / FAILED)["run"] == "default"
    with pytest.raises(ValueError, match="told apart by their names"):
        run_all([run, run], INSTRUCTIONS)


def test_a_dead_worker_is_replaced_and_results_keep_their_order(cluster, tmp_path, capsys):
    def dies_once(number: int) -> int:
        flag = tmp_path / "died"
        if number == 1 and not flag.exists():
            flag.touch()
            os._exit(1)
        return 10 * number

    assert on_cluster(dies_once, {"one": 1, "two": 2}, cluster) == {"one": 10, "two": 20}
    assert "one: its worker died (" in capsys.readouterr().err
    assert (tmp_path / "died").exists()


def test_an_item_whose_worker_always_dies_is_named(cluster):
    def dies(number: int) -> None:
        os._exit(1)

    with pytest.raises(WorkerLostError, match=r"trials: slow one: its worker died 2 times, last: .*cluster.retries is"):
        on_cluster(dies, {"slow one": 1}, cluster, description="trials")


def test_an_error_of_the_work_is_raised_once_with_the_items_name(cluster, tmp_path):
    def fails(number: int) -> None:
        with open(tmp_path / "tried", "a") as file:
            file.write("once ")
        raise ValueError(f"no number {number}")

    with pytest.raises(ValueError, match="no number 3") as caught:
        on_cluster(fails, {"the third": 3}, cluster, description="trials")
    assert caught.value.__notes__ == ["in trials: the third; what is finished is kept: the same command goes on"]
    assert (tmp_path / "tried").read_text() == "once "


def test_a_machine_that_lacks_the_files_is_named(cluster, tmp_path):
    run = Run(name="lost", start=tmp_path / "nowhere", config=SFT, directory=tmp_path / "run")
    with pytest.raises(FileNotFoundError, match=r"machine [\d.]+ of the cluster has no directory .*nowhere"):
        run_all([run], INSTRUCTIONS, cluster=cluster)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"gpus": -1.0}, "cluster.gpus = -1.0 must not be negative"),
        ({"retries": -1}, "cluster.retries = -1"),
        ({"cpus": 0.0}, "both 0: all tasks would run at once"),
    ],
)
def test_resources_that_cannot_be_are_refused(changes, message: str):
    with pytest.raises(ValueError, match=message):
        Cluster(**changes)
