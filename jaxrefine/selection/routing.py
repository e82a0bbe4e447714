"""Which model answers a query: routers and what they are compared with, as shares of each query.

Every strategy gives an assignment [Q M]: how much of each query goes to each model, each row summing to 1. That of a
router is 1 at one model; that of chance is spread evenly, so that its quality needs no draws.
"""

from __future__ import annotations

import dataclasses

import numpy as np

from jaxrefine.typing import Array, Bool, Float


def route(probabilities: Float[Array, "Q M"], *, where: Bool[Array, "Q M"] | None = None) -> Float[Array, "Q M"]:
    """Each query to the model with the highest probability; of equals the first.

    It is also the oracle, of true rewards, and reward-model ranking, of a reward model's scores of all M answers.

    Args:
        probabilities: of a router, or any scores; higher is better.
        where: models that may be chosen; without it all whose score is not NaN.

    Returns:
        1 at the chosen model; a row of NaN where none may be chosen.

    >>> route(np.array([[0.2, 0.8], [0.5, 0.5]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    scores = np.asarray(probabilities, np.float64)
    allowed = ~np.isnan(scores) if where is None else np.asarray(where) & ~np.isnan(scores)
    chosen = np.where(allowed, scores, -np.inf).argmax(1)
    return np.where(allowed.any(1, keepdims=True), np.eye(scores.shape[1])[chosen], np.nan)


def oracle(rewards: Float[Array, "Q M"]) -> Float[Array, "Q M"]:
    """Each query to the model with the highest true reward, which nobody knows beforehand; of equals the first.

    >>> oracle(np.array([[0.0, 1.0], [1.0, np.nan]])).tolist()
    [[0.0, 1.0], [1.0, 0.0]]
    """
    return route(rewards)


def always(model: int, shape: tuple[int, int]) -> Float[Array, "Q M"]:
    """Every query to one model.

    Args:
        model: its place.
        shape: (Q, M).

    >>> always(1, (2, 2)).tolist()
    [[0.0, 1.0], [0.0, 1.0]]
    """
    return np.tile(np.eye(shape[1])[model], (shape[0], 1))


def by_chance(allowed: Bool[Array, "Q M"]) -> Float[Array, "Q M"]:
    """Every query to a model at random: an equal share to each that is allowed.

    >>> by_chance(np.array([[True, True, True, True], [True, False, True, False]])).tolist()
    [[0.25, 0.25, 0.25, 0.25], [0.5, 0.0, 0.5, 0.0]]
    """
    counts = np.asarray(allowed).sum(1, keepdims=True)
    return np.where(counts > 0, np.asarray(allowed) / np.maximum(counts, 1), np.nan)


def best_on_average(rewards: Float[Array, "Q M"]) -> int:
    """The model with the highest mean of its known rewards; of equals the first.

    It is to be found on the queries that routers are trained on: on those that they are measured on it would be chosen
    by what is measured.

    Args:
        rewards: NaN where unknown.

    Returns:
        Its place.

    Raises:
        ValueError: no reward of any model is known.

    >>> best_on_average(np.array([[0.0, 0.4], [1.0, np.nan]]))
    0
    """
    table = np.asarray(rewards, np.float64)
    known = ~np.isnan(table)
    if not known.any():
        raise ValueError("no reward of any model is known: none can be the best on average")
    counts = known.sum(0)
    means = np.where(known, table, 0.0).sum(0) / np.maximum(counts, 1)
    return int(np.where(counts > 0, means, -np.inf).argmax())


def quality(assignment: Float[Array, "Q M"], rewards: Float[Array, "Q M"]) -> Float[Array, " Q"]:
    """The reward that each query gets; NaN where it went to a model whose reward is unknown.

    Args:
        assignment: shares of each query.
        rewards: of each model's answer.

    >>> quality(np.array([[0.5, 0.5]]), np.array([[1.0, 0.0]])).tolist()
    [0.5]
    """
    shares, table = np.asarray(assignment, np.float64), np.asarray(rewards, np.float64)
    return np.where(shares == 0.0, 0.0, shares * table).sum(1)


@dataclasses.dataclass(frozen=True)
class CostPoint:
    """One point of a curve of quality against cost."""

    price: float
    """λ, what a unit of cost had to be worth in probability."""
    cost: float
    """Mean over the queries."""
    quality: float
    """Mean over the queries whose reward is known."""
    assignment: Float[Array, "Q M"]


def cost_curve(
    probabilities: Float[Array, "Q M"],
    costs: Float[Array, " M"],
    rewards: Float[Array, "Q M"],
    *,
    num_points: int = 25,
) -> list[CostPoint]:
    """Quality against cost: a query goes to the model with the highest probability − λ · cost, for λ from 0 up.

    With two models it is the usual threshold on how probable the dearer one is. The values of λ are those at which
    choices change, evenly thinned; at the last one every query goes to the cheapest model.

    Args:
        probabilities: of a router, or any scores.
        costs: of an answer of each model, in any unit, not negative.
        rewards: of each model's answer; NaN where unknown.
        num_points: at most so many.

    Returns:
        From λ = 0 on; costs do not rise.

    Raises:
        ValueError: a negative cost, or another number of costs than models.

    >>> curve = cost_curve(np.array([[0.4, 0.6], [0.1, 0.9]]), np.array([1.0, 3.0]), np.array([[1.0, 1.0], [0.0, 1.0]]))
    >>> [(point.cost, point.quality) for point in curve]
    [(3.0, 1.0), (2.0, 1.0), (1.0, 0.5)]
    """
    scores, prices = np.asarray(probabilities, np.float64), np.asarray(costs, np.float64)
    if prices.shape != scores.shape[1:] or not (prices >= 0.0).all():
        raise ValueError(f"costs are {scores.shape[1]} numbers, none below 0; got {prices.tolist()}")
    gaps = prices[:, None] - prices[None, :]
    dearer, cheaper = np.nonzero(gaps > 0.0)
    turns = (scores[:, dearer] - scores[:, cheaper]) / gaps[dearer, cheaper]
    turns = np.unique(turns[turns >= 0.0])
    # Just above each turn, so that the tie there is broken towards the cheaper model.
    values = np.concatenate([[0.0], np.nextafter(turns * (1.0 + 1e-12), np.inf)])
    points: list[CostPoint] = []
    for value in values[_thinned(len(values), 4 * num_points)]:
        assignment = route(scores - value * prices)
        cost = float((assignment @ prices).mean())
        if not points or cost != points[-1].cost:
            points.append(CostPoint(float(value), cost, _mean(quality(assignment, rewards)), assignment))
    return [points[place] for place in _thinned(len(points), num_points)]


def _thinned(length: int, most: int) -> list[int]:
    return np.unique(np.linspace(0, length - 1, min(length, most)).round().astype(int)).tolist()


def _mean(values: Array) -> float:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else float("nan")
