"""Work that can be done in any order, by the machines of a Ray cluster: each item a task with resources of its own.

Ray is the extra ``ray``; it is imported when it is used.
"""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Literal, TypeVar

from jaxrefine.artefacts.progress import progress, say

T = TypeVar("T")
R = TypeVar("R")


class WorkerLostError(RuntimeError):
    """A worker died at the same item as often as is allowed; the message names the item and the last cause."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Cluster:
    """Who does the work. jaxrefine is installed on every machine of a cluster, in the same version.

    Raises:
        ValueError: resources or retries below zero, or a task without any resource.
    """

    by: Literal["here", "ray"] = "here"
    """This process, one item after the other; or the workers of a Ray cluster, which have to see the same files."""
    address: str = "auto"
    """Of the cluster: "auto" is the one that this machine belongs to, "local" starts one on this machine alone,
    ``HOST:PORT`` and ``ray://HOST:PORT`` are as Ray has them."""
    cpus: float = 1.0
    """Cores that a task reserves; so many tasks run at once as there are cores for."""
    gpus: float = 0.0
    """GPUs that a task reserves; it sees no others, and none with 0. On one machine, start the command with
    ``XLA_PYTHON_CLIENT_PREALLOCATE=false``: it has used the GPUs itself by then, and keeps what it has taken."""
    retries: int = 2
    """How often an item is taken up again whose worker died. An error of the work itself is not tried again."""

    def __post_init__(self) -> None:
        for name in ("cpus", "gpus", "retries"):
            if (value := getattr(self, name)) < 0:
                raise ValueError(f"cluster.{name} = {value} must not be negative")
        if not self.cpus and not self.gpus:
            raise ValueError("cluster.cpus and cluster.gpus are both 0: all tasks would run at once")


def on_cluster(
    work: Callable[[T], R], items: Mapping[str, T], cluster: Cluster, *, description: str = "tasks"
) -> dict[str, R]:
    """Does work on every item as tasks of a Ray cluster.

    Args:
        work: called with an item in another process; sent there by cloudpickle, once.
        items: by names that messages use.
        cluster: where, and with which resources.
        description: beside the progress bar.

    Returns:
        What the work returned, in the order of the items.

    Raises:
        ImportError: Ray is not installed.
        WorkerLostError: a worker died at an item once more than ``cluster.retries``.
        Exception: what the work raised, with the item's name noted; the other tasks are stopped.
    """
    import ray

    found: dict[str, R] = {}
    with _connected(ray, cluster):
        _say_when_it_has_to_wait(ray, cluster)
        shared = ray.put(work)
        task = ray.remote(num_cpus=cluster.cpus, num_gpus=cluster.gpus, max_retries=0)(_call)
        lost = dict.fromkeys(items, 0)
        running = {task.remote(shared, item): name for name, item in items.items()}
        with progress(len(items), description, unit="tasks") as bar, _stopped_at_the_end(ray, running):
            while running:
                [done], _ = ray.wait(list(running), num_returns=1)
                name = running.pop(done)
                try:
                    found[name] = ray.get(done)
                except ray.exceptions.RayTaskError as error:
                    cause = error.cause if isinstance(error.cause, Exception) else error
                    cause.add_note(f"in {description}: {name}; what is finished is kept: the same command goes on")
                    raise cause from error
                except ray.exceptions.RayError as error:  # not the work's fault: a worker, its machine or its memory
                    lost[name] += 1
                    reason = (str(error).strip() or type(error).__name__).splitlines()[0]
                    if lost[name] > cluster.retries:
                        raise WorkerLostError(
                            f"{description}: {name}: its worker died {lost[name]} times, last: {reason}. What is "
                            "finished is kept: the same command goes on. cluster.retries is "
                            f"{cluster.retries}; a worker that lacks memory wants more of cluster.cpus or cluster.gpus"
                        ) from error
                    say(f"{name}: its worker died ({reason}); attempt {lost[name] + 1} of {cluster.retries + 1}")
                    running[task.remote(shared, items[name])] = name
                else:
                    bar.advance()
    return {name: found[name] for name in items}


def seen_by_all(path: pathlib.Path) -> pathlib.Path:
    """The path, in a worker; refused where the worker's machine has no such directory.

    Raises:
        FileNotFoundError: no such directory on this machine.
    """
    if not path.is_dir():
        import ray

        node = ray.util.get_node_ip_address()
        raise FileNotFoundError(
            f"machine {node} of the cluster has no directory {path}: models and the work directory (--workdir) have to "
            "be on a disk that all machines share, under one path"
        )
    return path


def _call(work: Callable[[T], R], item: T) -> R:
    """The task; Ray gives the work itself in place of the reference to it."""
    return work(item)


@contextlib.contextmanager
def _connected(ray: Any, cluster: Cluster) -> Iterator[None]:
    """A connection of one's own, unless the process has one."""
    if ray.is_initialized():
        yield
        return
    local = cluster.address == "local"
    try:
        with _found_by_workers() if local else contextlib.nullcontext():
            ray.init(address=cluster.address, include_dashboard=False if local else None)
    except ConnectionError as error:
        raise ConnectionError(
            f"no Ray cluster at cluster.address = {cluster.address!r}: start one (`ray start --head`), name another, "
            "or take 'local'"
        ) from error
    try:
        yield
    finally:
        ray.shutdown()


@contextlib.contextmanager
def _found_by_workers() -> Iterator[None]:
    """Workers of this machine find the package where this process did: a checkout need not be installed."""
    root, kept = str(pathlib.Path(__file__).resolve().parents[2]), os.environ.get("PYTHONPATH")
    os.environ["PYTHONPATH"] = os.pathsep.join([root, *([kept] if kept else [])])
    try:
        yield
    finally:
        if kept is None:
            del os.environ["PYTHONPATH"]
        else:
            os.environ["PYTHONPATH"] = kept


@contextlib.contextmanager
def _stopped_at_the_end(ray: Any, running: Mapping[Any, str]) -> Iterator[None]:
    """What still runs when an error or Ctrl-C ends the loop is stopped; its checkpoints stay."""
    try:
        yield
    finally:
        for reference in running:
            ray.cancel(reference, force=True)


def _say_when_it_has_to_wait(ray: Any, cluster: Cluster) -> None:
    """Ray waits without a word for a machine that is large enough."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    if not any(node.get("CPU", 0) >= cluster.cpus and node.get("GPU", 0) >= cluster.gpus for node in nodes):
        machines = "; ".join(f"{node.get('CPU', 0):g} cores, {node.get('GPU', 0):g} GPUs" for node in nodes)
        say(f"no machine has {cluster.cpus:g} cores and {cluster.gpus:g} GPUs (there are: {machines}); waiting for one")
