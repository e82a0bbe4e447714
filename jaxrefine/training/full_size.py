"""A fine-tuning at full size without weights, data or time: its very train step, ready to be traced or compiled."""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import TokenGroup, mle_weights
from jaxrefine.data.shapes import PackingConfig
from jaxrefine.data.steps import StepLoader
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.lora import init_adapters
from jaxrefine.scoring.adapted import AdaptedObjective, freeze
from jaxrefine.scoring.objectives import Objective, ObjectiveConfig, make_objective
from jaxrefine.sharding import ROWS, MeshConfig, make_mesh
from jaxrefine.training.compilation import Step
from jaxrefine.training.finetuning import Finetuning, step_packing
from jaxrefine.training.optimizer import make_optimizer
from jaxrefine.training.state import TrainState, abstract_state
from jaxrefine.training.step import make_train_step


@dataclasses.dataclass(frozen=True, kw_only=True)
class FullSize:
    """What one step of a fine-tuning reads and changes."""

    num_params: int
    """Of the model, frozen ones included."""
    num_trained: int
    """Of them and of heads and adapters, those that the optimiser holds moments of."""
    rows: tuple[int, int, int]
    """[A, B/A, S]: microbatches, rows of each, tokens of a row."""
    metrics: tuple[str, ...]
    """Names of what the step reports."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class NamedFinetuning:
    """One of the fine-tunings of a config, as its ``fine_tunings()`` lists them: what ``jaxrefine plan`` asks for."""

    name: str
    training: Finetuning
    num_candidates: int
    """Responses a prompt, the original one included; 0 for queries to be routed."""
    model: str | EncoderConfig | None = None
    """What it starts from: a directory or a published name; sizes; None is the shipped model."""


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class AbstractStep:
    """A train step with the shapes of all that it reads: ``step.compile(state, batch)`` needs nothing more."""

    step: Step
    state: TrainState
    """``ShapeDtypeStruct``s, placed."""
    batch: PackedBatch
    """``ShapeDtypeStruct``s [A, B/A, …]."""
    rows: PackedBatch
    """The same rows as arrays [B, …], groups as long as may be: what FLOPs are counted in."""
    packing: PackingConfig
    model: Any
    """The ``Decoder`` or ``Encoder``."""
    num_params: int
    """Of the model, frozen ones included."""

    @property
    def num_trained(self) -> int:
        """Parameters that the optimiser holds moments of."""
        return _size(self.state.params)

    @property
    def num_microbatches(self) -> int:
        """A."""
        return int(self.batch.tokens.shape[0])


def abstract_step(
    config: Finetuning,
    model: TransformerConfig | EncoderConfig,
    *,
    num_candidates: int,
    steps: int = 1000,
    mesh: Mesh | None = None,
    remat: str = "full",
    attention: str = "expand",
    logprobs: str = "xla",
    logprob_chunk: int | None = None,
    dtype: DTypeLike = jnp.bfloat16,
) -> AbstractStep:
    """The train step of a fine-tuning as ``finetune`` would make it, on batches as long as its limits allow.

    Args:
        config: what to learn.
        model: at full size.
        num_candidates: responses a prompt, the original one included; 0 for queries to be routed.
        steps: of the schedule.
        mesh: None is one device; its devices need not be there.
        remat: of the model.
        attention: of a decoder.
        logprobs: of a decoder.
        logprob_chunk: of a decoder.
        dtype: of the computation.

    Raises:
        ValueError: whatever does not fit together: an objective and its data, rows and microbatches, shapes.
    """
    mesh = make_mesh(MeshConfig(), jax.devices()[:1]) if mesh is None else mesh
    module: Any = (
        Decoder(model, dtype=dtype, attention=attention, remat=remat, logprobs=logprobs, logprob_chunk=logprob_chunk)
        if isinstance(model, TransformerConfig)
        else Encoder(model, dtype=dtype, remat=remat)
    )
    groups = [_longest(config, index, num_candidates) for index in range(config.groups_per_step)]
    order = (tuple(range(len(groups))),)
    shards = math.prod(int(mesh.shape[axis]) for axis in ROWS)
    packing = step_packing(groups, order, module, config, row_shares=shards)
    rows = StepLoader(groups, order, packing, num_microbatches=config.num_microbatches).batch(0)
    parts = config.num_microbatches
    batch = jax.tree.map(lambda x: jax.ShapeDtypeStruct((parts, x.shape[0] // parts, *x.shape[1:]), x.dtype), rows)
    plain = make_objective(config.objective, module)
    one = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape[1:], x.dtype), batch)
    params = jax.eval_shape(lambda row: dict(plain.init(jax.random.key(0), row)["params"]), one)
    num_params = _size(params["model"])
    objective: Objective | AdaptedObjective = plain
    frozen = None
    if config.tuning.parameters == "adapters":
        objective = AdaptedObjective(plain, config.tuning.lora)
        base = params.pop("model")
        frozen = jax.eval_shape(lambda tree: freeze(tree, config.tuning.base), base)
        adapters = jax.eval_shape(lambda tree: init_adapters(jax.random.key(0), tree, config.tuning.lora), base)
        params = {**params, "adapters": adapters}
    optimizer = make_optimizer(config.optimizer, steps)
    return AbstractStep(
        step=make_train_step(objective, optimizer, mesh=mesh, num_microbatches=parts),
        state=abstract_state(params, optimizer, mesh=mesh, frozen=frozen),
        batch=batch,
        rows=rows,
        packing=packing,
        model=module,
        num_params=num_params,
    )


def full_size(
    config: Finetuning,
    model: TransformerConfig | EncoderConfig,
    *,
    num_candidates: int,
    steps: int = 1000,
    mesh: Mesh | None = None,
    remat: str = "full",
) -> FullSize:
    """Traces the very train step of a fine-tuning; nothing is computed.

    Args:
        config: see ``abstract_step``, as the rest.
        model: as above.
        num_candidates: as above.
        steps: as above.
        mesh: as above.
        remat: as above.

    Raises:
        ValueError: whatever does not fit together: an objective and its data, rows and microbatches, shapes.
    """
    made = abstract_step(config, model, num_candidates=num_candidates, steps=steps, mesh=mesh, remat=remat)
    after, metrics = made.step.shapes(made.state, made.batch)
    jax.tree.map(_check_same, after, made.state)
    parts, rows, slots = made.batch.tokens.shape
    return FullSize(
        num_params=made.num_params,
        num_trained=made.num_trained,
        rows=(parts, rows, slots),
        metrics=tuple(sorted(metrics)),
    )


def _check_same(after: Any, before: Any) -> None:
    if (after.shape, after.dtype) != (before.shape, before.dtype):
        raise ValueError(f"the step makes {after} of {before}")


def _size(tree: Any) -> int:
    return sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(tree))


def _longest(config: Finetuning, index: int, num_candidates: int) -> TokenGroup:
    """A group as long as may be, with labels that differ."""
    labels = tuple(float(n % 2 == 0) for n in range(num_candidates))
    objective: ObjectiveConfig = config.objective
    routes = objective.num_models
    return TokenGroup(
        index,
        (1,) * config.max_prompt,
        ((1,) * config.max_response,) * num_candidates,
        labels=labels,
        mle_weight=mle_weights(labels, "first" if config.mle_on == "original" else config.mle_on),
        suffix=(1,) * 4 if objective.scorer == "verdict" else (),
        verdicts=((1,), (2,)) if objective.scorer == "verdict" else None,
        rewards=None if routes is None else tuple(np.linspace(0.0, 1.0, routes).tolist()),
    )
