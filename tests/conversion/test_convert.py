"""Converting and inspecting model directories, in Python and on the command line."""

from __future__ import annotations

import collections
import dataclasses
import json
import pathlib
import shutil
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrefine import cli
from jaxrefine.conversion import convert as module
from jaxrefine.conversion import parity
from jaxrefine.conversion.apply import by_path
from jaxrefine.conversion.convert import convert
from jaxrefine.conversion.inspection import inspect
from jaxrefine.conversion.orbax import load_orbax
from jaxrefine.conversion.pretrained import load_config, load_pretrained
from jaxrefine.conversion.streaming import StoredParameter
from tests.conversion.cases import CASES
from tests.conversion.checkpoints import BFLOAT16, tensors_of, write_checkpoint
from tests.conversion.test_classification import classifier
from tests.conversion.test_consolidated import write_shards
from tests.conversion.test_families import assert_same_bits

NEOX, LLAMA = "pythia", "llama-2-gqa"


def written(
    directory: pathlib.Path, name: str = LLAMA, dtype: Any = np.float32, **layout: Any
) -> dict[str, np.ndarray]:
    tensors = tensors_of(CASES[name].attributes, dtype)
    write_checkpoint(directory, CASES[name].attributes, tensors, **layout)
    return tensors


@pytest.mark.parametrize("name", [LLAMA, NEOX, "stablelm-2-12b"])
def test_a_bin_checkpoint_becomes_safetensors_of_the_same_bits(tmp_path: pathlib.Path, name: str) -> None:
    tensors = written(tmp_path / "a", name, layout="bin", num_shards=3)
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    converted = convert(tmp_path / "a", tmp_path / "b")
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), tensors)
    assert converted.num_bytes == sum(value.nbytes for value in tensors.values())
    assert load_config(tmp_path / "b") == load_config(tmp_path / "a")
    assert (tmp_path / "b" / "tokenizer.json").read_text() == "{}"


def test_the_dtype_may_be_changed(tmp_path: pathlib.Path) -> None:
    tensors = written(tmp_path / "a", NEOX)
    convert(tmp_path / "a", tmp_path / "b", dtype="bfloat16")
    rounded = {name: value.astype(BFLOAT16) for name, value in tensors.items()}
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), rounded)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["torch_dtype"] == "bfloat16"


def test_metas_files_become_a_hugging_face_directory(tmp_path: pathlib.Path) -> None:
    tensors = write_shards(tmp_path, 2, 1)
    convert(tmp_path / "meta", tmp_path / "b")
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), tensors)


def test_a_classifier_keeps_its_head_and_its_labels(tmp_path: pathlib.Path) -> None:
    tensors = classifier(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b")
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), tensors)
    said, given = (json.loads((tmp_path / one / "config.json").read_text()) for one in ("b", "a"))
    assert (said["architectures"], said["id2label"]) == (given["architectures"], given["id2label"])


def test_an_orbax_checkpoint_holds_our_parameters(tmp_path: pathlib.Path) -> None:
    written(tmp_path / "a", NEOX)
    convert(tmp_path / "a", tmp_path / "b", to="orbax")
    expected = by_path(load_pretrained(tmp_path / "a")[1])
    found = by_path(load_orbax(tmp_path / "b"))
    assert set(found) == set(expected)
    assert all(np.array_equal(leaf, expected[path]) for path, leaf in found.items())
    assert load_config(tmp_path / "b") == load_config(tmp_path / "a")


def test_one_parameter_is_in_memory_at_a_time(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    written(tmp_path / "a")
    read: collections.Counter[int] = collections.Counter()
    whole = StoredParameter.__array__

    def counted(self: StoredParameter, *arguments: Any, **options: Any) -> np.ndarray:
        read[id(self)] += 1
        return whole(self, *arguments, **options)

    monkeypatch.setattr(StoredParameter, "__array__", counted)
    convert(tmp_path / "a", tmp_path / "b")
    assert set(read.values()) == {1}


Usage = collections.namedtuple("Usage", "total used free")


def _full_disk(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda _: Usage(10**6, 10**6 - 5000, 5000))


def _fails_while_writing(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def write(*_: Any, **__: Any) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("jaxrefine.conversion.writing.write_safetensors", write)


def _truncated(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = directory / "a" / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])


def _unknown_family(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "a" / "config.json").write_text(json.dumps(CASES[LLAMA].attributes | {"model_type": "lama"}))


def _occupied(directory: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (directory / "b").mkdir()
    (directory / "b" / "thesis.tex").write_text("years of work")


@pytest.mark.parametrize(
    ("spoil", "part"),
    [
        (_full_disk, "are needed, 5 kB are free; nothing was written"),
        (_fails_while_writing, "no space left"),
        (_truncated, "no complete safetensors file"),
        (_unknown_family, "unknown model_type 'lama'; did you mean 'llama'"),
        (_occupied, "it is no model directory, and is not replaced"),
    ],
)
def test_a_conversion_that_cannot_be_leaves_nothing_behind(
    tmp_path: pathlib.Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    spoil: Any,
    part: str,
) -> None:
    written(tmp_path / "a")
    spoil(tmp_path, monkeypatch)
    before = sorted(path for path in tmp_path.rglob("*"))
    assert cli.main(["convert", str(tmp_path / "a"), str(tmp_path / "b")]) == cli.USAGE_ERROR
    assert part in capsys.readouterr().err
    assert sorted(path for path in tmp_path.rglob("*")) == before


def test_the_command_says_what_it_did(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    written(tmp_path / "a")
    assert cli.main(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--dtype=float16"]) == 0
    said = capsys.readouterr()
    assert "llama: 31,776 parameters, 63.55 kB to write" in said.out
    assert f"{tmp_path / 'b'}: written" in said.out
    assert "30 tensors" in said.err
    assert "stopped" not in said.err


def test_a_source_that_is_not_what_was_exported_is_refused_by_file(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "a")
    convert(tmp_path / "a", tmp_path / "b")
    weights = tmp_path / "b" / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    assert cli.main(["convert", str(tmp_path / "b"), str(tmp_path / "c")]) == 3
    assert "model.safetensors: other content than was written" in capsys.readouterr().err
    assert not (tmp_path / "c").exists()


def test_inspection_names_family_mechanisms_parameters_and_memory(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path, NEOX, BFLOAT16)
    config = load_config(tmp_path)[0]
    count = sum(leaf.size for leaf in by_path(load_pretrained(tmp_path)[1]).values())
    assert cli.main(["inspect", str(tmp_path)]) == 0
    said = capsys.readouterr().out
    for part in (
        "gpt_neox (decoder), in Hugging Face's layout",
        f"{count:,}",
        "stored as   bfloat16",
        "parallel = True",
    ):
        assert part in said
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        usual = value == field.default
        assert (f"\n  {field.name} = {value!r}\n" in said) != usual
        assert (f" {field.name}={value!r}" in said) == usual


def test_inspection_knows_classifiers_and_metas_files(tmp_path: pathlib.Path) -> None:
    classifier(tmp_path / "a")
    assert "with a head of 3 labels" in inspect(tmp_path / "a")
    write_shards(tmp_path, 1, 1)
    assert "in Meta's layout" in inspect(tmp_path / "meta")


@pytest.mark.torch
def test_verification_reports_logits_equal_to_those_of_transformers(
    tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    written(tmp_path / "a", NEOX)
    assert cli.main(["convert", str(tmp_path / "a"), str(tmp_path / "b"), "--verify"]) == 0
    assert "same most likely token 100.00%" in capsys.readouterr().out
    write_shards(tmp_path, 2, 1)
    for source, to, dtype, bound in (
        ("a", "orbax", None, 1e-4),
        ("meta", "hf", None, 1e-4),
        ("a", "hf", "bfloat16", 0.1),
    ):
        found = convert(tmp_path / source, tmp_path / "c", to=to, dtype=dtype, verify=True).parity
        assert found is not None
        assert found.relative_difference <= bound
        assert abs(found.kl) <= bound
        assert found.num_tokens == 72


def test_parity_is_in_the_words_of_its_numbers(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    logits = [np.log(np.array([[0.5, 0.25, 0.25], [0.2, 0.3, 0.5]]))]
    other = [np.log(np.array([[0.25, 0.5, 0.25], [0.2, 0.3, 0.5]]))]
    monkeypatch.setattr(parity, "prompts", lambda *_: [np.array([1, 2])])
    monkeypatch.setattr(parity, "_transformers_logits", lambda *_: logits)
    monkeypatch.setattr(parity, "_logits", lambda *_: other[0])
    found = parity.compare(load_config(_small(tmp_path))[0], {}, tmp_path)
    np.testing.assert_allclose(found.max_difference, np.log(2), rtol=1e-12)
    np.testing.assert_allclose(found.kl, 0.25 * np.log(2) / 2, rtol=1e-12)  # ½ log 2 − ¼ log 2, over two tokens
    assert found.top1_agreement == 0.5


def _small(directory: pathlib.Path) -> pathlib.Path:
    written(directory)
    return directory


def test_without_torch_it_says_that_nothing_was_compared(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module.parity, "has_torch", lambda: False)
    written(tmp_path / "a")
    assert "torch is not installed" in convert(tmp_path / "a", tmp_path / "b", verify=True).remark
