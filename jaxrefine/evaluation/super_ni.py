"""Super-NaturalInstructions: ROUGE-L of replies against several references, by task and on average.

Source: Wang et al. 2022, arXiv:2204.07705, §5 (rouge-score with stemming, the best reference counts).
"""

from __future__ import annotations

import dataclasses
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrefine.data.examples import Candidates
from jaxrefine.evaluation.metrics import Interval, bootstrap, make_resamples

RougeL = Callable[[str, Sequence[str]], float]
"""Of a reply and its references."""


def make_rouge_l(*, stemmed: bool = True) -> RougeL:
    """ROUGE-L as the ``rouge-score`` package has it: the F-measure against the best of several references, in [0, 1].

    Words are runs of a-z and 0-9 of the lowered text; text in other scripts scores 0 (the published test is English).

    Args:
        stemmed: words of more than three letters are cut to their Porter stems, as the published results have it.

    Raises:
        ModuleNotFoundError: ``rouge-score`` is not installed (the extra ``judging`` has it).

    >>> rouge_l = make_rouge_l()
    >>> rouge_l("Cats sleeping", ["dogs run", "The cat sleeps."]), rouge_l("anything", [])
    (0.8, 0.0)
    """
    try:
        from rouge_score.rouge_scorer import RougeScorer
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(f"ROUGE-L needs an extra: pip install 'jaxrefine[judging]' ({error})") from error

    scorer = RougeScorer(["rougeL"], use_stemmer=stemmed)

    def rouge_l(reply: str, references: Sequence[str]) -> float:
        return max((scorer.score(reference, reply)["rougeL"].fmeasure for reference in references), default=0.0)

    return rouge_l


@dataclasses.dataclass(frozen=True, kw_only=True)
class SuperNIScores:
    """ROUGE-L and exact match; shares in [0, 1]."""

    rouge_l: float
    """Mean over the tasks."""
    interval: Interval
    """Of ``rouge_l``: 95 %, by a bootstrap over tasks."""
    exact_match: float
    """Mean over the tasks of the share of replies that equal a reference, case and punctuation aside."""
    by_task: Mapping[str, float]
    """ROUGE-L."""
    by_category: Mapping[str, float]
    """ROUGE-L: mean over a category's tasks."""
    num: Mapping[str, int]
    """Instances by task."""

    def record(self) -> dict[str, Any]:
        """Everything by name, for ``metrics.json``."""
        return dataclasses.asdict(self)

    def __str__(self) -> str:
        """One line for people, in points of 100."""
        return (
            f"{len(self.by_task)} Super-NI tasks, {sum(self.num.values())} instances: ROUGE-L "
            f"{100 * self.rouge_l:.1f} [{100 * self.interval.low:.1f}, {100 * self.interval.high:.1f}], exact match "
            f"{100 * self.exact_match:.1f}"
        )


def score_super_ni(examples: Iterable[Candidates], *, rouge_l: RougeL | None = None, seed: int = 0) -> SuperNIScores:
    """Scores replies to the prompts of ``Task.prompts``.

    Args:
        examples: with at least one response each; of several, the mean counts. ``meta`` has ``task``, ``references``
            and, where known, ``categories``.
        rouge_l: None is ``make_rouge_l()``.
        seed: of the bootstrap.

    Raises:
        ValueError: no example, one without a response, a task or references.

    >>> meta = {"task": "t", "references": ["the red fox", "a fox"]}
    >>> score_super_ni([Candidates("1", "p", ("The fox.",), (0.0,), meta=meta)]).rouge_l
    0.8
    """
    measure = make_rouge_l() if rouge_l is None else rouge_l
    rows: dict[str, list[tuple[float, float]]] = defaultdict(list)
    categories: dict[str, set[str]] = defaultdict(set)
    for example in examples:
        task, references = example.meta.get("task"), example.meta.get("references")
        if not isinstance(task, str) or not isinstance(references, (list, tuple)) or not references:
            raise ValueError(f"example {example.id!r}: meta needs a task and at least one of references")
        if not example.responses:
            raise ValueError(f"example {example.id!r} has no response")
        plain = {_plain(reference) for reference in references}
        found = [(measure(reply, references), float(_plain(reply) in plain)) for reply in example.responses]
        rows[task].append((_mean([rouge for rouge, _ in found]), _mean([exact for _, exact in found])))
        for category in example.meta.get("categories", ()):
            categories[category].add(task)
    if not rows:
        raise ValueError("no example to score")
    by_task = {task: _mean([rouge for rouge, _ in found]) for task, found in rows.items()}
    values = np.array([list(by_task.values())])
    interval = bootstrap(values, make_resamples(*values.shape, seed=seed))
    return SuperNIScores(
        rouge_l=interval.value,
        interval=interval,
        exact_match=_mean([_mean([exact for _, exact in found]) for found in rows.values()]),
        by_task=by_task,
        by_category={
            name: _mean([by_task[task] for task in sorted(tasks)]) for name, tasks in sorted(categories.items())
        },
        num={task: len(found) for task, found in rows.items()},
    )


def _plain(text: str) -> str:
    kept = "".join(letter for letter in text.lower() if letter.isalnum() or letter.isspace())
    return " ".join(kept.split()) or text.strip()


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
