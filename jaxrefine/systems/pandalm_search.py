"""PandaLM's search: many settings of a fine-tuning, each answers the validation tasks once, a judge finds the best.

Its stages are trials, answers, tournament, harness (where lm-eval is asked), report.
"""

from __future__ import annotations

import dataclasses
import math
import pathlib
from collections.abc import Mapping, Sequence

import numpy as np

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import progress, say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.conversion.loaded import LoadedModel, Placement, load_model
from jaxrefine.data.examples import Instruction
from jaxrefine.data.groups import Refused, tokenize_group
from jaxrefine.data.packing import PackingConfig
from jaxrefine.data.readers import read_candidates
from jaxrefine.data.tasks import TaskSource
from jaxrefine.evaluation.harness import HarnessConfig, ask_harness, write_own_task
from jaxrefine.evaluation.search_report import DEFAULT, UNTUNED, Answered, SearchResult, write_search_report
from jaxrefine.judging.answers import is_right
from jaxrefine.judging.distilled import make_asker
from jaxrefine.judging.kept import KeptComparisons
from jaxrefine.judging.pairwise import Pair, PairwiseJudge
from jaxrefine.judging.teachers import shown
from jaxrefine.models.attention import reads_paths
from jaxrefine.sampling.candidates import CANDIDATES, SamplingConfig, sample_candidates
from jaxrefine.scoring.objectives import Objective
from jaxrefine.scoring.reference import ScoreFunction, make_score, score_groups
from jaxrefine.scoring.scorers import SequenceLogProb
from jaxrefine.selection.tournament import Match, Matches, Outcome, make_bracket, play, round_robin
from jaxrefine.systems.pandalm_judge import JudgeConfig, prompts_of
from jaxrefine.training.cluster import Cluster
from jaxrefine.training.finetuning import MODEL, Finetuning
from jaxrefine.training.grid import Grid, grid_models, grid_runs
from jaxrefine.training.runs import Run, run_all

MODELS, PERPLEXITY, RESULT, GRID = "models.json", "perplexity.json", "result.json", "grid"


@dataclasses.dataclass(frozen=True, kw_only=True)
class SearchConfig:
    """What is tried, and on what it is judged."""

    tasks: TaskSource
    """What is learned."""
    default: Finetuning
    """The setting to beat; the grid replaces its axes in it."""
    grid: Grid
    cluster: Cluster = dataclasses.field(default_factory=Cluster)
    """Who trains the runs of the grid and the default."""
    num_blocks: int = 4
    """Of the tournament."""
    validation: TaskSource
    """What every trial answers for the judge."""
    test: TaskSource | None = None
    """With known answers: what confirms the judge's choice; no judge sees it."""
    sampling: SamplingConfig = dataclasses.field(
        default_factory=lambda: SamplingConfig(num_candidates=1, temperatures=(0.0,), max_new_tokens=512)
    )
    """Of the answers, one a task."""
    round_robin: bool = False
    """Play all against all as well: M (M + 1) / 2 matches of M trials and the default."""
    harness: HarnessConfig = dataclasses.field(default_factory=HarnessConfig)
    """What lm-eval is asked about the champion, the default and the base model before tuning."""

    def __post_init__(self) -> None:
        if len(self.sampling.policies()) != 1:
            raise ValueError("search.sampling: every trial answers a task once; give one temperature and one candidate")
        if not 1 <= self.num_blocks <= len(self.grid.trials()):
            raise ValueError(f"search.num_blocks = {self.num_blocks} must be 1 … {len(self.grid.trials())} trials")
        self.grid.finetuning(self.grid.trials()[0], self.default)  # an axis that is no setting is better noticed now

    def check(self) -> None:
        """Refuses what is not there, before anything runs."""
        self.tasks.check("search.tasks")
        self.validation.check("search.validation")
        if self.test is not None:
            self.test.check("search.test")
        elif self.harness.own:
            raise ValueError("search.harness.own asks the tasks of search.test, and there are none")
        if self.harness.own and self.test is not None and any(task.answer is None for task in self.test.read()):
            raise ValueError("search.harness.own asks for known answers, and tasks of search.test have none")
        self.harness.check("search.harness")


@dataclasses.dataclass(frozen=True)
class SearchStages:
    """The stages of a search.

    Args:
        config: of the search.
        judge: who judges.
        bases: the names of the base models.
        placement: where all of them compute.
        title: of the report.
    """

    config: SearchConfig
    judge: JudgeConfig
    bases: tuple[str, ...]
    placement: Placement
    title: str

    def stages(self) -> list[Stage]:
        """All of them."""
        judged = () if self.judge.model else ("judge",)
        asked = ("harness",) if self.config.harness.is_wanted else ()
        return [
            Stage("trials", self.train, inputs=("bases",)),
            Stage("answers", self.answer, inputs=("trials",)),
            Stage("tournament", self.compare, inputs=("answers", *judged)),
            *(Stage(name, self.ask, inputs=("bases", "trials", "tournament")) for name in asked),
            Stage("report", self.report, inputs=("trials", "answers", "tournament", *asked)),
        ]

    def train(self, directory: pathlib.Path) -> None:
        """Every run of the grid, and the default, from every base model."""
        tasks, config = self.config.tasks.read(), self.config
        starts = read_json(input_directory(directory, "bases") / MODELS)
        runs: list[Run] = []
        for base in self.bases:
            start, where = input_directory(directory, "bases") / starts[base], directory / base
            runs += grid_runs(start, config.default, config.grid, where / GRID, prefix=f"{base} ")
            runs.append(Run(name=f"{base} {DEFAULT}", start=start, config=config.default, directory=where / DEFAULT))
        run_all(runs, tasks, cluster=config.cluster, placement=self.placement)
        models: dict[str, dict[str, str | None]] = {}
        for base in self.bases:
            trained = grid_models(config.grid, directory / base / GRID) | {DEFAULT: directory / base / DEFAULT / MODEL}
            models[base] = {
                name: None if path is None else str(path.relative_to(directory)) for name, path in trained.items()
            }
        write_json(directory / MODELS, models)

    def answer(self, directory: pathlib.Path) -> None:
        """Every trial answers the tasks of validation and test once; perplexity of the validation responses."""
        trials = input_directory(directory, "trials")
        validation, test = self._tasks()
        prompts = prompts_of([*validation, *test])
        for base, found in read_json(trials / MODELS).items():
            score: ScoreFunction | None = None
            for number, (name, model) in enumerate(found.items(), start=1):
                where = directory / base / name.replace(" ", "_")
                if model is None or (where / PERPLEXITY).exists():
                    continue
                loaded = load_model(trials / model, self.placement)
                label = f"{base} {number}/{len(found)}: {name} answers"
                sample_candidates(loaded, prompts, self.config.sampling, where, description=label)
                if score is None:  # compiled once for all trials of a base
                    score = make_score(Objective(model=loaded.model, scorer=SequenceLogProb(0.0)), mesh=loaded.mesh)
                write_json(where / PERPLEXITY, {"perplexity": perplexity(validation, loaded, score)})

    def compare(self, directory: pathlib.Path) -> None:
        """The tournament, the champion against the default, and the round robin where it is asked for."""
        model = load_model(self.judge.directory(directory), self.placement)
        asker = make_asker(model, self.judge.form, slots=self.judge.slots)
        validation, _ = self._tasks()
        results = {}
        for base in self.bases:
            answers = self._answers(directory, base)
            alive = [name for name in answers if name != DEFAULT]
            if not alive:
                raise ValueError(f"{base}: every run of the grid diverged; try lower learning rates")
            bracket = make_bracket(alive, min(self.config.num_blocks, len(alive)))
            say(f"{base}: {bracket.budget(num_prompts=len(validation))}")
            where = directory / base
            with Journal(where / "said.jsonl") as said, Journal(where / "matches.jsonl") as kept:
                judge = KeptComparisons(PairwiseJudge(asker), said)

                def compare(one: str, other: str) -> Match:
                    return judge.match(one, other, _pairs(validation, answers[one], answers[other]))  # noqa: B023

                matches = Matches(compare, kept, num_prompts=len(validation))
                rounds = len(alive) * (len(alive) + 1) // 2 if self.config.round_robin else len(alive)
                with progress(rounds, f"{base}: matches", initial=len(matches), unit="matches") as bar:

                    def counted(one: str, other: str) -> Match:
                        before = len(matches)  # noqa: B023
                        match = matches(one, other)  # noqa: B023
                        bar.advance(len(matches) - before)  # noqa: B023
                        return match

                    outcome = play(bracket, counted)
                    final = counted(outcome.champion, DEFAULT)
                    everyone = round_robin([*alive, DEFAULT], counted) if self.config.round_robin else []
                results[base] = {
                    "outcome": dataclasses.asdict(outcome),
                    "tournament_questions": sum(match.questions for match in outcome.matches),
                    "final": dataclasses.asdict(final),
                    "round_robin": [dataclasses.asdict(match) for match in everyone],
                    "questions": judge.questions,
                }
            say(f"{base}: the champion is {outcome.champion}")
        write_json(directory / RESULT, results)

    def ask(self, directory: pathlib.Path) -> None:
        """What lm-eval measures of each base's champion, default and base model; measured ones are kept."""
        config, limit = self.config.harness, self.config.sampling.max_new_tokens
        own = write_own_task(self._tasks()[1], directory / "task", max_new_tokens=limit) if config.own else None
        bases, trials = (input_directory(directory, name) for name in ("bases", "trials"))
        starts, models = read_json(bases / MODELS), read_json(trials / MODELS)
        played = read_json(input_directory(directory, "tournament") / RESULT)
        results: dict[str, dict[str, dict[str, dict[str, float]]]] = {}
        with Journal(directory / "measured.jsonl") as kept:
            for base in self.bases:
                champion = played[base]["outcome"]["champion"]
                paths = {name: trials / models[base][name] for name in (champion, DEFAULT)}
                for name, path in {UNTUNED: bases / starts[base], **paths}.items():
                    if (key := f"{base}: {name}") not in kept:
                        say(f"lm-eval: {key}")
                        loaded = load_model(path, self.placement)
                        kept.append(key, ask_harness(loaded, config, own, max_new_tokens=limit))
                    results.setdefault(base, {})[name] = kept.records()[key]
        write_json(directory / RESULT, results)

    def report(self, directory: pathlib.Path) -> None:
        """Accuracy beside the judge's opinion; prints what was found, writes the report."""
        kept = read_json(input_directory(directory, "tournament") / RESULT)
        models = read_json(input_directory(directory, "trials") / MODELS)
        results = [self._result(directory, base, kept[base], models[base]) for base in self.bases]
        if self.config.harness.is_wanted:
            measured = read_json(input_directory(directory, "harness") / RESULT)
            results = [dataclasses.replace(found, harness=measured[found.base]) for found in results]
        path = write_search_report(results, directory, title=self.title)
        for found in results:
            gain = found.gain()
            measured = (
                ""
                if gain is None
                else f"; accuracy {100 * gain.value:+.1f} points, {100 * gain.low:+.1f} to {100 * gain.high:+.1f}"
            )
            say(
                f"{found.base}: {found.outcome.champion} against the default: {found.final.wins} won, "
                f"{found.final.losses} lost, {found.final.ties} tied{measured}"
            )
        say(f"report: {path}")

    def _result(
        self, directory: pathlib.Path, base: str, kept: Mapping, models: Mapping[str, str | None]
    ) -> SearchResult:
        validation, test = self._tasks()
        outcome = kept["outcome"]
        answered = {}
        where = input_directory(directory, "answers") / base
        for name, texts in self._answers(directory, base, whole=True).items():
            last = texts[len(validation) :] or texts
            known = bool(test) and all(task.answer is not None for task in test)
            right = tuple(
                float(is_right(text, str(task.answer)) == "right") for text, task in zip(last, test, strict=True)
            ) if known else None  # fmt: skip
            answered[name] = Answered(
                right=right,
                mean_characters=float(np.mean([len(text) for text in last])),
                perplexity=read_json(where / name.replace(" ", "_") / PERPLEXITY)["perplexity"],
            )
        trials = {trial.name: trial for trial in self.config.grid.trials() if trial.name in answered}
        return SearchResult(
            base=base,
            trials=trials,
            diverged=tuple(name for name, model in models.items() if model is None),
            answered=answered,
            budget=make_bracket(list(trials), 1).budget(num_prompts=len(validation)),
            outcome=Outcome(
                champion=outcome["champion"],
                winners=tuple(outcome["winners"]),
                matches=tuple(map(_match, outcome["matches"])),
            ),
            tournament_questions=kept["tournament_questions"],
            final=_match(kept["final"]),
            round_robin=tuple(map(_match, kept["round_robin"])),
            questions=kept["questions"],
        )

    def _tasks(self) -> tuple[list[Instruction], list[Instruction]]:
        """For the judge, and for the test; ids of the two are told apart."""
        parts = [self.config.validation.read(), [] if self.config.test is None else self.config.test.read()]
        return tuple(  # type: ignore[return-value]
            [dataclasses.replace(task, id=f"{name} {task.id}") for task in part]
            for name, part in zip(("validation", "test"), parts, strict=True)
        )

    def _answers(self, directory: pathlib.Path, base: str, *, whole: bool = False) -> dict[str, list[str]]:
        """The texts of every trial that is alive, by name in the grid's order, the default's last."""
        where = input_directory(directory, "answers") / base
        names = [*(trial.name for trial in self.config.grid.trials()), DEFAULT]
        validation, _ = self._tasks()
        found = {}
        for name in names:
            file = where / name.replace(" ", "_") / CANDIDATES
            if file.exists():
                texts = [example.responses[0] for example in read_candidates(file)]
                found[name] = texts if whole else texts[: len(validation)]
        return found


def perplexity(tasks: Sequence[Instruction], model: LoadedModel, score: ScoreFunction) -> float | None:
    """Perplexity: exp of the mean negative log-likelihood of all responses' tokens; None without responses.

    Args:
        tasks: prompts with responses; EOS counts as a token.
        model: a decoder.
        score: of ``make_score`` with a sequence scorer, for models of one architecture.
    """
    wanted = [task for task in tasks if task.response]
    if not wanted:
        return None
    room = model.model.config.max_positions
    groups = []
    for index, task in enumerate(wanted):
        group = tokenize_group(task, model.tokenizer, group_id=index, max_prompt=room, max_response=room)
        if isinstance(group, Refused):
            raise ValueError(f"task {task.id!r}: {group.reason}")
        groups.append(group)
    expand = reads_paths(model.model)
    packing = PackingConfig.fit(groups, rows=8 * model.num_shards, slots=512, expand=expand)
    sums = score_groups(score, {"model": model.params}, groups, packing, read="sums")
    total = math.fsum(float(values[0]) for values in sums.values())
    return math.exp(-total / sum(len(group.responses[0]) for group in groups))


def _pairs(tasks: Sequence[Instruction], one: Sequence[str], other: Sequence[str]) -> list[Pair]:
    return [Pair(task.id, shown(task), *texts) for task, *texts in zip(tasks, one, other, strict=True)]


def _match(record: Mapping) -> Match:
    return Match(**{**record, "outcomes": tuple(record["outcomes"])})
