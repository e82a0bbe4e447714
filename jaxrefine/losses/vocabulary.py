"""Loops over chunks of tokens whose logits are made, used and dropped; on a mesh, each device its part of both axes.

    hidden[M_rows, D] · embedding[V_tensor, D_fsdp]ᵀ

Tokens lie on the axes that split rows, the vocabulary on ``tensor``. The width of the embedding is gathered over
``fsdp`` once, in the dtype of the products, before the loop, which communicates nothing. A few numbers a token go over
``tensor``, after the loop: no device ever holds logits of a vocabulary that is split. The way back is in ``tiles``.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec

from jaxrefine.sharding import ROWS, mesh_in_use

_log = logging.getLogger(__name__)

CHUNK_ELEMENTS = 2**22
"""Logits a device holds at once where ``chunk_size`` is not given: 16 MiB in fp32 …"""

CHUNK_TOKENS = 1024
"""… but never fewer tokens than this: with less, reading the embedding costs an accelerator more than the products (2
bytes against 2 · tokens operations, at 300 to 600 operations a byte)."""

MINIMUM = -1e30
"""The logit of a column that pads the vocabulary."""


class Shards(NamedTuple):
    """How a mesh splits tokens, vocabulary and width."""

    rows: tuple[str, ...]
    row_parts: int
    vocab: str | None
    vocab_parts: int
    width: str | None
    """The axis that splits the embedding's width, which is gathered; None where it does not divide it."""


def mesh_shards(widths: Sequence[int]) -> Shards | None:
    """Of the mesh of ``jax.set_mesh``; None without one, on a single device, or inside a ``shard_map``.

    Args:
        widths: D of each embedding.
    """
    if (mesh := mesh_in_use(by_xla=True)) is None:
        return None
    fsdp, tensor = int(mesh.shape["fsdp"]), int(mesh.shape["tensor"])
    return Shards(
        rows=ROWS,
        row_parts=math.prod(int(mesh.shape[axis]) for axis in ROWS),
        vocab="tensor" if tensor > 1 else None,
        vocab_parts=tensor,
        width="fsdp" if fsdp > 1 and all(width % fsdp == 0 for width in widths) else None,
    )


class Loop(NamedTuple):
    """The static part of a loop."""

    rows: int
    """Tokens of a chunk on a device."""
    num_chunks: int
    vocab: int
    """V, without padding."""
    shards: Shards | None

    def gradient_shape(self, weights: jax.Array) -> tuple[int, ...]:
        """Of what is summed over chunks as the gradient of gathered ``weights`` [V, D]."""
        return weights.shape[::-1] if self.turned else weights.shape

    @property
    def turned(self) -> bool:
        """Whether that sum is [D, V]: its first axis can be scattered over devices as it lies, another is copied."""
        return self.shards is not None and self.shards.width is not None


def default_chunk_size(num_tokens: int, vocab_size: int, num_shards: int = 1) -> int:
    """Tokens a chunk: as few equal chunks as hold ``CHUNK_ELEMENTS`` logits, or ``CHUNK_TOKENS`` tokens, on a device.

    A number of chunks that divides the tokens of a device is preferred, so that nothing is padded.

    >>> default_chunk_size(1000, 1024), default_chunk_size(8192, 32_000), default_chunk_size(8192, 32_000, 4)
    (1000, 1024, 4096)
    """
    local = max(-(-num_tokens // num_shards), 1)
    fewest = -(-local // max(CHUNK_ELEMENTS // vocab_size, CHUNK_TOKENS))
    num_chunks = next((n for n in range(fewest, min(2 * fewest, local) + 1) if local % n == 0), fewest)
    return -(-local // num_chunks) * num_shards


def make_loop(num_tokens: int, vocab: int, widths: Sequence[int], chunk_size: int | None) -> Loop:
    """The loop over ``num_tokens`` ≥ 1 tokens on the mesh of ``jax.set_mesh``.

    Args:
        num_tokens: M, all devices' together.
        vocab: V.
        widths: D of each embedding.
        chunk_size: tokens a chunk, all devices' together; None is the default.

    Raises:
        ValueError: a chunk size below 1.
    """
    if chunk_size is not None and chunk_size < 1:
        raise ValueError(f"chunk_size is at least 1 token, given {chunk_size}")
    shards = mesh_shards(widths)
    row_parts, vocab_parts = (1, 1) if shards is None else (shards.row_parts, shards.vocab_parts)
    columns = -(-vocab // vocab_parts)
    if columns * vocab_parts != vocab:
        _log.info(
            "a vocabulary of %d over tensor = %d: padded to %d with columns of probability 0",
            vocab, vocab_parts, columns * vocab_parts,
        )  # fmt: skip
    local = -(-num_tokens // row_parts)
    size = min(chunk_size or default_chunk_size(num_tokens, columns, row_parts), local * row_parts)
    rows = -(-size // row_parts)
    return Loop(rows, -(-local // rows), vocab, shards)


def fitted(loop: Loop, tokens: Sequence[Any], embeddings: Sequence[Any]) -> tuple[list[jax.Array], list[jax.Array]]:
    """Arrays [M …] and embeddings [V, D] padded with zeros to what the mesh divides."""
    if loop.shards is None:
        return [jnp.asarray(x) for x in tokens], [jnp.asarray(x) for x in embeddings]

    def pad(x: Any, parts: int) -> jax.Array:
        x = jnp.asarray(x)
        return jnp.pad(x, ((0, -x.shape[0] % parts), *((0, 0),) * (x.ndim - 1)))

    shards = loop.shards
    return [pad(x, shards.row_parts) for x in tokens], [pad(x, shards.vocab_parts) for x in embeddings]


def on_devices(loop: Loop, run: Callable[..., Any], kinds: Sequence[str], results: Any) -> Callable[..., Any]:
    """``run`` on each device's part, of arguments and results of these kinds; None stays None.

    Args:
        loop: with the mesh's shards; without them ``run`` itself is returned.
        run: of as many arguments as there are kinds.
        kinds: "tokens" [M …]; "embedding" [V, D], as it is stored; "gathered" [V, D], whole in D; "logits" [M, V].
        results: a tree of kinds.
    """
    if loop.shards is None:
        return run
    shards = loop.shards
    specs = {
        "tokens": PartitionSpec(shards.rows),
        "embedding": PartitionSpec(shards.vocab, shards.width),
        "gathered": PartitionSpec(shards.vocab, None),
        "logits": PartitionSpec(shards.rows, shards.vocab),
    }
    return jax.shard_map(
        run,
        in_specs=tuple(specs[kind] for kind in kinds),
        out_specs=jax.tree.map(specs.__getitem__, results),
        check_vma=False,
    )


def gathered(embedding: jax.Array, dtype: Any, loop: Loop) -> jax.Array:
    """A device's rows of the embedding, whole in their width, in the dtype of the products."""
    weights = embedding.astype(dtype)
    if loop.shards is None or loop.shards.width is None:
        return weights
    return jax.lax.all_gather(weights, loop.shards.width, axis=1, tiled=True)


def scattered(gradient: jax.Array, loop: Loop) -> jax.Array:
    """The gradient by words of ``gathered``'s embedding, each device of ``fsdp`` left with its own part of their width.

    Args:
        gradient: of the shape ``loop.gradient_shape``.
        loop: the loop.

    Returns:
        [words, D], summed over ``fsdp`` where that splits D.
    """
    if loop.shards is None or loop.shards.width is None:
        return gradient
    return jax.lax.psum_scatter(gradient, loop.shards.width, scatter_dimension=0, tiled=True).T


def summed(gradient: jax.Array, loop: Loop) -> jax.Array:
    """What ``scattered`` left, over the other devices that split tokens."""
    if loop.shards is None:
        return gradient
    rows = tuple(axis for axis in loop.shards.rows if not (loop.turned and axis == loop.shards.width))
    return jax.lax.psum(gradient, rows)


def over_vocabulary(x: jax.Array, loop: Loop, reduce: Callable[..., jax.Array] = jax.lax.psum) -> jax.Array:
    """The sum, or another reduction, of what each device found in its part of the vocabulary."""
    return x if loop.shards is None or loop.shards.vocab is None else reduce(x, loop.shards.vocab)


def first_word(loop: Loop, num_columns: int) -> jax.Array:
    """Of this device's part of the vocabulary, which has ``num_columns`` columns."""
    if loop.shards is None or loop.shards.vocab is None:
        return jnp.zeros((), jnp.int32)
    return jax.lax.axis_index(loop.shards.vocab).astype(jnp.int32) * num_columns


def columns(logits: jax.Array, first: jax.Array) -> jax.Array:
    """[C W] which word each column is, ``first`` being the first column's."""
    return jax.lax.broadcasted_iota(first.dtype, logits.shape, 1) + first


def _is_padded(loop: Loop) -> bool:
    return loop.shards is not None and loop.vocab % loop.shards.vocab_parts != 0


def make_logits(
    hidden: jax.Array, words: jax.Array, first: jax.Array, loop: Loop, *, temperature: float, softcap: float | None
) -> jax.Array:
    """[C W] fp32 from hidden states [C D] and words [W D], beginning with ``first``; inputs in their own dtype."""
    logits = jax.lax.dot_general(hidden, words, (((1,), (1,)), ((), ())), preferred_element_type=jnp.float32)
    if softcap is not None:
        logits = softcap * jnp.tanh(logits / softcap)
    logits = logits / temperature
    return jnp.where(columns(logits, first) < loop.vocab, logits, MINIMUM) if _is_padded(loop) else logits


def by_product(
    gradient: jax.Array,
    logits: jax.Array,
    first: jax.Array,
    loop: Loop,
    *,
    temperature: float,
    softcap: float | None,
) -> jax.Array:
    """[C W] fp32: from the gradient by logits to the gradient by the product hidden · wordsᵀ."""
    gradient = gradient / temperature
    if softcap is not None:
        gradient = gradient * (1.0 - jnp.square(logits * (temperature / softcap)))
    return jnp.where(columns(logits, first) < loop.vocab, gradient, 0.0) if _is_padded(loop) else gradient


def over_chunks(loop: Loop, arrays: Sequence[jax.Array], carry: Any, chunk: Callable[..., tuple[Any, Any]]) -> Any:
    """``chunk(carry, *parts) -> (carry, outputs)`` over chunks of arrays [M …]: the last carry, and outputs [M …].

    Chunk c holds tokens c, c + num_chunks, …: where XLA splits M in contiguous blocks, every chunk has an equal part of
    each.
    """
    num_tokens = arrays[0].shape[0]
    if loop.num_chunks == 1:
        return chunk(carry, *arrays)
    split = [_split(x, loop) for x in arrays]

    def body(carry: Any, index: jax.Array) -> tuple[Any, Any]:
        return chunk(carry, *(jax.lax.dynamic_index_in_dim(x, index, axis=1, keepdims=False) for x in split))

    carry, outputs = jax.lax.scan(body, carry, jnp.arange(loop.num_chunks))
    return carry, jax.tree.map(lambda x: _join(x, num_tokens), outputs)


def _split(x: jax.Array, loop: Loop) -> jax.Array:
    """[M …] to [rows, num_chunks, …], padded with zeros."""
    padding = loop.rows * loop.num_chunks - x.shape[0]
    x = jnp.pad(x, [(0, padding)] + [(0, 0)] * (x.ndim - 1))
    return x.reshape(loop.rows, loop.num_chunks, *x.shape[1:])


def _join(chunks: jax.Array, num_tokens: int) -> jax.Array:
    """[num_chunks, rows, …], as a scan stacks it, back to [M …]."""
    joined = jnp.swapaxes(chunks, 0, 1)
    return joined.reshape(-1, *joined.shape[2:])[:num_tokens]
