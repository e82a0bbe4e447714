"""cuDNN's kernel along paths: all that is around it, with XLA's attention in its place; compiled without a GPU."""

from __future__ import annotations

import dataclasses
import functools
import importlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.models.attention import make_attend
from jaxrefine.models.attention_scores import score_rule
from jaxrefine.models.choices import Choices
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.cudnn import cudnn, without_gpu
from jaxrefine.models.head_shards import repeats
from jaxrefine.sharding import MeshConfig, make_mesh
from tests.models.ahead import H100, for_gpu
from tests.models.tiny import layout, random_groups

CONFIG = TransformerConfig(
    vocab_size=8, width=16, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8, hidden_width=16
)
GROUPS = [(5, [3, 7, 1]), (4, []), (1, [4]), (9, [2, 6])]  # six paths, and one that is all padding
SLOTS = 48


@functools.cache
def make_rows(rows=2):
    """Rows of the same tree: what differs are their queries, keys and values."""
    row, _, used = layout(random_groups(GROUPS), SLOTS)
    return {name: jnp.repeat(row[name], rows, axis=0) for name in ("ends", "positions", "paths", "homes")}, used


def make_inputs(rows=2, dtype=jnp.float32):
    rng = np.random.default_rng(0)
    heads = (CONFIG.num_heads, CONFIG.num_kv_heads, CONFIG.num_kv_heads, CONFIG.num_heads)
    return [jnp.asarray(rng.normal(size=(rows, SLOTS, number, CONFIG.head_width)), dtype) for number in heads]


def outcome(prepare, config, choices):
    """The output at slots in use, and gradients of a weighted sum of it."""
    *inputs, weights = make_inputs()
    rows, used = make_rows()

    @functools.partial(jax.value_and_grad, has_aux=True)
    def weighted(inputs):
        out = prepare(**rows, config=config)(*inputs, None, score_rule(config, choices))[0][:, :used]
        return jnp.sum(out * weights[:, :used]), out

    (_, out), gradients = jax.jit(weighted)(inputs)
    return out, gradients


def assert_close(got, wanted, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max())


BY_XLA = functools.partial(cudnn, implementation="xla")
DENSE = functools.partial(make_attend, "dense", dtype=jnp.float32)
CASES = {
    "grouped queries": ({}, Choices()),
    "window in every layer": ({"window": 3, "attention_scale": 0.4}, Choices()),
    "a layer with a window": ({"window": 3, "window_layers": (True, False)}, Choices(windowed=jnp.array(True))),
    "its neighbour without": ({"window": 3, "window_layers": (True, False)}, Choices(windowed=jnp.array(False))),
    "a scale by layer": ({"attention_scale_by_layer": True}, Choices(number=jnp.float32(3))),
}


@pytest.mark.parametrize(("changes", "choices"), CASES.values(), ids=CASES)
def test_what_is_around_the_kernel_equals_dense_in_value_and_gradient(changes, choices):
    config = dataclasses.replace(CONFIG, **changes)
    assert_close(outcome(BY_XLA, config, choices), outcome(DENSE, config, choices))


@pytest.mark.parametrize("tensor", [2, 4])  # 4: each key-value head lies on two devices
def test_on_a_mesh_each_device_has_its_rows_and_heads(tensor):
    wanted = outcome(DENSE, CONFIG, Choices())
    with jax.set_mesh(make_mesh(MeshConfig(data=2, tensor=tensor), jax.devices()[: 2 * tensor])):
        got = outcome(BY_XLA, CONFIG, Choices())
    assert_close(got, wanted)


def test_heads_that_cannot_be_split_alike_are_refused():
    with pytest.raises(ValueError, match="num_kv_heads = 2 over tensor = 3: each would be repeated 3 times, and 6"):
        repeats(8, 2, 3)


def lowered(config, dtype=jnp.bfloat16):
    """The program for a GPU."""
    *inputs, _ = make_inputs(dtype=dtype)
    rows, _ = make_rows()

    def total(inputs):
        attend = make_attend("cudnn", config=config, dtype=dtype, **rows)
        return jnp.sum(attend(*inputs, None, score_rule(config, Choices()))[0].astype(jnp.float32))

    return jax.jit(jax.grad(total)).trace(inputs).lower(lowering_platforms=("cuda",)).as_text()


def test_the_kernel_gets_lengths_and_a_window_and_never_a_mask_or_a_bias():
    with without_gpu():
        text = lowered(dataclasses.replace(CONFIG, window=3))
    assert "__cudnn$fmhaSoftmax(" in text
    assert "__cudnn$fmhaSoftmaxBackward(" in text
    assert "Bias" not in text
    assert "\\22mask_type\\22: \\22PADDING_CAUSAL\\22" in text
    assert "\\22sliding_window_length\\22: 3" in text


def test_jax_asks_the_machine_again_afterwards():
    module = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    before = module.check_cudnn_version, module.check_compute_capability
    with without_gpu(capability="8.0"):
        assert module.check_compute_capability("8.0")
        assert not module.check_compute_capability("9.0")
    assert (module.check_cudnn_version, module.check_compute_capability) == before


@pytest.mark.parametrize(
    ("changes", "dtype", "message"),
    [
        ({"positions": "alibi"}, "bfloat16", "has no bias by position, and positions = 'alibi' needs one"),
        ({"attention_softcap": 30.0}, "bfloat16", "cannot cap scores, and attention_softcap is 30.0"),
        ({"head_width": 12}, "bfloat16", "head_width is 12, allowed are multiples of 8 up to 256"),
        ({"head_width": 264}, "bfloat16", "head_width is 264, allowed are multiples of 8 up to 256"),
        ({}, "float32", "dtype is float32, allowed are bfloat16, float16"),
    ],
)
def test_what_the_kernel_cannot_do_is_refused_before_anything_is_computed(changes, dtype, message):
    rows, _ = make_rows()
    with pytest.raises(ValueError, match=message):
        make_attend("cudnn", config=dataclasses.replace(CONFIG, **changes), dtype=jnp.dtype(dtype), **rows)


def test_a_batch_without_paths_is_refused():
    rows, _ = make_rows()
    with pytest.raises(ValueError, match=r"attention='cudnn' reads batch.paths .* PackingConfig\(expand=True\)"):
        make_attend("cudnn", config=CONFIG, dtype=jnp.bfloat16, ends=rows["ends"], positions=rows["positions"])


PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.cudnn import without_gpu
from jaxrefine.models.decoder import Decoder
from jaxrefine.sharding import param_shardings

topology = topologies.get_topology_desc(platform="cuda", target_config=sys.argv[1], topology="1x1x8")
mesh = Mesh(np.array(topology.devices).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
config = TransformerConfig(vocab_size=256, width=256, num_layers=2, num_heads=8, num_kv_heads=4, head_width=128,
    hidden_width=256, window=300, window_layers=(True, False))
decoder = Decoder(config, attention="cudnn", remat="full")
place = lambda tree, shardings: jax.tree.map(
    lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), tree, shardings)
spread = NamedSharding(mesh, PartitionSpec(("data", "fsdp")))
rows = lambda *shape: jax.ShapeDtypeStruct(shape, jnp.int32, sharding=spread)
with jax.set_mesh(mesh), without_gpu():
    row, paths = rows(4, 1024), rows(4, 4, 512)
    init = lambda row: decoder.init(jax.random.key(0), row, row, row, method="trunk")["params"]
    params = jax.eval_shape(init, row)
    params = place(params, param_shardings(params, mesh))
    total = lambda params, row, paths: decoder.apply(
        {"params": params}, row, row, row, paths, row, method="trunk").astype("float32").sum()
    compiled = jax.jit(jax.grad(total)).lower(params, row, paths).compile()
text = compiled.as_text()
print(json.dumps({"forward": text.count('custom_call_target="__cudnn$fmhaSoftmax"'),
                  "backward": text.count('custom_call_target="__cudnn$fmhaSoftmaxBackward"'),
                  "temporary": compiled.memory_analysis().temp_size_in_bytes}))
"""


@pytest.mark.slow
def test_it_compiles_for_h100s_that_are_not_here():
    found = for_gpu(PROGRAM, H100)
    assert found["forward"] >= 2  # with and without the window
    assert found["backward"] >= 2
    assert found["temporary"] < 2**30
