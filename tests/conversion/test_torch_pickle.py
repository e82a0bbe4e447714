"""The allow-listed unpickler: reads what torch writes, bit for bit, and runs nothing of what it should not."""

from __future__ import annotations

import os
import pathlib
import pickle
import struct
import zipfile
from typing import Any

import numpy as np
import pytest

from benchmarks.faults.hostile import Attack, pickles
from jaxrefine.conversion.torch_pickle import TorchFile
from tests.conversion.checkpoints import BFLOAT16, integers, tensor, text, wave, write_bin, write_pickle

WHOLE = (slice(None), slice(None))


@pytest.mark.parametrize("dtype", [np.float32, np.float16, BFLOAT16, np.float64])
def test_values_are_read_bit_for_bit(tmp_path: pathlib.Path, dtype: Any) -> None:
    value = wave("a", (5, 7), dtype)
    write_bin(tmp_path / "a.bin", {"first": wave("b", (3,)), "a": value})
    read = TorchFile(tmp_path / "a.bin").read("a", WHOLE)
    assert read.dtype == value.dtype
    assert read.tobytes() == value.tobytes()


def test_a_slice_reads_that_part(tmp_path: pathlib.Path) -> None:
    value = wave("a", (5, 7))
    write_bin(tmp_path / "a.bin", {"a": value})
    np.testing.assert_array_equal(TorchFile(tmp_path / "a.bin").read("a", (slice(1, 3), slice(2, 6))), value[1:3, 2:6])


def test_a_transposed_tensor_keeps_its_meaning(tmp_path: pathlib.Path) -> None:
    value = wave("a", (5, 7))
    write_bin(tmp_path / "a.bin", {"a": value.T})
    np.testing.assert_array_equal(TorchFile(tmp_path / "a.bin").read("a", WHOLE), value.T)


def test_two_tensors_may_share_a_storage(tmp_path: pathlib.Path) -> None:
    program = b"\x80\x02}(" + text("a") + tensor("0", "Float", 6, 0, (2,), (1,))
    program += text("b") + tensor("0", "Float", 6, 2, (2, 2), (2, 1)) + b"u."
    write_pickle(tmp_path / "a.bin", program, [np.arange(6, dtype=np.float32).tobytes()])
    file = TorchFile(tmp_path / "a.bin")
    np.testing.assert_array_equal(file.read("a", (slice(None),)), [0, 1])
    np.testing.assert_array_equal(file.read("b", WHOLE), [[2, 3], [4, 5]])


def test_an_empty_tensor_is_read(tmp_path: pathlib.Path) -> None:
    write_bin(tmp_path / "a.bin", {"a": np.zeros((0, 4), np.float32)})
    assert TorchFile(tmp_path / "a.bin").read("a", WHOLE).shape == (0, 4)


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64", "int64", "bool"])
def test_files_of_torch_are_read_bit_for_bit(tmp_path: pathlib.Path, dtype: str) -> None:
    import torch

    value = (torch.arange(24).reshape(4, 6) % 7).to(getattr(torch, dtype))
    state = torch.nn.Linear(2, 3).state_dict()  # carries _metadata, which the pickle sets by BUILD
    state.update({"whole": value, "transposed": value.T, "part": value[1:, 2:]})
    torch.save(state, tmp_path / "a.bin")
    file = TorchFile(tmp_path / "a.bin")
    for name, expected in state.items():
        read = file.read(name, (slice(None),) * expected.ndim)
        assert read.dtype.name == str(expected.dtype).removeprefix("torch.")
        np.testing.assert_array_equal(read.astype(np.float64), expected.double().numpy())


def test_the_attacks_would_work_on_a_plain_unpickler(tmp_path: pathlib.Path) -> None:
    marker = tmp_path / "was-run"
    pickle.loads(pickles(marker)["os.system, protocol 2"][0])
    assert marker.exists()


_ONE = tensor("0", "Float", 4, 0, (4,), (1,))
BROKEN: dict[str, tuple[bytes, str]] = {
    "past the end of its storage": (tensor("0", "Float", 4, 1, (4,), (1,)), "storage of 4 elements"),
    "strides past the end": (tensor("0", "Float", 4, 0, (2, 2), (3, 1)), "storage of 4 elements"),
    "a negative stride": (tensor("0", "Float", 4, 3, (4,), (-1,)), "stride (-1,)"),
    "a negative offset": (tensor("0", "Float", 4, -2, (4,), (1,)), "offset -2"),
    "fewer strides than axes": (tensor("0", "Float", 4, 0, (2, 2), (1,)), "broken"),
    "a storage longer than its bytes": (tensor("0", "Float", 5, 0, (4,), (1,)), "has 16 bytes"),
    "a storage that is not there": (tensor("7", "Float", 4, 0, (4,), (1,)), "'7'"),
    "state that alters a tensor": (_ONE + b"}" + text("offset") + b"J\x10\x00\x00\x00sb", "broken"),
    "state that alters a storage type": (b"ctorch\nFloatStorage\n}" + text("name") + text("x") + b"sb", "broken"),
    "state that alters a slot": (_ONE + b"N}" + text("_fields") + b"Ns\x86b", "broken"),
    "an entry that is no tensor": (b"K\x01", "'a' is a int"),
    "a nested state dict": (b"}", "'a' is a dict"),
    "a storage in place of a tensor": (b"(" + text("storage") + text("x") + text("0") + text("cpu") + b"K\x04tQ", "x"),
    "a huge memo": (b"Nr" + struct.pack("<I", 2**31), "memo"),
    "a program without an end": (b"((((", "broken"),
}


@pytest.mark.parametrize("which", BROKEN)
def test_a_broken_program_is_an_error_that_names_the_file(tmp_path: pathlib.Path, which: str) -> None:
    body, pattern = BROKEN[which]
    program = b"\x80\x02}(" + text("a") + body + b"u."
    write_pickle(tmp_path / "a.bin", program, [bytes(16)])
    with pytest.raises(ValueError) as caught:
        TorchFile(tmp_path / "a.bin")
    assert str(tmp_path / "a.bin") in str(caught.value)
    assert pattern in str(caught.value)


def test_a_state_that_is_no_dict_is_an_error(tmp_path: pathlib.Path) -> None:
    write_pickle(tmp_path / "a.bin", b"\x80\x02" + integers((1, 2)) + b".", [])
    with pytest.raises(ValueError, match="holds a tuple"):
        TorchFile(tmp_path / "a.bin")


@pytest.mark.parametrize("kept", [0.2, 0.9, 0.999])
def test_a_truncated_file_is_an_error_that_names_it(tmp_path: pathlib.Path, kept: float) -> None:
    write_bin(tmp_path / "a.bin", {"a": wave("a", (50, 70))})
    content = (tmp_path / "a.bin").read_bytes()
    (tmp_path / "a.bin").write_bytes(content[: int(len(content) * kept)])
    with pytest.raises(ValueError, match=r"a\.bin: not a complete zip file"):
        TorchFile(tmp_path / "a.bin")


def test_a_plain_pickle_of_old_torch_is_refused_unread(tmp_path: pathlib.Path) -> None:
    marker = tmp_path / "was-run"
    (tmp_path / "a.bin").write_bytes(pickle.dumps(Attack(os.system, f"touch {marker}")))
    with pytest.raises(ValueError, match=r"a\.bin: not a complete zip file.*PyTorch before 1\.6"):
        TorchFile(tmp_path / "a.bin")
    assert not marker.exists()


def test_compressed_storages_are_refused(tmp_path: pathlib.Path) -> None:
    write_bin(tmp_path / "a.bin", {"a": wave("a", (5, 7))}, compression=zipfile.ZIP_DEFLATED)
    with pytest.raises(ValueError, match="compressed"):
        TorchFile(tmp_path / "a.bin")


def test_big_endian_storages_are_refused(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.bin", "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}.")
        archive.writestr("archive/byteorder", "big")
    with pytest.raises(ValueError, match="byte order is b'big'"):
        TorchFile(tmp_path / "a.bin")


def test_a_zip_without_a_pickle_is_an_error(tmp_path: pathlib.Path) -> None:
    with zipfile.ZipFile(tmp_path / "a.bin", "w") as archive:
        archive.writestr("x", b"")
    with pytest.raises(ValueError, match="0 members data.pkl"):
        TorchFile(tmp_path / "a.bin")
