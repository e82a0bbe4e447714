"""Collectives of a compiled program: of a text by hand, and of a product that must be summed over devices."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrefine.planning.collectives import collective_seconds, collectives, traffic
from jaxrefine.planning.topology import parse_topology
from jaxrefine.training.hlo import Instruction

TEXT = """HloModule jit_f
%add (x: f32[], y: f32[]) -> f32[] {
  ROOT %sum = f32[] add(%x, %y)
}
%body (carry: (f32[8])) -> (f32[8]) {
  %gather = (bf16[16,4], bf16[64,4]) all-gather-start(%w), replica_groups=[2,4]<=[8], metadata={op_name="layers/gate"}
  %gathered = bf16[64,4]{1,0} all-gather-done(%gather)
  %scatter = f32[16,4]{1,0} reduce-scatter(%g), replica_groups={{0,1,2,3},{4,5,6,7}}, to_apply=%add
}
ENTRY %main (arg: f32[8]) -> f32[8] {
  %loop = (f32[8]) while(%start), condition=%add, body=%body, backend_config={"known_trip_count":{"n":"10"}}
  %norm = f32[] all-reduce(%x), replica_groups={}, to_apply=%add
  %alone = f32[4] all-reduce(%x), replica_groups={{0},{1}}, to_apply=%add
}
"""


def test_bytes_are_counted_by_kind_and_group_with_the_turns_of_loops():
    found = {item.kind: item for item in collectives(TEXT, 8)}
    gathered, scattered, reduced = found["all-gather"], found["reduce-scatter"], found["all-reduce"]
    assert (gathered.group, gathered.count, gathered.bytes) == (4, 10, 10 * 64 * 4 * 2 * 3 // 4)
    assert gathered.largest == "layers/gate"
    assert (scattered.group, scattered.bytes) == (4, 10 * 4 * 16 * 4 * 4 * 3 // 4)
    assert (reduced.group, reduced.count, reduced.bytes) == (8, 1, 2 * 4 * 7 // 8)
    assert all(item.is_complete for item in found.values())


@pytest.mark.parametrize(
    ("opcode", "written", "sent"),
    [
        ("all-to-all", "f32[64]", 192),
        ("all-to-all-start", "(f32[64], f32[64])", 192),
        ("collective-permute", "f32[64]", 256),
        ("collective-permute-start", "(f32[64], f32[64])", 256),
        ("all-reduce-start", "f32[64]", 384),
        ("reduce-scatter-start", "((f32[64]), f32[16])", 192),
    ],
)
def test_what_a_device_of_four_sends(opcode, written, sent):
    assert traffic(Instruction("x", opcode, written, ""), 4) == sent


def test_a_product_over_a_split_axis_is_summed_over_its_devices():
    mesh = Mesh(jax.devices()[:8], ("x",))
    left = jax.ShapeDtypeStruct((4, 64), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec(None, "x")))
    right = jax.ShapeDtypeStruct((64, 4), jnp.float32, sharding=NamedSharding(mesh, PartitionSpec("x", None)))
    product = jax.jit(lambda a, b: a @ b, out_shardings=NamedSharding(mesh, PartitionSpec()))
    (found,) = collectives(product.lower(left, right).compile().as_text(), 8)
    assert (found.kind, found.group, found.count) == ("all-reduce", 8, 1)
    assert found.bytes == 2 * 4 * 4 * 4 * 7 // 8


def test_groups_beyond_a_node_are_as_slow_as_the_network_between_nodes():
    (item,) = collectives(
        "ENTRY %main (a: f32[8]) -> f32[8] {\n  %g = f32[1600000] all-gather(%a), replica_groups=[1,16]<=[16]\n}", 16
    )
    assert item.bytes == 6_000_000
    assert collective_seconds(item, parse_topology("h100x16")) == pytest.approx(6e6 / 5e10)
    assert collective_seconds(item, parse_topology("v5p-32")) == pytest.approx(6e6 / 1.8e11)
