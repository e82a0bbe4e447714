"""Greedy replies of several models to several tasks, kept on disk, and what they are worth."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from jaxrefine.conversion.loaded import LoadedModel, Placement, load_model
from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import read_candidates
from jaxrefine.evaluation.tasks import Measured, Task
from jaxrefine.sampling.candidates import CANDIDATES, SamplingConfig, sample_candidates


class Asked(NamedTuple):
    """A model that is asked."""

    name: str
    seed: int
    """Models of one name and several seeds are one row of a table."""
    directory: Path
    """In Hugging Face layout."""


Replies = dict[str, dict[str, list[list[Candidates]]]]
"""By name of the model and of the task: one list of replies a seed."""


def ask_models(models: Sequence[Asked], tasks: Sequence[Task], directory: Path, placement: Placement) -> None:
    """Asks what is not answered yet; stopped and called again, it goes on.

    Args:
        models: each is loaded only where a reply is missing.
        tasks: names are those of directories.
        directory: gets ``<model>/seed-<n>/<task>``.
        placement: of the models.
    """
    prompts = {task.name: task.prompts() for task in tasks}
    sampler = dataclasses.replace(placement, attention="dense", remat="none")
    for model in models:
        loaded: LoadedModel | None = None
        for task in tasks:
            where = _where(directory, model, task)
            if (where / CANDIDATES).is_file():
                continue
            loaded = loaded or load_model(model.directory, sampler)
            config = SamplingConfig(num_candidates=1, temperatures=(0.0,), max_new_tokens=task.max_new_tokens)
            what = f"{model.name}, seed {model.seed}, {task.name}"
            sample_candidates(loaded, prompts[task.name], config, where, description=what)


def read_replies(models: Sequence[Asked], tasks: Sequence[Task], directory: Path) -> Replies:
    """What ``ask_models`` wrote."""
    found: Replies = {}
    for model in models:
        by_task = found.setdefault(model.name, {})
        for task in tasks:
            by_task.setdefault(task.name, []).append(read_candidates(_where(directory, model, task) / CANDIDATES))
    return found


def measure_replies(replies: Replies, tasks: Sequence[Task]) -> dict[str, dict[str, list[Measured]]]:
    """What they are worth, by model and task: one measurement a seed."""
    return {
        name: {task.name: [task.measure(given) for given in by_task[task.name]] for task in tasks}
        for name, by_task in replies.items()
    }


def values_of(measured: Mapping[str, Mapping[str, Sequence[Measured]]]) -> dict[str, dict[str, dict[str, Any]]]:
    """Values [seeds, units] by model, task and metric, as ``compare_models`` takes them."""
    return {
        name: {
            task: {metric: np.stack([one.values[metric] for one in found]) for metric in found[0].values}
            for task, found in by_task.items()
        }
        for name, by_task in measured.items()
    }


def _where(directory: Path, model: Asked, task: Task) -> Path:
    return directory / model.name.replace(" ", "-") / f"seed-{model.seed}" / task.name
