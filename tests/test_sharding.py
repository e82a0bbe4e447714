"""Meshes, and the rules table."""

from __future__ import annotations

import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.sharding import (
    ROWS,
    MeshConfig,
    batch_sharding,
    constrain,
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
