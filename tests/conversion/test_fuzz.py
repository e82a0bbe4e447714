"""Mutated files, ten thousand of them: each is read, or is one error that names the file; none runs anything."""

from __future__ import annotations

import builtins
import contextlib
import io
import os
import pathlib
import pickle
import random
import struct
import subprocess
import zipfile
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxrefine.conversion.reading import read_span
from jaxrefine.conversion.tensors import open_checkpoint, open_torch
from jaxrefine.models.weights import Rule
from tests.conversion.checkpoints import wave, write_bin, write_safetensors

TENSORS = {
    "model.embed_tokens.weight": wave("a", (5, 3)),
    "model.layers.0.mlp.up_proj.weight": wave("b", (4, 3), np.float16),
    "model.norm.weight": wave("c", (3,)),
}
PIECES = (
    b"cos\nsystem\nX\x04\x00\x00\x00echo\x85R",
    b"cbuiltins\neval\n(X\x01\x00\x00\x001tR0",
    b"cos\nsystem\n",
    b"\x8c\x02os\x8c\x06system\x93",
    b"c__builtin__\nexec\n",
    b"cbuiltins\neval\n",
    b"X\x04\x00\x00\x00echo\x85R",
    b"\x81",
    b"R",
    b"b",
    b"i os\nsystem\n",
    b"\x82\x01",
    b"Q",
    b".",
    b"\xff\xff\xff\x7f",
    b"\x00\x00\x00\x80",
    b'"shape":[-1]',
    b'"F64"',
    b"99999999999999",
    b"\xc3(",
    b"null",
)
"""What mutations insert: attempts to run something, huge and negative numbers, broken text."""


def mutated(content: bytes, draw: random.Random) -> bytes:
    """A few bytes changed, removed, doubled, swapped or inserted."""
    out = bytearray(content)
    for _ in range(draw.randint(1, 4)):
        at = draw.randrange(len(out) + 1)
        kind = draw.randrange(6)
        if kind == 0 and out:
            out[at % len(out)] = draw.randrange(256)
        elif kind == 1:
            del out[at : at + draw.randint(1, 16)]
        elif kind == 2:
            out[at:at] = out[at : at + draw.randint(1, 32)]
        elif kind == 3:
            out[at:at] = draw.choice(PIECES)
        elif kind == 4:
            piece = draw.choice(PIECES)
            out[at : at + len(piece)] = piece
        else:
            out = out[:at] if draw.random() < 0.3 else out
    return bytes(out)


@pytest.fixture
def nothing_runs(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Notes every call of what an attack would call."""
    called: list[str] = []

    def note(name: str) -> Callable[..., Any]:
        def function(*_: Any, **__: Any) -> None:
            called.append(name)

        return function

    monkeypatch.setattr(os, "system", note("os.system"))
    monkeypatch.setattr(subprocess, "Popen", note("Popen"))
    evaluate = builtins.eval
    monkeypatch.setattr(builtins, "eval", lambda text, *rest: note("eval")() if text == "1" else evaluate(text, *rest))
    return called


def read_all(path: pathlib.Path) -> bool:
    """Whether every tensor of a ``.bin`` file can be read; a ValueError that names the file is the only other end."""
    said = ""
    try:
        for tensor in open_torch(path).values():
            whole = tuple(slice(0, size) for size in tensor.shape)
            read = tensor.read(whole)
            if tensor.start is not None:  # then it has as many values as the file has
                copied = read_span([tensor], Rule("x", "x"), tensor.shape, whole, read.dtype)
                assert copied.tobytes() == read.tobytes()
    except ValueError as error:
        said = str(error)
    assert not said or str(path) in said, said
    return not said


def zipped(program: bytes, storages: list[bytes]) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr("archive/data.pkl", program)
        for i, content in enumerate(storages):
            archive.writestr(f"archive/data/{i}", content)
    return buffer.getvalue()


def test_mutated_pickles_never_run_and_never_crash_otherwise(tmp_path: pathlib.Path, nothing_runs: list[str]) -> None:
    draw = random.Random(0)
    path = tmp_path / "a.bin"
    write_bin(path, TENSORS)
    with zipfile.ZipFile(path) as archive:
        program = archive.read("archive/data.pkl")
    storages = [value.tobytes() for value in TENSORS.values()]
    results = []
    for _ in range(5000):
        path.write_bytes(zipped(mutated(program, draw), storages))
        results.append(read_all(path))
    assert not nothing_runs
    assert 0 < sum(results) < len(results)


def test_mutated_zip_files_never_crash_otherwise(tmp_path: pathlib.Path, nothing_runs: list[str]) -> None:
    draw = random.Random(1)
    path = tmp_path / "a.bin"
    write_bin(path, TENSORS)
    content = path.read_bytes()
    results = []
    for _ in range(2000):
        path.write_bytes(mutated(content, draw))
        results.append(read_all(path))
    assert not nothing_runs
    assert 0 < sum(results) < len(results)


def test_mutated_headers_never_crash_otherwise(tmp_path: pathlib.Path) -> None:
    draw = random.Random(2)
    path = tmp_path / "model.safetensors"
    write_safetensors(path, TENSORS)
    content = path.read_bytes()
    (size,) = struct.unpack("<Q", content[:8])
    header, values = content[: 8 + size], content[8 + size :]
    results = []
    for i in range(4000):
        changed = mutated(header[8:], draw)
        head = struct.pack("<Q", len(changed)) + changed if i % 2 else mutated(header, draw)
        path.write_bytes(head + values)
        said = ""
        try:
            with open_checkpoint(tmp_path) as tensors:
                for tensor in tensors.values():
                    tensor.read((slice(None),) * len(tensor.shape))
        except ValueError as error:
            said = str(error)
        assert not said or str(path) in said, said
        results.append(not said)
    assert 0 < sum(results) < len(results)


def test_the_mutations_would_be_dangerous_to_a_plain_unpickler(nothing_runs: list[str]) -> None:
    draw = random.Random(3)
    program = pickle.dumps({"a": [1, 2, 3], "b": "text"}, 2)
    for _ in range(3000):
        with contextlib.suppress(Exception):  # whatever a broken program does
            pickle.loads(mutated(program, draw))
    assert nothing_runs
