"""How far judges agree with people on pairs that people judged: published verdicts, and a model that is here."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.conversion.loaded import Placement, load_model
from jaxrefine.data.readers_pandalm import (
    Annotated,
    JudgementRecord,
    Said,
    read_auto_j,
    read_judgement_records,
    read_pandalm_test_set,
    read_pandalm_verdicts,
)
from jaxrefine.evaluation.judge_report import PEOPLE, PUBLISHED, measure_judges, print_judges, write_judge_report
from jaxrefine.evaluation.pandalm_test_set import notes_on_test_set
from jaxrefine.judging.distilled import JudgeForm, make_asker
from jaxrefine.judging.kept import KeptComparisons, KeptReplies
from jaxrefine.judging.local import Rows
from jaxrefine.judging.pairwise import Pair, PairwiseJudge, summarize_pairs

SAID = "said.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeAgreement:
    """A report on judges; stopped at any instant, the same command goes on."""

    data: str = ""
    """The directory of PandaLM's test set: its file and all published verdicts in it are read. The report says which of
    the 999 rows are there, and with all of them whether the counts are those that are known."""
    pairs: str = ""
    """Instead of ``data``: a file of pairs that people judged."""
    pairs_format: Literal["pandalm", "auto_j", "records"] = "pandalm"
    """How that file is written; "records" are training records (``write_judgement_records``), one verdict a pair."""
    verdicts: tuple[str, ...] = ()
    """Further verdicts on the pairs, ``NAME=FILE`` in PandaLM's form."""
    judge: str = ""
    """A Hugging Face directory of a judge; it is asked about every pair in both orders."""
    by: Literal["reply", "likelihood"] = "reply"
    """What the judge writes, or the likeliest of the three verdict texts."""
    form: JudgeForm = dataclasses.field(default_factory=JudgeForm)
    """What the judge is shown and says."""
    shots: str = ""
    """A file of training records; the first ``num_shots`` stand before the question (by likelihood)."""
    num_shots: int = 0
    rows: Rows = dataclasses.field(default_factory=lambda: Rows(max_prompt=2048))
    slots: int = 64
    """Replies that grow at once."""
    placement: Placement = dataclasses.field(default_factory=Placement)
    least_lead: int = 5
    """|wins − losses| below this is similar."""
    seed: int = 0
    """Of the bootstrap."""
    title: str = "Judges against people"

    def stages(self) -> list[Stage]:
        """Verdicts, report."""
        if bool(self.data) == bool(self.pairs):
            raise ValueError("nothing to judge: give yours with --data DIRECTORY or --pairs FILE, one of them")
        shots = [pathlib.Path(self.shots)] if self.shots else []
        for path in [self._pairs_file(), *self._published().values(), *shots]:
            if not path.is_file():
                raise ValueError(f"there is no file {path}; give yours with --data DIRECTORY or --pairs FILE")
        if self.num_shots and not (self.shots and self.by == "likelihood"):
            raise ValueError("--num-shots needs --shots FILE and --by likelihood")
        return [
            Stage("verdicts", self.collect),
            Stage("report", self.report, inputs=("verdicts",)),
        ]

    def collect(self, directory: pathlib.Path) -> None:
        """Reads published verdicts, and asks the judge that is here for its own."""
        said = {name: read_pandalm_verdicts(path) for name, path in self._published().items()}
        pairs = self.read_pairs()
        if self.judge:
            name = f"{pathlib.Path(self.judge).resolve().name}, {self.by}"
            said[name] = self._ask(pairs, directory)
        write_json(
            directory / SAID,
            {judge: {id: dataclasses.asdict(one) for id, one in found.items()} for judge, found in said.items()},
        )

    def report(self, directory: pathlib.Path) -> None:
        """Measures, prints the table, writes the report."""
        kept = read_json(input_directory(directory, "verdicts") / SAID)
        said = {judge: {id: Said(**one) for id, one in found.items()} for judge, found in kept.items()}
        truth = "the records" if self.pairs_format == "records" else PEOPLE
        pairs = self.read_pairs()
        found = measure_judges(pairs, said, truth=truth, seed=self.seed)
        notes = notes_on_test_set(pairs, found) if self.pairs_format == "pandalm" else []
        published = PUBLISHED if self.pairs_format == "pandalm" else {}
        print_judges(found, published)
        for note in notes:
            say(note)
        path = write_judge_report(
            found, directory, published=published, title=self.title, least=self.least_lead, notes=notes
        )
        say(f"report: {path}")

    def read_pairs(self) -> list[Annotated]:
        """The pairs with what people said."""
        path = self._pairs_file()
        if self.pairs_format == "records":
            return [_annotated(record) for record in read_judgement_records(path)]
        return read_auto_j(path) if self.pairs_format == "auto_j" else read_pandalm_test_set(path)

    def _pairs_file(self) -> pathlib.Path:
        return pathlib.Path(self.pairs) if self.pairs else _present(pathlib.Path(self.data) / f"{TEST_SET}.json")

    def _published(self) -> dict[str, pathlib.Path]:
        found: dict[str, pathlib.Path] = {}
        if self.data:
            for path in sorted(pathlib.Path(self.data).glob(f"*-{TEST_SET}.json*")):
                found[path.name.partition(f"-{TEST_SET}")[0]] = path
        for given in self.verdicts:
            name, equals, file = given.partition("=")
            if not (name and equals and file):
                raise ValueError(f"--verdicts {given!r}: NAME=FILE is wanted")
            found[name] = pathlib.Path(file)
        return found

    def _ask(self, pairs: Sequence[Annotated], directory: pathlib.Path) -> dict[str, Said]:
        """Both orders of every pair; a contradiction is a tie."""
        model = load_model(pathlib.Path(self.judge), self.placement)
        shots = read_judgement_records(self.shots)[: self.num_shots] if self.num_shots else []
        with Journal(directory / "judged.jsonl") as journal, Journal(directory / "replies.jsonl") as written:
            replies = KeptReplies(written)
            asker = make_asker(
                model, self.form, by=self.by, rows=self.rows, slots=self.slots, shots=shots, heard=replies
            )
            judge = KeptComparisons(PairwiseJudge(asker), journal)
            asked = [Pair(pair.id, pair.instruction, pair.first, pair.second) for pair in pairs]
            compared = judge.compare(asked, description="pairs in both orders")
        say(str(summarize_pairs(compared)))
        return {
            pair.id: Said(verdict=both.outcome, reason=self.form.reason(replies.of(pair)), reference="")
            for pair, both in zip(asked, compared, strict=True)
        }


TEST_SET = "testset-v1"


def _present(path: pathlib.Path) -> pathlib.Path:
    packed = path.with_name(f"{path.name}.gz")
    return packed if packed.is_file() else path


def _annotated(record: JudgementRecord) -> Annotated:
    pair = record.comparison()
    models = tuple(record.meta.get("models", ("", "")))
    return Annotated(
        id=record.id, models=(models[0], models[1]), instruction=pair.prompt, first=pair.first, second=pair.second,
        said=(pair.verdict,),
    )  # fmt: skip
