"""Gradients on this machine's CPU at sizes where some jaxlibs' fusions go wrong, and the flag that stops them."""

from __future__ import annotations

import os
import subprocess
import sys

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine import xla_flags
from jaxrefine.models.layers import RMSNorm

EPS = 1e-6
AS_USERS_DO = {"xla_backend_optimization_level": 3} | (
    {"xla_cpu_use_fusion_emitters": True} if "xla_cpu_use_fusion_emitters" in os.environ["XLA_FLAGS"] else {}
)
"""Other tests run code made cheaply: conftest.py."""


def _gradient_of_norm(cotangent: np.ndarray, x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """By x, in float64: d = g s, r = 1 / sqrt(mean x² + eps), r d − x r³ mean(d x)."""
    cotangent, x, scale = (a.astype(np.float64) for a in (cotangent, x, scale))
    r = 1 / np.sqrt(np.mean(x**2, -1, keepdims=True) + EPS)
    d = cotangent * scale
    return r * d - x * r**3 * np.mean(d * x, -1, keepdims=True)


def _drawn(*shapes: tuple[int, ...]) -> list[np.ndarray]:
    rng = np.random.default_rng(0)
    return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


def _pull(cotangent: jax.Array, x: jax.Array, scale: jax.Array) -> jax.Array:
    norm = RMSNorm(eps=EPS, dtype=jnp.float32)
    return jax.vjp(lambda x: norm.apply({"params": {"scale": scale}}, x), x)[1](cotangent)[0]


@pytest.mark.parametrize("shape", [(8, 512, 16), (32, 192, 128), (16, 1024, 64)])
def test_the_gradient_of_a_norm_is_right_at_the_sizes_of_training(shape):
    cotangent, x, scale = _drawn(shape, shape, shape[-1:])
    np.testing.assert_allclose(
        jax.jit(_pull, compiler_options=AS_USERS_DO)(cotangent, x, scale),
        _gradient_of_norm(cotangent, x, scale),
        rtol=0,
        atol=1e-4,
    )


def test_so_are_many_at_once():
    cotangents, x, scale = _drawn((17, 2, 154, 16), (2, 154, 16), (16,))
    found = jax.jit(jax.vmap(_pull, (0, None, None)), compiler_options=AS_USERS_DO)(cotangents, x, scale)
    np.testing.assert_allclose(found, _gradient_of_norm(cotangents, x[None], scale), rtol=0, atol=1e-4)


def test_importing_the_package_is_enough():
    environ = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    code = (
        "import jaxrefine, os, jax, jax.numpy as jnp\n"
        "rows = jnp.arange(32769, dtype=jnp.float32)[:, None] * jnp.eye(1, 3)\n"
        "last = jax.jit(jax.vmap(lambda row: jnp.sum((jnp.eye(3) @ row) ** 2)))(rows)[-1]\n"
        "print(float(last), os.environ.get('XLA_FLAGS', ''))"
    )
    finished = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    last, flags = finished.stdout.rstrip("\n").split(" ", 1)
    assert float(last) == 32768.0**2
    assert (xla_flags.FLAG in flags) == xla_flags.refuse_faulty_fusions({})


def test_what_the_user_gave_stays():
    environ = {"XLA_FLAGS": f"--{xla_flags.FLAG}=dot"}
    assert not xla_flags.refuse_faulty_fusions(environ, "0.12.0")
    assert environ == {"XLA_FLAGS": f"--{xla_flags.FLAG}=dot"}


@pytest.mark.parametrize("version", ["0.7.2", "0.9.1", "0.10.0", "0.10.0.dev1"])
def test_an_older_jaxlib_is_not_given_a_flag_that_it_would_die_of(version):
    environ = {}
    assert not xla_flags.refuse_faulty_fusions(environ, version)
    assert not environ


def test_too_late_is_said():
    code = "import jax; jax.devices(); import jaxrefine"
    environ = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"}
    finished = subprocess.run([sys.executable, "-c", code], env=environ, capture_output=True, text=True, check=True)
    assert ("XLA_FLAGS" in finished.stderr) == xla_flags.refuse_faulty_fusions({})
