"""Seconds and memory to load a checkpoint, here and by transformers, against reading its bytes; and to convert it.

    python -m benchmarks.bench_conversion
    python -m benchmarks.bench_conversion --megabytes 64 --repeats 2 --ways file float32

Writes a synthetic LLaMA of bf16 (2 GiB unless told otherwise) to a temporary directory and prints one JSON line. Every
load runs in a process of its own, and all find the files in the page cache. ``fresh`` reads the bytes into memory that
the process did not have before (raw reads fill one small buffer again and again), ``file`` loads and keeps the file's
dtype, ``float32`` casts, ``transformers`` is ``LlamaForCausalLM.from_pretrained`` (where torch is installed; it maps
the file and reads later), ``convert`` writes the checkpoint again. ``speed_to_raw`` is raw read seconds over seconds.
``memory_to_file`` is the peak of memory that no file backs, above that before the load, over the checkpoint's size;
``resident_to_file`` counts pages of mapped files too, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import pathlib
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks.bench_loading import PeakMemory, config_of, raw_seconds, write
from jaxrefine.conversion.apply import abstract_params
from jaxrefine.conversion.convert import convert
from jaxrefine.conversion.pretrained import load_config, load_pretrained

WAYS = ("fresh", "file", "float32", "transformers", "convert")
_DTYPE = "bfloat16"


def once(directory: pathlib.Path, way: str) -> dict[str, Any]:
    """One load or conversion, timed, in this process."""
    jax.block_until_ready(jnp.zeros(()))
    abstract_params(load_config(directory)[0])  # what a process pays once, whatever it loads
    if way == "transformers":
        import torch
        from transformers import LlamaForCausalLM
    raw = raw_seconds(directory)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = PeakMemory()
    memory.start()
    start = time.perf_counter()
    if way == "fresh":
        paths = sorted(directory.glob("*.safetensors"))
        size = sum(path.stat().st_size for path in paths)
        held = [np.fromfile(path, np.uint8) for path in paths]
        assert sum(len(one) for one in held) == size
    elif way == "transformers":
        model = LlamaForCausalLM.from_pretrained(directory, dtype=getattr(torch, _DTYPE))
        size = sum(parameter.nbytes for parameter in model.parameters())
    elif way == "convert":
        size = convert(directory, directory.with_name("converted")).num_bytes
    else:
        _, params = load_pretrained(directory, param_dtype=None if way == "file" else way)
        size = sum(leaf.nbytes for leaf in jax.tree.leaves(params))
    seconds = time.perf_counter() - start
    peak = memory.finish()
    resident = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) * 1024
    return {"seconds": seconds, "raw_seconds": raw, "peak_bytes": peak, "resident_bytes": resident, "bytes": size}


def spread(values: list[float]) -> dict[str, float]:
    """Median and range."""
    return {"median": statistics.median(values), "min": min(values), "max": max(values)}


def summary(runs: list[dict[str, Any]], size: int) -> dict[str, Any]:
    """Of one way, over its runs."""
    return {
        "param_bytes": runs[0]["bytes"],
        "seconds": spread([run["seconds"] for run in runs]),
        "raw_seconds": spread([run["raw_seconds"] for run in runs]),
        "speed_to_raw": spread([run["raw_seconds"] / run["seconds"] for run in runs]),
        "memory_to_file": spread([run["peak_bytes"] / size for run in runs]),
        "resident_to_file": spread([run["resident_bytes"] / size for run in runs]),
    }


def main() -> None:
    """Writes, loads in turns, prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=2048.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--layout", default="sharded", choices=("single", "sharded"))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--directory", type=pathlib.Path, help="where to write (default: the system's temporary one)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        if options.part == "write":
            config = config_of(options.megabytes, jnp.dtype(_DTYPE).itemsize)
            write(options.directory, config, _DTYPE, options.layout)
        else:
            print(json.dumps(once(options.directory, options.part)))
        return
    ways = [way for way in options.ways if way != "transformers" or importlib.util.find_spec("torch") is not None]
    with tempfile.TemporaryDirectory(dir=options.directory) as temporary:
        directory = pathlib.Path(temporary) / "model"
        command = [sys.executable, "-m", "benchmarks.bench_conversion", *sys.argv[1:], "--directory", str(directory)]
        subprocess.run([*command, "--part", "write"], check=True)
        size = sum(path.stat().st_size for path in directory.glob("*.safetensors"))
        runs: dict[str, list[dict[str, Any]]] = {way: [] for way in ways}
        for _ in range(options.repeats):
            for way in ways:
                done = subprocess.run([*command, "--part", way], check=True, stdout=subprocess.PIPE, text=True)
                runs[way].append(json.loads(done.stdout.splitlines()[-1]))
    print(
        json.dumps(
            {
                "benchmark": "conversion",
                "host": platform.node() and f"{platform.system()} {platform.machine()}",
                "file_bytes": size,
                "file_dtype": _DTYPE,
                "layout": options.layout,
                "ways": {way: summary(of_way, size) for way, of_way in runs.items()},
                "repeats": options.repeats,
            }
        )
    )


if __name__ == "__main__":
    main()
