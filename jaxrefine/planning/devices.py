"""Devices that are not there, as XLA's compilers describe them; ``sharding.make_mesh`` takes them."""

from __future__ import annotations

import contextlib
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
from jax.experimental import topologies

from jaxrefine.planning.topology import Topology, check_extra

_GPU = """
gpu_device_info {{
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: {bandwidth} l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: {memory} shared_memory_per_block_optin: 232448
  cuda_compute_capability {{ major: 9 }} registers_per_core_limit: 65536 registers_per_block_limit: 65536
}}
platform_name: "CUDA"
dnn_version_info {{ major: 9 minor: 10 }}
runtime_version {{ major: 12 minor: 9 patch: 0 }}
device_description_str: "{name}"
"""
"""What XLA reads of a Hopper GPU."""
_GPU_NAMES = {"h100": "NVIDIA H100 80GB HBM3", "h200": "NVIDIA H200"}


def absent_devices(topology: Topology) -> list[Any]:
    """Its devices, which compile but cannot compute.

    Raises:
        MissingExtraError: the compiler is not installed.
        ValueError: this jax cannot describe it, with the compiler's own words.
    """
    check_extra(topology.chip.platform)
    shape = "x".join(map(str, topology.shape))
    try:
        if topology.chip.platform == "tpu":
            found = topologies.get_topology_desc(f"{topology.chip.name}:{shape}", "tpu")
        else:
            config = _GPU.format(
                bandwidth=int(topology.chip.bandwidth), memory=topology.chip.memory_bytes,
                name=_GPU_NAMES[topology.chip.name],
            )  # fmt: skip
            found = topologies.get_topology_desc(platform="cuda", target_config=config, topology=f"1x{shape}")
    except (NotImplementedError, RuntimeError, TypeError) as error:
        raise ValueError(
            f"jax {jax.__version__} cannot describe {topology.name} ({topology.chip.name}, {shape}) without it: {error}"
        ) from error
    devices = list(found.devices)
    if len(devices) != topology.num_devices:
        raise ValueError(f"{topology.name}: {len(devices)} devices are described, {topology.num_devices} were expected")
    return devices


@contextlib.contextmanager
def program_text(topology: Topology) -> Iterator[tuple[dict[str, Any], Callable[[Any], str]]]:
    """Options to compile with, and the function that gives a compiled program's text while this is open.

    jaxlib 0.10.2 cannot read back the asynchronous loops of TPU programs, so their compiler writes the text itself.
    """
    if topology.chip.platform != "tpu":
        yield {}, lambda compiled: compiled.as_text()
        return
    with tempfile.TemporaryDirectory(prefix="jaxrefine-plan-") as name:
        directory = pathlib.Path(name)

        def text_of(compiled: Any) -> str:
            written = sorted(directory.glob("*after_optimizations.txt"), key=lambda path: path.stat().st_size)
            return written[-1].read_text() if written else str(compiled.as_text())

        yield {"xla_dump_to": name, "xla_dump_hlo_as_text": True}, text_of
