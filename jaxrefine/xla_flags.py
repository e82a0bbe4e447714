"""Compiler settings without which XLA's CPU backend computes wrong numbers; set when the package is imported.

From jaxlib 0.10.2 on, XLA hands reductions on a CPU to YNNPACK, and fused with what surrounds them they come out wrong
past some 4,000 rows or 32,768 elements: 0.12.0 gets the gradient of an RMSNorm of 32 x 192 tokens wrong by more than
its size, 0.10.2 the same under ``vmap``. Nothing crashes. Without these fusions (none is made before 0.10.1) the
results are right, and a train step takes no longer.

Source: github.com/jax-ml/jax issues 39103 and 39257; tests/test_xla_flags.py computes both cases.
"""

from __future__ import annotations

import importlib.metadata
import os
import re
import sys
import warnings
from collections.abc import MutableMapping

FLAG = "xla_cpu_experimental_ynn_fusion_type"
"""Which operations YNNPACK gets; empty is none. Older jaxlibs end the process when they read a flag unknown to them."""

FIRST = (0, 10, 1)
"""The first jaxlib that knows the flag by this form."""


def refuse_faulty_fusions(environ: MutableMapping[str, str] = os.environ, version: str | None = None) -> bool:
    """Adds the flag to XLA_FLAGS where this jaxlib needs it; a value given there already is left as it is.

    Args:
      environ: the environment that XLA will read when its backends start.
      version: of jaxlib; by default the installed one's.

    Returns:
      Whether XLA_FLAGS was changed.

    >>> environ = {"XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    >>> refuse_faulty_fusions(environ, "0.12.0"), environ["XLA_FLAGS"].split()[1]
    (True, '--xla_cpu_experimental_ynn_fusion_type=')
    >>> refuse_faulty_fusions(environ, "0.7.2")
    False
    """
    flags = environ.get("XLA_FLAGS", "")
    if FLAG in flags or _numbers(version or importlib.metadata.version("jaxlib")) < FIRST:
        return False
    environ["XLA_FLAGS"] = f"{flags} --{FLAG}=".strip()
    if environ is os.environ and _backends_run():
        warnings.warn(
            "jaxrefine was imported after JAX had started computing: on a CPU this jaxlib gets some gradients wrong "
            f"unless XLA_FLAGS holds --{FLAG}= when JAX starts. Import jaxrefine first, or set it in the shell",
            RuntimeWarning,
            stacklevel=3,
        )
    return True


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:3])


def _backends_run() -> bool:
    """Whether JAX has read its flags already; False if it was not imported."""
    bridge = sys.modules.get("jax._src.xla_bridge")
    return bool(getattr(bridge, "_backends", None))
