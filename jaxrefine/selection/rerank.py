"""Best of N: the candidate that a scorer likes most."""

from __future__ import annotations

import numpy as np

from jaxrefine.typing import Array, Bool, Float, Int


def best_of_n(scores: Float[Array, "... N"], *, where: Bool[Array, "... N"] | None = None) -> Int[Array, " ..."]:
    """The index of the best-scored candidate; among equals the lowest index.

    Args:
        scores: higher is better.
        where: candidates that may be chosen; without it all of them.

    Returns:
        One index a group.

    Raises:
        ValueError: where a score that may be chosen is NaN, or a group has nothing to choose.

    >>> best_of_n(np.array([[0.1, 0.7, 0.7], [3.0, 2.0, 1.0]])).tolist()
    [1, 0]
    """
    values = np.asarray(scores)
    allowed = np.ones(values.shape, bool) if where is None else np.asarray(where)
    if values.shape[-1] == 0 or not allowed.any(-1).all():
        raise ValueError("best of none: every group needs at least one candidate to choose from")
    if np.isnan(values[allowed]).any():
        raise ValueError("a candidate's score is NaN: it cannot be ranked")
    floor = np.where(allowed, values, -np.inf)
    top = allowed & (floor == floor.max(-1, keepdims=True))
    return np.asarray(top.argmax(-1))
