"""What a layer keeps for the backward pass and what it computes again: a table of named policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from jaxrefine.config import unknown_name

REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,  # keep everything: fastest where memory allows
    "full": jax.checkpoint_policies.nothing_saveable,  # keep a layer's input alone: least memory, a third more FLOPs
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the outputs of weight matmuls
    "attention": jax.checkpoint_policies.save_only_these_names("attention"),  # keep the attention's output alone
}
"""Name -> policy of ``jax.checkpoint``; None is no checkpoint at all."""


def rematerialized(module: type[nn.Module], name: str) -> type[nn.Module]:
    """The module class with the named policy around its call.

    Args:
      module: a Linen class that is called inside a scan over layers.
      name: a key of ``REMAT``.

    Returns:
      A class with the same parameters.

    Raises:
      ValueError: an unknown name.

    >>> rematerialized(nn.Dense, "none") is nn.Dense
    True
    """
    if name not in REMAT:
        raise ValueError(unknown_name(name, REMAT, "remat policy"))
    policy = REMAT[name]
    if policy is None:
        return module
    return nn.remat(module, policy=policy, prevent_cse=False)  # a scan already keeps its iterations apart
