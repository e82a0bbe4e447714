"""What the roles of an ART run read and learn to write, and what their answers come to."""

from __future__ import annotations

import dataclasses
import json
import pathlib

import pytest

from jaxrefine import config
from jaxrefine.data.arithmetic import problem
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.refinement import parse_asked
from jaxrefine.evaluation.refinement import Answer
from jaxrefine.systems.art_run import asker_examples, truster_examples
from jaxrefine.systems.art_settings import AskerConfig, ProblemsConfig
from jaxrefine.systems.art_texts import Problem, Texts, answers_of, graded, labelled, read_problems

TINY = config.load("art/tiny")
META = {"question": "2+3, doubled?", "sub_questions": ["What is 2+3?", "And doubled?"], "facts": ["2 is even."]}
ONE = Instruction("a", "2+3, doubled?\n", "2+3=5.\n5*2=10.\n#### 10", "10", META)


def texts(*, shots: tuple[Problem, ...] = (), **change: object) -> Texts:
    return Texts(settings=dataclasses.replace(TINY, **change), shots=shots)


def asker(**change: object) -> AskerConfig:
    return dataclasses.replace(TINY.asker, **change)


def test_an_asker_learns_the_sub_questions_and_yes_for_every_wrong_answer() -> None:
    answers = [Candidates("a", "?", ("#### 10", "#### 9", "#### 10"), (1.0, 0.0, 1.0))]
    found = asker_examples([ONE], answers, texts())
    assert [example.response for example in found] == [
        f"What is 2+3?\nAnd doubled?\n{decision}" for decision in ("No", "Yes", "No")
    ]
    assert "2+3, doubled?" in found[1].prompt
    assert "#### 9" in found[1].prompt


def test_the_ablations_write_only_the_decision_or_everything() -> None:
    short = texts(asker=asker(writes="decision"), sub_questions="data")
    assert [short.target(ONE, wrong=wrong) for wrong in (True, False)] == ["Yes", "No"]
    whole = texts(asker=asker(writes="all"))
    assert whole.target(ONE, wrong=True) == "What is 2+3?\nAnd doubled?\nYes\n2+3=5.\n5*2=10.\n#### 10"
    assert whole.target(ONE, wrong=False).endswith("\nNo")
    asked = parse_asked("What is 2+3?\nNo", solves=True)
    assert whole.go_on(ONE, "#### 9", asked).endswith("\nWhat is 2+3?\nYes\n")


def test_both_decisions_are_scored_after_the_same_questions() -> None:
    found = texts().decisions(ONE, "#### 9", "What is 2+3?\nNo")
    assert found.responses == ("What is 2+3?\nYes", "What is 2+3?\nNo")
    assert found.finished == (True, True)
    assert texts(asker=asker(writes="all")).decisions(ONE, "#### 9", "Yes\n2+3").finished == (False, True)
    with pytest.raises(ValueError, match="give sub_questions = 'data'"):
        texts(asker=asker(writes="decision"))
    with pytest.raises(ValueError, match=r"asker.task is None"):
        asker(reads="own", task=None)


def test_a_truster_learns_from_problems_with_right_and_wrong_answers_alone() -> None:
    mixed = Candidates("a", "shots and ?", ("#### 10", "#### 9", "#### 10", "#### 8"), (1.0, 0.0, 1.0, 0.0))
    alike = Candidates("a", "?", ("#### 9", "#### 8"), (0.0, 0.0))
    [found] = truster_examples([ONE, ONE], [mixed, alike], texts())
    assert (found.responses, found.labels) == (("#### 10", "#### 9", "#### 8"), (1.0, 0.0, 0.0))
    assert found.prompt == "2+3, doubled?\n"


def test_a_problem_without_sub_questions_cannot_teach_an_asker() -> None:
    bare = dataclasses.replace(ONE, meta={**META, "sub_questions": []})
    answers = [Candidates("a", "?", ("#### 9",), (0.0,))]
    with pytest.raises(ValueError, match="'a' has no sub-questions to learn from"):
        asker_examples([bare], answers, texts())


def test_decomposition_puts_each_step_after_its_sub_question() -> None:
    found = texts(solver=dataclasses.replace(TINY.solver, writes="sub_questions"))
    assert found.solution(ONE) == "What is 2+3?\n2+3=5.\nAnd doubled?\n5*2=10.\n#### 10"
    uneven = dataclasses.replace(ONE, meta={**META, "sub_questions": ["All at once?"]})
    assert found.solution(uneven) == ONE.response
    assert texts().solution(ONE) == ONE.response


def test_worked_examples_stand_before_a_prompt_and_what_is_invented_after_an_answer_is_cut() -> None:
    found = texts(shots=(ONE,))
    assert found.first(ONE) == f"2+3, doubled?\n{ONE.response}\n\n2+3, doubled?\n"
    assert found.refine(ONE, ["Why?"]).count("2+3=5.") == 1
    assert found.refine(ONE, ["Why?"]).endswith("#### 10\n\nSettle these in turn:\nWhy?\n2+3, doubled?\n")
    sample = Candidates("a", "?", ("5*2=10.\n#### 10\n\n1+1?\n#### 2", "5*2"), (0.0, 0.0), "10", (False, False))
    [cut] = labelled([sample], found)
    assert cut.responses == ("5*2=10.\n#### 10", "5*2")
    assert (cut.labels, cut.finished) == ((1.0, 0.0), (True, False))
    assert answers_of(cut) == (Answer(key="10", right=True), Answer(key=None, right=False))


def test_facts_are_shown_where_they_are_wanted() -> None:
    assert "2 is even." in texts(with_facts=True).refine(ONE, ["Why?"])
    assert "2 is even." not in texts().refine(ONE, ["Why?"])


def test_yes_and_no_are_answers_too() -> None:
    assert graded("#### Yes", "yes") == Answer(key="yes", right=True)
    assert graded("#### 10.0", "10") == Answer(key="10", right=True)
    assert graded("10", "10") == Answer(key=None, right=False)


def test_an_answer_is_read_where_its_style_says() -> None:
    """As a chat model states it, and as a sentence that ends."""
    assert graded("#### yes.", "yes") == Answer(key="yes", right=True)
    assert graded("The answer is no.", "no") == Answer(key=None, right=False)
    assert graded("The answer is no.", "no", "phrase") == Answer(key="no", right=True)
    assert graded(r"So it is \boxed{36}.", "36", "auto") == Answer(key="36", right=True)
    sample = Candidates("a", "2+3?", ("The answer is 10.", "#### 9"), (0.0, 0.0), "10")
    found = labelled([sample], texts(answer_style="auto"))
    assert found[0].labels == (1.0, 0.0)
    assert [one.key for one in answers_of(found[0], "auto")] == ["10", "9"]
    with pytest.raises(ValueError, match="did you mean 'phrase'"):
        texts(answer_style="phrases")


def test_generated_problems_bring_their_sub_questions_and_facts() -> None:
    train, test, learned = read_problems(ProblemsConfig(num_train=3, num_test=2, seed=5))
    assert (len(train), len(test)) == (3, 2)
    assert learned == train
    *_, more = read_problems(ProblemsConfig(num_train=3, num_solver=2, num_test=1, seed=5))
    assert [one.id for one in more] == [problem("train", n, 5).id for n in (3, 4)]
    made = problem("test", 1, 5)
    assert test[1].meta["sub_questions"] == [ask for ask, _ in made.sub_questions]
    assert test[1].meta["facts"] == list(made.facts)
    assert test[1].meta["question"] == made.question


def test_files_are_read_in_their_formats(tmp_path: pathlib.Path) -> None:
    socratic = tmp_path / "socratic.jsonl"
    socratic.write_text(json.dumps({"question": "2+3?", "answer": "What is it? ** 2+3=<<2+3=5>>5\n#### 5"}) + "\n")
    [found], *_ = read_problems(ProblemsConfig(format="gsm8k", train=str(socratic), test=str(socratic)))
    assert (found.response, found.answer) == ("2+3=5\n#### 5", "5")
    assert (found.meta["question"], found.meta["sub_questions"]) == ("2+3?", ["What is it?"])
    strategy = tmp_path / "strategy.json"
    made = {"question": "Is it?", "answer": True, "facts": ["It is."], "decomposition": ["Is it?"]}
    strategy.write_text(json.dumps([{"qid": str(n), **made} for n in range(5)]))
    chosen = ProblemsConfig(format="strategyqa", train=str(strategy), test=str(strategy), num_train=3, num_solver=9)
    assert [[p.id for p in part] for part in read_problems(chosen)] == [["1", "2", "3"], ["0"], ["4"]]
    with pytest.raises(ValueError, match="num_solver = 1: nothing follows the 4 for the Asker"):
        read_problems(dataclasses.replace(chosen, num_train=4, num_solver=1))
    lines = tmp_path / "own.jsonl"
    lines.write_text(json.dumps({"id": "1", "prompt": "2+3?", "response": "#### 5"}) + "\n")
    with pytest.raises(ValueError, match="'1' has no known answer"):
        read_problems(ProblemsConfig(format="instructions", train=str(lines), test=str(lines)))
    with pytest.raises(ValueError, match="did you mean 'gsm8k'"):
        ProblemsConfig(format="gsm-8k")
