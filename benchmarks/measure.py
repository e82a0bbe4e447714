"""What the benchmarks share: calls timed in turns, the machine described, one JSON line a case."""

from __future__ import annotations

import dataclasses
import json
import os
import platform
import random
import statistics
import time
from collections.abc import Callable, Iterable, Mapping
from importlib import metadata
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

import jaxrefine
from jaxrefine.models.config import TransformerConfig

PEAK_BF16_FLOPS: tuple[tuple[str, float], ...] = (
    ("B200", 2.25e15),
    ("H200", 989e12),
    ("H100 PCIe", 756e12),
    ("H100 NVL", 835e12),
    ("H100", 989e12),
    ("A100", 312e12),
    ("L40S", 362e12),
    ("L40", 181e12),
    ("L4", 121e12),
    ("TPU7x", 2.307e15),
    ("TPU v6", 918e12),
    ("TPU v5 lite", 197e12),
    ("TPU v5e", 197e12),
    ("TPU v5", 459e12),
    ("TPU v4", 275e12),
)
"""Dense bf16 operations a second, from the makers' data sheets: the first name that the device's kind contains."""

DType = Literal["auto", "float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Model:
    """Sizes of a LLaMA with random weights."""

    vocab_size: int = 2048
    width: int = 128
    num_layers: int = 4
    num_heads: int = 4
    num_kv_heads: int = 4
    hidden_width: int = 384

    def config(self, max_positions: int) -> TransformerConfig:
        """The decoder of these sizes."""
        if self.width % self.num_heads:
            raise ValueError(f"model.num_heads = {self.num_heads} must divide model.width = {self.width}")
        head_width = self.width // self.num_heads
        return TransformerConfig(**dataclasses.asdict(self), head_width=head_width, max_positions=max_positions)


def resolve(dtype: DType) -> np.dtype:
    """The type to compute in: "auto" is fp32 on CPU and bf16 elsewhere."""
    if dtype == "auto":
        dtype = "float32" if jax.devices()[0].platform == "cpu" else "bfloat16"
    return jnp.dtype(dtype)


def interleaved(
    calls: Mapping[str, Callable[[], Any]], *, repeats: int, seed: int, warmups: int = 1
) -> tuple[dict[str, list[float]], dict[str, Any]]:
    """Seconds of each call, taken in turns: what slows the machine for a while slows all of them.

    Args:
      calls: what to time, by name; each returns arrays, or what is on the host already.
      repeats: rounds; each calls everything once, in an order of its own.
      seed: of those orders.
      warmups: untimed rounds before.

    Returns:
      The seconds of each round, and what each call returned last.
    """
    if repeats < 1:
        raise ValueError(f"repeats = {repeats} must be at least 1")
    order, shuffler = list(calls), random.Random(seed)
    seconds: dict[str, list[float]] = {name: [] for name in calls}
    results: dict[str, Any] = {}
    for turn in range(warmups + repeats):
        shuffler.shuffle(order)
        for name in order:
            results.pop(name, None)  # two results of one call would count twice in memory
            start = time.perf_counter()
            results[name] = jax.block_until_ready(calls[name]())
            if turn >= warmups:
                seconds[name].append(time.perf_counter() - start)
    return seconds, results


def spread(values: Iterable[float]) -> dict[str, float]:
    """Median, quartiles and extremes.

    >>> spread([3.0, 1.0, 2.0])
    {'median': 2.0, 'low_quartile': 1.5, 'high_quartile': 2.5, 'min': 1.0, 'max': 3.0}
    """
    found = sorted(values)
    low, high = np.quantile(found, [0.25, 0.75])
    return {
        "median": statistics.median(found),
        "low_quartile": float(low),
        "high_quartile": float(high),
        "min": found[0],
        "max": found[-1],
    }


def ratios(above: Iterable[float], below: Iterable[float]) -> dict[str, float]:
    """How many times ``above`` is ``below``, round by round.

    >>> ratios([4.0, 6.0], [2.0, 2.0])["median"]
    2.5
    """
    return spread(a / b for a, b in zip(above, below, strict=True))


def peak_flops(dtype: Any) -> float | None:
    """What one device can do in a second; None where it is not known (a CPU; anything but bf16)."""
    if jnp.dtype(dtype) != jnp.bfloat16:
        return None
    kind = jax.devices()[0].device_kind.lower()
    return next((flops for name, flops in PEAK_BF16_FLOPS if name.lower() in kind), None)


def speed(flops: float, seconds: float, dtype: Any) -> dict[str, float | None]:
    """Model FLOPs a second, and the share of the device's peak where that is known."""
    peak = peak_flops(dtype)
    return {"flops_per_second": flops / seconds, "mfu": None if peak is None else flops / seconds / peak}


def memory_bytes(compiled: Any) -> dict[str, int] | None:
    """XLA's own account of an executable: arguments, outputs, temporaries; None where a backend keeps none."""
    found = compiled.memory_analysis()
    if found is None:
        return None
    return {
        "arguments": found.argument_size_in_bytes,
        "outputs": found.output_size_in_bytes,
        "temporaries": found.temp_size_in_bytes,
    }


def memory_ratio(above: dict[str, int] | None, below: dict[str, int] | None) -> float | None:
    """Ratio of temporaries: arguments and outputs are the same on both sides."""
    if above is None or below is None or not below["temporaries"]:
        return None
    return above["temporaries"] / below["temporaries"]


def relative_difference(tree: Any, reference: Any) -> float:
    """The largest Euclidean distance of an array from its reference, over the reference's length.

    >>> relative_difference({"a": np.array([3.0, 4.5])}, {"a": np.array([3.0, 4.0])})
    0.1
    """
    worst = 0.0
    for x, y in zip(jax.tree.leaves(tree), jax.tree.leaves(reference), strict=True):
        x, y = np.asarray(x, np.float64), np.asarray(y, np.float64)
        length = float(np.linalg.norm(y))
        worst = max(worst, float(np.linalg.norm(x - y)) / (length if length else 1.0))
    return worst


def environment() -> dict[str, Any]:
    """The devices that are there, the host and the versions; ``load`` is the run queue before anything was measured."""
    device = jax.devices()[0]
    distributions = ("jax", "jaxlib", "flax", "numpy")
    return {
        "platform": device.platform,
        "device": device.device_kind,
        "num_devices": jax.device_count(),
        "host": {
            "system": platform.system(),
            "machine": platform.machine(),
            "cores": os.cpu_count(),
            "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,
        },
        "versions": {
            "python": platform.python_version(),
            "jaxrefine": jaxrefine.__version__,
            **{name: metadata.version(name) for name in distributions},
        },
    }


def report(records: Iterable[Mapping[str, Any]]) -> None:
    """Prints each record as one JSON line, as soon as it is there."""
    for record in records:
        print(json.dumps(record, allow_nan=False), flush=True)
