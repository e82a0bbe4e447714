"""Strict JAX for every test: eight CPU devices, no silent promotion, full precision, and checked annotations."""

from __future__ import annotations

import importlib
import os
import pathlib
from typing import Any

# Eight devices; and machine code little optimised: XLA rewrites and fuses the same, and compiling is most of the time.
_FLAGS = {"xla_force_host_platform_device_count": 8, "xla_backend_optimization_level": 1}
os.environ["JAX_PLATFORMS"] = "cpu"
for _flag, _value in _FLAGS.items():
    if _flag not in os.environ.get("XLA_FLAGS", ""):
        os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} --{_flag}={_value}".strip()
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
os.environ.setdefault("MPLBACKEND", "agg")

import flax.struct  # noqa: E402  (the environment above must be set before jax starts)
import hypothesis  # noqa: E402
import jax  # noqa: E402
import pytest  # noqa: E402
from jaxtyping import install_import_hook  # noqa: E402

jax.config.update("jax_numpy_rank_promotion", "raise")
jax.config.update("jax_numpy_dtype_promotion", "strict")
jax.config.update("jax_default_matmul_precision", "highest")

# the same examples in every run, and no deadline: the first one of a shape waits for the compiler
hypothesis.settings.register_profile("jaxrefine", derandomize=True, deadline=None, max_examples=30, print_blob=True)
hypothesis.settings.load_profile("jaxrefine")

_flax_dataclass = flax.struct.dataclass


def _unchecked_pytree(clz: Any = None, **options: Any) -> Any:
    """``flax.struct.dataclass`` whose constructor the hook leaves alone.

    JAX rebuilds pytrees with shardings, shapes, specs and stacked arrays in their leaves, through the constructor;
    functions that take or return such a class are still checked.
    """
    if clz is None:
        return lambda decorated: _unchecked_pytree(decorated, **options)
    decorated = _flax_dataclass(clz, **options)
    decorated.__no_type_check__ = True
    return decorated


flax.struct.dataclass = _unchecked_pytree
install_import_hook("jaxrefine", "beartype.beartype(conf=beartype.BeartypeConf(is_pep484_tower=True))")

importlib.import_module("jaxrefine")  # its flags, before any test starts JAX's backends

_ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture(scope="session")
def shared_data() -> pathlib.Path:
    """The directory of public data sets beside the checkout; tests that need it skip where it is absent."""
    path = pathlib.Path(os.environ.get("JAXREFINE_SHARED_DATA", _ROOT.parent / "shared" / "data"))
    if not path.is_dir():
        pytest.skip(f"no shared data at {path} (set JAXREFINE_SHARED_DATA)")
    return path


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips torch parity tests where torch is absent."""
    if item.get_closest_marker("torch") is not None:
        pytest.importorskip("torch", reason="torch, the oracle of this test, is not installed")
