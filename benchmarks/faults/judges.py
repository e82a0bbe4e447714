"""Faults of judges: what one says depends on the order of what it is shown, or cannot be read."""

from __future__ import annotations

import collections
import pathlib
import re
from collections.abc import Sequence
from typing import Any

import numpy as np

from benchmarks.faults.trial import Fault, Outcome
from jaxrefine.data.examples import Candidates
from jaxrefine.judging.pairwise import PairwiseJudge, comparisons_of, summarize_pairs
from jaxrefine.judging.provenance import Unjudged
from jaxrefine.judging.verdicts import GenerativeAsker
from jaxrefine.sampling.responder import Failure, Reply, Request

Draw = np.random.Generator

_SAID: tuple[tuple[Reply | Failure, str], ...] = (
    (Reply(text="The first is better.\nVerdict: 1"), "first"),
    (Reply(text="Verdict: 1"), "first"),
    (Reply(text="Verdict: 2"), "second"),
    (Reply(text="Hm.\nVerdict: 2"), "second"),
    (Reply(text="Verdict: tie"), "tie"),
    (Reply(text="I like both."), "unparsable"),
    (Reply(text=""), "unparsable"),
    (Reply(text="Verdict: 3"), "unparsable"),
    (Reply(text="Verdict: 1\nVerdict: 2"), "unparsable"),
    (Reply(text="Verdict: 1", finished=False), "unparsable"),
    (Failure(kind="unavailable", reason="down"), "unanswered"),
)
"""What a judge may say, and what that is of what it was shown."""


class _Erratic:
    """A judge's model that says something else of each pair in each order, and keeps what."""

    name, version = "erratic", "1"

    def __init__(self, draw: Draw) -> None:
        self._draw = draw
        self.said: dict[tuple[str, bool], str] = {}

    def respond(self, requests: Sequence[Request], *, done: Any = None) -> list[Reply | Failure]:
        results = []
        for index, request in enumerate(requests):
            text = "\n".join(message.content for message in request.messages)
            [(_, one), (_, other)] = sorted(
                (text.find(found), found) for found in re.findall(r"answer \d+ of [ab]", text)
            )
            del one
            result, verdict = _SAID[int(self._draw.integers(len(_SAID)))]
            number, letter = other.removeprefix("answer ").split(" of ")
            self.said[number, letter == "b"] = verdict
            results.append(result)
            if done is not None:
                done(index, result)
        return results


def _swapped(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    model, number = _Erratic(draw), 100
    examples = [
        Candidates(str(n), "Which?", (f"answer {n} of a", f"answer {n} of b"), (0.0, 0.0)) for n in range(number)
    ]
    results = PairwiseJudge(GenerativeAsker(model))(examples)
    summary = summarize_pairs(comparisons_of(results))
    turned = {"first": "second", "second": "first"}
    counts: collections.Counter[str] = collections.Counter()
    wrong = []
    for example, result in zip(examples, results, strict=True):
        in_order, swapped = model.said[example.id, True], model.said[example.id, False]
        both = {in_order, turned.get(swapped, swapped)}
        lost = next((kind for kind in ("unanswered", "unparsable") if kind in both), "")
        changed = not lost and len(both) == 2
        counts[lost or ("changed" if changed else both.pop())] += 1
        labels = {"first": (1.0, 0.0), "second": (0.0, 1.0)}.get("" if changed else in_order, (0.5, 0.5))
        got = result.kind if isinstance(result, Unjudged) else getattr(result, "labels", None)
        if got != (lost or labels):
            wrong.append(f"{in_order} and then {swapped} became {got}")
    read = number - counts["unanswered"] - counts["unparsable"]
    expected = (counts["changed"] / read, counts["unparsable"] / (number - counts["unanswered"]))
    if (summary.conflict_rate, summary.unparsable_rate) != expected:
        wrong.append(f"rates {summary.conflict_rate}, {summary.unparsable_rate}; counted {expected}")
    return Outcome(passed=not wrong, detail="; ".join(wrong[:3]), figures={"conflict_rate": summary.conflict_rate})


FAULTS = (
    Fault(
        name="P3",
        title="a pairwise judge that says anything in either order: 100 pairs",
        criterion="a contradiction is a tie, a reply that cannot be read a class of its own and no win; the rates of "
        "both are right",
        trial=_swapped,
        num_trials=100,
        num_fast=2,
        baseline="PandaLM's released parser, read: every reply that it cannot parse is a tie",
    ),
)
