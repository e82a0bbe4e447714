"""The training loop: feeds one compiled step and never waits for it; stops and goes on without a trace."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from types import TracebackType
from typing import Any

import jax
from jax.sharding import Mesh
from rich.console import Console

from jaxrefine.artefacts.processes import naming_lost_processes
from jaxrefine.artefacts.progress import progress
from jaxrefine.artefacts.stopping import StoppedError
from jaxrefine.config import digest
from jaxrefine.data.batch import PackedBatch
from jaxrefine.sharding import MeshConfig, check_split, make_mesh
from jaxrefine.training.checkpoints import CheckpointConfig, Checkpoints
from jaxrefine.training.compilation import Step
from jaxrefine.training.interruption import Interrupted, Interruption
from jaxrefine.training.memory import compile_checked
from jaxrefine.training.optimizer import Optimizer, OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import Item, Prefetch, start_at, to_device
from jaxrefine.training.state import TrainState, abstract_state, init_state
from jaxrefine.training.step import make_train_step
from jaxrefine.training.writers import Writer, open_writers
from jaxrefine.typing import Array, Int, Params

_log = logging.getLogger(__name__)
_SHARE_STEPS = 20
Evaluate = Callable[[TrainState], Mapping[str, float]]
OnMetrics = Callable[[int, Mapping[str, float]], None]


@dataclasses.dataclass(frozen=True, kw_only=True)
class TrainConfig:
    """One run of the trainer."""

    steps: int
    """Batches to learn from."""
    num_microbatches: int = 1
    """Each batch is computed in so many parts before its one update."""
    optimizer: OptimizerConfig = dataclasses.field(default_factory=OptimizerConfig)
    mesh: MeshConfig = dataclasses.field(default_factory=MeshConfig)
    checkpoints: CheckpointConfig | None = None
    """None: none are made, and an interrupted run starts again from its beginning."""
    log_every_steps: int = 10
    evaluate_every_steps: int | None = None
    """None: only after the last step."""
    max_consecutive_bad_steps: int = 5
    """So many non-finite steps (and spikes, where they are skipped) in a row end the run with an error; none of them
    has changed the weights, and the checkpoints made before stay."""
    spike_factor: float | None = None
    """Skip a step whose loss or gradient norm is more than so many standard deviations above the mean of the last 128
    that were taken; 6 is usual. None takes every finite step: no paper here leaves any out."""
    max_share_without_loss: float = 0.99
    """Groups with nothing to learn from (all masked, a single candidate, all tied), as a share of those of the last 20
    steps or more: above it the run ends, for it learns nothing. 1 turns this off."""
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
        if self.evaluate_every_steps is not None and self.evaluate_every_steps < 1:
            raise ValueError(f"train.evaluate_every_steps = {self.evaluate_every_steps} must be at least 1, or None")
        if self.spike_factor is not None and not self.spike_factor > 0:
            raise ValueError(f"train.spike_factor = {self.spike_factor} must be positive, or None")
        if not 0 <= self.max_share_without_loss <= 1:
            raise ValueError(f"train.max_share_without_loss = {self.max_share_without_loss} must lie between 0 and 1")


class NonFiniteError(StoppedError, FloatingPointError):
    """Too many bad steps in a row; the weights are those before the first of them.

    ``step``: the last of them; ``metrics``: its metrics; ``group_ids``: {step: ids of its groups}, since the start.
    """

    def __init__(self, step: int, metrics: Mapping[str, float], group_ids: Mapping[int, list[int]]) -> None:
        what = "non-finite loss or gradient" + (", or a spike" if "spike" in metrics else "")
        super().__init__(
            f"step {step}: {metrics['num_bad_in_a_row']:.0f} steps in a row had a {what}; the weights are those before "
            f"them, and the checkpoints are kept. Metrics {dict(metrics)}; group ids by step {dict(group_ids)}"
        )
        self.step, self.metrics, self.group_ids = step, dict(metrics), dict(group_ids)

    def __reduce__(self) -> Any:
        return type(self), (self.step, self.metrics, self.group_ids)


class NothingToLearnError(StoppedError):
    """More groups than are allowed have nothing that a loss could learn from."""


def fit(
    objective: Any,
    start: Params | TrainState,
    loader: Iterable[PackedBatch],
    config: TrainConfig,
    workdir: Path | None = None,
    *,
    frozen: Params | None = None,
    consume: bool = False,
    mesh: Mesh | None = None,
    train_step: Step | None = None,
    optimizer: Optimizer | None = None,
    evaluate: Evaluate | None = None,
    on_metrics: OnMetrics | None = None,
    description: str = "train",
    console: Console | None = None,
) -> TrainState:
    """Trains an objective for ``config.steps`` batches, or goes on from the newest checkpoint in ``workdir``.

    Args:
        objective: see ``make_train_step``; unused where ``train_step`` is given.
        start: the objective's parameters (copied, they survive unless ``consume``), or a whole state (donated, it does
            not).
        loader: batches of this process's rows; its iterator may have ``get_state`` and ``set_state``.
        config: lengths, optimiser, mesh, checkpoints.
        workdir: gets ``metrics.jsonl`` and ``checkpoints/``; None keeps everything in memory.
        frozen: weights that the objective reads beside its parameters and that stay as they are (see
            ``AdaptedObjective``); no checkpoint holds them.
        consume: the parameters are deleted once the state holds its copy, so that a large model is there but once.
        mesh: instead of ``config.mesh`` over all devices.
        train_step: a compiled step to use again for the next seed; with the same objective, optimiser, mesh and
            ``spike_factor``.
        optimizer: the one of ``train_step``; None: made from ``config.optimizer``.
        evaluate: (state) -> metrics, logged as ``eval/<name>``; called each ``evaluate_every_steps`` and at the end.
        on_metrics: (step, record) of every logged step, as in ``metrics.jsonl``.
        description: shown beside the progress bar.
        console: where progress goes; default stderr.

    Returns:
        The state after the last step.

    Raises:
        Interrupted: (a SystemExit) SIGTERM or SIGINT came, and the state is committed; only with checkpoints.
        NonFiniteError: ``max_consecutive_bad_steps`` were reached.
        NothingToLearnError: ``max_share_without_loss`` was exceeded.
        CheckpointError: no whole checkpoint is left; or one could not be written, and the policy is to stop.
        LostProcessError: another process of the run has died, and an operation with it failed.
        OutOfMemoryError: (a ValueError) the compiled step needs more than the devices have: what, and what would help.
        ValueError: the loader ends early, or the checkpoint is of another run or was made over other frozen weights.
    """
    if config.checkpoints and workdir is None:
        raise ValueError("train.checkpoints needs a workdir; give one, or checkpoints = None")
    if mesh is None:
        mesh = make_mesh(config.mesh)
        check_split(start.params if isinstance(start, TrainState) else start, mesh, config.mesh.max_unsplit)
    optimizer = optimizer or make_optimizer(config.optimizer, config.steps)
    with contextlib.ExitStack() as stack:
        stack.enter_context(naming_lost_processes())
        checkpoints = None
        if config.checkpoints and workdir is not None:
            about = {"config": digest(config), "processes": jax.process_count()}
            checkpoints = Checkpoints(workdir / "checkpoints", config.checkpoints, about=about)
            stack.push(functools.partial(_close, checkpoints))
        state, position = _begin(start, frozen, optimizer, config, mesh, checkpoints)
        if consume and not isinstance(start, TrainState):
            jax.block_until_ready(state.params)
            for leaf in jax.tree.leaves(start):
                if isinstance(leaf, jax.Array):
                    leaf.delete()
        first = int(state.step)
        if first >= config.steps:
            return state
        if train_step is None:
            train_step = make_train_step(
                objective, optimizer, mesh=mesh, num_microbatches=config.num_microbatches,
                spike_factor=config.spike_factor,
            )  # fmt: skip
        saved_by = checkpoints.about(first).get("processes") if checkpoints and position is not None else None
        source = start_at(loader, position, first, saved_by=saved_by)

        def put(batch: PackedBatch) -> PackedBatch:
            return to_device(batch, mesh=mesh, num_microbatches=config.num_microbatches)

        batches = Prefetch(source, put, depth=config.prefetch, num_batches=config.steps - first)
        stack.callback(batches.close)
        log = stack.enter_context(_Log(config, workdir, first, on_metrics, description, console))
        interruption = stack.enter_context(Interruption()) if checkpoints else None
        for step in range(first + 1, config.steps + 1):
            item = batches.next()
            if item is None:
                raise ValueError(f"the loader ended after {step - 1} batches; train.steps = {config.steps}")
            if step == first + 1:
                compile_checked(train_step, state, item.batch, num_microbatches=config.num_microbatches)
                log.restart_clock()
            state, values = train_step(state, item.batch)
            log.settle()
            log.wait_for(step, values, item)
            is_last = step == config.steps
            results: Mapping[str, float] = {}
            if evaluate and (is_last or _due(step, config.evaluate_every_steps)):
                results = log.evaluate(evaluate, state)
            if checkpoints is None or interruption is None:
                continue
            signal_number = interruption.received(step)
            if is_last or signal_number or _due(step, checkpoints.config.every_steps):
                log.settle()
                checkpoints.save(state, item.position, results)
            if signal_number and not is_last:
                checkpoints.close()
                raise Interrupted(signal_number, step)
        log.settle()
    return state


def _close(
    checkpoints: Checkpoints,
    kind: type[BaseException] | None,
    error: BaseException | None,
    trace: TracebackType | None,
) -> None:
    checkpoints.close(failing=kind is not None)


def _due(step: int, every: int | None) -> bool:
    return every is not None and step % every == 0


def _begin(
    start: Any,
    frozen: Params | None,
    optimizer: Optimizer,
    config: TrainConfig,
    mesh: Mesh,
    checkpoints: Checkpoints | None,
) -> tuple[TrainState, Any]:
    """The newest checkpoint with its data position, or a fresh state."""
    if isinstance(start, TrainState):
        if frozen:
            raise ValueError("a whole state holds its own frozen weights; give it alone, or parameters with frozen")
        fresh = start
    elif checkpoints and not frozen and checkpoints.steps():
        fresh = abstract_state(start, optimizer, mesh=mesh)  # its arrays would be made for nothing
    else:
        fresh = init_state(start, optimizer, jax.random.key(config.seed), mesh=mesh, frozen=frozen)
    if checkpoints and (restored := checkpoints.restore(fresh)) is not None:
        state, position = restored
        if fresh.frozen and int(state.frozen_digest) != int(fresh.frozen_digest):
            raise ValueError(
                f"the checkpoint of step {int(state.step)} in {checkpoints.directory} was trained over other frozen "
                "weights than those given; give the base it began with, or another workdir"
            )
        return state, position
    return fresh, None


class _Log:
    """Metrics, fetched one step late so that the device never waits, to the writers and the progress bar."""

    def __init__(
        self,
        config: TrainConfig,
        workdir: Path | None,
        first: int,
        on_metrics: OnMetrics | None,
        description: str,
        console: Console | None,
    ) -> None:
        self._config, self._on_metrics = config, on_metrics
        self._pending: tuple[int, Any, Item] | None = None
        self._bad: dict[int, list[int]] = {}
        self._groups = self._groups_without_loss = 0.0
        self._counted_since = first
        main = jax.process_index() == 0
        self._writers: list[Writer] = []
        if workdir and main:
            self._writers = open_writers(config.writers, workdir, after_step=first)
        self._bar: progress[Any] | None = None
        if main:
            self._bar = progress(config.steps, description, initial=first, unit="steps", console=console)
        self.restart_clock()

    def __enter__(self) -> _Log:
        if self._bar is not None:
            self._bar.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.__exit__(kind, error, trace)
        for writer in self._writers:
            writer.close()

    def restart_clock(self) -> None:
        """Starts a window of time."""
        self._since, self._steps, self._tokens, self._scored = time.perf_counter(), 0, 0.0, 0.0

    def wait_for(self, step: int, values: Any, item: Item) -> None:
        """``values`` are being computed; ``settle`` will fetch them."""
        self._pending = (step, values, item)

    def settle(self, results: Mapping[str, float] | None = None) -> None:
        """Fetches, checks and writes the metrics waited for, with those of an evaluation."""
        if self._pending is None:
            return
        (step, values, item), self._pending = self._pending, None
        metrics = {name: float(value) for name, value in jax.device_get(values).items()}
        self._check(step, metrics, item.group_ids)
        self._steps += 1
        self._tokens += metrics["tokens"]
        self._scored += metrics["scored_tokens"]
        seconds = max(time.perf_counter() - self._since, 1e-9)
        speed = self._tokens / seconds
        if self._bar is not None:
            self._bar.advance(1, loss=metrics["loss"], tokens_per_second=round(speed))
        evaluated = {f"eval/{name}": float(value) for name, value in (results or {}).items()}
        if not (evaluated or step % self._config.log_every_steps == 0 or step == self._config.steps):
            return
        timing = {
            "step_seconds": seconds / self._steps,
            "tokens_per_second": speed,
            "scored_tokens_per_second": self._scored / seconds,
        }
        record = metrics | timing | evaluated
        for writer in self._writers:
            writer.write(step, record)
        if self._on_metrics:
            self._on_metrics(step, record)
        self.restart_clock()

    def evaluate(self, evaluate: Evaluate, state: TrainState) -> Mapping[str, float]:
        """Calls ``evaluate`` and writes its results into the record of the step just made; its time does not count."""
        assert self._pending is not None
        jax.block_until_ready(self._pending[1])
        start = time.perf_counter()
        results = evaluate(state)
        self._since += time.perf_counter() - start
        self.settle(results)
        return results

    def _check(self, step: int, metrics: Mapping[str, float], group_ids: Int[Array, "B G"]) -> None:
        self._check_losses(step, metrics)
        if metrics["finite"] == 1 and not metrics.get("spike"):
            self._bad = {}
            return
        self._bad[step] = sorted({int(number) for number in group_ids.reshape(-1) if number >= 0})
        _log.warning(
            "step %d is left out: loss %.4g, gradient norm %.4g (%.0f in a row, %.0f in all)",
            step, metrics["loss"], metrics["grad_norm"], metrics["num_bad_in_a_row"], metrics["num_skipped"],
        )  # fmt: skip
        if metrics["num_bad_in_a_row"] >= self._config.max_consecutive_bad_steps:
            raise NonFiniteError(step, metrics, self._bad)

    def _check_losses(self, step: int, metrics: Mapping[str, float]) -> None:
        """The share of groups without anything to learn from, over ``_SHARE_STEPS`` steps, or all of a short run."""
        self._groups += metrics["groups"]
        self._groups_without_loss += metrics["groups"] * metrics["share_without_loss"]
        if step - self._counted_since < _SHARE_STEPS and step != self._config.steps:
            return
        share, limit = self._groups_without_loss / max(self._groups, 1.0), self._config.max_share_without_loss
        if share > limit:
            raise NothingToLearnError(
                f"steps {self._counted_since + 1} to {step}: {self._groups_without_loss:.0f} of {self._groups:.0f} "
                f"groups ({share:.1%}) have nothing to learn from: no pair of different labels, no candidate, no "
                f"token that counts. train.max_share_without_loss = {limit}; look at labels and masks"
            )
        self._groups = self._groups_without_loss = 0.0
        self._counted_since = step
