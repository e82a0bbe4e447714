"""Groups laid out as arrays, and the results of a batch brought back to its groups."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.shapes import PackingConfig


def batch_from_groups(
    rows: Sequence[Sequence[TokenGroup]], config: PackingConfig, *, num_rows: int | None = None
) -> PackedBatch:
    """Rows of groups as arrays; missing rows are empty.

    Args:
      rows: the groups of each row, that fit it together.
      config: the shape.
      num_rows: B of the result; None is ``config.rows``.
    """
    num_rows = config.rows if num_rows is None else num_rows
    if len(rows) > num_rows:
        raise ValueError(f"{len(rows)} rows of groups for a batch of {num_rows}")
    arrays = _empty(num_rows, config)
    for b, row in enumerate(rows):
        if len(row) > config.groups:
            raise ValueError(f"row {b}: {len(row)} groups; packing.groups = {config.groups}")
        writer = _Row({name: array[b] for name, array in arrays.items()}, config)
        for g, group in enumerate(row):
            writer.place(g, group)
    if config.expand:  # padding takes the output of the first place, which nobody reads
        np.maximum(arrays["homes"], 0, out=arrays["homes"])
    return PackedBatch(**arrays, num_leaves_per_candidate=config.num_leaves_per_candidate)


def _empty(num_rows: int, config: PackingConfig) -> dict[str, np.ndarray]:
    B, S, T, G, N, M = num_rows, config.slots, config.scored, config.groups, config.candidates, config.rewards
    ints = {name: np.zeros((B, S), np.int32) for name in ("tokens", "positions")}
    ints |= {name: np.zeros((B, T), np.int32) for name in ("sources", "targets")}
    ints |= {name: np.zeros((B, G, N), np.int32) for name in ("last", "lengths")}
    arrays: dict[str, np.ndarray] = {
        **ints,
        "ends": np.tile(np.arange(1, S + 1, dtype=np.int32), (B, 1)),
        "leaves": np.full((B, T), -1, np.int32),
        "prompt_last": np.zeros((B, G), np.int32),
        "group_ids": np.full((B, G), -1, np.int32),
        "rank_where": np.zeros((B, G, N), bool),
    }
    arrays |= {name: np.zeros((B, G, N), np.float32) for name in ("labels", "mle_weight", "reference_scores")}
    if M:
        arrays |= {"rewards": np.zeros((B, G, M), np.float32), "reward_where": np.zeros((B, G, M), bool)}
    if config.expand:
        arrays["paths"] = np.full((B, config.num_paths, config.longest_path), -1, np.int32)
        arrays["homes"] = np.full((B, S), -1, np.int32)
    return arrays


class _Row:
    """Writes groups into one row, left to right."""

    def __init__(self, arrays: Mapping[str, np.ndarray], config: PackingConfig) -> None:
        self._arrays, self._config = arrays, config
        self._slot = self._scored = self._path = 0

    def place(self, g: int, group: TokenGroup) -> None:
        """Lays out one group as group ``g`` of the row."""
        config, arrays, num = self._config, self._arrays, len(group.responses)
        size = config.measure(group)
        start = self._slot
        arrays["group_ids"][g] = group.group_id
        arrays["prompt_last"][g] = start + len(group.prompt) - 1
        for name in ("labels", "rank_where", "mle_weight", "reference_scores"):
            arrays[name][g, :num] = getattr(group, name)
        if group.rewards is not None and config.rewards:
            arrays["rewards"][g], arrays["reward_where"][g] = group.rewards, group.reward_where
        if config.share_prompt or not num:
            prompt = self._write(group.prompt, 0, start + size.slots)
        if not num:
            self._add_path(prompt)
        words = group.verdicts if config.verdicts and group.verdicts else ()
        tail = (len(group.suffix) + sum(map(len, words))) if words else 0
        for n, response in enumerate(group.responses):
            if not config.share_prompt:
                prompt = self._write(group.prompt, 0, self._slot + len(group.prompt) + len(response) + tail)
            self._candidate(g, n, group, prompt, words, self._slot + len(response) + tail)

    def _candidate(self, g: int, n: int, group: TokenGroup, prompt: range, words: tuple[Any, ...], end: int) -> None:
        config, ids = self._config, group.responses[n]
        leaf = (g * config.candidates + n) * config.num_leaves_per_candidate
        response = self._write(ids, len(prompt), end)
        self._arrays["last"][g, n] = response[-1]
        if config.score_responses:
            self._arrays["lengths"][g, n] = len(ids)
            self._score(prompt[-1], response, ids, leaf)
        if not words:
            self._add_path(prompt, response)
            return
        suffix = self._write(group.suffix, len(prompt) + len(response), end)
        for w, word_ids in enumerate(words, start=1):
            position = len(prompt) + len(response) + len(suffix)
            word = self._write(word_ids, position, self._slot + len(word_ids))
            self._score(suffix[-1] if suffix else response[-1], word, word_ids, leaf + w)
            self._add_path(prompt, response, suffix, word)

    def _write(self, ids: Sequence[int], position: int, end: int) -> range:
        """Tokens from the next slot on, at positions from ``position``; ``end`` is where their subtree ends."""
        start, stop = self._slot, self._slot + len(ids)
        self._arrays["tokens"][start:stop] = ids
        self._arrays["positions"][start:stop] = np.arange(position, position + len(ids))
        self._arrays["ends"][start:stop] = end
        self._slot = stop
        return range(start, stop)

    def _score(self, before: int, slots: range, ids: Sequence[int], leaf: int) -> None:
        """Scores the tokens at ``slots``, the first of which slot ``before`` predicts."""
        part = slice(self._scored, self._scored + len(ids))
        self._arrays["sources"][part] = [before, *slots[:-1]]
        self._arrays["targets"][part] = ids
        self._arrays["leaves"][part] = leaf
        self._scored = part.stop

    def _add_path(self, *segments: range) -> None:
        """One root-to-leaf path; a slot takes its output from the first path that it lies on."""
        if not self._config.expand:
            return
        slots = np.concatenate([np.asarray(segment, np.int32) for segment in segments])
        self._arrays["paths"][self._path, : len(slots)] = slots
        homes = self._arrays["homes"]
        new = homes[slots] < 0
        homes[slots[new]] = self._path * self._config.longest_path + np.flatnonzero(new)
        self._path += 1


def unpack(values: Any, batch: PackedBatch) -> dict[int, np.ndarray]:
    """Per-candidate results of a batch, by group.

    Args:
      values: [B G N], such as scores.
      batch: what they were computed from.

    Returns:
      {group_id: [candidates of that group]}, in the order of the group's responses.
    """
    values, present = np.asarray(values), np.asarray(batch.present)
    ids = np.asarray(batch.group_ids)
    return {int(ids[b, g]): values[b, g][present[b, g]] for b, g in zip(*np.nonzero(ids >= 0), strict=True)}


def usage(batch: PackedBatch) -> dict[str, float]:
    """Shares of a batch that are no padding: of slots, scored tokens, groups and paths.

    >>> config = PackingConfig(rows=1, slots=10, scored=4, groups=2, candidates=1)
    >>> usage(batch_from_groups([[TokenGroup(0, (1, 4, 5), ((6, 2),))]], config))
    {'slots': 0.5, 'scored': 0.5, 'groups': 0.5, 'paths': 0.5}
    """
    own = np.arange(1, batch.ends.shape[-1] + 1)
    inner = np.where(np.asarray(batch.ends) != own, batch.ends, 0).max(-1)
    bare = np.where(np.asarray(batch.group_ids) >= 0, np.asarray(batch.prompt_last) + 1, 0).max(-1)
    shares = {
        "slots": np.maximum(inner, bare).sum() / batch.tokens.size,
        "scored": (np.asarray(batch.leaves) >= 0).sum() / max(1, batch.leaves.size),
        "groups": (np.asarray(batch.group_ids) >= 0).mean(),
    }
    if batch.paths is not None:
        shares["paths"] = (np.asarray(batch.paths)[..., 0] >= 0).mean()
    return {name: float(share) for name, share in shares.items()}
