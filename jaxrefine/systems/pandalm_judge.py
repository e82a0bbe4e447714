"""PandaLM's judge: responses of several models, a teacher's verdicts on them, a model trained on those, its agreement.

Its stages are responses, records, judge, agreement.
"""

from __future__ import annotations

import dataclasses
import itertools
import pathlib
from collections.abc import Mapping, Sequence
from typing import Literal

import numpy as np

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.config import unknown_name
from jaxrefine.conversion.loaded import Placement, load_model
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.readers import read_candidates
from jaxrefine.data.readers_pandalm import (
    Annotated,
    JudgementRecord,
    Said,
    read_judgement_records,
    write_judgement_records,
)
from jaxrefine.data.tasks import TaskSource
from jaxrefine.evaluation.judge_report import JudgeReport, measure_judges, print_judges, write_judge_report
from jaxrefine.judging.distilled import JudgeForm, make_asker
from jaxrefine.judging.kept import KeptComparisons, KeptReplies
from jaxrefine.judging.local import Rows
from jaxrefine.judging.pairwise import Pair, PairwiseJudge, summarize_pairs
from jaxrefine.judging.prompts import Asking
from jaxrefine.judging.teachers import AskedTeacher, ExactTeacher, Filtered, Reasons, shown, teach
from jaxrefine.sampling.candidates import CANDIDATES, SamplingConfig, sample_candidates
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.training.finetuning import MODEL, Finetuning, finetune

RECORDS, HELD_OUT, UNSEEN, SUMMARY = "records.jsonl", "held_out.jsonl", "unseen.jsonl", "summary.json"
VERDICTS, REASONS, ORDERS = "verdicts.json", "reasons.json", "orders.json"
BY: tuple[Literal["reply", "likelihood"], ...] = ("reply", "likelihood")
"""How a judge is asked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeConfig:
    """How a judge comes about."""

    model: str = ""
    """A judge that is there, as a Hugging Face directory: nothing of the rest is run."""
    records: str = ""
    """Training records that are there: nobody responds and no teacher is asked."""
    held_out_records: str = ""
    """With ``records``: the pairs on which agreement is measured; "" keeps those of the last tasks apart."""
    tasks: TaskSource
    """What the models respond to."""
    num_held_out: int = 100
    """Tasks, the last ones, whose pairs the judge does not learn from."""
    tuning: Finetuning | None = None
    """Each base model responds as it is and, where this is given, tuned so."""
    tuning_tasks: TaskSource
    """What it is tuned on."""
    sampling: SamplingConfig = dataclasses.field(default_factory=lambda: SamplingConfig(num_candidates=1))
    """Of each responder on each task."""
    pairs_per_task: int = 1
    """Pairs of responses of different responders."""
    unseen: tuple[str, ...] = ()
    """Responders (a base model's name, or that and " tuned") of which the judge learns nothing: pairs with them on
    held-out tasks are measured apart."""
    teacher: EndpointConfig | None = None
    """A language model; None is the exact teacher, which knows the tasks' answers."""
    teacher_asking: Asking = dataclasses.field(default_factory=Asking)
    shorter: float = 0.8
    """Of two right responses the exact teacher prefers one of at most this share of the other's characters."""
    reasons: Reasons = "words"
    """How the exact teacher puts its reasons."""
    both_orders: bool = True
    """Learn from each kept pair in both orders."""
    start: str = ""
    """What is trained to judge, as a Hugging Face directory."""
    form: JudgeForm = dataclasses.field(default_factory=JudgeForm)
    """What it is shown and says."""
    training: Finetuning
    rows: Rows = dataclasses.field(default_factory=lambda: Rows(max_prompt=2048))
    slots: int = 64
    """Replies that grow at once."""
    seed: int = 0
    """Of which responses are paired."""

    def check(self) -> None:
        """Refuses what is not there, before anything runs."""
        name = "model" if self.model else "start"
        path = getattr(self, name)
        if not (path and pathlib.Path(path).expanduser().is_dir()):
            raise ValueError(f"there is no directory {path!r}; give yours with --judge.{name} DIRECTORY")
        if self.model:
            return
        if self.unseen and self.records:
            raise ValueError("judge.unseen keeps responders apart, and judge.records are there; give held_out_records")
        for name in ("records", "held_out_records"):
            if (path := getattr(self, name)) and not pathlib.Path(path).expanduser().is_file():
                raise ValueError(f"there is no file {path}; give yours with --judge.{name.replace('_', '-')} FILE")
        if not self.records:
            self.tasks.check("judge.tasks")
            if self.tuning is not None:
                self.tuning_tasks.check("judge.tuning-tasks")

    def directory(self, stage: pathlib.Path) -> pathlib.Path:
        """Where the judge is, as a later stage sees it."""
        return pathlib.Path(self.model).expanduser() if self.model else input_directory(stage, "judge") / MODEL


@dataclasses.dataclass(frozen=True)
class JudgeStages:
    """The stages that make a judge of base models.

    Args:
        config: how.
        bases: the names of the base models.
        placement: where all of them compute.
    """

    config: JudgeConfig
    bases: tuple[str, ...]
    placement: Placement

    def stages(self) -> list[Stage]:
        """Those that are needed; a judge that is there needs none."""
        if self.config.model:
            return []
        last = [
            Stage("judge", self.train, inputs=("records",)),
            Stage("agreement", self.measure, inputs=("records", "judge")),
        ]
        if self.config.records:
            return [Stage("records", self.take_records), *last]
        responses = Stage("responses", self.respond, inputs=("bases",))
        return [responses, Stage("records", self.make_records, inputs=("responses",)), *last]

    def respond(self, directory: pathlib.Path) -> None:
        """Every base responds to the tasks, as it is and tuned."""
        tasks = self.config.tasks.read()
        starts = read_json(input_directory(directory, "bases") / "models.json")
        for base in self.bases:
            models = {base: input_directory(directory, "bases") / starts[base]}
            if self.config.tuning is not None:
                models[f"{base} tuned"] = finetune(
                    models[base], self.config.tuning_tasks.read(), self.config.tuning,
                    directory / "tuned" / base, placement=self.placement, description=f"{base}, to respond",
                )  # fmt: skip
            for name, path in models.items():
                where = directory / "responses" / name
                if not (where / CANDIDATES).exists():
                    sample_candidates(
                        load_model(path, self.placement), prompts_of(tasks), self.config.sampling, where,
                        description=f"{name} responds",
                    )  # fmt: skip

    def make_records(self, directory: pathlib.Path) -> None:
        """Pairs of responses, the teacher's verdicts in both orders, what is kept of them."""
        tasks = self.config.tasks.read()
        if not 0 < self.config.num_held_out < len(tasks):
            raise ValueError(f"judge.num_held_out = {self.config.num_held_out} must be 1 … {len(tasks) - 1}")
        given = input_directory(directory, "responses") / "responses"
        found = {path.name: read_candidates(path / CANDIDATES) for path in sorted(given.iterdir())}
        if unknown := sorted(set(self.config.unseen) - set(found)):
            raise ValueError(unknown_name(unknown[0], found, "judge.unseen"))
        if len(set(found) - set(self.config.unseen)) < 2:
            raise ValueError(
                f"judge.unseen leaves {len(set(found) - set(self.config.unseen))} responders to learn from"
            )
        pairs, models = self._pairs(tasks, found)
        with Journal(directory / "opinions.jsonl") as journal:
            kept = self._teach(tasks, pairs, journal, directory)
        say(str(kept))
        held_out = {task.id for task in tasks[-self.config.num_held_out :]}
        parts: dict[str, list] = {name: [] for name in (RECORDS, HELD_OUT, *([UNSEEN] if self.config.unseen else []))}
        for record in kept.records:
            name = record.id.removesuffix("-swapped")
            named = models[name] if name == record.id else models[name][::-1]
            record = dataclasses.replace(record, meta={"models": list(named)})
            apart = name.rpartition("#")[0] in held_out
            is_new = not set(named).isdisjoint(self.config.unseen)
            if apart and name == record.id:  # agreement asks in both orders by itself
                parts[UNSEEN if is_new else HELD_OUT].append(record)
            elif not (apart or is_new):
                parts[RECORDS].append(record)
        for file, records in parts.items():
            write_judgement_records(directory / file, records)
        write_json(directory / SUMMARY, kept.record() | {file: len(records) for file, records in parts.items()})

    def take_records(self, directory: pathlib.Path) -> None:
        """Records that are there, those of the last tasks held out where no others are given for that."""
        records = read_judgement_records(pathlib.Path(self.config.records).expanduser())
        if self.config.held_out_records:
            held_out = read_judgement_records(pathlib.Path(self.config.held_out_records).expanduser())
        else:
            tasks = list(dict.fromkeys((record.instruction, record.input) for record in records))
            if not 0 < self.config.num_held_out < len(tasks):
                raise ValueError(f"judge.num_held_out = {self.config.num_held_out} must be 1 … {len(tasks) - 1} tasks")
            apart = set(tasks[-self.config.num_held_out :])
            held_out = [
                record
                for record in records
                if (record.instruction, record.input) in apart and not record.id.endswith("-swapped")
            ]
            records = [record for record in records if (record.instruction, record.input) not in apart]
        write_judgement_records(directory / RECORDS, records)
        write_judgement_records(directory / HELD_OUT, held_out)

    def train(self, directory: pathlib.Path) -> None:
        """Plain next-token learning of what the teacher said."""
        self.learn(read_judgement_records(input_directory(directory, "records") / RECORDS), directory, "the judge")

    def learn(self, records: Sequence[JudgementRecord], directory: pathlib.Path, description: str) -> None:
        """Trains a judge on records; stopped and called again, it goes on."""
        finetune(
            pathlib.Path(self.config.start).expanduser(), [self.config.form.example(record) for record in records],
            self.config.training, directory, placement=self.placement, description=description,
        )  # fmt: skip

    def measure(self, directory: pathlib.Path) -> None:
        """Agreement with the teacher on pairs that it did not see, by what it writes and by likelihood."""
        parts = [(HELD_OUT, directory, "The trained judge against its teacher")]
        if self.config.unseen:
            names = " and ".join(self.config.unseen)
            parts.append(
                (UNSEEN, directory / "unseen", f"The same on pairs with {names}, from which it learned nothing")
            )
        for file, where, title in parts:
            records = read_judgement_records(input_directory(directory, "records") / file)
            self.ask(self.config.directory(directory), records, where)
            found = against_teacher(records, where)
            say(title)
            print_judges(found, {})
            say(f"report: {write_judge_report(found, where, published={}, title=title)}")

    def ask(self, judge: pathlib.Path, records: Sequence[JudgementRecord], directory: pathlib.Path) -> None:
        """Asks a judge about the pairs of records in both orders, by what it writes and by likelihood.

        Args:
            judge: a model directory.
            records: their verdicts are not read.
            directory: keeps what was said, ``verdicts.json``, ``reasons.json`` and ``orders.json``.
        """
        model = load_model(judge, self.placement)
        pairs = [Pair(pair.id, pair.prompt, pair.first, pair.second) for pair in (one.comparison() for one in records)]
        said: dict[str, dict[str, str]] = {}
        reasons: dict[str, dict[str, str]] = {}
        orders: dict[str, dict[str, float]] = {}
        for by in BY:
            with Journal(directory / f"{by}.jsonl") as journal, Journal(directory / f"{by}_texts.jsonl") as written:
                replies = KeptReplies(written)
                asker = make_asker(
                    model, self.config.form, by=by, rows=self.config.rows, slots=self.config.slots, heard=replies
                )
                kept = KeptComparisons(PairwiseJudge(asker), journal)
                compared = kept.compare(pairs, description=f"held-out pairs, by {by}")
            summary = summarize_pairs(compared)
            say(f"by {by}: {summary}")
            orders[f"by {by}"] = summary.record()
            said[f"by {by}"] = {pair.id: both.outcome for pair, both in zip(pairs, compared, strict=True)}
            reasons[f"by {by}"] = {pair.id: self.config.form.reason(replies.of(pair)) for pair in pairs}
        write_json(directory / VERDICTS, said)
        write_json(directory / REASONS, reasons)
        write_json(directory / ORDERS, orders)

    def _pairs(
        self, tasks: Sequence[Instruction], found: Mapping[str, Sequence[Candidates]]
    ) -> tuple[list[Pair], dict[str, tuple[str, str]]]:
        """Pairs of different responders, drawn anew for each task, in a drawn order."""
        both = list(itertools.permutations(found, 2))
        pairs: list[Pair] = []
        models: dict[str, tuple[str, str]] = {}
        for index, task in enumerate(tasks):
            generator = np.random.default_rng((self.config.seed, index))
            for number, place in enumerate(generator.permutation(len(both))[: self.config.pairs_per_task]):
                id, (one, other) = f"{task.id}#{number}", both[place]
                texts = [found[name][index].responses for name in (one, other)]
                drawn = [str(of_model[int(generator.integers(len(of_model)))]) for of_model in texts]
                pairs.append(Pair(id, shown(task), *drawn))
                models[id] = one, other
        return pairs, models

    def _teach(
        self, tasks: Sequence[Instruction], pairs: Sequence[Pair], journal: Journal, directory: pathlib.Path
    ) -> Filtered:
        if self.config.teacher is None:
            exact = ExactTeacher(tasks, shorter=self.config.shorter, reasons=self.config.reasons)
            return teach(pairs, exact, journal, both_orders=self.config.both_orders)
        with Endpoint(self.config.teacher, directory / "replies") as endpoint:
            asked = AskedTeacher(endpoint, asking=self.config.teacher_asking)
            return teach(pairs, asked, journal, both_orders=self.config.both_orders)


def against_teacher(records: Sequence[JudgementRecord], asked: pathlib.Path) -> JudgeReport:
    """How far a judge agrees with the verdicts of records.

    Args:
        records: that it was asked about.
        asked: the directory of ``JudgeStages.ask``.
    """
    truth = [
        Annotated(
            id=pair.id, models=_models(record.meta), instruction=pair.prompt, first=pair.first, second=pair.second,
            said=(record.verdict,),
        )
        for pair, record in ((one.comparison(), one) for one in records)
    ]  # fmt: skip
    reasons = read_json(asked / REASONS)
    said = {
        how: {id: Said(verdict=verdict, reason=reasons[how][id], reference="") for id, verdict in verdicts.items()}
        for how, verdicts in read_json(asked / VERDICTS).items()
    }
    return measure_judges(truth, said, truth="the teacher")


def prompts_of(tasks: Sequence[Instruction]) -> list[Candidates]:
    """Tasks as prompts to respond to; their solutions stay behind."""
    return [Candidates(task.id, task.prompt, answer=task.answer) for task in tasks]


def _models(meta: Mapping[str, object]) -> tuple[str, str]:
    found = meta.get("models")
    return (str(found[0]), str(found[1])) if isinstance(found, list) and len(found) == 2 else ("", "")
