"""Attention along root-to-leaf paths on NVIDIA GPUs: cuDNN's causal kernel, which is given lengths and never a mask.

A mask would become a dense bias [Q, X, X], and so would its gradient. Along a path none is needed: what a token sees is
what comes before it.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
from collections.abc import Iterator
from typing import Any, Literal

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.tree_util import Partial

from jaxrefine.models.attention_scores import Attend, ScoreRule
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.head_shards import over_heads, scaled
from jaxrefine.models.path_layout import PathLayout, path_layout
from jaxrefine.typing import Array, Int

DTYPES = ("bfloat16", "float16")
WIDEST_HEAD = 256
"""Since Hopper; 128 before it."""
WIDEST_HEAD_BEFORE_HOPPER = 128

Implementation = Literal["cudnn", "xla"]


def check_cudnn(config: TransformerConfig, dtype: Any, slots: int) -> None:
    """Refuses what cuDNN's kernel cannot do.

    Args:
      config: of the decoder.
      dtype: of the computation.
      slots: S; any.

    Raises:
      ValueError: ALiBi, a cap of scores, a head width or a dtype; before Hopper, a head wider than 128.
    """
    del slots
    start = "attention='cudnn' (GPU)"
    if config.positions == "alibi":
        raise ValueError(f"{start} has no bias by position, and positions = 'alibi' needs one: take 'expand'")
    if config.attention_softcap is not None:
        raise ValueError(
            f"{start} cannot cap scores, and attention_softcap is {config.attention_softcap}: take 'expand'"
        )
    widest, which = _widest_head()
    if config.head_width % 8 or config.head_width > widest:
        raise ValueError(
            f"{start}: head_width is {config.head_width}, allowed are multiples of 8 up to {widest} {which}"
        )
    if jnp.dtype(dtype).name not in DTYPES:
        raise ValueError(f"{start}: dtype is {jnp.dtype(dtype).name}, allowed are {', '.join(DTYPES)}")


def _widest_head() -> tuple[int, str]:
    """Of the GPU that is there; compiled for another machine, of the newest."""
    if jax.default_backend() == "gpu":
        capability = str(getattr(jax.devices()[0], "compute_capability", "9.0"))
        if int(capability.partition(".")[0]) < 9:
            return WIDEST_HEAD_BEFORE_HOPPER, f"on this GPU (compute capability {capability}; Hopper, 9.0, has 256)"
    return WIDEST_HEAD, "(128 before Hopper)"


def cudnn(
    *,
    paths: Int[Array, "B E X"] | None = None,
    homes: Int[Array, "B S"] | None = None,
    ends: Any = None,
    positions: Any = None,
    config: TransformerConfig | None = None,
    implementation: Implementation = "cudnn",
) -> Attend:
    """Causal attention along each path through ``jax.nn.dot_product_attention``.

    Positions along a path are consecutive, so a window of the last positions is one of the last slots of the path.

    Args:
      paths: slots along each path, padded at its end with -1.
      homes: flat index e * X + x from which each slot takes its output.
      ends: not needed.
      positions: not needed.
      config: not needed.
      implementation: "xla" computes the same around XLA's attention, on any device.

    Raises:
      ValueError: a batch packed without paths and homes.
    """
    del ends, positions, config
    return Partial(functools.partial(_cudnn, implementation), _even(path_layout("cudnn", paths, homes)))


def _even(layout: PathLayout) -> PathLayout:
    """Paths of an even number of slots: jax refuses to differentiate others, as if they had a bias."""
    X = layout.slots.shape[-1]
    slots = jnp.pad(layout.slots, ((0, 0), (0, 0), (0, X % 2)))
    return layout._replace(slots=slots, homes=layout.homes + layout.homes // X * (X % 2))


def _cudnn(
    implementation: Implementation,
    layout: PathLayout,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
    state: Any = None,
    rule: ScoreRule | None = None,
) -> tuple[Array, Any]:
    if rule is None:
        raise ValueError("attention='cudnn' reads a ScoreRule, given None")
    divisor = rule.divisor
    if not isinstance(divisor, int | float):  # differs from layer to layer, and the kernel's scale is fixed
        q, divisor = scaled(q, divisor), 1.0
    window = rule.config.window
    whole = functools.partial(_along_paths, implementation, 1.0 / divisor, None)
    if rule.windowed is None or window is None:
        run = whole
    else:
        near = functools.partial(_along_paths, implementation, 1.0 / divisor, window)
        if isinstance(rule.windowed, bool):
            run = near if rule.windowed else whole
        else:
            chosen = (layout, jnp.broadcast_to(rule.windowed, layout.homes.shape[:1]))
            return over_heads(functools.partial(_either, near, whole), chosen, q, k, v), state
    return over_heads(run, layout, q, k, v), state


def _either(near: Any, whole: Any, rows: Any, q: jax.Array, k: jax.Array, v: jax.Array) -> jax.Array:
    layout, windowed = rows
    return jax.lax.cond(windowed[0], near, whole, layout, q, k, v)


def _along_paths(
    implementation: Implementation,
    scale: float,
    window: int | None,
    layout: PathLayout,
    q: jax.Array,
    k: jax.Array,
    v: jax.Array,
) -> jax.Array:
    """One device's part: q [B S Q H], k and v [B S K H]."""
    lengths = jnp.maximum(layout.lengths, 1).reshape(-1)  # a path that is all padding: one slot, which nothing reads
    out = jax.nn.dot_product_attention(
        *(layout.along(x) for x in (q, k, v)),
        scale=scale,
        is_causal=True,
        query_seq_lengths=lengths,
        key_value_seq_lengths=lengths,
        local_window_size=None if window is None else (window - 1, 0),
        implementation=implementation,
    )
    return checkpoint_name(layout.home(out), "attention")


@contextlib.contextmanager
def without_gpu(*, version: int = 91000, capability: str = "9.0") -> Iterator[None]:
    """Lets ``cudnn`` be lowered for a GPU on a machine that has none: only to compile ahead of time, never to compute.

    jax asks the cuDNN that is installed and the GPU that is there; in here it is told these instead.

    Args:
      version: of cuDNN, major · 10000 + minor · 100 + patch.
      capability: of the GPU, "9.0" for H100 and H200.

    Raises:
      RuntimeError: a jax that keeps these questions elsewhere; they are no part of its public interface.
    """
    name = "jax._src.cudnn.fused_attention_stablehlo"
    try:
        module = importlib.import_module(name)
    except ImportError as error:
        raise RuntimeError(f"jax {jax.__version__} has no {name}, which cudnn.without_gpu answers for") from error
    asked = ("check_cudnn_version", "check_compute_capability")
    if missing := [function for function in asked if not hasattr(module, function)]:
        raise RuntimeError(f"{name} of jax {jax.__version__} lacks {', '.join(missing)}: see cudnn.without_gpu")
    there = tuple(map(int, capability.split(".")))
    answers = {
        "check_cudnn_version": lambda: version,
        "check_compute_capability": lambda least: there >= tuple(map(int, least.split("."))),
    }
    kept = {function: getattr(module, function) for function in asked}
    try:
        for function, answer in answers.items():
            setattr(module, function, answer)
        yield
    finally:
        for function, own in kept.items():
            setattr(module, function, own)
