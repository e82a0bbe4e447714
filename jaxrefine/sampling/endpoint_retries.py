"""Which failures of an endpoint are tried again, which are final, and how long to wait in between."""

from __future__ import annotations

import dataclasses
import datetime
import email.utils
import math
import random
from collections.abc import Mapping
from typing import Any

from jaxrefine.sampling.responder import FailureKind
from jaxrefine.sampling.spending import Usage

_LONGEST_QUOTE = 200
_OF_EVERY_REQUEST = {401: "the key is refused", 402: "payment is required", 404: "no such address or model"}
_PASSING = {408, 409, 425, 429}


@dataclasses.dataclass(eq=False)
class AttemptError(Exception):
    """One attempt that came to nothing."""

    kind: FailureKind
    """What the request becomes if this was its last attempt."""
    reason: str
    """What came back, without the key."""
    again: bool
    """Whether another attempt may do better."""
    halts: bool = False
    """Whether every other request would fail in the same way, so that none is sent."""
    billed: bool = False
    """Whether the attempt may have cost something."""
    usage: Usage | None = None
    """What it cost, where the server said so."""
    retry_after_seconds: float | None = None
    """What the server asked to wait."""

    def __str__(self) -> str:
        """The reason."""
        return self.reason


def of_status(status: int, headers: Mapping[str, str], body: str, *, now: float) -> AttemptError:
    """What a status other than 200 means.

    408, 409, 425, 429 and 5xx pass (a 429 that names an exhausted quota does not); every other one is final, and 401,
    402, 404 hold for every request.

    Args:
      status: of HTTP.
      headers: of the reply, names in any case.
      body: of the reply; quoted, shortened.
      now: seconds since the epoch.

    >>> of_status(429, {"Retry-After": "7"}, "slow down", now=0.0).retry_after_seconds
    7.0
    >>> of_status(402, {}, "", now=0.0).reason
    'HTTP 402: payment is required'
    """
    text = " ".join(body.split())
    shown = text if len(text) <= _LONGEST_QUOTE else text[:_LONGEST_QUOTE] + "…"
    if status == 429 and "insufficient_quota" in text:
        return AttemptError("refused", f"HTTP 429: the quota is exhausted: {shown}", again=False, halts=True)
    if status in _PASSING or status >= 500:
        wait = retry_after(headers, now=now)
        said = f"HTTP {status}" + (f": {shown}" if shown else "")
        return AttemptError("unavailable", said, again=True, retry_after_seconds=wait)
    parts = [f"HTTP {status}", _OF_EVERY_REQUEST.get(status, ""), shown]
    if 300 <= status < 400:
        parts[1] = "a redirect, which is not followed; give its target as base_url"
    said = ": ".join(part for part in parts if part)
    return AttemptError("refused", said, again=False, halts=status in _OF_EVERY_REQUEST or 300 <= status < 400)


def retry_after(headers: Mapping[str, str], *, now: float) -> float | None:
    """Seconds that a server asks to wait: ``retry-after-ms``, or ``Retry-After`` as seconds or as a date.

    Args:
      headers: names in any case.
      now: seconds since the epoch.

    Returns:
      At least 0; None where nothing is asked, or nothing that can be understood.

    >>> retry_after({"retry-after": "Thu, 01 Jan 1970 00:05:00 GMT"}, now=60.0)
    240.0
    """
    lower = {name.lower(): value for name, value in headers.items()}
    for name, scale in (("retry-after-ms", 1e-3), ("retry-after", 1.0)):
        seconds = _number(lower.get(name))
        if seconds is not None:
            return max(0.0, seconds * scale)
    try:
        date = email.utils.parsedate_to_datetime(lower.get("retry-after", ""))
    except (ValueError, OverflowError):
        return None
    if date.tzinfo is None:  # "-0000": Greenwich by the standard
        date = date.replace(tzinfo=datetime.UTC)
    return max(0.0, date.timestamp() - now)


def _number(text: str | None) -> float | None:
    try:
        value = float(text) if text is not None else math.nan
    except ValueError:
        return None
    return value if math.isfinite(value) else None


class Backoff:
    """Seconds before the next attempt, for tenacity: full jitter, and never less than the server asked for.

    The n-th wait is uniform between 0 and ``first · 2^(n-1)``, at most ``longest``; a Retry-After replaces it, with up
    to ``first`` on top, so that those who were sent away together do not come back together.
    """

    def __init__(self, *, first: float, longest: float, generator: random.Random):
        self._first, self._longest, self._generator = first, longest, generator

    def __call__(self, retry_state: Any) -> float:
        """Of tenacity's ``RetryCallState``, whose outcome is an ``AttemptError``."""
        error = retry_state.outcome.exception()
        asked = error.retry_after_seconds if isinstance(error, AttemptError) else None
        if asked is not None:
            return asked + self._generator.uniform(0, self._first)
        doublings = min(retry_state.attempt_number - 1, 60)
        return self._generator.uniform(0, min(self._longest, self._first * 2**doublings))
