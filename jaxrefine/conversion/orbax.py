"""Our own parameters as an Orbax checkpoint in ``params`` beside config.json, read back one at a time."""

from __future__ import annotations

import contextlib
import logging
import math
import pathlib
from collections.abc import Iterator, Mapping
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


def save_orbax(directory: pathlib.Path, leaves: Mapping[str, Any]) -> None:
    """Writes parameters by path into a directory.

    Raises:
      OSError: the disk is full, or whatever else kept orbax from it.
    """
    import orbax.checkpoint as ocp

    checkpoint = (directory / ORBAX).resolve()
    try:
        with _said_once(), ocp.StandardCheckpointer() as checkpointer:
            checkpointer.save(checkpoint, nested(leaves))
    except Exception as error:  # whatever a full disk makes orbax raise
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
