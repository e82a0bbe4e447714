"""Checkpoints of parameters, optimiser, step, keys and data position together, by Orbax, with checksums of our own.

Orbax commits a step by one rename, so a process killed at any instant leaves whole steps and ignorable remains. It does
not notice a flipped bit: once a step is committed, the CRC-32 of each of its files is written beside the checkpoints
(``checkpoints-integrity/<step>.json``) and compared when it is restored. A damaged step is set aside by name and the
one before it is used.
"""

from __future__ import annotations

import base64
import concurrent.futures
import dataclasses
import json
import logging
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import jax
import numpy as np
import orbax.checkpoint as ocp

from jaxrefine.artefacts.atomic import write_json
from jaxrefine.sharding import path_of
from jaxrefine.training.state import TrainState, abstract

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class CheckpointConfig:
    """When checkpoints are made and which are kept."""

    every_steps: int = 1000
    """A last one is always made."""
    keep: int = 2
    """The newest so many are kept."""
    keep_best: str | None = None
    """And the best by this metric of ``evaluate``, such as "accuracy"; steps without it do not compete."""
    best_is: Literal["highest", "lowest"] = "highest"

    def __post_init__(self) -> None:
        for name in ("every_steps", "keep"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"checkpoints.{name} = {value} must be at least 1")
        if self.best_is not in ("highest", "lowest"):
            raise ValueError(f"checkpoints.best_is = {self.best_is!r}; allowed: highest, lowest")


class DamagedCheckpointError(RuntimeError):
    """A committed step whose files are not those that were written."""


class Checkpoints:
    """The checkpoints of one run in one directory.

    Args:
        directory: made if need be.
        config: what to keep.
    """

    def __init__(self, directory: Path, config: CheckpointConfig | None = None) -> None:
        self.directory = directory.absolute()
        self.config = config or CheckpointConfig()
        self._integrity = self.directory.parent / f"{self.directory.name}-integrity"
        self._in_flight: int | None = None
        self._closed = False
        self._sealer = concurrent.futures.ThreadPoolExecutor(1, "jaxrefine-seal")
        self._manager = self._open()

    def _open(self) -> ocp.CheckpointManager:
        handlers = {"state": ocp.StandardCheckpointHandler(), "data": ocp.JsonCheckpointHandler()}
        return ocp.CheckpointManager(self.directory, options=self._options(), item_handlers=handlers)

    def _options(self) -> ocp.CheckpointManagerOptions:
        managers = ocp.checkpoint_managers
        policy: Any = managers.LatestN(self.config.keep)
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
            preservation_policy=policy, cleanup_tmp_directories=True, enable_async_checkpointing=True, **best
        )

    def steps(self) -> list[int]:
        """Committed steps, oldest first; a save in flight is not among them."""
        self._settle()
        self._manager.reload()
        return sorted(self._manager.all_steps())

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
        """
        self._settle()
        step = int(state.step)
        ranked = metrics if metrics and self.config.keep_best in metrics else None
        self._in_flight = step
        saved = ocp.args.StandardSave(dataclasses.replace(state, frozen={}))
        self._manager.save(
            step,
            args=ocp.args.Composite(state=saved, data=ocp.args.JsonSave(_pack(data))),
            metrics=dict(ranked) if ranked else None,
            force=True,
        )

    def _settle(self) -> None:
        """Waits for the save in flight; one that failed is said to be so, and the run goes on."""
        step, self._in_flight = self._in_flight, None
        if step is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            _log.error("the checkpoint of step %d was not saved: %s", step, error)
            self._manager = self._open()
            return
        if jax.process_index() == 0:
            self._sealer.submit(self._seal, step)

    def _seal(self, step: int) -> None:
        try:
            digests = _digests(self.directory / str(step))
        except FileNotFoundError:  # already deleted for a newer one
            return
        write_json(self._integrity / f"{step}.json", digests)
        kept = {path.name for path in self.directory.iterdir()}
        for path in self._integrity.glob("*.json"):
            if path.stem not in kept:
                path.unlink(missing_ok=True)

    def restore(self, like: TrainState, *, step: int | None = None) -> tuple[TrainState, Any] | None:
        """The newest whole checkpoint (or a named one) and its data position; None if there is none at all.

        Args:
            like: shapes, types and shardings to restore into, arrays or ``ShapeDtypeStruct``s; what it holds frozen
                comes back as it is there.
            step: a committed step; None tries the newest first and goes back past damaged ones.

        Raises:
            ValueError: a parameter of another shape, type or name than ``like``; or no such step.
            DamagedCheckpointError: no whole step is left, or the named one is damaged.
        """
        steps = self.steps()
        if step is not None:
            if step not in steps:
                raise ValueError(f"no checkpoint of step {step} in {self.directory}; there are {steps}")
            return self._restore(like, step)
        for candidate in reversed(steps):
            try:
                return self._restore(like, candidate)
            except DamagedCheckpointError as error:
                if jax.process_count() > 1:
                    raise
                _log.error("%s; it is set aside", error)
                self._set_aside(candidate)
        if steps:
            raise DamagedCheckpointError(f"none of the checkpoints {steps} in {self.directory} is whole")
        return None

    def _set_aside(self, step: int) -> None:
        damaged = self.directory.parent / f"{self.directory.name}-damaged"
        damaged.mkdir(exist_ok=True)
        target = damaged / str(step)
        number = 1
        while target.exists():
            number += 1
            target = damaged / f"{step}-{number}"
        (self.directory / str(step)).rename(target)
        (self._integrity / f"{step}.json").unlink(missing_ok=True)
        self._manager.reload()

    def _restore(self, like: TrainState, step: int) -> tuple[TrainState, Any]:
        sealed = self._verify(step)
        target = abstract(dataclasses.replace(like, frozen={}))
        args = ocp.args.Composite(state=ocp.args.StandardRestore(target), data=ocp.args.JsonRestore())
        try:
            found = _shapes(self._manager.item_metadata(step)["state"].tree)
            problems = _differences(found, _shapes(target))
            restored = None if problems else self._manager.restore(step, args=args)
        except Exception as error:
            if sealed:  # the files are those that were written
                raise
            raise DamagedCheckpointError(
                f"checkpoint of step {step} in {self.directory} cannot be read: {error}"
            ) from error
        if restored is None:
            raise ValueError(f"the checkpoint of step {step} is of another run: {'; '.join(problems)}")
        return dataclasses.replace(restored["state"], frozen=like.frozen), _unpack(restored["data"])

    def _verify(self, step: int) -> bool:
        """Whether the step had digests to compare with; raises where one differs."""
        file = self._integrity / f"{step}.json"
        if not file.exists():
            return False
        try:
            expected = json.loads(file.read_text())
        except ValueError:
            return False
        found = _digests(self.directory / str(step))
        wrong = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
        if wrong:
            raise DamagedCheckpointError(
                f"checkpoint of step {step} in {self.directory} is damaged: {', '.join(wrong)}"
            )
        return True

    def close(self) -> None:
        """Waits until everything is on the disk.

        Raises:
            RuntimeError: the last step that ``save`` was given is not there.
        """
        if self._closed:
            return
        self._closed = True
        last = self._in_flight
        self._settle()
        self._sealer.shutdown(wait=True)
        there = last is None or last in self.steps()
        self._manager.close()
        if not there:
            raise RuntimeError(f"the last checkpoint, step {last}, could not be saved in {self.directory}")


def _digests(directory: Path) -> dict[str, list[int]]:
    """{file: [bytes, CRC-32]} of every file below."""
    result = {}
    for path in sorted(directory.rglob("*")):
        if path.is_file():
            checksum, size = 0, 0
            with path.open("rb") as file:
                while chunk := file.read(1 << 22):
                    checksum, size = zlib.crc32(chunk, checksum), size + len(chunk)
            result[str(path.relative_to(directory))] = [size, checksum]
    return result


def _shapes(tree: Any) -> dict[str, tuple[tuple[int, ...], str]]:
    leaves = jax.tree_util.tree_leaves_with_path(tree, is_leaf=lambda x: hasattr(x, "dtype"))
    return {path_of(path): (tuple(leaf.shape), np.dtype(leaf.dtype).name) for path, leaf in leaves}


def _differences(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> list[str]:
    problems = [f"{name} is missing" for name in sorted(wanted.keys() - found.keys())]
    problems += [f"{name} is left over" for name in sorted(found.keys() - wanted.keys())]
    problems += [
        f"{name} is {found[name][1]}{list(found[name][0])}, the run has {wanted[name][1]}{list(wanted[name][0])}"
        for name in sorted(wanted.keys() & found.keys())
        if found[name] != wanted[name]
    ]
    return problems


def _pack(data: Any) -> Any:
    return {"bytes": base64.b64encode(data).decode()} if isinstance(data, bytes) else {"json": data}


def _unpack(data: Any) -> Any:
    return base64.b64decode(data["bytes"]) if "bytes" in data else data["json"]
