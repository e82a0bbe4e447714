"""Vicuna QA: wins, losses and ties by a judge in both orders, and the scores of rankings."""

from __future__ import annotations

import gzip
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from jaxrefine.data.examples import Candidates
from jaxrefine.data.vicuna import Review, read_vicuna_reviews
from jaxrefine.evaluation.vicuna import compare_answers, compared_of_reviews, rank_scores, win_lose_tie
from jaxrefine.judging.pairwise import Compared, PairwiseJudge, Spoken


class Longest:
    """Prefers the longer answer, and the one shown first where they are equally long; cannot read an empty one."""

    model, model_version, prompt_digest = "longest", "1", "0"
    settings: dict[str, Any] = {}

    def ask(self, questions: Sequence[tuple[str, str, str]], done: Callable[[int, Spoken], None]) -> None:
        for index, (_, first, second) in enumerate(questions):
            if not first or not second:
                done(index, "unparsable")
            else:
                done(index, "first" if len(first) >= len(second) else "second")


def answered(*answers: tuple[str, str, str]) -> list[Candidates]:
    """Questions of (id, category, answer)."""
    return [
        Candidates(id, "p", (answer,), (0.0,), meta={"instruction": "Why?", "category": category})
        for id, category, answer in answers
    ]


def test_answers_are_compared_by_question_in_both_orders():
    ours = answered(
        ("1", "math", "long one"), ("2", "math", "x"), ("3", "poem", "same"), ("4", "poem", "abc"), ("5", "poem", "")
    )
    theirs = answered(
        ("5", "poem", "y"), ("4", "poem", "xyz"), ("3", "poem", "same"), ("2", "math", "yy"), ("1", "math", "s")
    )
    found = compare_answers(PairwiseJudge(Longest()), ours, theirs)
    # 1 win, 2 loss, 3 one text: a tie, 4 equally long: the orders contradict, a tie, 5 unreadable
    overall = found.overall
    assert (overall.win, overall.lose, overall.tie, overall.unjudged, overall.judged) == (1, 1, 2, 1, 4)
    assert overall.advantage is not None
    assert overall.advantage.value == 0.0
    assert {name: (wlt.win, wlt.lose, wlt.tie) for name, wlt in found.by_category.items()} == {
        "math": (1, 1, 0),
        "poem": (0, 0, 2),
    }
    assert (found.judge.identical, found.judge.reversed, found.judge.shown_first) == (1, 1, 1)
    assert json.loads(json.dumps(found.record()))["overall"]["win"] == 1


@pytest.mark.parametrize(
    ("ours", "theirs", "reason"),
    [
        ([], [], "no question"),
        (answered(("1", "a", "x")), answered(("2", "a", "x")), "unknown question '1'"),
        (answered(("1", "a", "x")), answered(("1", "a", "x"), ("2", "a", "x")), "1 of our answers and 2 of theirs"),
        (answered(("1", "a", "x")), [Candidates("1", "p")], "question '1': one response is wanted, got 0"),
    ],
)
def test_answers_to_different_questions_are_refused(ours: list[Candidates], theirs: list[Candidates], reason: str):
    with pytest.raises(ValueError, match=reason):
        compare_answers(PairwiseJudge(Longest()), ours, theirs)


def test_counts_and_their_advantage_by_hand():
    said = (
        [("first", "first")] * 6
        + [("second", "second")] * 2
        + [("first", "second"), ("tie", "first"), ("tie", "refused")]
    )
    found = win_lose_tie(Compared(*pair) for pair in said)
    assert (found.win, found.lose, found.tie, found.unjudged) == (6, 2, 2, 1)
    assert found.advantage is not None
    assert found.advantage.value == pytest.approx((6 - 2) / 10)
    # the variance of ten values of mean .4 (6 of 1, 2 of −1, 2 of 0) is .64: a standard error of sqrt(.64 / 9)
    assert found.advantage.standard_error == pytest.approx((0.64 / 9) ** 0.5, rel=0.05)
    assert str(found).startswith("win 6, lose 2, tie 2, 1 unjudged; advantage +0.40 [")


def test_nothing_judged_has_no_advantage():
    found = win_lose_tie([Compared("unparsable", "first")])
    assert (found.judged, found.unjudged) == (0, 1)
    assert found.advantage is None
    assert str(found) == "win 0, lose 0, tie 0, 1 unjudged"


def test_reviews_in_both_orders_are_paired_by_question():
    in_order = [Review("1", (9.0, 8.0)), Review("2", (9.0, 8.0)), Review("3", (5.0, 5.0))]
    swapped = [Review("3", (5.0, 5.0)), Review("2", (9.0, 8.0)), Review("1", (8.0, 9.0))]
    found, summary = compared_of_reviews(in_order, swapped)
    assert {name: pair.outcome for name, pair in found.items()} == {"1": "first", "2": "tie", "3": "tie"}
    assert (summary.reversed, summary.tie, summary.first) == (1, 2, 1)
    with pytest.raises(ValueError, match=r"question 3 has a review in one order only"):
        compared_of_reviews(in_order, swapped[1:])
    with pytest.raises(ValueError, match="question '1' has two reviews in one order"):
        compared_of_reviews([in_order[0], *in_order], swapped)


def test_rank_i_of_five_scores_six_minus_i():
    names = ["tuna", "alpaca", "llama", "ppo", "mul"]
    one = dict(zip(names, [1, 2, 5, 3, 4], strict=True))
    other = dict(zip(names, [2, 1, 5, 4, 3], strict=True))
    assert rank_scores([one]) == {"tuna": 5.0, "alpaca": 4.0, "ppo": 3.0, "mul": 2.0, "llama": 1.0}
    assert rank_scores([one, other]) == {"tuna": 4.5, "alpaca": 4.5, "ppo": 2.5, "mul": 2.5, "llama": 1.0}


@pytest.mark.parametrize(
    ("rankings", "reason"),
    [
        ([], "no ranking"),
        ([{"a": 1, "b": 1}], r"ranking 0: ranks are 1 to 2, each once"),
        ([{"a": 0, "b": 1}], r"ranking 0: ranks are 1 to 2"),
        ([{"a": 1, "b": 2}, {"a": 1, "c": 2}], r"ranking 1 is of \['a', 'c'\], ranking 0 of \['a', 'b'\]"),
    ],
)
def test_rankings_that_are_none_are_refused(rankings: list[dict[str, int]], reason: str):
    with pytest.raises(ValueError, match=reason):
        rank_scores(rankings)


@pytest.mark.shared_data
def test_a_published_judge_in_both_orders(shared_data: pathlib.Path):
    """GPT-4 on Vicuna's questions: counted here from the two differences of each pair of scores."""
    with gzip.open(shared_data / "cherry_llm_reviews" / "vicuna_wrap_reviews_gpt4.json.gz", "rt") as file:
        published = json.load(file)
    rows = [[json.loads(row[name]) for name in ("scores", "scores_reverse")] for row in published["data"]]
    sides = [[Review(str(n), (a, b)) for n, (a, b) in enumerate(side)] for side in zip(*rows, strict=True)]
    for side, name in zip(sides, ("average_scores", "average_scores_reverse"), strict=True):
        means = [sum(review.scores[place] for review in side) / 80 for place in (0, 1)]
        assert means == pytest.approx(json.loads(published["Meta_Info"][name]))
    found = win_lose_tie(compared_of_reviews(*sides)[0].values())
    differences = [(a - b, d - c) for (a, b), (c, d) in rows]
    assert found.win == sum(one > 0 and other > 0 for one, other in differences)
    assert found.lose == sum(one < 0 and other < 0 for one, other in differences)
    assert (found.judged, found.unjudged) == (80, 0)


@pytest.mark.shared_data
def test_published_reviews_prefer_vicuna_to_alpaca(shared_data: pathlib.Path):
    file = (
        shared_data
        / "vicuna_qa"
        / "review"
        / "vicuna-13b_20230322-clean-lang"
        / "review_alpaca-13b_vicuna-13b.jsonl.gz"
    )
    reviews = read_vicuna_reviews(file)
    found = win_lose_tie(Compared(review.verdict, review.verdict) for review in reviews)
    assert (found.win, found.lose, found.tie) == (2, 57, 1)
