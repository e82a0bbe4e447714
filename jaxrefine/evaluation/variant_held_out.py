"""Held-out prompts with their common base samples, and what a variant's scores and answers are worth on them."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from jaxrefine.data.packing import Refused, TokenGroup
from jaxrefine.data.tokenizer import Tokenizer
from jaxrefine.evaluation.metrics import ranking_accuracy
from jaxrefine.evaluation.variant_data import Judged, token_group
from jaxrefine.evaluation.variant_settings import Settings
from jaxrefine.judging.answers import answer_key, is_right
from jaxrefine.selection.rerank import best_of_n
from jaxrefine.selection.voting import majority_vote
from jaxrefine.typing import Array, Float

Values = list[float | None]
"""One a held-out prompt; None where it does not count."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class HeldOut:
    """One held-out prompt."""

    judged: Judged
    """Its base samples, or the file's candidates, repetitions included."""
    group: TokenGroup | None
    """The different ones as tokens, to be scored; None where there is nothing to score."""
    places: tuple[int, ...]
    """Of each sample among the different ones."""
    right: tuple[float | None, ...]
    """Of each sample: 1, 0, or None where nobody knows."""
    reference: tuple[float, ...] = ()
    """Summed log-probs of the different samples under the base model."""

    @property
    def id(self) -> str:
        """Of the prompt."""
        return self.judged.example.id

    @property
    def answer(self) -> str | None:
        """The known answer."""
        return self.judged.example.answer


def held_out(
    rows: Sequence[Judged],
    tokenizer: Tokenizer,
    settings: Settings,
    reference: Mapping[Any, Any] | None,
    *,
    is_binary: bool,
) -> list[HeldOut]:
    """Held-out prompts, ready to be scored.

    Args:
        rows: with base samples or candidates.
        tokenizer: of the model.
        settings: the lengths.
        reference: records of the reference stage by prompt; None before it ran.
        is_binary: labels are right / wrong.
    """
    found = []
    for number, judged in enumerate(rows):
        distinct, places = judged.distinct()
        group = token_group(distinct, tokenizer, settings.lengths, group_id=number) if places else None
        usable = None if isinstance(group, Refused) else group
        sums = tuple(reference[judged.example.id]["sums"]) if reference is not None and usable is not None else ()
        right = tuple(_right(judged, index, is_binary) for index in range(len(places)))
        found.append(HeldOut(judged=judged, group=usable, places=places, right=right, reference=sums))
    return found


def unavailable(rows: Sequence[HeldOut]) -> dict[str, str]:
    """Metrics that these prompts cannot measure, with the reason."""
    reasons = {}
    if not any(row.answer is not None for row in rows):
        for metric in ("greedy_accuracy", "majority_vote"):
            reasons[metric] = "the held-out prompts have no known answers"
    if not any(row.judged.can_rank and row.group is not None for row in rows):
        reasons["ranking_accuracy"] = "no held-out prompt has two candidates with different labels"
    if not any(value is not None for row in rows for value in row.right):
        reasons["reranked_accuracy"] = "the candidates have neither known answers nor right / wrong labels"
    return reasons


def quality(
    rows: Sequence[HeldOut],
    scores: Mapping[str, Float[Array, " n"]],
    greedy: Mapping[str, str],
    votes: Mapping[str, Sequence[str | None]],
) -> dict[str, Values]:
    """Every metric that can be measured, one value a prompt.

    Args:
        rows: held-out prompts.
        scores: of the different samples, by prompt.
        greedy: outcome of the greedy solution, by prompt.
        votes: answers of the samples that vote, by prompt.
    """
    values: dict[str, Values] = {
        "greedy_accuracy": [_outcome(greedy.get(row.id)) for row in rows],
        "ranking_accuracy": [_ranking(row, scores.get(row.id)) for row in rows],
        "majority_vote": [_vote(row, votes.get(row.id)) for row in rows],
        "reranked_accuracy": [_reranked(row, scores.get(row.id)) for row in rows],
    }
    absent = unavailable(rows)
    return {metric: found for metric, found in values.items() if metric not in absent}


def start_quality(
    rows: Sequence[HeldOut],
    greedy: Mapping[str, Sequence[Mapping[str, Any]]],
    votes: Mapping[str, Sequence[Mapping[str, Any]]],
) -> dict[str, Values]:
    """Quality of the base model itself, with the mean log-prob a token as its scorer.

    Args:
        rows: with reference scores.
        greedy: its journal's records by prompt, one each.
        votes: its journal's records by prompt.
    """
    scores = {
        row.id: np.array(row.reference) / np.array([len(response) for response in row.group.responses])
        for row in rows
        if row.group is not None
    }
    return quality(
        rows,
        scores,
        {prompt: records[0]["outcome"] for prompt, records in greedy.items()},
        {prompt: [record["answer"] for record in records] for prompt, records in votes.items()},
    )


def ceiling(rows: Sequence[HeldOut]) -> float | None:
    """The share of prompts with any right base sample: what no re-ranking can exceed."""
    known = [max(right) for row in rows if (right := [value for value in row.right if value is not None])]
    return float(np.mean(known)) if known else None


def _right(judged: Judged, index: int, is_binary: bool) -> float | None:
    if is_binary:
        return judged.example.labels[index]
    if judged.example.answer is None:
        return None
    return float(is_right(judged.example.responses[index], judged.example.answer) == "right")


def _outcome(outcome: str | None) -> float | None:
    return None if outcome is None else float(outcome == "right")


def _ranking(row: HeldOut, scores: Float[Array, " n"] | None) -> float | None:
    if scores is None or not row.judged.can_rank:
        return None
    return float(ranking_accuracy(scores[list(row.places)], np.array(row.judged.example.labels)))


def _vote(row: HeldOut, answers: Sequence[str | None] | None) -> float | None:
    if answers is None or row.answer is None:
        return None
    return float(majority_vote(answers) == answer_key(row.answer))


def _reranked(row: HeldOut, scores: Float[Array, " n"] | None) -> float | None:
    if scores is None or not row.places:
        return None
    return row.right[int(best_of_n(scores[list(row.places)]))]
