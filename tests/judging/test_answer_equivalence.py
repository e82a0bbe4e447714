"""Answers of every kind are compared by what they mean; what cannot be settled is said to be undecided."""

from __future__ import annotations

import gzip
import itertools
import json
import random

import hypothesis
import pytest
from hypothesis import strategies as st

from benchmarks.bench_answers import respelled
from jaxrefine.judging.answer_keys import MAX_LENGTH, canonical
from jaxrefine.judging.answers import cluster, equivalent
from jaxrefine.judging.equivalence import partition

EQUAL = [
    # integers, decimals, fractions, mixed numbers
    ("36", "036"),
    ("7.0", "7"),
    ("-0", "0"),
    ("−3", "-3"),
    ("１２", "12"),
    ("1/2", "0.5"),
    ("25/100", "1/4"),
    (r"\frac12", "0.50"),
    (r"\dfrac{1}{2}", r"\tfrac12"),
    ("2 1/2", "2.5"),
    (r"2\frac12", r"\frac52"),
    ("-2 1/2", "-2.5"),
    ("2½", "2.5"),
    (r"0.\overline{3}", "1/3"),
    (r"0.1\overline{6}", "1/6"),
    # thousands, scientific notation, currency, percent
    ("1,234,567", "1234567"),
    (r"14{,}641", r"14,\!641"),
    ("1 234 567", "1234567"),
    ("1.5e3", "1500"),
    (r"1.5\times10^3", "1500"),
    ("3.0 × 10⁸", "300000000"),
    ("3x10^2", "300"),
    ("10⁻³", "0.001"),
    ("$1,234.50", "1234.5"),
    (r"\$5", "5 dollars"),
    ("-$5", "-5"),
    ("10%", "10"),
    ("50 percent", r"50\%"),
    # units
    ("5 cm", "5 centimeters"),
    ("5 cm", "5"),
    (r"12 \text{ cm}^2", "12 square cm"),
    (r"\frac{3}{4}\text{ cups}", "0.75"),
    (r"1\frac{1}{2}\text{ hours}", "1.5 hours"),
    ("36 apples.", "36"),
    # degrees
    (r"90^\circ", "90"),
    ("90°", "90 degrees"),
    # numbers that are worked out
    (r"\sqrt{8}", r"2\sqrt2"),
    (r"\frac{1}{\sqrt2}", r"\frac{\sqrt2}{2}"),
    (r"\sqrt[3]{-27}", "-3"),
    ("sqrt(3)/2", r"\frac{\sqrt{3}}{2}"),
    (r"(\sqrt{3})^2", "3"),
    (r"\sqrt{5+2\sqrt6}", r"\sqrt2+\sqrt3"),
    ("2pi", r"2\pi"),
    (r"2^{10}", "1024"),
    (r"2^{2008}-2", r"2(2^{2007}-1)"),
    ("5!", "120"),
    (r"\binom{5}{2}", "10"),
    (r"\log_2 8", "3"),
    (r"\ln(e^2)", "2"),
    (r"\sin 30^\circ", "1/2"),
    (r"\lfloor 2.7 \rfloor", "2"),
    ("|-3|", "3"),
    ("i^2", "-1"),
    ("3+4i", "4i+3"),
    (r"e^{i\pi}", "-1"),
    (r"\frac34i", r"\frac{3i}{4}"),
    # polynomials and expressions
    ("x^2-1", "(x-1)(x+1)"),
    ("x**2 + 2*x + 1", "(1+x)^2"),
    ("2x+3", "3+2x"),
    (r"\frac{x}{2}", "0.5x"),
    ("x^{1/2}", r"\sqrt{x}"),
    (r"\frac{x^2-1}{x-1}", "x+1"),
    (r"\sin 2x", r"2\sin x\cos x"),
    (r"\sin^2 x + \cos^2 x", "1"),
    ("x_1 + x_2", "x_2+x_1"),
    (r"\alpha\beta", r"\beta\alpha"),
    (r"\frac{bx}{h}(h-x)", r"bx - \frac{bx^2}{h}"),
    # equations
    ("x = 5", "5"),
    ("2x = 10", "x = 5"),
    ("x = 5", "5 cm"),
    ("y=2x+3", "2x-y+3=0"),
    ("y=2x+3", "2x+3"),
    ("x^2+y^2=1", "1 = y^2+x^2"),
    ("f(x)=x^2", "x^2"),
    ("Area = 12", "12"),
    ("3+4=7", "7"),
    # intervals and inequalities
    (r"\left[0,\,1\right)", "[0, 1)"),
    ("x>=2", r"[2,\infty)"),
    (r"x \geq 2", "x≥2"),
    ("-x < -2", "x > 2"),
    ("1<x≤3", "(1,3]"),
    (r"x \in [1,2]", "[1,2]"),
    (r"(-\infty,1)\cup(2,\infty)", "x<1 or x>2"),
    ("x ≠ 3", r"(3,\infty)\cup(-\infty,3)"),
    (r"\{x \mid x > 2\}", "x>2"),
    (r"\{x \in \mathbb{R} : -1 \le x < 4\}", "[-1, 4)"),
    ("all real numbers", r"(-\infty,\infty)"),
    # sets, lists, tuples, matrices
    (r"\{1,2,3\}", "3, 2, 1"),
    ("{1,2}", r"\left\{2, 1\right\}"),
    ("1 and 2", "2, 1"),
    (r"\pm 3", "3, -3"),
    (r"3\pm\sqrt2", r"3-\sqrt2, 3+\sqrt2"),
    ("x=1 or x=2", "{1,2}"),
    ("x = 1, y = 2", "y = 2, x = 1"),
    (r"\emptyset", "no solution"),
    ("(1, 2)", "( 1.0 , 4/2 )"),
    (r"(3, \pi/2)", r"\left(3, \frac{\pi}{2}\right)"),
    (r"\{(1,2),(3,4)\}", "(3,4), (1,2)"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{bmatrix} 1 \\ \frac{4}{2} \end{bmatrix}"),
    # words, yes and no, choices
    ("Paris", r"\text{ paris}"),
    ("the cat", "cat"),
    ("five", "5"),
    ("twenty-one", "21"),
    ("Yes", "yes."),
    ("true", "yes"),
    ("(A)", "A"),
    (r"\textbf{(B)}", "B."),
    ("(C) 12", "C"),
    ("12:30 p.m.", "12:30 PM"),
    ("2:3", "2 : 3"),
    # other bases
    ("10111_2", "10111"),
    # dress
    (r"$\displaystyle \boxed{\dfrac{3}{4}}.$", "3/4"),
    (r"\[ x = 5 \]", "5"),
    ("**12**", "12"),
]

DIFFERENT = [
    ("12", "13"),
    ("-5", "5"),
    ("1,2", "1.2"),
    ("1/3", "0.34"),
    ("5 cm", "5 meters"),
    ("€5", "$5"),
    ("x = 5", "y = 5"),
    ("f(x) = x^2", "y=x^2"),
    ("x^2", "x^3"),
    ("x", "y"),
    ("x>2", "x<2"),
    ("x>2", r"x \ge 2"),
    ("[0,1]", "(0,1)"),
    ("(1,2)", "(2,1)"),
    ("{1,2}", "{1,3}"),
    ("1, 2", "1, 2, 3"),
    (r"\begin{pmatrix}1&2\\3&4\end{pmatrix}", r"\begin{pmatrix}1&3\\2&4\end{pmatrix}"),
    ("5x - 7y + 11z + 4 = 0", "x + y - z + 2 = 0"),
    ("Yes", "No"),
    ("A", "B"),
    ("Paris", "London"),
    ("Paris", "3"),
    (r"\sqrt2", r"\sqrt3"),
    ("10^{40}+1", "10^{40}"),
    ("2^{100}", "2^{100}+1"),
    ("90 degrees", "45 degrees"),
]

UNDECIDED = [
    ("50%", "0.5"),
    ("1 hour", "60 minutes"),
    (r"\frac{\pi}{2}", r"90^\circ"),
    (r"\pi", "3.14"),
    ("2/3", "0.666"),
    ("2/3", "0.667"),
    ("{1,2}", "(1,2)"),
    ("1011_2", "11"),
    ("2:3", "4:6"),
    ("2:3", "2/3"),
    (r"\sqrt{x^2}", "x"),
    ("B", "b"),
    ("5 m", "5"),
    ("1/0", "2"),
]


@pytest.mark.parametrize(("a", "b"), EQUAL)
def test_spellings_of_one_answer_are_equal_without_any_help(a: str, b: str):
    assert equivalent(a, b, grader=None) == "equal"
    assert equivalent(b, a, grader=None) == "equal"
    assert cluster([a, b], grader=None) == [0, 0]


@pytest.mark.parametrize(("a", "b"), DIFFERENT)
def test_other_answers_are_different(a: str, b: str):
    assert equivalent(a, b, grader=None) == "different"
    assert equivalent(b, a, grader=None) == "different"
    assert cluster([a, b], grader=None) == [0, 1]


@pytest.mark.parametrize(("a", "b"), UNDECIDED)
def test_what_may_or_may_not_be_meant_is_undecided(a: str, b: str):
    assert equivalent(a, b, grader=None) == "undecided"
    assert equivalent(b, a, grader=None) == "undecided"


@pytest.mark.parametrize(("a", "b"), [("", "5"), (None, "5"), ("5", "  \n"), (None, None), ("$$", "5")])
def test_a_side_without_an_answer_is_no_answer(a: str | None, b: str | None):
    assert equivalent(a, b, grader=None) == "no answer"


def test_numbers_of_python_are_answers_too():
    assert equivalent(1000, "1,000", grader=None) == "equal"
    assert equivalent(1e-7, r"10^{-7}", grader=None) == "equal"


def test_a_percent_sign_can_be_read_as_a_hundredth():
    assert equivalent("50%", "1/2", percent="value", grader=None) == "equal"
    assert equivalent("50%", "50", percent="value", grader=None) == "undecided"


def test_a_text_too_long_to_be_read_equals_itself_and_is_undecided_else():
    long = "x + " * MAX_LENGTH
    assert equivalent(long, " " + long, grader=None) == "equal"
    assert equivalent(long, "5", grader=None) == "undecided"


def test_clusters_are_numbered_by_first_occurrence_and_no_answer_has_none():
    assert cluster(["2", "1/2", None, "0.5", "", r"\frac{4}{2}", "3"], grader=None) == [0, 1, None, 1, None, 0, 2]


def test_units_that_disagree_split_a_cluster_and_units_that_do_not_join_it():
    assert cluster(["5 cm", "5", "x = 5"], grader=None) == [0, 0, 0]
    assert cluster(["5 cm", "5 meters", "5", "5 centimeters"], grader=None) == [0, 1, 2, 0]


def test_an_equation_joins_its_forms_through_its_right_hand_side():
    assert cluster(["2x+3", "2x-y+3=0", "y=2x+3", "3"], grader=None) == [0, 0, 0, 1]


MIXED = [text for pair in EQUAL + DIFFERENT + UNDECIDED for text in pair]


def _sets(texts: list[str]) -> set[frozenset[str]]:
    groups: dict[int | None, set[str]] = {}
    for text, number in zip(texts, cluster(texts, grader=None), strict=True):
        groups.setdefault(number, set()).add(text)
    return {frozenset(group) for group in groups.values()}


@hypothesis.given(st.lists(st.sampled_from(MIXED), min_size=2, max_size=8, unique=True), st.randoms())
def test_clusters_do_not_depend_on_the_order_of_the_answers(texts: list[str], shuffler: random.Random):
    shuffled = list(texts)
    shuffler.shuffle(shuffled)
    assert _sets(shuffled) == _sets(texts)


def test_outcomes_are_symmetric_and_every_answer_equals_itself():
    outcome = {pair: equivalent(*pair, grader=None) for pair in itertools.product(MIXED[::3], repeat=2)}
    assert all(outcome[b, a] == result for (a, b), result in outcome.items())
    assert all(outcome[text, text] == "equal" for text in MIXED[::3])


def test_an_answer_that_was_not_understood_joins_the_one_cluster_it_equals():
    texts = [r"\int_0^1 2x\,dx", "1", "2", r"\int_0^1 4x\,dx", "x"]
    asked = []

    def ask(a: str, b: str) -> str:
        asked.append((a, b))
        return "equal" if {a, b} in ({texts[0], "1"}, {texts[3], "2"}, {texts[3], "x"}) else "different"

    for order in itertools.permutations(range(5)):
        numbers = partition([texts[i] for i in order], [canonical(texts[i]) for i in order], ask)
        groups = {frozenset(texts[i] for i, n in zip(order, numbers, strict=True) if n == m) for m in set(numbers)}
        assert groups == {frozenset({texts[0], "1"}), frozenset({"2"}), frozenset({texts[3]}), frozenset({"x"})}
    assert all({a, b} & {texts[0], texts[3]} for a, b in asked)


def test_one_pattern_of_an_expression_is_evaluated_exactly():
    assert canonical("0.1 + 0.2").key == canonical("0.3").key == "n:3/10"
    assert canonical(r"\frac{36}{72}").key == "n:1/2"


@pytest.mark.shared_data
def test_every_answer_of_math_equals_itself_in_another_dress(shared_data):
    with gzip.open(shared_data / "math" / "train_final_answers.jsonl.gz", "rt") as file:
        known = [answer for line in file if (answer := json.loads(line)["final_answer"].strip())][::10]
    assert len(known) > 700
    assert [text for text in known if equivalent(text, text, grader=None) != "equal"] == []
    assert [text for text in known if equivalent(text, respelled(text), grader=None) != "equal"] == []
