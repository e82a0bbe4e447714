"""Parameters that stay in their files until they are asked for, so that a checkpoint passes through in small parts."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from jaxrefine.conversion.apply import Assignment
from jaxrefine.conversion.reading import read_span
from jaxrefine.conversion.tensors import DTYPES, Tensor
from jaxrefine.models.weights import Rule


class StoredParameter:
    """One parameter of ours in the tensors of a checkpoint: an array to whoever asks NumPy for one.

    Args:
      tensors: one a layer, or one; their files must stay open.
      rule: theirs to ours.
      shape: of the parameter.

    Raises:
      ValueError: tensors of several dtypes, of which an array can have one.
    """

    def __init__(self, tensors: Sequence[Tensor], rule: Rule, shape: tuple[int, ...]) -> None:
        kinds = sorted({tensor.dtype for tensor in tensors})
        by_name = {dtype.name: dtype for dtype in DTYPES.values()}
        self.shape, self.size = shape, math.prod(shape)
        self.dtype = by_name[kinds[0]] if len(kinds) == 1 else np.dtype(np.float32)
        self._tensors, self._rule = tensors, rule

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All of it."""
        whole = read_span(
            self._tensors, self._rule, self.shape, tuple(slice(0, size) for size in self.shape), self.dtype
        )
        return whole if dtype is None else whole.astype(dtype)

    def __getitem__(self, place: tuple[int, ...]) -> np.ndarray:
        """One layer of it."""
        index = tuple(slice(i, i + 1) for i in place) + tuple(slice(0, size) for size in self.shape[len(place) :])
        return read_span(self._tensors, self._rule, self.shape, index, self.dtype).reshape(self.shape[len(place) :])


def stored_parameters(assignment: Assignment, shapes: dict[str, tuple[int, ...]]) -> dict[str, StoredParameter]:
    """All parameters of a checkpoint by path, none of them read."""
    return {path: StoredParameter(tensors, rule, shapes[path]) for path, (rule, tensors) in assignment.items()}
