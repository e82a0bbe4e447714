"""Products of low-precision arrays, accumulated in fp32 on every platform."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from jaxrefine.typing import Array


def einsum_fp32(subscripts: str, a: Array, b: Array) -> jax.Array:
    """``einsum`` with an fp32 result, whatever the operands are.

    XLA's CPU backend has no bf16 x bf16 -> fp32 product for every shape: there, and only there, the operands are
    widened first, which gives the same values. The choice is made when the program is lowered, so compiling for a TPU
    on a CPU host keeps the narrow product.

    >>> einsum_fp32("ij,kj->ik", jnp.ones((1, 2), jnp.bfloat16), jnp.ones((1, 2), jnp.bfloat16)).dtype
    dtype('float32')
    """

    def narrow(a: Array, b: Array) -> jax.Array:
        return jnp.einsum(subscripts, a, b, preferred_element_type=jnp.float32)

    def wide(a: Array, b: Array) -> jax.Array:
        return narrow(a.astype(jnp.float32), b.astype(jnp.float32))

    if a.dtype == jnp.float32 and b.dtype == jnp.float32:
        return narrow(a, b)
    return jax.lax.platform_dependent(a, b, cpu=wide, default=narrow)
