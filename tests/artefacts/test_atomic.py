"""Files and directories are whole or absent, and JSON is strict."""

from __future__ import annotations

import os
import pathlib

import pytest

from jaxrefine.artefacts import atomic


def _dies(*arguments: object) -> None:
    raise OSError("the disk went away")


def test_a_write_that_fails_leaves_the_old_content(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch):
    path = tmp_path / "metrics.json"
    atomic.write_text(path, "old")
    monkeypatch.setattr(os, "replace", _dies)
    with pytest.raises(OSError, match="the disk went away"):
        atomic.write_text(path, "new")
    assert path.read_text() == "old"


def test_json_comes_back_as_it_was(tmp_path: pathlib.Path):
    content = {"loss": 0.1, "names": ["ä", "\u2028", "\n"], "none": None, "big": 2**70}
    atomic.write_json(tmp_path / "deep" / "x.json", content)
    assert atomic.read_json(tmp_path / "deep" / "x.json") == content


def test_a_nan_is_refused_with_its_path(tmp_path: pathlib.Path):
    with pytest.raises(ValueError, match=r"x\.json: JSON holds no nan \(at losses\.1\.mean\)"):
        atomic.write_json(tmp_path / "x.json", {"losses": [1, {"mean": float("nan")}]})
    assert not (tmp_path / "x.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        (b'{"a": NaN}', "NaN"),
        (b'{"a": -Infinity}', "-Infinity"),
        (b'{"a": 1e400}', "1e400"),
        (b'{"a": 1, "a": 1}', "repeated key 'a'"),
        (b'{"a": ', "not JSON"),
        (b'{"a": "\xff"}', "not UTF-8"),
        (b"[" * 100_000, "nested too deeply"),
        (b"", "not JSON"),
    ],
)
def test_json_that_python_would_let_pass_is_an_error_with_its_place(content: bytes, said: str):
    with pytest.raises(ValueError, match="data.jsonl:7: ") as error:
        atomic.parse_json(content, where="data.jsonl:7")
    assert said in str(error.value)


def test_a_directory_takes_its_name_when_it_is_complete(tmp_path: pathlib.Path):
    with atomic.new_directory(tmp_path / "model") as directory:
        (directory / "weights").write_text("w")
        assert not (tmp_path / "model").exists()
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "weights").read_text() == "w"


def test_a_directory_replaces_the_one_before_it(tmp_path: pathlib.Path):
    for text in ("old", "new"):
        with atomic.new_directory(tmp_path / "model") as directory:
            (directory / text).write_text(text)
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["new"]
    assert [path.name for path in tmp_path.iterdir()] == ["model"]


def _replace_and_die(path: pathlib.Path) -> None:
    with atomic.new_directory(path) as directory:
        (directory / "half").write_text("")
        raise KeyboardInterrupt


def test_a_directory_that_fails_leaves_the_old_one(tmp_path: pathlib.Path):
    with atomic.new_directory(tmp_path / "model") as directory:
        (directory / "old").write_text("old")
    with pytest.raises(KeyboardInterrupt):
        _replace_and_die(tmp_path / "model")
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert [path.name for path in (tmp_path / "model").iterdir()] == ["old"]


def test_a_crash_between_the_two_renames_is_mended(tmp_path: pathlib.Path):
    (tmp_path / ".model.replaced").mkdir()
    (tmp_path / ".model.replaced" / "old").write_text("old")
    (tmp_path / ".model.unfinished").mkdir()
    (tmp_path / ".x.json.unfinished").write_text("{")
    atomic.clean(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["model"]
    assert (tmp_path / "model" / "old").read_text() == "old"
