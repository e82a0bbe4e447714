"""What is read from a compiled program's text, against a text written by hand."""

import pytest

from jaxrefine.training.hlo import array_bytes, computations, runs

TEXT = """HloModule jit_f, is_scheduled=true

%add (x: f32[], y: f32[]) -> f32[] {
  %x = f32[] parameter(0)
  %y = f32[] parameter(1)
  ROOT %sum = f32[] add(%x, %y)
}

%body (carry: (s32[], f32[8])) -> (s32[], f32[8]) {
  %carry = (s32[], f32[8]) parameter(0)
  %all-reduce.1 = f32[8]{0:T(256)} all-reduce(%part), to_apply=%add, metadata={op_name="while/body/layer/dot_general"}
  ROOT %tuple = (s32[], f32[8]) tuple(%i, %all-reduce.1)
}

%condition (carry.1: (s32[], f32[8])) -> pred[] {
  ROOT %less = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (arg: f32[8]) -> f32[8] {
  %arg = f32[8] parameter(0)
  %fused = f32[8]{0} fusion(%arg), kind=kLoop, calls=%inside
  %while.1 = (s32[], f32[8]{0}) while(%start), condition=%condition, body=%body, config={"known_trip_count":{"n":"32"}}
  %while.2 = (s32[], f32[8]{0}) while(%start), condition=%condition, body=%body
  ROOT %out = f32[8]{0} get-tuple-element(%while.1), index=1
}

%inside (p: f32[8]) -> f32[8] {
  ROOT %twice = f32[8]{0} multiply(%p, %p)
}
"""


def test_sizes_of_arrays_are_counted_in_bytes_without_padding():
    assert array_bytes("f32[3,5]{1,0:T(8,128)}") == [60]
    assert array_bytes("(bf16[2,4]{1,0}, pred[], s4[3], u8[0])") == [16, 1, 2, 0]
    assert array_bytes("token[]") == []


def test_the_entry_and_every_computation_are_found():
    entry, found = computations(TEXT)
    assert entry == "main"
    assert set(found) == {"add", "body", "condition", "main", "inside"}
    assert [one.opcode for one in found["main"]] == ["parameter", "fusion", "while", "while", "get-tuple-element"]


def test_a_loops_body_runs_as_often_as_the_compiler_knows_and_once_where_it_does_not():
    reduces = [run for run in runs(TEXT) if run.instruction.opcode == "all-reduce"]
    assert sorted((run.times, run.is_known) for run in reduces) == [(1, False), (32, True)]
    assert {run.instruction.op_name for run in reduces} == {"while/body/layer/dot_general"}


def test_a_condition_says_how_often_where_the_compiler_does_not():
    limited = TEXT.replace("  ROOT %less", "  %n = s32[] constant(7)\n  ROOT %less")
    reduces = [run for run in runs(limited) if run.instruction.opcode == "all-reduce"]
    assert sorted((run.times, run.is_known) for run in reduces) == [(7, True), (32, True)]
    other = limited.replace("direction=LT", "direction=NE")
    assert sorted(run.times for run in runs(other) if run.instruction.opcode == "all-reduce") == [1, 32]


def test_what_is_inside_a_fusion_or_a_reduction_is_no_buffer():
    fused = {run.instruction.name: run.is_fused for run in runs(TEXT)}
    assert fused["twice"]
    assert fused["sum"]
    assert not fused["fused"]
    assert not fused["all-reduce.1"]


def test_text_without_an_entry_is_refused():
    with pytest.raises(ValueError, match="ENTRY"):
        computations("HloModule nothing")
