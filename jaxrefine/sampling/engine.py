"""A queue of prompts and candidates over a fixed number of slots: a slot whose text has ended takes the next at once.

A slot belongs to a row, and a row holds one prompt, read once. A row whose candidates are all done takes the next
prompt; when no prompt is left to read, idle rows help the prompts that still have candidates waiting.
"""

from __future__ import annotations

import collections
import contextlib
import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.engine_steps import Plan, Slots, admit, advance, begin, copied, empty
from jaxrefine.sampling.generate import SLOTS, Sample, padded_length
from jaxrefine.sampling.growth import cache_lengths
from jaxrefine.sampling.policies import Form, Policy
from jaxrefine.sharding import param_shardings
from jaxrefine.typing import Array, Key, Params

COLUMNS = 8
"""Slots of a row where nothing is said: longer rows share a prompt better, but wait longer for its last text."""
SEGMENT = 32
"""Most steps between two looks of the host."""
_SHARE_TO_REFILL = 8
_FEWEST_STEPS = 4
_TOKENS_TO_READ = 512
_SHORTEST = 64
_ENDS = 8


class Draw(NamedTuple):
    """One candidate of a prompt."""

    number: int
    """Folded into the key after the prompt's id; 0 … 2^32 - 1."""
    policy: Policy


@dataclasses.dataclass(frozen=True, kw_only=True)
class Ask:
    """Candidates of one prompt.

    >>> four = Ask(id=7, prompt=(1, 5, 9), draws=tuple(Draw(number, Policy()) for number in range(4)))
    >>> four.draws[3].number
    3
    """

    id: int
    """Folded into the keys; 0 … 2^32 - 1."""
    prompt: tuple[int, ...]
    """Token ids, BOS included, not empty."""
    draws: tuple[Draw, ...]
    """Policies of one ask may differ in their values, and be greedy or not; if one has a top_k or a top_p, all have."""
    max_new_tokens: int | None = None
    """At which a candidate is cut, EOS included; None is the engine's own limit, and it may not be more."""


@dataclasses.dataclass
class Counts:
    """What an engine has done so far."""

    prompts: int = 0
    """Read."""
    copies: int = 0
    """Prompts that were copied to a row more."""
    texts: int = 0
    """Finished."""
    tokens: int = 0
    """Of the finished texts."""
    steps: int = 0
    """Each for all slots at once."""
    segments: int = 0
    """Times that the host looked."""


@dataclasses.dataclass(eq=False)
class _Work:
    """An ask in progress."""

    ticket: int
    ask: Ask
    waiting: collections.deque[int]
    """Draws that have no slot yet."""
    samples: dict[int, Sample] = dataclasses.field(default_factory=dict)


class _Group(NamedTuple):
    """Asks that share compiled programs; those with shorter prompts come first."""

    width: int
    top_k: bool
    top_p: bool
    greedy: bool
    mixed: bool


class Engine:
    """Samples the candidates of many prompts.

    A text depends on the key, on its prompt, the prompt's id, its own number and policy, and on nothing else: not on
    slots, order, the other prompts, the mesh, or what was sampled before an interruption. (Rounding differs between
    shapes in the last bits of log-probabilities; with the same slots on the same devices they are equal too.)

    Args:
      decoder: its ``dtype`` is the one computed in; ``attention`` and ``remat`` play no part.
      params: of the decoder.
      eos_ids: each of them ends a candidate.
      key: of the whole job.
      max_new_tokens: the longest text, EOS included: the room that every slot has.
      slots: candidates that grow at once; rounded up to whole rows, one a device at least.
      columns: slots of a row.
      mesh: rows are split over its data axes, parameters placed by ``jaxrefine.sharding.RULES``; None is one device.

    Raises:
      ValueError: sizes below 1, no EOS.
    """

    def __init__(
        self,
        decoder: Decoder,
        params: Params,
        *,
        eos_ids: Sequence[int],
        key: Key[Array, ""],
        max_new_tokens: int,
        slots: int = SLOTS,
        columns: int = COLUMNS,
        mesh: Mesh | None = None,
    ) -> None:
        for name, value in (("max_new_tokens", max_new_tokens), ("slots", slots), ("columns", columns)):
            if value < 1:
                raise ValueError(f"{name} is {value}; it must be at least 1")
        if not eos_ids:
            raise ValueError("eos_ids is empty; a text ends with one of them")
        self._decoder = decoder.clone(parent=None, attention="dense", remat="none")
        params = jax.tree.map(lambda x: jnp.asarray(x, decoder.dtype), params)
        self._mesh = mesh if mesh is not None and mesh.size > 1 else None
        self._params = params if self._mesh is None else jax.device_put(params, param_shardings(params, self._mesh))
        self._eos_ids = tuple(eos_ids)
        self._eos = np.resize(np.asarray(self._eos_ids, np.int32), max(_ENDS, len(self._eos_ids)))  # one shape for most
        self._key = key
        self.max_new_tokens = max_new_tokens
        shards = 1 if self._mesh is None else int(self._mesh.shape["data"] * self._mesh.shape["fsdp"])
        self.columns = min(columns, slots)
        self.rows = -(-slots // self.columns // shards) * shards
        self._shards = shards
        self.counts = Counts()
        self._tickets = 0
        self._queues: dict[_Group, collections.deque[_Work]] = {}

    def add(self, ask: Ask) -> int:
        """Puts an ask into the queue; also while ``finished`` runs.

        Returns:
          Its ticket: asks are counted from 0.

        Raises:
          ValueError: an ask that cannot be: no prompt, no room, no draw, a number twice or out of range.
        """
        _check(ask, self.max_new_tokens, self._decoder.config.max_positions)
        work = _Work(self._tickets, ask, collections.deque(range(len(ask.draws))))
        self._queues.setdefault(_group(ask), collections.deque()).append(work)
        self._tickets += 1
        return work.ticket

    def run(self, asks: Iterable[Ask]) -> Iterator[tuple[int, list[Sample]]]:
        """Adds the asks and yields (index among them, samples in the order of the draws) as each ask is done.

        Raises:
          RuntimeError: earlier asks are not finished.
        """
        if any(self._queues.values()):
            raise RuntimeError("asks of an earlier call are still queued; take what finished() yields first")
        first = self._tickets
        for ask in asks:
            self.add(ask)
        for ticket, samples in self.finished():
            yield ticket - first, samples

    def finished(self) -> Iterator[tuple[int, list[Sample]]]:
        """Yields (ticket, samples in the order of the draws) as each ask is done, until nothing is queued."""
        while any(self._queues.values()):
            group = min(group for group, queue in self._queues.items() if queue)
            yield from _Run(self, group, self._queues[group]).finished()


class _Run:
    """The slots of one group of asks, until its queue is empty."""

    def __init__(self, engine: Engine, group: _Group, queue: collections.deque[_Work]) -> None:
        self._engine, self._queue, self._width = engine, queue, group.width
        form = Form(greedy=group.greedy, top_k=group.top_k, top_p=group.top_p)
        self._plan = Plan(decoder=engine._decoder, form=form, mixed=group.mixed, mesh=engine._mesh)
        C, N = engine.rows, engine.columns
        with self._on_mesh():
            self._slots: Slots = empty(
                self._plan.decoder, self._plan.mesh, rows=C, columns=N, width=group.width, room=engine.max_new_tokens
            )
        self._sizes = cache_lengths(engine.max_new_tokens - 1) or [1]
        self._longest = 0  # tokens of the longest text that grows
        self._rows: list[_Work | None] = [None] * C
        self._cells: list[list[int | None]] = [[None] * N for _ in range(C)]
        # as many prompts at once as have the candidates of sixteen slots: a fixed number, for the same bits each time
        at_once = max(1, min(16 // N, _TOKENS_TO_READ // group.width, C))
        self._at_once = -(-at_once // engine._shards) * engine._shards

    def finished(self) -> Iterator[tuple[int, list[Sample]]]:
        while True:
            self._fill_rows()
            self._begin()
            if not any(cell is not None for cells in self._cells for cell in cells):
                return
            self._advance()
            yield from self._harvest()

    def _on_mesh(self) -> contextlib.AbstractContextManager[Any]:
        mesh = self._engine._mesh
        return jax.set_mesh(mesh) if mesh is not None else contextlib.nullcontext()

    def _is_free(self, row: int) -> bool:
        work = self._rows[row]
        return (work is None or not work.waiting) and all(cell is None for cell in self._cells[row])

    def _fill_rows(self) -> None:
        free = [row for row in range(len(self._rows)) if self._is_free(row)]
        while free and self._queue:
            count = min(len(free), self._at_once, len(self._queue))
            rows, free = free[:count], free[count:]
            self._read(rows, [self._queue.popleft() for _ in rows])
        for row in free:  # nothing to read: help whoever has most to do
            self._rows[row] = None
            busiest = max(range(len(self._rows)), key=self._beyond)
            if self._beyond(busiest) > 0:
                self._rows[row] = self._rows[busiest]
                with self._on_mesh():
                    self._slots = copied(self._plan.mesh, self._slots, np.int32(busiest), np.int32(row))
                self._engine.counts.copies += 1

    def _beyond(self, row: int) -> int:
        """Candidates of a row's prompt that wait, beyond those for which its rows have idle slots."""
        work = self._rows[row]
        if work is None:
            return 0
        idle = sum(self._cells[other].count(None) for other, theirs in enumerate(self._rows) if theirs is work)
        return len(work.waiting) - idle

    def _read(self, rows: list[int], works: list[_Work]) -> None:
        F, C = self._at_once, len(self._rows)
        tokens, lengths = np.zeros((F, self._width), np.int32), np.ones(F, np.int32)
        places = np.full(F, C, np.int32)
        for index, (row, work) in enumerate(zip(rows, works, strict=True)):
            prompt = work.ask.prompt
            tokens[index, : len(prompt)], lengths[index], places[index] = prompt, len(prompt), row
            self._rows[row] = work
        with self._on_mesh():
            self._slots = admit(
                self._plan.decoder, self._plan.mesh, self._engine._params, self._slots, tokens, lengths, places
            )
        self._engine.counts.prompts += len(works)

    def _begin(self) -> None:
        """Gives every free slot the next candidate that waits in its row."""
        each = len(self._rows), len(self._cells[0])
        starts, greedy = np.zeros(each, bool), np.zeros(each, bool)
        ids, numbers = np.zeros(each, np.uint32), np.zeros(each, np.uint32)
        limit, top_k = np.ones(each, np.int32), np.zeros(each, np.int32)
        scale, top_p = np.ones(each, np.float32), np.ones(each, np.float32)
        for row, work in enumerate(self._rows):
            for column, cell in enumerate(self._cells[row]):
                if work is None or cell is not None or not work.waiting:
                    continue
                place = work.waiting.popleft()
                self._cells[row][column] = place
                number, policy = work.ask.draws[place]
                here = row, column
                starts[here], greedy[here], ids[here], numbers[here] = True, policy.greedy, work.ask.id, number
                limit[here] = work.ask.max_new_tokens or self._engine.max_new_tokens
                scale[here] = 1.0 if policy.greedy else 1.0 / policy.temperature
                top_k[here], top_p[here] = policy.top_k, policy.top_p
        if starts.any():
            with self._on_mesh():
                self._slots = begin(
                    self._plan.mesh,
                    self._slots,
                    self._engine._key,
                    starts,
                    ids,
                    numbers,
                    limit,
                    greedy,
                    scale,
                    top_k,
                    top_p,
                )

    def _advance(self) -> None:
        size, most = _attended(self._longest, self._sizes)
        waiting = [len(work.waiting) if work is not None else 0 for work in self._rows]
        total = len(self._rows) * len(self._cells[0])
        with self._on_mesh():
            self._slots, steps = advance(
                self._plan,
                self._engine._params,
                self._slots,
                self._engine._eos,
                np.asarray(waiting, np.int32),
                np.asarray(bool(self._queue)),
                np.int32(most),
                np.int32(max(1, total // _SHARE_TO_REFILL)),
                size=size,
            )
        self._engine.counts.steps += int(steps)
        self._engine.counts.segments += 1

    def _harvest(self) -> Iterator[tuple[int, list[Sample]]]:
        """Takes the texts that have ended out of their slots, and yields the asks that this completes."""
        slots, counts = self._slots, self._engine.counts
        done, count = jax.device_get((slots.done, slots.count))
        self._longest = int(np.max(count, where=~done, initial=0))
        ended = [
            (row, column)
            for row, cells in enumerate(self._cells)
            for column, cell in enumerate(cells)
            if cell is not None and done[row, column]
        ]
        if not ended:
            return
        text, logprobs = jax.device_get((slots.text, slots.logprobs))
        completed = []
        for row, column in ended:
            work, place = self._rows[row], self._cells[row][column]
            assert work is not None
            assert place is not None
            length = int(count[row, column])
            tokens = tuple(text[row, column, :length].tolist())
            sample = Sample(tokens, tuple(logprobs[row, column, :length].tolist()), tokens[-1] in self._engine._eos_ids)
            work.samples[place], self._cells[row][column] = sample, None
            counts.texts, counts.tokens = counts.texts + 1, counts.tokens + length
            if len(work.samples) == len(work.ask.draws):
                completed.append(work)
        for work in completed:
            yield work.ticket, [work.samples[place] for place in range(len(work.ask.draws))]


def _attended(longest: int, sizes: Sequence[int]) -> tuple[int, int]:
    """The part of the cache that is read in a segment, and the steps for which it is enough."""
    for size in sizes[:-1]:
        if size - longest >= _FEWEST_STEPS:
            return size, min(SEGMENT, size - longest)
    return sizes[-1], SEGMENT


def _group(ask: Ask) -> _Group:
    policies = [draw.policy for draw in ask.draws]
    drawn = [policy.form for policy in policies if not policy.greedy]
    form = drawn[0] if drawn else Form(greedy=True, top_k=False, top_p=False)
    mixed = bool(drawn) and len(drawn) < len(policies)
    return _Group(max(_SHORTEST, padded_length(len(ask.prompt))), form.top_k, form.top_p, form.greedy, mixed)


def _check(ask: Ask, max_new_tokens: int, max_positions: int) -> None:
    what = f"the ask with id {ask.id}"
    limit = max_new_tokens if ask.max_new_tokens is None else ask.max_new_tokens
    if not 1 <= limit <= max_new_tokens:
        raise ValueError(f"{what} wants max_new_tokens = {limit}; the engine was made for 1 … {max_new_tokens}")
    if not ask.prompt:
        raise ValueError(f"{what} has no prompt; a prompt has at least one token (BOS)")
    room = max_positions - limit
    if len(ask.prompt) > room:
        raise ValueError(
            f"{what} has a prompt of {len(ask.prompt)} tokens; with max_new_tokens = {limit} and "
            f"max_positions = {max_positions} it may have {room}"
        )
    if not ask.draws:
        raise ValueError(f"{what} has no draws; one a candidate")
    numbers = [draw.number for draw in ask.draws]
    for number in (ask.id, *numbers):
        if not 0 <= number < 2**32:
            raise ValueError(f"{what}: {number} is outside 0 … 2^32 - 1")
    if len(set(numbers)) < len(numbers):
        raise ValueError(f"{what} has draws of equal numbers: {numbers}; they would be equal texts")
    forms = {draw.policy.form for draw in ask.draws if not draw.policy.greedy}
    if len(forms) > 1:
        raise ValueError(f"{what} has policies with and without top_k or top_p; make that two asks")
