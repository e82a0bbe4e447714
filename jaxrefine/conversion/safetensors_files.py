"""safetensors files written, one tensor after the other."""

from __future__ import annotations

import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np

from jaxrefine.conversion.tensors import DTYPES

Tensors = Iterator[tuple[str, np.ndarray]]
Layout = dict[str, tuple[np.dtype[Any], tuple[int, ...]]]
"""Of one file: name -> dtype and shape, in the order of export."""


def write_safetensors(path: pathlib.Path, layout: Layout, tensors: Tensors) -> None:
    """One file, from the next tensors, each of which is written before the next is asked for.

    Args:
      path: its name.
      layout: what the file will hold.
      tensors: at least those, in that order, contiguous.

    Raises:
      ValueError: a tensor that is not what the layout says.
    """
    names = {dtype: name for name, dtype in DTYPES.items()}
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, (dtype, shape) in layout.items():
        start, end = end, end + math.prod(shape) * dtype.itemsize
        header[name] = {"dtype": names[dtype], "shape": list(shape), "data_offsets": [start, end]}
    content = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    content += b" " * (-len(content) % 8)
    with open(path, "wb") as file:
        file.write(len(content).to_bytes(8, "little") + content)
        for wanted, (dtype, shape) in layout.items():
            name, value = next(tensors)
            if (name, value.dtype, value.shape) != (wanted, dtype, shape):
                raise ValueError(
                    f"{path}: {name!r} {value.dtype} {value.shape} where {wanted!r} {dtype} {shape} belongs"
                )
            file.write(np.ascontiguousarray(value).reshape(-1).view(np.uint8).data)
