"""Every root-to-leaf path of a row laid out by itself, and back: attention along a path is plain causal attention."""

from __future__ import annotations

from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxrefine.typing import Array, Int


class PathLayout(NamedTuple):
    """Where a batch's paths are."""

    slots: Int[Array, "B E X"]
    """Along each path; beyond its end slot 0."""
    homes: Int[Array, "B S"]
    """Flat index e * X + x from which each slot takes what it is to have."""
    lengths: Int[Array, "B E"]
    """Slots of each path."""

    def along(self, x: Array) -> jax.Array:
        """[B S …] as [B * E, X, …]."""
        B, S = x.shape[:2]
        _, E, X = self.slots.shape
        return take(x.reshape(B, S, -1), self.slots.reshape(B, E * X)).reshape(B * E, X, *x.shape[2:])

    def home(self, x: Array) -> jax.Array:
        """[B * E, X, …] as [B S …]."""
        B, E, X = self.slots.shape
        taken = take(x.reshape(B, E * X, -1), self.homes)
        return taken.reshape(B, -1, *x.shape[2:])


def path_layout(name: str, paths: Int[Array, "B E X"] | None, homes: Int[Array, "B S"] | None) -> PathLayout:
    """The layout of a batch's ``paths``, padded at their end with -1.

    Raises:
      ValueError: a batch packed without paths and homes, for the backend ``name``.
    """
    if paths is None or homes is None:
        raise ValueError(
            f"attention={name!r} reads batch.paths and batch.homes, and this batch has none: "
            "pack with PackingConfig(expand=True), or take attention='dense'"
        )
    slots = jnp.asarray(paths)
    lengths = jnp.sum(slots >= 0, axis=-1, dtype=jnp.int32)
    return PathLayout(jnp.maximum(slots, 0), jnp.asarray(homes), lengths)


def take(rows: Array, slots: Array) -> jax.Array:
    """Rows [B U C] at slots [B S] -> [B S C]."""
    return jax.vmap(lambda row, slot: row.at[slot].get(mode="promise_in_bounds"))(rows, slots)
