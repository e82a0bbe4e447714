"""Seconds and memory to load a checkpoint, here and by transformers, against reading its bytes; and to convert it.

    python -m benchmarks.bench_conversion
    python -m benchmarks.bench_conversion --megabytes 64 --repeats 2 --ways fresh file float32

Writes a synthetic LLaMA (2 GiB of bf16 unless told otherwise) to a temporary directory and prints one JSON line. Every
load runs in a process of its own, and all find the files in the page cache; rounds go through all ways, so that what
else the machine does falls on all of them. There are two raw reads to compare with:

* ``raw`` fills one buffer of 16 MiB again and again, in one thread: what the bytes cost where nobody keeps them;
* ``fresh`` reads every byte into memory that the process did not have before, in one thread, as whoever keeps them
  must; ``fresh-threads`` does so in as many threads as loading uses.

``file`` loads and keeps the file's dtype, ``float32`` and ``bfloat16`` cast, ``transformers`` is
``LlamaForCausalLM.from_pretrained`` (where torch is installed; it may map the file and read later, so
``transformers-touched`` also touches every page), ``convert`` writes the checkpoint again.

``speed_to_raw`` and ``speed_to_fresh`` are the seconds of that raw read over those of the way, in the same round: 1 is
as fast as it. ``memory_to_file`` is the peak of memory that no file backs, above that before the load, over the
checkpoint's size, ``memory_to_params`` over the loaded parameters'; ``resident_to_file`` counts pages of mapped files
too, which the system takes back when it needs them.
"""

from __future__ import annotations

import argparse
import concurrent.futures
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
from jaxrefine.conversion.reading import num_threads
from jaxrefine.conversion.tensors import read_bytes

WAYS = ("fresh", "fresh-threads", "file", "float32", "bfloat16", "transformers", "transformers-touched", "convert")
_CHUNK_BYTES = 1 << 24
_PAGE_BYTES = 4096


def fresh(directory: pathlib.Path, threads: int) -> list[np.ndarray]:
    """All bytes of the weights, in memory of their own."""
    held, jobs = [], []
    for path in sorted(directory.glob("*.safetensors")):
        held.append(np.empty(path.stat().st_size, np.uint8))
        jobs += [
            (path, start, held[-1][start : start + _CHUNK_BYTES]) for start in range(0, len(held[-1]), _CHUNK_BYTES)
        ]
    with concurrent.futures.ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda job: read_bytes(*job), jobs))
    return held


def once(directory: pathlib.Path, way: str, file_dtype: str) -> dict[str, Any]:
    """One load or conversion, timed, in this process."""
    jax.block_until_ready(jnp.zeros(()))
    abstract_params(load_config(directory)[0])  # what a process pays once, whatever it loads
    if way.startswith("transformers"):
        import torch
        from transformers import LlamaForCausalLM
    raw = raw_seconds(directory)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    memory = PeakMemory()
    memory.start()
    start = time.perf_counter()
    if way.startswith("fresh"):
        size = sum(len(one) for one in fresh(directory, num_threads() if way == "fresh-threads" else 1))
    elif way.startswith("transformers"):
        model = LlamaForCausalLM.from_pretrained(directory, dtype=getattr(torch, file_dtype))
        if way == "transformers-touched":
            for parameter in model.parameters():
                parameter.flatten()[:: _PAGE_BYTES // parameter.itemsize].sum().item()
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


def summary(runs: list[dict[str, Any]], fresh_seconds: list[float], size: int) -> dict[str, Any]:
    """Of one way, over its runs; ``fresh_seconds`` are those of the same rounds, if any."""
    found = {
        "param_bytes": runs[0]["bytes"],
        "seconds": spread([run["seconds"] for run in runs]),
        "raw_seconds": spread([run["raw_seconds"] for run in runs]),
        "speed_to_raw": spread([run["raw_seconds"] / run["seconds"] for run in runs]),
        "memory_to_file": spread([run["peak_bytes"] / size for run in runs]),
        "memory_to_params": spread([run["peak_bytes"] / run["bytes"] for run in runs]),
        "resident_to_file": spread([run["resident_bytes"] / size for run in runs]),
    }
    if fresh_seconds:
        pairs = zip(fresh_seconds, runs, strict=True)
        found["speed_to_fresh"] = spread([seconds / run["seconds"] for seconds, run in pairs])
    return found


def main() -> None:
    """Writes, loads in turns, prints one line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--megabytes", type=float, default=2048.0)
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--dtype", default="bfloat16", choices=("bfloat16", "float32"), help="of the file")
    parser.add_argument("--layout", default="sharded", choices=("single", "sharded"))
    parser.add_argument("--ways", nargs="+", default=list(WAYS), choices=WAYS)
    parser.add_argument("--directory", type=pathlib.Path, help="where to write (default: the system's temporary one)")
    parser.add_argument("--part", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.part is not None:
        if options.part == "write":
            config = config_of(options.megabytes, jnp.dtype(options.dtype).itemsize)
            write(options.directory, config, options.dtype, options.layout)
        else:
            print(json.dumps(once(options.directory, options.part, options.dtype)))
        return
    torch = importlib.util.find_spec("torch") is not None
    ways = [way for way in options.ways if torch or not way.startswith("transformers")]
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
    fresh_seconds = [run["seconds"] for run in runs.get("fresh", [])]
    print(
        json.dumps(
            {
                "benchmark": "conversion",
                "host": platform.node() and f"{platform.system()} {platform.machine()}",
                "file_bytes": size,
                "file_dtype": options.dtype,
                "layout": options.layout,
                "num_threads": num_threads(),
                "ways": {way: summary(of_way, fresh_seconds, size) for way, of_way in runs.items()},
                "repeats": options.repeats,
            }
        )
    )


if __name__ == "__main__":
    main()
