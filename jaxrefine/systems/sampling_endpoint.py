"""Candidates from a teacher behind an endpoint: a file of prompts in, a file of candidates out."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import math
import pathlib
from collections.abc import Sequence
from typing import Any, Literal

from jaxrefine import __version__
from jaxrefine.artefacts.atomic import write_json
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage, StageError, input_directory
from jaxrefine.data.examples import Candidates
from jaxrefine.data.jsonl import set_aside, write_jsonl
from jaxrefine.data.readers import read_prompts, write_candidates
from jaxrefine.judging.likelihood import said_by_teacher
from jaxrefine.judging.provenance import Unjudged
from jaxrefine.sampling.endpoint import Endpoint
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.redaction import read_secret
from jaxrefine.sampling.responder import Failure, Message, Reply, Request, Responder

PROMPTS, RECORDS, CANDIDATES, SPENDING = "prompts.jsonl", "samples.jsonl", "candidates.jsonl", "spending.json"


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointSampling:
    """A job; stopped at any instant, the same command goes on and pays for nothing twice."""

    endpoint: EndpointConfig
    """Where the model is, and what it may cost."""
    prompts: str = ""
    """A ``.jsonl`` file, ``{"id": "1", "prompt": "…"}`` a line; ``answer`` and ``meta`` are handed on."""
    max_bad_lines: int = 0
    """Malformed lines of ``prompts`` set aside, with where and why, in ``rejects.jsonl``; more stop the job."""
    keep: str = "runs/sampling/replies"
    """Directory of the replies and the ledger: one ledger, one budget. It is not the work directory's own: with a
    higher budget, other prompts or more candidates, another work directory goes on with what was paid for here."""
    num_candidates: int = 4
    """A prompt."""
    protocol: Literal["chat", "completion"] = "chat"
    """A chat has the prompt as its user's message; a completion has it as it stands."""
    system: str = ""
    """First message of a chat; "" is none."""
    max_tokens: int = 512
    temperature: float = 1.0
    top_p: float = 1.0
    stop: tuple[str, ...] = ()
    logprobs: bool = False
    """Whether the log-probability of each candidate is asked for, and kept for ``SaidLikelihood``."""
    seed: int = 0
    """Of all candidates."""
    missing_allowed: float = 0.0
    """Share of the candidates that may fail for good; with more, the stage stops and the same command goes on."""

    def stages(self) -> list[Stage]:
        """Prompts, samples."""
        if not self.prompts:
            raise ValueError("no prompts: give yours with --prompts FILE.jsonl")
        if not pathlib.Path(self.prompts).expanduser().is_file():
            raise ValueError(f"prompts: there is no file {self.prompts}; give yours with --prompts FILE.jsonl")
        read_secret(self.endpoint.api_key_env)  # missing, it is better noticed now
        return [Stage("prompts", self.check_prompts), Stage("samples", self.sample, inputs=("prompts",))]

    def check_prompts(self, directory: pathlib.Path) -> None:
        """Reads all prompts before anything is paid for, and keeps them as they were."""
        options = set_aside(directory, self.max_bad_lines)
        write_candidates(directory / PROMPTS, read_prompts(pathlib.Path(self.prompts).expanduser(), **options))

    def sample(self, directory: pathlib.Path) -> None:
        """Asks for what is not there yet; writes ``samples.jsonl``, ``candidates.jsonl`` for judges, ``spending.json``.

        Samples and candidates are as those of ``LocalSampling``; ``logprob`` is null where none is known.
        """
        prompts = read_prompts(input_directory(directory, "prompts") / PROMPTS)
        asked = [request for prompt in prompts for request in self.requests(prompt)]
        with Endpoint(self.endpoint, self.keep) as endpoint:
            results = endpoint.respond(asked)
            self._check_missing(results)
            provenance = self._provenance(endpoint)
            write_json(directory / SPENDING, dataclasses.asdict(endpoint.spending))
        each = self.num_candidates
        replies = [
            [result for result in results[first : first + each] if isinstance(result, Reply)]
            for first in range(0, len(results), each)
        ]
        answered = [(prompt, given) for prompt, given in zip(prompts, replies, strict=True) if given]
        if (
            self.temperature > 0
            and each > 1
            and all(len({reply.text for reply in given}) == 1 for _, given in answered)
        ):
            say(f"the candidates of each prompt are equal at temperature {self.temperature}: does the server sample?")
        write_jsonl(directory / RECORDS, [_record(prompt, given, provenance) for prompt, given in answered])
        write_candidates(directory / CANDIDATES, [self._example(*one, provenance) for one in answered])

    def requests(self, prompt: Candidates) -> list[Request]:
        """What is asked for one prompt, a request a candidate."""
        messages = (Message("system", self.system),) if self.system else ()
        chat = self.protocol == "chat"
        return [
            Request(
                messages=(*messages, Message("user", prompt.prompt)) if chat else (),
                prompt=None if chat else prompt.prompt,
                max_tokens=self.max_tokens,
                temperature=self.temperature,
                top_p=self.top_p,
                stop=self.stop,
                seed=seed_of(self.seed, prompt.id, number),
                logprobs=self.logprobs,
            )
            for number in range(self.num_candidates)
        ]

    def _provenance(self, responder: Responder) -> dict[str, Any]:
        policy = {"temperature": self.temperature, "top_p": self.top_p, "max_new_tokens": self.max_tokens}
        said = {"protocol": self.protocol, "system": self.system, "stop": list(self.stop)}
        endpoint = {"model": responder.name, "endpoint": responder.version}
        return endpoint | {"policy": policy, **said, "seed": self.seed, "version": __version__}

    def _example(self, prompt: Candidates, replies: Sequence[Reply], provenance: dict[str, Any]) -> Candidates:
        """What judges read: unlabelled candidates, with where they come from."""
        example: Candidates | Unjudged = dataclasses.replace(
            prompt,
            responses=tuple(reply.text for reply in replies),
            labels=(0.0,) * len(replies),
            finished=tuple(reply.finished for reply in replies),
        )
        if self.logprobs:
            example = said_by_teacher(prompt, replies)
        if isinstance(example, Unjudged):
            raise StageError(f"prompt {prompt.id!r}: {example.reason}; --no-logprobs samples without them")
        return dataclasses.replace(example, meta={**example.meta, "sampled": provenance})

    def _check_missing(self, results: Sequence[Reply | Failure]) -> None:
        failures = [result for result in results if isinstance(result, Failure)]
        if len(failures) > self.missing_allowed * len(results):
            counts = collections.Counter(f"{failure.kind}: {failure.reason}" for failure in failures)
            reasons = "\n".join(f"  {number} × {reason}" for reason, number in counts.most_common(5))
            raise MissingError(
                f"{len(failures)} of {len(results)} candidates are missing:\n{reasons}\n"
                f"What is there is kept in {self.keep}: the same command goes on, and so does one with a higher "
                "budget in another --workdir; --missing-allowed goes without them."
            )


class MissingError(StageError):
    """Candidates that an endpoint did not give."""


def _record(prompt: Candidates, replies: Sequence[Reply], provenance: dict[str, Any]) -> dict[str, Any]:
    candidates = [
        {
            "text": reply.text,
            "logprob": None if reply.logprobs is None else math.fsum(reply.logprobs),
            "num_tokens": reply.reply_tokens if reply.logprobs is None else len(reply.logprobs),
            "finished": reply.finished,
            "model": reply.model,
        }
        for reply in replies
    ]
    record = {"id": prompt.id, "prompt": prompt.prompt, "candidates": candidates, "provenance": provenance}
    if prompt.answer is not None:
        record["answer"] = prompt.answer
    if prompt.meta:
        record["meta"] = dict(prompt.meta)
    return record


def seed_of(seed: int, id: str, number: int) -> int:
    """The seed of one candidate: equal prompts of different ids get different samples.

    >>> seed_of(0, "1", 0) == seed_of(0, "1", 0), seed_of(0, "1", 0) == seed_of(0, "1", 1)
    (True, False)
    """
    content = f"{seed}/{id}/{number}".encode()
    return int.from_bytes(hashlib.sha256(content).digest()[:4], "big") >> 1
