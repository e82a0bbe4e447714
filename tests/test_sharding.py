"""Meshes, and the rules table."""

from __future__ import annotations

import dataclasses
import logging
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh
from jax.sharding import PartitionSpec as P

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.sharding import (
    AXES,
    ROWS,
    MeshConfig,
    batch_sharding,
    check_memory,
    check_split,
    constrain,
    constrain_params,
    make_mesh,
    param_shardings,
    path_of,
    placements,
    row_share,
)


def abstract_decoder(**changes):
    sizes = {"vocab_size": 64, "width": 16, "num_layers": 2, "num_heads": 4, "num_kv_heads": 2, "head_width": 4}
    config = TransformerConfig(**({**sizes, "hidden_width": 32} | changes))
    row = jnp.zeros((1, 8), jnp.int32), jnp.arange(8)[None], jnp.full((1, 8), 8)
    decoder = Decoder(config, attention="dense")
    return jax.eval_shape(lambda: decoder.init(jax.random.key(0), *row, method="trunk")["params"])


@pytest.mark.parametrize(
    ("config", "num_devices", "sizes"),
    [
        (MeshConfig(), 8, (8, 1, 1)),
        (MeshConfig(data=1, fsdp=-1), 8, (1, 8, 1)),
        (MeshConfig(data=-1, fsdp=2, tensor=2), 8, (2, 2, 2)),
        (MeshConfig(data=2, fsdp=3, tensor=1), 6, (2, 3, 1)),
    ],
)
def test_minus_one_takes_the_devices_that_are_left(config, num_devices, sizes):
    assert config.sizes(num_devices) == sizes


@pytest.mark.parametrize("config", [MeshConfig(data=3, fsdp=1), MeshConfig(fsdp=3), MeshConfig(data=2)])
def test_a_mesh_that_does_not_use_all_devices_is_refused(config):
    with pytest.raises(ValueError, match="8 are there"):
        config.sizes(8)


@pytest.mark.parametrize("sizes", [{"data": -1, "fsdp": -1}, {"data": 0}, {"tensor": -2}])
def test_impossible_sizes_are_refused_by_name(sizes):
    with pytest.raises(ValueError, match=next(iter(sizes))):
        MeshConfig(**sizes)


@pytest.mark.parametrize(
    "untied", [{}, {"tie_embeddings": False}, {"qkv_bias": True, "o_bias": True, "mlp_bias": True}]
)
def test_every_parameter_of_a_decoder_has_a_rule(untied):
    _, left_out = placements(abstract_decoder(**untied), make_mesh(MeshConfig(fsdp=2, tensor=2)))
    assert left_out == []


def test_each_parameter_lies_where_the_table_says():
    shardings = param_shardings(
        abstract_decoder(qkv_bias=True, tie_embeddings=False), make_mesh(MeshConfig(fsdp=2, tensor=2))
    )
    specs = {path_of(path): sharding.spec for path, sharding in jax.tree_util.tree_leaves_with_path(shardings)}
    assert specs["embed/embedding"] == P("tensor", "fsdp")
    assert specs["head/kernel"] == P("tensor", "fsdp")
    assert specs["layers/attention/query/kernel"] == P(None, "tensor", "fsdp")
    assert specs["layers/attention/key/bias"] == P(None, "tensor")
    assert specs["layers/attention/out/kernel"] == P(None, "fsdp", "tensor")
    assert specs["layers/feed_forward/gate/kernel"] == P(None, "tensor", "fsdp")
    assert specs["layers/feed_forward/down/kernel"] == P(None, "fsdp", "tensor")
    assert specs["layers/attention_norm/scale"] == P()


def test_optimiser_moments_lie_where_their_parameters_do():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    params = abstract_decoder()
    state = {"opt_state": [{"mu": {"model": params}}], "step": jax.ShapeDtypeStruct((), np.int32)}
    moments = param_shardings(state, mesh)["opt_state"][0]["mu"]["model"]
    assert jax.tree.leaves(moments) == jax.tree.leaves(param_shardings(params, mesh))


def test_an_axis_that_does_not_divide_is_reported_by_name_and_the_others_stay_split(caplog):
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=4))
    tree = {"model": {"embed": {"embedding": jax.ShapeDtypeStruct((66, 16), np.float32)}}}
    with caplog.at_level(logging.WARNING):
        shardings = param_shardings(tree, mesh)
    assert shardings["model"]["embed"]["embedding"].spec == P(None, "fsdp")
    assert "model/embed/embedding [66, 16]: axis 0 does not divide by tensor = 4" in caplog.text


def test_a_parameter_without_a_rule_is_reported_by_name(caplog):
    with caplog.at_level(logging.WARNING):
        shardings = param_shardings({"mystery": jnp.zeros((8, 8))}, make_mesh())
    assert shardings["mystery"].spec == P()
    assert "mystery [8, 8]: no rule" in caplog.text


def test_nothing_is_reported_on_one_device(caplog):
    with caplog.at_level(logging.WARNING):
        param_shardings({"mystery": jnp.zeros((8, 8))}, make_mesh(devices=jax.devices()[:1]))
    assert not caplog.records


def test_a_batch_is_split_by_rows_over_both_data_axes():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    rows = jax.device_put(np.arange(8).reshape(1, 8), batch_sharding(mesh, leading=1))
    assert {shard.data.shape for shard in rows.addressable_shards} == {(1, 2)}


def test_one_process_reads_every_row():
    assert row_share(make_mesh(MeshConfig(fsdp=2, tensor=2))) == (0, 1)


def test_constrain_without_a_mesh_gives_its_argument_back():
    x = jnp.ones((4, 2, 2))
    assert constrain(x, "hidden") is x


def test_constrain_places_an_activation_on_the_mesh_in_use():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        x = jax.jit(lambda x: constrain(x * 2.0, "feed_forward"))(jnp.ones((4, 3, 6)))
    assert x.sharding.spec == P(ROWS, None, "tensor")


def test_constrain_leaves_an_axis_whole_that_does_not_divide():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        x = jax.jit(lambda x: constrain(x * 2.0, P(ROWS, "tensor")))(jnp.ones((4, 3)))
    assert x.sharding.shard_shape(x.shape) == (1, 3)


def test_an_unknown_activation_is_refused_with_those_allowed():
    with jax.set_mesh(make_mesh()), pytest.raises(ValueError, match=r"'hiden'.*hidden"):
        constrain(jnp.ones((8, 1, 1)), "hiden")


@dataclasses.dataclass(frozen=True)
class FakeDevice:
    """Enough of a device for a mesh."""

    id: int
    process_index: int
    slice_index: int
    platform: str = "gpu"
    device_kind: str = "made up"


def fake_devices(num_slices, each, processes_each=1):
    """Numbered as they come: the slices take turns, as nothing says they may not."""
    return [
        FakeDevice(i, (i % num_slices) * processes_each + i // num_slices // (each // processes_each), i % num_slices)
        for i in range(num_slices * each)
    ]


@pytest.mark.parametrize("slices", [-1, 2])
def test_the_data_axis_goes_through_one_slice_after_the_other(slices):
    mesh = make_mesh(MeshConfig(data=4, tensor=2, slices=slices), fake_devices(2, 4))
    assert mesh.devices.shape == (4, 1, 2)
    assert [[device.slice_index for device in row] for row in mesh.devices.reshape(4, 2)] == [[0, 0]] * 2 + [[1, 1]] * 2


def test_devices_of_one_slice_are_split_in_their_order_where_slices_are_asked_for():
    mesh = make_mesh(MeshConfig(data=4, tensor=2, slices=2))
    assert [device.id for device in mesh.devices.flat] == list(range(8))


@pytest.mark.parametrize("sizes", [{"data": 1, "fsdp": -1}, {"data": 3, "fsdp": 2}])
def test_an_axis_but_data_never_crosses_slices_unasked(sizes):
    num = 12 if sizes["data"] == 3 else 8
    with pytest.raises(ValueError, match=r"cannot span 2 slices evenly.*give a multiple of 2, or mesh.slices = 1"):
        make_mesh(MeshConfig(**sizes), fake_devices(2, num // 2) if num == 8 else fake_devices(2, 3))


def test_an_axis_crosses_slices_where_that_is_asked_for():
    assert make_mesh(MeshConfig(data=1, fsdp=-1, slices=1), fake_devices(2, 4)).devices.shape == (1, 8, 1)


def test_a_number_of_slices_that_is_not_there_is_refused_with_those_that_are():
    with pytest.raises(ValueError, match=r"mesh.slices = 4, but the devices are of 2 slices; allowed: -1, 1, 2"):
        make_mesh(MeshConfig(slices=4), fake_devices(2, 4))


def test_slices_of_several_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\{0: 4, 1: 2\}"):
        make_mesh(MeshConfig(), [d for d in fake_devices(2, 4) if (d.slice_index, d.id) not in {(1, 5), (1, 7)}])


@pytest.mark.parametrize(
    ("sizes", "shares"),
    [
        ({"data": 4, "tensor": 2}, [(0, 4), (1, 4), (2, 4), (3, 4)]),  # two devices a process: one row block each
        ({"data": 2, "tensor": 4}, [(0, 2), (0, 2), (1, 2), (1, 2)]),  # the two processes of a slice share its rows
        ({"data": 8}, [(0, 4), (1, 4), (2, 4), (3, 4)]),
    ],
    ids=str,
)
def test_each_process_of_each_slice_reads_the_rows_of_its_devices(monkeypatch, sizes, shares):
    mesh = make_mesh(MeshConfig(**sizes), fake_devices(2, 4, processes_each=2))
    found = []
    for process in range(4):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        found.append(row_share(mesh))
    assert found == shares


def test_rows_that_processes_hold_in_turns_are_shared_out_all_the_same(monkeypatch):
    devices = [FakeDevice(i, i % 2, 0) for i in range(4)]  # as a ring of chips may run through two hosts
    mesh = Mesh(np.array(devices, object).reshape(1, 4, 1), AXES)
    for process, share in ((0, (0, 2)), (1, (1, 2))):
        monkeypatch.setattr(jax, "process_index", lambda process=process: process)
        assert row_share(mesh) == share


def test_what_stays_whole_is_reported_with_the_bytes_it_costs_each_device():
    tree = {"embed": {"embedding": jax.ShapeDtypeStruct((66, 16), np.float32)}}
    _, (item,) = placements(tree, make_mesh(MeshConfig(fsdp=2, tensor=4)))
    # split over fsdp alone 66 · 8 · 4 bytes, over tensor too a quarter of it
    assert item.extra_bytes == 66 * 8 * 4 * 3 // 4
    assert "1,584 bytes more on each device" in str(item)


def odd_vocabulary(rows):
    up = {"layers": {"feed_forward": {"up": {"kernel": jax.ShapeDtypeStruct((2, 1024, 512), np.float32)}}}}
    return {"embed": {"embedding": jax.ShapeDtypeStruct((rows, 512), np.float32)}} | up


def test_too_much_that_is_not_split_is_an_error_that_names_it_and_how_to_allow_it():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=4))
    held, extra = 301 * 256 * 4 + 2 * 256 * 256 * 4, 301 * 256 * 3  # three quarters of the embedding's 301 · 256 · 4
    assert 0.27 < extra / held < 0.28
    with pytest.raises(
        ValueError, match=r"28%.*embed/embedding \[301, 512\].*231,168 bytes.*max_unsplit = 0.28 \(now 0.1\)"
    ):
        check_split(odd_vocabulary(301), mesh, 0.1)
    check_split(odd_vocabulary(301), mesh, 0.28)


def test_a_little_that_is_not_split_is_no_error():
    check_split(odd_vocabulary(61), make_mesh(MeshConfig(fsdp=2, tensor=4)), 0.1)
    check_split(odd_vocabulary(304), make_mesh(MeshConfig(fsdp=2, tensor=4)), 0.0)


@pytest.mark.parametrize("share", [-0.1, 1.5])
def test_a_share_that_is_none_is_refused(share):
    with pytest.raises(ValueError, match="max_unsplit"):
        MeshConfig(max_unsplit=share)


def test_gradients_are_split_as_their_parameters_are():
    mesh = make_mesh(MeshConfig(fsdp=2, tensor=2))
    with jax.set_mesh(mesh):
        found = jax.jit(lambda x: constrain_params({"layers": {"attention": {"out": {"kernel": x * 2.0}}}}))(
            jnp.ones((2, 4, 4))
        )
    assert found["layers"]["attention"]["out"]["kernel"].sharding.spec == P(None, "fsdp", "tensor")


def test_a_kind_of_memory_that_is_missing_is_refused_with_those_there_are():
    memories = [SimpleNamespace(kind="device"), SimpleNamespace(kind="unpinned_host")]
    device = SimpleNamespace(platform="metal", addressable_memories=lambda: memories)
    mesh = SimpleNamespace(devices=np.array([device], object))
    with pytest.raises(ValueError, match=r"offload.*'pinned_host', which metal devices.*device, unpinned_host"):
        check_memory(mesh, "pinned_host", "remat policy 'offload'")
    check_memory(mesh, "device", "anything")
