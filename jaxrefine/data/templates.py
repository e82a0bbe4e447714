"""Prompt templates with named fields: those that ship, and a user's own from a TOML file.

A template is text with ``{field}`` in it (``{{`` and ``}}`` for braces); whatever a field's value holds stays as it
is. A prompt's template ends where the response begins, a verdict's right before " correct" or " incorrect".
"""

from __future__ import annotations

import dataclasses
import pathlib
import string
import tomllib
from collections.abc import Mapping

from jaxrefine.config import unknown_name


@dataclasses.dataclass(frozen=True)
class Template:
    """Text with named fields.

    Raises:
      ValueError: broken braces, or a field that is not a plain name.

    >>> Template("sum", "What is {a} and {b}?").render(a="2", b="{3}")
    'What is 2 and {3}?'
    """

    name: str
    text: str

    def __post_init__(self) -> None:
        try:
            parts = list(string.Formatter().parse(self.text))
        except ValueError as error:
            raise ValueError(f"template {self.name!r}: {error} (write {{{{ and }}}} for braces)") from error
        for _, field, spec, conversion in parts:
            if field is not None and (not field.isidentifier() or spec or conversion):
                raise ValueError(
                    f"template {self.name!r}: a field is a plain name such as {{question}}, got {{{field}}} "
                    "(write {{ and }} for braces)"
                )

    @property
    def fields(self) -> frozenset[str]:
        """The names of its fields."""
        return frozenset(field for _, field, _, _ in string.Formatter().parse(self.text) if field is not None)

    def render(self, **values: str) -> str:
        """The text with every field filled in.

        Raises:
          ValueError: names a field that is missing or one that the template does not have, with the nearest.
          TypeError: a value that is not text.
        """
        missing = sorted(self.fields - values.keys())
        for given in sorted(values.keys() - self.fields):
            raise ValueError(unknown_name(given, self.fields, f"field of template {self.name!r}"))
        if missing:
            raise ValueError(f"template {self.name!r}: no value for field {', '.join(missing)}")
        for field, value in values.items():
            if not isinstance(value, str):
                raise TypeError(f"template {self.name!r}: field {field} is text, got {type(value).__name__} {value!r}")
        return self.text.format(**values)


@dataclasses.dataclass(frozen=True)
class Role:
    """What a template is for: the fields that it must and may have."""

    required: frozenset[str]
    optional: frozenset[str] = frozenset()


ROLES: dict[str, Role] = {
    "question": Role(frozenset({"question"})),
    "instruction": Role(frozenset({"instruction"})),
    "instruction_with_input": Role(frozenset({"instruction", "input"})),
    "verdict": Role(frozenset(), frozenset({"question"})),
}

TEMPLATES: dict[str, Template] = {
    "question": Template("question", "{question}\n"),
    "instruction": Template(
        "instruction",
        "Here is a task. Reply with what it asks for, completely and to the point.\n\n### Task\n{instruction}\n\n"
        "### Reply\n",
    ),
    "instruction_with_input": Template(
        "instruction_with_input",
        "Here is a task and a text that it is about. Reply with what the task asks for, completely and to the point."
        "\n\n### Task\n{instruction}\n\n### Text\n{input}\n\n### Reply\n",
    ),
    "verdict": Template("verdict", "\nThis solution is"),
}
"""The shipped template of every role."""

VERDICT_WORDS: tuple[str, str] = (" correct", " incorrect")
"""What follows the verdict's template, each with its leading space and scored whole."""


def instruction_prompt(instruction: str, input: str = "", templates: Mapping[str, Template] = TEMPLATES) -> str:
    """The prompt of an instruction, with the template for those that come with an input where there is one.

    >>> "### Text" in instruction_prompt("Translate.", "Guten Tag"), "### Text" in instruction_prompt("Tell a joke.")
    (True, False)
    """
    if input.strip():
        return templates["instruction_with_input"].render(instruction=instruction, input=input)
    return templates["instruction"].render(instruction=instruction)


def load_templates(
    path: pathlib.Path | str,
    *,
    roles: Mapping[str, Role] = ROLES,
    shipped: Mapping[str, Template] = TEMPLATES,
) -> dict[str, Template]:
    r"""The templates of a TOML file in place of the shipped ones; those that it does not name stay.

    A line a role: ``question = "Q: {question}\nA:"``. TOML rather than plain text, because a template's last
    line end matters and must not depend on an editor.

    Args:
      path: the file.
      roles: what it may name.
      shipped: what stands for a role that it does not name.
    Returns:
      A template for every role.
    Raises:
      ValueError: not TOML, an unknown role, a missing or unknown field; names the file, the role, the field.
    """
    path = pathlib.Path(path)
    try:
        table = tomllib.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
    templates = dict(shipped)
    for name, text in table.items():
        if name not in roles:
            raise ValueError(f"{path}: {unknown_name(name, roles, 'template')}")
        if not isinstance(text, str):
            raise ValueError(f"{path}: {name}: a template is text, got {type(text).__name__}")
        try:
            template = Template(name, text)
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from error
        role = roles[name]
        for field in sorted(template.fields - role.required - role.optional):
            raise ValueError(f"{path}: {name}: {unknown_name(field, role.required | role.optional, 'field')}")
        for field in sorted(role.required - template.fields):
            raise ValueError(f"{path}: {name}: the field {{{field}}} is missing")
        templates[name] = template
    return templates
