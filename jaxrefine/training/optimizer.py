"""Optimisers and learning-rate schedules, from optax."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax
from jax.typing import DTypeLike

from jaxrefine.config import unknown_name
from jaxrefine.sharding import path_of
from jaxrefine.training.moments import Moments, compact_trace, is_matrix, round_to_bfloat16, scale_by_compact_adam
from jaxrefine.typing import Scalar

Name = Literal["adamw", "sgd"]
ScheduleName = Literal["cosine", "linear", "constant"]
Masters = Literal["float32", "bfloat16"]

DECAYED = ("kernel", "embedding")
"""Parameters of these names are decayed; norms and biases are not."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class OptimizerConfig:
    """One optimiser with its schedule.

    The rate rises linearly from 0 to ``learning_rate`` during warm-up, then falls to
    ``learning_rate * final_share`` at the last step (cosine, linear) or stays (constant).

    >>> OptimizerConfig(warmup_share=0.1).warmup(200)
    20
    """

    name: Name = "adamw"
    learning_rate: float = 1e-4
    schedule: ScheduleName = "cosine"
    warmup_steps: int = 0
    """Steps of warm-up; or give ``warmup_share``."""
    warmup_share: float = 0.0
    """Warm-up as a share of all steps, rounded; 0 means ``warmup_steps`` holds."""
    final_share: float = 0.0
    """Rate at the last step, as a share of the peak."""
    weight_decay: float = 0.0
    """Decoupled, multiplied by the rate; of kernels and embeddings only."""
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    momentum: float = 0.0
    """Of SGD."""
    clip_norm: float | None = 1.0
    """Gradients longer than this (global Euclidean norm, before the optimiser) are shortened to it."""
    moments: Moments = "float32"
    """How AdamW's moments of matrices are stored, bytes a parameter for both: float32 8, bfloat16 4, int8 2.125; half
    of that for SGD's momentum."""
    masters: Masters = "float32"
    """How trained matrices are stored: 4 bytes a parameter, or 2, each update then rounded at random to a neighbour."""
    offload: bool = False
    """Moments lie in pinned memory of the host between updates, where the backend has such."""

    def __post_init__(self) -> None:
        choices = {"name": Name, "schedule": ScheduleName, "moments": Moments, "masters": Masters}
        for field, literal in choices.items():
            allowed = get_args(literal)
            if (given := getattr(self, field)) not in allowed:
                raise ValueError(unknown_name(given, allowed, f"optimizer.{field}"))
        if self.warmup_steps and self.warmup_share:
            raise ValueError(
                f"give one of optimizer.warmup_steps = {self.warmup_steps} and warmup_share = {self.warmup_share}"
            )
        for field in ("learning_rate", "weight_decay", "eps", "warmup_steps"):
            if (value := getattr(self, field)) < 0:
                raise ValueError(f"optimizer.{field} = {value} must not be negative")
        for field in ("warmup_share", "final_share", "b1", "b2", "momentum"):
            if not 0 <= (value := getattr(self, field)) <= 1:
                raise ValueError(f"optimizer.{field} = {value} must lie between 0 and 1")
        if self.clip_norm is not None and self.clip_norm <= 0:
            raise ValueError(f"optimizer.clip_norm = {self.clip_norm} must be positive, or None for no clipping")

    def warmup(self, num_steps: int) -> int:
        """Steps of warm-up in a run of ``num_steps``."""
        return round(self.warmup_share * num_steps) if self.warmup_share else self.warmup_steps


class Optimizer(NamedTuple):
    """An optax transformation, its schedule (updates made so far -> learning rate), and what is stored how."""

    init: Callable[[Any], Any]
    update: Callable[[Any, Any, Any], tuple[Any, Any]]
    schedule: Callable[[Any], Scalar]
    masters: DTypeLike = jnp.float32
    """Of the trained matrices; all else that is trained is fp32."""
    offload: bool = False
    """Whether the state lies in the host's memory between updates."""

    def stored(self, params: Any) -> Any:
        """Parameters in the dtypes in which they are trained."""

        def store(path: Any, x: Any) -> Any:
            if not jnp.issubdtype(x.dtype, jnp.floating):
                return x
            return x.astype(self.masters if is_matrix(path, x) else jnp.float32)

        return jax.tree_util.tree_map_with_path(store, params)

    def apply(self, params: Any, updates: Any, key: Any) -> Any:
        """New parameters; those in bfloat16 are rounded at random by the key, so that small updates add up."""
        treedef: Any = jax.tree.structure(params)
        leaves = treedef.flatten_up_to(params)
        new = []
        for number, (x, change) in enumerate(zip(leaves, treedef.flatten_up_to(updates), strict=True)):
            total = x.astype(jnp.float32) + change.astype(jnp.float32)
            is_short = x.dtype == jnp.bfloat16
            new.append(round_to_bfloat16(total, jax.random.fold_in(key, number)) if is_short else total.astype(x.dtype))
        return treedef.unflatten(new)


def make_schedule(config: OptimizerConfig, num_steps: int) -> optax.Schedule:
    """Learning rate by the number of updates made so far.

    >>> schedule = make_schedule(OptimizerConfig(learning_rate=1.0, schedule="linear", warmup_steps=2), 6)
    >>> [round(float(schedule(step)), 2) for step in range(7)]
    [0.0, 0.5, 1.0, 0.75, 0.5, 0.25, 0.0]
    """
    warmup = config.warmup(num_steps)
    if warmup > num_steps:
        raise ValueError(f"optimizer.warmup_steps = {warmup} is longer than the run of {num_steps} steps")
    peak, rest = config.learning_rate, max(num_steps - warmup, 1)
    decay = {
        "cosine": lambda: optax.cosine_decay_schedule(peak, rest, alpha=config.final_share),
        "linear": lambda: optax.linear_schedule(peak, peak * config.final_share, rest),
        "constant": lambda: optax.constant_schedule(peak),
    }[config.schedule]()
    if not warmup:
        return decay
    return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), decay], [warmup])


def decay_mask(params: Any) -> Any:
    """True for the parameters that weight decay shrinks."""
    return jax.tree_util.tree_map_with_path(lambda path, _: path_of(path).rsplit("/", 1)[-1] in DECAYED, params)


def make_optimizer(config: OptimizerConfig, num_steps: int) -> Optimizer:
    """Clip by the global norm, then AdamW (Loshchilov & Hutter 2019, arXiv:1711.05101) or SGD, with a schedule.

    Args:
        config: names and numbers.
        num_steps: length of the run in steps, for the schedule.

    Returns:
        ``init(params)``, ``update(grads, opt_state, params)`` and the schedule.
    """
    schedule = make_schedule(config, num_steps)
    parts = [] if config.clip_norm is None else [optax.clip_by_global_norm(config.clip_norm)]
    exact = config.moments == "float32"
    if config.name == "adamw":
        parts.append(
            optax.scale_by_adam(b1=config.b1, b2=config.b2, eps=config.eps)
            if exact
            else scale_by_compact_adam(config.b1, config.b2, config.eps, config.moments)
        )
    elif config.momentum:
        parts.append(optax.trace(decay=config.momentum) if exact else compact_trace(config.momentum, config.moments))
    if config.weight_decay:
        parts.append(optax.add_decayed_weights(config.weight_decay, mask=decay_mask))
    parts.append(optax.scale_by_learning_rate(schedule))
    chain = optax.chain(*parts)

    def init(params: Any) -> Any:
        return chain.init(_in_fp32(params))

    def update(grads: Any, opt_state: Any, params: Any) -> tuple[Any, Any]:
        # optax mixes Python floats and int32 counters.
        with jax.numpy_dtype_promotion("standard"):
            return chain.update(_in_fp32(grads), opt_state, _in_fp32(params))

    def rate(num_updates: Any) -> Scalar:
        with jax.numpy_dtype_promotion("standard"):
            return jax.numpy.asarray(schedule(num_updates), jax.numpy.float32)

    return Optimizer(init, update, rate, jnp.dtype(config.masters), config.offload)


def _in_fp32(tree: Any) -> Any:
    return jax.tree.map(lambda x: x.astype(jnp.float32) if x.dtype == jnp.bfloat16 else x, tree)
