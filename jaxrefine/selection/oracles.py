"""What no selection can exceed: whether a right solution is there, among all or in the largest clusters."""

from __future__ import annotations

from collections.abc import Sequence
from fractions import Fraction
from math import comb

from jaxrefine.selection.clusters import Ids, in_largest


def pass_at_n(right: Sequence[bool]) -> bool:
    """Pass@N: whether any of the N solutions is right.

    >>> pass_at_n([False, True]), pass_at_n([False, False])
    (True, False)
    """
    return any(right)


def majority_at_n(clusters: Ids, right: Sequence[bool], *, largest: int = 8) -> bool:
    """MajK@N: whether any solution in the K largest clusters is right.

    It bounds RR.MajK and W.RR.MajK. With ``largest=1`` it asks whether the largest cluster holds a right solution,
    which is Maj1@N wherever one cluster's solutions are all right or all wrong.

    Args:
        clusters: one id a solution, None where there is no answer.
        right: whether each solution is right.
        largest: K; ties as in `clusters.in_largest`: of equal clusters those that were given first.

    Raises:
        ValueError: where there is not one of each a solution, or K is not positive.

    >>> answers, right = ["7", "9", "9", "8"], [True, False, False, False]
    >>> majority_at_n(answers, right, largest=1), majority_at_n(answers, right, largest=2)
    (False, True)
    """
    if len(clusters) != len(right):
        raise ValueError(f"{len(right)} judgements for {len(clusters)} solutions: give one a solution")
    return any(right[index] for index in in_largest(clusters, largest))


def pass_at_k(num_samples: int, num_right: int, k: int) -> float:
    """The probability that k of n solutions, drawn without repetition, hold a right one: an unbiased pass@k.

    1 − C(n − c, k) / C(n, k): the mean of Pass@k over every choice of k among the n samples. (1 − (1 − c/n)^k, which
    draws with repetition, is too low.)

    Args:
        num_samples: n.
        num_right: c.
        k: at most n.

    Raises:
        ValueError: where not 0 ≤ c ≤ n or not 1 ≤ k ≤ n.

    >>> pass_at_k(4, 1, 2), pass_at_k(4, 3, 2)
    (0.5, 1.0)

    Source: Chen et al. 2021, "Evaluating large language models trained on code" (arXiv 2107.03374), Eq. 1.
    """
    if not 0 <= num_right <= num_samples:
        raise ValueError(f"num_right must be within 0 and num_samples = {num_samples}, given {num_right}")
    if not 1 <= k <= num_samples:
        raise ValueError(f"k must be within 1 and num_samples = {num_samples}, given {k}")
    return float(1 - Fraction(comb(num_samples - num_right, k), comb(num_samples, k)))
