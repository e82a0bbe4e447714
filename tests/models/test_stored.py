"""Weights rounded where they lie have the values of a plain conversion, on a mesh too."""

from __future__ import annotations

import collections
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec

from jaxrefine.models.stored import as_stored
from jaxrefine.sharding import MeshConfig, make_mesh

PATH = "model/layers/attention/query/kernel"
MESH = MeshConfig(data=1, fsdp=4, tensor=2)


def product(kernel, x):
    return jnp.einsum("bi,oi->bo", x, as_stored(kernel, x.dtype, PATH))


def plain(kernel, x):
    return jnp.einsum("bi,oi->bo", x, kernel.astype(x.dtype))


def test_rounding_is_that_of_a_conversion():
    numbers = np.random.default_rng(0).normal(size=4096).astype(np.float32)
    odd = [0.0, -0.0, np.inf, -np.inf, np.nan, 3.4e38, 1e-40, 1.00390625, 1.01171875]  # the last two lie halfway
    x = jnp.asarray(np.concatenate([numbers, np.float32(odd)]))
    rounded = jax.jit(lambda x: as_stored(x, jnp.bfloat16, PATH))(x)
    np.testing.assert_array_equal(rounded.astype(jnp.float32), x.astype(jnp.bfloat16).astype(jnp.float32))
    assert rounded[-2:].tolist() == [1.0, 1.015625]  # to the even neighbour


@pytest.mark.parametrize("dtype", [jnp.bfloat16, jnp.float32])
def test_a_mesh_changes_neither_products_nor_gradients(dtype):
    rng = np.random.default_rng(0)
    kernel = jnp.asarray(rng.integers(-4, 5, size=(16, 32)), jnp.float32)  # sums of small integers are exact
    x = jnp.asarray(rng.integers(-2, 3, size=(8, 32)), dtype)
    mesh = make_mesh(MESH)
    placed = jax.device_put(kernel, NamedSharding(mesh, PartitionSpec("tensor", "fsdp")))
    rows = jax.device_put(x, NamedSharding(mesh, PartitionSpec("fsdp")))

    def loss(function):
        return lambda kernel, x: jnp.sum(jnp.float32(function(kernel, x)))

    with jax.set_mesh(mesh):
        got, gradient = jax.jit(jax.value_and_grad(loss(product)))(placed, rows)
    wanted, plainly = jax.value_and_grad(loss(plain))(kernel, x)
    assert got == wanted
    np.testing.assert_array_equal(gradient, plainly)
    assert gradient.dtype == jnp.float32


def test_no_more_is_communicated_than_for_a_plain_conversion():
    mesh = make_mesh(MeshConfig(data=2, fsdp=2, tensor=2))
    weights = NamedSharding(mesh, PartitionSpec("tensor", "fsdp"))
    shapes = (
        jax.ShapeDtypeStruct((16, 32), jnp.float32, sharding=weights),
        jax.ShapeDtypeStruct((8, 32), jnp.bfloat16, sharding=NamedSharding(mesh, PartitionSpec(("data", "fsdp")))),
    )

    def collectives(function):
        with jax.set_mesh(mesh):
            step = jax.jit(jax.grad(lambda *given: jnp.sum(jnp.float32(function(*given)) ** 2)), out_shardings=weights)
            text = step.lower(*shapes).compile().as_text()
        kinds = "all-gather|all-reduce|reduce-scatter|all-to-all|collective-permute"
        return collections.Counter(re.findall(rf" ({kinds})(?:-start)?\(", text))

    found = collectives(product)
    assert found == collectives(plain)
    assert found["all-gather"] == 1
