"""Programs that compile for accelerators that are not here, in processes of their own; skips say what is missing."""

from __future__ import annotations

import importlib.util
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

_ROOT = pathlib.Path(__file__).resolve().parents[2]

TPUS = {"v5e": "v5e:2x2", "v5p": "v5p:2x2x1", "v6e": "v6e:2x2"}
"""Chip -> a topology of four of them."""

H100 = """
gpu_device_info {
  threads_per_block_limit: 1024 threads_per_warp: 32 shared_memory_per_block: 49152 shared_memory_per_core: 233472
  threads_per_core_limit: 2048 core_count: 132 fpus_per_core: 128 block_dim_limit_x: 2147483647
  block_dim_limit_y: 65535 block_dim_limit_z: 65535 memory_bandwidth: 3352320000000 l2_cache_size: 52428800
  clock_rate_ghz: 1.98 device_memory_size: 84929347584 shared_memory_per_block_optin: 232448
  cuda_compute_capability { major: 9 } registers_per_core_limit: 65536 registers_per_block_limit: 65536
}
platform_name: "CUDA" dnn_version_info { major: 9 minor: 10 } runtime_version { major: 12 minor: 9 patch: 0 }
device_description_str: "NVIDIA H100 80GB HBM3"
"""
"""What XLA asks about the GPU that it compiles for."""


def for_tpu(program: str, *arguments: Any) -> Any:
    """What a program prints last, as JSON: one that asks libtpu for a topology."""
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("no libtpu, the compiler for TPUs (pip install libtpu)")
    alone = {"JAX_PLATFORMS": "cpu", "TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1"}
    return _run(program, arguments, alone)


def for_gpu(program: str, *arguments: Any) -> Any:
    """The same for one that asks the CUDA plug-in."""
    if importlib.util.find_spec("jax_plugins") is None or importlib.util.find_spec("jax_plugins.xla_cuda12") is None:
        pytest.skip("no jax-cuda12-pjrt, the compiler for NVIDIA GPUs (pip install jax-cuda12-pjrt jax-cuda12-plugin)")
    unseen = {"JAX_PLATFORMS": "cpu,cuda", "CUDA_VISIBLE_DEVICES": "-1", "JAX_SKIP_CUDA_CONSTRAINTS_CHECK": "1"}
    return _run(program, arguments, unseen)


def _run(program: str, arguments: tuple[Any, ...], settings: dict[str, str]) -> Any:
    kept = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    finished = subprocess.run(
        [sys.executable, "-c", program, *map(str, arguments)],
        env=kept | settings | {"PYTHONPATH": str(_ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads(finished.stdout.splitlines()[-1])
