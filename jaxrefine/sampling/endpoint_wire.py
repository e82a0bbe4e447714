"""What goes over the wire to an OpenAI-compatible endpoint, and what a body that comes back says."""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import json
from collections.abc import Sequence
from typing import Any, Literal, TypeGuard

from jaxrefine.artefacts.atomic import parse_json
from jaxrefine.sampling.endpoint_config import EndpointConfig
from jaxrefine.sampling.responder import Continuation, FailureKind, Request
from jaxrefine.sampling.spending import Usage

_TOKENS_AROUND_A_MESSAGE = 16


class MalformedError(Exception):
    """A body that is no reply; ``usage`` is what it says was billed, if it says so."""

    def __init__(self, reason: str, usage: Usage | None = None):
        super().__init__(reason)
        self.reason, self.usage = reason, usage


class UnsupportedError(MalformedError):
    """A body that no other attempt would better: the server cannot do what is asked."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Call:
    """One HTTP request, for one or several texts."""

    kind: Literal["chat", "completion", "score"]
    keys: tuple[str, ...]
    """Of the texts that it asks for, in the order of the choices."""
    body: dict[str, Any]
    """JSON, without ``n``."""
    prompt_bound: int
    """Tokens that the prompt can have at most: its bytes, and some around each message."""
    reply_bound: int
    """Tokens that one choice can have at most."""
    continuation: Continuation | None = None

    def bound(self) -> Usage:
        """The most that the call can take."""
        return Usage(self.prompt_bound, self.reply_bound * len(self.keys))


@dataclasses.dataclass(frozen=True, kw_only=True)
class Choice:
    """One text of a reply; ``declined`` says why the model gave none."""

    text: str = ""
    finished: bool = True
    tokens: tuple[str, ...] | None = None
    logprobs: tuple[float, ...] | None = None
    declined: str = ""
    kind: FailureKind = "refused"
    """Of what was declined."""


@dataclasses.dataclass(frozen=True)
class Answer:
    """A body that was understood: at least one choice, by position."""

    choices: dict[int, Choice]
    usage: Usage | None
    model: str


def cache_key(asked: Request | Continuation, config: EndpointConfig) -> str:
    """Under which a reply is kept: content, endpoint, model and further fields."""
    return hashlib.sha256(f"{config.digest()} {asked.key()}".encode()).hexdigest()[:32]


def make_calls(asked: Sequence[Request | Continuation], keys: Sequence[str], config: EndpointConfig) -> list[Call]:
    """The calls that ask for all of them, in order; equal but for their seeds, up to ``choices_per_call`` in one.

    >>> config = EndpointConfig(base_url="http://127.0.0.1/v1", model="m", choices_per_call=2)
    >>> asked = [Request(prompt="2 + 2 =", max_tokens=4, seed=seed) for seed in range(3)]
    >>> [call.keys for call in make_calls(asked, ["a", "b", "c"], config)]
    [('a', 'b'), ('c',)]
    """
    groups: dict[str, list[int]] = {}
    for index, one in enumerate(asked):
        same = f"{index}" if isinstance(one, Continuation) else dataclasses.replace(one, seed=None).key()
        groups.setdefault(same, []).append(index)
    calls = []
    for members in groups.values():
        for start in range(0, len(members), config.choices_per_call):
            chosen = members[start : start + config.choices_per_call]
            calls.append((chosen[0], _call(asked[chosen[0]], tuple(keys[index] for index in chosen), config)))
    return [call for _, call in sorted(calls, key=lambda pair: pair[0])]


def _call(asked: Request | Continuation, keys: tuple[str, ...], config: EndpointConfig) -> Call:
    if isinstance(asked, Continuation):
        # one token is generated and thrown away: not every server takes max_tokens = 0
        text = asked.prompt + asked.text
        body = {"prompt": text, "echo": True, "logprobs": 1, "max_tokens": 1, "temperature": 0.0}
        bound = len(text.encode()) + _TOKENS_AROUND_A_MESSAGE
        body = _with_extra(body, config)
        return Call(kind="score", keys=keys, body=body, prompt_bound=bound, reply_bound=1, continuation=asked)
    body = {"temperature": asked.temperature}
    if asked.top_p != 1:
        body["top_p"] = asked.top_p
    if asked.stop:
        body["stop"] = list(asked.stop)
    if asked.seed is not None:
        body["seed"] = asked.seed
    if asked.prompt is not None:
        body |= {"prompt": asked.prompt, "max_tokens": asked.max_tokens} | ({"logprobs": 1} if asked.logprobs else {})
        bound = len(asked.prompt.encode()) + _TOKENS_AROUND_A_MESSAGE
        body = _with_extra(body, config)
        return Call(kind="completion", keys=keys, body=body, prompt_bound=bound, reply_bound=asked.max_tokens)
    messages = [dataclasses.asdict(message) for message in asked.messages]
    body |= {"messages": messages, config.max_tokens_field: asked.max_tokens}
    body |= {"logprobs": True} if asked.logprobs else {}
    bound = sum(len(message.content.encode()) + _TOKENS_AROUND_A_MESSAGE for message in asked.messages)
    body = _with_extra(body, config)
    bound += _TOKENS_AROUND_A_MESSAGE
    return Call(kind="chat", keys=keys, body=body, prompt_bound=bound, reply_bound=asked.max_tokens)


def _with_extra(body: dict[str, Any], config: EndpointConfig) -> dict[str, Any]:
    return {name: value for name, value in (body | config.extra_fields()).items() if value is not None}


def parse_answer(call: Call, content: bytes) -> Answer:
    """What a body with status 200 says.

    Of choices with the same index the first counts. A body is understood when at least one choice is.

    Raises:
      MalformedError: no JSON, no choices, or values of other types than the protocol's; says which.
    """
    try:
        body = parse_json(content, where="the reply")
    except ValueError as error:
        start = content[:80].decode("utf-8", "replace")
        raise MalformedError(f"{error}; it starts {start!r}" if content else "the reply is empty") from None
    if not isinstance(body, dict):
        raise MalformedError(f"the reply is a JSON {_type(body)}, no object")
    usage = _usage(body.get("usage"))
    listed = body.get("choices")
    if not isinstance(listed, list) or not listed:
        said = json.dumps(body["error"])[:200] if body.get("error") else f"choices is {_type(listed)}"
        raise MalformedError(f"the reply has no choices: {said}", usage)
    choices: dict[int, Choice] = {}
    for position, entry in enumerate(listed):
        where = f"choices[{position}]"
        if not isinstance(entry, dict):
            raise MalformedError(f"{where} is {_type(entry)}, no object", usage)
        index = entry.get("index", position)
        if not _is_count(index):
            raise MalformedError(f"{where}.index is {index!r}, no position", usage)
        if index < len(call.keys) and index not in choices:
            try:
                choices[index] = _choice(call, entry, where, usage if len(call.keys) == 1 else None)
            except MalformedError as malformed:
                raise type(malformed)(malformed.reason, usage) from None
    if not choices:
        raise MalformedError(f"none of {len(listed)} choices has an index below {len(call.keys)}", usage)
    model = body.get("model")
    return Answer(choices, usage, _sound(model) if isinstance(model, str) else "")


def _choice(call: Call, entry: dict[str, Any], where: str, usage: Usage | None) -> Choice:
    reason = entry.get("finish_reason")
    finished = reason != "length"
    if reason is None and usage is not None and call.kind != "score":
        finished = usage.reply_tokens < call.reply_bound
    if call.kind == "chat":
        message = entry.get("message")
        if not isinstance(message, dict):
            raise MalformedError(f"{where}.message is {_type(message)}, no object")
        text, refusal = message.get("content"), message.get("refusal")
        if isinstance(refusal, str) and refusal and not text:
            return Choice(declined=f"the model declined: {_sound(refusal[:200])}")
        if text is None and reason == "length":
            text = ""  # cut before the first visible token: all of them went into reasoning
    else:
        text = entry.get("text")
    if reason == "content_filter":
        return Choice(declined="the endpoint's content filter withheld the reply")
    if not isinstance(text, str):
        raise MalformedError(
            f"{where} has no text: {'message.content' if call.kind == 'chat' else 'text'} is {_type(text)}"
        )
    tokens, logprobs, offsets = _logprobs(call, entry.get("logprobs"), f"{where}.logprobs")
    if call.continuation is not None:
        return _scored(call.continuation, tokens, logprobs, offsets, where)
    if any(logprob is None for logprob in logprobs or ()):
        raise MalformedError(f"{where}.logprobs: a token of the reply has none")
    kept = None if logprobs is None else tuple(float(logprob or 0.0) for logprob in logprobs)
    return Choice(text=_sound(text), finished=finished, tokens=tokens, logprobs=kept)


def _logprobs(
    call: Call, given: Any, where: str
) -> tuple[tuple[str, ...] | None, tuple[float | None, ...] | None, tuple[int, ...] | None]:
    """Tokens, their log-probabilities and, for completions, where in the text they start; None where none are given."""
    if given is None or (call.kind == "chat" and isinstance(given, dict) and given.get("content") is None):
        return None, None, None
    if not isinstance(given, dict):
        raise MalformedError(f"{where} is {_type(given)}, no object")
    tokens: Any
    values: Any
    offsets: Any = None
    if call.kind == "chat":
        entries = given["content"]
        if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries):
            raise MalformedError(f"{where}.content is no list of objects")
        tokens = [entry.get("token") for entry in entries]
        values = [entry.get("logprob") for entry in entries]
    else:
        tokens, values, offsets = given.get("tokens"), given.get("token_logprobs"), given.get("text_offset")
    if not _is_list(tokens, str) or not _is_list(values, float, int, type(None)) or len(tokens) != len(values):
        raise MalformedError(f"{where}: tokens and log-probabilities are not two lists of one length")
    if offsets is not None and (not _is_list(offsets, int) or len(offsets) != len(tokens)):
        raise MalformedError(f"{where}.text_offset is no list of one position a token")
    numbers = tuple(None if value is None else float(value) for value in values)
    return tuple(map(_sound, tokens)), numbers, None if offsets is None else tuple(offsets)


def _scored(
    continuation: Continuation,
    tokens: tuple[str, ...] | None,
    logprobs: tuple[float | None, ...] | None,
    offsets: tuple[int, ...] | None,
    where: str,
) -> Choice:
    """The tokens of an echoed text that are the continuation's."""
    if tokens is None or logprobs is None:
        raise UnsupportedError("the server echoes no log-probabilities: it cannot score given texts")
    # servers differ in whether a BOS before the prompt counts in their offsets, so the tokens' own lengths come first
    begin = "".join(tokens).find(continuation.prompt + continuation.text)
    if begin >= 0 or offsets is None:
        offsets = tuple(itertools.accumulate((len(token) for token in tokens), initial=0))[:-1]
    start = max(begin, 0) + len(continuation.prompt)
    end = start + len(continuation.text)
    chosen = [index for index, offset in enumerate(offsets) if start <= offset < end]
    text = "".join(tokens[index] for index in chosen)
    if text != continuation.text:
        declined = (
            f"the server's tokens from character {start} on spell {text[:80]!r}, the continuation is "
            f"{continuation.text[:80]!r}: a token reaches over the end of the prompt (move the space between them to "
            "the continuation), or the server does not echo"
        )
        return Choice(declined=declined, kind="invalid")
    values = [logprobs[index] for index in chosen]
    if any(value is None for value in values):
        raise MalformedError(f"{where}.logprobs: a token of the continuation has none")
    kept = tuple(float(value or 0.0) for value in values)
    return Choice(text=text, tokens=tuple(tokens[index] for index in chosen), logprobs=kept)


def _sound(text: str) -> str:
    """Text that UTF-8 can hold: JSON may spell half a surrogate pair."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _usage(given: Any) -> Usage | None:
    if not isinstance(given, dict):
        return None
    prompt, reply = given.get("prompt_tokens"), given.get("completion_tokens", 0)
    return Usage(prompt, reply) if _is_count(prompt) and _is_count(reply) else None


def _is_count(value: Any) -> TypeGuard[int]:
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def _is_list(value: Any, *kinds: type) -> TypeGuard[list[Any]]:
    return isinstance(value, list) and all(isinstance(x, kinds) and not isinstance(x, bool) for x in value)


def _type(value: Any) -> str:
    names = {type(None): "null", dict: "an object", list: "a list", str: "a string", bool: "a boolean"}
    return "an empty list" if value == [] else names.get(type(value), "a number")
