"""Checkpoints that are wrong: one error that names the tensor or key and the file, whatever the layout."""

from __future__ import annotations

import json
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from jaxrefine.conversion.pretrained import load_pretrained
from tests.conversion.checkpoints import (
    VARIANTS,
    tensors_of,
    wave,
    write_bin,
    write_checkpoint,
    write_safetensors,
)

Tensors = dict[str, np.ndarray]
UP = "model.layers.1.mlp.up_proj.weight"
GQA = VARIANTS["llama-2-gqa"]
TIED = VARIANTS["llama-3.2-tied"]


def _with(name: str, value: np.ndarray) -> Callable[[Tensors], Tensors]:
    return lambda tensors: tensors | {name: value}


def _without(name: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {key: value for key, value in tensors.items() if key != name}


def _renamed(old: str, new: str) -> Callable[[Tensors], Tensors]:
    return lambda tensors: {new if key == old else key: value for key, value in tensors.items()}


WRONG: dict[str, tuple[dict[str, Any], Callable[[Tensors], Tensors], tuple[str, ...]]] = {
    "a missing tensor": (GQA, _without(UP), (f"{UP!r} is missing from ",)),
    "a renamed tensor": (GQA, _renamed(UP, "model.layers.1.mlp.up.weight"), (f"{UP!r} is missing", "up.weight'")),
    "a left-over tensor": (
        GQA,
        _with("model.layers.1.mlp.up_proj.weights", wave("x", (56, 32))),
        ("'model.layers.1.mlp.up_proj.weights'", "left over", f"nearest: {UP!r}"),
    ),
    "a layer too many": (
        GQA,
        _with("model.layers.3.mlp.up_proj.weight", wave("x", (56, 32))),
        ("model.layers.3.mlp.up_proj.weight", "layer 3 of a model with 3 layers"),
    ),
    "a layer too few": (
        GQA | {"num_hidden_layers": 4},
        lambda tensors: {name: value for name, value in tensors.items() if "layers.3" not in name},
        ("'model.layers.3.", "is missing from", "8 more are missing"),
    ),
    "a bias that the config denies": (
        GQA,
        _with("model.layers.0.self_attn.q_proj.bias", wave("x", (32,))),
        ("q_proj.bias", "the config makes no parameter 'layers/attention/query/bias'"),
    ),
    "a wrong shape": (GQA, _with(UP, wave("x", (32, 56))), (UP, "has shape [32, 56]", "wants [56, 32]")),
    "an axis too many": (GQA, _with(UP, wave("x", (56, 32, 1))), (UP, "has shape [56, 32, 1]", "wants [56, 32]")),
    "another vocabulary": (
        GQA | {"vocab_size": 96},
        _with("model.embed_tokens.weight", wave("x", (97, 32))),
        ("model.embed_tokens.weight", "[97, 32]", "[96, 32]"),
    ),
    "double precision": (GQA, _with(UP, wave("x", (56, 32), np.float64)), (UP, "float64", "bfloat16")),
    "integers": (GQA, _with(UP, np.ones((56, 32), np.int64)), (UP, "int64", "allowed: float32")),
    "no head where none is tied": (GQA, _without("lm_head.weight"), ("'lm_head.weight' is missing",)),
    "a tied head that differs": (
        TIED,
        _with("lm_head.weight", wave("x", (97, 32))),
        ("'lm_head.weight'", "differs from", "'model.embed_tokens.weight'", "tie_word_embeddings"),
    ),
    "a tied head of another shape": (
        TIED,
        _with("lm_head.weight", wave("x", (96, 32))),
        ("'lm_head.weight'", "differs from"),
    ),
    "a name with and without its prefix": (
        GQA,
        _with("norm.weight", wave("x", (32,))),
        ("'norm.weight'", "'model.norm.weight'", "same parameter"),
    ),
}


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("which", WRONG)
def test_wrong_tensors_are_an_error_that_names_tensor_and_file(tmp_path: pathlib.Path, which: str, layout: str) -> None:
    attributes, change, parts = WRONG[which]
    write_checkpoint(tmp_path, attributes, change(tensors_of(attributes)), layout=layout)
    with pytest.raises(ValueError) as caught:
        load_pretrained(tmp_path)
    for part in (str(tmp_path), *parts):
        assert part in str(caught.value)


def _edit_index(directory: pathlib.Path, change: Callable[[dict[str, Any]], Any], suffix: str) -> None:
    (index,) = directory.glob("*.index.json")
    content = json.loads(index.read_text())
    change(content)
    index.write_text(json.dumps(content))


def _again(directory: pathlib.Path, suffix: str) -> None:
    """One tensor in a second shard too."""
    second = sorted(directory.glob(f"*.{suffix}"))[1]
    write = write_safetensors if suffix == "safetensors" else write_bin
    tensors = tensors_of(GQA)
    names = sorted(tensors)
    write(second, {name: tensors[name] for name in [*names[1::3], names[0]]})


def _remove_shard(directory: pathlib.Path, suffix: str) -> None:
    sorted(directory.glob(f"*.{suffix}"))[1].unlink()


def _point(shard: Any) -> Callable[[pathlib.Path, str], None]:
    return lambda directory, suffix: _edit_index(
        directory, lambda index: index["weight_map"].update({UP: shard}), suffix
    )


def _cut(share: float) -> Callable[[pathlib.Path, str], None]:
    def cut(directory: pathlib.Path, suffix: str) -> None:
        file = sorted(directory.glob(f"*.{suffix}"))[-1]
        content = file.read_bytes()
        file.write_bytes(content[: int(len(content) * share)])

    return cut


def _single_too(directory: pathlib.Path, suffix: str) -> None:
    stem = "model" if suffix == "safetensors" else "pytorch_model"
    (directory / f"{stem}.{suffix}").write_bytes(b"")


DAMAGE: dict[str, tuple[Callable[[pathlib.Path, str], None], tuple[str, ...]]] = {
    "a shard is missing": (_remove_shard, ("index.json", "-00002-of-00003", "missing", "Allowed: ")),
    "a tensor in two shards": (_again, ("two shards", "-00001-of-00003", "-00002-of-00003")),
    "an index that points elsewhere": (
        lambda directory, suffix: _point(sorted(directory.glob(f"*.{suffix}"))[0].name)(directory, suffix),
        (UP, "index.json", "it is in"),
    ),
    "an index of more than there is": (
        lambda directory, suffix: _edit_index(
            directory, lambda index: index["weight_map"].update({UP + "s": index["weight_map"][UP]}), suffix
        ),
        (UP + "s", "does not hold it", f"did you mean {UP!r}"),
    ),
    "an index of less than there is": (
        lambda directory, suffix: _edit_index(directory, lambda index: index["weight_map"].pop(UP), suffix),
        (UP, "not in the index"),
    ),
    "an index without a map": (
        lambda directory, suffix: _edit_index(directory, lambda index: index.pop("weight_map"), suffix),
        ("index.json", "'weight_map'"),
    ),
    "a file cut in its header": (_cut(0.01), ("-00003-of-00003",)),
    "a file cut in its data": (_cut(0.9), ("-00003-of-00003",)),
    "an empty file": (_cut(0.0), ("-00003-of-00003",)),
    "a single file beside shards": (_single_too, ("both", "index.json", "remove")),
}


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("which", DAMAGE)
def test_damaged_shards_are_an_error_that_names_the_file(tmp_path: pathlib.Path, which: str, layout: str) -> None:
    damage, parts = DAMAGE[which]
    write_checkpoint(tmp_path, GQA, tensors_of(GQA), layout=layout, num_shards=3)
    damage(tmp_path, layout)
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_pretrained(tmp_path)
    for part in (str(tmp_path), *parts):
        assert part in str(caught.value)


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_a_truncated_single_file_is_an_error_that_names_it(tmp_path: pathlib.Path, layout: str, share: float) -> None:
    write_checkpoint(tmp_path, GQA, tensors_of(GQA), layout=layout)
    _cut(share)(tmp_path, layout)
    with pytest.raises(ValueError, match=rf"model\.{layout}: no(t a)? complete"):
        load_pretrained(tmp_path)


def test_a_directory_that_is_not_there_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"nowhere.config\.json"):
        load_pretrained(tmp_path / "nowhere")


def test_a_directory_without_weights_says_what_it_has(tmp_path: pathlib.Path) -> None:
    (tmp_path / "config.json").write_text(json.dumps(GQA))
    (tmp_path / "consolidated.00.pth").write_bytes(b"")
    with pytest.raises(FileNotFoundError, match=r"config\.json, consolidated\.00\.pth; allowed: model\.safetensors"):
        load_pretrained(tmp_path)


@pytest.mark.parametrize(
    ("text", "part"),
    [
        ("{", "not JSON"),
        ("[]", "holds a list"),
        ('{"model_type": "llama", "model_type": "llama"}', "repeated key 'model_type'"),
        ('{"vocab_size": 3}', "unknown model_type None"),
        ('{"model_type": "lama"}', "did you mean 'llama'"),
        (json.dumps(GQA | {"hidden_sizes": 3}), "did you mean 'hidden_size'"),
    ],
)
def test_a_broken_config_is_an_error_that_names_it(tmp_path: pathlib.Path, text: str, part: str) -> None:
    write_checkpoint(tmp_path, GQA, tensors_of(GQA))
    (tmp_path / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json") as caught:
        load_pretrained(tmp_path)
    assert part in str(caught.value)
