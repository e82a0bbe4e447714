"""ART: a small Asker decides whether an answer needs refinement, the model refines, a small Truster chooses.

    problems ─ solver ─ answers ┬ asker ─ ask ─ refine ─ trust ─ report
                 task ──────────┴ truster ───────────────┘

ψ (the solver) answers every training problem k times, and its answers are labelled by the known ones. The Asker learns
the task, then to write sub-questions and whether an answer is wrong; the Truster learns to score right answers above
wrong ones. On the test problems everything is computed for every query, so that all methods and all thresholds are
measured on the same texts.

Source: Shridhar et al. 2023, The ART of LLM Refinement (arXiv 2311.07961).
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Sequence

from scipy.special import expit

from jaxrefine.artefacts.atomic import write_json
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.readers import read_candidates, write_candidates
from jaxrefine.data.refinement import load_refinement_templates, parse_asked
from jaxrefine.evaluation.refinement import final, measure_refinement
from jaxrefine.evaluation.refinement_report import print_refinement_table, write_refinement_report
from jaxrefine.sampling.candidates import SamplingConfig
from jaxrefine.sampling.redaction import read_secret
from jaxrefine.systems.art_measurement import Measurement
from jaxrefine.systems.art_run import (
    ANSWERS,
    ASK,
    ASKED,
    ASKER,
    DIGEST,
    FINALS,
    LEARNED,
    PROBLEMS,
    REFINE,
    REFINED,
    SCORES,
    SELF,
    SELF_REFINED,
    SOLVER,
    TASK,
    TEST,
    TRAIN,
    TRUST,
    TRUSTER,
    VOTES,
    WRITTEN,
    ArtRun,
    asker_examples,
    truster_examples,
)
from jaxrefine.systems.art_settings import Role
from jaxrefine.systems.art_solver import LocalSolver, Solver, rewards
from jaxrefine.systems.art_texts import Problem, Texts, labelled, read_problems, write_problems
from jaxrefine.training.finetuning import Finetuning, finetune


@dataclasses.dataclass(frozen=True, kw_only=True)
class Art(ArtRun):
    """A run; stopped at any instant, the same command goes on."""

    def stages(self) -> list[Stage]:
        """The stages.

        Raises:
            ValueError: a model, a file or a prompt that is missing or not as it has to be.
        """
        here: dict[str, Role] = {"solver": self.solver, "asker": self.asker, "truster": self.truster}
        if self.teacher is not None:
            here["teacher"] = self.teacher
        if self.solver.endpoint is not None:
            del here["solver"]
            read_secret(self.solver.endpoint.api_key_env)  # missing, it is better noticed now
        for name, role in here.items():
            if not (role.directory / "config.json").is_file():
                raise ValueError(
                    f"{name}.model = {role.model!r} is no shipped model and no directory with a config.json; give "
                    f"yours with --{name}.model DIR"
                )
        files = ("train", "test") if self.needs_training_problems else ("test",)
        for name in files if self.problems.format != "arithmetic" else ():
            if not pathlib.Path(given := getattr(self.problems, name)).is_file():
                raise ValueError(f"problems: there is no file {given!r}; give yours with --problems.{name} FILE")
        load_refinement_templates(self.templates or None)  # a mistake in it is better noticed now
        return [
            Stage(PROBLEMS, self.gather),
            Stage(SOLVER, self.train_solver, (PROBLEMS,)),
            Stage(ANSWERS, self.answer, (PROBLEMS, SOLVER)),
            Stage(TASK, self.train_task, (PROBLEMS,)),
            Stage(ASKER, self.train_asker, (PROBLEMS, ANSWERS, TASK)),
            Stage(TRUSTER, self.train_truster, (PROBLEMS, ANSWERS, TASK)),
            Stage(ASK, self.ask, (PROBLEMS, ANSWERS, ASKER)),
            Stage(REFINE, self.refine, (PROBLEMS, SOLVER, ANSWERS, ASKER, ASK)),
            Stage(TRUST, self.trust, (PROBLEMS, ANSWERS, TRUSTER, REFINE)),
            Stage("report", self.report, (PROBLEMS, SOLVER, ANSWERS, TASK, ASKER, TRUSTER, ASK, REFINE, TRUST)),
        ]

    def gather(self, directory: pathlib.Path) -> None:
        """Reads the problems, and keeps them; a teacher gives sub-questions to those that have none."""
        for name, problems in zip((TRAIN, TEST, LEARNED), read_problems(self.problems), strict=True):
            if self.teacher is not None:
                problems = self._taught(self.teacher, problems, directory / name.removesuffix(".jsonl"))
            write_problems(directory / name, problems)

    def train_solver(self, directory: pathlib.Path) -> None:
        """ψ learns to answer, with sub-questions and without, where it is fine-tuned at all."""
        if self.solver.endpoint is not None:
            write_json(directory / DIGEST, {"endpoint": self.solver.endpoint.digest()})
            return
        start, texts = self.prepare(self.solver, directory), self.texts(directory)
        if self.solver.finetuning is None:
            return
        problems = self.problems_of(directory, LEARNED)
        plain = [Instruction(p.id, texts.first(p), texts.solution(p)) for p in problems]
        guided = [
            Instruction(f"{p.id} with sub-questions", texts.refine(p, p.meta["sub_questions"]), p.response)
            for p in problems
            if p.meta["sub_questions"]
        ]
        examples = [*plain, *guided] if self.solver.learns == "both" else guided
        self._train(start, examples, self.solver.finetuning, directory, "train the solver")

    def answer(self, directory: pathlib.Path) -> None:
        """ψ answers: the training problems k times, the test problems greedily, and again for the vote."""
        samples, votes = self._sampled(self.solver.samples), self._sampled(self.solver.votes)
        texts = self.texts(directory)
        wanted = [(TRAIN, TRAIN, samples)] if self.labels_answers else []
        with self.open_solver(directory) as solver:
            for file, split, config in (*wanted, (TEST, TEST, self.greedy()), (VOTES, TEST, votes)):
                problems = self.problems_of(directory, split)
                asked = zip(problems, map(texts.first, problems), strict=True)
                self._sample(solver, asked, config, directory, file, texts)

    def train_task(self, directory: pathlib.Path) -> None:
        """The Asker first learns the task itself."""
        start, texts = self.prepare(self.asker, directory), self.texts(directory)
        if self.asker.task is not None:
            problems = self.problems_of(directory, TRAIN)
            examples = [Instruction(p.id, texts.question(p), p.response) for p in problems]
            self._train(start, examples, self.asker.task, directory, "train on the task")

    def train_asker(self, directory: pathlib.Path) -> None:
        """The Asker learns sub-questions, and Yes for a wrong answer, No for a right one, unless it asks already."""
        if self.asker.training is None:
            return
        texts, problems = self.texts(directory), self.problems_of(directory, TRAIN)
        start = self.task_directory(directory)
        if self.asker.reads == "own":
            asked = zip(problems, map(texts.question, problems), strict=True)
            own = LocalSolver(self.load(start), self.rows)
            read = self._sample(own, asked, self._sampled(self.solver.samples), directory, TRAIN, texts)
        else:
            read = read_candidates(input_directory(directory, ANSWERS) / TRAIN)
        self._train(start, asker_examples(problems, read, texts), self.asker.training, directory, "train the Asker")

    def train_truster(self, directory: pathlib.Path) -> None:
        """The Truster learns from problems with right and wrong answers, unless it scores already."""
        from_task = self.truster.from_asker_task
        start = self.task_directory(directory) if from_task else self.prepare(self.truster, directory)
        if self.truster.training is None:
            return
        samples = read_candidates(input_directory(directory, ANSWERS) / TRAIN)
        pairs = truster_examples(self.problems_of(directory, TRAIN), samples, self.texts(directory))
        if not pairs:
            raise ValueError(
                f"none of {len(samples)} training problems has right and wrong answers among its samples, and a "
                "Truster learns from such alone: give more problems (problems.num_train), or a ψ that is right at times"
            )
        say(f"{len(pairs)} of {len(samples)} training problems have right and wrong answers")
        self._train(start, pairs, self.truster.training, directory, "train the Truster")

    def ask(self, directory: pathlib.Path) -> None:
        """The Asker reads every first answer: what it writes, and how likely Yes is after its questions."""
        asker, texts = (
            LocalSolver(self.load(self.asker_directory(directory)), self.rows),
            self.texts(directory),
        )
        problems, first = self.problems_of(directory, TEST), _texts(self.first(directory))
        prompts = [_prompt(p, texts.ask(p, one)) for p, one in zip(problems, first, strict=True)]
        written = asker.sample(prompts, self.greedy(self.asker.max_new_tokens), directory / WRITTEN, description=ASK)
        told = zip(problems, first, _texts(written), strict=True)
        scored = asker.prefer([texts.decisions(p, one, text) for p, one, text in told])
        records = []
        for text, (yes, no) in zip(written, scored, strict=True):
            asked = parse_asked(text.responses[0], finished=text.finished[0], solves=self.asker.writes == "all")
            records.append({"id": text.id, **dataclasses.asdict(asked), "yes_probability": float(expit(yes - no))})
        write_json(directory / ASKED, records)

    def refine(self, directory: pathlib.Path) -> None:
        """ψ answers again with sub-questions, and by its own lights; and says what it would decide by itself.

        Every answer is refined, whatever was decided: thresholds and baselines are measured on the same texts.
        """
        texts, problems = self.texts(directory), self.problems_of(directory, TEST)
        first = _texts(self.first(directory))
        told = list(zip(problems, first, self.asked(directory), strict=True))
        if self.asker.writes == "all":
            prompts = [texts.go_on(p, one, asked) for p, one, asked in told]
        else:
            prompts = [texts.refine(p, self.sub_questions_of(p, asked), one) for p, one, asked in told]
        guided, alone = (
            zip(problems, found, strict=True) for found in (prompts, [texts.self_refine(p, one) for p, one, _ in told])
        )
        with self.open_solver(directory) as solver:
            refiner = solver
            if self.asker.writes == "all":
                refiner = LocalSolver(self.load(self.asker_directory(directory)), self.rows)
            refined = _texts(self._sample(refiner, guided, self.greedy(), directory, REFINED, texts))
            self._sample(solver, alone, self.greedy(), directory, SELF_REFINED, texts)
            # The choice is put in both orders, or the model's liking for one of the two names would choose.
            scored = solver.prefer(
                [
                    choice
                    for p, one, other in zip(problems, first, refined, strict=True)
                    for choice in (texts.decide(p, one), texts.select(p, one, other), texts.select(p, other, one))
                ]
            )
        records = []
        for place, p in enumerate(problems):
            (yes, no), (one, other), (turned, back) = scored[3 * place : 3 * place + 3]
            likes_first = (one - other) + (back - turned)
            records.append({"id": p.id, "says_yes": yes > no, "choice": int(likes_first < 0)})
        write_json(directory / SELF, records)

    def trust(self, directory: pathlib.Path) -> None:
        """The Truster scores both answers to every question."""
        texts, problems = self.texts(directory), self.problems_of(directory, TEST)
        refined = read_candidates(input_directory(directory, REFINE) / REFINED)
        pairs = []
        for p, *both in zip(problems, self.first(directory), refined, strict=True):
            ended = tuple(one.finished[0] for one in both)
            pairs.append(Candidates(p.id, texts.question(p), tuple(_texts(both)), (0.0, 0.0), finished=ended))
        scores = rewards(self.load(self.truster_directory(directory)), pairs, self.rows)
        write_json(directory / SCORES, [{"id": p.id, "scores": both} for p, both in zip(problems, scores, strict=True)])

    def report(self, directory: pathlib.Path) -> None:
        """Measures; prints the table and writes the report."""
        measurement = Measurement(self, directory)
        queries = measurement.refinements.queries
        found = measure_refinement(measurement.refinements, self.settings)
        right = {name: [int(final(name, query, self.settings)[2]) for query in queries] for name in found.rows}
        write_json(directory / FINALS, {"seed": self.seed, "ids": [query.id for query in queries], "right": right})
        print_refinement_table([found])
        path = write_refinement_report(
            [found], self.settings, directory, title=self.title, facts=measurement.facts(), costs=measurement.costs,
            reference=measurement.reference,
        )  # fmt: skip
        say(f"report: {path}")

    def _taught(self, teacher: Role, problems: Sequence[Problem], directory: pathlib.Path) -> list[Problem]:
        """The problems, those without sub-questions with a teacher's."""
        texts, bare = Texts(settings=self), [p for p in problems if not p.meta["sub_questions"]]
        if not bare:
            return list(problems)
        asked, config = [_prompt(p, texts.teach(p)) for p in bare], self.greedy(self.asker.max_new_tokens)
        written = LocalSolver(self.load(teacher.directory), self.rows).sample(
            asked, config, directory, description="teach"
        )
        found = {one.id: list(parse_asked(one.responses[0]).questions) for one in written}
        return [
            dataclasses.replace(p, meta={**p.meta, "sub_questions": found[p.id]}) if p.id in found else p
            for p in problems
        ]

    def _sampled(self, config: SamplingConfig) -> SamplingConfig:
        return dataclasses.replace(config, max_new_tokens=self.max_new_tokens, seed=config.seed + self.seed)

    def _sample(
        self,
        model: Solver,
        asked: Iterable[tuple[Problem, str]],
        config: SamplingConfig,
        directory: pathlib.Path,
        file: str,
        texts: Texts,
    ) -> list[Candidates]:
        """Solutions, labelled by the known answers and kept in a file."""
        name = file.removesuffix(".jsonl")
        prompts = [_prompt(problem, prompt) for problem, prompt in asked]
        found = labelled(model.sample(prompts, config, directory / name, description=name), texts)
        write_candidates(directory / file, found)
        return found

    def _train(
        self,
        start: pathlib.Path,
        examples: Sequence[Instruction | Candidates],
        config: Finetuning,
        directory: pathlib.Path,
        description: str,
    ) -> None:
        config = dataclasses.replace(config, seed=config.seed + self.seed)
        finetune(start, examples, config, directory, placement=self.placement, description=description)


def _prompt(problem: Problem, prompt: str) -> Candidates:
    return Candidates(problem.id, prompt, answer=problem.answer)


def _texts(samples: Sequence[Candidates]) -> list[str]:
    """The one text of each."""
    return [sample.responses[0] for sample in samples]
