"""Scores of candidates under a model that is here: prompts shared, few compiled shapes, the same batches each time."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Collection, Iterator, Sequence
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh

from jaxrefine.conversion.loaded import LoadedModel
from jaxrefine.data.examples import Candidates
from jaxrefine.data.groups import Refused, TokenGroup, tokenize_group
from jaxrefine.data.packing import PackingConfig, pack, plan_rows, unpack
from jaxrefine.data.tokenizer import Tokenizer
from jaxrefine.models.attention import reads_paths, slot_multiple
from jaxrefine.models.encoder import Encoder
from jaxrefine.scoring.objectives import Objective
from jaxrefine.scoring.reference import make_score, params_digest
from jaxrefine.typing import Params


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LocalModel:
    """A model of ours with its parameters and its tokenizer, and what it is called."""

    model: Any
    """A ``Decoder`` or an ``Encoder``."""
    params: Params
    """The model's own tree."""
    tokenizer: Tokenizer
    name: str
    """For the provenance: what people call it."""
    version: str = ""
    """For the provenance; empty is a digest of the parameters, which reads all of them once."""
    mesh: Mesh | None = None
    """Over which rows are split; None is the default device."""

    @functools.cached_property
    def weights(self) -> str:
        """What tells these parameters from others."""
        return self.version or params_digest(self.params)


def local_model(loaded: LoadedModel, name: str = "") -> LocalModel:
    """A loaded directory as judges take it.

    Args:
        loaded: with its tokenizer.
        name: for the provenance; empty is the directory's own.
    """
    return LocalModel(
        model=loaded.model,
        params=loaded.params,
        tokenizer=loaded.tokenizer,
        name=name or loaded.directory.resolve().name,
        version=loaded.digest,
        mesh=loaded.mesh,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Rows:
    """How candidates are laid out to be scored.

    Raises:
        ValueError: limits below what a prompt and a response need.
    """

    max_prompt: int = 1024
    """Tokens kept of a prompt, BOS included; a longer one loses its start."""
    max_response: int = 1024
    """Tokens kept of a response, EOS included; a longer one loses its end, and is noted as cut."""
    slots: int = 2048
    """Tokens of a row, unless one prompt with its candidates is longer."""
    batch_tokens: int = 8192
    """Tokens computed at once."""
    planned_together: int = 8192
    """Prompts laid out together: the shape is fitted to them, and grows if later ones need it."""

    def __post_init__(self) -> None:
        least = {"max_prompt": 2, "max_response": 1, "slots": 1, "batch_tokens": 1, "planned_together": 1}
        for name, limit in least.items():
            if (value := getattr(self, name)) < limit:
                raise ValueError(f"Rows.{name} = {value} must be at least {limit}")

    def record(self) -> dict[str, int]:
        """What of it may change a score: not how rows are filled."""
        return {"max_prompt": self.max_prompt, "max_response": self.max_response}


@dataclasses.dataclass(frozen=True)
class Scored:
    """The scores of one example's responses, in order."""

    scores: np.ndarray
    num_tokens: tuple[int, ...]
    """Tokens scored or read of each response, EOS included."""
    cut: tuple[int, ...]
    """Responses that were longer than may be."""


class PackedScorer:
    """Scores every candidate of many examples with one scorer.

    Equal responses of a prompt are computed once. The batches depend on all of the examples and not on which of them
    are known already, so that a run that was stopped goes on with the same bits.

    Args:
        local: the model.
        scorer: a module of ``jaxrefine.scoring.scorers``.
        rows: limits and sizes.
        scorer_params: of a head.
        score_responses: whether log-probs of responses are read.
        whole_prompts: refuse a prompt that is too long instead of dropping its start.
        suffix: text between a response and its verdict.
        verdicts: the words for right and wrong, with their leading space, where the scorer reads verdicts.
    """

    def __init__(
        self,
        local: LocalModel,
        scorer: Any,
        rows: Rows,
        *,
        scorer_params: Params = None,
        score_responses: bool,
        whole_prompts: bool = False,
        suffix: str = "",
        verdicts: tuple[str, str] | None = None,
    ) -> None:
        self.rows = rows
        self._whole_prompts = whole_prompts
        self._suffix, self._verdicts = suffix, verdicts
        self._local, self._score_responses = local, score_responses
        self._params = {"model": local.params} | ({} if scorer_params is None else {"scorer": scorer_params})
        self._score = make_score(Objective(model=local.model, scorer=scorer), mesh=local.mesh)
        self._causal = not isinstance(local.model, Encoder)  # which reads prompt and response as one sequence
        self.shapes: list[PackingConfig] = []
        """Every shape so far: each is one compilation."""

    def __call__(
        self, examples: Sequence[Candidates], known: Collection[int] = ()
    ) -> Iterator[tuple[int, Scored | Refused]]:
        """The scores of each example that is not known, by index, as soon as its batch is there."""
        last = max((index for index in range(len(examples)) if index not in known), default=-1)
        for start in range(0, last + 1, self.rows.planned_together):  # known ones too: they shape the batches
            yield from self._part(examples, range(start, min(start + self.rows.planned_together, len(examples))), known)

    def _part(
        self, examples: Sequence[Candidates], part: range, known: Collection[int]
    ) -> Iterator[tuple[int, Scored | Refused]]:
        groups: dict[int, TokenGroup] = {}
        places: dict[int, list[int]] = {}
        for index in part:
            once, places[index] = _once(examples[index])
            group = self._tokens(once, index)
            if isinstance(group, TokenGroup):
                groups[index] = group
            elif index not in known:
                yield index, group
        if not groups:
            return
        for batch in pack(groups.values(), self._shape(list(groups.values())), window=len(groups)):
            wanted = [int(i) for i in np.asarray(batch.group_ids).ravel() if i >= 0 and int(i) not in known]
            if not wanted:
                continue
            found = unpack(jax.device_get(self._score(self._params, batch).scores), batch)
            for index in wanted:
                yield index, self._scored(examples[index], groups[index], found[index], places[index])

    def _tokens(self, example: Candidates, index: int) -> TokenGroup | Refused:
        if not example.responses:
            return Refused(index, "it has no responses")
        limit = self.rows.max_prompt
        group = tokenize_group(
            example,
            self._local.tokenizer,
            group_id=index,
            max_prompt=limit + self._whole_prompts,
            max_response=self.rows.max_response,
            suffix=self._suffix,
            verdicts=self._verdicts,
        )
        if self._whole_prompts and isinstance(group, TokenGroup) and len(group.prompt) > limit:
            return Refused(index, f"its prompt is longer than {limit} tokens")
        return group

    def _scored(self, example: Candidates, group: TokenGroup, scores: np.ndarray, places: list[int]) -> Scored:
        ends, limit = self._local.tokenizer.eos_ids, self.rows.max_response
        cut = [len(ids) == limit and ids[-1] not in ends for ids in group.responses]
        return Scored(
            scores=scores.astype(np.float64)[places],
            num_tokens=tuple(len(group.responses[place]) for place in places),
            cut=tuple(number for number, place in enumerate(places) if cut[place]),
        )

    def _shape(self, groups: list[TokenGroup]) -> PackingConfig:
        """A shape for these groups, never smaller than the last one."""
        options: dict[str, Any] = {
            "expand": reads_paths(self._local.model),
            "multiple": slot_multiple(self._local.model),
            "share_prompt": self._causal,
            "score_responses": self._score_responses,
            "verdicts": self._verdicts is not None,
        }
        tight = PackingConfig.fit(groups, rows=1, **options)
        total = sum(tight.measure(group).slots for group in groups)
        slots = max(tight.slots, min(self.rows.slots, -(-total // 32) * 32))
        shape = PackingConfig.fit(groups, rows=1, slots=slots, **options)
        needed = len(plan_rows([shape.measure(group) for group in groups], shape))
        mesh = self._local.mesh
        shards = 1 if mesh is None else int(np.prod([mesh.shape[axis] for axis in ("data", "fsdp")]))
        rows = min(needed, max(1, self.rows.batch_tokens // slots))
        shape = dataclasses.replace(shape, rows=-(-rows // shards) * shards)
        if self.shapes:
            last = self.shapes[-1]
            sizes = ("rows", "slots", "scored", "groups", "candidates", "paths", "path_length")
            pairs = {name: (getattr(shape, name), getattr(last, name)) for name in sizes}
            shape = dataclasses.replace(shape, **{name: max(pair) for name, pair in pairs.items() if None not in pair})
        if shape not in self.shapes:
            self.shapes.append(shape)
        return shape


def _once(example: Candidates) -> tuple[Candidates, list[int]]:
    """The example with each different response once, and the place of every response among those."""
    pairs = list(zip(example.responses, example.finished, strict=True))
    order = list(dict.fromkeys(pairs))
    texts, finished = [text for text, _ in order], [flag for _, flag in order]
    once = dataclasses.replace(example, responses=tuple(texts), labels=(0.0,) * len(order), finished=tuple(finished))
    return once, [order.index(pair) for pair in pairs]
