"""One train step for every objective."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from jaxrefine.data.batch import PackedBatch
from jaxrefine.sharding import constrain_params, param_shardings
from jaxrefine.training.compilation import Step
from jaxrefine.training.optimizer import Optimizer
from jaxrefine.training.state import RECENT_STEPS, TrainState, variables
from jaxrefine.typing import Array, Bool, Float

Metrics = dict[str, Any]
SPIKES_AFTER = 32
"""Steps that have to be taken before one is called a spike."""


def num_tokens(batch: PackedBatch) -> Float[Array, ""]:
    """Slots that hold a token, over all leading axes: rows are filled from the left."""
    own = jnp.arange(1, batch.ends.shape[-1] + 1, dtype=batch.ends.dtype)
    own = jnp.expand_dims(own, range(batch.ends.ndim - 1))
    inner = jnp.max(jnp.where(batch.ends != own, batch.ends, 0), -1)
    bare = jnp.max(jnp.where(batch.group_ids >= 0, batch.prompt_last + 1, 0), -1)
    return jnp.sum(jnp.maximum(inner, bare)).astype(jnp.float32)


def batch_metrics(batch: PackedBatch, learns: Bool[Array, ...]) -> Metrics:
    """What a batch holds: tokens, scored tokens, groups, and the share of groups without anything to learn from.

    Args:
        batch: with any leading axes.
        learns: of the objective, for each group.
    """
    present = batch.group_ids >= 0
    groups = jnp.sum(present).astype(jnp.float32)
    return {
        "tokens": num_tokens(batch),
        "scored_tokens": jnp.sum(batch.leaves >= 0).astype(jnp.float32),
        "groups": groups,
        "share_without_loss": jnp.sum(present & ~learns).astype(jnp.float32) / jnp.maximum(groups, 1),
    }


def is_spike(
    loss: Float[Array, ""], grad_norm: Float[Array, ""], recent: Float[Array, "2 W"], num_taken: Any, *, factor: float
) -> Bool[Array, ""]:
    """Whether a step's loss or gradient norm lies far above those of the last W steps that were taken.

    value > mean + factor · max(standard deviation, |mean| / 20); never before ``SPIKES_AFTER`` steps. The floor keeps
    a run whose loss hardly varies from calling a small change a spike.

    Args:
        loss: of this step.
        grad_norm: of this step, before clipping.
        recent: ``TrainState.recent``.
        num_taken: steps taken before this one.
        factor: standard deviations.

    >>> recent = jnp.stack([jnp.full(4, 2.0), jnp.full(4, 1.0)])  # limits at factor 6: 2 + 6 · 0.1 and 1 + 6 · 0.05
    >>> [bool(is_spike(jnp.float32(x), jnp.float32(1.2), recent, 99, factor=6.0)) for x in (2.5, 2.7)]
    [False, True]
    """
    num = jnp.minimum(num_taken, recent.shape[1])
    there = (jnp.arange(recent.shape[1]) < num)[None]
    count = jnp.maximum(num, 1).astype(jnp.float32)
    mean = jnp.sum(jnp.where(there, recent, 0.0), 1, keepdims=True) / count
    spread = jnp.sqrt(jnp.sum(jnp.where(there, jnp.square(recent - mean), 0.0), 1, keepdims=True) / count)
    limit = mean + factor * jnp.maximum(spread, jnp.abs(mean) / 20)
    return (num_taken >= SPIKES_AFTER) & jnp.any(jnp.stack([loss, grad_norm])[:, None] > limit)


def _first(batch: PackedBatch) -> PackedBatch:
    return jax.tree.map(lambda x: x[0], batch)


def _losses(objective: Any, frozen: Any, batch: PackedBatch) -> tuple[dict[str, Any], Callable[..., Any]]:
    """Global counts, and the function (params, microbatch, key) -> its part of the loss, (term sums, metric pairs)."""
    counts = jax.tree.map(lambda x: jnp.sum(x.astype(jnp.float32), 0), jax.vmap(objective.counts)(batch))

    def part(params: Any, rows: PackedBatch, key: Any) -> tuple[Any, tuple[Any, Any]]:
        rngs = None if key is None else {"dropout": key}
        terms, metrics = objective.apply(variables(params, frozen), rows, rngs=rngs)
        if terms.keys() != counts.keys():
            raise ValueError(f"objective gives terms {sorted(terms)}, but counts {sorted(counts)}")
        total = jnp.zeros((), jnp.float32)
        for name, (value, _, coefficient) in terms.items():
            total += coefficient * value.astype(jnp.float32) / jnp.maximum(counts[name], 1)
        return total, ({name: term[0].astype(jnp.float32) for name, term in terms.items()}, metrics)

    return counts, part


def _learns(objective: Any, batch: PackedBatch) -> Any:
    """[A B G]"""
    if hasattr(objective, "learns"):
        return jax.vmap(objective.learns)(batch)
    marked = jnp.any(batch.rank_where | (batch.mle_weight > 0), -1)
    return marked if batch.reward_where is None else marked | jnp.any(batch.reward_where, -1)


def _report(loss: Any, sums: Any, counts: Any, pairs: Any) -> Metrics:
    metrics = {"loss": loss}
    for name, value in sums.items():
        metrics[f"loss/{name}"] = value / jnp.maximum(counts[name], 1)
        metrics[f"count/{name}"] = counts[name]
    # Nothing counted: not a number, which the writers leave out.
    return metrics | {name: value / jnp.where(count > 0, count, jnp.nan) for name, (value, count) in pairs.items()}


def _as_floats(pairs: Any) -> Any:
    return jax.tree.map(lambda x: jnp.asarray(x).astype(jnp.float32), pairs)


def make_train_step(
    objective: Any,
    optimizer: Optimizer,
    *,
    mesh: Mesh,
    num_microbatches: int = 1,
    spike_factor: float | None = None,
    compiler_options: Mapping[str, Any] | None = None,
) -> Step:
    """(state, batch [A B …]) -> (state, metrics), jitted over the mesh, the state donated.

    loss = Σ_terms coefficient · (Σ_microbatches sum) / (Σ_microbatches count): the denominators are those of the whole
    global batch and come from its masks before the first microbatch, so accumulation is exact for groups, pairs and
    tokens alike. A step whose loss or gradient is not finite, or that has nothing to learn from, or that is a spike
    where those are skipped, keeps the old parameters and optimiser state to the bit.

    Args:
        objective: Flax module: ``apply({"params": …}, batch)`` gives ``{term: (sum, count, coefficient)}`` and
            ``{metric: (sum, count)}``, and ``counts(batch)`` gives ``{term: count}``. What the state holds frozen is
            handed to it beside ``"params"`` as ``"frozen"``. ``learns(batch)``, where it has that, says which groups
            [B G] count for anything; otherwise those are taken that have a mark.
        optimizer: from ``make_optimizer``.
        mesh: from ``sharding.make_mesh``.
        num_microbatches: A; gradients of A microbatches are summed before one update.
        spike_factor: skip the steps that ``is_spike`` names; None takes them, as every paper does.
        compiler_options: XLA's own, by name, such as ``{"xla_gpu_deterministic_ops": True}``.

    Returns:
        A ``Step``. Metrics are replicated fp32 scalars: ``loss``, ``loss/<term>``, ``count/<term>``, the objective's
        own, those of ``batch_metrics``, ``grad_norm`` (before clipping), ``learning_rate``, ``finite`` (1 or 0),
        ``spike`` (1 or 0, where those are skipped), ``num_skipped`` and ``num_bad_in_a_row``
        (up to and including this step).

    Raises:
        ValueError: a factor that is not positive.
    """
    if spike_factor is not None and not spike_factor > 0:
        raise ValueError(f"spike_factor = {spike_factor} must be positive, or None to take every finite step")

    def gradients(params: Any, frozen: Any, batch: PackedBatch, key: Any) -> Any:
        counts, part = _losses(objective, frozen, batch)
        grad = jax.value_and_grad(part, has_aux=True)
        if num_microbatches == 1:
            (loss, (sums, pairs)), grads = grad(params, _first(batch), key)
            return loss, sums, counts, _as_floats(pairs), constrain_params(grads)

        def split_sums(grads: Any) -> Any:
            # Summed in fp32, whatever the parameters are stored in, and each device sums its own share.
            return constrain_params(jax.tree.map(lambda x: x.astype(jnp.float32), grads))

        def add(total: Any, item: Any) -> Any:
            index, rows = item
            (loss, (sums, pairs)), grads = grad(params, rows, jax.random.fold_in(key, index))
            return jax.tree.map(jnp.add, total, (loss, sums, _as_floats(pairs), split_sums(grads))), None

        (loss, (sums, pairs)), grads = jax.eval_shape(grad, params, _first(batch), key)
        shapes = (loss, sums, jax.eval_shape(_as_floats, pairs))
        zeros = jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), shapes)
        start = split_sums(jax.tree.map(lambda x: jnp.zeros(x.shape, x.dtype), grads))
        (loss, sums, pairs, grads), _ = jax.lax.scan(add, (*zeros, start), (jnp.arange(num_microbatches), batch))
        return loss, sums, counts, pairs, grads

    def train_step(state: TrainState, batch: PackedBatch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(jax.random.wrap_key_data(state.key), state.step)
        loss, sums, counts, pairs, grads = gradients(state.params, state.frozen, batch, key)
        grad_norm = jnp.sqrt(sum(jnp.sum(jnp.square(grad.astype(jnp.float32))) for grad in jax.tree.leaves(grads)))
        finite = jnp.isfinite(loss) & jnp.isfinite(grad_norm)
        learns = sum(counts.values(), jnp.zeros((), jnp.float32)) > 0
        num_taken = state.step - state.num_skipped
        good = finite
        if spike_factor is not None:
            good &= ~is_spike(loss, grad_norm, state.recent, num_taken, factor=spike_factor)
        taken = good & learns
        old = state.opt_state
        if optimizer.offload:  # what the step returns goes back by its placement
            old = jax.device_put(old, param_shardings(old, mesh))
        updates, opt_state = optimizer.update(grads, old, state.params)
        params = optimizer.apply(state.params, updates, jax.random.fold_in(key, num_microbatches))
        keep = lambda new, old: jnp.where(taken, new, old)  # noqa: E731
        new = dataclasses.replace(
            state,
            step=state.step + 1,
            params=jax.tree.map(keep, params, state.params),
            opt_state=jax.tree.map(keep, opt_state, old),
            num_skipped=state.num_skipped + 1 - taken.astype(jnp.int32),
            num_bad_in_a_row=jnp.where(good, 0, state.num_bad_in_a_row + 1),
            recent=jnp.where(
                taken & (jnp.arange(RECENT_STEPS) == num_taken % RECENT_STEPS)[None],
                jnp.stack([loss, grad_norm])[:, None],
                state.recent,
            ),
        )
        metrics = _report(loss, sums, counts, pairs) | batch_metrics(batch, _learns(objective, batch))
        if spike_factor is not None:
            metrics["spike"] = (finite & ~good).astype(jnp.float32)
        metrics |= {
            "grad_norm": grad_norm,
            "learning_rate": optimizer.schedule(num_taken),
            "finite": finite.astype(jnp.float32),
            "num_skipped": new.num_skipped.astype(jnp.float32),
            "num_bad_in_a_row": new.num_bad_in_a_row.astype(jnp.float32),
        }
        return new, metrics

    return Step(train_step, mesh=mesh, donate=True, compiler_options=compiler_options)


def make_eval_step(objective: Any, *, mesh: Mesh) -> Step:
    """(params or a whole state, batch [1 B …]) -> {name: (sum, count)}: add them up over batches, then divide.

    Terms come as ``loss/<term>``; nothing is donated.
    """

    def eval_step(tree: Any, batch: PackedBatch) -> Metrics:
        given = tree.variables if isinstance(tree, TrainState) else variables(tree)
        terms, pairs = objective.apply(given, _first(batch))
        sums = {f"loss/{name}": (value, count) for name, (value, count, _) in terms.items()}
        return _as_floats(sums | pairs)

    return Step(eval_step, mesh=mesh, donate=False)
