"""Attention under the tree mask on TPU: jax's splash kernel, given a plan that is made once a step.

A row's S slots are cut into tiles of ``block`` × ``block``. The plan says of each tile whether a query in it sees all
keys in it, some or none, and holds the mask of those with some. Tiles without a visible pair are skipped, and a skipped
tile copies nothing: where the kernel looks for its next keys and its next mask, the plan names those it needs next.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as kernel
from jax.experimental.pallas.ops.tpu.splash_attention.splash_attention_mask_info import MaskInfo
from jax.tree_util import Partial

from jaxrefine.models.attention_scores import Attend, ScoreRule
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.head_shards import over_heads, scaled
from jaxrefine.models.masks import tree_mask
from jaxrefine.typing import Array, Int

SLOT_MULTIPLE = 128
"""A row has a multiple of so many slots: one tile is at least as wide as a TPU's registers."""

BLOCKS = (512, 256, 128)
"""Sizes of a tile, the largest that divides the row is taken; the kernel at 1024 does not fit the VMEM of a v5p."""

WIDEST_HEAD = 256
HEAD_MULTIPLE = 16
MOST_SCALARS = 2**19
"""Bytes of the scalar memory, 1 MiB on v5e, that may go to saying which tile is read next."""
DTYPES = ("bfloat16", "float32")


def check_splash(config: TransformerConfig, dtype: Any, slots: int) -> None:
    """Refuses what the kernel cannot do.

    Args:
      config: of the decoder.
      dtype: of the computation.
      slots: S, of a row.

    Raises:
      ValueError: ALiBi, a head width, a dtype, or slots that are no multiple of ``SLOT_MULTIPLE``.
    """
    start = "attention='splash' (TPU)"
    if config.positions == "alibi":
        raise ValueError(f"{start} has no bias by position, and positions = 'alibi' needs one: take 'expand'")
    if config.head_width % HEAD_MULTIPLE or config.head_width > WIDEST_HEAD:
        raise ValueError(
            f"{start}: head_width is {config.head_width}, allowed are multiples of {HEAD_MULTIPLE} up to {WIDEST_HEAD}"
        )
    if jnp.dtype(dtype).name not in DTYPES:
        raise ValueError(f"{start}: dtype is {jnp.dtype(dtype).name}, allowed are {', '.join(DTYPES)}")
    if slots % SLOT_MULTIPLE:
        raise ValueError(
            f"{start}: rows have {slots} slots, allowed are multiples of {SLOT_MULTIPLE}, "
            f"next {-(-slots // SLOT_MULTIPLE) * SLOT_MULTIPLE}"
        )


class Tiles(NamedTuple):
    """Of the tiles of every row; n = S / block.

    The small arrays have one entry for each kind of layer: all see the whole tree, or a window of it, or both occur.
    """

    kind: jax.Array
    """[B, kinds, n, n] int8: no pair of the tile is visible, some are (1), all are (2)."""
    keys: jax.Array
    """[B, kinds, n, n]: the tile of keys that a query tile reads next."""
    queries: jax.Array
    """[B, kinds, n, n]: the tile of queries that a key tile reads next."""
    masks_by_query: jax.Array
    """[B, kinds, n, n]: the mask that is read next, a query tile at a time …"""
    masks_by_key: jax.Array
    """… and a key tile at a time."""
    masks: jax.Array
    """[B, kinds · n · n, block, block] bool, [query, key]."""
    masks_turned: jax.Array
    """The same as [key, query]."""


def splash(
    *,
    ends: Int[Array, "B S"],
    positions: Int[Array, "B S"] | None = None,
    config: TransformerConfig,
    paths: Any = None,
    homes: Any = None,
) -> Attend:
    """The tree mask of ``ends`` through jax's splash kernel.

    Every slot sees itself, whatever ``ends`` says: without any key there is nothing to divide by.

    Args:
      ends: as in ``tree_mask``; S is a multiple of ``SLOT_MULTIPLE``.
      positions: of each slot, where layers have a window.
      config: says which layers have one.
      paths: not needed.
      homes: not needed.

    Source: Dao et al. 2022, arXiv:2205.14135, for the tiles; ``jax.experimental.pallas.ops.tpu.splash_attention``.
    """
    del paths, homes
    windows = dict.fromkeys(config.window if windowed else None for windowed in config.windowed_layers)
    kinds = sorted(windows, key=lambda window: window is not None)
    block = next(size for size in BLOCKS if ends.shape[-1] % size == 0)
    return Partial(functools.partial(_splash, block), plan_tiles(ends, positions, kinds=kinds, block=block))


def plan_tiles(
    ends: Int[Array, "B S"],
    positions: Int[Array, "B S"] | None,
    *,
    kinds: Sequence[int | None],
    block: int,
) -> Tiles:
    """What the kernel must know of each tile; the masks take 2 · S² bytes a row and kind.

    Args:
      ends: as in ``tree_mask``.
      positions: of each slot, where a kind has a window.
      kinds: the window of each kind of layer, None for none.
      block: slots of a tile's side; divides S.

    >>> tiles = plan_tiles(jnp.full((1, 6), 6), None, kinds=[None], block=2)
    >>> tiles.kind[0, 0].tolist(), tiles.keys[0, 0].tolist()
    ([[1, 0, 0], [2, 1, 0], [2, 2, 1]], [[0, 0, 0], [0, 1, 1], [0, 1, 2]])
    """
    B, slots = ends.shape
    n, num = slots // block, len(kinds)
    visible = tree_mask(ends) | jnp.eye(slots, dtype=bool)[None]
    if positions is not None:
        places = jnp.asarray(positions)
        distances = places[:, :, None] - places[:, None, :]
    seen = [visible if window is None else visible & (distances < window) for window in kinds]
    tiles = jnp.stack(seen, axis=1).reshape(B, num, n, block, n, block).swapaxes(3, 4)
    some, every = jnp.any(tiles, axis=(-2, -1)), jnp.all(tiles, axis=(-2, -1))
    order = jnp.arange(n, dtype=jnp.int32)
    number = jnp.arange(num * n * n, dtype=jnp.int32).reshape(num, n, n)
    place = functools.partial(_narrow, most=num * n * n)
    masks = tiles.reshape(B, num * n * n, block, block)
    return Tiles(
        kind=some.astype(jnp.int8) + every.astype(jnp.int8),
        keys=place(_next(some, order, axis=3)),
        queries=place(_next(some, order[:, None], axis=2)),
        masks_by_query=place(_next(some & ~every, number, axis=3)),
        masks_by_key=place(_next(some & ~every, number, axis=2)),
        masks=masks,
        masks_turned=masks.swapaxes(2, 3),
    )


def _next(needed: jax.Array, number: jax.Array, axis: int) -> jax.Array:
    """The number of the first needed tile from here on along ``axis``, else of the last one before; 0 without any."""
    number = jnp.broadcast_to(jnp.expand_dims(number, range(needed.ndim - number.ndim)), needed.shape)
    none = jnp.iinfo(jnp.int32).max
    after = jax.lax.cummin(jnp.where(needed, number, none), axis=axis, reverse=True)
    before = jax.lax.cummax(jnp.where(needed, number, 0), axis=axis)
    return jnp.where(after == none, before, after)


def _narrow(numbers: jax.Array, most: int) -> jax.Array:
    """The narrowest integers that hold up to ``most``: they lie in a small memory of scalars."""
    return numbers.astype(next(t for t in (jnp.int8, jnp.int16, jnp.int32) if most <= jnp.iinfo(t).max))


def _splash(
    block: int, tiles: Tiles, q: jax.Array, k: jax.Array, v: jax.Array, state: Any = None, rule: ScoreRule | None = None
) -> tuple[Array, Any]:
    if rule is None:
        raise ValueError("attention='splash' reads a ScoreRule, given None")
    chosen = _of_layer(tiles, rule.windowed)
    run = functools.partial(_kernel, block, rule.config.attention_softcap)
    return over_heads(run, chosen, scaled(q, rule.divisor), k, v), state


def _of_layer(tiles: Tiles, windowed: bool | jax.Array | None) -> Tiles:
    """The tiles as one layer sees them. Masks of all kinds stay where they are: a choice between them is a copy."""

    def choose(x: jax.Array) -> jax.Array:
        return x[:, 0] if x.shape[1] == 1 else jnp.where(jnp.asarray(windowed), x[:, 1], x[:, 0])

    small = zip(Tiles._fields[:5], tiles[:5], strict=True)
    return tiles._replace(**{name: choose(x) for name, x in small})


def _kernel(block: int, softcap: float | None, tiles: Tiles, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    """One device's part: q [B S Q H], k and v [B S K H].

    Rows are further heads of one call, if the scalar memory holds what is then said of each: the kernel finds a query
    head's keys at its number over Q / K, which holds for all rows at once. A loop over rows copies each.
    """
    B, _, Q, _ = q.shape
    one = functools.partial(_rows_as_heads, block, softcap)
    lanes = -(-tiles.kind.shape[-1] // 128) * 128
    scalars = B * Q * tiles.kind.shape[-2] * lanes * (2 + tiles.masks_by_query.dtype.itemsize)
    if B == 1 or scalars <= MOST_SCALARS:
        return one(tiles, q, k, v)
    each = jax.tree.map(lambda x: x[:, None], (tiles, q, k, v))
    return jax.lax.map(lambda row: one(*row), each).reshape(q.shape)


def _rows_as_heads(
    block: int, softcap: float | None, tiles: Tiles, q: jax.Array, k: jax.Array, v: jax.Array
) -> jax.Array:
    B, S, Q, H = q.shape
    num = tiles.masks.shape[1]

    def by_head(small: jax.Array, offset: jax.Array | None = None) -> jax.Array:
        """[B n n] as [B · Q, n, n], which the kernel reads; one row is for all heads."""
        if B == 1:
            return small
        if offset is not None:
            small = _narrow(small.astype(jnp.int32) + offset, B * num)
        return jnp.repeat(small, Q, axis=0)

    first = (jnp.arange(B, dtype=jnp.int32) * num)[:, None, None]
    by_query, by_key = by_head(tiles.masks_by_query, first), by_head(tiles.masks_by_key, first)
    kind, side = by_head(tiles.kind), (block, block)
    forward = MaskInfo(by_head(tiles.keys), by_query, kind, tiles.masks.reshape(-1, *side), None)
    backward = MaskInfo(by_head(tiles.queries), by_key, kind, tiles.masks_turned.reshape(-1, *side), None)
    run = kernel.SplashAttentionKernel(
        forward,
        forward,
        backward,
        block_sizes=kernel.BlockSizes(
            block_q=block, block_kv=block, block_q_dkv=block, block_kv_dkv=block, block_q_dq=block, block_kv_dq=block
        ),
        is_mqa=False,
        save_residuals=False,
        mask_value=kernel.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=softcap,
        residual_checkpoint_name="attention",
        mask_function=None,
        interpret=False,
    )
    heads_first = (x.swapaxes(1, 2).reshape(-1, S, H) for x in (q, k, v))
    out = jnp.asarray(run(*heads_first))
    return out.reshape(B, Q, S, H).swapaxes(1, 2)
