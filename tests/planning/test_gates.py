"""Memory of the packed step at 8B for hardware that is not there: LLaMA-3-8B, 64 prompts × 4 responses, 512 + 256.

The limits are what a prototype of the packed row reached, with weights laid out [in, out]. The compilers are extras,
and each compiles in a process of its own: their environment must be set before jax starts.
"""

from __future__ import annotations

import functools
import json
import os
import pathlib
import subprocess
import sys
from typing import Any

import pytest

from jaxrefine.planning.topology import MissingExtraError, check_extra

ROOT = pathlib.Path(__file__).resolve().parents[2]
GIB = 2**30
PARAMS = 8_030_261_248


@functools.cache
def compiled(name: str, attention: str = "") -> Any:
    """What ``absent.py`` says; skips where the extra is not installed."""
    platform = "gpu" if name.startswith("h") else "tpu"
    try:
        check_extra(platform)
    except MissingExtraError as error:
        pytest.skip(str(error))
    inherited = ("PATH", "HOME", "TMPDIR", "LANG", "LD_LIBRARY_PATH", "VIRTUAL_ENV")
    environ = {key: os.environ[key] for key in inherited if key in os.environ}
    environ["PYTHONPATH"] = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    script = pathlib.Path(__file__).with_name("absent.py")
    finished = subprocess.run(
        [sys.executable, str(script), name, attention], capture_output=True, text=True, env=environ, check=False,
        timeout=1100,
    )  # fmt: skip
    assert finished.returncode == 0, finished.stderr[-4000:]
    return json.loads(finished.stdout.splitlines()[-1])


@pytest.mark.parametrize(
    ("name", "attention", "gib"),
    [
        ("h100x8", "cudnn", 20.77),
        pytest.param("v5p-16", "splash", 21.82, marks=pytest.mark.slow),
        pytest.param("v5e-16", "splash", 12.23, marks=pytest.mark.slow),
    ],
)
def test_the_step_needs_no_more_memory_than_the_prototype(name, attention, gib):
    found = compiled(name)
    assert found["attention"] == attention, found["remark"]
    assert found["total"] < gib * GIB, found


def test_the_step_on_eight_h100_is_placed_as_the_rules_say():
    found = compiled("h100x8")
    assert found["rows"] == [1, 64, 1536]
    assert found["attention"] == "cudnn", found["remark"]
    # Everything but norms (2 a layer and the last) and moments' counts is split eight ways.
    whole = (2 * 32 + 1) * 4096
    assert found["parameters"] == 4 * ((PARAMS - whole) // 8 + whole)
    assert found["optimizer"] == 2 * found["parameters"] + 8


def test_weights_are_gathered_in_bf16_for_each_pass_and_gradients_scattered():
    found = compiled("h100x8")
    assert found["complete"]
    layers = 8_030_261_248 - 2 * 128256 * 4096 - (2 * 32 + 1) * 4096
    twice = 2 * 2 * layers * 7 // 8  # forward, and again in the backward pass: bf16, seven eighths of them others'
    assert found["sent"]["all-gather"] > twice
    assert found["sent"]["reduce-scatter"] > 2 * layers * 7 // 8
