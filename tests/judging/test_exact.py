"""The exact judge: the answer first, the length second, as worked by hand."""

from __future__ import annotations

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.judging.exact import ExactConfig, ExactJudge
from jaxrefine.judging.provenance import Unjudged

# Four words, as the original has; two words; eight words that are wrong; a right one that was cut.
EXAMPLE = Candidates(
    "1", "2+3?", ("it makes 5. #### 5", "#### 5", "a b c d e f #### 7", "it makes 5. #### 5"), (0.0,) * 4, "5",
    (True, True, True, False), {"original": "so it is 5. #### 5"},
)  # fmt: skip


def test_right_answers_stand_above_wrong_ones_and_their_length_decides_between_them():
    (found,) = ExactJudge()([EXAMPLE])
    # Words: 5, 2, 8, 5 beside 6, so 25/6, 10/6, 30/8 and 25/6 points, rounded.
    assert found.labels == (5 + 4, 5 + 2, 4, 4)
    assert found.meta["judgement"]["details"]["accuracy"] == [5.0, 5.0, 0.0, 0.0]


def test_without_a_weight_length_is_not_asked_for():
    bare = Candidates("1", "2+3?", ("#### 5", "#### 6"), (0.0, 0.0), "5")
    (found,) = ExactJudge(ExactConfig(length_weight=0.0, top=1.0))([bare])
    assert found.labels == (1.0, 0.0)


@pytest.mark.parametrize(
    ("example", "reason"),
    [
        (Candidates("1", "p", ("a",), (0.0,), meta={"original": "b"}), "it has no known answer"),
        (Candidates("1", "p", ("a",), (0.0,), "5"), 'meta["original"] holds no text'),
    ],
)
def test_what_cannot_be_judged_is_kept_apart_with_the_reason(example, reason):
    (found,) = ExactJudge()([example])
    assert isinstance(found, Unjudged)
    assert found.reason == reason


def test_what_is_known_is_not_judged_and_each_result_is_told_at_once():
    told = []
    results = ExactJudge()([EXAMPLE, EXAMPLE], done=lambda index, result: told.append(index), known={0})
    assert results[0] is None
    assert told == [1]


def test_weights_below_zero_are_refused():
    with pytest.raises(ValueError, match=r"ExactConfig.top = -1.0 must not be negative"):
        ExactConfig(top=-1.0)
