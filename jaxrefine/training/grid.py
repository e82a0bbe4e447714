"""Every combination of some settings of a fine-tuning; trials that differ only in their length share one run.

A *run* is one training; a *trial* is a model to be compared: a run after one of its epochs. The learning rate of a
trial after epoch 2 of 5 has not fallen to its end, as in PandaLM, whose 80 trials a model come from 16 runs.

Source: PandaLM, arXiv:2306.05087 (epoch × learning rate × optimiser × schedule).
"""

from __future__ import annotations

import dataclasses
import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from jaxrefine.config import flatten, unknown_name
from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.groups import Example
from jaxrefine.training.cluster import Cluster
from jaxrefine.training.finetuning import EPOCHS, MODEL, Finetuning
from jaxrefine.training.runs import FAILED, Run, run_all


@dataclasses.dataclass(frozen=True, kw_only=True)
class Axis:
    """One setting and the values that are tried."""

    path: str
    """Dotted, in ``Finetuning``: ``optimizer.learning_rate``."""
    values: tuple[float | int | str | bool, ...]

    def __post_init__(self) -> None:
        if not self.values or len(set(self.values)) < len(self.values):
            raise ValueError(f"axis {self.path}: values = {self.values}; give at least one, each once")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Trial:
    """A model to be compared."""

    run: str
    """Of the run's directory."""
    epoch: int
    settings: tuple[tuple[str, Any], ...]
    """The value of each axis, by path."""

    @property
    def name(self) -> str:
        """Unique in the grid.

        >>> Trial(run="adamw 2e-05", epoch=3, settings=()).name
        'adamw 2e-05 epoch 3'
        """
        return f"{self.run} epoch {self.epoch}"

    def value(self, path: str) -> Any:
        """Of an axis, or of "epoch"."""
        return self.epoch if path == "epoch" else dict(self.settings)[path]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Grid:
    """What is tried.

    Raises:
        ValueError: an axis twice, epochs that are not positive or not in order.

    >>> grid = Grid(epochs=(1, 2), axes=(Axis(path="optimizer.name", values=("sgd", "adamw")),))
    >>> [trial.name for trial in grid.trials()]
    ['sgd epoch 1', 'sgd epoch 2', 'adamw epoch 1', 'adamw epoch 2']
    """

    epochs: tuple[int, ...]
    """Trials of every run; the last is the run's length."""
    axes: tuple[Axis, ...]

    def __post_init__(self) -> None:
        if not self.epochs or min(self.epochs) < 1 or list(self.epochs) != sorted(set(self.epochs)):
            raise ValueError(f"grid.epochs = {self.epochs}: give at least one, from 1 on, in order, each once")
        paths = [axis.path for axis in self.axes]
        if repeated := sorted({path for path in paths if paths.count(path) > 1}):
            raise ValueError(f"grid.axes: {repeated[0]} is there twice")

    @property
    def num_runs(self) -> int:
        """Trainings."""
        return len(self._settings())

    def trials(self) -> list[Trial]:
        """All of them, run by run."""
        return [
            Trial(run=_name(settings), epoch=epoch, settings=settings)
            for settings in self._settings()
            for epoch in self.epochs
        ]

    def finetuning(self, trial: Trial, base: Finetuning) -> Finetuning:
        """The run of a trial.

        Args:
            trial: of this grid.
            base: what the axes do not name.

        Raises:
            ValueError: an axis that is no setting, or a value that it may not have.
        """
        config = base
        for path, value in trial.settings:
            config = replaced(config, path, value)
        return dataclasses.replace(config, epochs=float(self.epochs[-1]), steps=None, keep_epochs=True)

    def _settings(self) -> list[tuple[tuple[str, Any], ...]]:
        paths = [axis.path for axis in self.axes]
        return [
            tuple(zip(paths, values, strict=True)) for values in itertools.product(*(axis.values for axis in self.axes))
        ]


def _name(settings: Sequence[tuple[str, Any]]) -> str:
    return " ".join(f"{value:g}" if isinstance(value, float) else str(value) for _, value in settings) or "run"


def replaced(config: Any, path: str, value: Any) -> Any:
    """A tree of dataclasses with one leaf replaced.

    Raises:
        ValueError: no such leaf, with the nearest; or a value that the dataclass refuses.
    """
    name, _, rest = path.partition(".")
    if not dataclasses.is_dataclass(config) or name not in {field.name for field in dataclasses.fields(config)}:
        raise ValueError(unknown_name(path, flatten(config), "setting"))
    try:
        inner = replaced(getattr(config, name), rest, value) if rest else value
    except ValueError as error:
        if str(error).startswith("unknown setting"):
            raise ValueError(unknown_name(path, flatten(config), "setting")) from error
        raise
    return dataclasses.replace(config, **{name: inner})  # type: ignore[type-var]


def grid_runs(start: Path, base: Finetuning, grid: Grid, directory: Path, *, prefix: str = "") -> list[Run]:
    """The trainings of a grid.

    Args:
        start: the model that all start from.
        base: settings that the grid does not name.
        grid: what is tried.
        directory: gets a directory a run.
        prefix: of their names in messages.
    """
    first = {trial.run: trial for trial in reversed(grid.trials())}
    return [
        Run(
            name=prefix + run, start=start, config=grid.finetuning(first[run], base),
            directory=_directory(directory, run), may_diverge=True,
        )
        for run in dict.fromkeys(trial.run for trial in grid.trials())
    ]  # fmt: skip


def grid_models(grid: Grid, directory: Path) -> dict[str, Path | None]:
    """The model of each trial by its name, in the order of the grid; None where its run diverged before.

    Raises:
        FileNotFoundError: a run is not finished.
    """
    models: dict[str, Path | None] = {}
    for trial in grid.trials():
        where = _directory(directory, trial.run)
        model = where / MODEL if trial.epoch == grid.epochs[-1] else where / EPOCHS / str(trial.epoch)
        there = (model / "config.json").is_file()
        if not there and not (where / FAILED).exists():
            raise FileNotFoundError(f"{model}: the model of trial {json.dumps(trial.name)} is not there")
        models[trial.name] = model if there else None
    return models


def train_grid(
    start: Path,
    examples: Sequence[Example],
    base: Finetuning,
    grid: Grid,
    directory: Path,
    *,
    cluster: Cluster | None = None,
    placement: Placement | None = None,
    description: str = "trials",
) -> dict[str, Path | None]:
    """Trains every run of a grid; stopped and called again, it goes on.

    Args:
        start: the model that all start from.
        examples: what all learn.
        base: settings that the grid does not name.
        grid: what is tried.
        directory: gets a directory a run.
        cluster: who trains; None is this process, one after the other.
        placement: see ``finetune``.
        description: beside the progress bars.

    Returns:
        What ``grid_models`` finds.
    """
    runs = grid_runs(start, base, grid, directory)
    run_all(runs, examples, cluster=cluster, placement=placement, description=description)
    return grid_models(grid, directory)


def _directory(directory: Path, run: str) -> Path:
    return directory / run.replace(" ", "_")
