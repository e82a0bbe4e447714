"""The data of a comparison of loss variants: prompts split in two, their candidates, judged, as token groups."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from jaxrefine.data.examples import Candidates
from jaxrefine.data.packing import Refused, TokenGroup, tokenize_group
from jaxrefine.data.templates import TEMPLATES, VERDICT_WORDS
from jaxrefine.data.tokenizer import Tokenizer
from jaxrefine.judging.answers import canonical_number, extract, is_right
from jaxrefine.sampling.generate import Sample


@dataclasses.dataclass(frozen=True, kw_only=True)
class Lengths:
    """Longest prompt and response, in tokens; a longer prompt loses its start, a longer response its end."""

    prompt: int = 256
    response: int = 256

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            if (value := getattr(self, field.name)) < 2:
                raise ValueError(f"lengths.{field.name} = {value} must be at least 2")


@dataclasses.dataclass(frozen=True, kw_only=True)
class Judged:
    """A prompt with labelled candidates."""

    example: Candidates
    answers: tuple[str | None, ...]
    """The canonical answer that each candidate marks; None where it marks none."""
    tokens: tuple[tuple[int, ...], ...] | None = None
    """The very ids that were sampled; None where the candidates came as text."""

    @property
    def can_rank(self) -> bool:
        """Whether two candidates have different labels."""
        return len(set(self.example.labels)) > 1

    def chosen(self, indices: Sequence[int]) -> Judged:
        """With these candidates only."""
        pick = lambda values: tuple(values[index] for index in indices)  # noqa: E731
        example = dataclasses.replace(
            self.example,
            responses=pick(self.example.responses),
            labels=pick(self.example.labels),
            finished=pick(self.example.finished),
        )
        tokens = None if self.tokens is None else pick(self.tokens)
        return Judged(example=example, answers=pick(self.answers), tokens=tokens)

    def distinct(self) -> tuple[Judged, tuple[int, ...]]:
        """Each different candidate once, and for every candidate its index among those."""
        contents = list(self.example.responses if self.tokens is None else self.tokens)
        order = list(dict.fromkeys(contents))
        return self.chosen([contents.index(content) for content in order]), tuple(map(order.index, contents))


def is_binary(rows: Iterable[Judged]) -> bool:
    """Whether all labels are right (1) or wrong (0)."""
    return all(label in (0.0, 1.0) for row in rows for label in row.example.labels)


def marked_answer(text: str, known: str | None) -> str | None:
    r"""The canonical answer that a solution marks, read as a number where the known answer is one.

    >>> marked_answer("so\n#### 1,200", "7"), marked_answer("#### Yes", "no"), marked_answer("7", "7")
    ('1200', 'yes', None)
    """
    is_words = known is not None and canonical_number(known) is None
    return extract(text, kind="text" if is_words else "number")


def judge(prompt: Candidates, samples: Iterable[Sample], tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """What the journal keeps of samples: text, outcome, answer, tokens.

    Args:
        prompt: with its known answer.
        samples: of any policy; one that was cut by length is never right.
        tokenizer: makes the text that is judged.

    Returns:
        One record a sample.

    Raises:
        ValueError: the prompt has no known answer.
    """
    if prompt.answer is None:
        raise ValueError(f"prompt {prompt.id!r} has no answer to judge its samples by")
    records = []
    for sample in samples:
        text = tokenizer.decode(sample.content)
        records.append(
            {
                "text": text,
                "outcome": is_right(text, prompt.answer) if sample.finished else "no answer",
                "answer": marked_answer(text, prompt.answer) if sample.finished else None,
                "finished": sample.finished,
                "logprob": math.fsum(sample.logprobs),
                "tokens": list(sample.tokens),
            }
        )
    return records


def judged_samples(prompt: Candidates, records: Sequence[Mapping[str, Any]]) -> Judged:
    """The candidates of a journal's records: label 1 where right, else 0."""
    example = dataclasses.replace(
        prompt,
        responses=tuple(record["text"] for record in records),
        labels=tuple(float(record["outcome"] == "right") for record in records),
        finished=tuple(record["finished"] for record in records),
    )
    return Judged(
        example=example,
        answers=tuple(record["answer"] for record in records),
        tokens=tuple(tuple(record["tokens"]) for record in records),
    )


def judged_texts(example: Candidates) -> Judged:
    """Scored candidates of a file, with the file's own labels."""
    return Judged(example=example, answers=tuple(marked_answer(text, example.answer) for text in example.responses))


def token_group(judged: Judged, tokenizer: Tokenizer, lengths: Lengths, *, group_id: int) -> TokenGroup | Refused:
    """A prompt and its candidates as token ids, with verdict words, to be packed with or without them."""
    return tokenize_group(
        judged.example,
        tokenizer,
        group_id=group_id,
        max_prompt=lengths.prompt,
        max_response=lengths.response,
        suffix=TEMPLATES["verdict"].text,
        verdicts=VERDICT_WORDS,
        response_ids=judged.tokens,
    )


def cut_share(groups: Iterable[TokenGroup], longest: int) -> float:
    """The share of responses that are as long as may be: nearly all of them were cut there."""
    lengths = [len(response) for group in groups for response in group.responses]
    return float(np.mean([length >= longest for length in lengths])) if lengths else 0.0


def prompt_ids(prompt: Candidates, tokenizer: Tokenizer, lengths: Lengths) -> tuple[int, ...]:
    """A prompt's own ids, as `token_group` gives them.

    Raises:
        ValueError: the prompt cannot be used, with the reason.
    """
    bare = dataclasses.replace(prompt, responses=(), labels=(), finished=())
    group = tokenize_group(bare, tokenizer, group_id=0, max_prompt=lengths.prompt, max_response=lengths.response)
    if isinstance(group, Refused):
        raise ValueError(f"prompt {prompt.id!r}: {group.reason}")
    return group.prompt
