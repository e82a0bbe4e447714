"""Super-NaturalInstructions: task files in their original form, as prompts with references.

A task file is one JSON object: ``Definition``, ``Positive Examples``, ``Instances`` of ``id``, ``input`` and ``output``
(any of which is right). Version 1 of the format (``Examples``, no ids, no categories) is read as well.

Source: Wang et al. 2022, arXiv:2204.07705.
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from jaxrefine.config import unknown_name
from jaxrefine.data.examples import Candidates
from jaxrefine.data.json_documents import read_object
from jaxrefine.data.jsonl import Fields
from jaxrefine.data.readers_instructions import whole_instruction
from jaxrefine.data.templates import ROLES, TEMPLATES, Role, Template, instruction_prompt

SUPER_NI_ROLES: dict[str, Role] = {
    **ROLES,
    "super_ni": Role(frozenset({"definition"})),
    "super_ni_with_examples": Role(frozenset({"definition", "examples"})),
    "super_ni_example": Role(frozenset({"input", "output"}), frozenset({"number"})),
}
"""What a file of ``load_templates(path, roles=SUPER_NI_ROLES, shipped=SUPER_NI_TEMPLATES)`` may name."""

SUPER_NI_TEMPLATES: dict[str, Template] = {
    **TEMPLATES,
    "super_ni": Template("super_ni", "{definition}"),
    "super_ni_with_examples": Template("super_ni_with_examples", "{definition}\n\nIt is done like this.\n\n{examples}"),
    "super_ni_example": Template("super_ni_example", "Given {number}: {input}\nReply {number}: {output}"),
}
"""The task as an instruction, which the template ``instruction_with_input`` then puts before the instance's input."""


@dataclasses.dataclass(frozen=True)
class Instance:
    """An input and the outputs that are right."""

    id: str
    input: str
    references: tuple[str, ...]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Task:
    """A task of the collection."""

    name: str
    """The file's: ``task1393_superglue_copa_text_completion``."""
    definition: str
    categories: tuple[str, ...]
    examples: tuple[tuple[str, str], ...]
    """Inputs and outputs of the positive examples."""
    instances: tuple[Instance, ...]

    def prompts(
        self,
        *,
        shots: int = 2,
        max_instances: int | None = 100,
        templates: Mapping[str, Template] = SUPER_NI_TEMPLATES,
    ) -> list[Candidates]:
        """A prompt an instance, without responses; what ``score_super_ni`` needs is in ``meta``.

        Args:
          shots: positive examples shown; a task that has fewer shows what it has (``meta["shots"]`` says how many).
          max_instances: the first so many; the published test takes 100. None takes all.
          templates: see ``SUPER_NI_TEMPLATES``.
        Raises:
          ValueError: a negative number of shots.
        """
        if shots < 0:
            raise ValueError(f"shots must not be negative, given {shots}")
        shown = self.examples[:shots]
        instruction = _instruction(self.definition, shown, templates)
        meta: dict[str, Any] = {"task": self.name, "categories": list(self.categories), "shots": len(shown)}
        return [
            Candidates(
                instance.id,
                instruction_prompt(instruction, instance.input, templates),
                meta=meta
                | {
                    "instruction": whole_instruction(instruction, instance.input),
                    "references": list(instance.references),
                },
            )
            for instance in self.instances[:max_instances]
        ]


def _instruction(definition: str, shown: Sequence[tuple[str, str]], templates: Mapping[str, Template]) -> str:
    if not shown:
        return templates["super_ni"].render(definition=definition)
    example = templates["super_ni_example"]
    rendered = []
    for number, (input, output) in enumerate(shown, 1):
        values = {"number": str(number), "input": input, "output": output}
        rendered.append(example.render(**{name: values[name] for name in example.fields}))
    return templates["super_ni_with_examples"].render(definition=definition, examples="\n\n".join(rendered))


def _texts(fields: Fields, field: str) -> list[str]:
    """A list of strings, or one string: files of both kinds are about."""
    try:
        return [fields.text(field, empty=True)]
    except ValueError:
        return fields.texts(field)


def read_super_ni_task(path: pathlib.Path | str) -> Task:
    """One task file, ``.json`` or ``.json.gz``.

    Raises:
      RecordError: ``file: field: reason``, such as ``Instances[3].output``; ``file:line: reason`` where it is no JSON.
    """
    path = pathlib.Path(path)
    name = path.name.split(".")[0]
    fields = read_object(path)
    definition = "\n".join(_texts(fields, "Definition")).strip()
    if not definition:
        raise fields.error("Definition", "is empty")
    of_version_1 = "Examples" in fields.names() and "Positive Examples" not in fields.names()
    holder = fields.object("Examples") if of_version_1 else fields
    examples = []
    for example in holder.objects("Positive Examples"):
        outputs = _texts(example, "output")
        if not outputs:
            raise example.error("output", "is empty")
        examples.append((example.text("input", empty=True), outputs[0]))
    instances = []
    for index, item in enumerate(fields.objects("Instances")):
        references = tuple(_texts(item, "output"))
        if not references:
            raise item.error("output", "at least one reference is wanted")
        id = item.text("id") if "id" in item.names() else f"{name}-{index}"
        instances.append(Instance(id, item.text("input", empty=True), references))
    if not instances:
        raise fields.error("Instances", "at least one is wanted")
    categories = tuple(_texts(fields, "Categories")) if "Categories" in fields.names() else ()
    return Task(
        name=name,
        definition=definition,
        categories=categories,
        examples=tuple(examples),
        instances=tuple(instances),
    )


def read_super_ni(directory: pathlib.Path | str, *, tasks: Sequence[str] | None = None) -> list[Task]:
    """The task files of a directory, in the order of their names.

    Args:
      directory: holds ``<task>.json`` or ``<task>.json.gz`` files.
      tasks: names of those that are wanted (see ``read_task_names``); None takes all.
    Raises:
      ValueError: a task without a file, no task at all, an instance id that occurs twice; RecordError for a malformed
        file.
    """
    directory = pathlib.Path(directory)
    files = {path.name.split(".")[0]: path for path in sorted(directory.glob("*task*.json*"))}
    wanted = sorted(files) if tasks is None else list(dict.fromkeys(tasks))
    for name in wanted:
        if name not in files:
            raise ValueError(f"{directory}: {unknown_name(name, files, 'task')}")
    if not wanted:
        raise ValueError(f"{directory}: no task; files named task….json or task….json.gz are wanted")
    found = [read_super_ni_task(files[name]) for name in wanted]
    owners: dict[str, str] = {}
    for task in found:
        for instance in task.instances:
            if instance.id in owners:
                raise ValueError(f"{directory}: id {instance.id!r} of {task.name} is that of {owners[instance.id]} too")
            owners[instance.id] = task.name
    return found


def read_task_names(path: pathlib.Path | str) -> list[str]:
    """The names of a list such as ``splits/default/test_tasks.txt``, one a line; blank lines are left out."""
    lines = pathlib.Path(path).read_text(encoding="utf-8").splitlines()
    return [line.strip() for line in lines if line.strip()]
