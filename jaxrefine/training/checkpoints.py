"""Checkpoints of parameters, optimiser, step, keys and data position together, by Orbax, each with a manifest of ours.

Orbax commits a step by one rename, so a process killed at any instant leaves whole steps and ignorable remains. It does
not notice a flipped bit, and calls a step its latest while it is still being written. Here a step counts once its
manifest (``checkpoints-integrity/<step>.json``: see ``artefacts.integrity``) is written, last of all; what it says is
compared when the step is restored. A damaged step is set aside by name and the one before it is used.
"""

from __future__ import annotations

import base64
import concurrent.futures
import contextlib
import dataclasses
import logging
import os
import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils

from jaxrefine.artefacts.integrity import DamagedError, Integrity, checksum, damages, read_integrity, write_integrity
from jaxrefine.artefacts.stopping import StoppedError
from jaxrefine.sharding import path_of
from jaxrefine.training.failed_saves import wait_for_threads
from jaxrefine.training.state import TrainState, abstract

_log = logging.getLogger(__name__)
_NONE, _FAILED = -1, -2
_CANNOT_WRITE = (OSError, ValueError, RuntimeError)
"""What Orbax and TensorStore raise for it."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When checkpoints are made and which are kept."""

    every_steps: int = 1000
    """A last one is always made."""
    keep: int = 2
    """The newest so many are kept; the one before the newest always is: a damaged step falls back to it."""
    keep_best: str | None = None
    """And the best by this metric of ``evaluate``, such as "accuracy"; steps without it do not compete."""
    best_is: Literal["highest", "lowest"] = "highest"
    on_failure: Literal["continue", "stop"] = "continue"
    """When a step cannot be written (disk full, permission lost): train on with the last good one, trying again when
    the next is due, or stop. A last step that cannot be written stops either way."""

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"checkpoints.{name} = {value} must be at least 1")
        for name, allowed in (("best_is", ("highest", "lowest")), ("on_failure", ("continue", "stop"))):
            if getattr(self, name) not in allowed:
                raise ValueError(f"checkpoints.{name} = {getattr(self, name)!r}; allowed: {', '.join(allowed)}")


class CheckpointError(StoppedError):
    """A checkpoint that cannot be written or read; names the directory, the reason and what is still there."""


class DamagedCheckpointError(CheckpointError, DamagedError):
    """A committed step whose files are not those that were written."""


class Checkpoints:
    """The checkpoints of one run in one directory.

    Args:
        directory: made if need be.
        config: what to keep, and what to do when a step cannot be written.
        about: JSON values that every manifest repeats, such as the config's digest.

    Raises:
        CheckpointError: the directory cannot be made or read.
    """

    def __init__(
        self, directory: Path, config: CheckpointConfig | None = None, *, about: Mapping[str, Any] | None = None
    ) -> None:
        self.directory = directory.absolute()
        self.config = config or CheckpointConfig()
        self._about = dict(about or {})
        self._manifests = self.directory.parent / f"{self.directory.name}-integrity"
        self._in_flight: tuple[int, concurrent.futures.Future[None]] | None = None
        self._closed = False
        self._unsaved: int | None = None
        self._committer = concurrent.futures.ThreadPoolExecutor(1, "jaxrefine-commit")
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        handlers = {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
        try:
            manager = ocp.CheckpointManager(self.directory, options=self._options(), item_handlers=handlers)
        except OSError as error:
            raise CheckpointError(f"no checkpoints can be kept in {self.directory}: {_reason(error)}") from error
        wait_for_threads()  # it removes what unfinished saves left
        return manager

    def _options(self) -> ocp.CheckpointManagerOptions:
        managers = ocp.checkpoint_managers
        # Orbax deletes before the manifest of the new step is written, so one more has to be there.
        policy: Any = managers.LatestN(max(2, self.config.keep))
        best: Any = {}
        if name := self.config.keep_best:
            metric = lambda metrics: metrics[name]  # noqa: E731
            by_metric = managers.BestN(
                get_metric_fn=metric,
                n=1,
                reverse=self.config.best_is == "lowest",
                keep_checkpoints_without_metrics=False,
            )
            policy = managers.AnyPreservationPolicy([policy, by_metric])
            best = {"best_fn": metric, "best_mode": "max" if self.config.best_is == "highest" else "min"}
        return ocp.CheckpointManagerOptions(
            preservation_policy=policy,
            cleanup_tmp_directories=True,
            enable_async_checkpointing=True,
            # In a thread, one that cannot be made leaves the writers waiting for it, for 5 minutes.
            async_options=ocp.AsyncOptions(create_directories_asynchronously=False),
            **best,
        )

    def steps(self) -> list[int]:
        """Committed steps, oldest first; a save in flight is not among them, nor is one that was never finished."""
        self._settle()
        return [step for step in self._on_disk() if self._manifest(step).is_file()]

    def best_step(self) -> int | None:
        """The kept step that is best by ``keep_best``, if any has that metric."""
        self._settle()
        return self._manager.best_step()

    def save(self, state: TrainState, data: Any, metrics: Mapping[str, float] | None = None) -> None:
        """Starts to write one step; returns as soon as the state may be donated.

        Args:
            state: arrays on the devices; what it holds frozen is not written.
            data: the loader's position: JSON values, or bytes.
            metrics: of ``evaluate`` at this step; needed to compete for the best.

        Raises:
            CheckpointError: this step or the one before it cannot be written, and the policy is to stop.
        """
        self._settle()
        step, packed = int(state.step), _pack(data)
        ranked = metrics if metrics and self.config.keep_best in metrics else None
        saved = dataclasses.replace(state, frozen={})
        about = {**self._about, "data": checksum(packed)}
        leaves = _shapes(saved)
        args = ocp.args.Composite(state=ocp.args.StandardSave(saved), data=ocp.args.JsonSave(packed))
        failure: Exception | None = None
        try:
            self._manager.save(step, args=args, metrics=dict(ranked) if ranked else None, force=True)
        except _CANNOT_WRITE as error:
            failure = error
        self._unsaved = step
        if failure := _of_any_process(failure):
            self._failed(step, failure)
        else:
            self._in_flight = step, self._committer.submit(self._commit, step, leaves, about)

    def _commit(self, step: int, leaves: Mapping[str, Any], about: Mapping[str, Any]) -> None:
        """Waits until Orbax has renamed the step, and seals it; in a thread."""
        self._manager.wait_until_finished()
        if jax.process_index():
            return
        if not (self.directory / str(step)).is_dir():
            raise FileNotFoundError(f"Orbax says that step {step} is saved, and it is not there")
        write_integrity(self._manifest(step), self.directory / str(step), leaves=leaves, about=about)
        kept = {path.name for path in self.directory.iterdir()}
        for path in self._manifests.glob("*.json"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)

    def _settle(self, *, alone: bool = False) -> None:
        """Waits for the save in flight; ``alone``: without asking the other processes how it went."""
        if self._in_flight is None:
            return
        (step, commit), self._in_flight = self._in_flight, None
        failure: Exception | None = None
        try:
            commit.result()
        except _CANNOT_WRITE as error:
            failure = error
        if not alone:
            failure = _of_any_process(failure)
        if failure:
            self._failed(step, failure)
        else:
            self._unsaved = None

    def _failed(self, step: int, error: Exception) -> None:
        """A step that is not there: said, and by the policy the end."""
        message = f"the checkpoint of step {step} was not saved in {self.directory}: {_reason(error)}"
        self._give_up()
        try:
            self._manager = self._open()  # the old one keeps its error, and may think that the step is there
            whole = self.steps()
        except (OSError, CheckpointError):
            whole = []
        kept = f"the newest whole one is of step {whole[-1]}" if whole else "there is no other"
        if self.config.on_failure == "stop":
            raise CheckpointError(f"{message}; {kept}. Make room or give back the permission, and run again") from error
        _log.error("%s; %s, and the run goes on", message, kept)

    def _give_up(self) -> None:
        """Ends what the manager does for a save that failed; its errors are those of the save, once more."""
        for end in (self._manager.wait_until_finished, self._manager.close):  # each thread is told the error once
            with contextlib.suppress(*_CANNOT_WRITE):
                end()
        wait_for_threads()

    def restore(self, like: TrainState, *, step: int | None = None) -> tuple[TrainState, Any] | None:
        """The newest whole checkpoint (or a named one) and its data position; None if there is none at all.

        Args:
            like: shapes, types and shardings to restore into, arrays or ``ShapeDtypeStruct``s; what it holds frozen
                comes back as it is there.
            step: a committed step; None tries the newest first and goes back past damaged ones. With several
                processes the first one decides which, for all of them.

        Raises:
            ValueError: a parameter of another shape, type or name than ``like``; or no such step.
            DamagedCheckpointError: no whole step is left, or the named one is damaged.
        """
        self._settle()
        if step is not None:
            if step not in (steps := self.steps()):
                raise ValueError(f"no checkpoint of step {step} in {self.directory}; there are {steps}")
            return self._restore(like, step, self._verified(step))
        there = self._on_disk()
        _of_first_process(0)  # all have looked into the directory before the first moves anything out of it
        found: tuple[int, Integrity | None] = (_NONE, None)
        if jax.process_index() == 0:
            found = next(self._whole(there), (_FAILED if there else _NONE, None))
        chosen = _of_first_process(found[0])
        if chosen == _NONE:
            return None
        if chosen == _FAILED:
            raise DamagedCheckpointError(f"none of the checkpoints {there} in {self.directory} is whole")
        self._manager.reload()
        return self._restore(like, chosen, found[1])

    def _whole(self, steps: list[int]) -> Iterator[tuple[int, Integrity | None]]:
        """Steps to restore, the best first; what is damaged is set aside on the way."""
        sealed = [step for step in steps if self._manifest(step).is_file()]
        for step in reversed(steps):
            if step not in sealed:
                if not sealed:  # the first of a run, killed before its manifest; or somebody lost the manifests
                    _log.warning("checkpoint of step %d has no manifest %s: it goes unverified", step, self._manifests)
                    yield step, None
                else:
                    self._set_aside(step, f"checkpoint of step {step} has no manifest {self._manifest(step)}")
                continue
            try:
                verified = self._verified(step)
            except DamagedCheckpointError as error:
                self._set_aside(step, str(error))
            else:
                yield step, verified

    def _verified(self, step: int) -> Integrity:
        """The manifest of a step, all of whose files are as it says."""
        try:
            integrity = read_integrity(self._manifest(step))
        except DamagedError as error:
            raise DamagedCheckpointError(f"checkpoint of step {step}: {error}") from error
        if problems := damages(self.directory / str(step), integrity):
            raise DamagedCheckpointError(
                f"checkpoint of step {step} in {self.directory} is damaged: {'; '.join(problems)}"
            )
        return integrity

    def _set_aside(self, step: int, reason: str) -> None:
        damaged = self.directory.parent / f"{self.directory.name}-damaged"
        damaged.mkdir(exist_ok=True)
        target = damaged / str(step)
        number = 1
        while target.exists():
            number += 1
            target = damaged / f"{step}-{number}"
        _log.error("%s; it is set aside as %s", reason, target)
        (self.directory / str(step)).rename(target)
        self._manifest(step).unlink(missing_ok=True)
        self._manager.reload()

    def _restore(self, like: TrainState, step: int, integrity: Integrity | None) -> tuple[TrainState, Any]:
        target = abstract(dataclasses.replace(like, frozen={}))
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore())
        try:
            found = _shapes(self._manager.item_metadata(step)["state"].tree)
            problems = _differences(found, _shapes(target))
            restored = None if problems else self._manager.restore(step, args=args)
        except Exception as error:
            if integrity is not None:  # the files are those that were written
                raise
            raise DamagedCheckpointError(
                f"checkpoint of step {step} in {self.directory} cannot be read: {_reason(error)}"
            ) from error
        if restored is None:
            raise ValueError(f"the checkpoint of step {step} is of another run: {'; '.join(problems)}")
        return dataclasses.replace(restored["state"], frozen=like.frozen), _unpack(restored["data"])

    def about(self, step: int) -> dict[str, Any]:
        """What the manifest of a step repeats; nothing where it has none."""
        file = self._manifest(step)
        return dict(read_integrity(file).about) if file.is_file() else {}

    def _on_disk(self) -> list[int]:
        self._manager.reload()
        return sorted(self._manager.all_steps())

    def _manifest(self, step: int) -> Path:
        return self._manifests / f"{step}.json"

    def close(self, *, failing: bool = False) -> None:
        """Waits until everything is on the disk.

        Args:
            failing: the run ends with an error already, perhaps in this process alone: no other is asked, and what
                could not be saved is only said.

        Raises:
            CheckpointError: the last step that ``save`` was given is not there.
        """
        if self._closed:
            return
        self._closed = True
        try:
            self._settle(alone=failing)
        except CheckpointError as error:
            if not failing:
                raise
            _log.error("%s", error)
        finally:
            self._committer.shutdown(wait=True)
            self._manager.close()
        if self._unsaved is not None and not failing:
            raise CheckpointError(
                f"the last checkpoint, step {self._unsaved}, could not be saved in {self.directory}; make room or give "
                "back the permission, and run again"
            )


def _of_any_process(failure: Exception | None) -> Exception | None:
    """What failed here, or that something failed in another process: all go on alike."""
    if jax.process_count() == 1:
        return failure
    failed = multihost_utils.process_allgather(np.int32(failure is not None))
    return failure or (OSError("another process could not write its part") if failed.any() else None)


def _of_first_process(value: int) -> int:
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def _reason(error: BaseException) -> str:
    """What went wrong in a few words: Orbax and TensorStore write pages of it."""
    text = str(error).strip()
    if code := re.search(r"os_error_code='(\d+)'", text):
        return os.strerror(int(code[1])).lower()
    if isinstance(error, OSError) and error.strerror:
        return f"{error.strerror.lower()}: {error.filename}" if error.filename else error.strerror.lower()
    return text.splitlines()[0][:300] if text else type(error).__name__


def _shapes(tree: Any) -> dict[str, tuple[str, tuple[int, ...]]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "dtype"))
    return {path_of(path): (np.dtype(leaf.dtype).name, tuple(leaf.shape)) for path, leaf in leaves}


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"{name} is left over" for name in sorted(found.keys() - wanted.keys())]
    problems += [
        f"{name} is {found[name][0]}{list(found[name][1])}, the run has {wanted[name][0]}{list(wanted[name][1])}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name] != wanted[name]
    ]
    return problems


def _pack(data: Any) -> Any:
    return {"bytes": base64.b64encode(data).decode()} if isinstance(data, bytes) else {"json": data}


def _unpack(data: Any) -> Any:
    return base64.b64decode(data["bytes"]) if "bytes" in data else data["json"]
