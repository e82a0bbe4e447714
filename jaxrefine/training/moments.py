"""Adam's moments in fewer bytes: bfloat16, or 8-bit codes in blocks with a scale each.

A moment changes by a share 1 - b of itself a step: 0.1 % for b2 = 0.999, less than half the distance between two
neighbouring values of bfloat16 or of 8-bit codes. Rounded to the nearest it would stand still for ever. So every moment
is rounded at random to one of its two neighbours, with the chances that keep its expectation: the average goes on as if
nothing were rounded. What is drawn depends on the number of the update alone, so a run can be repeated and taken up
again to the bit.

    bytes a parameter, both moments     float32 8     bfloat16 4     int8 2 + 8 / 64 = 2.125

Only matrices are stored in fewer bytes; norms, biases, and matrices whose rows no block divides, stay in fp32.

Source: Kingma & Ba 2015, arXiv:1412.6980, Algorithm 1 (Adam); Dettmers et al. 2022, arXiv:2110.02861, §2 (blocks with
codes that lie closer near zero; theirs come from a table, these are powers, which need no look-up); Gupta et al. 2015,
arXiv:1502.02551, §3.1 (stochastic rounding).
"""

from __future__ import annotations

import math
from typing import Any, Literal, NamedTuple, get_args

import jax
import jax.numpy as jnp
import optax

from jaxrefine.config import unknown_name
from jaxrefine.sharding import path_of
from jaxrefine.typing import Array, Float, Int, Key

Moments = Literal["float32", "bfloat16", "int8"]

BLOCK = 64
"""Values of a row that share a scale, where it divides the row; else its largest divisor below that."""
SMALLEST_BLOCK = 8
"""Rows that only smaller blocks divide are not quantised: their scales would cost what they save."""
_FIRST_POWER, _SECOND_POWER = 2, 4
_WHOLE = ("scale", "bias")
"""Parameters whose moments stay in fp32: there are few of them."""


class Quantized(NamedTuple):
    """Codes, and the largest magnitude of each block of the last axis; ``RULES`` place both like the parameter."""

    values: Int[Array, "*rows n"]
    """int8 codes k of a first moment, (k / 127)² with the sign of k; uint8 codes of a second, ((k + 1) / 256)⁴."""
    scales: Float[Array, "*rows blocks"]


class CompactState(NamedTuple):
    """What ``scale_by_compact_adam`` carries."""

    num_updates: Int[Array, ""]
    """Updates so far."""
    mu: Any
    nu: Any


class CompactTrace(NamedTuple):
    """What ``compact_trace`` carries."""

    num_updates: Int[Array, ""]
    trace: Any


def block_of(size: int) -> int | None:
    """The length of the blocks of a row of that size, or None where it is not quantised.

    >>> block_of(4096), block_of(1600), block_of(16), block_of(50), block_of(17 * 3)
    (64, 64, 16, 50, 51)
    >>> block_of(67) is None
    True
    """
    best = next(block for block in range(min(BLOCK, size), 0, -1) if size % block == 0)
    return best if best >= SMALLEST_BLOCK else None


def round_to_bfloat16(x: Float[Array, "*any"], key: Key[Array, ""]) -> jax.Array:
    """fp32 to one of the two neighbours in bfloat16, at random, so that its expectation is x."""
    bits = jax.lax.bitcast_convert_type(jnp.asarray(x), jnp.uint32)
    noise = jax.random.bits(key, x.shape, jnp.uint16).astype(jnp.uint32)
    return jax.lax.bitcast_convert_type(((bits + noise) >> 16).astype(jnp.uint16), jnp.bfloat16)


def quantize(x: Float[Array, "*rows n"], key: Key[Array, ""], *, second: bool) -> Quantized:
    """8-bit codes in blocks of the last axis, each rounded at random to one of its two neighbours.

    Args:
        x: fp32; not negative where ``second``.
        key: of the rounding.
        second: a second moment, which spans twice the orders of magnitude and must not become 0: its smallest code is
            (1/256)⁴ of the block's largest value.

    Returns:
        Codes and scales; |error| is less than the distance of the two neighbours.

    Raises:
        ValueError: a last axis that ``block_of`` refuses.

    >>> q = quantize(jnp.array([[0.0, 1.0, -4.0, 4.0] * 4]), jax.random.key(0), second=False)
    >>> q.values.dtype, q.values.shape, q.scales.tolist(), dequantize(q)[0, :4].tolist()[::3]
    (dtype('int8'), (1, 16), [[4.0]], [0.0, 4.0])
    """
    block = block_of(x.shape[-1])
    if block is None:
        raise ValueError(f"rows of {x.shape[-1]} values have no blocks of {SMALLEST_BLOCK} to {BLOCK}")
    rows = jnp.asarray(x).reshape(*x.shape[:-1], -1, block)
    scales = jnp.max(jnp.abs(rows), -1)
    share = jnp.abs(rows) / jnp.where(scales > 0, scales, 1.0)[..., None]
    top = 255.0 if second else 127.0
    root = jnp.sqrt(jnp.sqrt(share)) * 256.0 - 1.0 if second else jnp.sqrt(share) * 127.0
    below = jnp.clip(jnp.floor(root), 0.0, top)
    low, high = _decoded(below, second), _decoded(below + 1.0, second)
    chance = (share - low) / (high - low)
    drawn = jax.random.bits(key, rows.shape, jnp.uint16).astype(jnp.float32) * (1.0 / 65536.0)
    codes = jnp.minimum(below + (drawn < chance).astype(jnp.float32), top)
    if not second:
        codes = jnp.where(rows < 0, -codes, codes)
    return Quantized(codes.astype(jnp.uint8 if second else jnp.int8).reshape(x.shape), scales)


def dequantize(stored: Quantized) -> jax.Array:
    """fp32 again; which moment it is, the type of the codes says."""
    blocks = stored.scales.shape[-1]
    codes = jnp.asarray(stored.values).reshape(*stored.values.shape[:-1], blocks, -1)
    second = codes.dtype == jnp.uint8
    codes = codes.astype(jnp.float32)
    share = _decoded(jnp.abs(codes), second) * (1.0 if second else jnp.sign(codes))
    return (share * stored.scales[..., None]).reshape(stored.values.shape)


def _decoded(codes: jax.Array, second: bool) -> jax.Array:
    return ((codes + 1.0) / 256.0) ** _SECOND_POWER if second else (codes / 127.0) ** _FIRST_POWER


def largest_adam_update(b1: float, b2: float) -> float:
    """What no update of Adam can exceed before the learning rate, whatever the gradients; infinity if b1² >= b2.

    By Cauchy-Schwarz on the two averages, |m| / √v <= (1 - b1) / √((1 - b2)(1 - b1² / b2)), and the corrections of
    their starts only shrink it for b1 <= b2.

    >>> round(largest_adam_update(0.9, 0.999), 3)
    7.27
    """
    if not b1 <= b2 < 1 or b1 * b1 >= b2:
        return math.inf
    return (1 - b1) / math.sqrt((1 - b2) * (1 - b1 * b1 / b2))


def scale_by_compact_adam(b1: float, b2: float, eps: float, moments: Moments) -> optax.GradientTransformation:
    """``optax.scale_by_adam`` with moments of matrices in bfloat16 or int8.

    The moments of a step are computed in fp32 from what is stored, give the update, and are rounded only then. No
    update exceeds ``largest_adam_update``, which exact moments never do either.

    Args:
        b1: decay of the first moment.
        b2: of the second.
        eps: added to the root of the second.
        moments: "bfloat16" or "int8".
    """
    _check(moments)
    bound = largest_adam_update(b1, b2)

    def init(params: Any) -> CompactState:
        start = _zeros(params, moments)
        return CompactState(jnp.zeros((), jnp.int32), start(second=False), start(second=True))

    def update(grads: Any, state: CompactState, params: Any = None) -> tuple[Any, CompactState]:
        count = optax.safe_increment(state.num_updates)
        treedef: Any = jax.tree.structure(grads)
        leaves = treedef.flatten_up_to(grads)
        olds = zip(treedef.flatten_up_to(state.mu), treedef.flatten_up_to(state.nu), strict=True)
        unbiased = 1 - b1**count, 1 - b2**count
        updates, mus, nus = [], [], []
        for number, (grad, (mu, nu)) in enumerate(zip(leaves, olds, strict=True)):
            m = b1 * _read(mu) + (1 - b1) * grad
            v = b2 * _read(nu) + (1 - b2) * grad * grad
            step = (m / unbiased[0]) / (jnp.sqrt(v / unbiased[1]) + eps)
            updates.append(jnp.clip(step, -bound, bound) if math.isfinite(bound) else step)
            key = jax.random.fold_in(jax.random.fold_in(jax.random.key(0), count), number)
            first, second = jax.random.split(key)
            mus.append(_stored(m, mu, first, second=False))
            nus.append(_stored(v, nu, second, second=True))
        return treedef.unflatten(updates), CompactState(count, treedef.unflatten(mus), treedef.unflatten(nus))

    return optax.GradientTransformation(init, update)


def compact_trace(decay: float, moments: Moments) -> optax.GradientTransformation:
    """``optax.trace``, the momentum of SGD, stored in bfloat16 or int8 where it is a matrix's."""
    _check(moments)

    def init(params: Any) -> CompactTrace:
        return CompactTrace(jnp.zeros((), jnp.int32), _zeros(params, moments)(second=False))

    def update(grads: Any, state: CompactTrace, params: Any = None) -> tuple[Any, CompactTrace]:
        count = optax.safe_increment(state.num_updates)
        treedef: Any = jax.tree.structure(grads)
        leaves = treedef.flatten_up_to(grads)
        old = treedef.flatten_up_to(state.trace)
        new = [decay * _read(trace) + grad for trace, grad in zip(old, leaves, strict=True)]
        keys = jax.random.split(jax.random.fold_in(jax.random.key(0), count), len(new))
        stored = [_stored(x, like, key, second=False) for x, like, key in zip(new, old, keys, strict=True)]
        return treedef.unflatten(new), CompactTrace(count, treedef.unflatten(stored))

    return optax.GradientTransformation(init, update)


def is_matrix(path: Any, leaf: Any) -> bool:
    """Whether a parameter and its moments may be stored in fewer bytes: all but norms, biases and vectors."""
    return leaf.ndim > 1 and path_of(path).rsplit("/", 1)[-1] not in _WHOLE


def _check(moments: str) -> None:
    allowed = [name for name in get_args(Moments) if name != "float32"]
    if moments not in allowed:
        raise ValueError(unknown_name(moments, allowed, "compact moments"))


def _zeros(params: Any, moments: Moments) -> Any:
    """Makes a tree of zero moments, each as it is stored."""

    def zero(path: Any, leaf: Any, *, second: bool) -> Any:
        shape = leaf.shape
        if not is_matrix(path, leaf):
            return jnp.zeros(shape, jnp.float32)
        if moments == "bfloat16":
            return jnp.zeros(shape, jnp.bfloat16)
        block = block_of(shape[-1])
        if block is None:
            return jnp.zeros(shape, jnp.float32)
        codes = jnp.zeros(shape, jnp.uint8 if second else jnp.int8)
        return Quantized(codes, jnp.zeros((*shape[:-1], shape[-1] // block), jnp.float32))

    def tree(*, second: bool) -> Any:
        return jax.tree_util.tree_map_with_path(lambda path, leaf: zero(path, leaf, second=second), params)

    return tree


def _read(stored: Any) -> jax.Array:
    return dequantize(stored) if isinstance(stored, Quantized) else stored.astype(jnp.float32)


def _stored(x: jax.Array, like: Any, key: jax.Array, *, second: bool) -> Any:
    """A new moment, as the old one was stored."""
    if isinstance(like, Quantized):
        return quantize(x, key, second=second)
    return round_to_bfloat16(x, key) if like.dtype == jnp.bfloat16 else x
