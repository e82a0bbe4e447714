"""A file of candidates judged into a file of labelled ones: stopped at any instant, the same call goes on."""

from __future__ import annotations

import dataclasses
import logging
import os
import pathlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxrefine.artefacts.journal import Journal
from jaxrefine.artefacts.progress import progress
from jaxrefine.config import digest
from jaxrefine.data.examples import Candidates
from jaxrefine.data.jsonl import write_jsonl
from jaxrefine.data.readers import read_candidates, write_candidates
from jaxrefine.judging.provenance import JUDGEMENT, REASONS, Judge, Result, Unjudged, details_of, labelled

_log = logging.getLogger(__name__)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Summary:
    """What became of a set of examples."""

    judged: int
    unjudged: Mapping[str, int]
    """By kind: refused, unparsable, unanswered."""
    reasons: Mapping[str, int]
    """Examples left without labels, by reason; the most frequent first."""

    @property
    def examples(self) -> int:
        """All of them."""
        return self.judged + sum(self.unjudged.values())

    def __str__(self) -> str:
        """One line for people.

        >>> print(summarize([Unjudged(id="1", kind="refused", reason="one response only")]))
        0 of 1 judged; refused 1, unparsable 0, unanswered 0 (one response only: 1)
        """
        counts = ", ".join(f"{kind} {self.unjudged[kind]}" for kind in REASONS)
        why = "; ".join(f"{reason}: {number}" for reason, number in list(self.reasons.items())[:3])
        return f"{self.judged} of {self.examples} judged; {counts}" + (f" ({why})" if why else "")


def summarize(results: Iterable[Result]) -> Summary:
    """Counts of labelled examples, and of those that are not, by kind and by reason."""
    judged, kinds, reasons = 0, Counter[str](), Counter[str]()
    for result in results:
        if isinstance(result, Unjudged):
            kinds[result.kind] += 1
            reasons[result.reason] += 1
        else:
            judged += 1
    return Summary(judged=judged, unjudged={kind: kinds[kind] for kind in REASONS}, reasons=dict(reasons.most_common()))


def judge_file(
    judge: Judge,
    source: str | os.PathLike[str],
    target: str | os.PathLike[str],
    *,
    description: str = "judging",
) -> tuple[list[Result], Summary]:
    """Judges the candidates of a JSONL file into another one, in order.

    Beside ``target`` stand ``<target>.journal``, to which every result goes as soon as it is there, and
    ``<target>.unjudged.jsonl``, with the examples that got no labels and why. Called again, only what the journal
    does not hold is judged, and examples that were unanswered are tried again; the target comes out the same, byte by
    byte, as from a run that was not stopped.

    Args:
        judge: any of this package.
        source: as ``read_candidates`` reads it; scores in it are not needed, and replaced.
        target: as ``write_candidates`` writes it; ``.jsonl`` or ``.jsonl.gz``.
        description: beside the progress bar.

    Returns:
        The results in the order of the source, and what became of them.

    Raises:
        RecordError: a malformed line of the source.
        ValueError: the journal belongs to another judge, or holds an example that the source has changed since.
    """
    source, target = pathlib.Path(source), pathlib.Path(target)
    examples = read_candidates(source, scored=False)
    with Journal(target.with_name(f"{target.name}.journal")) as journal:
        results = judge_into(journal, judge, examples, description=description)
    write_candidates(target, (result for result in results if isinstance(result, Candidates)))
    unjudged = [dataclasses.asdict(result) for result in results if isinstance(result, Unjudged)]
    write_jsonl(target.with_name(f"{target.name}.unjudged.jsonl"), unjudged)
    summary = summarize(results)
    _log.info("%s: %s", target, summary)
    return results, summary


def judge_into(
    journal: Journal, judge: Judge, examples: Sequence[Candidates], *, description: str = "judging"
) -> list[Result]:
    """Judges the examples that a journal does not hold yet, and appends each result as soon as it is there.

    Args:
        journal: of this judge alone; keys are the examples' ids.
        judge: any of this package.
        examples: with ids of their own.
        description: beside the progress bar.

    Returns:
        One result an example, in order, whether judged now or before.

    Raises:
        ValueError: the journal belongs to another judge or to other examples.
    """
    by, records = judge.provenance, journal.records()
    judge_digest = by.digest()
    results: dict[int, Result] = {}
    contents = [_content(example) for example in examples]
    if len({example.id for example in examples}) < len(examples):
        raise ValueError(f"{journal.path}: {len(examples)} examples share ids: give each its own")
    for index, example in enumerate(examples):
        if example.id not in records:
            continue
        record = records[example.id]
        if record["judge"] != judge_digest:
            raise ValueError(
                f"{journal.path}: example {example.id!r} was judged by {record['by']}, and this judge is "
                f"{by.record()}: delete the journal, or name another target"
            )
        if record["content"] != contents[index]:
            raise ValueError(f"{journal.path}: example {example.id!r} is another one than when it was judged")
        if record["kind"] == "labels":
            results[index] = labelled(example, record["labels"], by, record["details"])
        else:
            results[index] = Unjudged(
                id=example.id, kind=record["kind"], reason=record["reason"], details=record["details"]
            )
    missing = len(examples) - len(results)
    if not missing:
        return [results[index] for index in range(len(examples))]
    with progress(len(examples), description, initial=len(results), unit="examples") as bar:

        def keep(index: int, result: Result) -> None:
            if isinstance(result, Candidates):
                said: dict[str, Any] = {"kind": "labels", "labels": list(result.labels)}
                details = details_of(result)
            else:
                said, details = {"kind": result.kind, "reason": result.reason}, result.details
            if said["kind"] != "unanswered":
                said |= {"details": dict(details), "judge": judge_digest, "content": contents[index]}
                journal.append(examples[index].id, {**said, "by": f"{by.judge} {by.version} with {by.model}"})
            results[index] = result
            bar.advance()

        judge(examples, done=keep, known=frozenset(results))
    return [results[index] for index in range(len(examples))]


def _content(example: Candidates) -> str:
    """Of what a judge may read: not of labels, nor of who gave them."""
    meta = {name: value for name, value in example.meta.items() if name != JUDGEMENT}
    return digest([example.prompt, example.responses, example.finished, example.answer, meta])
