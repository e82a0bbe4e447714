"""Sources of solutions: each reads its own format, and no problem is on two sides of the division."""

from __future__ import annotations

import json
import pathlib

import pytest

from jaxrefine.data.arithmetic import generate
from jaxrefine.data.arithmetic.styles import in_style
from jaxrefine.data.examples import Instruction
from jaxrefine.data.readers import read_instructions, write_instructions
from jaxrefine.data.solution_sources import SolutionSource, divide, few_shot, first_solution

WORLD = SolutionSource(name="world", num=6)


def solved(prompt: str, response: str, id: str = "1") -> Instruction:
    return Instruction(id, prompt, response, response)


def test_styles_say_the_same_calculations_with_more_or_fewer_words():
    for problem in generate("train", 30):
        lines = problem.solution.splitlines()
        assert in_style(problem, "lines") == problem.solution
        calculations = [line.split(": ")[-1].rstrip(".") for line in lines[:-1]]
        assert in_style(problem, "terse").splitlines() == [*calculations, lines[-1]]
        detailed = in_style(problem, "detailed").splitlines()
        assert detailed[-1] == lines[-1]
        for said, line, (question, result) in zip(detailed, lines, problem.sub_questions, strict=False):
            assert said == f"{question} {line}"
            assert said.endswith(f"={result}.")


def test_the_worlds_sources_share_their_problems():
    terse, lines = (SolutionSource(name=style, num=6, style=style).read() for style in ("terse", "lines"))
    assert [one.prompt for one in terse] == [one.prompt for one in lines]
    assert all(one.response != other.response for one, other in zip(terse, lines, strict=True))


def test_files_are_read_one_after_the_other_and_cut_to_the_first(tmp_path: pathlib.Path):
    paths = []
    for name, number in (("a", 2), ("b", 3)):
        records = [{"question": f"{name}{n}?", "answer": f"so\n#### {n}"} for n in range(number)]
        paths.append(str(tmp_path / f"{name}.jsonl"))
        pathlib.Path(paths[-1]).write_text("".join(json.dumps(record) + "\n" for record in records))
    source = SolutionSource(name="gsm8k", kind="gsm8k", paths=tuple(paths), num=4)
    assert [(one.id, one.prompt, one.answer) for one in source.read()] == [
        ("a-1", "a0?\n", "0"), ("a-2", "a1?\n", "1"), ("b-1", "b0?\n", "0"), ("b-2", "b1?\n", "1"),
    ]  # fmt: skip
    assert source.absent() == []
    assert SolutionSource(name="x", kind="gsm8k", paths=("absent.jsonl", paths[0])).absent() == ["absent.jsonl"]
    assert SolutionSource(name="x", kind="gsm8k").absent() == ["paths of 'x'"]


def test_solutions_of_ones_own_keep_their_prompts(tmp_path: pathlib.Path):
    given = [Instruction("1", "Q: 2+3?\nA:", "5", "5", {"from": "me"}), Instruction("2", "Q: why?\nA:", "so")]
    write_instructions(tmp_path / "own.jsonl", given)
    assert read_instructions(tmp_path / "own.jsonl") == given
    read = SolutionSource(name="own", kind="jsonl", paths=(str(tmp_path / "own.jsonl"),)).read()
    assert read == given[:1]  # the other has no known answer
    with pytest.raises(ValueError, match="id '1' occurs twice"):
        write_instructions(tmp_path / "own.jsonl", [given[0], given[0]])


def test_a_problem_is_on_one_side_whatever_source_solves_it():
    human = [solved(f"{n} + 1?\n", f"{n + 1}", f"h{n}") for n in range(8)]
    other = [solved(f"{n}+1?", f"it is {n + 1}", f"o{n}") for n in range(4, 12)]
    found = divide({"human": human, "other": other}, [solved("11 +1?", "12")], num_validation=5)
    sides = {
        name: {"".join(one.prompt.split()) for one in side}
        for name, side in (("validation", found.validation), ("test", found.test), ("train", found.problems))
    }
    assert sides["test"] == {"11+1?"}
    assert len(sides["validation"]) == 5
    assert sides["train"] == {f"{n}+1?" for n in range(11)} - sides["validation"]
    for name, solutions in found.train.items():
        assert {"".join(one.prompt.split()) for one in solutions} <= sides["train"], name
        assert len(solutions) + found.left_out[name] == 8
    assert sum(found.left_out.values()) == 1 + sum(
        (int(prompt.split("+")[0]) < 8) + (int(prompt.split("+")[0]) >= 4) for prompt in sides["validation"]
    )
    assert len({one.id for one in (*found.problems, *found.validation, *found.test)}) == 12


def test_which_problems_are_set_aside_depends_on_them_alone():
    made = [solved(f"{n}+1?", str(n), str(n)) for n in range(20)]
    one = divide({"a": made}, [], num_validation=4)
    turned = divide({"a": made[::-1]}, [], num_validation=4)
    assert {problem.prompt for problem in one.validation} == {problem.prompt for problem in turned.validation}
    other = divide({"a": made}, [], num_validation=4, seed=1)
    assert {problem.prompt for problem in one.validation} != {problem.prompt for problem in other.validation}


def test_what_cannot_be_divided_is_said():
    made = {"a": [solved("1+1?", "2")], "b": [solved("1+2?", "3")]}
    with pytest.raises(ValueError, match="num_validation = 3 of 2 problems that are not tested"):
        divide(made, [], num_validation=3)
    with pytest.raises(ValueError, match="source 'b': all of its 1 problems are validation or test problems"):
        divide(made, [solved("1+2?", "3")])


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"name": "a/b", "num": 1}, "a name is a word of its own"),
        ({"name": "a"}, "needs num, how many problems"),
        ({"name": "a", "num": 1, "paths": ("x",)}, "has no paths"),
        ({"name": "a", "num": 0}, "num = 0 must be at least 1"),
        ({"name": "a", "num": 1, "split": "dev"}, "unknown split 'dev'"),
    ],
)
def test_a_mistake_in_a_source_is_said(options, reason):
    with pytest.raises(ValueError, match=reason):
        SolutionSource(**options)


def test_shots_stand_before_a_problem_and_what_is_invented_after_a_solution_is_cut():
    shots = WORLD.read()[:2]
    text = few_shot(shots, "Why?\n")
    assert text.endswith("Why?\n")
    first, second, _ = text.split("\n\n---\n\n")
    assert first == shots[0].prompt + shots[0].response
    assert second == shots[1].prompt + shots[1].response
    assert first_solution("so\n\n#### 5\n\n---\n\nWhy?\n#### 6") == "so\n\n#### 5"
    assert first_solution("so\n\n#### 5") is None


@pytest.mark.shared_data
def test_math_is_divided_as_published(shared_data: pathlib.Path):
    """12,500 problems, of which 500 are tested: 12,000 are left, of which 1,000 are set aside."""
    math = SolutionSource(
        name="math", kind="math", paths=tuple(str(shared_data / f"math/{part}.jsonl.gz") for part in ("train", "test"))
    )
    test = SolutionSource(
        name="test", kind="prm800k problems", paths=(str(shared_data / "prm800k/math_splits/test.jsonl.gz"),)
    )
    solutions = math.read()
    found = divide({"math": solutions}, test.read(), num_validation=1000)
    without_answer = 12_500 - len(solutions)  # two problems of MATH have an empty box
    assert without_answer == 2
    assert (len(found.test), len(found.validation)) == (500, 1000)
    assert len(found.train["math"]) == 11_000 - without_answer
