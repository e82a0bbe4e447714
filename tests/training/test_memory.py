"""Memory of a compiled step by kind, and what is said when it is too much."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrefine.models.config import TransformerConfig
from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.sharding import MeshConfig, make_mesh
from jaxrefine.training import memory
from jaxrefine.training.finetuning import Finetuning
from jaxrefine.training.full_size import abstract_step
from jaxrefine.training.memory import (
    MemoryUse,
    OutOfMemoryError,
    compile_checked,
    device_bytes,
    explain,
    memory_use,
    read_out_of_memory,
    with_largest,
)

TINY = TransformerConfig(
    vocab_size=64, width=16, num_layers=2, num_heads=2, num_kv_heads=2, head_width=8, hidden_width=48
)
TRAINING = Finetuning(
    objective=ObjectiveConfig(loss="pairwise_logistic", scorer="reward"), groups_per_step=8, max_prompt=8,
    max_response=8, slots=32,
)  # fmt: skip


@pytest.fixture(scope="module")
def made():
    mesh = make_mesh(MeshConfig(data=1, fsdp=8), jax.devices()[:8])
    found = abstract_step(TRAINING, TINY, num_candidates=2, mesh=mesh, dtype=jnp.float32)
    found.step.compile(found.state, found.batch)
    return found


def test_bytes_of_a_device_follow_the_placement():
    mesh = make_mesh(MeshConfig(data=1, fsdp=8), jax.devices()[:8])
    split = jax.ShapeDtypeStruct((16, 4), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec("fsdp")))
    whole = jax.ShapeDtypeStruct((3,), jnp.float32)
    assert device_bytes({"split": split, "whole": whole}) == 16 * 4 * 2 // 8 + 12


def test_a_compiled_steps_kinds_add_up_and_its_parameters_are_those_of_the_model(made):
    compiled = made.step.compile(made.state, made.batch)
    use = memory_use(compiled.call, made.state, available=2**30)
    # Split eight ways: embedding, head, seven maps of two layers; whole: two norms a layer, the last one, the scorer.
    split = 2 * 64 * 16 + 2 * (4 * 16 * 16 + 3 * 16 * 48)
    whole = 2 * 2 * 16 + 16 + 16
    assert use.parameters == 4 * (split // 8 + whole)
    assert use.optimizer == 2 * use.parameters + 2 * 4  # two moments, and the counts of Adam and of the schedule
    assert use.fits
    known = use.parameters + use.optimizer + use.batch + use.temporaries
    assert 0 <= use.total - known < 4096  # metrics and the tables of outputs
    assert use.total == compiled.peak_memory_bytes


def test_the_largest_buffers_are_named_by_path_and_sorted(made):
    compiled = made.step.compile(made.state, made.batch)
    use = with_largest(memory_use(compiled.call, made.state), compiled.call.as_text(), made.state)
    sizes = [buffer.bytes for buffer in use.largest]
    assert len(sizes) == 5
    assert sizes == sorted(sizes, reverse=True)
    largest = memory.state_buffers(made.state)[0]
    assert largest.name == "params/model/layers/feed_forward/down/kernel"
    assert largest.bytes == 2 * 16 * 48 * 4 // 8


def test_a_step_that_does_not_fit_is_refused_before_the_run_with_need_have_and_remedies(made, monkeypatch):
    monkeypatch.setattr(memory, "device_memory", lambda device: 1000)
    with pytest.raises(OutOfMemoryError) as refused:
        compile_checked(made.step, made.state, made.batch, num_microbatches=3)
    error = refused.value
    assert error.have == 1000
    assert error.need == made.step.compile(made.state, made.batch).peak_memory_bytes
    assert len(error.largest) == 5
    said = str(error)
    for part in ("the step needs", "parameters", "largest buffers:", "num_microbatches = 6", "optimizer.moments"):
        assert part in said


def test_a_step_that_fits_or_whose_device_does_not_say_is_compiled(made, monkeypatch):
    compiled = made.step.compile(made.state, made.batch)
    assert compile_checked(made.step, made.state, made.batch) is compiled
    monkeypatch.setattr(memory, "device_memory", lambda device: 2**40)
    assert compile_checked(made.step, made.state, made.batch) is compiled


REFUSAL = """RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: XLA:TPU compile permanent error. Ran out of memory in memory
space hbm. Used 39.02G of 15.75G hbm. Exceeded hbm capacity by 23.27G.

  1. Size: 4.00G
     Operator: op_name="jit(function)/jvp(Objective)/Objective.score/scorer/dot_general" source_file="x.py"
     Shape: f32[8192,128256]{1,0:T(8,128)}
     ==========================

  2. Size: 512.00M
     Shape: bf16[32,8,1536,4096]{3,2,1,0}
     ==========================
"""


def test_a_compilers_refusal_is_read():
    found = read_out_of_memory(RuntimeError(REFUSAL), available=0)
    assert found is not None
    assert (round(found.need / 2**30, 2), round(found.have / 2**30, 2)) == (39.02, 15.75)
    assert [(buffer.bytes, buffer.name) for buffer in found.largest] == [
        (4 * 2**30, "function/Objective/Objective.score/scorer/dot_general f32[8192,128256]"),
        (512 * 2**20, "bf16[32,8,1536,4096]"),
    ]
    assert read_out_of_memory(RuntimeError("INVALID_ARGUMENT: something else"), available=0) is None


TERSE = """RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO
temporaries (28.12G) exceeds available HBM (15.75G). HLO module: jit_function."""


def test_a_refusal_that_lists_nothing_is_filled_with_the_largest_parts_of_the_state(made):
    found = read_out_of_memory(RuntimeError(TERSE), available=0, state=made.state)
    assert found is not None
    assert (round(found.need / 2**30, 2), round(found.have / 2**30, 2)) == (28.12, 15.75)
    assert found.largest[0].name == "params/model/layers/feed_forward/down/kernel"
    assert len(found.largest) == 5


def test_a_step_that_the_compiler_refuses_is_explained(made, monkeypatch):
    def refuse(state, batch):
        raise jax.errors.JaxRuntimeError(TERSE)

    monkeypatch.setattr(made.step, "compile", refuse)
    with pytest.raises(OutOfMemoryError, match=r"needs 28.12 GiB .* of 15.75 GiB: parameters") as refused:
        compile_checked(made.step, made.state, made.batch)
    assert "low-rank adapters" in str(refused.value)


def test_a_refusal_without_numbers_still_names_what_is_there():
    found = read_out_of_memory(RuntimeError("RESOURCE_EXHAUSTED: out of something"), available=2**30)
    assert found is not None
    assert found.have == 2**30


def test_an_explanation_has_every_kind_that_there_is():
    use = MemoryUse(
        parameters=2**30, optimizer=2**31, frozen=0, batch=0, temporaries=2**30, total=2**32, available=2**31
    )
    said = explain(use, ["do this"])
    assert re.search(r"needs 4.00 GiB .* of 2.00 GiB: parameters 1.00, optimizer 2.00, temporaries 1.00", said)
    assert said.endswith("what would help:\n  do this")
    assert "largest" not in said
    assert use.other == 0
    assert "does not say" in explain(dataclasses.replace(use, available=None))
