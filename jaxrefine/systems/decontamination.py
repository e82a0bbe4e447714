"""Training data without what a benchmark holds: examples that share n words in a row with it are taken out."""

from __future__ import annotations

import dataclasses
import gzip
import pathlib
from collections.abc import Sequence

from jaxrefine.artefacts.atomic import write_bytes, write_text
from jaxrefine.artefacts.progress import say
from jaxrefine.artefacts.stages import Stage
from jaxrefine.data.decontamination import decontaminate
from jaxrefine.data.examples import Instruction
from jaxrefine.data.jsonl import Fields, read_jsonl, write_jsonl

KEPT, REMOVED, REPORT = "kept.jsonl", "removed.jsonl", "report.md"


@dataclasses.dataclass(frozen=True, kw_only=True)
class Decontamination:
    """One file of examples against any number of benchmarks."""

    examples: str = ""
    """JSON lines, plain or ``.gz``, with ``id`` and the fields to be read; they are kept as they stand."""
    against: tuple[str, ...] = ()
    """Benchmarks, ``FILE`` or ``NAME=FILE``: JSON lines with ``id``, where there is one, and ``benchmark_field``."""
    n: int = 6
    """Words in a row; 6 is ZOOTER's rule."""
    fields: tuple[str, ...] = ("prompt",)
    """Of the examples: texts that are read; missing ones are empty."""
    benchmark_field: str = "prompt"

    def stages(self) -> list[Stage]:
        """One."""
        if not self.examples or not self.against:
            raise ValueError("nothing to compare: give yours with --examples FILE.jsonl --against NAME=FILE.jsonl")
        if self.n < 1 or not self.fields:
            raise ValueError(f"n = {self.n} must be at least 1, and fields = {self.fields} at least one")
        return [Stage("decontaminate", self.run)]

    def run(self, directory: pathlib.Path) -> None:
        """Writes ``kept.jsonl``, ``removed.jsonl`` (what was shared with what) and ``report.md``."""
        path = pathlib.Path(self.examples)
        texts = _read(path, self.fields)
        benchmarks: dict[str, list[Instruction]] = {}
        for given in self.against:
            name, equals, file = given.rpartition("=")
            name = name if equals else pathlib.Path(file).name.split(".")[0]
            if name in benchmarks:
                raise ValueError(f"--against {given!r}: {name} is named twice")
            benchmarks[name] = _read(pathlib.Path(file), (self.benchmark_field,))
        found = decontaminate(texts, benchmarks, n=self.n)
        removed = {one.id for one in found.removed}
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        lines = content.splitlines(keepends=True)  # as many as were read: a malformed line has stopped the reading
        kept = [line for line, text in zip(lines, texts, strict=True) if text.id not in removed]
        write_bytes(directory / KEPT, b"".join(kept))
        write_jsonl(directory / REMOVED, [dataclasses.asdict(one) for one in found.removed])
        write_text(directory / REPORT, f"# Decontamination\n\n{found.report()}")
        say(f"{len(removed)} of {len(texts)} examples taken out; {directory / REPORT}")


def _read(path: pathlib.Path, fields: Sequence[str]) -> list[Instruction]:
    """The wanted texts of each line as one prompt, called by its id, or by its number where it has none."""
    count = iter(range(1, 2**62))

    def parse(line: Fields) -> Instruction:
        number = next(count)
        id = line.text("id") if "id" in line.names() else str(number)
        texts = [line.text(field, empty=True) for field in fields if field in line.names()]
        if not texts:
            raise line.error(fields[0], f"missing; the line has {', '.join(line.names())}")
        return Instruction(id, "\n".join(texts) or "\n", "")

    return read_jsonl(path, parse, key=lambda text: text.id)
