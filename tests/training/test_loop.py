"""The loop: a step late, never waiting, never losing a record."""

from __future__ import annotations

import functools
import io
import json
import signal
import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from rich.console import Console

from jaxrefine.sharding import make_mesh
from jaxrefine.training.checkpoints import CheckpointConfig
from jaxrefine.training.compilation import Step
from jaxrefine.training.loop import NonFiniteError, TrainConfig, fit
from jaxrefine.training.optimizer import OptimizerConfig, make_optimizer
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.state import init_params, init_state
from jaxrefine.training.step import make_train_step
from tests.training.tiny_objective import CountingLoader, TinyObjective, make_batch

ADAMW = OptimizerConfig(learning_rate=0.01, warmup_steps=2)
TIMES = ("step_seconds", "tokens_per_second", "scored_tokens_per_second")


@functools.cache
def mesh():
    return make_mesh(devices=jax.devices()[:1])


@functools.cache
def step(steps, num_microbatches):
    """Compiled once for the whole file."""
    return make_train_step(
        TinyObjective(), make_optimizer(ADAMW, steps), mesh=mesh(), num_microbatches=num_microbatches
    )


@functools.cache
def new_params():
    return init_params(TinyObjective(), jax.random.key(0), make_batch(0))


def run(workdir=None, *, loader=None, steps=6, start=None, compiled=None, **options):
    names = ("evaluate", "on_metrics", "console", "consume")
    hooks = {name: options.pop(name) for name in names if name in options}
    config = TrainConfig(steps=steps, optimizer=ADAMW, **({"log_every_steps": 1} | options))
    return fit(
        TinyObjective(), start or new_params(), loader or CountingLoader(20), config, workdir, mesh=mesh(),
        train_step=compiled or step(steps, config.num_microbatches), **hooks,
    )  # fmt: skip


def records(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def timeless(rows):
    return [{name: value for name, value in row.items() if name not in TIMES} for row in rows]


def assert_same_bits(found, expected):
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b)


class Recorder(Step):
    """A compiled step that writes down when it is called."""

    def __init__(self, inner, events):
        self.inner, self.events, self.num_calls = inner, events, 0
        self.mesh = inner.mesh

    def compile(self, *arguments):
        return self.inner.compile(*arguments)

    def __call__(self, *arguments):
        self.num_calls += 1
        self.events.append(("dispatched", self.num_calls))
        return self.inner(*arguments)


def test_metrics_are_fetched_when_the_next_step_is_already_on_its_way():
    events = []
    run(steps=3, compiled=Recorder(step(3, 1), events), on_metrics=lambda number, _: events.append(("fetched", number)))
    assert events == [
        ("dispatched", 1), ("dispatched", 2), ("fetched", 1), ("dispatched", 3), ("fetched", 2), ("fetched", 3),
    ]  # fmt: skip


def test_the_loop_equals_a_loop_by_hand():
    state = run()
    expected = init_state(new_params(), make_optimizer(ADAMW, 6), jax.random.key(0), mesh=mesh())
    for seed in range(6):
        expected, _ = step(6, 1)(expected, to_device(make_batch(seed), mesh=mesh()))
    assert_same_bits(state, expected)


def test_nothing_compiles_after_the_first_step(caplog):
    late = []

    def watch(number, _):
        if number == 2:
            caplog.clear()
        late[:] = [record.getMessage() for record in caplog.records if record.getMessage().startswith("Compiling")]

    with jax.log_compiles(True):
        fresh = make_train_step(TinyObjective(), make_optimizer(ADAMW, 6), mesh=mesh())
        run(compiled=fresh, on_metrics=watch)
    assert len(fresh.compiled) == 1
    assert late == []


def test_a_record_holds_what_the_readme_lists(tmp_path):
    run(tmp_path, log_every_steps=2, steps=5)
    rows = records(tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 5]
    assert rows[0].keys() >= {
        "loss", "loss/likelihood", "count/likelihood", "loss/hinge", "count/hinge", "ranking_accuracy", "grad_norm",
        "learning_rate", "tokens", "scored_tokens", "groups", "share_without_loss", "finite", "num_skipped",
        "num_bad_in_a_row", *TIMES,
    }  # fmt: skip
    assert rows[0]["learning_rate"] == np.float32(0.005)


def test_evaluation_joins_the_record_of_its_step(tmp_path):
    seen = []

    def evaluate(state):
        seen.append(int(state.step))
        return {"accuracy": 0.5}

    run(tmp_path, steps=5, evaluate_every_steps=2, log_every_steps=5, evaluate=evaluate)
    assert seen == [2, 4, 5]
    rows = records(tmp_path)
    assert [row["step"] for row in rows] == [2, 4, 5]
    assert all(row["eval/accuracy"] == 0.5 and "loss" in row for row in rows)


def test_without_an_interval_evaluation_comes_once_at_the_end():
    seen = []
    run(evaluate=lambda state: seen.append(int(state.step)) or {})
    assert seen == [6]


def test_parameters_and_compiled_step_serve_the_next_seed():
    first = run()
    second = run()
    assert_same_bits(first.params, second.params)
    assert len(step(6, 1).compiled) == 1


def test_parameters_that_are_consumed_are_gone_and_change_nothing():
    given = jax.tree.map(jnp.copy, new_params())
    assert_same_bits(run(start=given, consume=True), run())
    assert all(leaf.is_deleted() for leaf in jax.tree.leaves(given))
    assert not any(leaf.is_deleted() for leaf in jax.tree.leaves(new_params()))


def test_progress_without_a_terminal_is_plain_lines():
    screen = io.StringIO()
    run(console=Console(file=screen))
    text = screen.getvalue()
    assert "6/6 steps" in text
    assert "loss" in text
    assert "\x1b" not in text


class Poisoned(CountingLoader):
    """Batches 2 and later are not finite."""

    def batch(self, index):
        batch = super().batch(index)
        return batch.replace(mle_weight=np.full_like(batch.mle_weight, np.nan)) if index >= 2 else batch


def test_bad_steps_in_a_row_end_the_run_with_step_metrics_and_group_ids():
    with pytest.raises(NonFiniteError) as caught:
        run(loader=Poisoned(20), steps=9, max_consecutive_bad_steps=3)
    error = caught.value
    assert error.step == 5
    assert error.metrics["num_bad_in_a_row"] == 3
    assert list(error.group_ids) == [3, 4, 5]
    assert error.group_ids[5] == list(range(32, 40))  # batch 4 of eight groups
    assert "step 5" in str(error)
    assert "39" in str(error)


def test_a_bad_step_is_written_as_null_so_that_the_file_stays_json(tmp_path):
    with pytest.raises(NonFiniteError):
        run(tmp_path, loader=Poisoned(20), steps=9, max_consecutive_bad_steps=2)
    rows = records(tmp_path)
    assert rows[2]["loss"] is None
    assert rows[2]["finite"] == 0


def test_a_loader_that_ends_early_is_an_error_with_both_numbers():
    with pytest.raises(ValueError, match=r"after 4 batches; train.steps = 6"):
        run(loader=CountingLoader(4))


def test_what_the_loader_raises_reaches_the_caller():
    class Broken(CountingLoader):
        def batch(self, index):
            if index == 2:
                raise OSError("the disk is gone")
            return super().batch(index)

    with pytest.raises(OSError, match="the disk is gone"):
        run(loader=Broken(20))


def test_no_thread_and_no_signal_handler_is_left_behind(tmp_path):
    before = signal.getsignal(signal.SIGTERM)
    run(tmp_path, checkpoints=CheckpointConfig())
    assert signal.getsignal(signal.SIGTERM) is before
    assert not [thread for thread in threading.enumerate() if thread.name == "jaxrefine-prefetch"]


def test_checkpoints_without_a_workdir_are_refused():
    with pytest.raises(ValueError, match="workdir"):
        run(checkpoints=CheckpointConfig())


@pytest.mark.parametrize("field", ["steps", "num_microbatches", "log_every_steps", "evaluate_every_steps", "prefetch"])
def test_a_length_of_zero_is_refused_by_name(field):
    with pytest.raises(ValueError, match=field):
        TrainConfig(**({"steps": 1} | {field: 0}))


class StopError(Exception):
    """Stands for anything that ends a process."""


def test_a_loader_without_a_state_is_read_up_to_where_it_was(tmp_path):
    class Plain:
        def __iter__(self):
            return (make_batch(seed) for seed in range(10))

    def die(number, _):
        if number == 5:
            raise StopError

    options = {"steps": 8, "checkpoints": CheckpointConfig(every_steps=4)}
    with pytest.raises(StopError):
        run(tmp_path, loader=Plain(), on_metrics=die, **options)
    assert_same_bits(run(tmp_path, loader=Plain(), **options), run(steps=8))


def test_a_finished_run_is_not_run_again(tmp_path):
    options = {"checkpoints": CheckpointConfig()}
    expected = run(tmp_path, **options)

    class Untouched:
        def __iter__(self):
            raise AssertionError("the loader was read")

    before = (tmp_path / "metrics.jsonl").read_bytes()
    assert_same_bits(run(tmp_path, loader=Untouched(), **options), expected)
    assert (tmp_path / "metrics.jsonl").read_bytes() == before


def test_a_non_finite_run_fails_again_in_the_same_way_when_run_again(tmp_path):
    options = {"steps": 9, "max_consecutive_bad_steps": 3, "checkpoints": CheckpointConfig(every_steps=1)}
    for _ in range(2):
        with pytest.raises(NonFiniteError) as caught:
            run(tmp_path, loader=Poisoned(20), **options)
        assert caught.value.step == 5
