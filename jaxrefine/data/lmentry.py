"""LMentry: its task files in their original form, as prompts with what their scorers need.

A file is one JSON object, ``{"settings": {…}, "examples": {id: {"input": …, "metadata": {…}}}}``. The files bear a
canary: they are for evaluation alone and must not enter training data.

Source: Efrat et al. 2022, arXiv:2211.02069.
"""

from __future__ import annotations

import pathlib
from collections.abc import Sequence
from typing import Any

from jaxrefine.config import unknown_name
from jaxrefine.data.examples import Candidates
from jaxrefine.data.json_documents import read_object
from jaxrefine.data.jsonl import Fields
from jaxrefine.data.templates import Template

_CHOICE = ("answer", "distractor", "answer_index")
_HEARD = (*_CHOICE, "query")

CORE_TASKS: dict[str, tuple[str, ...]] = {
    "sentence_containing": ("word",),
    "sentence_not_containing": ("word",),
    "word_containing": ("letter",),
    "word_not_containing": ("letter",),
    "most_associated_word": ("answer", "distractors", "category"),
    "least_associated_word": ("answer", "distractors", "category"),
    "any_words_from_category": ("num_words", "num_distractors"),
    "all_words_from_category": ("num_distractors",),
    "first_alphabetically": _CHOICE,
    "more_letters": _CHOICE,
    "less_letters": _CHOICE,
    "bigger_number": _CHOICE,
    "smaller_number": _CHOICE,
    "rhyming_word": _HEARD,
    "homophones": _HEARD,
    "word_after": ("answer", "query", "sentence"),
    "word_before": ("answer", "query", "sentence"),
    "starts_with_word": ("word",),
    "ends_with_word": ("word",),
    "starts_with_letter": ("letter",),
    "ends_with_letter": ("letter",),
    "first_word": ("answer", "sentence"),
    "last_word": ("answer", "sentence"),
    "first_letter": ("answer", "word"),
    "last_letter": ("answer", "word"),
}
"""The 25 tasks, and which of an example's metadata decide about a reply."""

VARIANTS: dict[str, tuple[str, ...]] = {
    "first_alphabetically": (
        "far_first_letter", "different_first_letter", "consecutive_first_letter", "same_first_letter",
    ),
    "all_words_from_category": ("0_distractors", "1_distractors", "2_distractors"),
    "any_words_from_category": ("5_distractors", "4_distractors", "3_distractors"),
    "rhyming_word": ("orthographically_similar", "orthographically_different"),
    "more_letters": ("length_diff_3plus", "length_diff_1"),
    "less_letters": ("length_diff_3plus", "length_diff_1"),
}  # fmt: skip
"""The 16 analysis files ``<task>_<variant>``, by their task: of differing difficulty, for the robustness to content."""

TASK_OF: dict[str, str] = {
    **{name: name for name in CORE_TASKS},
    **{f"{name}_{variant}": name for name, variants in VARIANTS.items() for variant in variants},
}
"""The core task of every one of the 41 files: the one whose scorer it takes."""

_NUMBERS = ("num_words", "num_distractors", "answer_index")


def _check(metadata: Fields, task: str) -> None:
    wanted = CORE_TASKS[TASK_OF[task]]
    for field in ("template_id", *wanted):
        if field in _NUMBERS or field == "template_id":
            value = metadata.number(field)
            if not value.is_integer() or value < 0:
                raise metadata.error(field, f"a whole number from 0 is wanted, got {value:g}")
        elif field == "distractors":
            metadata.texts(field)
        elif TASK_OF[task] in ("bigger_number", "smaller_number"):
            metadata.number(field)
        else:
            metadata.text(field)


def read_lmentry_task(path: pathlib.Path | str, *, template: Template | None = None) -> list[Candidates]:
    """The examples of one file as prompts without responses; an id is ``<task>-<the example's>``.

    Args:
      path: ``<task>.json`` or ``<task>.json.gz``.
      template: with the field ``instruction``, put around an example's input; None leaves it as it stands.
    Raises:
      RecordError: ``file: field: reason``, such as ``examples.17.metadata.answer``; an unknown task.
    """
    fields = read_object(path)
    task = fields.object("settings").text("name")
    if task not in TASK_OF:
        raise fields.error("settings.name", unknown_name(task, TASK_OF, "LMentry task"))
    found = []
    examples = fields.object("examples")
    for id in examples.names():
        holder = Fields(examples.mapping(id), where=fields.where, path=f"examples.{id}")
        text, metadata = holder.text("input"), holder.mapping("metadata")
        holder.done()
        _check(Fields(metadata, where=fields.where, path=f"examples.{id}.metadata"), task)
        prompt = text if template is None else template.render(instruction=text.strip())
        meta: dict[str, Any] = {"task": task, "instruction": text.strip(), "metadata": metadata}
        found.append(Candidates(f"{task}-{id}", prompt, meta=meta))
    if not found:
        raise fields.error("examples", "at least one is wanted")
    return found


def read_lmentry(
    directory: pathlib.Path | str, *, tasks: Sequence[str] | None = None, template: Template | None = None
) -> list[Candidates]:
    """The examples of several files of a directory.

    Args:
      directory: holds ``<task>.json`` or ``<task>.json.gz`` files.
      tasks: names; None takes the 25 tasks and the 16 analysis files, all that the LMentry score needs.
      template: as in ``read_lmentry_task``.
    Raises:
      ValueError: an unknown task, or one without a file; RecordError for a malformed file.
    """
    directory = pathlib.Path(directory)
    found: list[Candidates] = []
    for task in TASK_OF if tasks is None else dict.fromkeys(tasks):
        if task not in TASK_OF:
            raise ValueError(unknown_name(task, TASK_OF, "LMentry task"))
        paths = [path for path in (directory / f"{task}.json", directory / f"{task}.json.gz") if path.is_file()]
        if not paths:
            raise ValueError(f"{directory}: {task}.json is missing, and {task}.json.gz too")
        found += read_lmentry_task(paths[0], template=template)
    return found
