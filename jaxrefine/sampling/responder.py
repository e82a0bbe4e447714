"""The one question that sampling, judging and refining put to any language model, local or behind an endpoint."""

from __future__ import annotations

import dataclasses
import hashlib
import json
from collections.abc import Callable, Sequence
from typing import Literal, Protocol, runtime_checkable

Role = Literal["system", "user", "assistant"]
FailureKind = Literal["refused", "deadline", "budget", "invalid", "unavailable"]


@dataclasses.dataclass(frozen=True)
class Message:
    """One turn of a chat."""

    role: Role
    content: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class Request:
    """One text to be generated.

    Exactly one of ``messages`` (chat) and ``prompt`` (completion) is given.

    >>> Request(prompt="2 + 2 =", max_tokens=4).key() == Request(prompt="2 + 2 =", max_tokens=4).key()
    True
    """

    messages: tuple[Message, ...] = ()
    prompt: str | None = None
    max_tokens: int
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    seed: int | None = None
    """Of this text; two requests that differ in nothing but their seed are two samples."""
    logprobs: bool = False
    """Whether the log-probability of every token of the reply is wanted."""

    def __post_init__(self) -> None:
        if bool(self.messages) == (self.prompt is not None):
            raise ValueError("a request holds either messages (chat) or a prompt (completion), and exactly one of them")
        if self.max_tokens < 1:
            raise ValueError(f"max_tokens = {self.max_tokens} must be at least 1")
        if self.temperature < 0:
            raise ValueError(f"temperature = {self.temperature} must not be negative; 0 is greedy")
        if not 0 < self.top_p <= 1:
            raise ValueError(f"top_p = {self.top_p} must be above 0 and at most 1")

    def key(self) -> str:
        """A digest of the content: equal for equal requests, in every process and version of Python."""
        content = json.dumps(dataclasses.asdict(self), sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Reply:
    """The text that was generated.

    ``finished`` is False where it was cut by ``max_tokens``. ``tokens`` and ``logprobs`` (one a token, of the reply
    alone, natural logarithms) are there where they were asked for and the model gives them. ``cost`` is in US dollars,
    0 for a local model; ``model`` is what the server says it is.
    """

    text: str
    finished: bool = True
    tokens: tuple[str, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    prompt_tokens: int = 0
    reply_tokens: int = 0
    cost: float = 0.0
    model: str = ""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Failure:
    """No reply, and why: what was tried and what came back, without any secret."""

    kind: FailureKind
    reason: str
    attempts: int = 1


@dataclasses.dataclass(frozen=True, kw_only=True)
class Continuation:
    """A given text after a given prompt, of which the log-probability is wanted; nothing is generated.

    >>> Continuation(prompt="2 + 2 =", text=" 4").key() == Continuation(prompt="2 + 2 =", text=" 5").key()
    False
    """

    prompt: str
    text: str

    def __post_init__(self) -> None:
        if not self.prompt or not self.text:
            raise ValueError("a continuation has a prompt and a text, neither of them empty")

    def key(self) -> str:
        """A digest of the content: equal for equal continuations, in every process and version of Python."""
        content = json.dumps({"continuation": dataclasses.asdict(self)}, sort_keys=True, ensure_ascii=True)
        return hashlib.sha256(content.encode()).hexdigest()[:32]


@runtime_checkable
class Responder(Protocol):
    """Anything that answers requests.

    ``name`` and ``version`` go into the provenance of what is made from the replies.
    """

    name: str
    version: str

    def respond(
        self,
        requests: Sequence[Request],
        *,
        done: Callable[[int, Reply | Failure], None] | None = None,
    ) -> list[Reply | Failure]:
        """Answers every request, in the order given.

        Args:
            requests: what is asked.
            done: called with the index and the result of each request as soon as it is there, in any order, from the
                calling thread.
        """


@runtime_checkable
class Scorer(Protocol):
    """Anything that tells the log-probability of given texts: a teacher's likelihood of a candidate.

    ``name`` and ``version`` go into the provenance of what is made from the scores.
    """

    name: str
    version: str

    def score(
        self,
        continuations: Sequence[Continuation],
        *,
        done: Callable[[int, Reply | Failure], None] | None = None,
    ) -> list[Reply | Failure]:
        """Scores every continuation, in the order given.

        Args:
            continuations: what is scored.
            done: called as in ``Responder.respond``.

        Returns:
            Replies whose ``text`` is the continuation's and whose ``tokens`` and ``logprobs`` cover all of it, or
            failures.
        """
