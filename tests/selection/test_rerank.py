"""Best of N chooses among the allowed, and the lowest index among equals."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrefine.selection.rerank import best_of_n


def test_the_best_of_each_group_is_chosen() -> None:
    assert best_of_n(np.array([[1.0, 3.0, 2.0], [-1.0, -3.0, -2.0]])).tolist() == [1, 0]


def test_equal_scores_choose_the_lowest_index() -> None:
    assert best_of_n(np.array([2.0, 2.0, 2.0])).item() == 0


def test_what_is_masked_is_never_chosen_even_where_all_others_are_minus_infinity() -> None:
    scores = np.array([9.0, -np.inf, -np.inf, np.nan])
    assert best_of_n(scores, where=np.array([False, False, True, False])).item() == 2


def test_leading_dimensions_are_kept() -> None:
    scores = np.arange(24.0).reshape(2, 3, 4)
    assert best_of_n(scores).tolist() == [[3, 3, 3], [3, 3, 3]]


def test_nothing_to_choose_from_is_refused() -> None:
    with pytest.raises(ValueError, match="at least one"):
        best_of_n(np.zeros((2, 2)), where=np.array([[True, False], [False, False]]))


def test_a_nan_score_is_refused() -> None:
    with pytest.raises(ValueError, match="NaN"):
        best_of_n(np.array([0.0, np.nan]))
