"""The TPU kernels of the log-probs: XLA's values and gradients, simulated on CPU; compiled for TPUs without one."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.experimental.pallas import tpu as pltpu

from jaxrefine.losses import logprob_kernel, token_logprobs, token_logprobs_and_entropy
from jaxrefine.sharding import MeshConfig, make_mesh
from tests.models.ahead import TPUS, for_tpu

TOKENS, VOCAB, WIDTH = 20, 159, 256


@pytest.fixture(autouse=True)
def _small_tiles(monkeypatch):
    """Several tiles in every direction, of which the last ones are cut off."""
    monkeypatch.setattr(logprob_kernel, "TOKENS", 16)
    monkeypatch.setattr(logprob_kernel, "WORDS", 64)
    monkeypatch.setattr(logprob_kernel, "WIDTHS", (128,))


def outcome(implementation, dtype=jnp.float32, **options):
    rng = np.random.default_rng(0)
    hidden = jnp.asarray(rng.normal(size=(TOKENS, WIDTH)) / 4, dtype)
    embedding = jnp.asarray(rng.normal(size=(VOCAB, WIDTH)) / 4, jnp.float32)
    targets = jnp.asarray(rng.integers(0, VOCAB, TOKENS), jnp.int32)
    a, b = (jnp.asarray(rng.normal(size=TOKENS), jnp.float32) for _ in range(2))
    function = functools.partial(token_logprobs_and_entropy, implementation=implementation, **options)

    def weighted(hidden, embedding):
        logprobs, entropy = function(hidden, embedding, targets)
        return jnp.sum(a * logprobs) + jnp.sum(b * entropy), (logprobs, entropy)

    return jax.jit(jax.value_and_grad(weighted, argnums=(0, 1), has_aux=True))(hidden, embedding)


def assert_close(got, wanted, tolerance=1e-5):
    for x, y in zip(jax.tree.leaves(got), jax.tree.leaves(wanted), strict=True):
        assert x.dtype == y.dtype
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        np.testing.assert_allclose(x, y, rtol=0, atol=tolerance * np.abs(y).max())


@pytest.mark.parametrize(
    "options",
    [{}, {"chunk_size": 12, "temperature": 0.7, "softcap": 2.0}],
    ids=["one chunk", "chunks, cap, temperature"],
)
def test_values_and_gradients_equal_those_of_xla(options):
    with pltpu.force_tpu_interpret_mode():
        got = outcome("pallas", **options)
    assert_close(got, outcome("xla", **options))


def test_half_precision_rounds_where_xla_does():
    with pltpu.force_tpu_interpret_mode():
        got = outcome("pallas", jnp.bfloat16)
    (_, values), gradients = got
    (_, wanted), wanted_gradients = outcome("xla", jnp.bfloat16)
    assert_close(values, wanted)
    assert_close(gradients, wanted_gradients, 1e-2)


def test_on_a_mesh_each_device_has_its_part_of_the_vocabulary():
    wanted = outcome("xla", chunk_size=12)
    mesh = make_mesh(MeshConfig(data=1, tensor=2), jax.devices()[:2])  # 159 words over 2: padded to 160
    with pltpu.force_tpu_interpret_mode(), jax.set_mesh(mesh):
        got = outcome("pallas", chunk_size=12)
    assert_close(got, wanted)


@pytest.mark.parametrize(
    ("width", "dtype", "message"),
    [
        (130, "bfloat16", "hidden states of width 130, allowed are multiples of 128"),
        (128, "float16", "hidden states in float16, allowed are bfloat16, float32"),
    ],
)
def test_what_the_kernels_cannot_multiply_is_refused(width, dtype, message):
    hidden, embedding = jax.ShapeDtypeStruct((4, width), dtype), jax.ShapeDtypeStruct((9, width), jnp.float32)
    with pytest.raises(ValueError, match=message):
        jax.eval_shape(
            functools.partial(token_logprobs, implementation="pallas"),
            hidden, embedding, jax.ShapeDtypeStruct((4,), jnp.int32),
        )  # fmt: skip


PROGRAM = """
import json, sys
import jax, jax.numpy as jnp, numpy as np
from jax.experimental import topologies
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxrefine.losses import token_logprobs

devices = topologies.get_topology_desc(sys.argv[1], "tpu").devices
mesh = Mesh(np.array(devices).reshape(1, 2, 2), ("data", "fsdp", "tensor"))
place = lambda dtype, spec, *shape: jax.ShapeDtypeStruct(
    shape, dtype, sharding=NamedSharding(mesh, PartitionSpec(*spec)))
M, D, V = map(int, sys.argv[2:5])
arguments = (place(jnp.bfloat16, [("data", "fsdp")], M, D), place(jnp.float32, ["tensor", "fsdp"], V, D),
    place(jnp.int32, [("data", "fsdp")], M))
found = {}
for implementation in ("xla", "pallas"):
    total = lambda h, w, t: token_logprobs(h, w, t, implementation=implementation).sum()
    with jax.set_mesh(mesh):
        compiled = jax.jit(jax.grad(total, argnums=(0, 1))).lower(*arguments).compile()
    found[implementation] = {"kernels": compiled.as_text().count('custom_call_target="tpu_custom_call"'),
                             "temporary": compiled.memory_analysis().temp_size_in_bytes}
print(json.dumps(found))
"""


@pytest.mark.slow
@pytest.mark.parametrize("chip", ["v6e"])
def test_it_compiles_for_a_tpu_that_is_not_here_and_takes_less_memory_than_xla(chip):
    found = for_tpu(PROGRAM, TPUS[chip], 8192, 4096, 128_256)
    assert found["xla"]["kernels"] == 0
    assert found["pallas"]["kernels"] == 2
    assert found["pallas"]["temporary"] < found["xla"]["temporary"]
