"""Our own parameters as an Orbax checkpoint in ``params`` beside config.json, read back one at a time."""

from __future__ import annotations

import contextlib
import inspect
import logging
import math
import pathlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np

from jaxrefine.conversion.apply import READABLE, by_path, nested
from jaxrefine.typing import Params

ORBAX = "params"
"""Where the checkpoint is in a directory."""


class OrbaxParameter:
    """One parameter in its checkpoint: an array to whoever asks NumPy for one.

    Args:
      checkpoint: the directory that orbax wrote.
      path: of the parameter.
      shape: of it.
      dtype: of it.
    """

    def __init__(self, checkpoint: pathlib.Path, path: str, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.shape, self.size, self.dtype = shape, math.prod(shape), dtype
        self._checkpoint, self._path = checkpoint, path

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it."""
        import orbax.checkpoint as ocp

        wanted = ocp.args.PyTreeRestore(
            item=nested({self._path: 0}),
            restore_args=nested({self._path: ocp.RestoreArgs(restore_type=np.ndarray)}),
            partial_restore=True,
        )
        try:
            with ocp.PyTreeCheckpointer() as checkpointer:
                found = by_path(checkpointer.restore(self._checkpoint, wanted))[self._path]
        except Exception as error:  # whatever a broken checkpoint makes orbax raise
            raise ValueError(f"{self._checkpoint}: parameter {self._path!r} cannot be read: {error}") from error
        whole = np.asarray(found)
        return whole if dtype is None else whole.astype(dtype)

    def __getitem__(self, place: tuple[int, ...]) -> np.ndarray:
        """One layer of it; orbax reads whole parameters."""
        return np.asarray(self)[place]


def is_orbax(directory: pathlib.Path) -> bool:
    """Whether a directory holds such a checkpoint."""
    return (directory / ORBAX).is_dir()


def open_orbax(directory: pathlib.Path) -> dict[str, OrbaxParameter]:
    """All parameters by path, none of them read.

    Raises:
      FileNotFoundError: no such checkpoint.
      ValueError: a broken one, or a parameter that is no array of floats; names it.
    """
    import orbax.checkpoint as ocp

    checkpoint = _checkpoint(directory)
    try:
        with ocp.StandardCheckpointer() as checkpointer:
            tree = by_path(checkpointer.metadata(checkpoint).item_metadata.tree)
        leaves = {
            path: OrbaxParameter(checkpoint, path, leaf.shape, np.dtype(leaf.dtype)) for path, leaf in tree.items()
        }
    except Exception as error:  # whatever a broken checkpoint makes orbax raise
        raise ValueError(f"{checkpoint}: no complete Orbax checkpoint: {error}") from error
    for path, leaf in leaves.items():
        if leaf.dtype.name not in READABLE:
            raise ValueError(f"{checkpoint}: parameter {path!r} has dtype {leaf.dtype}; allowed: {', '.join(READABLE)}")
    return leaves


class Incoming:
    """A parameter that is made when its turn to be written comes, and dropped after it.

    Args:
      make: gives the array.
      shape: of it.
      dtype: of it.
    """

    def __init__(self, make: Callable[[], np.ndarray], shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        self.make, self.shape, self.dtype = make, shape, dtype
        self.nbytes = math.prod(shape) * dtype.itemsize


def save_orbax(directory: pathlib.Path, leaves: Mapping[str, Incoming]) -> None:
    """Writes parameters by path into a directory, one of them in memory at a time.

    Raises:
      ValueError: what a parameter raised when it was made.
      OSError: the disk is full, or whatever else kept orbax from it.
    """
    import orbax.checkpoint as ocp

    class OneByOne(ocp.type_handlers.NumpyHandler):
        """Each array is on the disk before the next is made."""

        async def serialize(self, values: Any, infos: Any, args: Any = None) -> Any:
            args = args or [ocp.SaveArgs()] * len(values)
            for value, info, arg in zip(values, infos, args, strict=True):
                try:
                    array = value.make()
                except ValueError as error:
                    refused.append(error)
                    raise
                for future in await super().serialize([array], [info], [arg]):
                    future.result()
                del array
            return []

        def memory_size(self, values: Any) -> Any:
            return [(value.nbytes, value.nbytes) for value in values]

    refused: list[ValueError] = []
    checkpoint = (directory / ORBAX).resolve()
    # Nothing else holds these arrays, so that Orbax need not copy them, where its version can be told so.
    can_be_told = "deepcopy_host_arrays" in inspect.signature(ocp.type_handlers.NumpyHandler).parameters
    one_by_one = OneByOne(deepcopy_host_arrays=False) if can_be_told else OneByOne()
    registry = ocp.type_handlers.create_type_handler_registry((Incoming, one_by_one))
    handler = ocp.PyTreeCheckpointHandler(type_handler_registry=registry)
    try:
        with _said_once(), ocp.Checkpointer(handler) as checkpointer:
            checkpointer.save(checkpoint, args=ocp.args.PyTreeSave(nested(leaves)))
    except Exception as error:  # whatever a full disk makes orbax raise
        if refused:
            raise refused[0] from None
        raise OSError(f"{checkpoint}: the Orbax checkpoint cannot be written: {error}") from error


def load_orbax(directory: pathlib.Path) -> Params:
    """The parameters that ``convert(…, to="orbax")`` wrote; config.json beside them has their config.

    Raises:
      FileNotFoundError: no such checkpoint.
      ValueError: a broken one.
    """
    return nested({path: jnp.asarray(np.asarray(leaf)) for path, leaf in open_orbax(directory).items()})


@contextlib.contextmanager
def _said_once() -> Iterator[None]:
    """Orbax logs what it raises, with all of its frames."""
    logger = logging.getLogger("absl")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        logger.setLevel(level)


def _checkpoint(directory: pathlib.Path) -> pathlib.Path:
    if not is_orbax(directory):
        raise FileNotFoundError(f"{directory / ORBAX}: no Orbax checkpoint")
    return (directory / ORBAX).resolve()
