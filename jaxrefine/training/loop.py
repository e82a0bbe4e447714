"""The training loop: feeds one compiled step, and never waits for it."""

from __future__ import annotations

import dataclasses
import queue
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.training.optimizer import Optimizer, OptimizerConfig, make_optimizer
from jaxrefine.training.state import TrainState, init_state
from jaxrefine.training.step import Step, make_train_step, to_device
from jaxrefine.training.writers import Writer, open_writers
from jaxrefine.typing import Params

Evaluate = Callable[[TrainState], Mapping[str, float]]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run of the trainer."""

    steps: int
    """Batches to learn from."""
    num_microbatches: int = 1
    """Each batch is computed in so many parts before its one update."""
    optimizer: OptimizerConfig = OptimizerConfig()
    mesh: MeshConfig = MeshConfig()
    log_every_steps: int = 10
    evaluate_every_steps: int | None = None
    """None: only where ``fit`` gets an ``evaluate``, after the last step."""
    max_consecutive_bad_steps: int = 5
    """So many non-finite steps in a row end the run with an error."""
    prefetch: int = 2
    """Batches prepared ahead, in a thread."""
    writers: tuple[str, ...] = ()
    """Beside the JSON lines: "tensorboard", "wandb"."""
    seed: int = 0
    """Of the run's key (dropout); data and new parameters have seeds of their own."""

    def __post_init__(self) -> None:
        for name in ("steps", "num_microbatches", "log_every_steps", "max_consecutive_bad_steps", "prefetch"):
            if (value := getattr(self, name)) < 1:
                raise ValueError(f"train.{name} = {value} must be at least 1")


class Prefetched:
    """Batches put on the devices ahead of time by a thread: (device batch, group ids, the loader's state after it)."""

    def __init__(self, source: Iterator[Any], put: Callable[[Any], Any], *, depth: int, num_batches: int) -> None:
        self._queue: queue.Queue[Any] = queue.Queue(depth)
        self._stopped = threading.Event()
        self._thread = threading.Thread(
            target=self._work, args=(source, put, num_batches), name="jaxrefine-prefetch", daemon=True
        )
        self._thread.start()

    def _offer(self, item: Any) -> bool:
        while not self._stopped.is_set():
            try:
                self._queue.put(item, timeout=0.1)
                return True
            except queue.Full:
                continue
        return False

    def _work(self, source: Iterator[Any], put: Callable[[Any], Any], num_batches: int) -> None:
        get_state = getattr(source, "get_state", lambda: None)
        try:
            for _ in range(num_batches):
                batch = next(source, None)
                item = None if batch is None else (put(batch), np.asarray(batch.group_ids), get_state())
                if not self._offer(item) or item is None:
                    return
        except BaseException as error:
            self._offer(error)

    def next(self) -> Any:
        """The next item, or None when the loader has ended; what the loader raised is raised here."""
        item = self._queue.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def close(self) -> None:
        """Stops the thread."""
        self._stopped.set()
        self._thread.join()


def fit(
    objective: Any,
    start: Params | TrainState,
    loader: Iterable[Any],
    config: TrainConfig,
    workdir: Path | None = None,
    *,
    mesh: Mesh | None = None,
    optimizer: Optimizer | None = None,
    train_step: Step | None = None,
    evaluate: Evaluate | None = None,
    on_metrics: Callable[[int, Mapping[str, float]], None] | None = None,
    description: str = "train",
) -> TrainState:
    """Trains for ``config.steps`` batches."""
    mesh = mesh or make_mesh(config.mesh)
    optimizer = optimizer or make_optimizer(config.optimizer, config.steps)
    state = start if isinstance(start, TrainState) else init_state(start, optimizer, jax.random.key(config.seed), mesh=mesh)
    train_step = train_step or make_train_step(objective, optimizer, mesh=mesh, num_microbatches=config.num_microbatches)
    writers: list[Writer] = open_writers(config.writers, workdir) if workdir else []
    put = lambda batch: to_device(batch, mesh=mesh, num_microbatches=config.num_microbatches)  # noqa: E731
    batches = Prefetched(iter(loader), put, depth=config.prefetch, num_batches=config.steps)
    clock = _Clock()
    pending: tuple[int, Any, Any] | None = None

    def settle() -> None:
        if pending is None:
            return
        step, values, group_ids = pending
        values = {name: float(value) for name, value in jax.device_get(values).items()}
        clock.add(values["tokens"])
        if values["num_bad_in_a_row"] >= config.max_consecutive_bad_steps:
            ids = sorted({int(i) for i in group_ids.flat if i >= 0})
            raise FloatingPointError(
                f"step {step}: {int(values['num_bad_in_a_row'])} non-finite steps in a row; the weights are those before them. "
                f"metrics {values}; group ids of this batch {ids}"
            )
        if step % config.log_every_steps == 0 or step == config.steps:
            record = values | clock.read()
            for writer in writers:
                writer.write(step, record)
            if on_metrics:
                on_metrics(step, record)
            print(f"{description} {step}/{config.steps} loss {record['loss']:.4f} {record['tokens_per_second']:.0f} tok/s", flush=True)

    try:
        for step in range(1, config.steps + 1):
            item = batches.next()
            if item is None:
                raise ValueError(f"the loader ended after {step - 1} batches; train.steps = {config.steps}")
            batch, group_ids, _ = item
            state, values = train_step(state, batch)
            settle()
            pending = (step, values, group_ids)
            if evaluate and (step == config.steps or (config.evaluate_every_steps and step % config.evaluate_every_steps == 0)):
                results = evaluate(state)
                for writer in writers:
                    writer.write(step, {f"eval/{name}": value for name, value in results.items()})
        settle()
    finally:
        batches.close()
        for writer in writers:
            writer.close()
    return state


class _Clock:
    """Tokens a second since the last reading."""

    def __init__(self) -> None:
        self._start, self._tokens = time.perf_counter(), 0.0

    def add(self, tokens: float) -> None:
        self._tokens += tokens

    def read(self) -> dict[str, float]:
        now = time.perf_counter()
        seconds = now - self._start
        rate = self._tokens / seconds
        self._start, self._tokens = now, 0.0
        return {"tokens_per_second": rate, "seconds": seconds}
