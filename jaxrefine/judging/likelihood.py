"""Teacher likelihood: s(x, y) = log p_T(y | x) / |y|^β, as a teacher said of its own words, or from a model here.

Source: Tuna, arXiv:2310.13385, Eq. 3 (β = 1.3).
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import jax.numpy as jnp

from jaxrefine.data.examples import SAID, Candidates
from jaxrefine.data.groups import Refused
from jaxrefine.judging.local import LocalModel, PackedScorer, Rows
from jaxrefine.judging.prompts import hand_over
from jaxrefine.judging.provenance import Done, Provenance, Result, Unjudged, labelled, storable
from jaxrefine.sampling.responder import Continuation, Failure, Reply, Scorer
from jaxrefine.scoring.scorers import SequenceLogProb

VERSION = "1"
_ROUNDING = 1e-3


def likelihood(logprob: float, num_tokens: int, *, length_power: float = 1.3) -> float:
    """The score of one response: log p(y | x) / |y|^β.

    Args:
        logprob: summed over the tokens, natural logarithm.
        num_tokens: |y|, at least 1.
        length_power: β; 0 is the sum, 1 the mean; above 1 longer responses win among equal means.

    >>> likelihood(-8.0, 4, length_power=1.5)
    -1.0
    """
    if num_tokens < 1:
        raise ValueError(f"num_tokens = {num_tokens} must be at least 1")
    return logprob / num_tokens**length_power


def total_logprob(reply: Reply) -> tuple[float, int] | str:
    """The summed log-prob of a reply and its number of tokens; or what is wrong with them.

    >>> total_logprob(Reply(text="a b", logprobs=(-1.0, -0.5))), total_logprob(Reply(text="a", logprobs=(0.5,)))
    ((-1.5, 2), '0.5 is no log-probability')
    """
    if not reply.logprobs:
        return "no log-probs: the model gives none, or none were asked for"
    for value in reply.logprobs:
        if not (math.isfinite(value) and value < _ROUNDING):
            return f"{value} is no log-probability"
    return math.fsum(reply.logprobs), len(reply.logprobs)


def said_by_teacher(example: Candidates, replies: Sequence[Reply | Failure]) -> Candidates | Unjudged:
    """Candidates of a teacher's replies, with the log-prob and the number of tokens of each, to be judged or kept.

    Args:
        example: the prompt; its own responses are replaced.
        replies: to requests with ``logprobs=True``; failures are left out and counted in ``meta``.

    Returns:
        The candidates, labels 0; or why there are none.
    """
    given = [reply for reply in replies if isinstance(reply, Reply)]
    if not given:
        reasons = sorted({reply.reason for reply in replies if isinstance(reply, Failure)}) or ["no replies"]
        return Unjudged(id=example.id, kind="unanswered", reason="; ".join(reasons))
    said = []
    for reply in given:
        total = total_logprob(reply)
        if isinstance(total, str):
            return Unjudged(id=example.id, kind="unparsable", reason=total)
        said.append({"logprob": total[0], "tokens": total[1], "model": reply.model})
    failed = {"failed": len(replies) - len(given)} if len(given) < len(replies) else {}
    return dataclasses.replace(
        example,
        responses=tuple(storable(reply.text) for reply in given),
        labels=(0.0,) * len(given),
        finished=tuple(reply.finished for reply in given),
        meta={**example.meta, SAID: said, **failed},
    )


class SaidLikelihood:
    """Labels a teacher's own responses by the log-probs that came with them: nothing is asked again.

    Whether an end-of-text token is among the tokens is the server's affair; most leave it out.

    Args:
        model: name of the teacher.
        model_version: what tells it from others of that name.
        length_power: β.

    >>> example = said_by_teacher(Candidates("1", "Hi"), [Reply(text="a b", logprobs=(-1.0, -1.0))])
    >>> SaidLikelihood("teacher", length_power=1.0)([example])[0].labels
    (-1.0,)
    """

    def __init__(self, model: str, *, model_version: str = "", length_power: float = 1.3) -> None:
        self._length_power = length_power
        self.provenance = Provenance(
            judge="teacher likelihood, as it said",
            version=VERSION,
            model=model,
            model_version=model_version,
            settings={"length_power": length_power},
        )

    def __call__(
        self, examples: Sequence[Candidates], *, done: Done | None = None, known: Collection[int] = ()
    ) -> list[Result | None]:
        """Labels every example that ``said_by_teacher`` made."""
        results: list[Result | None] = [None] * len(examples)
        for index, example in enumerate(examples):
            if index not in known:
                result = results[index] = self._one(example)
                if done is not None:
                    done(index, result)
        return results

    def _one(self, example: Candidates) -> Result:
        said = example.meta.get(SAID)
        if not isinstance(said, (list, tuple)) or len(said) != len(example.responses) or not said:
            reason = f"meta.{SAID} with one entry a response is missing: said_by_teacher makes it"
            return Unjudged(id=example.id, kind="refused", reason=reason)
        labels = []
        for entry in said:
            found = _entry(entry)
            if found is None:
                reason = f"meta.{SAID} holds something other than a log-prob and a number of tokens"
                return Unjudged(id=example.id, kind="refused", reason=reason)
            if not found[1]:
                return Unjudged(id=example.id, kind="refused", reason="a response without tokens has no likelihood")
            labels.append(likelihood(*found, length_power=self._length_power))
        return labelled(example, labels, self.provenance, {"tokens": [entry["tokens"] for entry in said]})


def _entry(entry: Any) -> tuple[float, int] | None:
    if not isinstance(entry, Mapping):
        return None
    logprob, tokens = entry.get("logprob"), entry.get("tokens")
    if isinstance(logprob, bool) or not isinstance(logprob, (int, float)) or not math.isfinite(logprob):
        return None
    if isinstance(tokens, bool) or not isinstance(tokens, int) or tokens < 0:
        return None
    return float(logprob), tokens


class AskedLikelihood:
    """Labels any responses by the log-probs that a server gives of them: one continuation of the prompt each.

    No end-of-text token is scored. Equal responses are asked about once. An example is labelled when all of its
    responses are.

    Args:
        scorer: the teacher.
        length_power: β.
    """

    def __init__(self, scorer: Scorer, *, length_power: float = 1.3) -> None:
        self._scorer, self._length_power = scorer, length_power
        self.provenance = Provenance(
            judge="teacher likelihood, asked",
            version=VERSION,
            model=scorer.name,
            model_version=scorer.version,
            settings={"length_power": length_power},
        )

    def __call__(
        self, examples: Sequence[Candidates], *, done: Done | None = None, known: Collection[int] = ()
    ) -> list[Result | None]:
        """Labels every example."""
        results: list[Result | None] = [None] * len(examples)
        continuations: list[Continuation] = []
        owners: list[int] = []
        said: dict[int, dict[str, Reply | Failure]] = {}

        def finish(index: int, result: Result) -> None:
            results[index] = result
            if done is not None:
                done(index, result)

        def handle(number: int, result: Reply | Failure) -> None:
            index = owners[number]
            said[index][continuations[number].text] = result
            if len(said[index]) == len(set(examples[index].responses)):
                finish(index, self._labelled(examples[index], said.pop(index)))

        for index, example in enumerate(examples):
            if index in known:
                continue
            if not example.responses or not all(example.responses):
                reason = "it has no responses" if not example.responses else "an empty response has no likelihood"
                finish(index, Unjudged(id=example.id, kind="refused", reason=reason))
                continue
            said[index] = {}
            for text in dict.fromkeys(example.responses):
                continuations.append(Continuation(prompt=example.prompt, text=text))
                owners.append(index)
        hand_over(self._scorer.score, continuations, handle)
        return results

    def _labelled(self, example: Candidates, said: Mapping[str, Reply | Failure]) -> Result:
        totals: dict[str, tuple[float, int]] = {}
        for text, reply in said.items():
            if isinstance(reply, Failure):
                return Unjudged(id=example.id, kind="unanswered", reason=f"{reply.kind}: {reply.reason}")
            total = total_logprob(reply)
            if isinstance(total, str):
                return Unjudged(id=example.id, kind="unparsable", reason=total)
            totals[text] = total
        labels = [likelihood(*totals[text], length_power=self._length_power) for text in example.responses]
        return labelled(example, labels, self.provenance, {"tokens": [totals[text][1] for text in example.responses]})


class ModelLikelihood:
    """Labels any responses by their log-prob under a model that is here, each prompt computed once.

    The end-of-text token of a finished response is scored, and counts as one of its tokens.

    Args:
        local: the teacher.
        length_power: β.
        rows: limits and sizes.
    """

    def __init__(self, local: LocalModel, *, length_power: float = 1.3, rows: Rows | None = None) -> None:
        rows = Rows() if rows is None else rows
        self.scorer = PackedScorer(local, SequenceLogProb(length_power), rows, score_responses=True)
        self.provenance = Provenance(
            judge="teacher likelihood",
            version=VERSION,
            model=local.name,
            model_version=local.weights,
            settings={"length_power": length_power, "dtype": dtype_of(local), **rows.record()},
        )

    def __call__(
        self, examples: Sequence[Candidates], *, done: Done | None = None, known: Collection[int] = ()
    ) -> list[Result | None]:
        """Labels every example."""
        return label_by(self.scorer, self.provenance, examples, done=done, known=known)


def dtype_of(local: LocalModel) -> str:
    """The name of the dtype in which a model computes."""
    return str(jnp.dtype(local.model.dtype))


def label_by(
    scorer: PackedScorer,
    provenance: Provenance,
    examples: Sequence[Candidates],
    *,
    done: Done | None,
    known: Collection[int],
    offset: float = 0.0,
) -> list[Result | None]:
    """The examples with a scorer's scores as their labels.

    Args:
        scorer: of a local model.
        provenance: of the labels.
        examples: to be labelled.
        done: see ``Judge``.
        known: see ``Judge``.
        offset: added to every score.
    """
    results: list[Result | None] = [None] * len(examples)
    for index, scored in scorer(examples, known):
        example = examples[index]
        if isinstance(scored, Refused):
            result: Result = Unjudged(id=example.id, kind="refused", reason=scored.reason)
        elif not all(math.isfinite(score) for score in scored.scores):
            result = Unjudged(id=example.id, kind="unparsable", reason="the model's score is not a finite number")
        else:
            details: dict[str, Any] = {"tokens": list(scored.num_tokens)}
            if scored.cut:
                details["cut"] = list(scored.cut)
            result = labelled(example, (float(score) + offset for score in scored.scores), provenance, details)
        results[index] = result
        if done is not None:
            done(index, result)
    return results
