"""Grids of settings: the paper's eighty, names, wrong axes; runs are shared by their trials and not trained twice."""

from __future__ import annotations

import pytest

from jaxrefine.artefacts.atomic import write_json
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.training import runs
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.grid import Axis, Grid, Trial, replaced, train_grid
from jaxrefine.training.loop import NonFiniteError

BASE = Finetuning(objective=ObjectiveConfig(mle_weight=1.0))
PAPER = Grid(
    epochs=(1, 2, 3, 4, 5),
    axes=(
        Axis(path="optimizer.learning_rate", values=(2e-6, 1e-5, 2e-5, 2e-4)),
        Axis(path="optimizer.name", values=("sgd", "adamw")),
        Axis(path="optimizer.schedule", values=("cosine", "linear")),
    ),
)


def test_the_papers_grid_has_eighty_trials_of_sixteen_runs():
    trials = PAPER.trials()
    assert len(trials) == len({trial.name for trial in trials}) == 80
    assert PAPER.num_runs == len({trial.run for trial in trials}) == 16
    assert trials[0].name == "2e-06 sgd cosine epoch 1"
    assert trials[-1].name == "0.0002 adamw linear epoch 5"


def test_a_trials_run_has_its_settings_and_the_length_of_the_longest():
    trial = next(trial for trial in PAPER.trials() if trial.name == "1e-05 adamw linear epoch 2")
    config = PAPER.finetuning(trial, BASE)
    optimizer = config.optimizer
    assert (optimizer.learning_rate, optimizer.name, optimizer.schedule) == (1e-5, "adamw", "linear")
    assert (config.epochs, config.steps, config.keep_epochs) == (5.0, None, True)
    assert config.groups_per_step == BASE.groups_per_step
    assert (trial.value("epoch"), trial.value("optimizer.name")) == (2, "adamw")


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("optimizer.learnig_rate", 1.0, "'optimizer.learnig_rate'; did you mean 'optimizer.learning_rate'"),
        ("epocs", 1.0, "did you mean 'epochs'"),
        ("seed.more", 1, "unknown setting 'seed.more'"),
        ("optimizer.clip_norm", -1.0, "clip_norm = -1.0 must be positive"),
        ("groups_per_step", 0, "groups_per_step = 0 must be at least 1"),
    ],
)  # fmt: skip
def test_a_setting_that_is_not_there_or_not_allowed_is_named(path: str, value, message: str):
    with pytest.raises(ValueError, match=message):
        replaced(BASE, path, value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"epochs": (), "axes": ()}, "at least one"),
        ({"epochs": (2, 1), "axes": ()}, "in order"),
        ({"epochs": (0, 1), "axes": ()}, "from 1 on"),
        ({"epochs": (1,), "axes": (Axis(path="seed", values=(1,)),) * 2}, "seed is there twice"),
    ],
)
def test_grids_that_cannot_be_are_refused(arguments, message: str):
    with pytest.raises(ValueError, match=message):
        Grid(**arguments)
    with pytest.raises(ValueError, match="each once"):
        Axis(path="seed", values=(1, 1))


def test_trials_share_their_run_and_what_a_diverged_one_had_not_reached_takes_no_part(tmp_path, monkeypatch):
    grid = Grid(epochs=(1, 2), axes=(Axis(path="optimizer.learning_rate", values=(0.5, 0.1, 9.0)),))
    trained = []

    def scripted(start, examples, config, directory, *, placement, description):
        if (directory / "model").exists():
            return
        trained.append(config.optimizer.learning_rate)
        write_json(directory / "epochs" / "1" / "config.json", {})
        if config.optimizer.learning_rate == 9.0:
            raise NonFiniteError(7, {"num_bad_in_a_row": 5.0}, {})
        write_json(directory / "model" / "config.json", {})

    monkeypatch.setattr(runs, "finetune", scripted)
    for _ in range(2):  # the second time nothing diverges again
        models = train_grid(tmp_path, [], BASE, grid, tmp_path / "runs")
        assert {name: path and path.relative_to(tmp_path).as_posix() for name, path in models.items()} == {
            "0.5 epoch 1": "runs/0.5/epochs/1", "0.5 epoch 2": "runs/0.5/model",
            "0.1 epoch 1": "runs/0.1/epochs/1", "0.1 epoch 2": "runs/0.1/model",
            "9 epoch 1": "runs/9/epochs/1", "9 epoch 2": None,
        }  # fmt: skip
    assert trained == [0.5, 0.1, 9.0]
    assert Trial(run="9", epoch=2, settings=()).name == "9 epoch 2"
