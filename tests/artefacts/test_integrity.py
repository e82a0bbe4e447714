"""The manifest of a directory: what it covers, what it says of a change, and that it is whole itself."""

from __future__ import annotations

import json
import pathlib
import zlib

import pytest

from jaxrefine.artefacts.integrity import (
    INTEGRITY,
    DamagedError,
    check_directory,
    damages,
    read_integrity,
    write_integrity,
)


@pytest.fixture
def sealed(tmp_path: pathlib.Path) -> pathlib.Path:
    (tmp_path / "part").mkdir()
    (tmp_path / "part" / "a.bin").write_bytes(b"alpha")
    (tmp_path / "b.json").write_bytes(b"{}")
    (tmp_path / ".c.unfinished").write_bytes(b"left by a crash")
    write_integrity(tmp_path / INTEGRITY, tmp_path, leaves={"w": ("float32", (2, 3))}, about={"config": "ab"})
    return tmp_path


def test_a_manifest_holds_sizes_and_checksums_arrays_and_versions(sealed: pathlib.Path) -> None:
    found = read_integrity(sealed / INTEGRITY)
    assert found.files == {"b.json": [2, zlib.crc32(b"{}")], "part/a.bin": [5, zlib.crc32(b"alpha")]}
    assert found.leaves == {"w": ["float32", [2, 3]]}
    assert found.about == {"config": "ab"}
    assert "jax" in found.versions


def test_a_directory_as_it_was_written_passes_and_one_without_a_manifest_is_not_judged(sealed: pathlib.Path) -> None:
    (sealed / "README.md").write_text("added later, by somebody")
    assert check_directory(sealed)
    (sealed / INTEGRITY).unlink()
    assert not check_directory(sealed)


def test_each_damage_is_named_with_what_it_is(sealed: pathlib.Path) -> None:
    integrity = read_integrity(sealed / INTEGRITY)
    (sealed / "part" / "a.bin").write_bytes(b"alphb")
    assert damages(sealed, integrity) == ["part/a.bin: other content than was written"]
    (sealed / "part" / "a.bin").write_bytes(b"alp")
    (sealed / "b.json").unlink()
    assert damages(sealed, integrity) == ["b.json: missing", "part/a.bin: 3 bytes, 5 were written"]
    with pytest.raises(DamagedError, match=r"b.json: missing; part/a.bin: 3 bytes.*remove its integrity.json"):
        check_directory(sealed)


def test_several_readers_share_the_files(sealed: pathlib.Path) -> None:
    integrity = read_integrity(sealed / INTEGRITY)
    (sealed / "part" / "a.bin").unlink()
    assert [damages(sealed, integrity, share=(i, 2)) for i in range(2)] == [[], ["part/a.bin: missing"]]


def test_a_manifest_that_was_changed_is_damaged_itself(sealed: pathlib.Path) -> None:
    content = json.loads((sealed / INTEGRITY).read_text())
    content["files"]["part/a.bin"][0] = 6
    (sealed / INTEGRITY).write_text(json.dumps(content))
    with pytest.raises(DamagedError, match="its own checksum differs"):
        read_integrity(sealed / INTEGRITY)
    (sealed / INTEGRITY).write_text("{")
    with pytest.raises(DamagedError, match="is damaged: .*not JSON"):
        read_integrity(sealed / INTEGRITY)
