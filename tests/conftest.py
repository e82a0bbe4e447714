"""Strict JAX for every test: eight CPU devices, no silent promotion, full precision, and checked annotations."""

from __future__ import annotations

import importlib
import importlib.util
import mmap
import os
import pathlib
from typing import Any

# Eight devices; and machine code made cheaply, since compiling is most of the time: XLA's passes over the program are
# the same, but LLVM optimises nothing, and the emitter is an older one that writes less code. tests/test_xla_flags.py
# compiles as users do what some jaxlibs then get wrong.
_FLAGS = {"xla_force_host_platform_device_count": "8", "xla_backend_optimization_level": "0"}
_NOT_IN_EVERY_XLA = {"xla_cpu_use_fusion_emitters": "false", "xla_cpu_parallel_codegen_split_count": "1"}


def _is_known(flag: str) -> bool:
    """Whether the installed XLA names the flag: one that it does not know ends the process."""
    for library in pathlib.Path(importlib.util.find_spec("jaxlib").origin).parent.glob("libjax_common.*"):
        with library.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as code:
            if code.find(flag.encode()) >= 0:
                return True
    return False


os.environ["JAX_PLATFORMS"] = "cpu"
for _flag, _value in (_FLAGS | _NOT_IN_EVERY_XLA).items():
    if _flag not in os.environ.get("XLA_FLAGS", "") and (_flag in _FLAGS or _is_known(_flag)):
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


def pytest_configure(config: pytest.Config) -> None:
    """Lets xdist begin files in the order of collection; its own begins those of few tests, however long, last."""
    if hasattr(config.option, "loadscopereorder"):
        config.option.loadscopereorder = False


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: the last one to begin is a short one, and no worker waits long for another."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skips torch parity tests where torch is absent."""
    if item.get_closest_marker("torch") is not None:
        pytest.importorskip("torch", reason="torch, the oracle of this test, is not installed")
