"""The letters of every shape in jaxrefine, and the array types that public signatures use.

    B rows of a packed batch        G groups in a row          L layers
    S slots of a row                N candidates of a group    Q query heads
    T scored tokens of a row        M models to route between  K key-value heads
    P prompt tokens                 W leaves of a candidate    H width of a head
    R response tokens               D width of the model       F hidden width of the feed-forward block
    V vocabulary                    E paths of a row           X tokens of a path

Shapes are written with jaxtyping, ``Float[Array, "B S D"]``, and checked while the tests run.
"""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
from jaxtyping import Bool, Float, Int, Integer, Key, PyTree

Array = jax.Array | np.ndarray
"""Either kind of array: functions of shapes and values do not care which side of the device they run on."""

Params = PyTree[Any]
"""A plain nested dict of arrays; nothing outside ``models`` and ``scoring`` knows the modules behind it."""

Scalar = Float[Array, ""]

__all__ = ["Array", "Bool", "Float", "Int", "Integer", "Key", "Params", "PyTree", "Scalar"]
