"""A language model that says what a script tells it to, and a tokenizer of one id a letter."""

from __future__ import annotations

import functools
import json
import re
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.conversion.apply import abstract_params
from jaxrefine.sampling.responder import Continuation, Failure, Reply, Request

BOS, EOS = 1, 2
LETTERS = "abcdefghijklmn"


class Scripted:
    """Answers each request by a function of it, from the last to the first, and keeps what it was asked."""

    name, version = "scripted", "7"

    def __init__(self, answer: Callable[[Request], Reply | Failure | str], *, reports: bool = True) -> None:
        self._answer, self._reports = answer, reports
        self.rounds: list[list[Request]] = []

    @property
    def asked(self) -> list[Request]:
        return [request for requests in self.rounds for request in requests]

    def respond(self, requests: Sequence[Request], *, done=None) -> list[Reply | Failure]:
        self.rounds.append(list(requests))
        found: dict[int, Reply | Failure] = {}
        for index in reversed(range(len(requests))):
            said = self._answer(requests[index])
            found[index] = Reply(text=said) if isinstance(said, str) else said
            if done is not None and self._reports:
                done(index, found[index])
        return [found[index] for index in range(len(requests))]


class Teacher:
    """Gives the log-probs of continuations by a function of prompt and text."""

    name, version = "teacher", "3"

    def __init__(self, logprobs: Callable[[str, str], Sequence[float] | Failure | None]) -> None:
        self._logprobs = logprobs
        self.asked: list[Continuation] = []

    def score(self, continuations: Sequence[Continuation], *, done=None) -> list[Reply | Failure]:
        found: list[Reply | Failure] = []
        for index, asked in enumerate(continuations):
            self.asked.append(asked)
            said = self._logprobs(asked.prompt, asked.text)
            if not isinstance(said, Failure):
                said = Reply(text=asked.text, logprobs=None if said is None else tuple(said))
            found.append(said)
            if done is not None:
                done(index, said)
        return found


class Letters:
    """a is 3, b is 4, … n is 16; every other character is none."""

    bos_id: int | None = BOS
    eos_id, eos_ids, pad_id, vocab_size = EOS, (EOS,), None, 17

    def encode(self, text: str) -> list[int]:
        return [3 + LETTERS.index(letter) for letter in text if letter in LETTERS]

    def decode(self, ids: Sequence[int]) -> str:
        return "".join(LETTERS[i - 3] for i in ids if i >= 3)


def shown(request: Request, what: str = "Response") -> dict[str, str]:
    """The texts that a request shows between their lines, by name, in order."""
    text = request.prompt if request.prompt is not None else request.messages[-1].content
    if request.messages:
        text = next(message.content for message in request.messages if message.role == "user")
    found = re.findall(rf"\[{what} ?(\w*) begins (\w+)\]\n(.*?)\n\[{what} ?\1 ends \2\]", text, re.DOTALL)
    return {name: body for name, _, body in found}


def judgement(points: dict[str, Sequence[float]], *, kind: str = "open", **changes) -> str:
    """A reply in the contextual judge's form, ranked by the sums."""
    axes = {"open": ("relevance", "detail", "accuracy"), "closed": ("accuracy", "detail", "clarity")}[kind]
    sums = {name: sum(values) for name, values in points.items()}
    ranking = [[name for name in sums if sums[name] == total] for total in sorted(set(sums.values()), reverse=True)]
    scores = {name: dict(zip(axes, values, strict=True)) for name, values in points.items()}
    return json.dumps({"kind": kind, "reference": "mine", "scores": scores, "ranking": ranking} | changes)


@functools.cache
def random_params(config, seed: int = 0):
    """Parameters far from their initial values; scales stay near 1."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        near = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(near + 0.4 * rng.normal(size=shape.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, abstract_params(config))
