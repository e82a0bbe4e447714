"""Weight rules applied: which parts of a file are read, how transforms go both ways."""

from __future__ import annotations

import pathlib
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxrefine.conversion.apply import read_parameter
from jaxrefine.conversion.exporting import export
from jaxrefine.conversion.tensors import Tensor
from jaxrefine.models.families.llama import WEIGHTS
from jaxrefine.models.weights import TRANSPOSE, Rule
from jaxrefine.sharding import MeshConfig, make_mesh
from tests.conversion.checkpoints import wave

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


def test_exported_tensors_are_written_as_floats_only() -> None:
    with pytest.raises(ValueError, match=r"'model\.norm\.weight' is to be written as int32; allowed: float32"):
        list(export(WEIGHTS, {"norm/scale": jnp.ones((3,), jnp.int32)}, None, "llama"))


def test_a_parameter_without_a_rule_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="'norm/scal'; did you mean 'norm/scale'"):
        list(export(WEIGHTS, {"norm/scal": jnp.ones((3,))}, None, "llama"))


def test_rounding_to_half_precision_is_that_of_the_device() -> None:
    value = jax.random.normal(jax.random.key(0), (1000,))
    (_, written), *_ = export(WEIGHTS, {"norm/scale": value}, jnp.bfloat16, "llama")
    np.testing.assert_array_equal(written, value.astype(jnp.bfloat16))
