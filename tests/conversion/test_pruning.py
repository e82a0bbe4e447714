"""The first layers of a model are a model: its own config, its own weights, saved and loaded like any other."""

from __future__ import annotations

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from jaxrefine.conversion.apply import by_path
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.conversion.pruning import keep_layers, save_first_layers
from jaxrefine.data.tokenizer import load_tokenizer
from tests.evaluation.tiny_model import save_tiny_model


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> pathlib.Path:
    return save_tiny_model(tmp_path_factory.mktemp("whole"))


def test_what_is_kept_is_as_it_was(whole: pathlib.Path, tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(whole)
    kept = save_first_layers(whole, tmp_path / "kept", 1)
    found, smaller = load_pretrained(kept)
    assert found == dataclasses.replace(config, num_layers=1)
    leaves = by_path(params)
    for path, leaf in by_path(smaller).items():
        expected = leaves[path][:1] if path.startswith("layers") else leaves[path]
        np.testing.assert_array_equal(leaf, expected)
    assert load_tokenizer(kept).encode("1+1") == load_tokenizer(whole).encode("1+1")


def test_windows_of_layers_are_cut_with_them(whole: pathlib.Path) -> None:
    config, params = load_pretrained(whole)
    windowed = dataclasses.replace(config, window=4, window_layers=(True, False))
    found, smaller = keep_layers(windowed, params, 1)
    assert (found.num_layers, found.window_layers) == (1, (True,))
    assert {leaf.shape[0] for leaf in jax.tree.leaves(smaller["layers"])} == {1}


@pytest.mark.parametrize("number", [0, 3])
def test_layers_that_are_not_there_are_refused(whole: pathlib.Path, tmp_path: pathlib.Path, number: int) -> None:
    with pytest.raises(ValueError, match=f"layers = {number}: the model has 2; 1 to 2 are kept"):
        save_first_layers(whole, tmp_path / "kept", number)
    assert not (tmp_path / "kept").exists()
