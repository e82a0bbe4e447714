"""The arithmetic world: right by independent calculation, split without overlap, the same everywhere."""

from __future__ import annotations

import collections
import hashlib
import os
import pathlib
import re
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import jaxrefine
from jaxrefine.data.arithmetic import SPLITS, ArithmeticConfig, Problem, generate, problem
from jaxrefine.data.arithmetic.templates import ENDINGS, FINAL_QUESTIONS, OPENINGS, STEPS
from jaxrefine.data.arithmetic.words import PEOPLE

TEMPLATES = (*OPENINGS, *STEPS, *ENDINGS)
LINE = re.compile(r"[A-Z][A-Za-z ]*: (\d+)([-+*/])(\d+)=(\d+)\.")
EASIEST = ArithmeticConfig(min_steps=1, max_steps=1, max_start=12, max_addend=4, max_factor=3, max_value=24)
HARDEST = ArithmeticConfig(
    min_steps=6, max_steps=8, max_start=300, max_addend=200, max_factor=30, max_value=999, idle_rate=1.0
)
FIXED = ArithmeticConfig(
    min_steps=2, max_steps=4, max_start=40, max_addend=20, max_factor=6, max_value=200, ending_rate=0.5, idle_rate=0.1
)


def parsed(example: Problem) -> list[tuple[int, str, int, int]]:
    """The calculations of a solution, read from its text alone."""
    calculations = []
    for line in example.solution.split("\n")[:-1]:
        match = LINE.fullmatch(line)
        assert match is not None, line
        calculations.append((int(match[1]), match[2], int(match[3]), int(match[4])))
    return calculations


def skeleton(example: Problem) -> tuple[object, ...]:
    """Templates and numbers, without names and things."""
    return (*example.tags.templates, *re.findall(r"\d+", " ".join(example.facts)))


@st.composite
def configs(draw: st.DrawFn) -> ArithmeticConfig:
    least = draw(st.integers(1, 6))
    return ArithmeticConfig(
        min_steps=least,
        max_steps=draw(st.integers(least, min(8, least + 3))),
        max_start=draw(st.integers(12, 200)),
        max_addend=draw(st.integers(4, 100)),
        max_factor=draw(st.integers(3, 20)),
        max_value=draw(st.integers(60, 999)),
        ending_rate=draw(st.floats(0, 1)),
        idle_rate=draw(st.floats(0, 1)),
    )


arguments = st.tuples(
    st.sampled_from(list(SPLITS)), st.integers(0, 10**9), st.integers(0, 2**64), st.none() | configs()
)


@given(arguments)
@settings(deadline=None)
def test_every_calculation_is_right(arguments: tuple[Any, ...]) -> None:
    example = problem(*arguments)
    for left, operation, right, result in parsed(example):
        if operation == "/":
            assert left == right * result
        else:
            assert {"+": left + right, "-": left - right, "*": left * right}[operation] == result


@given(arguments)
@settings(deadline=None)
def test_the_answer_is_the_last_result(arguments: tuple[Any, ...]) -> None:
    example = problem(*arguments)
    assert example.solution.endswith(f"\n#### {example.answer}")
    assert parsed(example)[-1][3] == example.answer


@given(arguments)
@settings(deadline=None)
def test_sub_questions_and_tags_follow_the_calculations(arguments: tuple[Any, ...]) -> None:
    example = problem(*arguments)
    calculations = parsed(example)
    assert [answer for _, answer in example.sub_questions] == [result for *_, result in calculations]
    names = {"+": "addition", "-": "subtraction", "*": "multiplication", "/": "division"}
    assert list(example.tags.operations) == [names[operation] for _, operation, _, _ in calculations]
    assert example.tags.num_steps == len(calculations)
    assert all(question.endswith("?") and question.count("?") == 1 for question, _ in example.sub_questions)


@given(arguments)
@settings(deadline=None)
def test_the_last_sub_question_is_the_question(arguments: tuple[Any, ...]) -> None:
    example = problem(*arguments)
    assert example.question.endswith(f" {example.sub_questions[-1][0]}")


@given(arguments)
@settings(deadline=None)
def test_every_operand_is_told_or_was_calculated(arguments: tuple[Any, ...]) -> None:
    example = problem(*arguments)
    told = {int(number) for number in re.findall(r"\d+", " ".join(example.facts))}
    if "half" in " ".join(example.facts):
        told.add(2)
    for left, _, right, result in parsed(example):
        assert {left, right} <= told
        told.add(result)


@given(arguments)
@settings(deadline=None)
def test_every_number_of_the_facts_is_used(arguments: tuple[Any, ...]) -> None:
    example = problem(*arguments)
    told = collections.Counter(int(number) for number in re.findall(r"\d+", " ".join(example.facts)))
    used = collections.Counter(operand for left, _, right, _ in parsed(example) for operand in (left, right))
    assert not told - used


@given(arguments)
@settings(deadline=None)
def test_the_facts_stand_in_the_question_in_order(arguments: tuple[Any, ...]) -> None:
    example = problem(*arguments)
    position = 0
    for fact in example.facts:
        position = example.question.index(fact, position) + len(fact)


@given(arguments)
@settings(deadline=None)
def test_the_text_is_well_formed(arguments: tuple[Any, ...]) -> None:
    example = problem(*arguments)
    for text in (example.question, example.solution, *example.facts):
        assert not re.search(r"[{}]|  |\s\Z|\$\s", text)
    assert re.fullmatch(r"(?:[A-Z0-9][A-Za-z0-9$, ]*\. )+[A-Z][A-Za-z ]*\?", example.question)


@given(st.integers(0, 10**6), configs())
@settings(deadline=None)
def test_numbers_and_steps_stay_within_the_config(index: int, config: ArithmeticConfig) -> None:
    calculations = parsed(problem("train", index, 0, config))
    assert config.min_steps <= len(calculations) <= config.max_steps
    assert all(
        2 <= number <= config.max_value for left, _, right, result in calculations for number in (left, right, result)
    )


@pytest.mark.parametrize("config", [EASIEST, HARDEST], ids=["easiest", "hardest"])
def test_extreme_configs_give_problems(config: ArithmeticConfig) -> None:
    found = generate("test", 50, config=config)
    assert len({example.question for example in found}) > 10


def test_splits_share_no_question_nor_its_numbers() -> None:
    found = {split: generate(split, 1200, seed, FIXED) for seed, split in enumerate(SPLITS)}
    for one, other in (("train", "validation"), ("train", "test"), ("validation", "test")):
        assert not {example.question for example in found[one]} & {example.question for example in found[other]}
        assert not {skeleton(example) for example in found[one]} & {skeleton(example) for example in found[other]}


def test_splits_of_the_smallest_world_share_nothing_either() -> None:
    """One-step problems of small numbers: few enough that without the rejection most would occur in both splits."""
    train, test = (generate(split, 1000, 0, EASIEST) for split in ("train", "test"))
    assert len({skeleton(example) for example in train}) < 1000
    assert not {skeleton(example) for example in train} & {skeleton(example) for example in test}


def test_problems_hardly_repeat() -> None:
    found = generate("train", 2000, 0, FIXED)
    assert len({example.question for example in found}) > 1980
    assert len({example.id for example in found}) == 2000


def test_there_are_at_least_forty_templates_and_all_occur() -> None:
    names = [template.name for template in TEMPLATES]
    assert len(names) >= 40
    assert len(set(names)) == len(names)
    seen = collections.Counter(name for example in generate("train", 2500, 0, FIXED) for name in example.tags.templates)
    assert set(seen) == set(names)
    assert max(seen.values()) < 0.1 * sum(seen.values())


def test_templates_that_may_stand_at_the_same_place_differ_in_text_or_question() -> None:
    texts = [(template.takes, template.text, template.calculations[-1:]) for template in TEMPLATES]
    assert len(set(texts)) == len(texts)


def test_every_template_leads_somewhere() -> None:
    for template in (*OPENINGS, *STEPS):
        assert template.gives in FINAL_QUESTIONS
        assert any(step.takes == template.gives for step in STEPS)


def test_a_problem_does_not_depend_on_what_else_is_drawn() -> None:
    assert (
        problem("test", 37, 5, FIXED)
        == generate("test", 60, 5, FIXED)[37]
        == generate("test", 1, 5, FIXED, start=37)[0]
    )


def test_another_seed_gives_other_problems() -> None:
    assert not set(generate("train", 50, 0, FIXED)) & set(generate("train", 50, 1, FIXED))


def test_the_world_is_the_same_on_every_machine() -> None:
    """A change of this digest is a change of the world: shipped models and published numbers belong to the old one."""
    text = "\n".join(f"{p.question}\n{p.solution}" for split in SPLITS for p in generate(split, 100, 7, FIXED))
    assert hashlib.sha256(text.encode()).hexdigest() == DIGEST


def test_another_process_with_another_hash_seed_gives_the_same_problem() -> None:
    root = pathlib.Path(jaxrefine.__file__).parent.parent
    command = "from jaxrefine.data.arithmetic import problem; print(problem('validation', 12, 3).question)"
    environment = {**os.environ, "PYTHONHASHSEED": "1", "PYTHONPATH": str(root)}
    told = subprocess.run([sys.executable, "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert told.stdout.strip() == problem("validation", 12, 3).question


def test_idle_sentences_occur_at_their_rate() -> None:
    for rate, expected in ((0.0, 0), (1.0, 200)):
        config = ArithmeticConfig(idle_rate=rate)
        extra = [
            example.question.count(". ") - sum(fact.count(". ") + 1 for fact in example.facts)
            for example in generate("train", 200, 0, config)
        ]
        assert sum(extra) == expected


def test_a_pronoun_means_one_person() -> None:
    for example in generate("train", 500, 0, FIXED):
        said = set(re.findall(r"[A-Za-z]+", example.question))
        pronouns = collections.Counter(pronoun for name, pronoun in PEOPLE if name in said)
        assert len(pronouns) == 1 or min(pronouns.values()) == 1
        told = {word.lower() for word in said} & {"he", "she"}
        assert all(pronouns[pronoun] == 1 for pronoun in told)


def test_an_instruction_is_question_and_solution() -> None:
    example = problem("test", 0)
    instruction = example.instruction()
    assert instruction.prompt == f"{example.question}\n"
    assert (instruction.response, instruction.answer) == (example.solution, str(example.answer))


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (("trian", 0), "did you mean 'train'"),
        (("train", -1), "index -1"),
        (("train", 0, -2), "seed -2"),
    ],
)
def test_a_wrong_split_index_or_seed_is_refused(arguments: tuple[str, int], reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        problem(*arguments)


@pytest.mark.parametrize(
    "change",
    [{"min_steps": 0}, {"min_steps": 5}, {"max_steps": 9}, {"max_value": 1000}, {"max_factor": 2}, {"idle_rate": 1.5}],
)
def test_an_impossible_difficulty_is_refused(change: dict[str, float]) -> None:
    with pytest.raises(ValueError, match=next(iter(change)).split("_")[-1]):
        ArithmeticConfig(**change)


DIGEST = "6be9912cf3267ce59c9eb37bb73116a1fd3595a76abf2073e7e1f83e40e939e7"
