"""PandaLM's files: human judgements, judges' verdicts on them, training records; and Auto-J's human judgements.

Source: https://github.com/WeOpenML/PandaLM (Apache-2.0), https://github.com/GAIR-NLP/auto-j
"""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from jaxrefine.data.examples import Comparison, Instruction, Verdict
from jaxrefine.data.json_documents import identifier, read_records
from jaxrefine.data.jsonl import Fields, RecordError, distinct, read_jsonl, write_jsonl
from jaxrefine.data.readers_instructions import whole_instruction
from jaxrefine.data.templates import TEMPLATES, Template, instruction_prompt

VERDICT_TEXTS: Mapping[str, Verdict] = {"1": "first", "2": "second", "Tie": "tie"}
"""How a training record and a judge's reply say a verdict."""

_CODES: Mapping[str, Verdict] = {"0": "tie", "1": "first", "2": "second", "Tie": "tie"}
"""Three encodings in one repository: people 0 1 2, one judge's numbers 0 1 2, another's strings 1 2 Tie."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Annotated:
    """Two models' responses to an instruction, judged by people."""

    id: str
    models: tuple[str, str]
    """Of the first response and of the second; empty where the data does not say."""
    instruction: str
    """With the input that it is about."""
    first: str
    second: str
    said: tuple[Verdict, ...]
    """One verdict an annotator."""
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Said:
    """What a judge said of a pair."""

    verdict: str
    """ "first", "second" or "tie"; else what stands in its place."""
    reason: str
    reference: str


@dataclasses.dataclass(frozen=True, kw_only=True)
class JudgementRecord:
    """A training record: a pair, the verdict, why, and a response that would have been good.

    Raises:
        ValueError: an empty id or instruction, an unknown verdict.
    """

    id: str
    instruction: str
    input: str = ""
    first: str
    second: str
    verdict: Verdict
    reason: str = ""
    reference: str = ""
    meta: Mapping[str, Any] = dataclasses.field(default_factory=dict)

    def __post_init__(self) -> None:
        self.comparison()

    def comparison(self) -> Comparison:
        """Without reason and reference."""
        task = whole_instruction(self.instruction, self.input)
        return Comparison(self.id, task, self.first, self.second, self.verdict, self.meta)

    def swapped(self) -> JudgementRecord:
        """The responses in the other order, under an id of its own and without the reason, which names them."""
        turned: Mapping[Verdict, Verdict] = {"first": "second", "second": "first", "tie": "tie"}
        return dataclasses.replace(
            self, id=f"{self.id}-swapped", first=self.second, second=self.first, verdict=turned[self.verdict], reason=""
        )


def read_pandalm_test_set(path: pathlib.Path | str) -> list[Annotated]:
    """``testset-v1.json``: 999 pairs of 170 instructions with the verdicts of three annotators.

    Six responses of the published file are JSON booleans (a model that said "True"): they are read as that text. A
    response may be empty (54 are).

    Args:
        path: the file, or a part of it; ``.gz`` or plain.
    Raises:
        RecordError: ``file:line: field: reason``.
    """

    def response(fields: Fields, name: str) -> str:
        try:
            return fields.text(name, empty=True)
        except RecordError as error:
            try:
                return str(fields.flag(name))
            except RecordError:
                raise error from None

    def parse(fields: Fields, _: int) -> Annotated:
        id, instruction, input = identifier(fields, "idx"), fields.text("instruction"), fields.text("input", empty=True)
        first, second = response(fields, "response1"), response(fields, "response2")
        models = fields.text("cmp_key").split("_")
        said = tuple(_verdict(fields, f"annotator{number}") for number in (1, 2, 3))
        meta = {"motivation_app": fields.text("motivation_app", empty=True)}
        fields.done()
        if len(models) != 2:
            raise fields.error("cmp_key", f"two models joined by one underscore are wanted, got {'_'.join(models)!r}")
        return Annotated(
            id=id, models=(models[0], models[1]), instruction=whole_instruction(instruction, input), first=first,
            second=second, said=said, meta=meta,
        )  # fmt: skip

    return read_records(path, parse, key=lambda record: record.id)


def read_pandalm_verdicts(path: pathlib.Path | str) -> dict[str, Said]:
    """A judge's published verdicts on the test set: ``idx`` and ``<judge>_result``, ``_reason``, ``_reference``.

    Args:
        path: such as ``pandalm-7b-testset-v1.json``; ``.gz`` or plain.

    Returns:
        By the pair's id; a verdict that is none stays as it stands ("garbage").

    Raises:
        RecordError: ``file:line: field: reason``.
    """

    def parse(fields: Fields, _: int) -> tuple[str, Said]:
        id = identifier(fields, "idx")
        judges = [name.removesuffix("_result") for name in fields.names() if name.endswith("_result")]
        if len(judges) != 1:
            raise fields.error("", f"one field <judge>_result is wanted, there are {', '.join(fields.names())}")
        result = identifier(fields, f"{judges[0]}_result")
        said = Said(
            verdict=_CODES.get(result, result),
            reason=fields.text(f"{judges[0]}_reason", empty=True),
            reference=fields.text(f"{judges[0]}_reference", empty=True),
        )
        fields.done()
        return id, said

    return dict(read_records(path, parse, key=lambda record: record[0]))


def read_pandalm_prompts(
    path: pathlib.Path | str, *, templates: Mapping[str, Template] = TEMPLATES
) -> list[Instruction]:
    """``testset-inference-v1.json``: the 170 instructions that tuned models are compared on, without responses.

    Args:
        path: an array of ``instruction``, ``input``, ``motivation_app``; ids are indices from 0.
        templates: make the prompt, as in ``read_alpaca``.
    Raises:
        RecordError: ``file:line: field: reason``.
    """

    def parse(fields: Fields, index: int) -> Instruction:
        instruction, input = fields.text("instruction"), fields.text("input", empty=True)
        shown = whole_instruction(instruction, input)
        meta = {"instruction": shown, "motivation_app": fields.text("motivation_app", empty=True)}
        fields.done()
        return Instruction(str(index), instruction_prompt(instruction, input, templates), "", meta=meta)

    return read_records(path, parse)


def read_auto_j(path: pathlib.Path | str) -> list[Annotated]:
    """Auto-J's ``testdata_pairwise.jsonl``: one human verdict a pair, 0 first, 1 second, 2 tie; 58 scenarios.

    Args:
        path: ``.jsonl`` or ``.jsonl.gz``; a pair's id is its line, from 1.
    Raises:
        RecordError: ``file:line: field: reason``.

    Source: Auto-J, arXiv:2310.05470.
    """
    codes: Mapping[str, Verdict] = {"0": "first", "1": "second", "2": "tie"}
    lines = iter(range(1, 1 << 62))

    def parse(fields: Fields) -> Annotated:
        label, scenario = identifier(fields, "label"), fields.text("scenario")
        if label not in codes:
            raise fields.error("label", f"0, 1 or 2 is wanted, got {label}")
        found = Annotated(
            id=str(next(lines)), models=("", ""), instruction=fields.text("prompt"),
            first=fields.text("response 1", empty=True), second=fields.text("response 2", empty=True),
            said=(codes[label],), meta={"scenario": scenario},
        )  # fmt: skip
        fields.done()
        return found

    return read_jsonl(path, parse)


def read_judgement_records(path: pathlib.Path | str) -> list[JudgementRecord]:
    """Training records in PandaLM's form, as a JSON array or JSON lines.

    A record: ``{"inputs": {"instruction", "input", "response1", "response2"}, "outputs": {"evaluation_result",
    "evaluation_reason", "reference_response"}}``, with ``id`` and ``meta`` where ``write_judgement_records`` wrote it.

    Args:
        path: ``.json`` or ``.jsonl``, ``.gz`` or plain.
    Raises:
        RecordError: ``file:line: field: reason``.
    """
    stem = pathlib.Path(path).name.split(".")[0]

    def parse(fields: Fields, index: int) -> JudgementRecord:
        given, said = fields.object("inputs"), fields.object("outputs")
        verdict = said.text("evaluation_result")
        if verdict not in VERDICT_TEXTS:
            raise said.error("evaluation_result", f"{', '.join(VERDICT_TEXTS)} is wanted, got {verdict!r}")
        record = JudgementRecord(
            id=fields.optional_text("id") or f"{stem}-{index}",
            instruction=given.text("instruction"),
            input=given.text("input", empty=True),
            first=given.text("response1", empty=True),
            second=given.text("response2", empty=True),
            verdict=VERDICT_TEXTS[verdict],
            reason=said.text("evaluation_reason", empty=True),
            reference=said.text("reference_response", empty=True),
            meta=fields.mapping("meta"),
        )
        for part in (given, said, fields):
            part.done()
        return record

    return read_records(path, parse, key=lambda record: record.id)


def write_judgement_records(path: pathlib.Path | str, records: Iterable[JudgementRecord]) -> None:
    """Writes what ``read_judgement_records`` reads, as JSON lines, atomically.

    Raises:
        ValueError: the same id twice.
    """
    texts = {verdict: text for text, verdict in VERDICT_TEXTS.items()}
    write_jsonl(
        path,
        (
            {
                "id": record.id,
                "inputs": {
                    "instruction": record.instruction,
                    "input": record.input,
                    "response1": record.first,
                    "response2": record.second,
                },
                "outputs": {
                    "evaluation_result": texts[record.verdict],
                    "evaluation_reason": record.reason,
                    "reference_response": record.reference,
                },
                "meta": dict(record.meta),
            }
            for record in distinct(path, records)
        ),
    )


def _verdict(fields: Fields, name: str) -> Verdict:
    code = identifier(fields, name)
    if code not in ("0", "1", "2"):
        raise fields.error(name, f"0, 1 or 2 is wanted, got {code}")
    return _CODES[code]
