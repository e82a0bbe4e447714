"""A group of candidates as token ids: what the packer lays out.

Prompt and response are tokenised apart and their ids concatenated: the boundary is never guessed. BOS stands at
position 0 only; EOS ends a response exactly once and is scored; a response cut by length gets none.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import Any

from jaxrefine.config import unknown_name
from jaxrefine.data.examples import ORIGINAL, Candidates, Comparison, Instruction, Routed
from jaxrefine.data.tokenizer import Tokenizer

Ids = tuple[int, ...]

MLE_ON = ("best", "right", "all", "first", "original", "none")
"""Which responses the likelihood term reads: the first with the highest label, those with a label above 0, each of
them, the first one, the data's own response (``meta["original"]``, which is read beside the candidates and not ranked),
none."""


Example = Instruction | Candidates | Comparison | Routed


@dataclasses.dataclass(frozen=True)
class Refused:
    """A group that is left out, and why; counted and kept, never dropped in silence."""

    group_id: int
    reason: str


@dataclasses.dataclass(frozen=True)
class TokenGroup:
    """A prompt and its candidates. Per-candidate fields left empty get their defaults.

    Args:
      group_id: index in the data set, at least 0.
      prompt: ids, BOS included; never empty.
      responses: ids of each, EOS included where the response finished; none for a query to be routed.
      labels: higher is better; default 0.
      rank_where: which candidates are ranked; default all.
      mle_weight: weight of each response in the likelihood term; default 1.
      reference_scores: summed log-probs of a reference model; default 0.
      suffix: ids between a response and its verdict word; read by the model, never scored.
      verdicts: ids of the words for a right and for a wrong response.
      rewards: of each model to route between.
      reward_where: which rewards are known; default all.

    Raises:
      ValueError: an empty prompt, response or verdict word; fields of unequal lengths.

    >>> TokenGroup(0, (1, 7), ((5, 2), (6, 2)), labels=(1.0, 0.0)).rank_where
    (True, True)
    """

    group_id: int
    prompt: Ids
    responses: tuple[Ids, ...] = ()
    labels: tuple[float, ...] = ()
    rank_where: tuple[bool, ...] = ()
    mle_weight: tuple[float, ...] = ()
    reference_scores: tuple[float, ...] = ()
    suffix: Ids = ()
    verdicts: tuple[Ids, Ids] | None = None
    rewards: tuple[float, ...] | None = None
    reward_where: tuple[bool, ...] | None = None

    def __post_init__(self) -> None:
        num = len(self.responses)
        if self.group_id < 0:
            raise ValueError(f"group_id is {self.group_id}; it must be at least 0 (-1 marks an absent group)")
        if not self.prompt:
            raise ValueError(f"group {self.group_id}: its prompt is empty")
        if empty := [n for n, response in enumerate(self.responses) if not response]:
            raise ValueError(f"group {self.group_id}: responses {empty} are empty")
        for name, default in _DEFAULTS.items():
            given = getattr(self, name) or (default,) * num
            if len(given) != num:
                raise ValueError(f"group {self.group_id}: {len(given)} {name} for {num} responses")
            object.__setattr__(self, name, given)
        if self.verdicts is not None and (not all(self.verdicts) or self.verdicts[0] == self.verdicts[1]):
            raise ValueError(f"group {self.group_id}: verdict words {self.verdicts} must be two, neither empty")
        if self.rewards is not None:
            known = self.reward_where or (True,) * len(self.rewards)
            if len(known) != len(self.rewards):
                raise ValueError(f"group {self.group_id}: {len(known)} reward_where for {len(self.rewards)} rewards")
            object.__setattr__(self, "reward_where", known)


_DEFAULTS: dict[str, Any] = {"labels": 0.0, "rank_where": True, "mle_weight": 1.0, "reference_scores": 0.0}


def tokenize_group(
    example: Example,
    tokenizer: Tokenizer,
    *,
    group_id: int,
    max_prompt: int,
    max_response: int,
    mle_on: str = "best",
    suffix: str = "",
    verdicts: tuple[str, str] | None = None,
    response_ids: Sequence[Sequence[int]] | None = None,
) -> TokenGroup | Refused:
    """The token ids of one example, or why it cannot be used.

    A prompt that is too long loses its start (a template's end stays); a response that is too long loses its end and
    with it the EOS, for its text does not stop there.

    Args:
      example: its prompt and what hangs on it; a ``Comparison`` becomes two candidates.
      tokenizer: encodes without special tokens; those are added here and nowhere else.
      group_id: index of the group in the data set.
      max_prompt: tokens kept of a prompt, BOS included.
      max_response: tokens kept of a response, EOS included.
      mle_on: one of ``MLE_ON``.
      suffix: text between a response and its verdict word, as " This solution is".
      verdicts: the words for right and wrong, with their leading space: (" correct", " incorrect").
      response_ids: the very ids that were sampled, instead of tokenising the texts again.

    Returns:
      The group, or ``Refused`` with the reason.

    Raises:
      ValueError: an unknown ``mle_on``, or limits below what BOS and one token need.
    """
    if mle_on not in MLE_ON:
        raise ValueError(unknown_name(mle_on, MLE_ON, "mle_on"))
    if max_prompt < 2 or max_response < 1:
        raise ValueError(f"max_prompt = {max_prompt} must be at least 2, max_response = {max_response} at least 1")
    if isinstance(example, Comparison):
        example = example.candidates()
    prompt = _prompt_ids(example.prompt, tokenizer, max_prompt)
    if not prompt:
        return Refused(group_id, "the prompt is empty")
    if isinstance(example, Routed):
        known = tuple(reward is not None for reward in example.rewards)
        rewards = tuple(0.0 if reward is None else float(reward) for reward in example.rewards)
        return TokenGroup(group_id, prompt, rewards=rewards, reward_where=known)
    if isinstance(example, Candidates):
        texts, labels, finished = example.responses, tuple(map(float, example.labels)), example.finished
    else:
        texts, labels, finished = (example.response,), (1.0,), (True,)
    if response_ids is not None and len(response_ids) != len(texts):
        raise ValueError(f"group {group_id}: {len(response_ids)} response_ids for {len(texts)} responses")
    encoded = [tokenizer.encode(text) for text in texts] if response_ids is None else [list(r) for r in response_ids]
    if original := mle_on == "original" and isinstance(example, Candidates):
        text = example.meta.get(ORIGINAL)
        if not isinstance(text, str) or not text:
            return Refused(group_id, 'mle_on is "original", and meta["original"] holds no text')
        encoded, finished = [*encoded, tokenizer.encode(text)], (*finished, True)
    responses = []
    for ids, done in zip(encoded, finished, strict=True):
        response = _response_ids(ids, tokenizer, max_response, finished=done)
        if isinstance(response, str):
            return Refused(group_id, f"a response {response}")
        responses.append(response)
    words = None if verdicts is None else tuple(tuple(tokenizer.encode(word)) for word in verdicts)
    return TokenGroup(
        group_id,
        prompt,
        tuple(responses),
        labels=(*labels, min(labels, default=0.0)) if original else labels,
        rank_where=(True,) * len(labels) + (False,) if original else (),
        mle_weight=(0.0,) * len(labels) + (1.0,) if original else mle_weights(labels, mle_on),
        suffix=tuple(tokenizer.encode(suffix)) if suffix else (),
        verdicts=None if words is None else (words[0], words[1]),
    )


def mle_weights(labels: Sequence[float], mle_on: str) -> tuple[float, ...]:
    """The weight of each response in the likelihood term.

    >>> mle_weights((0.0, 1.0, 1.0), "best"), mle_weights((0.0, 1.0, 1.0), "right")
    ((0.0, 1.0, 0.0), (0.0, 1.0, 1.0))
    """
    if mle_on in ("all", "none"):
        return (float(mle_on == "all"),) * len(labels)
    if mle_on == "right":
        return tuple(float(label > 0) for label in labels)
    # An instruction's only response is the original one.
    chosen = max(range(len(labels)), key=lambda n: labels[n], default=0) if mle_on == "best" else 0
    return tuple(float(n == chosen) for n in range(len(labels)))


def _prompt_ids(text: str, tokenizer: Tokenizer, limit: int) -> Ids:
    ids = tuple(tokenizer.encode(text))
    bos = () if tokenizer.bos_id is None else (tokenizer.bos_id,)
    if bos and ids[:1] == bos:
        ids = ids[1:]
    return bos + ids[max(0, len(ids) - (limit - len(bos))) :] if ids else ()


def _response_ids(ids: list[int], tokenizer: Tokenizer, limit: int, *, finished: bool) -> Ids | str:
    """Ids with EOS exactly once at the end of a finished response that was not cut; or what is wrong."""
    sampled_end = ids[-1:] if ids and ids[-1] in tokenizer.eos_ids else []
    body = ids[: len(ids) - len(sampled_end)]
    if set(tokenizer.eos_ids) & set(body):
        return "has an end-of-sequence token inside"
    if tokenizer.bos_id is not None and tokenizer.bos_id in body:
        return "has a begin-of-sequence token inside"
    whole = (*body, *(sampled_end or ([tokenizer.eos_id] if finished else [])))
    return whole[:limit] or "is empty and did not finish"
