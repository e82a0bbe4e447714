"""T10, T11: what is not finite, jumps, or has nothing to teach never reaches the weights."""

from __future__ import annotations

import dataclasses
import io
import itertools
import pathlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from rich.console import Console

from benchmarks.faults.resume import COMBINATIONS
from benchmarks.faults.runs import ADAMW, Training, digest, groups_for, one_device, training
from benchmarks.faults.trial import Fault, Outcome
from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.layout import batch_from_groups
from jaxrefine.data.loader import Loader
from jaxrefine.data.shapes import plan_rows
from jaxrefine.training.checkpoints import CheckpointConfig, Checkpoints
from jaxrefine.training.compilation import Step
from jaxrefine.training.loop import NonFiniteError, NothingToLearnError, TrainConfig, fit
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import TrainState, abstract_state, init_state
from jaxrefine.training.step import SPIKES_AFTER, make_train_step

_SGD = OptimizerConfig(name="sgd", learning_rate=1e-3, momentum=0.9, schedule="constant", clip_norm=None)
_BAD = {"NaN weight": np.nan, "infinite weight": np.inf, "NaN loss": 2.0, "infinite gradient": 3.0, "spike": 4.0}
"""What is put where: into the batch's weights, or as a code that ``_Faulty`` reads."""
_STEPS, _IN_A_ROW = 60, 3


@dataclasses.dataclass(frozen=True)
class _Faulty:
    """An objective that goes wrong where a batch's reference scores tell it to."""

    inner: Any

    def apply(self, variables: Any, batch: PackedBatch, *, rngs: Any = None) -> Any:
        terms, metrics = self.inner.apply(variables, batch, rngs=rngs)
        code = jnp.max(batch.reference_scores)
        name = next(iter(terms))
        value, count, coefficient = terms[name]
        # The square root of zero: its value is 0 and its slope infinite; of one, elsewhere, its slope is not used.
        zero = jnp.where(code == 3, value - jax.lax.stop_gradient(value), 1.0)
        value = value + jnp.sqrt(zero) - jnp.where(code == 3, 0.0, 1.0)
        value = jnp.where(code == 2, jnp.nan, jnp.where(code == 4, 10 * value, value))
        return {**terms, name: (value, count, coefficient)}, metrics

    def counts(self, batch: PackedBatch) -> Any:
        return self.inner.counts(batch)

    def learns(self, batch: PackedBatch) -> Any:
        return self.inner.learns(batch)


@dataclasses.dataclass(frozen=True)
class _Trained:
    """A run some steps in, on the host."""

    run: Training
    step: Step
    state: TrainState
    kinds: Iterator[str]


def _trained(_: pathlib.Path) -> _Trained:
    run = training("listwise")
    optimizer = make_optimizer(_SGD, _STEPS)
    step = make_train_step(_Faulty(run.objective), optimizer, mesh=one_device(), spike_factor=6.0)
    state = init_state(run.params, optimizer, jax.random.key(0), mesh=one_device())
    for number in range(SPIKES_AFTER):
        state, _metrics = step(state, _good(run, number))
    return _Trained(run, step, jax.device_get(state), itertools.cycle(_BAD))


def _batch(run: Training, number: int) -> PackedBatch:
    return run.loader.batch(number % len(run.loader))


def _good(run: Training, number: int) -> PackedBatch:
    return to_device(_batch(run, number), mesh=one_device())


def _spoiled(run: Training, number: int, kind: str) -> PackedBatch:
    batch, value = _batch(run, number), _BAD[kind]
    name = "mle_weight" if kind.endswith("weight") else "reference_scores"
    spoiled = np.array(getattr(batch, name))
    places = np.argwhere(batch.mle_weight > 0)
    spoiled[tuple(places[number % len(places)])] = value
    return batch.replace(**{name: spoiled})


def _kept_out(shared: _Trained, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    kind = next(shared.kinds)
    run, first = shared.run, int(shared.state.step)
    placed = init_state(run.params, make_optimizer(_SGD, _STEPS), jax.random.key(0), mesh=one_device())
    shardings = jax.tree.map(lambda x: x.sharding, placed)
    before = int(generator.integers(0, 4))
    state = jax.device_put(shared.state, shardings)
    for number in range(before):
        state, _ = shared.step(state, _good(run, first + number))
    where = digest((state.params, state.opt_state))
    problems = []
    bad = to_device(_spoiled(run, first + before, kind), mesh=one_device())
    state, metrics = shared.step(state, bad)
    if digest((state.params, state.opt_state)) != where:
        problems.append("the skipped step changed parameters or optimiser")
    counted = (int(state.num_skipped), int(state.num_bad_in_a_row), int(state.step))
    if counted != (1, 1, first + before + 1):
        problems.append(f"counters {counted}")
    if (float(metrics["finite"]), float(metrics["spike"])) != ((1.0, 1.0) if kind == "spike" else (0.0, 0.0)):
        problems.append(f"metrics finite {float(metrics['finite'])}, spike {float(metrics['spike'])}")
    # One that comes after is as if it had not been: a weight that got in would show.
    state, _ = shared.step(state, _good(run, first))
    other = jax.device_put(shared.state, shardings)
    for number in [*range(before), 0]:
        other, _ = shared.step(other, _good(run, first + number))
    if digest(state.params) != digest(other.params):
        problems.append("training goes on otherwise than without the bad step")
    problems += _ended(shared, kind, first + before, place)
    return Outcome(passed=not problems, detail=f"{kind}: {'; '.join(problems)}")


def _ended(shared: _Trained, kind: str, since: int, place: pathlib.Path) -> list[str]:
    """From step ``since`` on every batch is bad: the run ends after K, with the checkpoint."""
    run, config = shared.run, TrainConfig(
        steps=_STEPS, optimizer=_SGD, log_every_steps=1, max_consecutive_bad_steps=_IN_A_ROW, spike_factor=6.0,
        checkpoints=CheckpointConfig(every_steps=1, keep=_IN_A_ROW + 1),
    )  # fmt: skip
    optimizer = make_optimizer(_SGD, _STEPS)
    fresh = init_state(run.params, optimizer, jax.random.key(0), mesh=one_device())
    start = jax.device_put(shared.state, jax.tree.map(lambda x: x.sharding, fresh))
    batches = [_spoiled(run, n, kind) if n >= since else _batch(run, n) for n in range(since + _IN_A_ROW + 2)]
    try:
        fit(
            None, start, batches, config, place, mesh=one_device(), train_step=shared.step, optimizer=optimizer,
            console=Console(file=io.StringIO()),
        )  # fmt: skip
    except NonFiniteError as error:
        if error.step != since + _IN_A_ROW or sorted(error.group_ids) != [since + 1 + n for n in range(_IN_A_ROW)]:
            return [f"ended at step {error.step} with {sorted(error.group_ids)}"]
    else:
        return ["the run did not end"]
    checkpoints = Checkpoints(place / "checkpoints", config.checkpoints)
    restored = checkpoints.restore(abstract_state(run.params, optimizer, mesh=one_device()))
    checkpoints.close()
    if restored is None:
        return ["no checkpoint was kept"]
    finite = all(bool(np.isfinite(leaf).all()) for leaf in jax.tree.leaves(jax.device_get(restored[0].params)))
    return [] if finite else ["the checkpoint is not finite"]


_NOTHING = ("masked", "empty", "single", "tied")
_LEARNS = {("classification", "single"), ("classification", "tied"), ("KL", "tied")}
"""By the losses' definitions: a verdict is learned from each candidate, and equal rewards are a target like others."""


def _without(kind: str, name: str, group: TokenGroup) -> TokenGroup:
    """The group with nothing to compare."""
    num = len(group.responses)
    changed = dataclasses.replace(group, mle_weight=(0.0,) * num)
    if group.rewards is not None:
        where = {"masked": (False,) * 3, "empty": (False,) * 3, "single": (True, False, False), "tied": (True,) * 3}
        rewards = (0.5,) * 3 if kind == "tied" else group.rewards
        return dataclasses.replace(changed, rewards=rewards, reward_where=where[kind])
    if kind == "masked":
        return dataclasses.replace(changed, rank_where=(False,) * num)
    if kind == "tied":
        return dataclasses.replace(changed, labels=(1.0,) * num)
    left = 1 if kind == "single" else 0
    fields = ("responses", "labels", "rank_where", "mle_weight", "reference_scores")
    return dataclasses.replace(changed, **{field: getattr(changed, field)[:left] for field in fields})


def _turns(_: pathlib.Path) -> Iterator[tuple[tuple[str, str, int], str]]:
    # Four kinds and four objectives, each next to each in turn.
    return itertools.cycle(
        (COMBINATIONS[number % 4], kind)
        for turn in range(4)
        for number, kind in enumerate(_NOTHING[turn:] + _NOTHING[:turn])
    )


def _nothing_to_learn(shared: Any, generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    (name, tuning, parts), kind = next(shared)
    run = training(name, tuning, parts)
    packing = run.loader.packing
    able = [group for group in groups_for(name) if group.rewards is not None or len(group.responses) > 1]
    total = 6
    number = total if generator.random() < 0.5 else int(generator.integers(1, total))
    chosen = [able[int(index)] for index in generator.choice(len(able), total, False)]
    groups = [_without(kind, name, group) if n < number else group for n, group in enumerate(chosen)]
    rows = plan_rows([packing.measure(group) for group in groups], packing)
    batch = batch_from_groups([[groups[index] for index in row] for row in rows], packing)
    without = 0 if (name, kind) in _LEARNS else number
    optimizer = make_optimizer(ADAMW, run.config.steps)
    state = init_state(run.params, optimizer, jax.random.key(0), mesh=one_device(), frozen=run.frozen)
    before = digest((state.params, state.opt_state))
    state, values = run.step(state, to_device(batch, mesh=one_device(), num_microbatches=parts))
    metrics = {key: float(value) for key, value in jax.device_get(values).items()}
    problems = []
    if not np.isfinite(metrics["loss"]) or not np.isfinite(metrics["grad_norm"]) or metrics["finite"] != 1:
        problems.append(f"loss {metrics['loss']}, gradient norm {metrics['grad_norm']}")
    if abs(metrics["share_without_loss"] - without / total) > 1e-6:
        problems.append(f"share_without_loss {metrics['share_without_loss']}, by hand {without}/{total}")
    unchanged = digest((state.params, state.opt_state)) == before
    if unchanged != (without == total):
        problems.append("weights stayed" if unchanged else "weights moved without anything to learn from")
    if without == total and (metrics["loss"], metrics["grad_norm"]) != (0.0, 0.0):
        problems.append(f"loss {metrics['loss']} and gradient norm {metrics['grad_norm']} of nothing")
    problems += _told(run, batch, place, all_without=without == total)
    problems += _too_long(run, chosen)
    return Outcome(passed=not problems, detail=f"{name}, {tuning}, {number} of {total} {kind}: {'; '.join(problems)}")


def _told(run: Training, batch: PackedBatch, place: pathlib.Path, *, all_without: bool) -> list[str]:
    """A run of such batches ends with an error, and only where all groups are such."""
    config = dataclasses.replace(run.config, checkpoints=None)
    try:
        run.run(config=config, loader=[batch] * config.steps)
    except NothingToLearnError:
        return [] if all_without else ["a run with something to learn from was ended"]
    return ["a run that learns nothing was not ended"] if all_without else []


def _too_long(run: Training, groups: list[TokenGroup]) -> list[str]:
    """A group that fits no row is counted and named, and the others are there."""
    long = dataclasses.replace(groups[0], group_id=0, prompt=(3,) * (run.loader.packing.slots + 1))
    rest = [dataclasses.replace(group, group_id=n) for n, group in enumerate(groups[1:], 1)]
    loader = Loader([long, *rest], run.loader.packing, seed=0, epochs=1)
    seen = sorted(int(i) for one in loader for i in one.group_ids.ravel() if i >= 0)
    if [item.group_id for item in loader.refused] != [0] or seen != list(range(1, len(groups))):
        return [f"refused {loader.refused}, seen {seen}"]
    return []


FAULTS = (
    Fault(
        name="T10",
        title="one step with a NaN or infinite weight in the batch, a NaN loss, an infinite gradient of a finite loss, "
        "a loss ten times as large; then such steps only",
        criterion="parameters and optimiser unchanged to the bit, the step counted, the next step as if it had not "
        f"been; the run ends after {_IN_A_ROW} in a row with a finite checkpoint",
        trial=_kept_out,
        prepare=_trained,
        num_trials=300,
        num_fast=5,
        baseline="measured (optax apply_if_finite): NaN reaches the weights on the step after its limit",
    ),
    Fault(
        name="T11",
        title="groups all masked, without candidates, with a single one, all tied, among others or alone, and one "
        "longer than a row; for pairwise, listwise, classification, KL",
        criterion="loss and gradient finite; share_without_loss as counted by hand; weights unchanged where nothing "
        "can be learned, and the run ended by name; the long group refused and counted",
        trial=_nothing_to_learn,
        prepare=_turns,
        num_trials=300,
        num_fast=4,
        baseline="published: TRL#6668 reports loss 0.0 for an all-masked batch whose forward pass is NaN",
    ),
)
