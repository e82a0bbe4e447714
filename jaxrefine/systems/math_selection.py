"""Selection among sampled solutions that are there already: cluster, grade, select in every way, report.

No model runs here. The solutions are public ones with labels, or one's own files of scored candidates; every generator
can be re-ranked by every evaluator that scored it.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, input_directory
from jaxrefine.config import unknown_name
from jaxrefine.data.examples import Candidates
from jaxrefine.data.readers import read_candidates, read_gsm8k_solutions
from jaxrefine.data.readers_sampled import read_birm_samples, read_prm800k_samples, read_qwen_math_samples
from jaxrefine.evaluation.selection import Pool, Samples, SelectionSettings, measure, pool_from_record
from jaxrefine.evaluation.selection_report import print_selection_table, write_selection_report
from jaxrefine.judging.answers import Grader, cluster, extract
from jaxrefine.judging.grading import grade
from jaxrefine.selection.probabilities import ScoreKind, probabilities

POOLS = "pools.json"
SHORTER = "shorter"
_LONG = 1000.0
"""Characters at which the baseline's score is one half."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class MathSelection:
    """A report on one or several pools of solutions."""

    data: str = ""
    """The directory with the public data sets."""
    sets: tuple[str, ...] = ()
    """Which of them, by the names of `SETS`; without names those that are there."""
    samples: tuple[str, ...] = ()
    """One's own files, ``FILE`` or ``GENERATOR:EVALUATOR=FILE``: ``.jsonl``, as ``read_candidates`` reads it, with the
    known answer of every prompt and the evaluator's score of every candidate."""
    score_kind: ScoreKind = "reward"
    """What the scores of one's own files are. Sums are taken of probabilities: a reward r is 1 / (1 + exp(−r))."""
    style: str = "auto"
    """Where the solutions of one's own files state their answer (``answer_extraction.STYLES``)."""
    by_length: bool = True
    """Whether an evaluator that prefers shorter solutions re-ranks every generator as well: what a trained one must
    beat."""
    grading: Literal["pool", "keys"] = "pool"
    """Answers that canonical keys do not settle: ask math-verify in processes of their own, or nobody."""
    settings: SelectionSettings = dataclasses.field(default_factory=SelectionSettings)
    """K, top, curves, bootstrap."""

    def stages(self) -> list[Stage]:
        """Pools, report."""
        if not self.data and not self.samples:
            raise ValueError("nothing to select from: give yours with --samples FILE.jsonl, or --data DIRECTORY")
        for name in self.sets:
            if name not in SETS:
                raise ValueError(unknown_name(name, SETS, "set"))
        _named(self.samples)  # mistakes are better noticed now
        self._present()
        return [Stage("pools", self.gather), Stage("report", self.report, inputs=("pools",))]

    def gather(self, directory: pathlib.Path) -> None:
        """Reads, clusters and grades."""
        write_json(directory / POOLS, [dataclasses.asdict(pool) for pool in self.pools()])

    def report(self, directory: pathlib.Path) -> None:
        """Measures every pool; prints the table and writes the report."""
        measured = []
        for record in read_json(input_directory(directory, "pools") / POOLS):
            pool = pool_from_record(record)
            say(f"{pool.name}: {len(pool.problems)} problems")
            measured.append(measure(pool, self.settings))
        print_selection_table(measured)
        path = write_selection_report(measured, self.settings, directory, title="Selecting one of N solutions")
        say(f"report: {path}")

    def pools(self) -> Iterator[Pool]:
        """One a generator and evaluator.

        Raises:
            ValueError: a public set that is not there, or a file without known answers.
        """
        grader: Grader = "shared" if self.grading == "pool" else None
        for name in self._present():
            public = SETS[name]
            examples = public.read(pathlib.Path(self.data) / public.file)
            yield from self._of_generator(
                name, examples, [_labelled(example, grader) for example in examples],
                {} if public.evaluator is None else {
                    public.evaluator: [probabilities(example.meta["scores"], public.score_kind) for example in examples]
                },
            )  # fmt: skip
        own: dict[str, dict[str, list[Candidates]]] = {}
        for generator, evaluator, path in _named(self.samples):
            own.setdefault(generator, {})[evaluator] = read_candidates(path)
        for generator, found in own.items():
            solved = _same(generator, found)
            yield from self._of_generator(
                generator, solved, [_judged(example, self.style, grader) for example in solved],
                {
                    evaluator: [probabilities(example.labels, self.score_kind) for example in scored]
                    for evaluator, scored in found.items()
                },
            )  # fmt: skip

    def _present(self) -> list[str]:
        if not self.data:
            return []
        there = {name: (pathlib.Path(self.data) / public.file).is_file() for name, public in SETS.items()}
        for name in self.sets:
            if not there[name]:
                raise ValueError(f"{name}: {pathlib.Path(self.data) / SETS[name].file} is not there")
        found = [name for name in self.sets or SETS if there[name]]
        if not found:
            raise ValueError(f"{self.data}: none of the public sets is there: {', '.join(SETS)}")
        return found

    def _of_generator(
        self,
        generator: str,
        examples: Sequence[Candidates],
        graded: Sequence[Samples],
        scores: Mapping[str, Sequence[tuple[float, ...]]],
    ) -> Iterator[Pool]:
        """A pool an evaluator; the baseline's too, and one without scores where there is no other."""
        if self.by_length:
            scores = {**scores, SHORTER: [_by_length(example) for example in examples]}
        if not scores:
            yield Pool(generator=generator, evaluator=None, problems=tuple(graded))
        for evaluator, found in scores.items():
            problems = tuple(
                dataclasses.replace(problem, scores=values) for problem, values in zip(graded, found, strict=True)
            )
            yield Pool(generator=generator, evaluator=evaluator, problems=problems)


def _by_length(example: Candidates) -> tuple[float, ...]:
    return tuple(_LONG / (_LONG + len(response)) for response in example.responses)


def _labelled(example: Candidates, grader: Grader) -> Samples:
    """Right and wrong as the data set says; its own extracted answers, where it has them."""
    answers = example.meta.get("answers") or [extract(response) for response in example.responses]
    right = tuple(label == 1.0 for label in example.labels)
    return Samples(id=example.id, clusters=tuple(cluster(answers, grader=grader)), right=right)


def _judged(example: Candidates, style: str, grader: Grader) -> Samples:
    """Right and wrong by the known answer; a file does not always say which solutions were cut."""
    graded = grade(example, style=style, grader=grader, read_cut=True)
    return Samples(id=example.id, clusters=graded.clusters, right=graded.right)


def _named(samples: Sequence[str]) -> list[tuple[str, str, pathlib.Path]]:
    """(generator, evaluator, file) of each; a file alone gives its name to the generator."""
    found: list[tuple[str, str, pathlib.Path]] = []
    for given in samples:
        names, equals, file = given.rpartition("=")
        generator, colon, evaluator = names.partition(":")
        if not equals:
            generator, evaluator = pathlib.Path(file).name.split(".")[0], "scores"
        elif not (colon and generator and evaluator and file):
            raise ValueError(f"--samples {given!r}: FILE or GENERATOR:EVALUATOR=FILE is wanted")
        if (generator, evaluator) in [(one, other) for one, other, _ in found]:
            raise ValueError(f"--samples {given!r}: {generator}:{evaluator} is named twice")
        if evaluator == SHORTER:
            raise ValueError(f"--samples {given!r}: {SHORTER!r} is the baseline's name; choose another")
        found.append((generator, evaluator, pathlib.Path(file)))
    return found


def _same(generator: str, found: Mapping[str, Sequence[Candidates]]) -> Sequence[Candidates]:
    """The examples, refused where two evaluators did not score the same solutions."""
    first, *others = found
    wanted = [(example.id, example.responses) for example in found[first]]
    for other in others:
        if [(example.id, example.responses) for example in found[other]] != wanted:
            raise ValueError(f"{generator}: {first} and {other} did not score the same solutions in the same order")
    return found[first]


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublicSet:
    """Sampled solutions that are public."""

    file: str
    """Under the data directory."""
    read: Callable[[pathlib.Path], list[Candidates]]
    """Labels are right and wrong; ``meta["scores"]`` the evaluator's."""
    evaluator: str | None = None
    """Whose scores come with them; None where none do. (BiRM does not say whether the model that labelled the steps saw
    the known answers: its scores may be better than those of any evaluator that did not.)"""
    score_kind: ScoreKind = "probability"
    """What these scores are."""


def _birm(model: str) -> PublicSet:
    file = f"birm/responses_n15_{model}_math_process.jsonl.gz"
    return PublicSet(file=file, read=read_birm_samples, evaluator="step labels")


SETS: dict[str, PublicSet] = {
    "qwen2.5-math": PublicSet(
        file="qwen25_math_rm/math_cot_100.jsonl.gz",
        read=read_qwen_math_samples,
        evaluator="reward model",
        score_kind="reward",
    ),
    "birm-llama3-8b": _birm("llama3_8b"),
    "birm-qwen2.5-3b": _birm("qwen2.5_3b"),
    "birm-qwen2.5-7b": _birm("qwen2.5_7b"),
    "prm800k": PublicSet(
        file="prm800k/scored-test-samples.jsonl", read=read_prm800k_samples, evaluator="process reward model"
    ),
    "gsm8k-4-models": PublicSet(file="gsm8k/example_model_solutions.jsonl.gz", read=read_gsm8k_solutions),
}
"""Public solutions, by generator."""
