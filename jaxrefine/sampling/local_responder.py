"""A model of ours that answers requests, where a teacher, judge or refiner would otherwise ask an endpoint."""

from __future__ import annotations

import collections
import hashlib
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from jaxrefine.data.tokenizer import Tokenizer
from jaxrefine.models.decoder import Decoder
from jaxrefine.sampling.engine import COLUMNS, Ask, Draw, Engine
from jaxrefine.sampling.generate import SLOTS, Sample
from jaxrefine.sampling.policies import Policy
from jaxrefine.sampling.responder import Failure, Message, Reply, Request
from jaxrefine.scoring.reference import params_digest
from jaxrefine.typing import Params

Template = Callable[[Sequence[Message]], str]
"""A chat as the text that the model continues."""


def plain_chat(messages: Sequence[Message]) -> str:
    r"""The contents, a line end after each: a chat for a model that was trained on questions and line ends.

    >>> plain_chat([Message("system", "Be brief."), Message("user", "2+3?")])
    'Be brief.\n2+3?\n'
    """
    return "".join(f"{message.content}\n" for message in messages)


class _Same(NamedTuple):
    """Requests that are one ask: their prompt is read once."""

    prompt: tuple[int, ...]
    max_tokens: int
    top_p: bool


class LocalResponder:
    """A ``Responder`` over the sampling engine.

    A reply depends on the request alone, its seed included, and on ``seed``: equal requests get equal replies.

    Args:
      decoder: see ``Engine``.
      params: of the decoder.
      tokenizer: of the model; a prompt is BOS, if there is one, and the ids of its text.
      name: for the provenance: what people call the model.
      version: for the provenance; empty is a digest of the parameters, which reads all of them once.
      template: how a chat becomes a prompt; None refuses chats.
      max_new_tokens: the room of each slot; a request for more is refused.
      seed: of all replies.
      slots: see ``Engine``.
      columns: see ``Engine``.
      mesh: see ``Engine``.
    """

    def __init__(
        self,
        decoder: Decoder,
        params: Params,
        tokenizer: Tokenizer,
        *,
        name: str,
        version: str = "",
        template: Template | None = None,
        max_new_tokens: int = 512,
        seed: int = 0,
        slots: int = SLOTS,
        columns: int = COLUMNS,
        mesh: Mesh | None = None,
    ) -> None:
        self.name, self.version = name, version or params_digest(params)
        self._tokenizer, self._template = tokenizer, template
        self._room = decoder.config.max_positions
        self._engine = Engine(
            decoder,
            params,
            eos_ids=tokenizer.eos_ids,
            key=jax.random.key(seed),
            max_new_tokens=max_new_tokens,
            slots=slots,
            columns=columns,
            mesh=mesh,
        )

    def respond(
        self,
        requests: Sequence[Request],
        *,
        done: Callable[[int, Reply | Failure], None] | None = None,
    ) -> list[Reply | Failure]:
        """Answers every request, in the order given; see ``Responder``."""
        results: dict[int, Reply | Failure] = {}

        def settle(index: int, result: Reply | Failure) -> None:
            results[index] = result
            if done is not None:
                done(index, result)

        groups: dict[_Same, dict[int, list[int]]] = collections.defaultdict(lambda: collections.defaultdict(list))
        for index, request in enumerate(requests):
            found = self._same(request)
            if isinstance(found, Failure):
                settle(index, found)
            else:
                groups[found][int(request.key()[:8], 16)].append(index)
        asked = list(groups.items())
        asks = [
            Ask(
                id=int.from_bytes(hashlib.blake2b(repr(same.prompt).encode(), digest_size=4).digest(), "big"),
                prompt=same.prompt,
                draws=tuple(Draw(number, _policy(requests[indices[0]])) for number, indices in numbered.items()),
                max_new_tokens=same.max_tokens,
            )
            for same, numbered in asked
        ]
        for place, samples in self._engine.run(asks):
            same, numbered = asked[place]
            for indices, sample in zip(numbered.values(), samples, strict=True):
                for index in indices:
                    settle(index, self._reply(requests[index], sample, len(same.prompt)))
        return [results[index] for index in range(len(requests))]

    def _same(self, request: Request) -> _Same | Failure:
        if request.messages and self._template is None:
            return Failure(kind="refused", reason=f"{self.name} has no template for chats: give it one, or prompts")
        text = request.prompt if request.prompt is not None else ""
        if request.messages and self._template is not None:
            text = self._template(request.messages)
        ids = tuple(self._tokenizer.encode(text))
        bos = () if self._tokenizer.bos_id is None else (self._tokenizer.bos_id,)
        ids = ids if bos and ids[:1] == bos else bos + ids
        if not ids:
            return Failure(kind="refused", reason="the prompt is empty")
        if request.max_tokens > self._engine.max_new_tokens:
            return Failure(
                kind="refused",
                reason=f"max_tokens = {request.max_tokens}; this model was set up for {self._engine.max_new_tokens}",
            )
        if len(ids) + request.max_tokens > self._room:
            return Failure(
                kind="refused",
                reason=f"a prompt of {len(ids)} tokens and max_tokens = {request.max_tokens}, in all beyond the "
                f"{self._room} positions of the model",
            )
        return _Same(ids, request.max_tokens, request.temperature > 0 and request.top_p < 1)

    def _reply(self, request: Request, sample: Sample, prompt_tokens: int) -> Reply:
        ids = sample.content
        text, stopped = self._tokenizer.decode(ids), False
        ends = [place for place in map(text.find, filter(None, request.stop)) if place >= 0]
        if ends:
            text, stopped = text[: min(ends)], True
            num = next(n for n in range(len(ids) + 1) if len(self._tokenizer.decode(ids[:n])) >= len(text))
            ids = ids[:num]
        return Reply(
            text=text,
            finished=sample.finished or stopped,
            tokens=tuple(self._tokenizer.decode([token]) for token in ids) if request.logprobs else None,
            logprobs=sample.logprobs[: len(ids)] if request.logprobs else None,
            prompt_tokens=prompt_tokens,
            reply_tokens=len(sample.tokens),
            model=self.name,
        )


def _policy(request: Request) -> Policy:
    if request.temperature == 0:
        return Policy(temperature=0.0)
    return Policy(temperature=request.temperature, top_p=request.top_p)
