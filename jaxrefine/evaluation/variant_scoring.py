"""Scores of many groups under one model: packed, compiled once for each scorer, in the same batches every time."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import progress
from jaxrefine.conversion.loaded import LoadedModel
from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.packing import PackingConfig, Refused, TokenGroup, pack, unpack
from jaxrefine.evaluation.variant_data import Judged, token_group
from jaxrefine.evaluation.variant_settings import Settings
from jaxrefine.models.attention import attention_backend
from jaxrefine.scoring.objectives import Objective
from jaxrefine.scoring.scorers import SequenceLogProb
from jaxrefine.training.prefetch import to_device
from jaxrefine.training.step import Step
from jaxrefine.typing import Array, Float, Params

_SLOTS_AT_ONCE = 4096


class GroupScorer:
    """Scores the same groups again and again, for one set of parameters after another.

    Args:
        groups: numbered by their place.
        base: decoder and mesh.
        settings: tokens of a row.
        verdicts: lay out verdict words.
    """

    def __init__(self, groups: Sequence[TokenGroup], base: LoadedModel, settings: Settings, *, verdicts: bool) -> None:
        self._decoder, self._mesh = base.model, base.mesh
        expand = attention_backend(settings.attention).reads_paths
        largest = PackingConfig.fit(groups, rows=1, verdicts=verdicts, expand=expand).slots
        slots = max(largest, settings.slots)
        rows = -(-max(1, _SLOTS_AT_ONCE // slots) // base.num_shards) * base.num_shards
        config = PackingConfig.fit(groups, rows=rows, slots=slots, verdicts=verdicts, expand=expand)
        self._batches: list[PackedBatch] = list(pack(groups, config))
        self._steps: dict[Any, Step] = {}

    def __call__(self, params: Params, scorer: Any) -> dict[int, Float[Array, " n"]]:
        """Scores of each group's candidates, by group id.

        Args:
            params: ``{"model": …, "scorer": …}``.
            scorer: a module of ``scoring.scorers``.
        """
        if scorer not in self._steps:
            objective = Objective(model=self._decoder, scorer=scorer)

            def scores(params: Params, batch: PackedBatch) -> jax.Array:
                first = jax.tree.map(lambda x: x[0], batch)
                found: Any = objective.apply({"params": params}, first, method="score")
                return jnp.asarray(found.scores)

            self._steps[scorer] = Step(scores, mesh=self._mesh, donate=False)
        step = self._steps[scorer]
        found: dict[int, Float[Array, " n"]] = {}
        for batch in self._batches:
            values = step(params, to_device(batch, mesh=self._mesh))
            found |= unpack(jax.device_get(values), batch)
        return {number: np.asarray(values, np.float64) for number, values in found.items()}


def score_all(
    journal: Journal, rows: Sequence[Judged], base: LoadedModel, settings: Settings, *, description: str
) -> None:
    """Summed log-probs of the different candidates of every prompt that the journal does not hold yet.

    Args:
        journal: gets ``{"sums": […]}`` for each prompt's id.
        rows: prompts with candidates.
        base: the model that scores.
        settings: lengths, tokens of a row.
        description: beside the progress bar.
    """
    missing = {row.example.id for row in rows if row.example.responses} - set(journal.keys())
    if not missing:
        return
    # All of them are scored again, for other rows could round differently; only the missing ones are written.
    distinct = [row.distinct()[0] for row in rows if row.example.responses]
    tokens = [token_group(row, base.tokenizer, settings.lengths, group_id=n) for n, row in enumerate(distinct)]
    groups = [group for group in tokens if not isinstance(group, Refused)]
    if not groups:
        return
    with progress(1, description, unit="passes") as bar:
        sums = GroupScorer(groups, base, settings, verdicts=False)({"model": base.params}, SequenceLogProb(0.0))
        for group in groups:
            name = distinct[group.group_id].example.id
            if name in missing:
                journal.append(name, {"sums": sums[group.group_id].tolist(), "model": base.digest})
        bar.advance()
