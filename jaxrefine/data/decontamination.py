"""Decontamination: examples that share n words in a row with a benchmark are taken out, and the report says which.

Words are compared without case and punctuation. A text of fewer than n words is one gram of its own, so that a short
question is found by its equal alone.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Generic, TypeVar

from jaxrefine.config import unknown_name
from jaxrefine.data.groups import Example

_WORD = re.compile(r"\w+")
_SHOWN = 5


E = TypeVar("E", bound=Example)


@dataclasses.dataclass(frozen=True)
class Overlap:
    """An example that was taken out, and the first benchmark text that it shares words with."""

    id: str
    benchmark: str
    benchmark_id: str
    words: str
    """The first that they share, in a row."""


@dataclasses.dataclass(frozen=True)
class Decontaminated(Generic[E]):
    """What is left, what was taken out and why."""

    kept: tuple[E, ...]
    removed: tuple[Overlap, ...]
    n: int
    benchmarks: dict[str, int]
    """Texts of each."""

    def report(self) -> str:
        """In Markdown: counts, and examples by which to judge whether n was well chosen."""
        total = len(self.kept) + len(self.removed)
        counts = Counter(found.benchmark for found in self.removed)
        lines = [
            f"{len(self.removed)} of {total} examples ({len(self.removed) / max(1, total):.1%}) share {self.n} words "
            "in a row with a benchmark and were taken out.",
            "",
            "| benchmark | texts | examples taken out (by the first that they meet) |",
            "| --- | ---: | ---: |",
            *(f"| {name} | {size} | {counts[name]} |" for name, size in self.benchmarks.items()),
        ]
        common = Counter(found.words for found in self.removed).most_common(_SHOWN)
        if common:
            lines += ["", "Words most often shared:", *(f"- {count} × “{words}”" for words, count in common)]
        return "\n".join(lines) + "\n"


def decontaminate(
    examples: Sequence[E],
    benchmarks: Mapping[str, Sequence[Example]],
    *,
    n: int = 6,
    fields: Sequence[str] = ("prompt",),
) -> Decontaminated[E]:
    """Takes out the examples that share ``n`` words in a row with any text of a benchmark.

    Args:
        examples: to be trained on.
        benchmarks: by name; the examples that a model is measured by.
        n: words; 6 is the paper's.
        fields: texts of an example that are read, of "prompt", "response", "answer"; of a benchmark's the prompt.

    Raises:
        ValueError: n below 1, or a field that no example has.

    >>> from jaxrefine.data.examples import Instruction
    >>> train = [Instruction("a", "Name the capital of France.", ""), Instruction("b", "Name a colour.", "")]
    >>> found = decontaminate(train, {"quiz": [Instruction("q", "What is the capital of France?", "")]}, n=4)
    >>> [example.id for example in found.kept], found.removed[0].words
    (['b'], 'the capital of france')

    Source: the 6-gram rule of ZOOTER, arXiv 2311.08692, §4; n-gram overlap after Brown et al. 2020, appendix C.
    """
    if n < 1:
        raise ValueError(f"n = {n} must be at least 1")
    for field in fields:
        if field not in ("prompt", "response", "answer"):
            raise ValueError(unknown_name(field, ("prompt", "response", "answer"), "field"))
    index: dict[tuple[str, ...], tuple[str, str]] = {}
    for name, texts in benchmarks.items():
        for text in texts:
            for gram in grams(text.prompt, n):
                index.setdefault(gram, (name, text.id))
    kept: list[E] = []
    removed: list[Overlap] = []
    for example in examples:
        found = next((gram for text in _texts(example, fields) for gram in grams(text, n) if gram in index), None)
        if found is None:
            kept.append(example)
        else:
            removed.append(Overlap(example.id, *index[found], " ".join(found)))
    return Decontaminated(tuple(kept), tuple(removed), n, {name: len(texts) for name, texts in benchmarks.items()})


def grams(text: str, n: int) -> Iterator[tuple[str, ...]]:
    """Every n words in a row; all words of a shorter text.

    >>> list(grams("One, two. THREE", 2)), list(grams("Hi!", 2)), list(grams("?", 2))
    ([('one', 'two'), ('two', 'three')], [('hi',)], [])
    """
    words = [word.lower() for word in _WORD.findall(text)]
    if not words:
        return
    for start in range(max(1, len(words) - n + 1)):
        yield tuple(words[start : start + n])


def _texts(example: Any, fields: Sequence[str]) -> Iterator[str]:
    for field in fields:
        value = getattr(example, field, None)
        if isinstance(value, str):
            yield value
