"""Faults of records: malformed lines, killed writers, sampling that is stopped."""

from __future__ import annotations

import contextlib
import dataclasses
import gzip
import json
import logging
import pathlib
import signal
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from benchmarks.faults.trial import Fault, Outcome
from benchmarks.faults.writers import NUM_RECORDS, WRITERS
from jaxrefine.artefacts.journal import Journal
from jaxrefine.conversion.loaded import LoadedModel, Placement, load_model
from jaxrefine.data import jsonl
from jaxrefine.data.examples import Candidates
from jaxrefine.data.jsonl import MAX_LINE_BYTES, RecordError
from jaxrefine.data.readers import read_candidates
from jaxrefine.data.tokenizer import Tokenizer
from jaxrefine.evaluation.variant_settings import SHIPPED
from jaxrefine.sampling.candidates import CANDIDATES, JOURNAL, RECORDS, SamplingConfig, sample_candidates

ROOT = pathlib.Path(__file__).resolve().parent.parent.parent

Row = dict[str, Any]
Draw = np.random.Generator


def _row(number: int) -> Row:
    candidates = [{"text": f"#### {number}", "score": 1}, {"text": "I pass", "score": 0, "finished": False}]
    return {"id": f"q{number}", "prompt": f"What is {number}?\n", "answer": str(number), "candidates": candidates}


def _bytes(row: Row) -> bytes:
    return json.dumps(row).encode() + b"\n"


def _with(path: str, value: Any) -> Callable[[Row, Draw], bytes]:
    """The row with another value at a dotted path, spelled as JSON."""

    def spoiled(row: Row, draw: Draw) -> bytes:
        *way, last = path.split(".")
        place: Any = row
        for step in way:
            place = place[int(step) if step.isdigit() else step]
        place[last] = "@"
        return _bytes(row).replace(b'"@"', value if isinstance(value, bytes) else json.dumps(value).encode())

    return spoiled


def _torn(row: Row, draw: Draw) -> bytes:
    line = _bytes(row)
    return line[: int(draw.integers(1, len(line) - 1))]


def _inserted(row: Row, draw: Draw, what: bytes) -> bytes:
    line = _bytes(row)
    at = int(draw.integers(1, len(line) - 2))
    return line[:at] + what + line[at:]


def _without(row: Row, draw: Draw) -> bytes:
    del row["prompt"]
    return _bytes(row)


LINES: dict[str, tuple[Callable[[Row, Draw], bytes], str]] = {
    "torn tail": (_torn, "not JSON"),
    "invalid UTF-8": (lambda row, draw: _inserted(row, draw, b"\xff"), "not UTF-8: byte "),
    "a zero byte": (lambda row, draw: _inserted(row, draw, b"\0"), "not JSON"),
    "half a surrogate pair": (_with("prompt", b'"a\\ud800"'), "prompt: half of a surrogate pair at character 1"),
    "not a number": (_with("candidates.1.score", b"NaN"), "NaN is no number of JSON"),
    "infinity": (_with("candidates.0.score", b"-Infinity"), "-Infinity is no number of JSON"),
    "overflow": (_with("candidates.0.score", b"1e400"), "1e400 is larger than any number here"),
    "overflow of an integer": (
        _with("candidates.1.score", b"1" + b"0" * 400),
        "candidates[1].score: larger than any number here",
    ),
    "integer of too many digits": (_with("candidates.1.score", b"1" * 5000), "5000 digits"),
    "repeated key": (
        lambda row, draw: _bytes(row)[:-2] + b', "answer": "7"}\n',
        "repeated key 'answer'",
    ),
    "a number for a string": (_with("id", 7), "id: a string is wanted, got int 7"),
    "a list for a string": (_with("prompt", ["a"]), 'prompt: a string is wanted, got list ["a"]'),
    "an object for a list": (_with("candidates", {}), "candidates: a list is wanted, got dict {}"),
    "a string for a number": (_with("candidates.0.score", "1"), 'candidates[0].score: a number is wanted, got str "1"'),
    "a boolean for a number": (_with("candidates.0.score", True), "candidates[0].score: a number is wanted"),
    "a null for a number": (_with("candidates.0.score", None), "candidates[0].score: a number is wanted"),
    "a number for a flag": (_with("candidates.1.finished", 0), "candidates[1].finished: true or false is wanted"),
    "an empty id": (_with("id", ""), "id: is empty"),
    "a missing field": (_without, "prompt: missing; the line has id, answer, candidates"),
    "a misspelt field": (
        lambda row, draw: _bytes(row | {"anwser": "7"}),
        "anwser: unknown field 'anwser'; did you mean 'answer'",
    ),
    "a label out of range": (_with("candidates.1.score", 2), "candidates[1].score: 0 (wrong) or 1 (right) is wanted"),
    "too few candidates": (_with("candidates", []), "candidates: at least 2 wanted, got 0"),
    "an id that is there": (lambda row, draw: _bytes(row | {"id": "q0"}), "id: 'q0' is that of line 1 already"),
    "longer than any line": (
        lambda row, draw: _bytes(row | {"prompt": "x" * 50_000_000}),
        f"longer than {MAX_LINE_BYTES} bytes",
    ),
    "nested too deeply": (
        lambda row, draw: b'{"id": ' + b"[" * 100_000 + b"]" * 100_000 + b"}\n",
        "JSON nested too deeply",
    ),
    "blank": (lambda row, draw: b"\n", "blank line"),
    "an array": (lambda row, draw: b"[1, 2]\n", "an object is wanted, got list [1, 2]"),
    "two objects": (lambda row, draw: _bytes(row)[:-1] + b" " + _bytes(row), "not JSON"),
}
"""By name: what becomes of a good row, and what must be said of it (with its field, where one is at fault)."""

FILES: dict[str, tuple[Callable[[bytes, Draw], bytes], str, str]] = {
    "byte order mark": (lambda good, draw: b"\xef\xbb\xbf" + good, ":1: starts with a byte order mark", ""),
    "UTF-16": (lambda good, draw: good.decode().encode("utf-16"), ":1: starts with a byte order mark", ""),
    "Windows line ends": (lambda good, draw: good.replace(b"\n", b"\r\n"), ":1: Windows line end", ""),
    "truncated gzip": (
        lambda good, draw: gzip.compress(good)[: int(draw.integers(0, len(gzip.compress(good))))],
        ": broken gzip stream",
        ".gz",
    ),
    "gzip with a flipped bit": (
        lambda good, draw: _flipped(gzip.compress(good, mtime=0), draw),
        ": broken gzip stream",
        ".gz",
    ),
    "no gzip": (lambda good, draw: good, ":1: broken gzip stream", ".gz"),
}
"""By name: what becomes of a whole file, what must be said, and the file's further suffix. No line can be skipped."""


def _flipped(packed: bytes, draw: Draw) -> bytes:
    """One bit of the checksum at the end: every byte still unpacks."""
    content = bytearray(packed)
    content[int(draw.integers(len(content) - 8, len(content) - 4))] ^= 1 << int(draw.integers(8))
    return bytes(content)


def _read(path: pathlib.Path, **options: Any) -> list[Candidates]:
    return read_candidates(path, binary=True, min_candidates=2, **options)


def _malformed_line(name: str, draw: Draw, directory: pathlib.Path) -> str:
    """What went wrong with one malformed line; "" where it was refused, and set aside, as it must be."""
    spoil, reason = LINES[name]
    torn = name == "torn tail"
    at = 11 if torn else int(draw.integers(1, 12))
    lines = [_bytes(_row(number)) for number in range(12)]
    lines[at] = spoil(_row(at), draw)
    path, rejects = directory / "data.jsonl", directory / "rejects.jsonl"
    path.write_bytes(b"".join(lines))
    try:
        return f"read as {_read(path)[at]!r:.200}"
    except RecordError as error:
        if not str(error).startswith(f"{path}:{at + 1}: ") or reason not in str(error):
            return f"said {str(error)[:300]}"
    found = _read(path, rejects=rejects, max_rejects=1)
    if [example.id for example in found] != [f"q{number}" for number in range(12) if number != at]:
        return f"skipping it left {[example.id for example in found]}"
    [kept] = [json.loads(line) for line in rejects.read_text().splitlines()]
    text = lines[at][:10_000].decode("utf-8", "backslashreplace").rstrip("\n")
    said = f"{kept['field']}: {kept['reason']}" if kept["field"] else kept["reason"]
    if (kept["file"], kept["line"], kept["text"]) != (str(path), at + 1, text) or reason not in said:
        return f"set aside as {str(kept)[:300]}"
    try:
        _read(path, rejects=rejects, max_rejects=0)
    except RecordError as error:
        return "" if "more than 0 malformed lines" in str(error) else f"beyond the cap it said {str(error)[:300]}"
    return "the cap was not kept"


def _malformed_file(name: str, draw: Draw, directory: pathlib.Path) -> str:
    spoil, reason, suffix = FILES[name]
    path = directory / f"data.jsonl{suffix}"
    path.write_bytes(spoil(b"".join(_bytes(_row(number)) for number in range(12)), draw))
    for options in ({}, {"rejects": directory / "rejects.jsonl"}):
        try:
            return f"read as {len(_read(path, **options))} records"
        except RecordError as error:
            if not str(error).startswith(f"{path}:") or reason not in str(error):
                return f"said {str(error)[:300]}"
    return ""


def _malformations(_: Any, draw: Draw, directory: pathlib.Path) -> Outcome:
    logger = logging.getLogger(jsonl.__name__)  # it tells of every file with lines set aside
    logger.disabled = True
    try:
        wrong = [f"{name}: {said}" for name in LINES if (said := _malformed_line(name, draw, directory))]
        wrong += [f"{name}: {said}" for name in FILES if (said := _malformed_file(name, draw, directory))]
    finally:
        logger.disabled = False
    (directory / "data.jsonl").unlink()
    return Outcome(
        passed=not wrong,
        detail="; ".join(wrong),
        figures={"malformations": float(len(LINES) + len(FILES) - len(wrong))},
    )


@contextlib.contextmanager
def _process(*arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """A Python process in the checkout, its output piped; it is gone when the block is left."""
    process = subprocess.Popen(
        [sys.executable, *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, bufsize=0
    )
    with process:
        try:
            yield process
        finally:
            process.kill()


def _wholes(directory: pathlib.Path) -> dict[str, dict[str, bytes]]:
    """The files of each kind of work that nobody stopped."""
    found = {}
    for kind, (write, _, files) in WRITERS.items():
        place = directory / kind
        place.mkdir()
        write(place)
        found[kind] = {file: (place / file).read_bytes() for file in files}
    return found


def _killed(kind: str, directory: pathlib.Path, draw: Draw, committed: int) -> tuple[int, str]:
    """Starts a writer, kills it, and opens its journal again: how many bytes were torn, and what went wrong or ""."""
    journal = directory / WRITERS[kind][1]
    with _process("-m", "benchmarks.faults.writers", kind, str(directory)) as writer:
        assert writer.stdout is not None
        told = sum(bool(writer.stdout.readline()) for _ in range(int(draw.integers(0, NUM_RECORDS - committed))))
        with contextlib.suppress(subprocess.TimeoutExpired):
            writer.wait(float(draw.uniform(0, 0.004)))
        writer.send_signal(signal.SIGKILL)
        told += len(writer.stdout.read().splitlines())
    content = journal.read_bytes() if journal.is_file() else b""
    whole = content.rfind(b"\n") + 1
    torn = len(content) - whole
    with warnings.catch_warnings(record=True, action="always") as said:
        opened = Journal(journal)
    if not committed + told <= len(opened) <= committed + told + 1:
        return torn, f"{committed} + {told} records were committed, and {len(opened)} are there"
    if content and journal.read_bytes() != content[:whole]:
        return torn, "opening it changed more than the torn tail"
    if opened.torn_bytes != torn or [f"of {torn} bytes" in str(one.message) for one in said] != [True] * bool(torn):
        return (
            torn,
            f"{torn} bytes were torn; it counted {opened.torn_bytes} and said {[str(one.message) for one in said]}",
        )
    return torn, ""


def _killed_writer(wholes: dict[str, dict[str, bytes]], draw: Draw, directory: pathlib.Path) -> Outcome:
    kind = list(WRITERS)[int(draw.integers(len(WRITERS)))]
    write, name, files = WRITERS[kind]
    torn_tails = 0
    for _ in range(int(draw.integers(1, 3))):
        committed = len(Journal(directory / name)) if (directory / name).is_file() else 0
        if committed == NUM_RECORDS:
            break
        torn, wrong = _killed(kind, directory, draw, committed)
        torn_tails += torn > 0
        if wrong:
            return Outcome(passed=False, detail=f"{kind}: {wrong}")
    write(directory)
    changed = [file for file in files if (directory / file).read_bytes() != wholes[kind][file]]
    keys = [json.loads(line)["key"] for line in (directory / name).read_bytes().splitlines()]
    return Outcome(
        passed=not changed and len(set(keys)) == len(keys) == NUM_RECORDS,
        detail=f"{kind}: {changed} are others than without being killed; {len(keys)} records of {len(set(keys))} keys",
        figures={"torn_tails": float(torn_tails)},
    )


class _Counting:
    """A tokenizer that notes what it is asked to encode."""

    def __init__(self, inner: Tokenizer) -> None:
        self._inner, self.encoded = inner, list[str]()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)

    def encode(self, text: str) -> list[int]:
        self.encoded.append(text)
        return self._inner.encode(text)


_DRAWN = SamplingConfig(num_candidates=2, max_new_tokens=16, slots=4, columns=2)
_PROMPTS = [
    Candidates(f"q{number}", f"Mia has {number} pens and buys 4 more. How many pens has she?\n") for number in range(12)
]


def _sampled_whole(directory: pathlib.Path) -> tuple[LoadedModel, dict[str, bytes]]:
    model = load_model(SHIPPED, Placement(num_devices=1))
    sample_candidates(model, _PROMPTS, _DRAWN, directory)
    return model, {name: (directory / name).read_bytes() for name in (RECORDS, CANDIDATES)}


def _stopped_sampling(prepared: tuple[LoadedModel, dict[str, bytes]], draw: Draw, directory: pathlib.Path) -> Outcome:
    """Killed anywhere, a job leaves the records of some prompts, in the order in which they were done, and a torn one.

    Killed processes are D2's; what they leave is made here, so that many points can be tried on one compiled model.
    """
    model, whole = prepared
    tokenizer = _Counting(model.tokenizer)
    records = [json.loads(line) for line in whole[RECORDS].splitlines()]
    order = [int(index) for index in draw.permutation(len(records))]
    done = order[: int(draw.integers(0, len(records)))]
    with Journal(directory / JOURNAL) as journal:
        for index in done:
            journal.append(records[index]["id"], records[index])
    torn = json.dumps({"key": records[order[-1]]["id"], "record": records[order[-1]]}).encode()
    with open(directory / JOURNAL, "ab") as file:
        file.write(torn[: int(draw.integers(0, len(torn)))])
    with warnings.catch_warnings(action="ignore"):
        sample_candidates(dataclasses.replace(model, tokenizer=tokenizer), _PROMPTS, _DRAWN, directory)
    repeated = [text for text in tokenizer.encoded if text in {_PROMPTS[index].prompt for index in done}]
    changed = [name for name, content in whole.items() if (directory / name).read_bytes() != content]
    return Outcome(
        passed=not changed and not repeated and len(tokenizer.encoded) == len(records) - len(done),
        detail=f"changed: {changed}; asked again: {repeated}",
        figures={"records_kept": float(len(done))},
    )


FAULTS = (
    Fault(
        name="D1",
        title=f"{len(LINES) + len(FILES)} malformations of a file of records, each at a random place",
        criterion="each is refused as file:line: field: reason; a line is set aside on request, up to a cap, and the "
        "rest read; nothing is coerced",
        trial=_malformations,
        num_trials=100,
        num_fast=1,
        baseline="Python's json, measured: NaN, 1e400 (as infinity) and repeated keys (the last one wins) are accepted",
    ),
    Fault(
        name="D2",
        title="SIGKILL while samples, judgements or matches are written, once or twice",
        criterion="0 committed records lost, 0 repeated, a torn tail cut off and counted; resumed, the same bytes as "
        "without being killed",
        trial=_killed_writer,
        prepare=_wholes,
        num_trials=300,
        num_fast=5,
        baseline="40 SIGKILLs each, measured: buffered writes tore 4 tails, flushed ones 2; a file that is rewritten "
        "whole lost everything 29 times",
    ),
    Fault(
        name="D3-local",
        title="sampling from a local model, resumed from what a stop at a random point leaves",
        criterion="the files are those of an uninterrupted run, byte by byte; no finished prompt is sampled again",
        trial=_stopped_sampling,
        prepare=_sampled_whole,
        num_trials=100,
        num_fast=3,
    ),
)
