"""Seconds and memory to load a checkpoint onto the devices, against reading its bytes.

    python benchmarks/bench_loading.py --megabytes 256 --layout safetensors --dtype bfloat16 --repeats 5

Writes a synthetic LLaMA of about that size to a temporary directory, then prints one JSON line. Every load runs in a
process of its own, so that its peak of resident memory is that of one load. ``raw_seconds`` is reading the files' bytes
into one reused buffer; both find the files in the page cache. ``trace_seconds`` is what the shapes of a model cost the
first time in a process; ``seconds`` is a load after that, ``cpu_seconds`` its processor time (they differ on a busy
machine). ``staging`` is the peak above the memory before the load, minus the parameters where devices share the host's
memory (CPU), over the largest stacked parameter.
"""

from __future__ import annotations

import argparse
import json
import math
import pathlib
import resource
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.conversion.apply import abstract_params, by_path, nested
from jaxrefine.conversion.pretrained import load_config, load_pretrained, save_pretrained
from jaxrefine.models.config import TransformerConfig
from jaxrefine.sharding import MeshConfig, make_mesh

_VOCAB, _LAYERS = 8192, 12


def config_of(megabytes: float, itemsize: int) -> TransformerConfig:
    """A LLaMA with about that many bytes: twelve layers of 12·D² and two tables of V·D."""
    wanted = megabytes * 2**20 / itemsize
    width = (math.sqrt(_VOCAB**2 + 12 * _LAYERS * wanted) - _VOCAB) / (12 * _LAYERS)
    heads = max(1, round(width / 64))
    return TransformerConfig(
        vocab_size=_VOCAB,
        width=64 * heads,
        num_layers=_LAYERS,
        num_heads=heads,
        num_kv_heads=heads,
        head_width=64,
        hidden_width=64 * round(64 * heads * 8 / 3 / 64),
    )


def write(directory: pathlib.Path, config: TransformerConfig, dtype: str, layout: str) -> None:
    """A checkpoint of noise."""
    draw = np.random.default_rng(0)
    shapes = by_path(abstract_params(config))
    params = {
        path: draw.standard_normal(leaf.shape, np.float32).astype(jnp.dtype(dtype)) for path, leaf in shapes.items()
    }
    shard = sum(leaf.nbytes for leaf in params.values()) // 4 if layout == "sharded" else 2**62
    save_pretrained(directory, config, nested(params), max_shard_bytes=shard)


def raw_seconds(directory: pathlib.Path) -> float:
    """Reading all bytes of the weights."""
    buffer = bytearray(1 << 24)
    start = time.perf_counter()
    for path in sorted(directory.glob("*.safetensors")):
        with open(path, "rb", buffering=0) as file:
            while file.readinto(buffer):
                pass
    return time.perf_counter() - start


class PeakMemory(threading.Thread):
    """The largest resident anonymous memory of this process, sampled every 2 ms; pages of mapped files do not count."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.before = self.peak = anonymous_bytes()
        self._finished = threading.Event()

    def run(self) -> None:
        """Samples until ``finish``."""
        while not self._finished.wait(0.002):
            self.peak = max(self.peak, anonymous_bytes())

    def finish(self) -> int:
        """Bytes above those at the start."""
        self._finished.set()
        self.join()
        return max(self.peak, anonymous_bytes()) - self.before


def anonymous_bytes() -> int:
    """Resident memory that no file backs; where the system does not tell it, the peak of all resident memory."""
    try:
        status = pathlib.Path("/proc/self/status").read_text()
    except OSError:
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    return int(status.partition("RssAnon:")[2].split()[0]) * 1024


def load_once(directory: pathlib.Path, param_dtype: str, fsdp: int) -> dict[str, Any]:
    """One load, timed, in this process."""
    mesh = make_mesh(MeshConfig(fsdp=fsdp)) if fsdp > 1 else None
    jax.block_until_ready(jnp.zeros(()))
    raw = raw_seconds(directory)
    start = time.perf_counter()
    abstract_params(load_config(directory)[0])
    trace = time.perf_counter() - start
    memory = PeakMemory()
    memory.start()
    start, cpu = time.perf_counter(), time.process_time()
    _, params = load_pretrained(directory, mesh=mesh, param_dtype=None if param_dtype == "file" else param_dtype)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    leaves = jax.tree.leaves(params)
    return {
        "seconds": seconds,
        "cpu_seconds": cpu,
        "trace_seconds": trace,
        "raw_seconds": raw,
        "peak_bytes": memory.finish(),
        "param_bytes": sum(leaf.nbytes for leaf in leaves),
        "largest_param_bytes": max(leaf.nbytes for leaf in leaves),
        "shapes": {path: list(leaf.shape) for path, leaf in by_path(params).items()},
        "num_devices": 1 if mesh is None else mesh.size,
        "platform": jax.devices()[0].platform,
        "device": jax.devices()[0].device_kind,
    }


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def main() -> None:
    """Writes, loads several times, prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=256.0)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32", "float16"))
    parser.add_argument("--param-dtype", default="float32", help="of the loaded parameters, or 'file'")
    parser.add_argument("--layout", default="single", choices=("single", "sharded"))
    parser.add_argument("--fsdp", type=int, default=1, help="devices to shard over")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--part", choices=("write", "load"), help=argparse.SUPPRESS)
    parser.add_argument("--directory", type=pathlib.Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    config = config_of(options.megabytes, jnp.dtype(options.dtype).itemsize)
    if options.part == "write":
        write(options.directory, config, options.dtype, options.layout)
        return
    if options.part == "load":
        print(json.dumps(load_once(options.directory, options.param_dtype, options.fsdp)))
        return
    with tempfile.TemporaryDirectory() as temporary:
        directory = pathlib.Path(temporary) / "model"
        # Parts run in processes of their own; this one never starts a device, whose memory they need.
        command = [sys.executable, __file__, *sys.argv[1:], "--directory", str(directory), "--part"]
        subprocess.run([*command, "write"], check=True)
        size = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
        loads = []
        for _ in range(options.repeats):
            done = subprocess.run([*command, "load"], check=True, stdout=subprocess.PIPE, text=True)
            loads.append(json.loads(done.stdout.splitlines()[-1]))
    first = loads[0]
    shared = first["param_bytes"] if first["platform"] == "cpu" else 0
    print(
        json.dumps(
            {
                "benchmark": "loading",
                **{key: first[key] for key in ("platform", "device", "num_devices")},
                "layout": options.layout,
                "file_dtype": options.dtype,
                "param_dtype": options.param_dtype,
                "file_bytes": size,
                "param_bytes": first["param_bytes"],
                "shapes": first["shapes"],
                "flops": 0,
                "seconds": spread([load["seconds"] for load in loads]),
                "cpu_seconds": spread([load["cpu_seconds"] for load in loads]),
                "trace_seconds": spread([load["trace_seconds"] for load in loads]),
                "raw_seconds": spread([load["raw_seconds"] for load in loads]),
                "ratio_to_raw": spread([load["seconds"] / load["raw_seconds"] for load in loads]),
                "bytes_per_second": spread([size / load["seconds"] for load in loads]),
                "peak_bytes": spread([load["peak_bytes"] for load in loads]),
                "staging": spread([(load["peak_bytes"] - shared) / load["largest_param_bytes"] for load in loads]),
                "repeats": options.repeats,
            }
        )
    )


if __name__ == "__main__":
    main()
