"""What the stages of an ART run share: where artefacts are, how roles start, how texts are scored."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Sequence

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.stages import input_directory
from jaxrefine.conversion.loaded import LoadedModel, directory_digest, load_model
from jaxrefine.conversion.pruning import save_first_layers
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.readers import read_candidates, read_instructions
from jaxrefine.data.refinement import Asked
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.systems.art_settings import ArtSettings, Role
from jaxrefine.systems.art_solver import AskedSolver, LocalSolver, Solver
from jaxrefine.systems.art_texts import Problem, Texts

PROBLEMS, SOLVER, ANSWERS, TASK, ASKER, TRUSTER, ASK, REFINE, TRUST = (
    "problems", "solver", "answers", "task", "asker", "truster", "ask", "refine", "trust",
)  # fmt: skip
"""The stages."""
TRAIN, TEST, LEARNED, VOTES = "train.jsonl", "test.jsonl", "solver.jsonl", "votes.jsonl"
ASKED, REFINED, SELF_REFINED, SELF, SCORES = (
    "asked.json", "refined.jsonl", "self_refined.jsonl", "self.json", "scores.json",
)  # fmt: skip
MODEL, START, DIGEST, WRITTEN = "model", "start", "start.json", "written"
FINALS = "finals.json"
"""Of the report: which queries each method has right."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class ArtRun(ArtSettings):
    """Settings, and where a run that has them keeps what."""

    def problems_of(self, directory: pathlib.Path, split: str) -> list[Problem]:
        """The problems of `TRAIN`, `TEST` or `LEARNED`; ``directory`` is the asking stage's, here and below."""
        return read_instructions(input_directory(directory, PROBLEMS) / split)

    def texts(self, directory: pathlib.Path) -> Texts:
        """What renders prompts and targets."""
        shots = self.problems_of(directory, LEARNED)[: self.solver.shots]
        return Texts(settings=self, shots=tuple(shots))

    def first(self, directory: pathlib.Path) -> list[Candidates]:
        """ψ's first answers to the test problems."""
        return read_candidates(input_directory(directory, ANSWERS) / TEST)

    def asked(self, directory: pathlib.Path) -> list[Asked]:
        """What the Asker wrote about each of them."""
        found = read_json(input_directory(directory, ASK) / ASKED)
        return [
            Asked(questions=tuple(one["questions"]), refine=one["refine"], form=one["form"], solution=one["solution"])
            for one in found
        ]

    def sub_questions_of(self, problem: Problem, asked: Asked) -> Sequence[str]:
        """Those to refine with."""
        return asked.questions if self.sub_questions == "asker" else problem.meta["sub_questions"]

    def greedy(self, limit: int | None = None) -> SamplingConfig:
        """One text a prompt, of ``max_new_tokens`` or another limit."""
        return SamplingConfig(
            num_candidates=1, temperatures=(0.0,), max_new_tokens=self.max_new_tokens if limit is None else limit
        )

    def solver_directory(self, directory: pathlib.Path) -> pathlib.Path:
        """Of ψ as it answers."""
        return self._model(self.solver, SOLVER, directory, trained=self.solver.finetuning is not None)

    @contextlib.contextmanager
    def open_solver(self, directory: pathlib.Path) -> Iterator[Solver]:
        """ψ, loaded or reached."""
        if self.solver.endpoint is None:
            yield LocalSolver(self.load(self.solver_directory(directory)), self.rows)
            return
        with Endpoint(self.solver.endpoint, self.solver.keep) as endpoint:
            yield AskedSolver(endpoint, chat=self.solver.chat)

    def task_directory(self, directory: pathlib.Path) -> pathlib.Path:
        """Of the Asker after the task."""
        return self._model(self.asker, TASK, directory, trained=self.asker.task is not None)

    def asker_directory(self, directory: pathlib.Path) -> pathlib.Path:
        """Of the Asker as it asks."""
        if self.asker.training is None:
            return self.task_directory(directory)
        return input_directory(directory, ASKER) / MODEL

    def truster_directory(self, directory: pathlib.Path) -> pathlib.Path:
        """Of the Truster with its head."""
        return self._model(self.truster, TRUSTER, directory, trained=self.truster.training is not None)

    def prepare(self, role: Role, directory: pathlib.Path) -> pathlib.Path:
        """The model that a role starts from, its first layers alone where that is wanted, and its digest kept."""
        write_json(directory / DIGEST, {"model": role.model, "digest": directory_digest(role.directory)})
        if role.layers is None:
            return role.directory
        return save_first_layers(role.directory, directory / START, role.layers)

    def load(self, directory: pathlib.Path) -> LoadedModel:
        """A model on the run's devices."""
        return load_model(directory, self.placement)

    def _model(self, role: Role, stage: str, directory: pathlib.Path, *, trained: bool) -> pathlib.Path:
        kept = input_directory(directory, stage)
        if trained:
            return kept / MODEL
        if role.layers is not None:
            return kept / START
        known, there = read_json(kept / DIGEST)["digest"], directory_digest(role.directory)
        if there != known:
            raise ValueError(f"{role.directory} changed since the run began (digest {there}, then {known})")
        return role.directory


def asker_examples(problems: Sequence[Problem], answers: Sequence[Candidates], texts: Texts) -> list[Instruction]:
    """One example an answer: the Asker reads it, and learns the sub-questions and whether it is wrong.

    Args:
        problems: with sub-questions.
        answers: labelled 1 where right, to the same problems; of equal ones each counts, as it was sampled.
        texts: of the run.

    Raises:
        ValueError: an Asker that is to write sub-questions, and a problem that has none.
    """
    found = []
    for problem, sample in zip(problems, answers, strict=True):
        if texts.settings.asker.writes != "decision" and not problem.meta["sub_questions"]:
            raise ValueError(
                f"problem {problem.id!r} has no sub-questions to learn from; GSM8K has them in its Socratic form"
            )
        for number, (response, label) in enumerate(zip(sample.responses, sample.labels, strict=True)):
            target = texts.target(problem, wrong=label < 1.0)
            found.append(Instruction(f"{problem.id} answer {number}", texts.ask(problem, response), target))
    return found


def truster_examples(problems: Sequence[Problem], answers: Sequence[Candidates], texts: Texts) -> list[Candidates]:
    """The problems with right and wrong answers, each different answer once, under the question alone.

    Args:
        problems: of the samples.
        answers: labelled 1 where right and 0 where wrong.
        texts: of the run.
    """
    found = []
    for problem, sample in zip(problems, answers, strict=True):
        places = [sample.responses.index(response) for response in dict.fromkeys(sample.responses)]
        labels = tuple(sample.labels[place] for place in places)
        if len(set(labels)) == 2:
            found.append(
                Candidates(
                    problem.id, texts.question(problem), tuple(sample.responses[place] for place in places), labels,
                    problem.answer, tuple(sample.finished[place] for place in places),
                )
            )  # fmt: skip
    return found
