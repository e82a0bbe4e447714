"""The chunk of ``token_logprobs`` as TPU kernels: logits live and die in the memory on chip.

XLA writes a chunk's fp32 logits to HBM and reads them again: 8 V bytes a token beside the 2 D V operations of the
product. On a v6e (918 TFLOP/s, 1.64 TB/s) at D = 4096 that is 0.55 of the product's own time, on other TPUs at most
0.25, so this is for the v6e. Forward, a tile of logits is reduced as soon as it is there; backward, it becomes the
gradient in the products' dtype, which XLA's two products then read.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental import pallas as pl
from jax.experimental.pallas import tpu as pltpu

MINIMUM = -1e30
TOKENS = 1024
"""Of a tile, at most."""
WORDS = 1024
"""Of a tile, at most."""
WIDTHS = (512, 256, 128)
"""Of a step of the product: the largest that divides D."""
VMEM_BYTES = 64 * 2**20
"""What a kernel may take of the v6e's 128 MiB on chip."""


class Numbers(NamedTuple):
    """The static part: how logits are made of products, and whether the entropy is asked for."""

    temperature: float
    softcap: float | None
    entropy: bool


def check_width(width: int, dtype: Any) -> None:
    """Refuses what the kernels cannot multiply.

    Raises:
        ValueError: says what was given and what is allowed.

    >>> check_width(4096, "bfloat16")
    """
    start = "implementation='pallas' (TPU)"
    if width % WIDTHS[-1]:
        raise ValueError(f"{start}: hidden states of width {width}, allowed are multiples of {WIDTHS[-1]}")
    if jnp.dtype(dtype).name not in ("bfloat16", "float32"):
        raise ValueError(f"{start}: hidden states in {jnp.dtype(dtype).name}, allowed are bfloat16, float32")


def read_chunk(
    hidden: jax.Array, weights: jax.Array, targets: jax.Array, limit: jax.Array, numbers: Numbers
) -> tuple[jax.Array, ...]:
    """Of one chunk: largest logit, Σ e, the target's logit and Σ e (l - largest), e = exp(l - largest).

    Args:
        hidden: [C D].
        weights: [V D] in the same dtype.
        targets: [C] columns of ``weights``; others meet no target.
        limit: columns from here on pad the vocabulary and have probability 0.
        numbers: static.

    Returns:
        [C] fp32 each.
    """
    read = _tiled(
        functools.partial(_read_tile, numbers),
        [hidden, weights, limit, targets],
        outputs=[((hidden.shape[0], 1), jnp.float32)] * 4,
        scratch=4,
    )
    return tuple(x[:, 0] for x in read)


def gradient_chunk(
    hidden: jax.Array, weights: jax.Array, rows: Sequence[jax.Array], limit: jax.Array, numbers: Numbers
) -> jax.Array:
    """Of one chunk: the gradient by the product hidden · weightsᵀ, [C V] in their dtype.

    Args:
        hidden: [C D].
        weights: [V D] in the same dtype.
        rows: targets, log-sum-exp, entropy, and the cotangents of log-prob and entropy; [C] each.
        limit: as for ``read_chunk``.
        numbers: static.
    """
    shape = hidden.shape[0], weights.shape[0]
    [gradient] = _tiled(
        functools.partial(_gradient_tile, numbers),
        [hidden, weights, limit, *rows],
        outputs=[(shape, hidden.dtype)],
        scratch=0,
    )
    return gradient


def _tiled(
    finish: Callable[..., None], inputs: Sequence[jax.Array], *, outputs: Sequence[tuple[Any, Any]], scratch: int
) -> Any:
    """``finish`` on every tile of hidden · weightsᵀ, one word tile after the other for each token tile.

    Args:
        finish: of the tile's first column, whether it is the token tile's first and last, the product, and references
            to the limit, the columns, the outputs and the scratch.
        inputs: hidden [C D], weights [V D], limit, and columns [C].
        outputs: shapes and dtypes, [C 1] or [C V].
        scratch: number of columns in fp32 that stay from one word tile to the next.
    """
    hidden, weights, limit, *columns = inputs
    (C, D), V = hidden.shape, weights.shape[0]
    tokens, words = min(C, TOKENS), min(V, WORDS)
    width = next(size for size in WIDTHS if D % size == 0)
    grid = (pl.cdiv(C, tokens), pl.cdiv(V, words), D // width)

    def kernel(limit: Any, hidden: Any, weights: Any, *others: Any) -> None:
        *rest, product = others
        j, d = pl.program_id(1), pl.program_id(2)

        @pl.when(d == 0)
        def _() -> None:
            product[...] = jnp.zeros_like(product)

        product[...] += jax.lax.dot_general(
            hidden[...], weights[...], (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32
        )

        @pl.when(d == grid[2] - 1)
        def _() -> None:
            finish(j * words, j == 0, j == grid[1] - 1, product[...], limit[0], *rest)

    def by_token(shape: Sequence[int]) -> pl.BlockSpec:
        if shape[1] == 1:
            return pl.BlockSpec((tokens, 1), lambda i, j, d: (i, 0))
        return pl.BlockSpec((tokens, words), lambda i, j, d: (i, j))

    return pl.pallas_call(
        kernel,
        out_shape=[jax.ShapeDtypeStruct(shape, dtype) for shape, dtype in outputs],
        grid=grid,
        in_specs=[
            pl.BlockSpec(memory_space=pltpu.SMEM),
            pl.BlockSpec((tokens, width), lambda i, j, d: (i, d)),
            pl.BlockSpec((words, width), lambda i, j, d: (j, d)),
            *[by_token((C, 1))] * len(columns),
        ],
        out_specs=[by_token(shape) for shape, _ in outputs],
        scratch_shapes=[
            *[pltpu.VMEM((tokens, 1), jnp.float32)] * scratch,
            pltpu.VMEM((tokens, words), jnp.float32),
        ],
        compiler_params=pltpu.CompilerParams(
            dimension_semantics=("parallel", "arbitrary", "arbitrary"), vmem_limit_bytes=VMEM_BYTES
        ),
    )(jnp.asarray(limit, jnp.int32).reshape(1), hidden, weights, *(x[:, None] for x in columns))


def _logits(product: jax.Array, first: jax.Array, limit: jax.Array, numbers: Numbers) -> tuple[jax.Array, jax.Array]:
    """Logits of a tile, and which columns they are; what is beyond the last word is garbage and made ``MINIMUM``."""
    if numbers.softcap is not None:
        product = numbers.softcap * jnp.tanh(product / numbers.softcap)
    columns = jax.lax.broadcasted_iota(jnp.int32, product.shape, 1) + first
    return jnp.where(columns < limit, product / numbers.temperature, MINIMUM), columns


def _read_tile(
    numbers: Numbers, first: Any, is_first: Any, is_last: Any, product: jax.Array, limit: Any, targets: Any, *rest: Any
) -> None:
    outputs, scratch = rest[:4], rest[4:]
    largest, mass, chosen, spread = scratch

    @pl.when(is_first)
    def _() -> None:
        largest[...] = jnp.full_like(largest, MINIMUM)
        for x in (mass, chosen, spread):
            x[...] = jnp.zeros_like(x)

    logits, columns = _logits(product, first, limit, numbers)
    before, mass_before = largest[...], mass[...]
    top = jnp.maximum(before, jnp.max(logits, axis=1, keepdims=True))
    moved = before - top
    shifted = logits - top
    exponentials = jnp.exp(shifted)
    weight = jnp.exp(moved)
    if numbers.entropy:
        here = jnp.sum(exponentials * shifted, axis=1, keepdims=True)
        spread[...] = weight * (spread[...] + moved * mass_before) + here
    mass[...] = weight * mass_before + jnp.sum(exponentials, axis=1, keepdims=True)
    own = (columns == targets[...]) & (columns < limit)  # a target in another device's part may be beyond the last word
    chosen[...] += jnp.sum(jnp.where(own, logits, 0.0), axis=1, keepdims=True)
    largest[...] = top

    @pl.when(is_last)
    def _() -> None:
        for output, x in zip(outputs, scratch, strict=True):
            output[...] = x[...]


def _gradient_tile(
    numbers: Numbers, first: Any, is_first: Any, is_last: Any, product: jax.Array, limit: Any, *rest: Any
) -> None:
    del is_first, is_last
    *rows, output = rest
    targets, lse, entropy, g_logprob, g_entropy = (x[...] for x in rows)
    logits, columns = _logits(product, first, limit, numbers)
    log_p = logits - lse
    p = jnp.exp(log_p)
    gradient = ((columns == targets).astype(jnp.float32) - p) * g_logprob
    if numbers.entropy:
        gradient -= p * (log_p + entropy) * g_entropy
    gradient = gradient / numbers.temperature
    if numbers.softcap is not None:
        gradient *= 1.0 - jnp.square(logits * (numbers.temperature / numbers.softcap))
    output[...] = jnp.where(columns < limit, gradient, 0.0).astype(output.dtype)
