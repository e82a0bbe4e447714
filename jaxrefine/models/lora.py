"""Low-rank adapters of linear maps: a tree of their own beside the parameters, trained while those stay as they are.

y = x Wᵀ + s · dropout(x) Aᵀ Bᵀ with A [r, in], B [out, r] and s = alpha / r. ``applied`` makes the collection that a
model takes beside ``params``; ``merged`` adds the products to the weights for good.

Source: Hu et al. 2021, LoRA, arXiv:2106.09685, §4.1; the scale alpha / √r is Kalajdzievski 2023, arXiv:2312.03732, §3.
"""

from __future__ import annotations

import dataclasses
import math
import re
import zlib
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp

from jaxrefine.config import unknown_name
from jaxrefine.typing import Array, Key, Params

ADAPTERS = "adapters"
"""The collection that linear maps look into: ``a`` and ``b``, and ``rate`` where inputs are dropped out."""

_STACKED = re.compile(r"layers/(attention|feed_forward)/\w+")
_ALONE = ("project_in", "project_out")


@dataclasses.dataclass(frozen=True, kw_only=True)
class LoraConfig:
    """Which linear maps are adapted, and how.

    >>> LoraConfig(rank=16, alpha=32.0).scale, LoraConfig(rank=16, alpha=32.0, rank_stabilized=True).scale
    (2.0, 8.0)
    """

    rank: int = 16
    """r, of every adapter."""
    alpha: float = 32.0
    """Adapters count alpha / r."""
    targets: tuple[str, ...] = ("attention/.*", "feed_forward/.*")
    """Regular expressions, each for whole names of maps: attention/query, attention/key, attention/value,
    attention/out, feed_forward/gate, feed_forward/up, feed_forward/down, project_in, project_out."""
    dropout: float = 0.0
    """Share of an adapter's inputs that are set to zero in training."""
    rank_stabilized: bool = False
    """Adapters count alpha / √r instead."""

    def __post_init__(self) -> None:
        if self.rank < 1:
            raise ValueError(f"lora.rank = {self.rank} must be at least 1")
        if not (math.isfinite(self.alpha) and self.alpha > 0):
            raise ValueError(f"lora.alpha = {self.alpha} must be positive and finite")
        if not 0 <= self.dropout < 1:
            raise ValueError(f"lora.dropout = {self.dropout} must be at least 0 and below 1")
        if not self.targets:
            raise ValueError("lora.targets is empty: nothing would be trained")
        for pattern in self.targets:
            try:
                re.compile(pattern)
            except re.error as error:
                raise ValueError(f"lora.targets: {pattern!r} is no regular expression: {error}") from error

    @property
    def scale(self) -> float:
        """s, what the product of an adapter is multiplied by."""
        return self.alpha / (math.sqrt(self.rank) if self.rank_stabilized else self.rank)


def linear_maps(params: Params) -> dict[str, tuple[int, ...]]:
    """The maps that can be adapted: their names and the shape [L out in] or [out in] of each.

    Args:
      params: the tree of a ``Decoder`` or ``Encoder``, arrays or shapes.

    >>> linear_maps({"layers": {"attention": {"query": {"kernel": jnp.zeros((2, 8, 4))}}}, "norm": {}})
    {'attention/query': (2, 8, 4)}
    """
    found = {}
    for path, tree in _branches(params):
        if "kernel" in tree and (_STACKED.fullmatch(path) or path in _ALONE):
            found[path.removeprefix("layers/")] = tuple(tree["kernel"].shape)
    return found


def adapted_maps(params: Params, config: LoraConfig) -> dict[str, tuple[int, ...]]:
    """Those of ``linear_maps`` that the config's patterns name.

    Raises:
      ValueError: a pattern that names none; says which there are.
    """
    maps = linear_maps(params)
    chosen: dict[str, tuple[int, ...]] = {}
    for pattern in config.targets:
        matching = [name for name in maps if re.fullmatch(pattern, name)]
        if not matching:
            raise ValueError(unknown_name(pattern, maps, "lora.targets: pattern of linear maps"))
        chosen |= {name: maps[name] for name in matching}
    return {name: maps[name] for name in maps if name in chosen}


def init_adapters(key: Key[Array, ""], params: Params, config: LoraConfig) -> Params:
    """New adapters, which change nothing yet: A uniform in ±1/√in, B zero.

    Args:
      key: draws A; each map has its own by its name, whatever else is adapted.
      params: of the model, arrays or shapes.
      config: which maps, and r.

    Returns:
      fp32, ``{"layers": {"attention": {"query": {"a": [L r in], "b": [L out r]}, …}}}``.

    >>> shapes = {"layers": {"attention": {"query": {"kernel": jnp.zeros((2, 8, 4))}}}}
    >>> adapters = init_adapters(jax.random.key(0), shapes, LoraConfig(rank=3, targets=("attention/query",)))
    >>> jax.tree.map(jnp.shape, adapters)["layers"]["attention"]["query"]
    {'a': (2, 3, 4), 'b': (2, 8, 3)}
    """
    tree: dict[str, Any] = {}
    for name, (*stacked, outputs, inputs) in adapted_maps(params, config).items():
        own = jax.random.fold_in(key, zlib.crc32(name.encode()))
        bound = 1.0 / math.sqrt(inputs)
        a = jax.random.uniform(own, (*stacked, config.rank, inputs), jnp.float32, -bound, bound)
        _put(tree, name, {"a": a, "b": jnp.zeros((*stacked, outputs, config.rank), jnp.float32)})
    return tree


def applied(adapters: Params, config: LoraConfig) -> Params:
    """The collection ``ADAPTERS`` that makes a model use the adapters: B times s, and the rate of dropout.

    Dropout is for training alone: it happens where a key of that name is given.
    """
    tree: dict[str, Any] = {}
    for path, branch in _branches(adapters):
        if "a" in branch:
            leaves = {"a": branch["a"], "b": branch["b"] * config.scale}
            if config.dropout:
                leaves["rate"] = jnp.full(branch["a"].shape[:-2], config.dropout, jnp.float32)
            _put(tree, path.removeprefix("layers/"), leaves)
    return tree


def merged(params: Params, adapters: Params, config: LoraConfig) -> Params:
    """The parameters with W + s · B A in place of W, computed in fp32, in the dtype of W.

    Args:
      params: of the model, whole; one that lies quantised is made whole by ``dequantize_params`` first.
      adapters: of ``init_adapters``, trained or imported.
      config: their scale.

    Raises:
      ValueError: an adapter of a map that the model has not, or of other sizes.
    """
    maps = linear_maps(params)
    whole = jax.tree.map(lambda leaf: leaf, params)
    for path, branch in _branches(adapters):
        if "a" not in branch:
            continue
        name = path.removeprefix("layers/")
        if name not in maps:
            raise ValueError(unknown_name(name, maps, "adapter of a linear map"))
        a, b = branch["a"], branch["b"]
        if (*b.shape[:-1], a.shape[-1]) != maps[name] or a.shape[-2] != b.shape[-1]:
            raise ValueError(
                f"adapter of {name}: a is {list(a.shape)}, b is {list(b.shape)}; the map is {list(maps[name])}"
            )
        room = whole
        for step in path.split("/"):
            room = room[step]
        room["kernel"] = _sum(room["kernel"], a, b, config.scale)
    return whole


def _sum(kernel: Array, a: Array, b: Array, scale: float) -> jax.Array:
    """W + s · B A, one layer at a time: never a second copy of a stacked map in fp32."""

    def one(parts: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        w, a, b = parts
        product = jnp.einsum("or,ri->oi", b, a, precision="highest")
        return (w.astype(jnp.float32) + scale * product).astype(w.dtype)

    parts = (jnp.asarray(kernel), jnp.asarray(a, jnp.float32), jnp.asarray(b, jnp.float32))
    return jax.lax.map(one, parts) if kernel.ndim == 3 else one(parts)


def _branches(tree: Params, path: str = "") -> Iterator[tuple[str, Params]]:
    """Every dict of a nested dict, with its path, outermost first."""
    yield path, tree
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _branches(value, f"{path}/{name}" if path else name)


def _put(tree: dict[str, Any], name: str, leaves: dict[str, Any]) -> None:
    """Leaves under the path of a map: those of layers are stacked under ``layers``."""
    room = tree if name in _ALONE else tree.setdefault("layers", {})
    for step in name.split("/"):
        room = room.setdefault(step, {})
    room.update(leaves)
