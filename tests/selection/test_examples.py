"""Examples of an evaluator are chosen by a named rule, the same ones whatever else is there."""

from __future__ import annotations

import collections

import pytest

from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.selection.examples import RULES, ExampleChoice, balanced, beside_solutions


def problem(num_right: int, num_wrong: int, id: str = "1") -> Candidates:
    texts = tuple(f"right {n}" for n in range(num_right)) + tuple(f"wrong {n}" for n in range(num_wrong))
    return Candidates(id, "2+3?", texts, (1.0,) * num_right + (0.0,) * num_wrong, "5")


def counts(chosen: Candidates) -> tuple[int, int]:
    return sum(label == 1.0 for label in chosen.labels), sum(label == 0.0 for label in chosen.labels)


@pytest.mark.parametrize(
    ("num_right", "num_wrong", "num", "expected"),
    [(20, 20, 10, (5, 5)), (20, 2, 10, (2, 2)), (1, 30, 10, (1, 1)), (9, 0, 10, (0, 0)), (4, 4, 5, (2, 2))],
)
def test_a_balanced_choice_has_as_many_right_as_wrong(num_right, num_wrong, num, expected):
    assert counts(ExampleChoice(num=num).chosen(problem(num_right, num_wrong))) == expected


def test_a_balanced_choice_takes_the_first_of_each_kind_in_the_drawn_order():
    assert balanced([False, True, True, False, False, True], 4) == [0, 1, 2, 3]
    assert balanced([True, True, True, False], 10) == [0, 3]


def test_the_other_rules_do_not_balance():
    assert counts(ExampleChoice(num=2, rule="all").chosen(problem(7, 1))) == (7, 1)
    assert counts(ExampleChoice(num=8, rule="random").chosen(problem(7, 1))) == (7, 1)
    assert sum(counts(ExampleChoice(num=3, rule="random").chosen(problem(7, 9)))) == 3


@pytest.mark.parametrize("rule", RULES)
def test_an_example_is_never_there_twice_and_keeps_its_label(rule):
    repeated = Candidates("1", "2+3?", ("a", "b", "a", "c", "b"), (1.0, 0.0, 1.0, 0.0, 0.0), finished=(True,) * 5)
    chosen = ExampleChoice(rule=rule).chosen(repeated)
    assert max(collections.Counter(chosen.responses).values()) == 1
    known = dict(zip(repeated.responses, repeated.labels, strict=True))
    assert all(known[text] == label for text, label in zip(chosen.responses, chosen.labels, strict=True))


def test_the_choice_depends_on_seed_and_problem_and_not_on_the_order_of_the_samples():
    given = problem(12, 12)
    chosen = set(ExampleChoice(num=4).chosen(given).responses)
    turned = Candidates("1", given.prompt, given.responses[::-1], given.labels[::-1], "5")
    assert set(ExampleChoice(num=4).chosen(turned).responses) == chosen
    others = [ExampleChoice(num=4, seed=seed).chosen(given).responses for seed in range(8)]
    assert len(set(others)) > 1
    assert len({ExampleChoice(num=4).chosen(problem(12, 12, str(n))).responses for n in range(8)}) > 1


def test_every_example_has_the_same_chance():
    """2 of 4 right ones for 400 problems: each is drawn 200 times, five standard deviations are 50."""
    drawn = collections.Counter(
        text for n in range(400) for text in ExampleChoice(num=4).chosen(problem(4, 4, str(n))).responses
    )
    assert all(150 <= drawn[f"{kind} {n}"] <= 250 for kind in ("right", "wrong") for n in range(4))


def test_a_solution_cut_by_length_stays_cut():
    cut = Candidates("1", "2+3?", ("a", "b"), (1.0, 0.0), finished=(True, False))
    chosen = ExampleChoice().chosen(cut)
    assert dict(zip(chosen.responses, chosen.finished, strict=True)) == {"a": True, "b": False}


def test_solutions_stand_beside_the_samples_of_their_problem():
    solved = [
        Instruction("1", "1+1?\n", "two", "2"), Instruction("2", "1+1?\n", "#### 2", "2"),
        Instruction("3", "2+2?\n", "four", "4"),
    ]  # fmt: skip
    sampled = [
        Candidates("a:1", "1 + 1?", ("x", "y"), (1.0, 0.0), "2"),
        Candidates("a:9", "9+9?", ("z",), (0.0,), "18"),
    ]
    first, second = beside_solutions(sampled, solved)
    assert (first.id, first.responses, first.labels) == ("a:1", ("x", "y"), (1.0, 0.0))
    assert first.meta["original"] in ("two", "#### 2")
    assert (second.prompt, second.responses, second.meta["original"]) == ("2+2?\n", (), "four")
    drawn = {beside_solutions(sampled, solved, seed=seed)[0].meta["original"] for seed in range(16)}
    assert drawn == {"two", "#### 2"}


def test_a_pair_cannot_be_chosen_of_one_example():
    with pytest.raises(ValueError, match="at least 2 are wanted, one right and one wrong"):
        ExampleChoice(num=1)
