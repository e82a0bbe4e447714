"""Several fine-tunings on the same examples, one after the other or over a cluster; finished ones are not run again."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.progress import say
from jaxrefine.conversion.loaded import Placement
from jaxrefine.data.groups import Example
from jaxrefine.training.cluster import Cluster, on_cluster, seen_by_all
from jaxrefine.training.finetuning import MODEL, Finetuning, finetune
from jaxrefine.training.loop import NonFiniteError

FAILED = "failed.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Run:
    """One fine-tuning among several."""

    name: str
    """For messages; unique."""
    start: Path
    config: Finetuning
    directory: Path
    may_diverge: bool = False
    """Whether a divergence is noted in ``failed.json`` and not raised."""

    @property
    def has_failed(self) -> bool:
        """Whether it diverged before."""
        return (self.directory / FAILED).is_file()


def run_all(
    runs: Sequence[Run],
    examples: Sequence[Example],
    *,
    cluster: Cluster | None = None,
    placement: Placement | None = None,
    description: str = "trials",
) -> None:
    """Trains every run that is not finished; stopped and called again, it goes on.

    Args:
        runs: with directories that all machines of the cluster see.
        examples: what all learn.
        cluster: who trains; None is this process, one after the other. Files and bytes are the same, times aside, on
            machines of one kind.
        placement: see ``finetune``; on a cluster, of the devices that a task sees.
        description: beside the progress bars.

    Raises:
        ValueError: two runs of one name.
        NonFiniteError: a run diverged that may not.
        WorkerLostError: see ``on_cluster``.
    """
    if len({run.name for run in runs}) < len(runs):
        raise ValueError(f"runs are told apart by their names, got {', '.join(run.name for run in runs)}")
    unfinished = {f"{number}/{len(runs)}: {run.name}": run for number, run in enumerate(runs, 1) if not run.has_failed}
    if cluster is not None and cluster.by == "ray":
        sent = {  # a worker may be started in another directory
            label: dataclasses.replace(run, start=run.start.absolute(), directory=run.directory.absolute())
            for label, run in unfinished.items()
            if not (run.directory / MODEL / "config.json").is_file()
        }
        if sent:
            work = functools.partial(_train_there, examples=examples, placement=placement, description=description)
            on_cluster(work, sent, cluster, description=description)
    for label, run in unfinished.items():  # of a finished one only what a stop left behind is cleaned up
        if not run.has_failed:
            train_one(run, examples, placement=placement, description=f"{description} {label}")
    for run in runs:
        if run.has_failed:
            reason = read_json(run.directory / FAILED)["reason"][:100]
            say(f"{run.name} diverged; what it had not reached takes no part: {reason}")


def train_one(run: Run, examples: Sequence[Example], *, placement: Placement | None, description: str) -> None:
    """Trains one run, and notes where it diverged."""
    try:
        finetune(run.start, examples, run.config, run.directory, placement=placement, description=description)
    except NonFiniteError as error:
        if not run.may_diverge:
            raise
        write_json(run.directory / FAILED, {"run": run.name, "reason": str(error)[:500]})


def _train_there(run: Run, *, examples: Sequence[Example], placement: Placement | None, description: str) -> None:
    """In a worker."""
    seen_by_all(run.start)
    train_one(run, examples, placement=placement, description=f"{description}: {run.name}")
