"""Public judgements of many models' answers to the same queries, as what a router is trained on and measured by."""

from __future__ import annotations

import dataclasses
import pathlib
import re
from collections import Counter
from collections.abc import Callable, Mapping

from jaxrefine.data.examples import Routed
from jaxrefine.data.readers_routing import read_alpaca_eval, read_flask, read_mt_bench, read_routellm

_WORD = re.compile(r"\w+")


@dataclasses.dataclass(frozen=True, kw_only=True)
class PublicSet:
    """Queries with rewards that are public."""

    directory: str
    """Under the data directory; the set is there where this is."""
    read: Callable[[pathlib.Path], list[Routed]]
    """Of the data directory."""
    rewards: str
    """What they are, for the report."""
    costs: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """Of an answer of each model, by name; empty where they are not known."""
    costs_are: str = ""
    """For the report."""


def shared_words(reference: str, text: str) -> float:
    """Harmonic mean of the shares of words that two texts have in common, each as often as it occurs: unigram F1.

    >>> shared_words("The cat sat.", "the cat ran off")
    0.5714285714285714

    Source: ROUGE-1, Lin 2004.
    """
    wanted, found = (Counter(word.lower() for word in _WORD.findall(part)) for part in (reference, text))
    both = sum((wanted & found).values())
    total = sum(wanted.values()) + sum(found.values())
    return 2.0 * both / total if total else 0.0


SETS: dict[str, PublicSet] = {
    "alpaca_eval": PublicSet(
        directory="alpaca_eval",
        read=lambda data: read_alpaca_eval(data / "alpaca_eval"),
        rewards="GPT-4's preference over text_davinci_003, 0 to 1",
    ),
    "mt_bench": PublicSet(
        directory="mt_bench",
        read=lambda data: read_mt_bench(data / "mt_bench"),
        rewards="GPT-4's rating of the first turn, 1 to 10; its versions differ between the sources of the models",
    ),
    "flask": PublicSet(
        directory="flask",
        read=lambda data: read_flask(data / "flask", score=shared_words),
        rewards="words shared with the reference answer (unigram F1), for the reviews are not public: no measure of "
        "quality, but one that differs by query as one would",
    ),
    "routellm": PublicSet(
        directory="routellm",
        read=lambda data: read_routellm(data / "routellm", data / "mmlu"),
        rewards="1 for a right answer, 0 for a wrong one",
        costs={"mistralai/Mixtral-8x7B-Instruct-v0.1": 0.24, "gpt-4-1106-preview": 24.7},
        costs_are="dollars for a million tokens as RouteLLM's authors took them (arXiv 2406.18665)",
    ),
}
"""By name."""
