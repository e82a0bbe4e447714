"""What a layer keeps for its backward pass under each policy, by hand, and that it changes nothing else."""

from __future__ import annotations

import collections
import dataclasses
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.models.precision import PRECISION, precision_of
from jaxrefine.models.remat import REMAT, check_remat
from jaxrefine.sharding import make_mesh
from tests.models import tiny

L, B, S = 2, 1, 8
C = dataclasses.replace(tiny.CONFIG, width=20, hidden_width=48, tie_embeddings=True)
QH, KH, D, F = C.num_heads * C.head_width, C.num_kv_heads * C.head_width, C.width, C.hidden_width
ROW = (jnp.zeros((B, S), jnp.int32), jnp.arange(S)[None], jnp.full((B, S), S))

KEPT = {  # values a token and layer, as the table says, by their sizes; each layer's input besides
    "full": [],
    "attention": [QH],
    "minimal": [QH, QH, KH, KH, D],
    "dots": [QH, KH, KH, D, F, F],
    "offload": [QH, QH, KH, KH, D],
}


def loss(decoder, params):
    return jnp.sum(jnp.square(decoder.apply({"params": params}, *ROW, method="trunk")))


@pytest.fixture(scope="module")
def params():
    return tiny.make(C)[1]


@pytest.mark.parametrize("name", KEPT)
def test_a_policy_keeps_what_the_table_says_and_no_more(params, name):
    decoder, _ = tiny.make(C, remat=name)
    residuals = jax.eval_shape(lambda params: jax.vjp(lambda p: loss(decoder, p), params)[1], params)
    of_layers = [
        leaf.shape for leaf in jax.tree.leaves(residuals) if leaf.shape[:3] == (L, B, S) and leaf.dtype == jnp.float32
    ]
    kept = collections.Counter(int(np.prod(shape[3:])) for shape in of_layers)
    # the carry of the scan is the layer's input
    assert kept == collections.Counter([*KEPT[name], D])


@pytest.mark.parametrize("name", [name for name in REMAT if name != "none"])
def test_no_policy_changes_a_gradient(params, name):
    def gradient(policy):
        decoder, _ = tiny.make(C, remat=policy)
        return jax.jit(jax.grad(lambda params: loss(decoder, params)))(params)

    found, expected = gradient(name), gradient("none")
    for a, b in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max())


def test_offloading_is_refused_where_the_host_has_no_such_memory():
    device = SimpleNamespace(platform="metal", addressable_memories=lambda: [SimpleNamespace(kind="device")])
    with pytest.raises(ValueError, match="remat policy 'offload' needs memory of the kind 'pinned_host', which metal"):
        check_remat("offload", SimpleNamespace(devices=np.array([device], object)))


def test_an_unknown_policy_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="remat policy 'minimum'; did you mean 'minimal'"):
        check_remat("minimum", make_mesh())


@pytest.mark.parametrize(
    ("name", "platform", "compute", "stored"),
    [
        ("auto", "cpu", "float32", "float32"),
        ("auto", "tpu", "bfloat16", "float32"),
        ("float32", "gpu", "float32", "float32"),
        ("bfloat16", "cpu", "bfloat16", "float32"),
        ("pure_bfloat16", "cpu", "bfloat16", "bfloat16"),
    ],
)
def test_a_precision_is_known_by_its_name(name, platform, compute, stored):
    found = precision_of(name, platform)
    assert (found.compute, found.params, found.accumulate) == (compute, stored, "float32")


def test_an_unknown_precision_is_refused_with_the_nearest():
    with pytest.raises(ValueError, match="precision 'pure_bf16'; did you mean 'pure_bfloat16'"):
        precision_of("pure_bf16", "cpu")
    assert set(PRECISION) == {"float32", "bfloat16", "pure_bfloat16"}
