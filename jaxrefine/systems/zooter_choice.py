"""Which router to use, by training queries kept apart: before anybody looks at the queries that it is reported on."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from jaxrefine.data.examples import Routed
from jaxrefine.data.identity import is_held_out
from jaxrefine.data.tags import reward_table
from jaxrefine.selection.routing import route
from jaxrefine.typing import Float


def kept_apart(train: Sequence[Routed], share: float) -> tuple[list[Routed], list[Routed]]:
    """Queries to learn from, and those on which routers are compared; by a hash of their ids.

    Args:
        train: the training queries.
        share: of them, about so many are kept apart.

    Raises:
        ValueError: none are left for one of the two, though some are wanted.
    """
    if not share:
        return list(train), []
    parts: dict[bool, list[Routed]] = {False: [], True: []}
    for query in train:
        parts[is_held_out(f"{query.id} validation", share)].append(query)
    if not all(parts.values()):
        raise ValueError(f"validation_share = {share:g} of {len(train)} training queries leaves none on one side")
    return parts[False], parts[True]


def mean_reward(queries: Sequence[Routed], probabilities: Float[np.ndarray, "S Q M"]) -> float:
    """The mean reward of the model that a router prefers, over queries and seeds; queries without rewards are left out.

    Args:
        queries: with rewards; a model without one is not chosen.
        probabilities: of each seed of the router.
    """
    rewards = reward_table(queries)
    known = ~np.isnan(rewards).all(1)
    found = [
        np.nansum(route(table[known], where=~np.isnan(rewards[known])) * np.nan_to_num(rewards[known]), axis=1)
        for table in np.asarray(probabilities, np.float64)
    ]
    return float(np.mean(found))


def choose(queries: Sequence[Routed], probabilities: Mapping[str, Float[np.ndarray, "S Q M"]]) -> str:
    """The router of the highest mean reward; of equals the first.

    >>> query = Routed("1", "double 2", ("x", "y"), (1.0, 0.0))
    >>> choose([query], {"wrong": np.array([[[0.2, 0.8]]]), "right": np.array([[[0.6, 0.4]]])})
    'right'
    """
    means = {name: mean_reward(queries, table) for name, table in probabilities.items()}
    return max(means, key=lambda name: means[name])
