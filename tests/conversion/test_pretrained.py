"""Loading and saving model directories: bit-equal both ways, on any mesh, whole or not at all."""

from __future__ import annotations

import json
import os
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from jaxrefine.conversion import pretrained, writing
from jaxrefine.conversion.apply import by_path
from jaxrefine.conversion.pretrained import load_config, load_pretrained, save_pretrained
from jaxrefine.conversion.scorer import load_scorer
from jaxrefine.sharding import MeshConfig, make_mesh, param_shardings
from tests.conversion.checkpoints import BFLOAT16, VARIANTS, tensors_of, wave, write_checkpoint

GQA = VARIANTS["llama-2-gqa"]
DTYPES = {"float32": np.float32, "bfloat16": BFLOAT16, "float16": np.float16}


def assert_same_bits(one: dict[str, np.ndarray], other: dict[str, np.ndarray]) -> None:
    assert set(one) == set(other)
    for name, value in one.items():
        assert value.dtype == other[name].dtype, name
        assert value.tobytes() == other[name].tobytes(), name


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("variant", VARIANTS)
def test_weights_come_back_bit_for_bit(tmp_path: pathlib.Path, variant: str, layout: str) -> None:
    tensors = tensors_of(VARIANTS[variant])
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", VARIANTS[variant], tensors, layout=layout))
    save_pretrained(tmp_path / "b", config, params)
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), tensors)


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_half_precision_comes_back_bit_for_bit_through_fp32(tmp_path: pathlib.Path, dtype: str, layout: str) -> None:
    tensors = tensors_of(GQA, DTYPES[dtype])
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors, layout=layout))
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    save_pretrained(tmp_path / "b", config, params, dtype=dtype)
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), tensors)
    assert json.loads((tmp_path / "b" / "config.json").read_text())["torch_dtype"] == dtype


def test_the_dtype_of_the_file_is_kept_on_request(tmp_path: pathlib.Path) -> None:
    tensors = tensors_of(GQA, BFLOAT16)
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors), param_dtype=None)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("bfloat16")}
    save_pretrained(tmp_path / "b", config, params)
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), tensors)


@pytest.mark.parametrize("layout", ["safetensors", "bin"])
def test_shards_give_what_a_single_file_gives(tmp_path: pathlib.Path, layout: str) -> None:
    tensors = tensors_of(GQA)
    _, single = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors, layout=layout))
    _, sharded = load_pretrained(write_checkpoint(tmp_path / "b", GQA, tensors, layout=layout, num_shards=4))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), single, sharded))


def test_layers_are_stacked_in_their_order_and_orientation(tmp_path: pathlib.Path) -> None:
    tensors = tensors_of(GQA)
    _, params = load_pretrained(write_checkpoint(tmp_path, GQA, tensors))
    expected = np.stack([tensors[f"model.layers.{layer}.mlp.down_proj.weight"] for layer in range(3)])
    np.testing.assert_array_equal(params["layers"]["feed_forward"]["down"]["kernel"], expected)


def test_a_base_checkpoint_without_its_prefix_is_read(tmp_path: pathlib.Path) -> None:
    attributes = VARIANTS["llama-3.2-tied"]
    tensors = tensors_of(attributes)
    _, whole = load_pretrained(write_checkpoint(tmp_path / "a", attributes, tensors))
    bare = {name.removeprefix("model."): value for name, value in tensors.items()}
    assert "norm.weight" in bare
    _, base = load_pretrained(write_checkpoint(tmp_path / "b", attributes, bare))
    assert jax.tree.all(jax.tree.map(lambda a, b: bool((a == b).all()), whole, base))


def test_rotary_tables_of_old_checkpoints_are_ignored(tmp_path: pathlib.Path) -> None:
    tables = {f"model.layers.{layer}.self_attn.rotary_emb.inv_freq": wave("x", (4,)) for layer in range(3)}
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA) | tables))
    save_pretrained(tmp_path / "b", config, params)
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), tensors_of(GQA))


def test_a_tied_head_may_be_in_the_file_and_none_is_written(tmp_path: pathlib.Path) -> None:
    attributes = VARIANTS["llama-3.2-tied"]
    tensors = tensors_of(attributes)
    both = tensors | {"lm_head.weight": tensors["model.embed_tokens.weight"]}
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", attributes, both))
    save_pretrained(tmp_path / "b", config, params)
    assert "lm_head.weight" not in load_file(tmp_path / "b" / "model.safetensors")
    assert "head" not in params


MESHES = [MeshConfig(data=2, fsdp=2, tensor=2), MeshConfig(fsdp=8), MeshConfig(tensor=4), MeshConfig(data=8)]


@pytest.mark.parametrize("mesh_config", MESHES, ids=str)
def test_each_device_of_a_mesh_gets_its_shard_and_no_more(tmp_path: pathlib.Path, mesh_config: MeshConfig) -> None:
    write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA))
    mesh = make_mesh(mesh_config)
    config, alone = load_pretrained(tmp_path / "a")
    _, params = load_pretrained(tmp_path / "a", mesh=mesh)
    wanted = by_path(param_shardings(alone, mesh))
    for path, leaf in by_path(params).items():
        whole = np.asarray(by_path(alone)[path])
        assert leaf.sharding == wanted[path], path
        for shard in leaf.addressable_shards:
            assert shard.data.shape == wanted[path].shard_shape(whole.shape)
            np.testing.assert_array_equal(shard.data, whole[shard.index])
    save_pretrained(tmp_path / "b", config, params)
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), tensors_of(GQA))


def test_large_models_are_written_in_shards_below_the_limit(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    save_pretrained(tmp_path / "b", config, params, max_shard_bytes=20_000)
    index = json.loads((tmp_path / "b" / "model.safetensors.index.json").read_text())
    files = sorted(path.name for path in (tmp_path / "b").glob("*.safetensors"))
    assert files == [f"model-{i:05d}-of-{len(files):05d}.safetensors" for i in range(1, len(files) + 1)]
    assert sorted(set(index["weight_map"].values())) == files
    found = {}
    for file in files:
        tensors = load_file(tmp_path / "b" / file)
        assert sum(value.nbytes for value in tensors.values()) <= 20_000
        assert all(index["weight_map"][name] == file for name in tensors)
        found.update(tensors)
    assert_same_bits(found, tensors_of(GQA))
    assert index["metadata"]["total_size"] == sum(value.nbytes for value in found.values())
    assert load_pretrained(tmp_path / "b")[0] == config


def test_every_file_says_that_it_is_in_torch_format(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    save_pretrained(tmp_path / "b", config, params)
    with safe_open(tmp_path / "b" / "model.safetensors", framework="np") as file:
        assert file.metadata() == {"format": "pt"}


def test_whoever_may_read_the_config_may_read_the_weights(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    save_pretrained(tmp_path / "out", config, params, scorer={"kernel": jnp.ones((1, 2))}, scorer_config={})
    modes = {path.name: path.stat().st_mode for path in (tmp_path / "out").iterdir()}
    assert set(modes.values()) == {modes["config.json"]}, modes
    umask = os.umask(0)
    os.umask(umask)
    assert modes["config.json"] & 0o777 == 0o666 & ~umask


def test_non_contiguous_parameters_are_written_in_the_right_order(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    strided = jax.tree.map(lambda leaf: np.asfortranarray(np.asarray(leaf)), params)
    save_pretrained(tmp_path / "b", config, strided)
    assert_same_bits(load_file(tmp_path / "b" / "model.safetensors"), tensors_of(GQA))


def test_tokenizer_files_and_token_ids_are_taken_over(tmp_path: pathlib.Path) -> None:
    attributes = GQA | {"bos_token_id": 7, "eos_token_id": [8, 9], "initializer_range": 0.5}
    write_checkpoint(tmp_path / "a", attributes, tensors_of(GQA))
    for name in ("tokenizer.json", "tokenizer_config.json", "README.md"):
        (tmp_path / "a" / name).write_text(name)
    config, params = load_pretrained(tmp_path / "a")
    save_pretrained(tmp_path / "b", config, params, tokenizer_dir=tmp_path / "a")
    assert (tmp_path / "b" / "tokenizer.json").read_text() == "tokenizer.json"
    assert not (tmp_path / "b" / "README.md").exists()
    assert load_config(tmp_path / "b")[1] == load_config(tmp_path / "a")[1]
    assert load_config(tmp_path / "b")[1]["eos_token_id"] == [8, 9]


def test_a_model_may_be_saved_over_the_one_it_came_from(tmp_path: pathlib.Path) -> None:
    write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA), num_shards=3)
    (tmp_path / "a" / "tokenizer.json").write_text("{}")
    config, params = load_pretrained(tmp_path / "a")
    save_pretrained(tmp_path / "a", config, params, tokenizer_dir=tmp_path / "a")
    assert sorted(path.name for path in (tmp_path / "a").iterdir()) == [
        "config.json",
        "integrity.json",
        "model.safetensors",
        "tokenizer.json",
    ]


def _no_space(*_: Any, **__: Any) -> None:
    raise OSError("no space left on device")


@pytest.mark.parametrize("existing", [False, True])
@pytest.mark.parametrize(
    ("module", "step"), [(writing, "write_safetensors"), (writing, "write_json"), (pretrained, "save_scorer")]
)
def test_a_failed_save_leaves_what_was_there(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch, existing: bool, module: Any, step: str
) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    if existing:
        save_pretrained(tmp_path / "b", config, params)
    before = {path.name: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()}
    monkeypatch.setattr(module, step, _no_space)
    with pytest.raises(OSError, match="no space"):
        save_pretrained(tmp_path / "b", config, params, scorer={"kernel": jnp.ones((3,))})
    assert {path.name: path.read_bytes() for path in sorted(tmp_path.rglob("*")) if path.is_file()} == before
    assert (tmp_path / "b").exists() == existing


def test_a_directory_that_is_no_model_is_not_replaced(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "thesis.tex").write_text("years of work")
    with pytest.raises(ValueError, match=r"b is there and holds no config\.json"):
        save_pretrained(tmp_path / "b", config, params)
    assert (tmp_path / "b" / "thesis.tex").read_text() == "years of work"


def test_values_too_large_for_half_precision_are_refused(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    params["norm"]["scale"] = params["norm"]["scale"] * 1e6
    with pytest.raises(ValueError, match=r"'model\.norm\.weight' holds .*float16"):
        save_pretrained(tmp_path / "b", config, params, dtype=jnp.float16)
    assert not (tmp_path / "b").exists()


@pytest.mark.parametrize(
    ("change", "part"),
    [
        (lambda params: params | {"hed": {"kernel": jnp.ones((97, 32))}}, "'hed/kernel'; did you mean 'head/kernel'"),
        (lambda params: {key: value for key, value in params.items() if key != "head"}, "'head/kernel' is missing"),
        (lambda params: params | {"norm": {"scale": jnp.ones((31,))}}, "has shape [31]; the config wants [32]"),
    ],
)
def test_parameters_of_another_config_are_refused(tmp_path: pathlib.Path, change: Any, part: str) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    with pytest.raises(ValueError) as caught:
        save_pretrained(tmp_path / "b", config, change(params))
    assert part in str(caught.value)
    assert not (tmp_path / "b").exists()


def test_a_scorer_comes_back_with_what_describes_it(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    scorer = {"head": {"kernel": jnp.arange(32.0).reshape(1, 32), "bias": jnp.zeros((1,), jnp.bfloat16)}}
    save_pretrained(tmp_path / "b", config, params, scorer=scorer, scorer_config={"name": "reward"})
    described, read = load_scorer(tmp_path / "b")
    assert described == {"name": "reward"}
    assert {path: (leaf.dtype, leaf.tolist()) for path, leaf in by_path(read).items()} == {
        path: (leaf.dtype, leaf.tolist()) for path, leaf in by_path(scorer).items()
    }
    assert load_pretrained(tmp_path / "b")[0] == config


def test_a_scorer_without_parameters_comes_back(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    save_pretrained(tmp_path / "b", config, params, scorer={}, scorer_config={"length_power": 1.0})
    assert load_scorer(tmp_path / "b") == ({"length_power": 1.0}, {})


def test_a_model_without_a_scorer_says_so(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    save_pretrained(tmp_path / "b", config, params)
    with pytest.raises(FileNotFoundError, match=r"jaxrefine_scorer\.safetensors"):
        load_scorer(tmp_path / "b")


def test_a_truncated_scorer_is_an_error_that_names_it(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "a", GQA, tensors_of(GQA)))
    save_pretrained(tmp_path / "b", config, params, scorer={"kernel": jnp.ones((64,))})
    file = tmp_path / "b" / "jaxrefine_scorer.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    with pytest.raises(ValueError, match=r"jaxrefine_scorer\.safetensors: no complete"):
        load_scorer(tmp_path / "b")
