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

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.progress import say
from jaxrefine.config import flatten, unknown_name
from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.groups import Example
from jaxrefine.training.finetuning import EPOCHS, MODEL, Finetuning, finetune
from jaxrefine.training.loop import NonFiniteError

FAILED = "failed.json"


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


def train_grid(
    start: Path,
    examples: Sequence[Example],
    base: Finetuning,
    grid: Grid,
    directory: Path,
    *,
    placement: Placement | None = None,
    description: str = "trials",
) -> dict[str, Path | None]:
    """Trains every run of a grid, one after the other; stopped and called again, it goes on.

    Args:
        start: the model that all start from.
        examples: what all learn.
        base: settings that the grid does not name.
        grid: what is tried.
        directory: gets a directory a run.
        placement: see ``finetune``.
        description: beside the progress bars.

    Returns:
        The model of each trial by its name, in the order of the grid; None where its run diverged.
    """
    models: dict[str, Path | None] = {}
    trials = grid.trials()
    runs = list(dict.fromkeys(trial.run for trial in trials))
    for number, run in enumerate(runs, start=1):
        of_run = [trial for trial in trials if trial.run == run]
        where = directory / run.replace(" ", "_")
        failed = where / FAILED
        if not failed.exists():
            config = grid.finetuning(of_run[0], base)
            label = f"{description} {number}/{len(runs)}: {run}"
            try:
                finetune(start, examples, config, where, placement=placement, description=label)
            except NonFiniteError as error:
                write_json(failed, {"run": run, "reason": str(error)[:500]})
        if failed.exists():
            say(f"{run} diverged; what it had not reached takes no part: {read_json(failed)['reason'][:100]}")
        for trial in of_run:
            last = trial.epoch == grid.epochs[-1]
            model = where / MODEL if last else where / EPOCHS / str(trial.epoch)
            there = (model / "config.json").is_file()
            if not there and not failed.exists():
                raise FileNotFoundError(f"{model}: the model of trial {json.dumps(trial.name)} is not there")
            models[trial.name] = model if there else None
    return models
