"""Fine-tuning for math: solutions, evaluators of sampled solutions, cluster re-ranking, and the tasks in sequence.

    data ─ for every phase: (samples of its generator) ─ train ─ (solve) ─ then: score ─ report

A phase goes on from the weights of an earlier one. It learns from solutions (SSFT, Eq. 2–4), from graded samples of a
generator (an evaluator, Eq. 8–9), or from both at once (Eq. 11–13); generator → evaluator → generator is three phases.
What learns from solutions is measured as a generator; what gives verdicts re-ranks the samples of any generators.

Source: Liu et al. 2023, "Improving large language model fine-tuning for solving math problems" (arXiv 2310.10047).
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.conversion.loaded import LoadedModel, directory_digest, load_model
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.readers import read_candidates, read_instructions, write_candidates, write_instructions
from jaxrefine.data.solution_sources import divide, few_shot, first_solution
from jaxrefine.evaluation.selection import Pool, Samples
from jaxrefine.evaluation.solving import Generator
from jaxrefine.evaluation.solving_report import print_solving_tables, write_solving_report
from jaxrefine.judging.answers import Grader
from jaxrefine.judging.files import judge_file
from jaxrefine.judging.grading import Graded, grade, labelled_by_grade
from jaxrefine.judging.local import local_model
from jaxrefine.judging.verdict import VerdictJudge
from jaxrefine.sampling.candidates import SamplingConfig, sample_candidates
from jaxrefine.selection.examples import beside_solutions
from jaxrefine.selection.probabilities import probabilities
from jaxrefine.systems.math_settings import GIVEN, MathSettings, Phase
from jaxrefine.training.finetuning import EPOCHS, MODEL, finetune

TEST, VALIDATION, PROBLEMS, SUMMARY, LABELLED, SOLVED, CHOICE = (
    "test.jsonl", "validation.jsonl", "problems.jsonl", "summary.json", "labelled.jsonl", "solved.json", "choice.json",
)  # fmt: skip


@dataclasses.dataclass(frozen=True, kw_only=True)
class MathSolving(MathSettings):
    """The experiments of the paper as phases; stopped at any instant, the same command goes on."""

    def stages(self) -> list[Stage]:
        """Data; what each phase needs, in the order of the phases; scores; report.

        Raises:
            ValueError: a model or a file of a source that is not there.
        """
        if absent := [path for source in (*self.sources, self.test) for path in source.absent()]:
            raise ValueError(
                f"sources: {', '.join(absent)} not there; give yours with --sources.N.paths and --test.paths"
            )
        for name in (GIVEN, *self.more_models):
            flag = "--model" if name == GIVEN else f"--more-models.{name}"
            if not (self.given(name) / "config.json").is_file():
                raise ValueError(f"{name}: {self.given(name)} holds no config.json; give yours with {flag} DIRECTORY")
        stages = [Stage("data", self.prepare)]
        trained: dict[str, tuple[str, ...]] = {phase.name: (f"train-{phase.name}",) for phase in self.chosen}
        after: Any = lambda name, run, *inputs: Stage(name, run, ("data", *inputs))  # noqa: E731
        for name in (name for name in self.generators if name not in trained):
            stages.append(after(f"solve-{name}", functools.partial(self.solve, name)))
        for phase in self.chosen:
            sampled: tuple[str, ...] = ()
            if phase.samples_of is not None:
                sampled = (f"samples-{phase.samples_of}",)
                if sampled[0] not in [stage.name for stage in stages]:
                    run = functools.partial(self.sample, phase.samples_of)
                    stages.append(after(sampled[0], run, *trained.get(phase.samples_of, ())))
            run = functools.partial(self.train, phase)
            stages.append(after(f"train-{phase.name}", run, *trained.get(phase.start, ()), *sampled))
            if phase.generates:
                run = functools.partial(self.solve, phase.name)
                stages.append(after(f"solve-{phase.name}", run, *trained[phase.name]))
        solved = {name: f"solve-{name}" for name in self.generators}
        for phase in self.chosen:
            if targets := self.targets_of(phase):
                inputs = (*trained[phase.name], *(solved[name] for name in targets))
                stages.append(after(f"score-{phase.name}", functools.partial(self.score, phase), *inputs))
        everything = tuple(stage.name for stage in stages if stage.name.startswith(("train-", "solve-", "score-")))
        return [*stages, after("report", self.report, *everything)]

    def prepare(self, directory: Path) -> None:
        """Reads the sources, sets validation and test problems aside, and notes which models are given."""
        read = {source.name: source.read() for source in self.sources}
        division = divide(read, self.test.read(), num_validation=self.num_validation, seed=self.seed)
        for name, solutions in division.train.items():
            write_instructions(directory / f"solutions-{name}.jsonl", solutions)
        for name, problems in (
            (TEST, division.test), (VALIDATION, division.validation), (PROBLEMS, division.problems[: self.num_sampled]),
        ):  # fmt: skip
            write_candidates(directory / name, problems)
        summary = {
            "solutions": {name: len(solutions) for name, solutions in division.train.items()},
            "left out": dict(division.left_out),
            "training problems": len(division.problems),
            "validation problems": len(division.validation),
            "test problems": len(division.test),
            "models": {name: directory_digest(self.given(name)) for name in (GIVEN, *self.more_models)},
        }
        write_json(directory / SUMMARY, summary)

    def train(self, phase: Phase, directory: Path) -> None:
        """One phase, from the weights of its start."""
        examples = self.training_examples(phase, directory)
        start = self._weights(directory, phase.start)
        finetune(start, examples, phase.training, directory, placement=self.placement, description=phase.name)
        if phase.best_epoch:
            self._choose_epoch(directory)

    def training_examples(self, phase: Phase, directory: Path) -> Sequence[Instruction | Candidates]:
        """Solutions; or chosen samples of each problem; or these with a solution beside them."""
        data = input_directory(directory, "data")
        solutions = [one for name in phase.solutions for one in read_instructions(data / f"solutions-{name}.jsonl")]
        if phase.samples_of is None:
            return solutions
        sampled = read_candidates(input_directory(directory, f"samples-{phase.samples_of}") / LABELLED)
        chosen = [phase.examples.chosen(problem) for problem in sampled]
        return beside_solutions(chosen, solutions, seed=self.seed) if solutions else [c for c in chosen if c.responses]

    def sample(self, name: str, directory: Path) -> None:
        """A generator's graded solutions of the training problems: what evaluators learn from."""
        config = self.training_sampling or self.sampling
        sampled = self._sampled(self._load(name, directory), name, directory, PROBLEMS, config, directory)
        write_candidates(directory / LABELLED, [labelled_by_grade(one, self._grade(one)) for one in sampled])

    def solve(self, name: str, directory: Path) -> None:
        """A generator's solutions of the test problems: greedy, and N samples, clustered and graded."""
        loaded = self._load(name, directory)
        best = self._sampled(loaded, name, directory, TEST, self._greedy, directory / "greedy")
        sampled = self._sampled(loaded, name, directory, TEST, self.sampling, directory / "samples")
        graded = [self._grade(one) for one in sampled]
        write_candidates(directory / LABELLED, map(labelled_by_grade, sampled, graded))
        history = self.history(name)
        role, compared_with = self.role(history)
        found = Generator(
            name=name,
            role=role,
            history=history,
            greedy=tuple(self._grade(one).right[0] for one in best),
            samples=tuple(
                Samples(id=one.id, clusters=found.clusters, right=found.right)
                for one, found in zip(sampled, graded, strict=True)
            ),
            compared_with=compared_with,
        )
        write_json(directory / SOLVED, found.record())

    def score(self, phase: Phase, directory: Path) -> None:
        """An evaluator's verdict on every sampled solution of the generators that it is to re-rank."""
        judge = VerdictJudge(local_model(self._load(phase.name, directory), phase.name), rows=self.rows)
        for target in self.targets_of(phase):
            source = input_directory(directory, f"solve-{target}") / LABELLED
            scored = directory / f"{target}.jsonl"
            _, summary = judge_file(judge, source, scored, description=f"{phase.name} on {target}")
            if summary.judged < summary.examples:
                raise ValueError(f"{phase.name} could not score all solutions of {target}: {summary}")
            scored.with_name(f"{scored.name}.journal").unlink(missing_ok=True)

    def report(self, directory: Path) -> None:
        """The tables on the terminal, metrics.json, report.md and figures."""
        generators = [Generator.from_record(self._solved(directory, name)) for name in self.generators]
        by_name = {found.name: found for found in generators}
        pools = [
            self._pool(phase, by_name[target], directory) for phase in self.chosen for target in self.targets_of(phase)
        ]
        measured = write_solving_report(
            generators, pools, self.selection, directory, title=self.title, facts=self._facts(directory)
        )
        print_solving_tables(measured)
        say(f"report: {directory / 'report.md'}")

    def _pool(self, phase: Phase, generator: Generator, directory: Path) -> Pool:
        scored = read_candidates(input_directory(directory, f"score-{phase.name}") / f"{generator.name}.jsonl")
        problems = tuple(
            dataclasses.replace(problem, scores=probabilities(one.labels, "log-probability"))
            for problem, one in zip(generator.samples, scored, strict=True)
        )
        return Pool(generator=generator.name, evaluator=phase.name, problems=problems)

    @property
    def _greedy(self) -> SamplingConfig:
        return dataclasses.replace(self.sampling, num_candidates=1, temperatures=(0.0,), top_p=1.0)

    def _load(self, name: str, directory: Path) -> LoadedModel:
        return load_model(self._weights(directory, name), self.placement)

    def _sampled(
        self, loaded: LoadedModel, name: str, directory: Path, file: str, config: SamplingConfig, where: Path
    ) -> list[Candidates]:
        """Solutions of a file of problems, under the problems' own prompts whatever stood before them."""
        data = input_directory(directory, "data")
        problems = read_candidates(data / file, min_candidates=0)
        description = f"{name}, {len(config.policies())} a problem"
        if not self.few_shot or name not in (GIVEN, *self.more_models):
            return sample_candidates(loaded, problems, config, where, description=description)
        shots = read_instructions(data / f"solutions-{self.sources[0].name}.jsonl")[: self.few_shot]
        asked = [dataclasses.replace(problem, prompt=few_shot(shots, problem.prompt)) for problem in problems]
        found = sample_candidates(loaded, asked, config, where, description=description)
        return [_first_solutions(one, problem.prompt) for one, problem in zip(found, problems, strict=True)]

    def _grade(self, example: Candidates) -> Graded:
        grader: Grader = "shared" if self.grading == "pool" else None
        return grade(example, style=self.style, grader=grader)

    def _choose_epoch(self, directory: Path) -> None:
        """The epoch that solves most validation problems greedily; of equals the earliest."""
        problems = read_candidates(input_directory(directory, "data") / VALIDATION, min_candidates=0)
        epochs = sorted((directory / EPOCHS).glob("*"), key=lambda path: int(path.name))
        accuracy = {}
        for model in (*epochs, directory / MODEL):
            name = model.relative_to(directory).as_posix()
            where = directory / "validation" / name.replace("/", "-")
            loaded = load_model(model, self.placement)
            found = sample_candidates(loaded, problems, self._greedy, where, description=f"validate {name}")
            accuracy[name] = sum(self._grade(one).right[0] for one in found) / len(found)
        best = max(accuracy, key=accuracy.__getitem__)
        say(f"{best} of {', '.join(f'{name}: {100 * value:.1f} %' for name, value in accuracy.items())}")
        write_json(directory / CHOICE, {"model": best, "accuracy": accuracy})

    def _weights(self, directory: Path, name: str) -> Path:
        """A model's directory; of a given one, checked to be that with which the run began."""
        if name not in (GIVEN, *self.more_models):
            trained = input_directory(directory, f"train-{name}")
            choice = trained / CHOICE
            return trained / (read_json(choice)["model"] if choice.is_file() else MODEL)
        known = read_json(input_directory(directory, "data") / SUMMARY)["models"][name]
        if directory_digest(self.given(name)) != known:
            raise ValueError(f"{self.given(name)} changed since the run began; put it back, or use another --workdir")
        return self.given(name)

    def _solved(self, directory: Path, name: str) -> Mapping[str, Any]:
        found: Mapping[str, Any] = read_json(input_directory(directory, f"solve-{name}") / SOLVED)
        return found

    def _facts(self, directory: Path) -> dict[str, str]:
        """What a reader has to know, by name."""
        summary = read_json(input_directory(directory, "data") / SUMMARY)
        models = {name: f"{self.given(name).name} ({digest[:12]})" for name, digest in summary.pop("models").items()}
        facts = {"models": _listed(models), **{name: _listed(value) for name, value in summary.items()}}
        for kind, drawn in (("test", self.sampling), ("training", self.training_sampling or self.sampling)):
            facts[f"samples of a {kind} problem"] = (
                f"{drawn.num_candidates} at temperature {_listed(drawn.temperatures)}, top-p {drawn.top_p:g}, seed "
                f"{drawn.seed}"
            )
        for phase in self.chosen:
            trained = input_directory(directory, f"train-{phase.name}")
            cost = read_json(trained / SUMMARY)
            facts[f"phase {phase.name}"] = (
                f"from {phase.start}; {cost['steps']} steps of {cost['groups_per_step']} problems, "
                f"{cost['num_groups']} problems with {cost['num_candidates']} solutions, learning rate "
                f"{phase.training.optimizer.learning_rate:g}"
                + (f"; examples of {phase.samples_of}: {phase.examples}" if phase.samples_of else "")
                + (f"; {read_json(trained / CHOICE)}" if phase.best_epoch else "")
            )
        return facts


def _listed(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_listed(one)}" for name, one in value.items())
    return ", ".join(map(_listed, value)) if isinstance(value, (list, tuple)) else f"{value}"


def _first_solutions(example: Candidates, prompt: str) -> Candidates:
    """Under the problem's own prompt, without the problems that a model invents after its solution."""
    cut = [first_solution(text) for text in example.responses]
    return dataclasses.replace(
        example,
        prompt=prompt,
        responses=tuple(text if first is None else first for text, first in zip(example.responses, cut, strict=True)),
        finished=tuple(done or first is not None for done, first in zip(example.finished, cut, strict=True)),
    )
