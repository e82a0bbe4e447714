"""The texts of an ART run: problems, what each role reads and learns to write, and what an answer comes to."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrefine.data.arithmetic import generate
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.jsonl import write_jsonl
from jaxrefine.data.readers import read_gsm8k, read_instructions
from jaxrefine.data.readers_refinement import read_strategyqa
from jaxrefine.data.refinement import (
    FIRST,
    NO,
    SECOND,
    YES,
    Asked,
    as_lines,
    ask_prompt,
    asker_target,
    load_refinement_templates,
    refine_prompt,
    with_decision,
)
from jaxrefine.data.templates import Template
from jaxrefine.evaluation.refinement import Answer
from jaxrefine.judging.answers import MARKER, answer_key, canonical_number, extract
from jaxrefine.systems.art_settings import ArtSettings, ProblemsConfig

Problem = Instruction
"""A question with its solution and answer; ``meta`` has ``question``, ``sub_questions`` and ``facts``."""


def read_problems(config: ProblemsConfig) -> tuple[list[Problem], list[Problem], list[Problem]]:
    """The problems with what they have of sub-questions and facts in ``meta``.

    Returns:
        Those that Asker and Truster learn from, those to measure on, and those that ψ learns from.

    Raises:
        ValueError: files that are missing or malformed, or problems without known answers.
    """
    num = config.num_train + config.num_solver
    if config.format == "arithmetic":
        made = [
            [
                dataclasses.replace(
                    one.instruction(),
                    meta={"sub_questions": [ask for ask, _ in one.sub_questions], "facts": list(one.facts)},
                )
                for one in generate(split, wanted, config.seed, config.world)
            ]
            for split, wanted in (("train", num), ("test", config.num_test))
        ]
        return _divided(made[0], made[1], config)
    read = {
        "gsm8k": lambda path, part: read_gsm8k(path),
        "strategyqa": lambda path, part: read_strategyqa(path, part=part if config.train == config.test else "all"),
        "instructions": lambda path, part: read_instructions(path),
    }[config.format]
    train, test = read(config.train, "train") if config.train else [], read(config.test, "test")
    return _divided(train[:num], test[: config.num_test], config)


def _divided(
    train: Sequence[Instruction], test: Sequence[Instruction], config: ProblemsConfig
) -> tuple[list[Problem], list[Problem], list[Problem]]:
    first, more = train[: config.num_train], train[config.num_train :]
    if config.num_solver and not more:
        raise ValueError(f"problems.num_solver = {config.num_solver}: nothing follows the {len(first)} for the Asker")
    return _whole(first), _whole(test), _whole(more if config.num_solver else first)


def _whole(problems: Sequence[Instruction]) -> list[Problem]:
    found = []
    for problem in problems:
        if problem.answer is None:
            raise ValueError(f"problem {problem.id!r} has no known answer: right and wrong cannot be told")
        meta = {"question": problem.prompt.strip(), "sub_questions": [], "facts": [], **problem.meta}
        found.append(dataclasses.replace(problem, meta=meta))
    return found


def write_problems(path: pathlib.Path, problems: Sequence[Problem]) -> None:
    """What ``read_instructions`` reads."""
    write_jsonl(path, [{**dataclasses.asdict(problem), "meta": dict(problem.meta)} for problem in problems])


@dataclasses.dataclass(frozen=True, kw_only=True)
class Texts:
    """Renders every prompt and target of a run."""

    settings: ArtSettings
    shots: tuple[Problem, ...] = ()
    """Worked examples before each prompt of ψ."""

    @property
    def templates(self) -> Mapping[str, Template]:
        """The prompts of this run."""
        return load_refinement_templates(self.settings.templates or None)

    def solution(self, problem: Problem) -> str:
        """What is learned as a first answer: the solution, or each of its steps after its sub-question."""
        asks = problem.meta["sub_questions"]
        *steps, last = problem.response.split("\n")
        if self.settings.solver.writes == "steps" or len(asks) != len(steps):
            return problem.response
        pairs = [f"{as_lines([ask])}\n{step}" for ask, step in zip(asks, steps, strict=True)]
        return "\n".join([*pairs, last])

    def first(self, problem: Problem) -> str:
        """What ψ reads to answer at first."""
        worked = [self.question(shot) + self.solution(shot) for shot in self.shots]
        return "\n\n".join([*worked, self.question(problem)])

    def refine(self, problem: Problem, sub_questions: Sequence[str], answer: str = "") -> str:
        """What ψ reads to refine."""
        worked = [self._refine(shot, shot.meta["sub_questions"]) + shot.response for shot in self.shots]
        return "\n\n".join([*worked, self._refine(problem, sub_questions, answer)])

    def ask(self, problem: Problem, answer: str) -> str:
        """What the Asker reads."""
        return ask_prompt(problem.meta["question"], answer, self.templates)

    def teach(self, problem: Problem) -> str:
        """What a teacher reads to write a problem's sub-questions."""
        values = {"question": problem.meta["question"], "solution": problem.response}
        return self.templates["sub_questions"].render(**values)

    def self_refine(self, problem: Problem, answer: str) -> str:
        """What ψ reads to refine by its own lights."""
        return self.templates["self_refine"].render(question=problem.meta["question"], answer=answer.strip())

    def decide(self, problem: Problem, answer: str) -> Candidates:
        """What ψ scores to decide by itself: Yes and No."""
        prompt = self.templates["decide"].render(question=problem.meta["question"], answer=answer.strip())
        return Candidates(problem.id, prompt, (YES, NO), (0.0, 0.0))

    def select(self, problem: Problem, first: str, second: str) -> Candidates:
        """What ψ scores to choose by itself: one name and the other."""
        prompt = self.templates["select"].render(
            question=problem.meta["question"], first=first.strip(), second=second.strip()
        )
        return Candidates(problem.id, prompt, (FIRST, SECOND), (0.0, 0.0))

    def target(self, problem: Problem, *, wrong: bool) -> str:
        """What the Asker learns to write of an answer."""
        writes = self.settings.asker.writes
        asks = [] if writes == "decision" else problem.meta["sub_questions"]
        return asker_target(asks, refine=wrong, solution=problem.response if writes == "all" else "")

    def decisions(self, problem: Problem, answer: str, text: str) -> Candidates:
        """What the Asker scores: its own text with Yes and with No; a solution that may follow a Yes is left open."""
        texts = (with_decision(text, YES), with_decision(text, NO))
        ends = (self.settings.asker.writes != "all", True)
        return Candidates(problem.id, self.ask(problem, answer), texts, (0.0, 0.0), finished=ends)

    def go_on(self, problem: Problem, answer: str, asked: Asked) -> str:
        """What an Asker that does everything goes on from to refine: its questions and a Yes."""
        return f"{self.ask(problem, answer)}{as_lines([*asked.questions, YES])}\n"

    def solved(self, text: str) -> str:
        """The first solution of a text: with worked examples before it, a model goes on to invent more problems."""
        if not self.shots:
            return text
        lines = text.split("\n")
        last = next((place for place, line in enumerate(lines) if line.startswith(MARKER)), len(lines))
        return "\n".join(lines[: last + 1])

    def question(self, problem: Problem) -> str:
        """The question alone: what Truster and task read."""
        return self.templates["question"].render(question=problem.meta["question"])

    def _refine(self, problem: Problem, sub_questions: Sequence[str], answer: str = "") -> str:
        facts = problem.meta["facts"] if self.settings.with_facts else []
        return refine_prompt(problem.meta["question"], sub_questions, facts, answer=answer, templates=self.templates)


def graded(text: str, answer: str, style: str = "marker") -> Answer:
    r"""What a solution comes to: its stated answer, and whether that is the known one.

    Args:
        text: the solution.
        answer: the known one, a number or words.
        style: of `judging.answers.extract`: where the answer stands.

    >>> graded("2+3=5\n#### 5", "5.0"), graded("5", "5")
    (Answer(key='5', right=True), Answer(key=None, right=False))
    >>> graded("The answer is Yes.", "yes", "phrase")
    Answer(key='yes', right=True)
    """
    key = extract(text, kind="text" if canonical_number(answer) is None else "number", style=style)
    if key is not None and canonical_number(answer) is None:
        key = key.rstrip(" .!") or None  # the end of the sentence is no part of words
    return Answer(key=key, right=key is not None and key == answer_key(answer))


def labelled(samples: Sequence[Candidates], texts: Texts) -> list[Candidates]:
    """The samples with label 1 where right and 0 where wrong; one that was cut by length is wrong."""
    found = []
    for sample in samples:
        responses = tuple(texts.solved(response) for response in sample.responses)
        cut = [response != text for response, text in zip(responses, sample.responses, strict=True)]
        ended = [done or early for done, early in zip(sample.finished, cut, strict=True)]
        answers = [graded(response, str(sample.answer), texts.settings.answer_style) for response in responses]
        labels = tuple(float(answer.right and end) for answer, end in zip(answers, ended, strict=True))
        meta: dict[str, Any] = {**sample.meta}
        found.append(dataclasses.replace(sample, responses=responses, labels=labels, finished=tuple(ended), meta=meta))
    return found


def answers_of(sample: Candidates, style: str = "marker") -> tuple[Answer, ...]:
    """What labelled samples come to, read in a style of `graded`; one that was cut by length states nothing."""
    found = []
    for response, done in zip(sample.responses, sample.finished, strict=True):
        found.append(graded(response, str(sample.answer), style) if done else Answer(key=None, right=False))
    return tuple(found)
