"""Parameters read from open tensors: straight into the memory they keep, by several threads, cast on the way.

Memory that a process gets anew costs as much as the bytes that are read into it, and both are work of the system that
threads share. So every stacked parameter is one piece of memory, and threads fill it where each layer belongs: no byte
is copied twice, and nothing is staged but a cast's or a transform's part.
"""

from __future__ import annotations

import concurrent.futures
import dataclasses
import functools
import math
import os
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxrefine.conversion.tensors import Tensor, read_bytes
from jaxrefine.models.weights import Rule

MAX_THREADS = 8
"""More do not make memory faster, and each may stage one layer's tensor where a transform is needed."""
_CHUNK_BYTES = 1 << 24
"""What a thread reads at a time."""
_CAST_BYTES = 1 << 20
"""What a thread casts at a time: in the processor's cache."""
_SQUARE = 256
"""The side of what is transposed at a time: in the processor's cache."""

Job = Callable[[], None]
"""Fills a place that no other job fills."""


def read_parameter(
    tensors: Sequence[Tensor],
    rule: Rule,
    shape: tuple[int, ...],
    dtype: DTypeLike | None,
    sharding: jax.sharding.Sharding | None,
) -> jax.Array:
    """One parameter onto its devices, from the slices of the file that this process's devices hold.

    Args:
      tensors: one a layer, or one; with heads in their names, one a head of each layer.
      rule: theirs to ours.
      shape: of the whole parameter.
      dtype: of the result; None keeps the file's, if all layers have the same.
      sharding: None puts it on the default device.

    Returns:
      The array, on its devices: at most this parameter was staged in host memory.

    Raises:
      ValueError: layers of several dtypes where none is given, a file that ends before a tensor does.
    """
    kinds = sorted({tensor.dtype for tensor in tensors})
    if dtype is None and len(kinds) > 1:
        raise ValueError(f"tensor {tensors[0]} and its like in other layers have dtypes {', '.join(kinds)}; give one")
    target = jnp.dtype(kinds[0] if dtype is None else dtype)
    staged: dict[tuple[tuple[int, int, int], ...], np.ndarray] = {}

    def part(index: tuple[slice, ...] | None) -> np.ndarray:
        index = (slice(None),) * len(shape) if index is None else index
        spans = tuple(one.indices(size) for one, size in zip(index, shape, strict=True))
        if spans not in staged:
            staged[spans] = read_span(tensors, rule, shape, tuple(slice(*span) for span in spans), target)
        return staged[spans]

    if sharding is None:
        array = jax.device_put(part(None))
    else:
        array = jax.make_array_from_callback(shape, sharding, part)
    return jax.block_until_ready(array)


def read_span(
    tensors: Sequence[Tensor], rule: Rule, shape: tuple[int, ...], index: tuple[slice, ...], dtype: np.dtype[Any]
) -> np.ndarray:
    """Part of a parameter of that shape, in memory of its own, cast on the way."""
    own = _aligned(tuple(len(range(one.start, one.stop)) for one in index), dtype)
    stacked, rest = index[: rule.num_stacked], index[rule.num_stacked :]
    jobs: list[Job] = []
    for place in np.ndindex(own.shape[: rule.num_stacked]):
        number = 0
        for size, row, one in zip(shape, place, stacked, strict=False):
            number = number * size + one.start + row
        jobs += _jobs(tensors[number], rule, rest, own[(*place, ...)])
    _run(jobs, own.nbytes)
    return own


def _run(jobs: Sequence[Job], num_bytes: int) -> None:
    """In threads, where there is enough to do; the first error ends the rest and is raised."""
    threads = min(num_threads(), len(jobs))
    if threads < 2 or num_bytes <= _CAST_BYTES:
        for job in jobs:
            job()
        return
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        for _ in pool.map(lambda job: job(), jobs):
            pass


def num_threads() -> int:
    """As many as this process has processors, up to ``MAX_THREADS``."""
    own = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(own, MAX_THREADS)


def _aligned(shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
    """Memory that devices which share the host's take over as it is, without a copy: XLA wants 64 bytes."""
    size = math.prod(shape) * dtype.itemsize
    raw = np.empty(size + 64, np.uint8)
    start = -raw.ctypes.data % 64
    return raw[start : start + size].view(dtype).reshape(shape)


def _jobs(tensor: Tensor, rule: Rule, index: tuple[slice, ...], room: np.ndarray) -> Iterator[Job]:
    """What fills ``room`` with slices of a parameter's share in one tensor."""
    if rule.transform is not None:
        yield functools.partial(_transform, tensor, rule, index, room)
        return
    if rule.part is None:
        yield from _copies(tensor, index, room)
        return
    axis, filled = rule.part.axis, 0
    start, stop, _ = index[axis].indices(rule.part.width)
    for first, last in rule.part.spans(start, stop):
        own = (slice(None),) * axis + (slice(filled, filled + last - first),)
        yield from _copies(tensor, (*index[:axis], slice(first, last), *index[axis + 1 :]), room[own])
        filled += last - first


def _transform(tensor: Tensor, rule: Rule, index: tuple[slice, ...], room: np.ndarray) -> None:
    """One tensor, staged; of several parameters in one tensor, only this one's rows."""
    transform = rule.transform
    assert transform is not None
    whole = (slice(None),) * len(tensor.shape)
    plain = dataclasses.replace(rule, transform=None)
    theirs = whole if transform.index is None else transform.index(index)
    sizes = list(tensor.shape)
    if rule.part is not None:
        sizes[rule.part.axis] = rule.part.width
    shape = tuple(len(range(*one.indices(size))) for one, size in zip(theirs, sizes, strict=True))
    staged = np.empty(shape, jnp.dtype(tensor.dtype))
    for job in _jobs(tensor, plain, theirs, staged):
        job()
    loaded = transform.load(staged)
    fill(room, loaded if transform.index is not None else loaded[index])


def _copies(tensor: Tensor, index: tuple[slice, ...], room: np.ndarray) -> Iterator[Job]:
    """Slices of a tensor, as they lie in its file: whole rows in chunks, anything else at once."""
    rows = index[0].indices(tensor.shape[0]) if index else (0, 1, 1)
    rest = zip(index[1:], tensor.shape[1:], strict=True)
    whole = rows[2] == 1 and all(one.indices(size) == (0, size, 1) for one, size in rest)
    if tensor.start is None or not whole or not room.size or not room.flags.c_contiguous:
        yield functools.partial(_copy, tensor, index, room)
        return
    dtype = jnp.dtype(tensor.dtype)
    flat = room.reshape(-1)
    first = tensor.start + rows[0] * (room.size // (rows[1] - rows[0])) * dtype.itemsize
    length = _CHUNK_BYTES // dtype.itemsize
    for done in range(0, room.size, length):
        yield functools.partial(_read, tensor, first + done * dtype.itemsize, dtype, flat[done : done + length])


def _copy(tensor: Tensor, index: tuple[slice, ...], room: np.ndarray) -> None:
    fill(room, tensor.read(index))


def fill(room: np.ndarray, values: np.ndarray) -> None:
    """Copies values and casts them; a transposed matrix in squares, which takes a third of the time.

    >>> room = np.zeros((3, 2), np.float16)
    >>> fill(room, np.arange(6.0, dtype=np.float32).reshape(2, 3).T)
    >>> room.tolist()
    [[0.0, 3.0], [1.0, 4.0], [2.0, 5.0]]
    """
    if values.ndim != 2 or values.strides[0] >= values.strides[1]:
        np.copyto(room, values, casting="unsafe")
        return
    for row in range(0, values.shape[0], _SQUARE):
        for column in range(0, values.shape[1], _SQUARE):
            square = (slice(row, row + _SQUARE), slice(column, column + _SQUARE))
            np.copyto(room[square], values[square], casting="unsafe")


def _read(tensor: Tensor, start: int, dtype: np.dtype[Any], room: np.ndarray) -> None:
    """A run of a file's values into a run of ours."""
    if room.dtype == dtype:
        read_bytes(tensor.file, start, room)
        return
    staged = np.empty(min(room.size, _CAST_BYTES // dtype.itemsize), dtype)
    for done in range(0, room.size, staged.size):
        part = room[done : done + staged.size]
        values = staged[: part.size]
        read_bytes(tensor.file, start + done * dtype.itemsize, values)
        np.copyto(part, values, casting="unsafe")
