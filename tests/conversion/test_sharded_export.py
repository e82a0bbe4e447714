"""A model that lies on many devices is written without ever being in one place: on eight devices, in two processes."""

from __future__ import annotations

import os
import subprocess
import sys
import tracemalloc
from pathlib import Path

import jax
import numpy as np
import pytest

from jaxrefine.conversion import exporting
from jaxrefine.conversion.apply import nested
from jaxrefine.conversion.exporting import export, fetched
from jaxrefine.conversion.pretrained import save_pretrained
from jaxrefine.models.weights import Part, Rule
from jaxrefine.sharding import MeshConfig, make_mesh
from tests.conversion.export_run import CONFIG, SHARD_BYTES, placed, values
from tests.training.test_processes import end, free_port

SCRIPT = Path(__file__).with_name("export_run.py")
CUBE = MeshConfig(data=2, fsdp=2, tensor=2)
PATH = "layers/attention/out/kernel"


def contents(directory):
    return {path.name: path.read_bytes() for path in directory.iterdir()}


@pytest.fixture(scope="module")
def on_the_host(tmp_path_factory):
    """What one process with the parameters in NumPy writes: in several files, and in one."""
    directory = tmp_path_factory.mktemp("written")
    save_pretrained(directory / "model", CONFIG, nested(values()), max_shard_bytes=SHARD_BYTES)
    save_pretrained(directory / "whole", CONFIG, nested(values()))
    return directory


@pytest.mark.parametrize("gathered_bytes", [1 << 28, 300])
def test_a_model_on_eight_devices_is_written_to_the_same_bytes(tmp_path, on_the_host, monkeypatch, gathered_bytes):
    monkeypatch.setattr(exporting, "_GATHERED_BYTES", gathered_bytes)
    save_pretrained(tmp_path / "model", CONFIG, placed(values(), make_mesh(CUBE)), max_shard_bytes=SHARD_BYTES)
    found = contents(tmp_path / "model")
    assert sum(name.endswith(".safetensors") for name in found) > 3
    assert found == contents(on_the_host / "model")


@pytest.mark.parametrize("place", [(), (1,), (1, 2)])
@pytest.mark.parametrize("where", ["eight devices", "one device", "the host"])
def test_a_layer_is_fetched_from_wherever_it_is(place, where):
    whole = np.arange(48.0, dtype=np.float32).reshape(2, 4, 6)
    leaf = {
        "eight devices": placed({PATH: whole}, make_mesh(CUBE))["layers"]["attention"]["out"]["kernel"],
        "one device": jax.device_put(whole, jax.devices()[0]),
        "the host": whole,
    }[where]
    np.testing.assert_array_equal(fetched(leaf, place), whole[place])
    assert fetched(leaf, place, keep=False) is None


def test_only_a_layer_or_two_of_a_stacked_parameter_are_on_the_host():
    layers, layer_bytes = 24, 128 * 128 * 4
    kernel = np.ones((layers, 128, 128), np.float32)
    rules = (Rule("layers.{layer}.up.weight", "layers/feed_forward/up/kernel"),)
    leaf = placed({"layers/feed_forward/up/kernel": kernel}, make_mesh(CUBE))["layers"]["feed_forward"]["up"]["kernel"]

    def read():
        return sum(float(value[0, 0]) for _, value in export(rules, {rules[0].ours: leaf}, None, "made up"))

    assert read() == layers  # compiled now
    tracemalloc.start()
    try:
        read()
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # the layer as it was fetched, as it is written, and the one before it until it is let go
    assert peak < 4.5 * layer_bytes


def test_parameters_that_share_a_tensor_are_put_together_a_layer_at_a_time():
    query, key = (np.arange(64, dtype=np.float32).reshape(2, 4, 8) + start for start in (0, 100))
    rules = tuple(
        Rule(
            "h.{layer}.qk", f"layers/attention/{name}/kernel", part=Part(groups=2, size=4, start=start, stop=start + 2)
        )
        for name, start in (("query", 0), ("key", 2))
    )
    tree = placed({rules[0].ours: query, rules[1].ours: key}, make_mesh(CUBE))["layers"]["attention"]
    found = dict(export(rules, {rule.ours: tree[rule.ours.split("/")[2]]["kernel"] for rule in rules}, None, "made up"))
    assert list(found) == ["h.0.qk", "h.1.qk"]
    for layer in range(2):
        rows = [query[layer, :2], key[layer, :2], query[layer, 2:], key[layer, 2:]]
        np.testing.assert_array_equal(found[f"h.{layer}.qk"], np.concatenate(rows))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_write_some_of_the_files_each_and_the_same_bytes(tmp_path, on_the_host):
    flags = [flag for flag in os.environ["XLA_FLAGS"].split() if "device_count" not in flag]
    environment = os.environ | {"XLA_FLAGS": " ".join([*flags, "--xla_force_host_platform_device_count=2"])}
    port = str(free_port())
    end(
        [
            subprocess.Popen(
                [sys.executable, str(SCRIPT), str(tmp_path), str(index), "2", port],
                env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
            )
            for index in range(2)
        ],
        0,
    )  # fmt: skip
    for name in ("model", "whole"):
        assert contents(tmp_path / name) == contents(on_the_host / name)
    # A value that float16 cannot hold is in a file of one of them: both stop, and nothing is left.
    told = [(tmp_path / f"{index}.txt").read_text() for index in range(2)]
    assert any("float16 can" in text for text in told)
    assert all("float16 can" in text or "it says why" in text for text in told)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["0.txt", "1.txt", "model", "whole"]
