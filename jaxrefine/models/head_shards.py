"""Attention kernels on a mesh: rows over the data axes, heads over ``tensor``, each device its own part.

XLA cannot split a kernel that it did not write, and would gather everything instead.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxrefine.sharding import ACTIVATIONS, fit_spec, mesh_in_use
from jaxrefine.typing import Array, Float


def over_heads(
    run: Callable[..., jax.Array],
    rows: Any,
    q: Float[Array, "B S Q H"],
    k: Float[Array, "B S K H"],
    v: Float[Array, "B S K H"],
) -> Float[Array, "B S Q H"]:
    """``run(rows, q, k, v)`` on each device's rows and heads; without a mesh, on all of them.

    Rows or query heads that do not divide stay whole on every device. Where ``tensor`` divides the query heads and not
    the key-value heads, these are repeated until it does.

    Args:
      run: from a tree of arrays [B, …], queries, keys and values to [B S Q H]; nothing in it sees another row.
      rows: that tree.
      q: queries.
      k: keys.
      v: values.

    Raises:
      ValueError: heads that cannot be split alike.
    """
    if (mesh := mesh_in_use(by_xla=True)) is None:
        return run(rows, q, k, v)
    spec, _ = fit_spec(ACTIVATIONS["heads"], q.shape, mesh)
    if spec[2] is not None:
        times = repeats(q.shape[2], k.shape[2], int(mesh.shape[spec[2]]))
        if times > 1:
            k, v = jnp.repeat(k, times, axis=2), jnp.repeat(v, times, axis=2)
    first = PartitionSpec(spec[0])
    split = jax.shard_map(
        run, in_specs=(jax.tree.map(lambda _: first, rows), spec, spec, spec), out_specs=spec, check_vma=False
    )
    return split(rows, q, k, v)


def repeats(num_heads: int, num_kv_heads: int, shards: int) -> int:
    """How often key-value heads are repeated, each beside itself, so that ``shards`` divides them.

    >>> repeats(32, 8, 4), repeats(32, 8, 16)
    (1, 2)

    Raises:
      ValueError: what results would not divide the query heads.
    """
    times = shards // math.gcd(num_kv_heads, shards)
    if num_heads % (num_kv_heads * times):
        raise ValueError(
            f"num_kv_heads = {num_kv_heads} over tensor = {shards}: each would be repeated {times} times, "
            f"and {num_kv_heads * times} does not divide num_heads = {num_heads}; "
            f"give tensor a size that divides {num_kv_heads}"
        )
    return times


def scaled(q: Float[Array, "*shape"], divisor: float | jax.Array) -> jax.Array:
    """Queries over the divisor of the scores, for kernels that do not divide."""
    return (jnp.asarray(q).astype(jnp.float32) / divisor).astype(q.dtype)
