"""Clusters of equal answers: which are the largest, and who is in them.

A cluster is given as one id a solution (``judging.answers.cluster``, or a canonical key): equal ids, equal answers.
None is a solution that states no answer: it is in no cluster, so it has no vote, is never scored and never chosen.
"""

from __future__ import annotations

from collections.abc import Hashable, Sequence

Ids = Sequence[Hashable | None]
"""A cluster id a solution."""


def by_size(clusters: Ids) -> list[list[int]]:
    """The members of every cluster, the largest cluster first; among equals the one that was given first.

    Args:
        clusters: one id a solution, None where there is no answer.

    Returns:
        Indices of solutions, ascending in each cluster.

    >>> by_size(["7", "9", None, "9", "8"])
    [[1, 3], [0], [4]]
    """
    members: dict[Hashable, list[int]] = {}
    for index, cluster in enumerate(clusters):
        if cluster is not None:
            members.setdefault(cluster, []).append(index)
    return sorted(members.values(), key=lambda found: (-len(found), found[0]))


def in_largest(clusters: Ids, largest: int | None = None) -> list[int]:
    """The solutions in the K largest clusters, in the order in which they were given.

    Args:
        clusters: one id a solution, None where there is no answer.
        largest: K; None is every cluster. Where several clusters of equal size compete for the last place, those that
            were given first get it.

    Raises:
        ValueError: where K is not positive.

    >>> in_largest(["7", "9", None, "9", "8"], 2)
    [0, 1, 3]
    """
    if largest is not None and largest < 1:
        raise ValueError(f"largest, the number of clusters, must be at least 1, given {largest}")
    return sorted(index for members in by_size(clusters)[:largest] for index in members)
