"""Where a language model is reached over HTTP, how patiently, and for how much money."""

from __future__ import annotations

import dataclasses
import hashlib
import json
import math
import urllib.parse
from typing import Any, Literal

from jaxrefine.artefacts.atomic import parse_json
from jaxrefine.sampling.redaction import check_variable
from jaxrefine.sampling.spending import Prices

_FIELDS_OF_OURS = (
    "best_of",
    "echo",
    "max_completion_tokens",
    "max_tokens",
    "messages",
    "model",
    "n",
    "prompt",
    "stream",
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class EndpointConfig:
    """An endpoint that speaks OpenAI's protocol: ``/chat/completions`` and ``/completions`` below ``base_url``.

    >>> EndpointConfig(base_url="http://127.0.0.1:8000/v1", model="small").concurrency
    8
    """

    base_url: str
    """Such as ``https://host/v1``; without user, password or query."""
    model: str
    """As the server knows it."""
    api_key_env: str = ""
    """Name of the environment variable that holds the key, never the key itself; "" sends none."""
    concurrency: int = 8
    """Requests under way at once."""
    choices_per_call: int = 1
    """Requests that differ in nothing but their seed go out together, up to this many, as the ``n`` of one call: the
    prompt is paid once. The call carries the seed of the first. What a server that ignores ``n`` leaves out is asked
    again."""
    max_attempts: int = 10
    """Of a request, the first counted."""
    deadline_seconds: float = 600.0
    """Of a request, from its first byte to its last, all attempts and waits between them included."""
    attempt_seconds: float = 180.0
    """Of one attempt, the whole body included; then it is given up and tried again."""
    connect_seconds: float = 10.0
    """Until the connection stands."""
    reply_bytes: int = 64 << 20
    """The longest body that is read, unpacked; a longer one is refused while it comes in, and the request with it."""
    first_backoff_seconds: float = 0.5
    """Upper end of the first random wait between attempts; it doubles with each (full jitter)."""
    longest_backoff_seconds: float = 60.0
    """Where the doubling ends. A server's Retry-After is honoured beyond it, up to the deadline."""
    prompt_price: float = 0.0
    """US dollars per million prompt tokens."""
    reply_price: float = 0.0
    """US dollars per million reply tokens."""
    token_budget: int | None = None
    """Prompt and reply tokens of all runs in one work directory; None is no limit."""
    cost_budget: float | None = None
    """US dollars of all runs in one work directory; None is no limit."""
    max_tokens_field: Literal["max_tokens", "max_completion_tokens"] = "max_tokens"
    """What chat requests call the limit; newer models of OpenAI take the second only."""
    extra_body: str = ""
    """A JSON object of further fields of every request, such as ``{"top_k": 40}``; null leaves one of ours out."""

    def __post_init__(self) -> None:
        _check_url(self.base_url)
        check_variable(self.api_key_env)
        if not self.model:
            raise ValueError("model is empty; give the name that the server knows it by")
        for name in ("concurrency", "choices_per_call", "max_attempts", "reply_bytes"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} = {getattr(self, name)} must be at least 1")
        seconds = ("deadline_seconds", "attempt_seconds", "connect_seconds")
        for name in (*seconds, "first_backoff_seconds", "longest_backoff_seconds", "prompt_price", "reply_price"):
            value = getattr(self, name)
            if not (math.isfinite(value) and value >= 0) or (name in seconds and value == 0):
                allowed = "positive" if name in seconds else "at least 0"
                raise ValueError(f"{name} = {value} must be {allowed} and finite")
        for name in ("token_budget", "cost_budget"):
            budget = getattr(self, name)
            if budget is not None and not budget >= 0:
                raise ValueError(f"{name} = {budget} must be at least 0; None is no limit")
        if self.cost_budget is not None and not (self.prompt_price or self.reply_price):
            raise ValueError(
                "a cost_budget needs prices: give prompt_price and reply_price (US dollars per million tokens)"
            )
        self.extra_fields()

    def extra_fields(self) -> dict[str, Any]:
        """``extra_body``, parsed.

        Raises:
          ValueError: not a JSON object, or a field that is set elsewhere.
        """
        fields = parse_json(self.extra_body, where="extra_body") if self.extra_body else {}
        if not isinstance(fields, dict):
            raise ValueError(f"extra_body is a {type(fields).__name__}; a JSON object is needed")
        if taken := sorted(set(fields) & set(_FIELDS_OF_OURS)):
            raise ValueError(f"extra_body: {', '.join(taken)} cannot be given there; jaxrefine sets it")
        return fields

    def prices(self) -> Prices:
        """Of a million tokens."""
        return Prices(prompt=self.prompt_price, reply=self.reply_price)

    def digest(self) -> str:
        """Of what a reply depends on: endpoint, model and further fields; not of patience, prices or budgets."""
        content = [self.base_url.rstrip("/"), self.model, self.extra_fields()]
        return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:32]


def _check_url(url: str) -> None:
    # what may hold a password is not repeated in an error
    parts = urllib.parse.urlsplit(url)
    if parts.username is not None or parts.password is not None or parts.query or parts.fragment:
        raise ValueError(
            "base_url holds a user, a password or a query; give the key in the variable named by api_key_env"
        )
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(
            f"base_url = {url!r} is no address; give one such as https://host/v1 or http://127.0.0.1:8000/v1"
        )
