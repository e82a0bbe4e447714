"""A run is a list of named stages: the finished are not run again, a stopped one goes on."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import pathlib
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

from rich.console import Console

from jaxrefine.artefacts.atomic import clean, read_json, write_json
from jaxrefine.artefacts.manifest import (
    Manifest,
    altered,
    digest_outputs,
    load_manifest,
    save_manifest,
    seeds_of,
    versions,
)
from jaxrefine.artefacts.progress import duration, say
from jaxrefine.config import changes, describe, digest, unknown_name

try:
    import fcntl
except ImportError:  # Windows: two runs in one directory go unnoticed there
    fcntl = None  # type: ignore[assignment]

CONFIG = "config.json"


class StageError(ValueError):
    """A work directory that cannot go on: another config, altered outputs, another run in it."""


@dataclasses.dataclass(frozen=True)
class Stage:
    """One step of a run: it reads artefacts of earlier stages and writes its own into its directory."""

    name: str
    """Unique in the run."""
    run: Callable[[pathlib.Path], None]
    """Gets the stage's directory; stopped at any instant and called again, it goes on by itself."""
    inputs: tuple[str, ...] = ()
    """Names of earlier stages whose artefacts it reads (``input_directory``)."""
    processes: Literal["first", "all"] | None = None
    """In a run of several processes, who runs it: the first alone, while the others wait; all of them together; or
    None: a run with such a stage is for one process."""


class Alone:
    """A run of one process, as ``jaxrefine.artefacts.processes.Processes`` is of several."""

    count = 1
    is_first = True

    def from_first(self, value: int) -> int:
        """The value."""
        return value

    def together(self, what: str) -> contextlib.AbstractContextManager[None]:
        """Nothing to wait for."""
        return contextlib.nullcontext()


def run_stages(
    stages: Sequence[Stage],
    workdir: str | os.PathLike[str],
    config: Any,
    console: Console | None = None,
    *,
    processes: Any = None,
) -> None:
    """Runs what is not finished yet, in order, each stage in ``workdir/<nn>-<name>``.

    A stage is finished when its manifest is there: written last, with the digests of all it wrote. The config is
    kept in ``workdir/config.json``; the same directory goes on under the same config only.

    Args:
      stages: in the order in which they run.
      workdir: made when absent.
      config: what the stages were made from; a dataclass.
      console: where the headings go; default stderr.
      processes: of the run, all in one directory that they share; None is this one alone.

    Raises:
      StageError: the config changed (with dotted path, old and new), or a finished stage's files or inputs did; or a
        stage that several processes cannot run.
      ValueError: two stages of one name, or an input that is no earlier stage.
    """
    processes = processes or Alone()
    console = console if console is not None else Console(stderr=True, quiet=not processes.is_first)
    workdir = pathlib.Path(workdir)
    _check_order(stages)
    lonely = [stage.name for stage in stages if stage.processes is None]
    if processes.count > 1 and lonely:
        raise StageError(f"{processes.count} processes cannot run {', '.join(map(repr, lonely))}: start one, alone")
    with contextlib.ExitStack() as stack:
        with processes.together(f"begin in {workdir}"):
            if processes.is_first:
                workdir.mkdir(parents=True, exist_ok=True)
                stack.enter_context(_locked(workdir))
                _check_config(workdir, config)
        finished: dict[str, Manifest] = {}
        for number, stage in enumerate(stages, start=1):
            directory = workdir / f"{number:02d}-{stage.name}"
            heading = f"[{number}/{len(stages)}] {stage.name}"
            if not processes.is_first:  # which writes all that is said of stages, and decides
                _follow(stage, directory, processes)
                continue
            inputs = {name: finished[name].digest for name in stage.inputs}
            with processes.together(f"look at stage {stage.name!r}"):
                manifest = _finished_before(directory, stage, inputs)
                word = "goes on" if directory.exists() else "starts"
                if manifest is None:
                    directory.mkdir(parents=True, exist_ok=True)
                    clean(directory)
            processes.from_first(int(manifest is None))
            if manifest is not None:
                say(f"{heading}: finished before ({duration(manifest.seconds)})", console)
            else:
                say(f"{heading}: {word} in {directory}", console)
                manifest = _run(stage, directory, config, inputs, processes)
                say(f"{heading}: finished in {duration(manifest.seconds)}", console)
            finished[stage.name] = manifest


def input_directory(directory: pathlib.Path, name: str) -> pathlib.Path:
    """Where an earlier stage of the same run keeps its artefacts.

    Args:
      directory: a stage's own, as its ``run`` gets it.
      name: of the earlier stage.

    Raises:
      FileNotFoundError: no finished stage of this name; names the nearest.
    """
    stages = {_name_of(path): path for path in sorted(directory.parent.glob("[0-9]*-*")) if path.is_dir()}
    if name not in stages or load_manifest(stages[name]) is None:
        done = [known for known, path in stages.items() if load_manifest(path) is not None]
        raise FileNotFoundError(f"{directory.parent}: {unknown_name(name, done, 'finished stage')}")
    return stages[name]


def _name_of(directory: pathlib.Path) -> str:
    return directory.name.partition("-")[2]


def _run(stage: Stage, directory: pathlib.Path, config: Any, inputs: dict[str, str], processes: Any) -> Manifest:
    started = time.monotonic()
    try:
        # Where they compute together, one that fails must not wait for the others, who wait for its part.
        alone = stage.processes == "first"
        with processes.together(f"run stage {stage.name!r}") if alone else contextlib.nullcontext():
            stage.run(directory)
    except Exception as error:
        error.add_note(f"in stage {stage.name!r} ({directory}); earlier stages are kept: the same command goes on here")
        raise
    with processes.together(f"finish stage {stage.name!r}"):
        manifest = Manifest(
            stage=stage.name,
            config=digest(config),
            seeds=describe(seeds_of(config)),
            versions=versions(),
            inputs=inputs,
            outputs=digest_outputs(directory),
            seconds=time.monotonic() - started,
        )
        save_manifest(directory, manifest)
    return manifest


def _follow(stage: Stage, directory: pathlib.Path, processes: Any) -> None:
    """A stage in a process that is not the first: its part of what all do, in step with that one's ``_run``."""
    with processes.together(f"look at stage {stage.name!r}"):
        pass
    if not processes.from_first(0):
        return
    if stage.processes == "first":
        with processes.together(f"run stage {stage.name!r}"):
            pass
    else:
        stage.run(directory)
    with processes.together(f"finish stage {stage.name!r}"):
        pass


def _finished_before(directory: pathlib.Path, stage: Stage, inputs: dict[str, str]) -> Manifest | None:
    manifest = load_manifest(directory)
    if manifest is None:
        return None
    again = f"remove {directory} to run the stage again"
    if wrong := altered(directory, manifest):
        raise StageError(f"finished stage {stage.name!r}: {', '.join(wrong)} changed or went missing since; {again}")
    stale = [name for name in stage.inputs if manifest.inputs.get(name) != inputs[name]]
    if stale or set(manifest.inputs) != set(inputs):
        names = ", ".join(stale or sorted(set(manifest.inputs) ^ set(inputs)))
        raise StageError(f"finished stage {stage.name!r} read other artefacts of {names} than are there now; {again}")
    return manifest


def _check_order(stages: Sequence[Stage]) -> None:
    earlier: list[str] = []
    for stage in stages:
        if stage.name in earlier:
            raise ValueError(f"two stages are called {stage.name!r}")
        if not stage.name or set(stage.name) & set("/\\") or stage.name != stage.name.strip():
            raise ValueError(f"a stage's name is part of a directory's name; {stage.name!r} cannot be")
        for name in stage.inputs:
            if name not in earlier:
                raise ValueError(unknown_name(name, earlier, f"input of stage {stage.name!r} (earlier stages count)"))
        earlier.append(stage.name)


def _check_config(workdir: pathlib.Path, config: Any) -> None:
    path = workdir / CONFIG
    new = describe(config)
    if not path.exists():
        write_json(path, {"digest": digest(config), "versions": versions(), "config": new})
        return
    kept = read_json(path)
    differences = changes(kept["config"], new)
    if not differences:
        return
    lines = "\n".join(f"  {name}: {was!r} -> {now!r}" for name, was, now in differences)
    made_by, here = kept["versions"]["jaxrefine"], versions()["jaxrefine"]
    version = f" (by jaxrefine {made_by}; this is {here})" if made_by != here else ""
    raise StageError(
        f"{workdir} was started with another config{version}; changed since:\n{lines}\n"
        "Go on with the old values, choose another directory with --workdir, or remove this one."
    )


@contextlib.contextmanager
def _locked(workdir: pathlib.Path) -> Iterator[None]:
    with open(workdir / ".lock", "w") as lock:
        if fcntl is not None:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError as error:
                raise StageError(f"another run is at work in {workdir}") from error
        yield
