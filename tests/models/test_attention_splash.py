"""The TPU kernel: the values and gradients of ``dense``, simulated on CPU; compiled for three TPUs without one."""

from __future__ import annotations

import dataclasses
import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from jaxrefine.models import splash
from jaxrefine.models.attention import check_platform, make_attend
from jaxrefine.models.attention_scores import score_rule
from jaxrefine.models.choices import Choices
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.splash import plan_tiles
from jaxrefine.sharding import MeshConfig, make_mesh
from tests.models.ahead import TPUS, for_tpu
from tests.models.tiny import layout, random_groups

CONFIG = TransformerConfig(
    vocab_size=8, width=16, num_layers=2, num_heads=2, num_kv_heads=1, head_width=32, hidden_width=16
)
ROWS = (
    random_groups([(40, [30, 57, 1]), (1, []), (50, [20, 3]), (9, [7])]),  # the first ends with a tile: one is skipped
    random_groups([(130, [70, 56])]),  # a tile of the prompt that every later query sees
)
SLOTS = 256


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    monkeypatch.setattr(splash, "BLOCKS", (128,))


def make_rows():
    """Two rows of unequal groups, one with padding at its end."""
    rows = [layout(groups, SLOTS)[0] for groups in ROWS]
    return {name: jnp.concatenate([row[name] for row in rows]) for name in ("ends", "positions")}


def make_inputs(config, rows=2, slots=SLOTS, dtype=jnp.float32):
    """Queries, keys, values, and the weights of a sum of the outputs."""
    heads = (config.num_heads, config.num_kv_heads, config.num_kv_heads, config.num_heads)
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.normal(size=(rows, slots, number, config.head_width)), dtype) for number in heads]


def outcome(name, config, windowed=None):
    """The output, and gradients of a weighted sum of it, by a backend."""
    *inputs, weights = make_inputs(config)
    rows = make_rows()
    choices = Choices(windowed=None if windowed is None else jnp.asarray(windowed))

    @functools.partial(jax.value_and_grad, has_aux=True)
    def weighted(inputs):
        attend = make_attend(name, config=config, dtype=jnp.float32, **rows)
        out, _ = attend(*inputs, None, score_rule(config, choices))
        return jnp.sum(out * weights), out

    (_, out), gradients = jax.jit(weighted)(inputs)
    return out, gradients


def assert_close(got, wanted, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max())


@pytest.mark.parametrize(
    ("changes", "windowed"),
    [
        ({}, None),
        ({"attention_softcap": 1.5, "window": 17, "num_kv_heads": 2, "attention_scale": 0.3}, None),
        ({"window": 17, "window_layers": (True, False)}, True),
    ],
    ids=["grouped queries", "cap, window, scale", "a layer with a window"],
)
def test_the_kernel_equals_dense_in_value_and_gradient(changes, windowed):
    config = dataclasses.replace(CONFIG, **changes)
    with pltpu.force_tpu_interpret_mode():
        got = outcome("splash", config, windowed)
    assert_close(got, outcome("dense", config, windowed))


def test_on_a_mesh_each_device_has_its_rows_and_heads():
    mesh = make_mesh(MeshConfig(data=2, tensor=2), jax.devices()[:4])
    wanted = outcome("dense", CONFIG)
    with pltpu.force_tpu_interpret_mode(), jax.set_mesh(mesh):
        got = outcome("splash", CONFIG)
    assert_close(got, wanted)


def test_a_tile_is_skipped_where_nobody_sees_anything_and_names_what_is_read_next():
    # two groups of 4 slots, each a prompt of 2 and two responses of 1; tiles of 2
    ends = np.array([4, 4, 3, 4, 8, 8, 7, 8])
    tiles = plan_tiles(jnp.asarray(ends)[None], None, kinds=[None], block=2)
    kind = [[1, 0, 0, 0], [2, 1, 0, 0], [0, 0, 1, 0], [0, 0, 2, 1]]
    assert tiles.kind[0, 0].tolist() == kind
    # a row of tiles: the next column with something in it, at its end the last one; a column: the same downwards
    assert tiles.keys[0, 0].tolist() == [[0, 0, 0, 0], [0, 1, 1, 1], [2, 2, 2, 2], [2, 2, 2, 3]]
    assert tiles.queries[0, 0].T.tolist() == [[0, 1, 1, 1], [1, 1, 1, 1], [2, 2, 2, 3], [3, 3, 3, 3]]
    assert tiles.masks_by_query[0, 0].tolist() == [[0, 0, 0, 0], [5, 5, 5, 5], [10, 10, 10, 10], [15, 15, 15, 15]]
    assert tiles.masks[0, 5].tolist() == [[True, False], [False, True]]
    assert tiles.masks_turned[0, 0].tolist() == [[True, True], [False, True]]


def test_a_query_that_sees_nothing_is_finite_with_finite_gradients():
    *inputs, weights = make_inputs(CONFIG, rows=1, slots=128)

    def weighted(inputs):
        empty = jnp.zeros((1, 128), jnp.int32)
        attend = make_attend("splash", config=CONFIG, dtype=jnp.float32, ends=empty, positions=empty)
        return jnp.sum(attend(*inputs, None, score_rule(CONFIG, Choices()))[0] * weights)

    with pltpu.force_tpu_interpret_mode():
        value, gradients = jax.jit(jax.value_and_grad(weighted))(inputs)
    assert np.isfinite(value)
    assert all(np.isfinite(x).all() for x in gradients)


@pytest.mark.parametrize(
    ("changes", "dtype", "slots", "message"),
    [
        ({"positions": "alibi"}, "bfloat16", 128, "has no bias by position, and positions = 'alibi' needs one"),
        ({"head_width": 72}, "bfloat16", 128, "head_width is 72, allowed are multiples of 16 up to 256"),
        ({"head_width": 272}, "bfloat16", 128, "head_width is 272, allowed are multiples of 16 up to 256"),
        ({}, "float16", 128, "dtype is float16, allowed are bfloat16, float32"),
        ({}, "bfloat16", 200, "rows have 200 slots, allowed are multiples of 128, next 256"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused_before_anything_is_computed(changes, dtype, slots, message):
    rows = {name: jax.ShapeDtypeStruct((1, slots), jnp.int32) for name in ("ends", "positions")}
    config = dataclasses.replace(CONFIG, **changes)
    make = functools.partial(make_attend, "splash", config=config, dtype=jnp.dtype(dtype))
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(lambda rows: make(**rows), rows)


def equations(jaxpr, inside=False):
    """Every equation, and whether a loop over layers repeats it."""
    for equation in jaxpr.eqns:
        yield equation, inside
        for value in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda x: hasattr(x, "eqns")):
            inner = getattr(value, "jaxpr", value)
            if hasattr(inner, "eqns"):
                yield from equations(inner, inside or equation.primitive.name == "scan")


@pytest.mark.parametrize("remat", ["none", "attention"])
def test_the_plan_is_made_once_outside_the_layers_and_no_layer_keeps_a_mask(remat):
    config = dataclasses.replace(CONFIG, window=17, window_layers=(True, False))
    decoder = Decoder(config, attention="splash", remat=remat)
    row = tuple(make_rows()[name] for name in ("positions", "positions", "ends"))
    params = jax.eval_shape(functools.partial(decoder.init, method="trunk"), jax.random.key(0), *row)

    def total(params):
        return jnp.sum(decoder.apply(params, *row, method="trunk").astype(jnp.float32))

    traced = list(equations(jax.make_jaxpr(jax.grad(total))(params).jaxpr))
    planning = [inside for equation, inside in traced if equation.primitive.name in {"cummin", "cummax"}]
    assert planning
    assert not any(planning)
    loops = [equation for equation, _ in traced if equation.primitive.name == "scan"]
    kept = [x.aval for loop in loops for x in loop.outvars if getattr(x.aval, "dtype", None) == jnp.bool_]
    assert loops
    assert not [aval.shape for aval in kept if aval.ndim > 2]


def test_a_decoder_through_it_equals_one_through_dense():
    config = dataclasses.replace(CONFIG, window=17, window_layers=(True, False), attention_softcap=5.0)
    row, _, used = layout(random_groups([(30, [20, 41, 1]), (9, [7])]), 128)
    tokens = tuple(row[name] for name in ("tokens", "positions", "ends"))
    dense = Decoder(config, dtype=jnp.float32, attention="dense")
    params = dense.init(jax.random.key(0), *tokens, method="trunk")["params"]

    def outcome(decoder):
        total = lambda params: jnp.sum(jnp.tanh(decoder.apply(params, *tokens, method="trunk"))[:, :used])  # noqa: E731
        return jax.jit(jax.value_and_grad(total))({"params": params})

    with pltpu.force_tpu_interpret_mode():
        got = outcome(dense.clone(attention="splash"))
    assert_close(got, outcome(dense))


def test_devices_that_it_does_not_run_on_are_refused():
    with pytest.raises(ValueError, match="attention='splash' runs on TPUs alone, .* of platform 'cpu'"):
        check_platform("splash", "cpu")
    check_platform("splash", "tpu")


def test_which_backend_computes_is_logged(caplog):
    rows = {name: jax.ShapeDtypeStruct((1, 128), jnp.int32) for name in ("ends", "positions")}
    with caplog.at_level(logging.INFO, "jaxrefine"):
        jax.eval_shape(lambda rows: make_attend("splash", config=CONFIG, dtype=jnp.bfloat16, **rows), rows)
    assert "attention: splash, rows of 128 slots, 2 heads of width 32 in bfloat16" in caplog.text


PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.sharding import param_shardings

width, dtype = int(sys.argv[2]), jnp.dtype(sys.argv[3])
devices = topologies.get_topology_desc(sys.argv[1], "tpu").devices
mesh = Mesh(np.array(devices).reshape(1, 2, 2), ("data", "fsdp", "tensor"))
config = TransformerConfig(vocab_size=256, width=256, num_layers=2, num_heads=8, num_kv_heads=4, head_width=width,
    hidden_width=256, window=300, window_layers=(True, False), attention_softcap=50.0)
decoder = Decoder(config, dtype=dtype, attention="splash", remat="attention")
place = lambda tree, shardings: jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)
with jax.set_mesh(mesh):
    row = jax.ShapeDtypeStruct((4, 1024), jnp.int32, sharding=NamedSharding(mesh, PartitionSpec(("data", "fsdp"))))
    init = lambda row: decoder.init(jax.random.key(0), row, row, row, method="trunk")["params"]
    params = jax.eval_shape(init, row)
    params = place(params, param_shardings(params, mesh))
    total = lambda params, row: decoder.apply({"params": params}, row, row, row, method="trunk").astype("float32").sum()
    compiled = jax.jit(jax.grad(total)).lower(params, row).compile()
print(json.dumps({"kernels": compiled.as_text().count('custom_call_target="tpu_custom_call"'),
                  "temporary": compiled.memory_analysis().temp_size_in_bytes}))
"""


@pytest.mark.slow
@pytest.mark.parametrize(
    ("chip", "width", "dtype"), [("v5e", 128, "bfloat16"), ("v5p", 256, "float32"), ("v6e", 64, "bfloat16")]
)
def test_it_compiles_for_a_tpu_that_is_not_here(chip, width, dtype):
    found = for_tpu(PROGRAM, TPUS[chip], width, dtype)
    assert found["kernels"] >= 3  # forward, by queries, by keys and values
    assert found["temporary"] < 2**30
