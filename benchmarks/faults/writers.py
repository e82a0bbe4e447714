"""Processes to be killed while they write journals: ``python -m benchmarks.faults.writers KIND DIRECTORY``.

Each does a piece of work whose end is known: called again in the same directory, it goes on where it was. It prints a
line for each record that is committed. It imports little, so that many can be started.
"""

from __future__ import annotations

import itertools
import json
import os
import pathlib
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from jaxrefine.artefacts.journal import Journal
from jaxrefine.data.examples import Candidates
from jaxrefine.judging.files import judge_file
from jaxrefine.judging.provenance import Done, Provenance, Result, labelled
from jaxrefine.sampling.request_cache import ReplyCache
from jaxrefine.sampling.responder import Reply
from jaxrefine.selection.tournament import Match, Matches, round_robin

NUM_RECORDS = 66
_NUM_COMPETITORS = 12  # 12 · 11 / 2 = 66 matches


def _long(number: int) -> str:
    """A text of up to half a megabyte: writing it takes long enough to be killed in the middle."""
    return f"{number} ä" * (1 + 977 * number**2 % 100_000)


class Noting:
    """A judge that labels by position and notes much."""

    provenance = Provenance(judge="noting", version="1", model="none")

    def __call__(
        self, examples: Sequence[Candidates], *, done: Done | None = None, known: Collection[int] = ()
    ) -> list[Result | None]:
        """Labels every example that is not known."""
        results: list[Result | None] = [None] * len(examples)
        for index, example in enumerate(examples):
            if index not in known:
                result = labelled(example, [float(index), 0.5], self.provenance, {"said": _long(index)})
                results[index] = result
                if done is not None:
                    done(index, result)
        return results


def write_samples(directory: pathlib.Path) -> None:
    """Replies by request, as the endpoint keeps them."""
    cache = ReplyCache(directory / "replies.jsonl")
    for number in range(NUM_RECORDS):
        if cache.get(f"request {number}") is None:
            cache.put(f"request {number}", Reply(text=_long(number), logprobs=(-0.5,)))
    cache.close()


def write_judgements(directory: pathlib.Path) -> None:
    """A file of candidates, judged."""
    source = directory / "candidates.jsonl"
    rows = [
        {"id": f"p{number}", "prompt": "Which?", "candidates": [{"text": "a"}, {"text": "b"}]}
        for number in range(NUM_RECORDS)
    ]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    judge_file(Noting(), source, directory / "judged.jsonl", description="judging")


def write_matches(directory: pathlib.Path) -> None:
    """Matches of a round robin."""

    def compare(one: str, other: str) -> Match:
        outcomes = ("first", "tie", "second", "unparsable") * (250 * (1 + int(one)))
        return Match(one=one, other=other, outcomes=outcomes[:1000], questions=2000)

    with Journal(directory / "matches.jsonl") as journal:
        round_robin([str(number) for number in range(_NUM_COMPETITORS)], Matches(compare, journal, num_prompts=1000))


WRITERS: Mapping[str, tuple[Callable[[pathlib.Path], None], str, tuple[str, ...]]] = {
    "samples": (write_samples, "replies.jsonl", ("replies.jsonl",)),
    "judgements": (write_judgements, "judged.jsonl.journal", ("judged.jsonl.journal", "judged.jsonl")),
    "matches": (write_matches, "matches.jsonl", ("matches.jsonl",)),
}
"""By kind: what writes, its journal, and the files that are the same however often it was stopped."""


def main(kind: str, directory: pathlib.Path) -> None:
    """Writes, and tells of each record once ``append`` is back."""
    append, numbers = Journal.append, itertools.count(1)

    def append_and_tell(self: Journal, key: Any, record: Any) -> None:
        append(self, key, record)
        os.write(1, b"%d\n" % next(numbers))

    Journal.append = append_and_tell  # type: ignore[method-assign]
    WRITERS[kind][0](directory)


if __name__ == "__main__":
    main(sys.argv[1], pathlib.Path(sys.argv[2]))
