"""Scores of whole data sets: per candidate, in order; and a reference model's, computed once and kept on disk."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.processes import Processes
from jaxrefine.artefacts.progress import progress
from jaxrefine.config import digest
from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.packing import PackingConfig, pack, unpack
from jaxrefine.scoring.objectives import Objective
from jaxrefine.scoring.scorers import Scores, SequenceLogProb
from jaxrefine.sharding import batch_sharding, replicated
from jaxrefine.typing import Params

ScoreFunction = Callable[[Params, PackedBatch], Scores]


def make_score(objective: Objective, *, mesh: Mesh | None = None) -> ScoreFunction:
    """(params, batch) -> what the objective's scorer says, jitted; one compilation a shape of batch.

    Args:
      objective: as it was trained; its loss is not computed.
      mesh: rows are split over it; None is the default device. Where several processes share it, each gives the whole
        batch and gets all scores.
    """

    def run(params: Params, batch: PackedBatch) -> Scores:
        scores: Any = objective.apply({"params": params}, batch, method="score")
        return scores

    if mesh is None:
        return jax.jit(run)
    is_shared = jax.process_count() > 1
    jitted = jax.jit(run, out_shardings=replicated(mesh) if is_shared else None)
    rows = batch_sharding(mesh)

    def placed(batch: PackedBatch) -> PackedBatch:
        if not is_shared:
            return jax.device_put(batch, rows)
        return jax.tree.map(lambda x: jax.make_array_from_callback(x.shape, rows, x.__getitem__), batch)

    def score(params: Params, batch: PackedBatch) -> Scores:
        with jax.set_mesh(mesh):
            return jitted(params, placed(batch))

    return score


def score_groups(
    score: ScoreFunction, params: Params, groups: Sequence[TokenGroup], packing: PackingConfig, *, read: str = "scores"
) -> dict[int, np.ndarray]:
    """The scores of every candidate of every group.

    Args:
      score: of ``make_score``.
      params: the objective's.
      groups: with ids of their own.
      packing: a shape that they all fit.
      read: "scores" or "sums" (summed log-probs).

    Returns:
      {group_id: [its candidates, in the order of its responses]}.

    Raises:
      ValueError: a group that does not fit, or two with one id.
    """
    found: dict[int, np.ndarray] = {}
    for batch in pack(groups, packing):
        found |= unpack(jax.device_get(getattr(score(params, batch), read)), batch)
    if len(found) < len(groups):
        raise ValueError(f"{len(groups)} groups have only {len(found)} ids: give each its own group_id")
    return {group.group_id: found[group.group_id] for group in groups}


def params_digest(params: Params) -> str:
    """A hash of every parameter's path, shape, type and bits.

    >>> params_digest({"a": np.zeros(2)}) == params_digest({"a": np.zeros(3)})
    False
    """
    total = hashlib.blake2b(digest_size=16)
    for path, leaf in sorted(jax.tree_util.tree_leaves_with_path(params), key=lambda item: str(item[0])):
        array = np.asarray(jax.device_get(leaf))
        total.update(f"{jax.tree_util.keystr(path)} {array.shape} {array.dtype}\n".encode())
        total.update(np.ascontiguousarray(array).view(np.uint8).data)
    return total.hexdigest()


def with_reference_scores(
    groups: Sequence[TokenGroup],
    model: Any,
    params: Params,
    packing: PackingConfig,
    directory: Path,
    *,
    mesh: Mesh | None = None,
    identity: str | None = None,
    description: str = "reference scores",
) -> list[TokenGroup]:
    """The groups with the summed log-probs of their responses under a reference model.

    They are kept in ``directory`` under the digest of the model, the groups and how they are packed. What is there is
    not computed again; a run that stopped goes on, with the same bits as one that did not. Several processes compute
    together, and the first one keeps what they find.

    Args:
      groups: each with an id of its own.
      model: the reference ``Decoder``.
      params: its own tree.
      packing: a shape that they all fit; it must score responses.
      directory: of the cache.
      mesh: where to compute.
      identity: says which parameters these are, such as the digest of their directory; None reads all of them, for
        which one process must hold them.
      description: shown beside the progress bar.

    Returns:
      New groups, in the same order.

    Raises:
      ValueError: ``packing.score_responses`` is off, or a group does not fit.

    Source: DPO, arXiv:2305.18290, §4: the reference model is fixed, so its log-probs are too.
    """
    if not packing.score_responses:
        raise ValueError("reference scores are summed log-probs of responses; packing.score_responses is off")
    key = {
        "params": params_digest(params) if identity is None else identity,
        "model": {"config": model.config, "dtype": str(np.dtype(model.dtype)), "attention": model.attention},
        "packing": packing,
        "groups": digest([[group.group_id, group.prompt, group.responses, group.suffix] for group in groups]),
    }
    score = make_score(Objective(model=model, scorer=SequenceLogProb(length_power=0.0)), mesh=mesh)
    processes = Processes(jax.process_index(), jax.process_count())
    with contextlib.ExitStack() as stack:
        journal = None
        with processes.together(f"open the journal of reference scores in {directory}"):
            if processes.is_first:
                journal = stack.enter_context(Journal(directory / f"reference-{digest(key)}.jsonl"))
        known = np.array([journal is not None and group.group_id in journal for group in groups])
        known = processes.array_from_first(known)
        found = _scored(groups, known, score, params, packing, journal, description)
    sizes = [len(group.responses) for group in groups]
    values = np.concatenate([found.get(group.group_id, np.zeros(len(group.responses))) for group in groups])
    parts = np.split(processes.array_from_first(values.astype(np.float32)), np.cumsum(sizes)[:-1])
    return [
        dataclasses.replace(group, reference_scores=tuple(map(float, part))) if group.responses else group
        for group, part in zip(groups, parts, strict=True)
    ]


def _scored(
    groups: Sequence[TokenGroup],
    known: np.ndarray,
    score: ScoreFunction,
    params: Params,
    packing: PackingConfig,
    journal: Journal | None,
    description: str,
) -> dict[int, np.ndarray]:
    """{group_id: its scores}, of those that were not ``known``; with a journal, to which they are added, of all."""
    done = {group.group_id for group, is_known in zip(groups, known, strict=True) if is_known}
    found: dict[int, np.ndarray] = {}
    with progress(len(groups), description, unit="groups") as bar:
        for batch in pack(groups, packing):
            ids = [int(number) for number in batch.group_ids[batch.group_ids >= 0]]
            if missing := [number for number in ids if number not in done]:
                sums = unpack(jax.device_get(score({"model": params}, batch).sums), batch)
                for number in missing:
                    found[number] = sums[number]
                    if journal is not None:
                        journal.append(number, [float(value) for value in sums[number]])
            bar.advance(len(ids))
    if journal is not None:
        found = {int(number): np.asarray(values) for number, values in journal.records().items()}
    return found
