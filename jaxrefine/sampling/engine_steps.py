"""What the sampling engine runs on the device: read prompts into rows, start candidates in slots, let all slots grow.

Shapes never change, so each function is compiled once for a width of prompts; every state is donated to the next.
"""

from __future__ import annotations

import dataclasses
import functools
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from jaxrefine.models.cache import KeyValues, candidate_cache
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.policies import Form, choose, likeliest
from jaxrefine.sharding import ROWS
from jaxrefine.typing import Array, Bool, Float, Int, Key, Params


@flax.struct.dataclass(frozen=True)
class Draws:
    """How the text of each slot is drawn, all [C N]."""

    keys: Key[Array, "C N"]
    limit: Int[Array, "C N"]
    """Tokens at which it is cut."""
    greedy: Bool[Array, "C N"]
    inverse_temperature: Float[Array, "C N"]
    top_k: Int[Array, "C N"]
    top_p: Float[Array, "C N"]


@flax.struct.dataclass(frozen=True)
class Slots:
    """C rows, each with one prompt, and N slots a row for candidates of that prompt, each at a step of its own."""

    hidden: Float[Array, "C N D"]
    """What predicts the next token of each slot."""
    count: Int[Array, "C N"]
    """Tokens of each text so far; the cache holds as many."""
    done: Bool[Array, "C N"]
    """Nothing grows here: the text has ended, or none was started."""
    text: Int[Array, "C N R"]
    logprobs: Float[Array, "C N R"]
    draws: Draws
    cache: KeyValues
    prompt_hidden: Float[Array, "C D"]
    prompt_cache: KeyValues
    prompt_lengths: Int[Array, " C"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Plan:
    """What the compiled programs are made for; static."""

    decoder: Decoder
    """In the dtype that is computed in, with dense attention."""
    form: Form
    """Of the policies of all slots; those that are greedy where ``mixed`` do not count."""
    mixed: bool
    """Whether some slots may be greedy beside others that are not."""
    mesh: Mesh | None
    """Over whose data axes the rows are split."""


@functools.partial(jax.jit, static_argnames=("decoder", "mesh", "rows", "columns", "width", "room"))
def empty(decoder: Decoder, mesh: Mesh | None, *, rows: int, columns: int, width: int, room: int) -> Slots:
    """Slots in which nothing grows.

    Args:
      decoder: see ``Plan``.
      mesh: see ``Plan``.
      rows: C.
      columns: N.
      width: P, of the prompts.
      room: R, tokens of the longest text.
    """
    config, dtype, each = decoder.config, decoder.dtype, (rows, columns)
    width_of_trunk = config.embedding_width
    prompts = (config.num_layers, rows, config.num_kv_heads, width, config.head_width)
    # the last token of a text is never read again
    cache = candidate_cache(config, prompts=rows, candidates=columns, length=max(room - 1, 1), dtype=dtype)
    slots = Slots(
        hidden=jnp.zeros((*each, width_of_trunk), dtype),
        count=jnp.zeros(each, jnp.int32),
        done=jnp.ones(each, bool),
        text=jnp.zeros((*each, room), jnp.int32),
        logprobs=jnp.zeros((*each, room), jnp.float32),
        draws=Draws(
            keys=jax.random.split(jax.random.key(0), each),
            limit=jnp.ones(each, jnp.int32),
            greedy=jnp.zeros(each, bool),
            inverse_temperature=jnp.ones(each, jnp.float32),
            top_k=jnp.zeros(each, jnp.int32),
            top_p=jnp.ones(each, jnp.float32),
        ),
        cache=cache,
        prompt_hidden=jnp.zeros((rows, width_of_trunk), dtype),
        prompt_cache=KeyValues(jnp.zeros(prompts, dtype), jnp.zeros(prompts, dtype)),
        prompt_lengths=jnp.ones(rows, jnp.int32),
    )
    return _placed(slots, mesh)


@functools.partial(jax.jit, static_argnames=("decoder", "mesh"), donate_argnames=("slots",))
def admit(
    decoder: Decoder,
    mesh: Mesh | None,
    params: Params,
    slots: Slots,
    tokens: Int[Array, "F P"],
    lengths: Int[Array, " F"],
    rows: Int[Array, " F"],
) -> Slots:
    """Reads prompts, each into its row.

    Args:
      decoder: see ``Plan``.
      mesh: see ``Plan``.
      params: of the decoder.
      slots: whose rows are taken; their slots are idle.
      tokens: prompts, padded at their end.
      lengths: tokens of each.
      rows: where each goes; C for one that only fills the batch.
    """
    prefilled: Any = decoder.apply({"params": params}, tokens, lengths, method="prefill")
    hidden, cache = prefilled

    def put(old: Array, new: Array) -> jax.Array:
        return jnp.asarray(old).at[rows].set(new, mode="drop")

    read = dataclasses.replace(
        slots,
        prompt_hidden=put(slots.prompt_hidden, hidden),
        prompt_lengths=put(slots.prompt_lengths, lengths),
        prompt_cache=jax.tree.map(lambda old, new: old.at[:, rows].set(new, mode="drop"), slots.prompt_cache, cache),
    )
    return _placed(read, mesh)


@functools.partial(jax.jit, static_argnames=("mesh",), donate_argnames=("slots",))
def copied(mesh: Mesh | None, slots: Slots, source: Int[Array, ""], target: Int[Array, ""]) -> Slots:
    """The prompt of one row, as it was read, in another row too."""

    def copy(x: Array, axis: int) -> Array:
        row = jax.lax.dynamic_index_in_dim(x, source, axis)
        return jax.lax.dynamic_update_slice_in_dim(x, row, target, axis)

    both = dataclasses.replace(
        slots,
        prompt_hidden=copy(slots.prompt_hidden, 0),
        prompt_lengths=copy(slots.prompt_lengths, 0),
        prompt_cache=jax.tree.map(lambda x: copy(x, 1), slots.prompt_cache),
    )
    return _placed(both, mesh)


@functools.partial(jax.jit, static_argnames=("mesh",), donate_argnames=("slots",))
def begin(
    mesh: Mesh | None,
    slots: Slots,
    key: Key[Array, ""],
    starts: Bool[Array, "C N"],
    ids: Array,
    numbers: Array,
    limit: Int[Array, "C N"],
    greedy: Bool[Array, "C N"],
    inverse_temperature: Float[Array, "C N"],
    top_k: Int[Array, "C N"],
    top_p: Float[Array, "C N"],
) -> Slots:
    """New texts in some slots, from the prompts of their rows; what is given for the other slots means nothing.

    Args:
      mesh: see ``Plan``.
      slots: before.
      key: of the job; a text's own is fold_in(fold_in(key, id of its prompt), number).
      starts: where a new text begins.
      ids: of prompts, uint32.
      numbers: of candidates, uint32.
      limit: see ``Draws``, as the rest.
      greedy: as above.
      inverse_temperature: as above.
      top_k: as above.
      top_p: as above.
    """
    each = starts.shape
    fold = jax.vmap(jax.random.fold_in, in_axes=(None, 0))
    of_prompts = fold(key, ids.reshape(-1))
    keys = jax.vmap(jax.random.fold_in)(of_prompts, numbers.reshape(-1)).reshape(each)
    new = Draws(keys, limit, greedy, inverse_temperature, top_k, top_p)
    prompt_hidden = jnp.broadcast_to(slots.prompt_hidden[:, None], slots.hidden.shape)
    begun = dataclasses.replace(
        slots,
        hidden=jnp.where(starts[..., None], prompt_hidden, slots.hidden),
        count=jnp.where(starts, 0, slots.count),
        done=slots.done & ~starts,
        draws=jax.tree.map(lambda fresh, old: jnp.where(starts, fresh, old), new, slots.draws),
    )
    return _placed(begun, mesh)


@functools.partial(jax.jit, static_argnames=("plan", "size"), donate_argnames=("slots",))
def advance(
    plan: Plan,
    params: Params,
    slots: Slots,
    eos: Int[Array, " E"],
    waiting: Int[Array, " C"],
    queued: Bool[Array, ""],
    most: Int[Array, ""],
    quota: Int[Array, ""],
    *,
    size: int,
) -> tuple[Slots, Int[Array, ""]]:
    """Steps until all texts have ended, ``most`` were made, or ``quota`` slots could be used for something new.

    Args:
      plan: of the programs.
      params: of its decoder.
      slots: before.
      eos: any of them ends a text.
      waiting: candidates of each row's prompt that wait for a slot.
      queued: whether prompts wait for a row.
      most: steps.
      quota: slots.
      size: tokens of a text that are attended to: no text that grows may come to hold more.

    Returns:
      The slots, and the steps that were made.
    """
    N = slots.done.shape[1]
    positions = jnp.arange(slots.text.shape[-1], dtype=jnp.int32)[None, None]

    def more(carry: tuple[Slots, jax.Array]) -> jax.Array:
        slots, step = carry
        idle = jnp.sum(slots.done, axis=1, dtype=jnp.int32)
        usable = jnp.minimum(idle, jnp.asarray(waiting)) + jnp.where((idle == N) & (waiting == 0) & queued, N, 0)
        return (step < most) & jnp.any(~slots.done) & (jnp.sum(usable) < quota)

    def one(carry: tuple[Slots, jax.Array]) -> tuple[Slots, jax.Array]:
        slots, step = carry
        form: Any = plan.decoder.apply({"params": params}, method="logit_form")
        token, logprob = _pick(plan, form.logits(slots.hidden), slots.draws, slots.count)
        here = (positions == slots.count[..., None]) & ~slots.done[..., None]
        decoded: Any = plan.decoder.apply(
            {"params": params},
            token,
            slots.count,
            slots.prompt_cache,
            slots.prompt_lengths,
            slots.cache,
            size,
            method="decode",
        )
        hidden, cache = decoded
        ended = jnp.any(token[..., None] == eos[None, None], axis=-1) | (slots.count + 1 >= slots.draws.limit)
        grown = dataclasses.replace(
            slots,
            hidden=hidden,
            count=slots.count + (~slots.done).astype(jnp.int32),
            done=slots.done | ended,
            text=jnp.where(here, token[..., None], slots.text),
            logprobs=jnp.where(here, logprob[..., None], slots.logprobs),
            cache=cache,
        )
        return _placed(grown, plan.mesh), step + 1

    return jax.lax.while_loop(more, one, (slots, jnp.int32(0)))


def _pick(plan: Plan, logits: Array, draws: Draws, count: Array) -> tuple[jax.Array, jax.Array]:
    """The next token of each slot [C N] and the model's own log-probability of it."""
    C, N, V = logits.shape
    logits = jnp.reshape(logits, (C * N, V))
    values = {
        "inverse_temperature": jnp.reshape(draws.inverse_temperature, (-1, 1)),
        "top_k": jnp.reshape(draws.top_k, -1),
        "top_p": jnp.reshape(draws.top_p, -1),
    }
    keys = jax.vmap(jax.random.fold_in)(draws.keys.reshape(-1), count.reshape(-1))
    token = jnp.asarray(choose(plan.form, values, logits, keys))
    if plan.mixed:
        token = jnp.where(draws.greedy.reshape(-1), likeliest(logits), token)
    chosen = jnp.take_along_axis(logits, token[:, None], axis=1)[:, 0]
    logprob = chosen - jax.nn.logsumexp(logits, axis=-1)
    return token.reshape(C, N), logprob.reshape(C, N)


def _placed(slots: Slots, mesh: Mesh | None) -> Slots:
    """Rows split over the data axes of the mesh: the same placement after every program, so that none recompiles."""
    if mesh is None:
        return slots

    def place(axis: int, x: Any) -> Any:
        return jax.lax.with_sharding_constraint(x, NamedSharding(mesh, PartitionSpec(*(None,) * axis, ROWS)))

    axes = {field.name: int(field.name in ("cache", "prompt_cache")) for field in dataclasses.fields(slots)}
    return Slots(**{name: jax.tree.map(functools.partial(place, axes[name]), getattr(slots, name)) for name in axes})
