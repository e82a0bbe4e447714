"""What a datum is, as text: the four shapes that every reader gives and every system takes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping
from typing import Any, Literal

Verdict = Literal["first", "second", "tie"]

SAID = "said"
"""The field of ``meta`` with what the model that wrote the responses said of each: its log-prob and its tokens."""
ORIGINAL = "original"
"""The field of ``meta`` with the data's own response to a prompt, where candidates stand in its place."""


def _check_id(id: str) -> None:
    if not isinstance(id, str) or not id:
        raise ValueError(f"an id is a non-empty string, got {id!r}")


def _check_prompt(id: str, prompt: str) -> None:
    if not isinstance(prompt, str) or not prompt:
        raise ValueError(f"example {id!r}: a prompt is a non-empty string, got {prompt!r}")


def _finite(value: float) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


@dataclasses.dataclass(frozen=True)
class Instruction:
    r"""A prompt and the one response to learn.

    >>> Instruction("1", "2+3?\n", "#### 5", answer="5").response
    '#### 5'
    """

    id: str
    prompt: str
    response: str
    answer: str | None = None
    """The final answer by which a response is judged, where there is one."""
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_id(self.id)
        _check_prompt(self.id, self.prompt)


@dataclasses.dataclass(frozen=True)
class Candidates:
    r"""A prompt and its candidate responses, labelled; higher is better, right and wrong are 1 and 0.

    Without responses it is a prompt to sample from.

    >>> Candidates("1", "2+3?\n", ("#### 5", "#### 6"), (1.0, 0.0)).finished
    (True, True)
    """

    id: str
    prompt: str
    responses: tuple[str, ...] = ()
    labels: tuple[float, ...] = ()
    answer: str | None = None
    finished: tuple[bool, ...] = ()
    """Whether each response ended by itself: one that was cut by length gets no EOS. Empty means all of them."""
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_id(self.id)
        _check_prompt(self.id, self.prompt)
        num = len(self.responses)
        if not self.finished:
            object.__setattr__(self, "finished", (True,) * num)
        for name, found in (("labels", self.labels), ("finished", self.finished)):
            if len(found) != num:
                raise ValueError(f"example {self.id!r}: {num} responses need as many {name}, got {len(found)}")
        for position, label in enumerate(self.labels):
            if not _finite(label):
                raise ValueError(f"example {self.id!r}: label {position} is a finite number, got {label!r}")


@dataclasses.dataclass(frozen=True)
class Comparison:
    """Two responses to a prompt and which of them is better.

    >>> Comparison("1", "Hello?", "Hi!", "What?", "first").candidates().labels
    (1.0, 0.0)
    """

    id: str
    prompt: str
    first: str
    second: str
    verdict: Verdict
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_id(self.id)
        _check_prompt(self.id, self.prompt)
        if self.verdict not in ("first", "second", "tie"):
            raise ValueError(f"example {self.id!r}: a verdict is first, second or tie, got {self.verdict!r}")

    def candidates(self) -> Candidates:
        """The same as two labelled candidates; a tie gives equal labels."""
        labels = {"first": (1.0, 0.0), "second": (0.0, 1.0), "tie": (0.5, 0.5)}[self.verdict]
        return Candidates(self.id, self.prompt, (self.first, self.second), labels, meta=self.meta)


@dataclasses.dataclass(frozen=True)
class Routed:
    """A query and the reward of each model's response to it; None where a model was not asked.

    >>> Routed("1", "Hello?", ("small", "large"), (0.1, None)).rewards
    (0.1, None)
    """

    id: str
    prompt: str
    models: tuple[str, ...]
    rewards: tuple[float | None, ...]
    tags: tuple[str, ...] = ()
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        _check_id(self.id)
        _check_prompt(self.id, self.prompt)
        if not self.models or len(set(self.models)) != len(self.models):
            raise ValueError(f"example {self.id!r}: models are distinct and at least one, got {self.models}")
        if len(self.rewards) != len(self.models):
            raise ValueError(
                f"example {self.id!r}: {len(self.models)} models need as many rewards, got {len(self.rewards)}"
            )
        for model, reward in zip(self.models, self.rewards, strict=True):
            if reward is not None and not _finite(reward):
                raise ValueError(f"example {self.id!r}: the reward of {model} is a finite number, got {reward!r}")
