"""PandaLM's judge trained on less: the same records, the same start, agreement against how many were learned.

Its stages are those of the judge up to the records, then judges, agreement, report.
"""

from __future__ import annotations

import dataclasses
import pathlib

from jaxrefine.artefacts.atomic import read_json
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.data.identity import number_of
from jaxrefine.data.readers_pandalm import JudgementRecord, read_judgement_records
from jaxrefine.evaluation.judge_sizes import SizedJudge, print_sizes, write_sizes_report
from jaxrefine.systems.pandalm import PandaLM
from jaxrefine.systems.pandalm_judge import BY, HELD_OUT, ORDERS, RECORDS, JudgeStages, against_teacher
from jaxrefine.training.finetuning import MODEL, SUMMARY

_SWAPPED = "-swapped"


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgeDataSizes:
    """A judge a size; stopped at any instant, the same command goes on."""

    whole: PandaLM
    """Its base models and judge; its search is left aside."""
    sizes: tuple[int, ...] = ()
    """Records to learn from, in both orders where the judge learns so: the smallest first."""
    title: str = "Agreement of the judge against how much it learned"

    def __post_init__(self) -> None:
        if not self.sizes or min(self.sizes) < 1 or list(self.sizes) != sorted(set(self.sizes)):
            raise ValueError(f"sizes = {self.sizes}: give at least one, from 1 on, in order, each once")

    def stages(self) -> list[Stage]:
        """The judge's as far as the records, then one training and measurement a size."""
        if self.whole.judge.model:
            raise ValueError(f"whole.judge.model = {self.whole.judge.model!r}: a judge that is there learns nothing")
        whole = dataclasses.replace(self.whole, search=None).stages()
        names = [stage.name for stage in whole]
        return [
            *whole[: names.index("records") + 1],
            Stage("judges", self.train, inputs=("records",)),
            Stage("agreement", self.measure, inputs=("records", "judges")),
            Stage("report", self.report, inputs=("records", "judges", "agreement")),
        ]

    def train(self, directory: pathlib.Path) -> None:
        """A judge a size, each from the same start."""
        records = in_drawn_order(read_judgement_records(input_directory(directory, "records") / RECORDS))
        if self.sizes[-1] > len(records):
            raise ValueError(f"sizes: {self.sizes[-1]} records are wanted and there are {len(records)}")
        for size in self.sizes:
            self._judge().learn(records[:size], directory / str(size), f"a judge of {size} records")

    def measure(self, directory: pathlib.Path) -> None:
        """Every judge is asked about the held-out pairs in both orders; what was said is kept."""
        records = read_judgement_records(input_directory(directory, "records") / HELD_OUT)
        for size in self.sizes:
            judge = input_directory(directory, "judges") / str(size) / MODEL
            self._judge().ask(judge, records, directory / str(size))

    def report(self, directory: pathlib.Path) -> None:
        """The table, on the terminal too, and the curve."""
        records = read_judgement_records(input_directory(directory, "records") / HELD_OUT)
        judges, asked = (input_directory(directory, name) for name in ("judges", "agreement"))
        found = []
        for size in self.sizes:
            orders = read_json(asked / str(size) / ORDERS)
            found.append(
                SizedJudge(
                    num_records=size,
                    steps=read_json(judges / str(size) / SUMMARY)["steps"],
                    found=against_teacher(records, asked / str(size)),
                    conflicts={f"by {how}": orders[f"by {how}"]["conflict_rate"] for how in BY},
                )
            )
        print_sizes(found)
        say(f"report: {write_sizes_report(found, directory, title=self.title)}")

    def _judge(self) -> JudgeStages:
        whole = self.whole
        return JudgeStages(whole.judge, tuple(base.name for base in whole.bases), whole.placement)


def in_drawn_order(records: list[JudgementRecord]) -> list[JudgementRecord]:
    """Records in an order that depends on their ids alone; the two orders of a pair stay together.

    The first n are so a sample of all, whatever the file's order, and hold the first m < n.
    """
    return sorted(records, key=lambda record: (number_of(record.id.removesuffix(_SWAPPED)), record.id))
