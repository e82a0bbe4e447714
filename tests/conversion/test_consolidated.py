"""Meta's own LLaMA files against the same model in Hugging Face's layout: the same parameters, bit for bit."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from jaxrefine.conversion.apply import by_path
from jaxrefine.conversion.consolidated import load_consolidated
from jaxrefine.conversion.pretrained import load_pretrained
from tests.conversion.checkpoints import VARIANTS, tensors_of, wave, write_bin, write_checkpoint

GQA = VARIANTS["llama-2-gqa"] | {"vocab_size": 96}  # which two shards can share
NAMES = {
    "self_attn.q_proj": ("attention.wq", 0),
    "self_attn.k_proj": ("attention.wk", 0),
    "self_attn.v_proj": ("attention.wv", 0),
    "self_attn.o_proj": ("attention.wo", 1),
    "mlp.gate_proj": ("feed_forward.w1", 0),
    "mlp.down_proj": ("feed_forward.w2", 1),
    "mlp.up_proj": ("feed_forward.w3", 0),
    "input_layernorm": ("attention_norm", None),
    "post_attention_layernorm": ("ffn_norm", None),
    "model.norm": ("norm", None),
    "lm_head": ("output", 0),
}


def neighbours(kernel: np.ndarray, heads: int) -> np.ndarray:
    """Hugging Face's rows of a head [first half, second half] as Meta's [pair, pair, …]."""
    width = len(kernel) // heads
    order = [
        head * width + half * width // 2 + i for head in range(heads) for i in range(width // 2) for half in (0, 1)
    ]
    return kernel[order]


def write_shards(directory: pathlib.Path, num_shards: int, embed_axis: int, **params: Any) -> dict[str, np.ndarray]:
    """A model in both layouts; returns Hugging Face's tensors."""
    tensors = tensors_of(GQA)
    write_checkpoint(directory / "hf", GQA, tensors)
    meta: dict[str, tuple[np.ndarray, int | None]] = {
        "tok_embeddings.weight": (tensors["model.embed_tokens.weight"], embed_axis),
        "rope.freqs": (wave("freqs", (4,)), None),
    }
    for name, value in tensors.items():
        for theirs, (ours, axis) in NAMES.items():
            if name.endswith(f"{theirs}.weight"):
                heads = {"attention.wq": 4, "attention.wk": 2}.get(ours)
                layer = f"layers.{name.split('.')[2]}." if "layers." in name else ""
                meta[f"{layer}{ours}.weight"] = (neighbours(value, heads) if heads else value, axis)
    (directory / "meta").mkdir()
    for shard in range(num_shards):
        write_bin(
            directory / "meta" / f"consolidated.{shard:02d}.pth",
            {
                name: value if axis is None else np.ascontiguousarray(np.split(value, num_shards, axis)[shard])
                for name, (value, axis) in meta.items()
            },
        )
    given = {"dim": 32, "n_layers": 3, "n_heads": 4, "n_kv_heads": 2, "vocab_size": -1, "multiple_of": 4} | params
    given.setdefault("norm_eps", 1e-5)
    (directory / "meta" / "params.json").write_text(json.dumps(given))
    return tensors


@pytest.mark.parametrize(("num_shards", "embed_axis"), [(1, 1), (2, 1), (2, 0)])
def test_the_parameters_are_those_of_hugging_faces_layout(
    tmp_path: pathlib.Path, num_shards: int, embed_axis: int
) -> None:
    write_shards(tmp_path, num_shards, embed_axis)
    config, params = load_consolidated(tmp_path / "meta", max_positions=64)
    expected, whole = load_pretrained(tmp_path / "hf")
    assert config == expected
    leaves = by_path(whole)
    for path, leaf in by_path(params).items():
        np.testing.assert_array_equal(leaf, leaves[path], path)


@pytest.mark.parametrize(
    ("params", "positions", "factor"),
    [
        ({"norm_eps": 1e-6}, 2048, None),
        ({}, 4096, None),
        ({"rope_theta": 5e5}, 8192, None),
        ({"rope_theta": 5e5, "use_scaled_rope": True}, 131_072, 32.0),
        ({"rope_theta": 5e5, "use_scaled_rope": True, "rope_scaling_factor": 8.0}, 131_072, 8.0),
    ],
)
def test_what_no_file_tells_is_that_of_the_release(
    tmp_path: pathlib.Path, params: dict[str, Any], positions: int, factor: float | None
) -> None:
    write_shards(tmp_path, 1, 1, **params)
    config, _ = load_consolidated(tmp_path / "meta")
    assert config.max_positions == positions
    assert (config.rope_scaling.factor if config.rope_scaling else None) == factor


def _drop(name: str) -> Any:
    return lambda directory: (directory / name).unlink()


def _params(**changed: Any) -> Any:
    def change(directory: pathlib.Path) -> None:
        content = json.loads((directory / "params.json").read_text())
        (directory / "params.json").write_text(json.dumps(content | changed))

    return change


def _second(**tensors: np.ndarray) -> Any:
    return lambda directory: write_bin(directory / "consolidated.01.pth", tensors)


WRONG: dict[str, tuple[Any, tuple[str, ...]]] = {
    "no params.json": (_drop("params.json"), ("params.json: no such file",)),
    "a shard missing": (_drop("consolidated.00.pth"), ("shards must be consolidated.00.pth", "consolidated.01.pth")),
    "an unknown key": (_params(n_head=4), ("'n_head'", "did you mean 'n_heads'")),
    "another vocabulary": (_params(vocab_size=5), ("vocab_size is 5", "96 rows")),
    "heads that do not divide": (_params(n_heads=5), ("dim is 32, n_heads is 5",)),
    "key heads that do not divide": (_params(n_kv_heads=3), ("wk.weight'", "not 3 heads")),
    "shards of two models": (_second(**{"norm.weight": np.ones(32, np.float32)}), ("is in one shard only",)),
    "a layer too few": (_params(n_layers=4), ("'model.layers.3.", "missing")),
}


@pytest.mark.parametrize("which", WRONG)
def test_what_does_not_belong_together_is_an_error_that_names_it(tmp_path: pathlib.Path, which: str) -> None:
    write_shards(tmp_path, 2, 1)
    change, parts = WRONG[which]
    change(tmp_path / "meta")
    with pytest.raises((ValueError, FileNotFoundError)) as caught:
        load_consolidated(tmp_path / "meta")
    for part in (str(tmp_path), *parts):
        assert part in str(caught.value)
