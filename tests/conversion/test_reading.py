"""Parameters read from tensors: which parts of a file are read, where they go, what is cast on the way."""

from __future__ import annotations

import os
import pathlib
from collections.abc import Callable
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrefine.conversion import reading
from jaxrefine.conversion.exporting import export
from jaxrefine.conversion.reading import fill, read_parameter
from jaxrefine.conversion.tensors import Tensor, open_checkpoint
from jaxrefine.models.weights import TRANSPOSE, Part, Rule
from jaxrefine.sharding import MeshConfig, make_mesh
from tests.conversion.checkpoints import BFLOAT16, wave, write_bin, write_safetensors

L, OUT, IN = 3, 8, 16
STACKED = Rule("layers.{layer}.weight", "layers/kernel")


def recorded(values: np.ndarray) -> tuple[list[Tensor], list[int]]:
    """One tensor a layer that notes how many elements each reading takes."""
    sizes: list[int] = []

    def reader(value: np.ndarray) -> Callable[[tuple[slice, ...]], np.ndarray]:
        def read(slices: tuple[slice, ...]) -> np.ndarray:
            part = value[slices]
            sizes.append(part.size)
            return part

        return read

    return [
        Tensor(f"layers.{i}.weight", pathlib.Path("x"), value.dtype.name, value.shape, reader(value))
        for i, value in enumerate(values)
    ], sizes


@pytest.mark.parametrize(
    ("spec", "share"),
    [
        (P(), 1),
        (P(None, "fsdp"), 8),
        (P(None, None, "fsdp"), 8),
    ],
)
def test_only_what_the_devices_hold_is_read_and_each_part_once(spec: P, share: int) -> None:
    values = wave("a", (L, OUT, IN))
    tensors, sizes = recorded(values)
    sharding = NamedSharding(make_mesh(MeshConfig(fsdp=8)), spec)
    array = read_parameter(tensors, STACKED, values.shape, None, sharding)
    np.testing.assert_array_equal(array, values)
    assert max(sizes) == OUT * IN // share
    assert sum(sizes) == values.size


def test_a_transform_is_undone_by_its_other_half() -> None:
    values = wave("a", (L, OUT, IN))
    rule = Rule("layers.{layer}.weight", "layers/kernel", TRANSPOSE)
    tensors, _ = recorded(values)
    sharding = NamedSharding(make_mesh(MeshConfig(fsdp=8)), P(None, "fsdp"))
    array = read_parameter(tensors, rule, (L, IN, OUT), None, sharding)
    np.testing.assert_array_equal(array, values.swapaxes(1, 2))
    exported = dict(export((rule,), {"layers/kernel": array}, None, "x"))
    assert sorted(exported) == [f"layers.{i}.weight" for i in range(L)]
    for i, value in enumerate(exported[f"layers.{i}.weight"] for i in range(L)):
        assert value.flags.c_contiguous
        np.testing.assert_array_equal(value, values[i])


def test_layers_of_several_dtypes_need_one_that_is_given() -> None:
    tensors, _ = recorded(wave("a", (2, OUT, IN)))
    half, _ = recorded(wave("b", (1, OUT, IN), np.float16))
    mixed = [*tensors, *half]
    with pytest.raises(ValueError, match="dtypes float16, float32; give one"):
        read_parameter(mixed, STACKED, (3, OUT, IN), None, None)
    assert read_parameter(mixed, STACKED, (3, OUT, IN), jnp.float32, None).dtype == jnp.float32


WRITERS = {"model.safetensors": write_safetensors, "pytorch_model.bin": write_bin}
PARTS = Part(groups=2, size=8, start=3, stop=5)
RULES: dict[str, tuple[Rule, Callable[[np.ndarray], np.ndarray]]] = {
    "stacked": (STACKED, lambda values: values),
    "transposed": (Rule(STACKED.theirs, STACKED.ours, TRANSPOSE), lambda values: values.swapaxes(1, 2)),
    "rows of several": (Rule(STACKED.theirs, STACKED.ours, part=PARTS), lambda values: values[:, [3, 4, 11, 12]]),
    "columns of several": (
        Rule(STACKED.theirs, STACKED.ours, part=Part(groups=2, size=7, start=0, stop=3, axis=1)),
        lambda values: values[:, :, [0, 1, 2, 7, 8, 9]],
    ),
    "columns of several, transposed": (
        Rule(STACKED.theirs, STACKED.ours, TRANSPOSE, Part(groups=2, size=7, start=0, stop=3, axis=1)),
        lambda values: values[:, :, [0, 1, 2, 7, 8, 9]].swapaxes(1, 2),
    ),
}


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Three threads, chunks of 24 bytes, casts of 8, squares of 5: every boundary falls inside a small tensor."""
    for name, value in {"_CHUNK_BYTES": 24, "_CAST_BYTES": 8, "_SQUARE": 5}.items():
        monkeypatch.setattr(reading, name, value)
    monkeypatch.setattr(reading, "num_threads", lambda: 3)


@pytest.mark.usefixtures("small_pieces")
@pytest.mark.parametrize("file", WRITERS)
@pytest.mark.parametrize("which", RULES)
@pytest.mark.parametrize("spec", [None, P("fsdp"), P(None, "fsdp"), P(None, None, "fsdp")])
@pytest.mark.parametrize(
    ("stored", "wanted"), [(np.float32, np.float32), (np.float32, BFLOAT16), (BFLOAT16, np.float32)]
)
def test_chunks_squares_and_threads_put_every_value_where_it_belongs(
    tmp_path: pathlib.Path, file: str, which: str, spec: Any, stored: Any, wanted: Any
) -> None:
    values = wave("a", (2, 16, 14), stored)
    WRITERS[file](tmp_path / file, {f"layers.{i}.weight": value for i, value in enumerate(values)})
    rule, ours = RULES[which]
    expected = ours(values).astype(wanted)
    sharding = None if spec is None else NamedSharding(make_mesh(MeshConfig(data=4, fsdp=2)), spec)
    with open_checkpoint(tmp_path) as tensors:
        read = read_parameter([tensors[f"layers.{i}.weight"] for i in range(2)], rule, expected.shape, wanted, sharding)
    assert np.asarray(read).tobytes() == expected.tobytes()


@pytest.mark.usefixtures("small_pieces")
def test_tensors_that_do_not_lie_in_order_are_read_through_their_strides(tmp_path: pathlib.Path) -> None:
    values = wave("a", (6, 4))
    write_bin(tmp_path / "pytorch_model.bin", {"x": np.asfortranarray(values)})
    with open_checkpoint(tmp_path) as tensors:
        assert tensors["x"].start is None
        read = read_parameter([tensors["x"]], Rule("x", "x"), (6, 4), None, None)
    np.testing.assert_array_equal(read, values)


def test_weights_do_not_change_with_their_file(tmp_path: pathlib.Path) -> None:
    values = wave("a", (64, 64))
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"x": values})
    with open_checkpoint(tmp_path) as tensors:
        read = read_parameter([tensors["x"]], Rule("x", "x"), values.shape, None, None)
    with open(path, "r+b") as file:
        file.seek(-values.nbytes, os.SEEK_END)
        file.write(bytes(values.nbytes))
    np.testing.assert_array_equal(read, values)


@pytest.mark.usefixtures("small_pieces")
def test_a_file_that_shrinks_while_it_is_read_is_an_error_that_names_it(tmp_path: pathlib.Path) -> None:
    path = tmp_path / "model.safetensors"
    write_safetensors(path, {"x": wave("a", (64, 64))})
    with open_checkpoint(tmp_path) as tensors:
        os.truncate(path, path.stat().st_size - 1)
        with pytest.raises(ValueError, match=r"model\.safetensors: truncated while it was read"):
            read_parameter([tensors["x"]], Rule("x", "x"), (64, 64), None, None)


@pytest.mark.parametrize("shape", [(700, 300), (1, 1), (3, 0), (256, 257)])
def test_transposed_matrices_are_filled_like_any_other(shape: tuple[int, int]) -> None:
    values = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
    room = np.full(shape[::-1], -1, np.float32)
    fill(room, values.T)
    np.testing.assert_array_equal(room, values.T)
