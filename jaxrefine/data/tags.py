"""Targets for a router: each model's share of a query's reward, smoothed by the queries that carry the same tags.

    s   = softmax(r / temperature)                              over the models whose reward is known
    s_t = mean of s over the queries that carry tag t
    s*  = β · s + (1 − β) · mean of s_t over the query's tags

One query's rewards are noisy; what they have in common with those of alike queries is less so. Two forms are
published: the full text smooths the softmaxed rewards as above, the first version smooths the raw ones and takes the
softmax afterwards. A query without a tag keeps its own.
"""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from typing import Literal

import numpy as np

from jaxrefine.config import unknown_name
from jaxrefine.data.examples import Routed
from jaxrefine.typing import Array, Float

Form = Literal["softmax", "raw", "hard"]
FORMS: tuple[Form, ...] = ("softmax", "raw", "hard")

_LEAST = 1e-9
"""What stands for a share of 0 in the log: rewards are finite."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LabelEnhancement:
    """How rewards become a router's targets.

    Raises:
        ValueError: β outside 0..1, a temperature not above 0, fewer than one query, an unknown form.
    """

    beta: float = 0.3
    """β, the weight of the query's own reward; 1 reads no tags, 0 only them."""
    form: Form = "softmax"
    """What is smoothed: "softmax", the softmaxed rewards (the paper's full text); "raw", the rewards themselves (its
    first version); "hard", all on the best model, shared where several are (with β = 1 the paper's hard labels)."""
    temperature: float = 1.0
    """The softmax is of rewards / temperature; the paper's is 1. Below 1, models of nearly equal rewards are told
    apart more."""
    min_queries: int = 1
    """A tag that fewer queries carry says nothing: it counts as absent."""

    def __post_init__(self) -> None:
        if not 0.0 <= self.beta <= 1.0:
            raise ValueError(f"LabelEnhancement.beta is {self.beta}; it is a weight in 0..1")
        if not 0.0 < self.temperature < float("inf"):
            raise ValueError(f"LabelEnhancement.temperature is {self.temperature}; it must be above 0")
        if self.min_queries < 1:
            raise ValueError(f"LabelEnhancement.min_queries is {self.min_queries}; it must be at least 1")
        if self.form not in FORMS:
            raise ValueError(unknown_name(self.form, FORMS, "LabelEnhancement.form"))


@dataclasses.dataclass(frozen=True)
class Enhanced:
    """Queries with targets, and what became of their tags."""

    queries: tuple[Routed, ...]
    """As given, but the softmax of ``rewards`` is the target; those without a known reward are left out."""
    tags: dict[str, int]
    """How many queries carry each tag that was read, the most frequent first."""
    num_rare: int
    """Tags that too few queries carry."""
    num_untagged: int
    """Queries that kept their own reward for want of a tag."""
    num_without_rewards: int
    """Queries left out."""


def enhance(queries: Sequence[Routed], config: LabelEnhancement) -> Enhanced:
    """Tag-based label enhancement of training queries.

    Args:
        queries: with rewards of the same models in the same order; tags are compared as they stand.
        config: β, form, temperature, the rarest tag.

    Returns:
        The queries with new rewards. A router that learns them by ``reward_distillation`` at temperature 1 learns s*.

    Raises:
        ValueError: queries of different models, or none with a known reward.

    >>> two = [Routed(id, "Hi?", ("a", "b"), found, ("greeting",)) for id, found in (("1", (1, 0)), ("2", (0, 1)))]
    >>> [shares(query).round(3).tolist() for query in enhance(two, LabelEnhancement(beta=0.0)).queries]
    [[0.5, 0.5], [0.5, 0.5]]

    Source: ZOOTER, arXiv 2311.08692, tag-based label enhancement.
    """
    models = models_of(queries)
    rewarded = [query for query in queries if any(reward is not None for reward in query.rewards)]
    if not rewarded:
        raise ValueError(f"none of {len(queries)} queries has a known reward of {', '.join(models)}")
    counts = Counter(tag for query in rewarded for tag in dict.fromkeys(query.tags))
    tags = {tag: count for tag, count in counts.most_common() if count >= config.min_queries}
    carried = [[tag for tag in dict.fromkeys(query.tags) if tag in tags] for query in rewarded]
    targets = smoothed(reward_table(rewarded), carried, config)
    changed = [
        dataclasses.replace(query, rewards=tuple(None if np.isnan(share) else _log(share) for share in row))
        for query, row in zip(rewarded, targets, strict=True)
    ]
    return Enhanced(
        queries=tuple(changed),
        tags=tags,
        num_rare=len(counts) - len(tags),
        num_untagged=sum(not found for found in carried),
        num_without_rewards=len(queries) - len(rewarded),
    )


def smoothed(
    rewards: Float[Array, "Q M"], tags: Sequence[Sequence[str]], config: LabelEnhancement
) -> Float[Array, "Q M"]:
    """The targets s*, one row a query; each sums to 1 over the models whose reward is known.

    Where rewards are unknown, a tag's mean for a query is taken as if only the models known for that query were there,
    over the queries of the tag that know all of them: a model is not better for having been asked more rarely.

    Args:
        rewards: of Q queries and M models; NaN where unknown.
        tags: of each query, each tag once.
        config: β, form, temperature. Tags are not counted here.

    Returns:
        Shares; NaN where the reward is unknown.
    """
    table = np.asarray(rewards, np.float64)
    known = ~np.isnan(table)
    numbers = {tag: n for n, tag in enumerate(dict.fromkeys(tag for found in tags for tag in found))}
    pairs = np.array([(row, numbers[tag]) for row, found in enumerate(tags) for tag in found], np.int64).reshape(-1, 2)
    result = np.full(table.shape, np.nan)
    for mask in np.unique(known, axis=0):
        if not mask.any():
            continue
        own = np.flatnonzero((known == mask).all(1))
        values = _valued(table[:, mask], config)  # rows that do not know all of these hold NaN
        usable = pairs[known[pairs[:, 0]][:, mask].all(1)]
        sums = np.zeros((len(numbers), values.shape[1]))
        np.add.at(sums, usable[:, 1], values[usable[:, 0]])
        means = sums / np.maximum(np.bincount(usable[:, 1], minlength=len(numbers)), 1)[:, None]
        mixed = values[own]
        for place, row in enumerate(own.tolist()):
            if tags[row]:
                mean = means[[numbers[tag] for tag in tags[row]]].mean(0)
                mixed[place] = config.beta * mixed[place] + (1.0 - config.beta) * mean
        shared = _softmax(mixed / config.temperature) if config.form == "raw" else mixed
        result[np.ix_(own, mask)] = shared
    return result


def shares(query: Routed) -> Float[np.ndarray, " M"]:
    """The softmax of a query's rewards, NaN where they are unknown: of an enhanced query, its targets."""
    return _softmax(reward_table([query]))[0]


def reward_table(queries: Sequence[Routed]) -> Float[np.ndarray, "Q M"]:
    """Rewards as an array: one row a query, NaN where unknown.

    >>> reward_table([Routed("1", "Hello?", ("a", "b"), (0.5, None))]).tolist()
    [[0.5, nan]]
    """
    rows = [[np.nan if reward is None else float(reward) for reward in query.rewards] for query in queries]
    return np.array(rows, np.float64).reshape(len(queries), -1)


def models_of(queries: Sequence[Routed]) -> tuple[str, ...]:
    """The models that all of the queries have.

    Raises:
        ValueError: no queries, or one with other models than the first, by its id.
    """
    if not queries:
        raise ValueError("no queries: there is nothing to route")
    models = queries[0].models
    for query in queries:
        if query.models != models:
            raise ValueError(
                f"query {query.id!r} has rewards of {', '.join(query.models)}; {queries[0].id!r} of {', '.join(models)}"
            )
    return models


def _valued(table: np.ndarray, config: LabelEnhancement) -> np.ndarray:
    """What is averaged over a tag's queries."""
    if config.form == "raw":
        return table.copy()
    if config.form == "softmax":
        return _softmax(table / config.temperature)
    best = table == table.max(1, keepdims=True)
    return np.where(np.isnan(table).any(1, keepdims=True), np.nan, best / np.maximum(best.sum(1, keepdims=True), 1))


def _softmax(table: np.ndarray) -> np.ndarray:
    """Over each row's known values."""
    filled = np.where(np.isnan(table), -np.inf, table)
    top = filled.max(1, keepdims=True)
    raised = np.exp(filled - np.where(np.isfinite(top), top, 0.0))
    total = raised.sum(1, keepdims=True)
    return np.where(np.isnan(table), np.nan, raised / np.where(total > 0, total, 1.0))


def _log(share: float) -> float:
    return float(np.log(max(share, _LEAST)))
