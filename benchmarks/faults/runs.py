"""Small trainings for the faults: the real model, objectives, loader, step and loop, compiled in seconds."""

from __future__ import annotations

import dataclasses
import functools
import hashlib
import io
import json
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.shapes import PackingConfig
from jaxrefine.data.steps import StepLoader, fit_steps, shuffled_steps
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.lora import LoraConfig, init_adapters
from jaxrefine.scoring.adapted import AdaptedObjective, freeze
from jaxrefine.scoring.objectives import ObjectiveConfig, make_objective
from jaxrefine.sharding import make_mesh
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.compilation import Step
from jaxrefine.training.loop import TrainConfig, fit
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.state import TrainState, init_params
from jaxrefine.training.step import make_train_step
from jaxrefine.typing import Params

MODEL = TransformerConfig(
    vocab_size=32, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_width=4, hidden_width=32
)
OBJECTIVES = {
    "pairwise": ObjectiveConfig(loss="pairwise_logistic", scorer="reward", per="pair"),
    "listwise": ObjectiveConfig(loss="listwise_softmax", mle_weight=0.5),
    "classification": ObjectiveConfig(loss="verdict_cross_entropy", scorer="verdict"),
    "KL": ObjectiveConfig(loss="reward_distillation", scorer="router", num_models=3),
}
"""The four shapes of supervision."""
VERDICTS = ((11,), (12, 13))
ADAMW = OptimizerConfig(learning_rate=0.02, warmup_steps=2)
NUM_GROUPS, GROUPS_PER_STEP = 24, 8
_TIMES = ("step_seconds", "tokens_per_second", "scored_tokens_per_second")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Training:
    """Everything that ``fit`` needs, compiled once."""

    objective: Any
    params: Params
    frozen: Params | None
    loader: StepLoader
    config: TrainConfig
    step: Step

    def run(
        self, workdir: pathlib.Path | None = None, *, config: TrainConfig | None = None, **hooks: Any
    ) -> TrainState:
        """Trains, or goes on in ``workdir``; ``hooks`` are those of ``fit``."""
        config = config or self.config
        loader = hooks.pop("loader", self.loader)
        return fit(
            self.objective, self.params, loader, config, workdir, frozen=self.frozen, mesh=one_device(),
            train_step=self.step, optimizer=make_optimizer(config.optimizer, config.steps),
            console=Console(file=io.StringIO()), **hooks,
        )  # fmt: skip


@functools.cache
def one_device() -> Any:
    """The mesh of the first device."""
    return make_mesh(devices=jax.devices()[:1])


def groups_for(name: str, *, num_groups: int = NUM_GROUPS) -> list[TokenGroup]:
    """Prompts with one to three candidates, or queries with rewards; drawn with a fixed seed."""
    rng = np.random.default_rng(5)
    routed = OBJECTIVES[name].scorer == "router"
    made = []
    for index in range(num_groups):
        num = 0 if routed else int(rng.integers(1, 4))
        made.append(
            TokenGroup(
                index,
                tuple(rng.integers(3, 32, rng.integers(1, 5)).tolist()),
                tuple(tuple(rng.integers(3, 32, rng.integers(1, 6)).tolist()) for _ in range(num)),
                labels=tuple(float(n % 2) for n in range(num)),
                mle_weight=tuple(float(n == 0) for n in range(num)),
                verdicts=VERDICTS if OBJECTIVES[name].scorer == "verdict" else None,
                rewards=tuple(rng.normal(size=3).tolist()) if routed else None,
            )
        )
    return made


def packing_for(name: str, groups: list[TokenGroup], steps: Any, *, multiple_of_rows: int = 4) -> PackingConfig:
    """One shape for all steps."""
    config = OBJECTIVES[name]
    return fit_steps(
        [(groups, steps)], slots=32, multiple_of_rows=multiple_of_rows, verdicts=config.scorer == "verdict",
        score_responses=bool(config.mle_weight) or config.scorer == "sequence", expand=True,
    )  # fmt: skip


@functools.cache
def training(name: str, tuning: str = "full", num_microbatches: int = 1, steps: int = 6) -> Training:
    """One combination, with its compiled step.

    Args:
        name: of ``OBJECTIVES``.
        tuning: "full" or "LoRA".
        num_microbatches: of a step.
        steps: of the run, with a checkpoint every two.
    """
    groups = groups_for(name)
    order = shuffled_steps(len(groups), steps, GROUPS_PER_STEP, seed=1)
    packing = packing_for(name, groups, order)
    loader = StepLoader(groups, order, packing, num_microbatches=num_microbatches)
    plain = make_objective(OBJECTIVES[name], Decoder(MODEL, dtype=jnp.float32, attention="expand"))
    params = init_params(plain, jax.random.key(0), loader.batch(0))
    objective: Any = plain
    frozen: Params | None = None
    if tuning == "LoRA":
        lora = LoraConfig(rank=2, alpha=4.0)
        objective, frozen = AdaptedObjective(plain, lora), freeze(params["model"], "as_given")
        params = {**params, "adapters": init_adapters(jax.random.key(1), params["model"], lora)}
        del params["model"]
    config = TrainConfig(
        steps=steps, num_microbatches=num_microbatches, optimizer=ADAMW, log_every_steps=1,
        checkpoints=CheckpointConfig(every_steps=2),
    )  # fmt: skip
    optimizer = make_optimizer(ADAMW, steps)
    step = make_train_step(objective, optimizer, mesh=one_device(), num_microbatches=num_microbatches)
    return Training(objective=objective, params=params, frozen=frozen, loader=loader, config=config, step=step)


class Watched:
    """A loader that notes the groups of every batch it gives."""

    def __init__(self, loader: StepLoader) -> None:
        self.loader = loader
        self.groups: dict[int, list[int]] = {}
        """{number of the batch: ids of its groups}."""

    def __iter__(self) -> Iterator[PackedBatch]:
        return _WatchedIterator(self)


class _WatchedIterator:
    def __init__(self, watched: Watched) -> None:
        self._watched, self._inner = watched, iter(watched.loader)

    def __iter__(self) -> _WatchedIterator:
        return self

    def __next__(self) -> PackedBatch:
        index = int(self._inner.get_state()["step"])
        batch = next(self._inner)
        self._watched.groups[index] = sorted(int(number) for number in batch.group_ids.ravel() if number >= 0)
        return batch

    def get_state(self) -> Any:
        return self._inner.get_state()

    def set_state(self, state: Any) -> None:
        self._inner.set_state(state)


def digest(tree: Any) -> str:
    """SHA-256 of all leaves, with their paths, types and shapes."""
    sha = hashlib.sha256()
    for path, leaf in jax.tree_util.tree_leaves_with_path(jax.device_get(tree)):
        array = np.asarray(leaf)
        sha.update(f"{jax.tree_util.keystr(path)} {array.dtype} {array.shape}".encode())
        sha.update(np.ascontiguousarray(array).tobytes())
    return sha.hexdigest()


def records(workdir: pathlib.Path) -> list[Mapping[str, Any]]:
    """The lines of ``metrics.jsonl`` without what they say of time."""
    rows = [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]
    return [{name: value for name, value in row.items() if name not in _TIMES} for row in rows]


class StopError(Exception):
    """Stands for anything that ends a process between two steps."""


def stop_at(step: int) -> Callable[[int, Any], None]:
    """An ``on_metrics`` that ends the run when the metrics of this step come: the next one is on its way then."""

    def stop(number: int, _: Any) -> None:
        if number == step:
            raise StopError

    return stop
