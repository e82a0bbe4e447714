"""Everything a training run carries from step to step."""

from __future__ import annotations

import dataclasses
import functools
import zlib
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxrefine.data.batch import PackedBatch
from jaxrefine.sharding import HOST, check_memory, param_shardings, path_of
from jaxrefine.training.optimizer import Optimizer
from jaxrefine.typing import Array, Float, Int, Key, Params

OFFLOADS_FROM = (0, 10, 1)
RECENT_STEPS = 128
"""What a spike is measured against."""


@flax.struct.dataclass(frozen=True)
class TrainState:
    """Arrays only, so that it can be donated, sharded and saved as one tree."""

    step: Int[Array, ""]
    """Batches consumed, skipped ones included."""
    params: Params
    """Master weights, in fp32 unless the optimiser says otherwise; the model casts to its own compute type."""
    opt_state: Any
    key: Any
    """uint32 data of the run's key; step s uses fold_in(key, s)."""
    num_skipped: Int[Array, ""]
    """Steps that left the weights alone: a non-finite loss or gradient, a spike, or nothing to learn from."""
    num_bad_in_a_row: Int[Array, ""]
    """Non-finite steps, and spikes where those are skipped, since the last good one."""
    recent: Float[Array, "2 W"]
    """Loss and gradient norm of the last ``RECENT_STEPS`` steps that were taken; taken step t is in column t % W."""
    frozen_digest: Int[Array, ""]
    """Of ``frozen``, so that a run goes on over the weights it began with; 0 where nothing is frozen."""
    frozen: Params = flax.struct.field(default_factory=dict)
    """Weights that the objective reads and no step changes: never differentiated, copied or saved."""

    @property
    def variables(self) -> dict[str, Any]:
        """What the objective is applied to."""
        return variables(self.params, self.frozen)


def variables(params: Params, frozen: Params | None = None) -> dict[str, Any]:
    """``{"params": …}``, and ``"frozen"`` where there is something."""
    return {"params": params, "frozen": frozen} if frozen else {"params": params}


def abstract(tree: Any) -> Any:
    """``ShapeDtypeStruct``s of ``tree``, with the shardings its arrays have."""

    def leaf(x: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=getattr(x, "sharding", None))

    return jax.tree.map(leaf, tree)


def abstract_state(params: Params, optimizer: Optimizer, *, mesh: Mesh, frozen: Params | None = None) -> TrainState:
    """The shapes, types and shardings of the state that ``init_state`` makes, without making it."""

    def make(params: Params, frozen: Params) -> TrainState:
        zero = jnp.zeros((), jnp.int32)
        masters = optimizer.stored(params)
        key = jax.random.key_data(jax.random.key(0))
        recent = jnp.zeros((2, RECENT_STEPS), jnp.float32)
        return TrainState(zero, masters, optimizer.init(masters), key, zero, zero, recent, zero, frozen)

    shapes = jax.eval_shape(make, params, frozen or {})
    shardings = param_shardings(shapes, mesh)
    if optimizer.offload:
        shardings = dataclasses.replace(shardings, opt_state=on_host(shardings.opt_state, shapes.opt_state))
    return jax.tree.map(lambda x, s: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=s), shapes, shardings)


def on_host(shardings: Any, shapes: Any) -> Any:
    """The same shardings in the host's pinned memory; scalars stay on the devices.

    Raises:
        ValueError: devices that have no such memory, or a JAX that cannot use it.
    """
    if jax.__version_info__ < OFFLOADS_FROM:
        raise ValueError(
            f"optimizer.offload needs jax {'.'.join(map(str, OFFLOADS_FROM))} or newer, whose XLA places scalars on "
            f"devices beside arrays on the host; this is {jax.__version__}"
        )

    def move(sharding: Any, like: Any) -> Any:
        if not like.ndim:
            return sharding
        check_memory(sharding.mesh, HOST, "optimizer.offload")
        return sharding.with_memory_kind(HOST)

    return jax.tree.map(move, shardings, shapes)


def init_state(
    params: Params, optimizer: Optimizer, key: Key[Array, ""], *, mesh: Mesh, frozen: Params | None = None
) -> TrainState:
    """A fresh train state on the mesh; ``params`` is copied, so it survives the donation of the state.

    Args:
        params: tree of arrays, as the objective's ``init`` or ``load_pretrained`` gives them; kept in fp32, or as the
            optimiser says.
        optimizer: from ``make_optimizer``.
        key: the run's key.
        mesh: where to put it.
        frozen: weights beside them that stay as they are, in their own dtypes; not copied where they are in place.
    """
    shapes = abstract_state(params, optimizer, mesh=mesh, frozen=frozen)

    def put(x: Any, like: Any) -> Any:
        # The explicit copy: device_put shares a buffer that already lies on one of the devices, may_alias or not,
        # and donating the state would then delete the caller's parameters.
        return jnp.copy(jax.device_put(x.astype(like.dtype), like.sharding))

    placed = jax.tree.map(put, params, shapes.params)
    # Made sharded: the moments of a large model never exist on one device.
    moments = jax.jit(optimizer.init, out_shardings=jax.tree.map(lambda x: x.sharding, shapes.opt_state))(placed)
    scalar = functools.partial(put, np.zeros((), np.int32), shapes.step)
    kept = jax.tree.map(lambda x, like: jax.device_put(x, like.sharding), frozen or {}, shapes.frozen)
    digest = put(digest_of(kept), shapes.frozen_digest)
    recent = put(np.zeros((2, RECENT_STEPS), np.float32), shapes.recent)
    return TrainState(
        scalar(), placed, moments, put(jax.random.key_data(key), shapes.key), scalar(), scalar(), recent, digest, kept
    )


@jax.jit
def digest_of(tree: Params) -> Int[Array, ""]:
    """A number of all bits of a tree, by place and path, the same on any mesh; 0 of nothing.

    Sums of whole numbers modulo 2^32, each multiplied by an odd number of its place: any one changed value shows.

    >>> int(digest_of({})), bool(digest_of({"a": jnp.zeros(2)}) == digest_of({"b": jnp.zeros(2)}))
    (0, False)
    """
    total = jnp.zeros((), jnp.uint32)
    for path, leaf in jax.tree_util.tree_leaves_with_path(tree):
        bits = jax.lax.bitcast_convert_type(leaf, f"uint{8 * leaf.dtype.itemsize}").astype(jnp.uint32)
        place = jnp.zeros(bits.shape, jnp.uint32)
        for axis, size in enumerate(bits.shape):
            place = place * np.uint32(size) + jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis)
        mixed = (bits + np.uint32(1)) * (place * np.uint32(2654435762) + np.uint32(1))
        total += jnp.sum(mixed, dtype=jnp.uint32) * np.uint32(zlib.crc32(path_of(path).encode()) | 1)
    return jax.lax.bitcast_convert_type(total, jnp.int32)


def init_params(
    objective: Any,
    key: Key[Array, ""],
    batch: PackedBatch,
    *,
    mesh: Mesh | None = None,
    pretrained: Params | None = None,
) -> Params:
    """Parameters of an objective: all new, or a pretrained model with a new scorer.

    Args:
        objective: Flax module with fields ``model`` and ``scorer``.
        key: draws the new parameters; the same on any mesh.
        batch: any batch of the right shapes; only its shapes matter.
        mesh: makes each new parameter where it lives; None: on the default device.
        pretrained: the decoder's own tree; its parameters are used as they are.

    Returns:
        ``{"model": …, "scorer": …}``; a scorer without parameters has no entry.

    Raises:
        ValueError: a pretrained parameter is missing, left over, or of another shape.
    """

    def init(key: Any, batch: PackedBatch) -> Params:
        params = dict(objective.init(key, batch)["params"])
        if pretrained is not None:
            params.pop("model")  # unused, so XLA never computes it
        return params

    shapes = jax.eval_shape(init, key, batch)
    where = None if mesh is None else param_shardings(shapes, mesh)
    params = jax.jit(init, out_shardings=where)(key, batch)
    if pretrained is None:
        return params
    expected = jax.eval_shape(lambda k, b: objective.init(k, b)["params"]["model"], key, batch)
    check_same_shapes(pretrained, expected)
    return {"model": pretrained, **params}


def check_same_shapes(given: Params, expected: Params) -> None:
    """ValueError naming every parameter that is missing, left over, or of another shape."""
    have, want = (
        {path_of(path): tuple(leaf.shape) for path, leaf in jax.tree_util.tree_leaves_with_path(tree)}
        for tree in (given, expected)
    )
    problems = [f"missing {path} {list(want[path])}" for path in sorted(want.keys() - have.keys())]
    problems += [f"left over {path} {list(have[path])}" for path in sorted(have.keys() - want.keys())]
    problems += [
        f"{path} is {list(have[path])}, the model has {list(want[path])}"
        for path in sorted(want.keys() & have.keys())
        if have[path] != want[path]
    ]
    if problems:
        raise ValueError("parameters do not fit the model: " + "; ".join(problems))
