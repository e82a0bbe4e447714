"""The vote is the same every time, ties included."""

from __future__ import annotations

import pytest

from jaxrefine.selection.voting import majority_vote


@pytest.mark.parametrize(
    ("answers", "winner"),
    [
        (["3"], "3"),
        (["3", "4", "4"], "4"),
        (["3", "4", "4", "3"], "3"),
        (["4", "3", "3", "4"], "4"),
        ([None, None, "5"], "5"),
        ([None, None], None),
        ([], None),
    ],
)
def test_the_most_frequent_answer_wins_and_the_first_given_breaks_ties(
    answers: list[str | None], winner: str | None
) -> None:
    assert majority_vote(answers) == winner


def test_weights_add_up_by_answer() -> None:
    assert majority_vote(["a", "b", "b"], weights=[0.9, 0.5, 0.5]) == "b"
    assert majority_vote(["a", "b", "b"], weights=[1.1, 0.5, 0.5]) == "a"


@pytest.mark.parametrize("weights", [[1.0], [1.0, -1.0], [1.0, float("nan")], [1.0, float("inf")]])
def test_weights_that_are_no_weights_are_refused(weights: list[float]) -> None:
    with pytest.raises(ValueError, match="weight"):
        majority_vote(["a", "b"], weights=weights)
