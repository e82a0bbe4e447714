"""A trained router: the probability of each model for a query, read from the query alone.

router = load_router(directory)
router.probabilities(["What is 2+3?"])      # [1 M]
router.choose(["What is 2+3?"])             # ["small"]
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, runtime_checkable

import jax
import numpy as np
from safetensors.numpy import load_file, save_file

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.conversion.loaded import LoadedModel, Placement, load_model
from jaxrefine.conversion.scorer import load_scorer
from jaxrefine.data.examples import Routed
from jaxrefine.data.groups import TokenGroup, tokenize_group
from jaxrefine.data.jsonl import RecordError
from jaxrefine.data.packing import PackingConfig, pack
from jaxrefine.data.readers import read_prompts
from jaxrefine.models.attention import reads_paths, slot_multiple
from jaxrefine.scoring.objectives import Objective
from jaxrefine.scoring.reference import make_score
from jaxrefine.scoring.scorers import RouterHead
from jaxrefine.selection.features import FeatureRouter
from jaxrefine.typing import Array, Float, Params

ROUTER, FEATURES = "router.json", "router_features.safetensors"
_AT_ONCE = 8192


@runtime_checkable
class Probabilities(Protocol):
    """What gives a probability of each model."""

    def probabilities(self, prompts: Sequence[str]) -> Float[Array, "Q M"]:
        """Of each model, for each query; rows sum to 1."""
        ...


@dataclasses.dataclass(frozen=True, eq=False)
class Router:
    """A router with the names of the models that it chooses between."""

    models: tuple[str, ...]
    reader: Probabilities

    def probabilities(self, prompts: Sequence[str]) -> Float[Array, "Q M"]:
        """The probability of each model for each query.

        Args:
            prompts: texts of queries, as they would be sent to a model.

        Returns:
            [Q M], in the order of ``models``; rows sum to 1.

        Raises:
            ValueError: an empty query, by its place.
        """
        for place, prompt in enumerate(prompts):
            if not prompt.strip():
                raise ValueError(f"query {place} is empty: there is nothing to route it by")
        if not prompts:
            return np.zeros((0, len(self.models)))
        return np.asarray(self.reader.probabilities(prompts), np.float64)

    def choose(self, prompts: Sequence[str]) -> list[str]:
        """The name of the most probable model of each query; of equals the first."""
        return [self.models[place] for place in self.probabilities(prompts).argmax(1)]


class ModelRouter:
    """A decoder or encoder with a ``RouterHead``.

    Queries are sorted by length, and laid out in rows of few static shapes: the lengths of a batch are rounded up to
    powers of two.

    Args:
        loaded: the model.
        head: ``{"kernel": [M D]}``.
        max_prompt: tokens read of a query, BOS included; a longer one loses its start.
        batch_tokens: tokens computed at once.
    """

    def __init__(self, loaded: LoadedModel, head: Params, *, max_prompt: int = 512, batch_tokens: int = 16384) -> None:
        num_models = int(head["kernel"].shape[0])
        objective = Objective(model=loaded.model, scorer=RouterHead(num_models=num_models))
        self._score = make_score(objective, mesh=loaded.mesh)
        self._params = {"model": loaded.params, "scorer": head}
        self._loaded, self._num_models = loaded, num_models
        self._max_prompt, self._batch_tokens = max_prompt, batch_tokens
        self.shapes: list[PackingConfig] = []
        """Every shape so far: each is one compilation."""

    def probabilities(self, prompts: Sequence[str]) -> Float[Array, "Q M"]:
        """Of each model, for each query."""
        groups = [self._tokens(place, prompt) for place, prompt in enumerate(prompts)]
        found = np.zeros((len(groups), self._num_models))
        for part, packing in self._parts(groups):
            for batch in pack(part, packing, window=len(part)):
                logits = np.asarray(jax.device_get(self._score(self._params, batch).logits), np.float64)
                ids = np.asarray(batch.group_ids)
                found[ids[ids >= 0]] = logits[ids >= 0]
        raised = np.exp(found - found.max(1, keepdims=True))
        return raised / raised.sum(1, keepdims=True)

    def _tokens(self, place: int, prompt: str) -> TokenGroup:
        query = Routed(str(place), prompt, ("-",), (None,))
        group = tokenize_group(
            query, self._loaded.tokenizer, group_id=place, max_prompt=self._max_prompt, max_response=1
        )
        if not isinstance(group, TokenGroup):
            raise ValueError(f"query {place}: {group.reason}")
        return dataclasses.replace(group, rewards=None, reward_where=None)

    def _parts(self, groups: Sequence[TokenGroup]) -> Iterator[tuple[list[TokenGroup], PackingConfig]]:
        """Queries of alike length with the shape of their batches: one query a row, so that none waits for a longer."""
        by_slots: dict[int, list[TokenGroup]] = {}
        least = slot_multiple(self._loaded.model)
        for group in groups:
            by_slots.setdefault(max(least, _power(len(group.prompt))), []).append(group)
        for slots, part in sorted(by_slots.items()):
            most = max(1, self._batch_tokens // slots)
            rows = min(most, _power(len(part)))
            shape = PackingConfig(
                rows=-(-rows // self._loaded.num_shards) * self._loaded.num_shards,
                slots=slots, scored=0, groups=1, candidates=0,
                expand=reads_paths(self._loaded.model),
            )  # fmt: skip
            if shape not in self.shapes:
                self.shapes.append(shape)
            yield part, shape


def route_file(router: Router, file: pathlib.Path | str) -> Iterator[dict[str, Any]]:
    """Routes the queries of a file.

    Args:
        router: of ``load_router``.
        file: prompts as ``read_prompts`` reads them (``.jsonl``, ``.jsonl.gz``), or any text, a query a line.

    Yields:
        ``{"id", "model", "probabilities": {model: …}}`` of each, in order; a line of text is called by its number.

    Raises:
        RecordError: ``file:line: field: reason``, an empty line too.
    """
    path = pathlib.Path(file)
    if path.name.endswith((".jsonl", ".jsonl.gz")):
        queries = [(query.id, query.prompt) for query in read_prompts(path)]
    else:
        queries = [(str(n), line) for n, line in enumerate(path.read_text("utf-8").splitlines(), start=1)]
        for number, line in queries:
            if not line.strip():
                raise RecordError(f"{path}:{number}", "", "an empty line: there is nothing to route it by")
    for start in range(0, len(queries), _AT_ONCE):
        part = queries[start : start + _AT_ONCE]
        for (id, _), row in zip(part, router.probabilities([text for _, text in part]), strict=True):
            shares = {model: round(float(value), 6) for model, value in zip(router.models, row, strict=True)}
            yield {"id": id, "model": router.models[int(row.argmax())], "probabilities": shares}


def _power(value: int) -> int:
    """The smallest power of two that is not below.

    >>> [_power(value) for value in (1, 2, 3, 64, 65)]
    [1, 2, 4, 64, 128]
    """
    return 1 << max(0, value - 1).bit_length()


def save_router(
    directory: pathlib.Path,
    models: Sequence[str],
    *,
    features: FeatureRouter | None = None,
    max_prompt: int = 512,
    pooling: str = "first",
) -> None:
    """Says in a directory between which models is routed; the whole router where it has features alone.

    Args:
        directory: a model directory with a router's head; or any, which is made, with ``features``.
        models: names, in the order of the head's rows.
        features: a linear router.
        max_prompt: tokens that a model was trained to read of a query.
        pooling: of an encoder, as it was trained.
    """  # fmt: skip
    directory.mkdir(parents=True, exist_ok=True)
    record: dict[str, Any] = {"models": list(models)}
    if features is None:
        record |= {"kind": "model", "max_prompt": max_prompt, "pooling": pooling}
    else:
        record |= {"kind": "features", "pairs": features.pairs, "penalty": features.penalty}
        arrays = {"kernel": features.kernel, "bias": features.bias}
        save_file({name: np.ascontiguousarray(array) for name, array in arrays.items()}, directory / FEATURES)
    write_json(directory / ROUTER, record)


def load_router(directory: pathlib.Path | str, placement: Placement | None = None) -> Router:
    """A router from its directory.

    Args:
        directory: as ``save_router`` leaves it.
        placement: where a model computes; None is the default, with the pooling that it was trained with.

    Raises:
        FileNotFoundError: no directory, or no ``router.json`` in it.
        ValueError: a head with another number of rows than there are models.
    """
    directory = pathlib.Path(directory)
    if not (directory / ROUTER).is_file():
        raise FileNotFoundError(f"{directory / ROUTER}: no such file; a router's directory has one")
    record = read_json(directory / ROUTER)
    models = tuple(record["models"])
    if record["kind"] == "features":
        arrays = load_file(directory / FEATURES)
        reader: Any = FeatureRouter(arrays["kernel"], arrays["bias"], bool(record["pairs"]), float(record["penalty"]))
        rows = len(reader.bias)
    else:
        placement = Placement(pooling=record["pooling"]) if placement is None else placement
        _, head = load_scorer(directory)
        rows = int(head["kernel"].shape[0])
        reader = ModelRouter(load_model(directory, placement), head, max_prompt=int(record["max_prompt"]))
    if rows != len(models):
        raise ValueError(f"{directory}: the head has {rows} rows; {ROUTER} names {len(models)} models")
    return Router(models, reader)
