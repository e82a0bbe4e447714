"""A secret that can be taken out of any text, and that no print, log or traceback shows."""

from __future__ import annotations

import base64
import json
import os
import re
import urllib.parse
from typing import Any

HIDDEN = "[secret]"


class Redactor:
    """Takes one secret out of whatever is kept or shown: as it is, and as JSON, URLs and base64 spell it.

    >>> redactor = Redactor("sk-12/34")
    >>> redactor("Incorrect key: sk-12/34 (sk-12%2F34)"), redactor
    ('Incorrect key: [secret] ([secret])', Redactor(…))
    """

    def __init__(self, secret: str):
        encoded = base64.b64encode(secret.encode()).decode()
        spellings = {secret, json.dumps(secret)[1:-1], urllib.parse.quote(secret, safe=""), encoded}
        self._spellings = sorted((spelling for spelling in spellings if spelling), key=len, reverse=True)

    def __call__(self, content: Any) -> Any:
        """The same text, list, tuple or dict, without the secret."""
        if isinstance(content, str):
            for spelling in self._spellings:
                content = content.replace(spelling, HIDDEN)
            return content
        if isinstance(content, dict):
            return {self(name): self(value) for name, value in content.items()}
        if isinstance(content, (list, tuple)):
            return type(content)(self(value) for value in content)
        return content

    def __repr__(self) -> str:
        """Says nothing of the secret."""
        return "Redactor(…)"


def check_variable(name: str) -> None:
    """Refuses what cannot be the name of an environment variable, without repeating it: it may be the secret itself.

    >>> check_variable("sk-1234")
    Traceback (most recent call last):
    ValueError: api_key_env is the name of an environment variable (letters, digits, _), never the key itself
    """
    if name and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
        raise ValueError(
            "api_key_env is the name of an environment variable (letters, digits, _), never the key itself"
        )


def read_secret(variable: str) -> str:
    """The secret that an environment variable holds; "" where no variable is named.

    Raises:
      ValueError: the variable is not set, or holds what no header can; the value is not repeated.
    """
    if not variable:
        return ""
    secret = os.environ.get(variable, "")
    if not secret:
        raise ValueError(f"the environment variable {variable} (api_key_env) is not set; it holds the endpoint's key")
    if not re.fullmatch(r"[\x21-\x7e]+", secret):
        raise ValueError(f"the key in {variable} holds spaces, line ends or non-ASCII characters; a header cannot")
    return secret
