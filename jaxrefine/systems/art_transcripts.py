"""Ask, refine, trust on public transcripts: real answers of real models to GSM8K, no model runs here.

Each of four models answered the same problems twice, with the sub-questions of a weak asker (a GPT-2 trained by
filtered behaviour cloning) and with those of a strong one (ChatGPT): the first answer and the refined one. No decision
of an Asker and no score of a Truster is among the public data; other public models stand in for both: an answer that
fewer of them share is likelier to need refinement, and of two answers the one that more of them share is trusted.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.config import unknown_name
from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import read_gsm8k
from jaxrefine.data.readers_refinement import read_routellm_gsm8k, read_sub_question_transcripts, read_tora
from jaxrefine.evaluation.refinement import (
    Answer,
    Query,
    Refinements,
    RefinementSettings,
    measure_refinement,
)
from jaxrefine.evaluation.refinement_report import print_refinement_table, write_refinement_report
from jaxrefine.judging.answers import cluster, extract
from jaxrefine.selection.trust import Signals

ANSWERS = "answers.json"
GOLD = "gsm8k/test.jsonl.gz"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Source:
    """Public answers of one model to every problem."""

    file: str
    """Under the data directory."""
    read: Callable[[pathlib.Path], list[Candidates]]
    index: int = 0
    """Which of a problem's responses."""


def _asked(answerer: str, asker: str) -> Source:
    return Source(file=f"gsm8k_ai_subq/{answerer}__{asker}.jsonl.gz", read=read_sub_question_transcripts)


ANSWERERS: dict[str, str] = {"ChatGPT": "chatgpt", "LLaMA-7B": "llama7b", "LLaMA-13B": "llama13b", "Mistral": "mistral"}
"""The models that answered with sub-questions, by title."""
ASKERS: dict[str, str] = {"GPT-2": "eval_filtered_bc_medium", "ChatGPT": "eval_chat"}
"""Who wrote the sub-questions."""

SOURCES: dict[str, Source] = {
    **{
        f"{answerer}, asked by {asker}": _asked(file, kind)
        for answerer, file in ANSWERERS.items()
        for asker, kind in ASKERS.items()
    },
    "ToRA 34B": Source(file="tora/tora-code-34b-v1.0__gsm8k_test.jsonl.gz", read=read_tora),
    "ToRA 70B": Source(file="tora/tora-70b-v1.0__gsm8k_test.jsonl.gz", read=read_tora),
    "Mixtral": Source(file="routellm/gsm8k_responses.csv.gz", read=read_routellm_gsm8k, index=0),
    "GPT-4": Source(file="routellm/gsm8k_responses.csv.gz", read=read_routellm_gsm8k, index=1),
}
"""Public answers by name."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Transcripts:
    """A report on public answers."""

    data: str = ""
    """The directory with the public data sets."""
    answerers: tuple[str, ...] = tuple(ANSWERERS)
    """Whose two answers are compared."""
    first_asker: str = "GPT-2"
    """Whose sub-questions the first answer had."""
    second_asker: str = "ChatGPT"
    """Whose sub-questions the refined answer had."""
    committee: tuple[str, ...] = ("ToRA 34B", "ToRA 70B", "Mixtral")
    """The models that stand in for Asker and Truster, of `SOURCES`."""
    third: str = "Mixtral"
    """Whose answer is the third of the vote of three, beside the first and the refined one."""
    settings: RefinementSettings = dataclasses.field(
        default_factory=lambda: RefinementSettings(decision="threshold", threshold=0.9)
    )
    """Threshold (0.9: where the whole committee disagrees), curve, bootstrap."""

    def stages(self) -> list[Stage]:
        """Answers, report."""
        if not self.data:
            raise ValueError("the transcripts are in a directory of public data: give yours with --data DIRECTORY")
        for name in self.answerers:
            if name not in ANSWERERS:
                raise ValueError(unknown_name(name, ANSWERERS, "answerer"))
        for name in (self.first_asker, self.second_asker):
            if name not in ASKERS:
                raise ValueError(unknown_name(name, ASKERS, "asker"))
        for name in (*self.committee, self.third):
            if name not in SOURCES:
                raise ValueError(unknown_name(name, SOURCES, "source"))
        for file in (GOLD, *(SOURCES[name].file for name in self._sources())):
            if not (pathlib.Path(self.data) / file).is_file():
                raise ValueError(f"{pathlib.Path(self.data) / file} is not there")
        return [Stage("answers", self.gather), Stage("report", self.report, inputs=("answers",))]

    def gather(self, directory: pathlib.Path) -> None:
        """Reads every answer and sorts those to each problem into clusters of equal ones, the known answer among them.

        Writes for each source one cluster a problem, null where no answer is stated; cluster 0 is the known answer.
        """
        root = pathlib.Path(self.data)
        known = read_gsm8k(root / GOLD)
        names = self._sources()
        stated = {name: _stated(name, SOURCES[name], root, [record.prompt for record in known]) for name in names}
        clusters: dict[str, list[int | None]] = {name: [] for name in names}
        for place, record in enumerate(known):
            # The known answer first: its cluster is 0, and nothing that is undecided counts as right.
            found = cluster([record.answer, *(stated[name][place] for name in names)], grader=None)
            for name, number in zip(names, found[1:], strict=True):
                clusters[name].append(number)
        write_json(directory / ANSWERS, {"ids": [record.id for record in known], "clusters": clusters})

    def report(self, directory: pathlib.Path) -> None:
        """Measures every answerer; prints the table and writes the report."""
        record = read_json(input_directory(directory, "answers") / ANSWERS)
        measured = [measure_refinement(found, self.settings) for found in self.refinements(record)]
        print_refinement_table(measured)
        committee = ", ".join(self.committee)
        facts = {
            "answers": f"public transcripts on {len(record['ids'])} test problems of GSM8K; the first with the "
            f"sub-questions of {self.first_asker}, the refined with those of {self.second_asker}",
            "no Asker and no Truster": f"{committee} stand in for both: the probability of Yes is the share of them "
            "that do not give the first answer, the scores are how many give each answer",
            "vote of samples": f"the first answer, the refined one, and that of {self.third}",
        }
        path = write_refinement_report(
            measured, self.settings, directory, title="Ask, refine, trust on public transcripts", facts=facts
        )
        say(f"report: {path}")

    def refinements(self, record: Mapping[str, Any]) -> Iterator[Refinements]:
        """One an answerer, from what `gather` wrote."""
        for answerer in self.answerers:
            first, refined = self._pair(answerer)
            queries = [
                self._query(id, {name: found[place] for name, found in record["clusters"].items()}, first, refined)
                for place, id in enumerate(record["ids"])
            ]
            yield Refinements(
                generator=answerer,
                asker=f"{self.second_asker}'s questions, a committee decides",
                truster="the committee",
                queries=tuple(queries),
            )

    def _query(self, id: str, clusters: Mapping[str, int | None], first: str, refined: str) -> Query:
        committee = [clusters[name] for name in self.committee]
        shares = [_share(clusters[name], committee) for name in (first, refined)]
        return Query(
            id=id,
            initial=_answer(clusters[first]),
            refined=_answer(clusters[refined]),
            signals=Signals(yes_probability=1.0 - shares[0], scores=(shares[0], shares[1])),
            votes=tuple(_answer(clusters[name]) for name in (first, refined, self.third)),
        )

    def _pair(self, answerer: str) -> tuple[str, str]:
        return f"{answerer}, asked by {self.first_asker}", f"{answerer}, asked by {self.second_asker}"

    def _sources(self) -> list[str]:
        pairs = [name for answerer in self.answerers for name in self._pair(answerer)]
        return list(dict.fromkeys([*pairs, *self.committee, self.third]))


def _stated(name: str, source: Source, root: pathlib.Path, prompts: Sequence[str]) -> list[str | None]:
    """The stated answers, one a problem; refused where the file is about other problems."""
    records = source.read(root / source.file)
    if [_spaceless(record.prompt) for record in records] != [_spaceless(prompt) for prompt in prompts]:
        raise ValueError(f"{root / source.file}: {name} does not answer the problems of {GOLD} in their order")
    if all("answers" in record.meta for record in records):
        return [record.meta["answers"][source.index] for record in records]
    return [extract(record.responses[source.index], kind="raw", style="conclusion") for record in records]


def _spaceless(text: str) -> str:
    """Without spaces, which the transcripts have changed here and there."""
    return "".join(text.split())


def _answer(number: int | None) -> Answer:
    return Answer(key=None if number is None else str(number), right=number == 0)


def _share(number: int | None, committee: Sequence[int | None]) -> float:
    """Of the committee, those that give this very answer; nobody shares silence."""
    return 0.0 if number is None else sum(other == number for other in committee) / max(1, len(committee))
