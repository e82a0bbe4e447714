"""State dicts written without torch: bit-equal for our reader and for torch, whole or not there."""

from __future__ import annotations

import pathlib
from collections.abc import Iterator

import ml_dtypes
import numpy as np
import pytest

from jaxrefine.conversion.torch_pickle import TorchFile
from jaxrefine.conversion.torch_writing import write_state_dict

_VALUES = np.random.default_rng(0).normal(size=(3, 4, 5))
TENSORS: dict[str, np.ndarray] = {
    "a matrix": _VALUES[0].astype(np.float32),
    "of bfloat16": _VALUES.astype(ml_dtypes.bfloat16),
    "of float16": _VALUES[1].astype(np.float16),
    "transposed": _VALUES[2].astype(np.float32).T,
    "one axis": np.arange(7, dtype=np.int64),
    "no axis": np.float32(3.5).reshape(()),
    "empty": np.zeros((0, 4), np.float32),
}


def test_our_reader_reads_the_same_bits(tmp_path: pathlib.Path) -> None:
    file = TorchFile(write_state_dict(tmp_path / "new" / "x.pt", TENSORS.items()))
    assert list(file.tensors) == list(TENSORS)
    for name, value in ((name, value) for name, value in TENSORS.items() if value.ndim):
        read = file.read(name, (slice(None),) * value.ndim)
        assert (read.dtype, read.shape, read.tobytes()) == (value.dtype, value.shape, value.tobytes()), name


@pytest.mark.torch
def test_torch_reads_the_same_bits_without_running_anything(tmp_path: pathlib.Path) -> None:
    import torch

    state = torch.load(write_state_dict(tmp_path / "x.pt", TENSORS.items()), weights_only=True)
    assert list(state) == list(TENSORS)
    for name, value in TENSORS.items():
        read = state[name]
        assert tuple(read.shape) == value.shape
        assert read.is_contiguous()
        if value.dtype != ml_dtypes.bfloat16:
            assert read.numpy().dtype == value.dtype
        assert read.view(torch.uint8).numpy().tobytes() == value.tobytes() if value.ndim else read.item() == 3.5


def test_each_tensor_is_written_before_the_next_is_asked_for(tmp_path: pathlib.Path) -> None:
    alive = 0

    class Counted(np.ndarray):
        def __del__(self) -> None:
            nonlocal alive
            alive -= 1

    def tensors() -> Iterator[tuple[str, np.ndarray]]:
        nonlocal alive
        for i in range(5):
            assert alive <= 1
            value = np.ones((2, 2), np.float32).view(Counted)
            alive += 1
            yield str(i), value
            del value

    write_state_dict(tmp_path / "x.pt", tensors())


@pytest.mark.parametrize(
    ("tensors", "part"),
    [
        ([("a", np.zeros(2, np.complex64))], "tensor 'a' has dtype complex64; allowed: float32"),
        ([("a", np.zeros(2)), ("a", np.zeros(2))], "tensor 'a' comes twice"),
    ],
)
def test_what_cannot_be_written_leaves_the_old_file(
    tmp_path: pathlib.Path, tensors: list[tuple[str, np.ndarray]], part: str
) -> None:
    (tmp_path / "x.pt").write_text("old")
    with pytest.raises(ValueError, match=part):
        write_state_dict(tmp_path / "x.pt", tensors)
    assert [path.name for path in tmp_path.iterdir()] == ["x.pt"]
    assert (tmp_path / "x.pt").read_text() == "old"
