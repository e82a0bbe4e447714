"""Where metrics go: JSON lines always, TensorBoard and Weights & Biases as extras."""

from __future__ import annotations

import json
import logging
import math
import os
import secrets
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

from jaxrefine.config import unknown_name

_log = logging.getLogger(__name__)


@runtime_checkable
class Writer(Protocol):
    """Takes one flat record of numbers a logged step."""

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Records ``metrics`` of ``step``."""

    def close(self) -> None:
        """Flushes and ends."""


class JsonlWriter:
    """One JSON object a line, steps strictly rising; a number that is not finite is written as null.

    Args:
        path: made with its directory.
        after_step: lines of later steps, and a torn last line, are removed first: a resumed run writes them again.
    """

    def __init__(self, path: Path, *, after_step: int = 0) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self._truncate(path, after_step)
        self._path, self._num_lost = path, 0
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)

    @staticmethod
    def _truncate(path: Path, after_step: int) -> None:
        if not path.exists():
            return
        keep = 0
        with path.open("rb") as file:
            for line in file:
                try:
                    step = json.loads(line)["step"]
                except (ValueError, KeyError, TypeError):
                    break
                if not line.endswith(b"\n") or step > after_step:
                    break
                keep += len(line)
        if keep != path.stat().st_size:
            _log.info("%s: records after step %d removed", path.name, after_step)
            os.truncate(path, keep)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """Appends one record by one system call; where the disk is full nothing of it stays, and that is said once."""
        record = {"step": step} | {name: value if math.isfinite(value) else None for name, value in metrics.items()}
        content = json.dumps(record, allow_nan=False).encode() + b"\n"
        size = os.fstat(self._file).st_size
        try:
            written = os.write(self._file, content)
            reason = f"{written} of {len(content)} bytes written: disk full?"
        except OSError as error:
            written, reason = 0, str(error)
        if written != len(content):
            os.ftruncate(self._file, size)
            self._num_lost += 1
            if self._num_lost == 1:
                _log.error("%s: no record of step %d, perhaps of more; the run goes on: %s", self._path, step, reason)

    def close(self) -> None:
        """Flushes to the disk and closes."""
        os.fsync(self._file)
        os.close(self._file)


class TensorBoardWriter:
    """TensorBoard event files, by tensorboardX."""

    def __init__(self, directory: Path, *, after_step: int = 0) -> None:
        from tensorboardX import SummaryWriter  # optional extra

        self._writer = SummaryWriter(str(directory), purge_step=after_step + 1 if after_step else None)

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One scalar a metric."""
        for name, value in metrics.items():
            if math.isfinite(value):
                self._writer.add_scalar(name, value, step)

    def close(self) -> None:
        """Closes the event file."""
        self._writer.close()


class WandbWriter:
    """A Weights & Biases run; a resumed run goes on under the same id, kept in ``directory``."""

    def __init__(self, directory: Path, *, after_step: int = 0) -> None:
        import wandb  # optional extra

        directory.mkdir(parents=True, exist_ok=True)
        file = directory / "run_id"
        run_id = file.read_text() if after_step and file.exists() else secrets.token_hex(4)
        file.write_text(run_id)
        self._run: Any = wandb.init(id=run_id, resume="allow", dir=str(directory))

    def write(self, step: int, metrics: Mapping[str, float]) -> None:
        """One row; W&B itself refuses steps that it already has."""
        self._run.log({name: value for name, value in metrics.items() if math.isfinite(value)}, step=step)

    def close(self) -> None:
        """Marks the run as finished."""
        self._run.finish()


WRITERS: dict[str, Callable[..., Writer]] = {"tensorboard": TensorBoardWriter, "wandb": WandbWriter}
"""What ``TrainConfig.writers`` may name beside the JSON lines."""


def open_writers(names: Sequence[str], workdir: Path, *, after_step: int = 0) -> list[Writer]:
    """The JSON-lines writer on ``workdir/metrics.jsonl`` and the named others in directories of their own."""
    for name in names:
        if name not in WRITERS:
            raise ValueError(unknown_name(name, WRITERS, "writer"))
    writers: list[Writer] = [JsonlWriter(workdir / "metrics.jsonl", after_step=after_step)]
    for name in names:
        try:
            writers.append(WRITERS[name](workdir / name, after_step=after_step))
        except ImportError as error:
            raise ValueError(f"writer {name!r} needs an extra: pip install 'jaxrefine[{name}]' ({error})") from error
    return writers
