"""What is computed, stored and summed in which type: a table of named policies."""

from __future__ import annotations

import dataclasses
from typing import Literal

from jaxrefine.config import unknown_name

Float = Literal["float32", "bfloat16"]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Precision:
    """One policy. Norms, softmax, rotary positions and log-probs are fp32 under each of them."""

    compute: Float
    """Of the activations and of the products of weights."""
    params: Float
    """Of the stored weights; trained ones in bfloat16 are rounded at random after each update, so that it is kept on
    average however small it is."""
    accumulate: Float = "float32"
    """Of sums of gradients over microbatches."""


PRECISION: dict[str, Precision] = {
    "float32": Precision(compute="float32", params="float32"),
    "bfloat16": Precision(compute="bfloat16", params="float32"),  # fp32 masters: 4 bytes a parameter more
    "pure_bfloat16": Precision(compute="bfloat16", params="bfloat16"),
}
"""Name -> policy."""


def precision_of(name: str, platform: str) -> Precision:
    """The policy of a name; "auto" is fp32 on a CPU and bfloat16 with fp32 masters elsewhere.

    Args:
      name: a key of ``PRECISION``, or "auto".
      platform: of the devices, such as "cpu".

    Raises:
      ValueError: an unknown name.

    >>> precision_of("auto", "tpu") == PRECISION["bfloat16"]
    True
    """
    if name == "auto":
        name = "float32" if platform == "cpu" else "bfloat16"
    if name not in PRECISION:
        raise ValueError(unknown_name(name, ["auto", *PRECISION], "precision"))
    return PRECISION[name]
