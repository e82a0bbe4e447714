"""A manifest says what a stage wrote, and notices when that changes."""

from __future__ import annotations

import json
import pathlib

import pytest

from jaxrefine import __version__
from jaxrefine.artefacts import manifest as manifests
from jaxrefine.artefacts.manifest import Manifest


def _manifest(directory: pathlib.Path) -> Manifest:
    return Manifest(
        stage="sample",
        config="0" * 32,
        seeds={"seed": 1},
        versions=manifests.versions(),
        inputs={},
        outputs=manifests.digest_outputs(directory),
        seconds=1.5,
    )


@pytest.fixture
def stage(tmp_path: pathlib.Path) -> pathlib.Path:
    """A stage's directory with three files and what a crash left."""
    (tmp_path / "weights").mkdir()
    (tmp_path / "weights" / "a.bin").write_bytes(b"\x00" * 100)
    (tmp_path / "samples.jsonl").write_text("{}\n")
    (tmp_path / "empty").write_text("")
    (tmp_path / ".metrics.json.unfinished").write_text("{")
    (tmp_path / ".weights.replaced").mkdir()
    (tmp_path / ".weights.replaced" / "a.bin").write_text("old")
    return tmp_path


def test_a_manifest_comes_back_as_it_was(stage: pathlib.Path):
    manifest = _manifest(stage)
    assert manifests.load_manifest(stage) is None
    manifests.save_manifest(stage, manifest)
    assert manifests.load_manifest(stage) == manifest
    assert manifest.versions["jaxrefine"] == __version__
    assert {"python", "jax", "flax", "numpy"} <= set(manifest.versions)


def test_outputs_are_all_files_except_the_manifest_and_the_half_written(stage: pathlib.Path):
    manifests.save_manifest(stage, _manifest(stage))
    assert set(manifests.digest_outputs(stage)) == {"weights/a.bin", "samples.jsonl", "empty"}


def test_one_flipped_bit_is_noticed_by_name(stage: pathlib.Path):
    manifest = _manifest(stage)
    content = bytearray(b"\x00" * 100)
    for position in (0, 50, 99):
        content[position] ^= 1
        (stage / "weights" / "a.bin").write_bytes(content)
        assert manifests.altered(stage, manifest) == ["weights/a.bin"]
        content[position] ^= 1


def test_a_missing_file_is_noticed_by_name(stage: pathlib.Path):
    manifest = _manifest(stage)
    (stage / "empty").unlink()
    assert manifests.altered(stage, manifest) == ["empty"]


def test_an_untouched_stage_is_not_altered(stage: pathlib.Path):
    assert manifests.altered(stage, _manifest(stage)) == []


def test_a_file_that_is_no_manifest_is_an_error_with_its_path(stage: pathlib.Path):
    (stage / "manifest.json").write_text(json.dumps({"stage": "x"}))
    with pytest.raises(ValueError, match=r"manifest\.json: not a manifest"):
        manifests.load_manifest(stage)


def test_a_manifests_digest_is_of_its_outputs_alone(stage: pathlib.Path):
    first = _manifest(stage)
    (stage / "empty").write_text("x")
    second = _manifest(stage)
    assert first.digest != second.digest
    (stage / "empty").write_text("")
    assert _manifest(stage).digest == first.digest
