"""What is said to a language model that judges: the shipped prompts, or a user's own from a TOML file.

A file has a ``user`` text with named fields, and may have a ``system`` text without any. Fields are filled in once:
what a response holds, braces or fences included, stays text.
"""

from __future__ import annotations

import dataclasses
import hashlib
import pathlib
import tomllib
from collections.abc import Callable, Sequence

from jaxrefine.config import digest, unknown_name
from jaxrefine.data.examples import Candidates
from jaxrefine.data.templates import Role, Template
from jaxrefine.sampling.responder import Continuation, Failure, Message, Reply, Request

STYLES = ("chat", "completion")

JUDGE_ROLES: dict[str, Role] = {
    "contextual": Role(frozenset({"instruction", "responses", "format"}), frozenset({"count", "names"})),
    "pairwise": Role(frozenset({"instruction", "first", "second"}), frozenset({"format"})),
}
"""The fields of each judge's ``user`` text."""


@dataclasses.dataclass(frozen=True)
class Prompt:
    """A system text and the template of what the user says.

    Raises:
        ValueError: an unknown role; a field that the role lacks or that is missing; broken braces.

    >>> Prompt("pairwise", "Which is better for {instruction}: {first} or {secnd}?")
    Traceback (most recent call last):
    ValueError: pairwise prompt: unknown field 'secnd'; did you mean 'second'? Allowed: ...
    """

    role: str
    user: str
    system: str = ""

    def __post_init__(self) -> None:
        if self.role not in JUDGE_ROLES:
            raise ValueError(unknown_name(self.role, JUDGE_ROLES, "judge's prompt"))
        role, fields = JUDGE_ROLES[self.role], self.template.fields
        for field in sorted(fields - role.required - role.optional):
            raise ValueError(f"{self.role} prompt: {unknown_name(field, role.required | role.optional, 'field')}")
        for field in sorted(role.required - fields):
            raise ValueError(f"{self.role} prompt: the field {{{field}}} is missing")

    @property
    def template(self) -> Template:
        """Of the user's text."""
        return Template(self.role, self.user)

    def render(self, **values: str) -> str:
        """The user's text, filled in; a value whose field the template does not have is left out."""
        template = self.template
        return template.render(**{name: value for name, value in values.items() if name in template.fields})

    def digest(self, *also: str) -> str:
        """Of both texts, and of ``also``: what else is said to the model."""
        return digest([self.role, self.system, self.user, *also])


def load_prompt(path: pathlib.Path | str, role: str) -> Prompt:
    r"""A prompt from a TOML file: ``user = '''…'''`` and, if wanted, ``system = "…"``.

    Raises:
        ValueError: not TOML, an unknown key, no text, or a field that is unknown or missing; names file and field.
    """
    path = pathlib.Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
        for name, text in table.items():
            if name not in ("user", "system"):
                raise ValueError(unknown_name(name, ("user", "system"), "key"))
            if not isinstance(text, str):
                raise ValueError(f"{name}: a prompt is text, got {type(text).__name__}")
        if "user" not in table:
            raise ValueError("the key user is missing")
        return Prompt(role, table["user"], table.get("system", ""))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def instruction_of(example: Candidates) -> str:
    """What the responses answer: ``meta["instruction"]`` where an example has one, else its whole prompt."""
    found = example.meta.get("instruction")
    return found if isinstance(found, str) and found else example.prompt.strip()


def fence(*texts: str) -> str:
    """A short mark that none of the texts holds, made of their content: no response can close its own block.

    >>> fence("one text") == fence("one text"), len(fence("a")) >= 6
    (True, True)
    """
    total = hashlib.sha256("\0".join(texts).encode("utf-8", "surrogatepass")).hexdigest()
    for length in range(6, len(total)):
        if not any(total[:length] in text for text in texts):
            return total[:length]
    raise ValueError("a text that holds its own digest")


def block(name: str, text: str, mark: str) -> str:
    """A text between two lines that name it and bear the mark.

    >>> print(block("Response A", "Hello!", "4f0a1c"))
    [Response A begins 4f0a1c]
    Hello!
    [Response A ends 4f0a1c]
    """
    return f"[{name} begins {mark}]\n{text.strip()}\n[{name} ends {mark}]"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Asking:
    """How a judge's requests are put.

    Raises:
        ValueError: an unknown style, or numbers that no request may have.
    """

    style: str = "chat"
    """A chat with roles, or one text to be completed."""
    max_tokens: int = 1024
    """Of a reply."""
    temperature: float = 0.0
    """0 is greedy."""
    seed: int | None = None
    """Of the sampling, where the temperature is above 0."""

    def __post_init__(self) -> None:
        if self.style not in STYLES:
            raise ValueError(unknown_name(self.style, STYLES, "style"))
        self.request("", [""])

    def request(self, system: str, turns: Sequence[str]) -> Request:
        """The next request of a conversation.

        Args:
            system: said first, where there is any.
            turns: of the user and of the model in turn, the user's last.
        """
        messages: tuple[Message, ...] = ()
        if self.style == "chat":
            spoken = [Message("assistant" if turn % 2 else "user", text) for turn, text in enumerate(turns)]
            messages = (*([Message("system", system)] if system else []), *spoken)
        return Request(
            messages=messages,
            prompt=None if messages else as_text(system, turns),
            max_tokens=self.max_tokens,
            temperature=self.temperature,
            seed=self.seed,
        )


def as_text(system: str, turns: Sequence[str]) -> str:
    r"""A conversation as one text to be completed; the first turn keeps its own end, to the last white space.

    >>> as_text("Be fair.", ["Which?\nVerdict:"])
    'Be fair.\n\nWhich?\nVerdict:'
    """
    text = f"{system}\n\n{turns[0]}" if system else turns[0]
    return text if len(turns) == 1 else "\n\n".join([text, *turns[1:], ""])


def hand_over(
    ask: Callable[..., Sequence[Reply | Failure]],
    asked: Sequence[Request] | Sequence[Continuation],
    handle: Callable[[int, Reply | Failure], None],
) -> None:
    """Asks, and hands every result over once: as soon as it is there, or at the end.

    Args:
        ask: ``respond`` of a responder, or ``score`` of a scorer.
        asked: what is asked; nothing is, where it is empty.
        handle: gets the index and the result of each.
    """
    handled: set[int] = set()

    def once(index: int, result: Reply | Failure) -> None:
        handled.add(index)
        handle(index, result)

    for index, result in enumerate(ask(asked, done=once) if asked else []):
        if index not in handled:
            handle(index, result)
