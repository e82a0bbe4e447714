"""Diversity: ROUGE-L by hand and as rouge-score has it, and which draw of a candidate is kept."""

from __future__ import annotations

import random

import pytest

from jaxrefine.sampling.diversity import Diversity, choose_diverse, rouge_l, similarity, without_duplicates

TUNA = Diversity(threshold=0.8)


@pytest.mark.parametrize(
    ("first", "second", "expected"),
    [
        ("police killed the gunman", "police kill the gunman", 3 / 4),  # Lin 2004, §3.1: S1, S2
        ("police killed the gunman", "the gunman kill police", 2 / 4),  # S1, S3
        ("a b c d e", "b d", 2 * 2 / 7),
        ("He's 3,000 years-old!", "he s 3 000 years old", 1.0),
        ("", "something", 0.0),
        ("...", "!!!", 0.0),
        ("a b a b", "b a", 2 * 2 / 6),
    ],
)
def test_rouge_l_by_hand(first: str, second: str, expected: float):
    assert rouge_l(first, second) == pytest.approx(expected, rel=1e-12)
    assert rouge_l(second, first) == pytest.approx(expected, rel=1e-12)


def test_texts_without_latin_letters_are_compared_by_their_characters():
    assert rouge_l("六乘七", "六 乘 七") == 1.0
    assert rouge_l("六乘七", "六加七") == pytest.approx(2 / 3)


def quadratic(a: list[str], b: list[str]) -> int:
    """The table of the textbook."""
    table = [[0] * (len(b) + 1) for _ in range(len(a) + 1)]
    for i, x in enumerate(a, 1):
        for j, y in enumerate(b, 1):
            table[i][j] = table[i - 1][j - 1] + 1 if x == y else max(table[i - 1][j], table[i][j - 1])
    return table[-1][-1]


def made_texts(number: int, words: int) -> list[str]:
    choose = random.Random(5)
    return [" ".join(choose.choices("abcdefgh", k=choose.randint(1, words))) for _ in range(number)]


def test_the_common_subsequence_is_that_of_the_textbook():
    texts = made_texts(60, 90)
    for first, second in zip(texts[::2], texts[1::2], strict=True):
        a, b = first.split(), second.split()
        assert rouge_l(first, second) == pytest.approx(2 * quadratic(a, b) / (len(a) + len(b)), rel=1e-12)


@pytest.mark.slow
def test_rouge_l_is_that_of_rouge_score():
    scorer = pytest.importorskip("rouge_score.rouge_scorer").RougeScorer(["rougeL"], use_stemmer=False)
    texts = [*made_texts(30, 40), "", "It's 4.5% - naïve; İstanbul_2", "its 4 5 na ve i stanbul 2", "#### 36", "36"]
    for first in texts:
        for second in texts:
            assert rouge_l(first, second) == pytest.approx(scorer.score(first, second)["rougeL"].fmeasure, abs=1e-12)


def test_candidates_that_differ_enough_are_all_kept():
    assert choose_diverse([["a b c"], ["d e f"], ["a b x"]], TUNA).kept == (0, 0, 0)


def test_the_threshold_itself_is_too_similar():
    draws = [["a b c d e"], ["a b c d x"]]  # 2 · 4 / 10
    assert choose_diverse(draws, TUNA).again == (1,)
    assert choose_diverse(draws, Diversity(threshold=0.81)).again == ()


def test_only_the_later_of_two_equals_is_drawn_again_and_meets_all_that_were_accepted():
    draws = [["a b c"], ["a b c"], ["d e f"]]
    assert choose_diverse(draws, TUNA).again == (1,)
    assert choose_diverse([draws[0], ["a b c", "d e f"], draws[2]], TUNA).again == (1,)
    assert choose_diverse([draws[0], ["a b c", "d e f", "g h"], draws[2]], TUNA).kept == (0, 2, 0)


def test_two_that_are_drawn_again_in_one_round_must_differ_from_one_another():
    draws = [["a"], ["a", "b"], ["a", "b"]]
    assert choose_diverse(draws, TUNA).kept == (0, 1, None)


def test_after_three_tries_the_least_similar_of_all_draws_is_kept():
    # with "a b c d e f": 1, 2·5/11 = 0.909, 2·6/13 = 0.923, 2·5/11 again
    tries = ["a b c d e f", "a b c d e", "a b c d e f g", "b c d e f"]
    assert choose_diverse([["a b c d e f"], tries[:3]], TUNA).again == (1,)
    assert choose_diverse([["a b c d e f"], tries], TUNA).kept == (0, 1)


def test_without_a_threshold_every_first_draw_is_kept():
    assert choose_diverse([["a"], ["a"]], Diversity()).kept == (0, 0)


def test_without_tries_the_first_draw_is_kept():
    assert choose_diverse([["a"], ["a"]], Diversity(threshold=0.5, tries=0)).kept == (0, 0)


@pytest.mark.parametrize(
    ("draws", "message"),
    [
        ([["a"], []], "candidate 1 has no draw"),
        ([["a"], ["a", "b"], ["a"]], r"candidates \[2\] lack draw 1, which 2 candidates need"),
    ],
)
def test_draws_that_are_missing_are_named(draws: list[list[str]], message: str):
    with pytest.raises(ValueError, match=message):
        choose_diverse(draws, TUNA)


@pytest.mark.parametrize("options", [{"threshold": 0.0}, {"threshold": 1.1}, {"tries": -1}, {"temperature_step": -0.1}])
def test_a_rule_that_cannot_be_is_refused(options: dict):
    with pytest.raises(ValueError, match=next(iter(options))):
        Diversity(**options)


def test_similarity_is_that_with_the_nearest():
    assert similarity("a b c d", ["x", "a b", "a b c"]) == pytest.approx(6 / 7)
    assert similarity("a", []) == 0.0


def test_of_equal_texts_the_first_is_left():
    assert without_duplicates(["x", " x", "y", "x\n", "X"]) == (0, 2, 4)
