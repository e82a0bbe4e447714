"""LMentry: accuracy, robustness and the LMentry score of a model's replies.

    LMentry score = accuracy · robustness

Accuracy is the mean over the 25 tasks. Robustness is the mean of four parts; each is a mean of 1 − (largest − smallest
accuracy) over groups that a perfect reader would answer alike: the orders of the options of a task, the analysis files
of a task, the templates of a task, and pairs of adjacent tasks. The released code rounds between the steps (0.1 points
of 100 at most); this does not.

Source: Efrat et al. 2022, arXiv:2211.02069, §4.
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from jaxrefine.data.examples import Candidates
from jaxrefine.data.lmentry import CORE_TASKS, VARIANTS
from jaxrefine.evaluation.lmentry_scorers import score_reply

TWO_OPTIONS = (
    "more_letters", "less_letters", "first_alphabetically", "rhyming_word", "homophones", "bigger_number",
    "smaller_number",
)  # fmt: skip
"""The tasks whose accuracy is compared between the answer given first and given second."""

ADJACENT: dict[str, tuple[tuple[str, str], ...]] = {
    "definition": (
        ("bigger_number", "smaller_number"),
        ("more_letters", "less_letters"),
        ("word_after", "word_before"),
        ("most_associated_word", "least_associated_word"),
        ("any_words_from_category", "all_words_from_category"),
    ),
    "negation": (
        ("sentence_containing", "sentence_not_containing"),
        ("word_containing", "word_not_containing"),
    ),
    "characters": (
        ("starts_with_word", "starts_with_letter"),
        ("ends_with_word", "ends_with_letter"),
        ("sentence_containing", "word_containing"),
        ("sentence_not_containing", "word_not_containing"),
        ("first_word", "first_letter"),
        ("last_word", "last_letter"),
    ),
    "first_and_last": (
        ("starts_with_word", "ends_with_word"),
        ("starts_with_letter", "ends_with_letter"),
        ("first_word", "last_word"),
        ("first_letter", "last_letter"),
    ),
}
"""Pairs of tasks that differ in one respect."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class TaskAccuracy:
    """Of one file; shares in [0, 1]."""

    num: int
    """Examples."""
    accuracy: float
    by_template: Mapping[int, float]
    """By ``template_id``."""
    by_position: Mapping[int, float]
    """By the position of the answer among the options, where there are options."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class LMentryScores:
    """What the benchmark reports; shares in [0, 1], None where files that it needs are missing."""

    tasks: Mapping[str, TaskAccuracy]
    """By file, analysis files included."""
    accuracy: float | None
    """Mean over the 25 tasks."""
    argument_order: float | None
    argument_content: float | None
    template: float | None
    adjacent_tasks: float | None
    adjacent: Mapping[str, float | None]
    """The same by the respect in which the tasks differ (keys of ``ADJACENT``)."""

    @property
    def robustness(self) -> float | None:
        """Mean of the four parts."""
        return _mean([self.argument_order, self.argument_content, self.template, self.adjacent_tasks])

    @property
    def score(self) -> float | None:
        """Accuracy times robustness."""
        if self.accuracy is None or self.robustness is None:
            return None
        return self.accuracy * self.robustness

    def record(self) -> dict[str, Any]:
        """Everything by name, for ``metrics.json``."""
        return {**dataclasses.asdict(self), "robustness": self.robustness, "score": self.score}

    def __str__(self) -> str:
        """One line for people, in points of 100."""
        named = ("score", "accuracy", "robustness", "argument_order", "argument_content", "template", "adjacent_tasks")
        shown = []
        for name in named:
            value = getattr(self, name)
            shown.append(f"{name} {'–' if value is None else format(100 * value, '.1f')}")
        return f"{len(self.tasks)} LMentry files: " + ", ".join(shown)


def score_lmentry(examples: Iterable[Candidates], *, cut: bool = False) -> LMentryScores:
    """Scores replies to examples of ``read_lmentry``.

    Args:
        examples: with at least one response each; of several, the mean counts.
        cut: judge what stands before the first line end and full stop alone (see ``score_reply``).

    Raises:
        ValueError: no example, one without a response, or of no LMentry task.

    >>> metadata = {"word": "sea", "template_id": 0}
    >>> meta = {"task": "starts_with_word", "metadata": metadata}
    >>> found = score_lmentry([Candidates("1", "p", ("Sea air is good.",), (0.0,), meta=meta)])
    >>> found.tasks["starts_with_word"].accuracy, found.score
    (1.0, None)
    """
    rows: dict[str, list[tuple[Mapping[str, Any], float]]] = defaultdict(list)
    for example in examples:
        if not example.responses:
            raise ValueError(f"example {example.id!r} has no response")
        right = [score_reply(reply, example, cut=cut) for reply in example.responses]
        rows[example.meta["task"]].append((example.meta["metadata"], sum(right) / len(right)))
    if not rows:
        raise ValueError("no example to score")
    tasks = {task: _accuracy(found) for task, found in rows.items()}
    files = {task: found.accuracy for task, found in tasks.items()}
    pairs = {name: _groups(files, group) for name, group in ADJACENT.items()}
    return LMentryScores(
        tasks=tasks,
        accuracy=_mean([files.get(task) for task in CORE_TASKS]),
        argument_order=_mean([_order(tasks.get(task)) for task in TWO_OPTIONS]),
        argument_content=_groups(
            files, [[f"{task}_{variant}" for variant in variants] for task, variants in VARIANTS.items()]
        ),
        template=_mean(
            [robustness(tasks[task].by_template.values()) if task in tasks else None for task in CORE_TASKS]
        ),
        adjacent_tasks=_groups(files, [pair for group in ADJACENT.values() for pair in group]),
        adjacent=pairs,
    )


def robustness(accuracies: Iterable[float]) -> float:
    """1 − the largest difference between accuracies that should be alike.

    >>> round(robustness([0.9, 0.5, 0.7]), 6)
    0.6
    """
    found = list(accuracies)
    return 1.0 - (max(found) - min(found))


def _accuracy(rows: Sequence[tuple[Mapping[str, Any], float]]) -> TaskAccuracy:
    return TaskAccuracy(
        num=len(rows),
        accuracy=sum(right for _, right in rows) / len(rows),
        by_template=_shares(rows, "template_id"),
        by_position=_shares(rows, "answer_index"),
    )


def _shares(rows: Sequence[tuple[Mapping[str, Any], float]], field: str) -> dict[int, float]:
    found: dict[int, list[float]] = defaultdict(list)
    for metadata, right in rows:
        if field in metadata:
            found[int(metadata[field])].append(right)
    return {value: sum(right) / len(right) for value, right in sorted(found.items())}


def _order(task: TaskAccuracy | None) -> float | None:
    """None where the answer always stands in the same place: nothing is compared."""
    return None if task is None or set(task.by_position) != {0, 1} else robustness(task.by_position.values())


def _groups(files: Mapping[str, float], groups: Iterable[Sequence[str]]) -> float | None:
    return _mean(
        [
            robustness(files[task] for task in group) if all(task in files for task in group) else None
            for group in groups
        ]
    )


def _mean(values: Sequence[float | None]) -> float | None:
    """None where a value is missing."""
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known and len(known) == len(values) else None
