"""Readers of instruction data in its original formats: Alpaca, its seed tasks, and Tuna's released training records.

Files are JSON arrays, plain or ``.gz``; JSON lines are read as well. Prompts are made with our templates, or a user's.
"""

from __future__ import annotations

import gzip
import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from jaxrefine.artefacts.atomic import write_bytes
from jaxrefine.data.examples import Candidates, Instruction
from jaxrefine.data.json_documents import identifier, read_records
from jaxrefine.data.jsonl import Fields, distinct
from jaxrefine.data.templates import TEMPLATES, Template, instruction_prompt


def whole_instruction(instruction: str, input: str = "") -> str:
    r"""An instruction with the input that it is about, as a judge is shown it.

    >>> whole_instruction("Translate.", "Guten Tag")
    'Translate.\n\nGuten Tag'
    """
    return f"{instruction}\n\n{input}" if input.strip() else instruction


def _optional(fields: Fields, field: str) -> str:
    """A string that may be absent or empty."""
    return fields.text(field, empty=True) if field in fields.names() else fields.optional_text(field) or ""


def read_alpaca(
    path: pathlib.Path | str, *, templates: Mapping[str, Template] = TEMPLATES, skip_empty: bool = False
) -> list[Instruction]:
    """Alpaca's records ``{"instruction": …, "input": …, "output": …}``; the input may be empty or absent.

    An id is the file's name and the record's index from 0; ``meta["instruction"]`` is what a judge is to be shown.

    Args:
      path: ``alpaca_data.json`` or any file of the same form.
      templates: make the prompt: ``instruction``, or ``instruction_with_input`` where there is an input.
      skip_empty: leave out records whose output is blank (the published 52K has a few); they keep their index.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Taori et al. 2023, https://github.com/tatsu-lab/stanford_alpaca
    """
    stem = pathlib.Path(path).name.split(".")[0]

    def parse(fields: Fields, index: int) -> Instruction:
        instruction, output = fields.text("instruction"), fields.text("output", empty=True)
        input = _optional(fields, "input")
        fields.done()
        prompt = instruction_prompt(instruction, input, templates)
        meta = {"instruction": whole_instruction(instruction, input)}
        return Instruction(f"{stem}-{index}", prompt, output, meta=meta)

    return [found for found in read_records(path, parse) if found.response.strip() or not skip_empty]


def read_seed_tasks(path: pathlib.Path | str, *, templates: Mapping[str, Template] = TEMPLATES) -> list[Instruction]:
    """Self-Instruct's tasks: ``{"id", "instruction", "instances": [{"input", "output"}, …]}``, one example an instance.

    An id is the task's and the instance's index from 0; the other fields (``name``, ``motivation_app``,
    ``is_classification``) go into ``meta``.

    Args:
      path: ``seed_tasks.jsonl`` or ``user_oriented_instructions.jsonl``.
      templates: make the prompt, as in ``read_alpaca``.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Wang et al. 2023, arXiv:2212.10560
    """

    def parse(fields: Fields, index: int) -> list[Instruction]:
        id, instruction = identifier(fields, "id"), fields.text("instruction")
        there = fields.names()
        meta: dict[str, Any] = {name: _optional(fields, name) for name in ("name", "motivation_app")}
        meta["is_classification"] = fields.flag("is_classification", default=False)
        meta = {name: value for name, value in meta.items() if name in there}
        found = []
        for number, instance in enumerate(fields.objects("instances")):
            input, output = instance.text("input", empty=True), instance.text("output", empty=True)
            instance.done()
            prompt = instruction_prompt(instruction, input, templates)
            shown = meta | {"instruction": whole_instruction(instruction, input)}
            found.append(Instruction(f"{id}-{number}", prompt, output, meta=shown))
        fields.done()
        if not found:
            raise fields.error("instances", "at least one is wanted")
        return found

    tasks = read_records(path, parse, key=lambda found: found[0].id)
    return [example for task in tasks for example in task]


def read_tuna(path: pathlib.Path | str, *, min_candidates: int = 1) -> list[Candidates]:
    """Tuna's released training records ``{"id", "instruction", "output": [N texts], "score": [N numbers]}``.

    ``instruction`` is the whole prompt, template included: it is followed by a response without a separator. Higher
    scores are better. Every response is taken to have ended by itself, as the released code does.

    Args:
      path: a JSON array or JSON lines.
      min_candidates: a record with fewer is malformed.
    Raises:
      RecordError: ``file:line: field: reason``.

    Source: Tuna, arXiv:2310.13385, https://github.com/microsoft/LMOps/tree/main/tuna
    """

    def parse(fields: Fields, index: int) -> Candidates:
        id, prompt = identifier(fields, "id"), fields.text("instruction")
        texts, scores = fields.texts("output"), fields.numbers("score")
        fields.done()
        if len(texts) < min_candidates:
            raise fields.error("output", f"at least {min_candidates} wanted, got {len(texts)}")
        if len(scores) != len(texts):
            raise fields.error("score", f"{len(texts)} outputs need as many scores, got {len(scores)}")
        return Candidates(id, prompt, tuple(texts), tuple(scores))

    return read_records(path, parse, key=lambda record: record.id)


def write_tuna(path: pathlib.Path | str, examples: Iterable[Candidates], *, keep_unfinished: bool = False) -> None:
    """Writes the records that ``read_tuna`` reads and that Tuna's released code trains on, atomically.

    The format has no place for answers and ``meta``: they are left out.

    Args:
      path: a JSON array, one record a line; compressed where it ends in ``.gz``.
      examples: labelled candidates.
      keep_unfinished: write responses that were cut by length too. The released code ends every response with EOS, so
        these would teach a model to stop in mid-sentence.
    Raises:
      ValueError: the same id twice, no response, or one that was cut by length.
    """
    records = []
    for example in distinct(path, examples):
        if not example.responses:
            raise ValueError(f"{path}: example {example.id!r} has no response")
        if not keep_unfinished and not all(example.finished):
            place = example.finished.index(False)
            raise ValueError(
                f"{path}: response {place} of example {example.id!r} was cut by length, which this format cannot say; "
                "leave it out, or give keep_unfinished=True"
            )
        record = {
            "id": example.id,
            "instruction": example.prompt,
            "output": list(example.responses),
            "score": list(example.labels),
        }
        records.append(json.dumps(record, ensure_ascii=False, allow_nan=False))
    path = pathlib.Path(path)
    content = ("[\n" + ",\n".join(records) + "\n]\n").encode("utf-8")
    write_bytes(path, gzip.compress(content, mtime=0) if path.suffix == ".gz" else content)


def read_tuna_likelihoods(
    path: pathlib.Path | str, *, length_power: float = 1.3, templates: Mapping[str, Template] = TEMPLATES
) -> list[Candidates]:
    """Tuna's released teacher samples with their log-likelihoods, labelled by Eq. 3: log p / length^β.

    A record: ``{"orig": {Alpaca's record}, "text": [N], "logprob": [N], "length": [N], "avg_token_prob": [N]}``. The
    last is taken for what it is said to be and not used. The original output goes into ``meta["original"]``.

    Args:
      path: a JSON array or JSON lines.
      length_power: β.
      templates: make the prompt, as in ``read_alpaca``.
    Raises:
      RecordError: ``file:line: field: reason``; a length that is not positive.

    Source: Tuna, arXiv:2310.13385, Eq. 3 (β = 1.3) and the README of its released code.
    """
    stem = pathlib.Path(path).name.split(".")[0]

    def parse(fields: Fields, index: int) -> Candidates:
        original = fields.object("orig")
        instruction, output = original.text("instruction"), original.text("output", empty=True)
        input = _optional(original, "input")
        original.done()
        texts, logprobs, lengths = fields.texts("text"), fields.numbers("logprob"), fields.numbers("length")
        if "avg_token_prob" in fields.names():
            fields.numbers("avg_token_prob")
        fields.done()
        for name, found in (("logprob", logprobs), ("length", lengths)):
            if len(found) != len(texts):
                raise fields.error(name, f"{len(texts)} texts need as many, got {len(found)}")
        for place, length in enumerate(lengths):
            if length <= 0:
                raise fields.error(f"length[{place}]", f"above 0 is wanted, got {length:g}")
        labels = tuple(logprob / length**length_power for logprob, length in zip(logprobs, lengths, strict=True))
        meta = {"instruction": whole_instruction(instruction, input), "original": output}
        prompt = instruction_prompt(instruction, input, templates)
        return Candidates(f"{stem}-{index}", prompt, tuple(texts), labels, meta=meta)

    return read_records(path, parse)
