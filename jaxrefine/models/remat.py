"""What a layer keeps for the backward pass and what it computes again: a table of named policies."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax

from jaxrefine.config import unknown_name
from jaxrefine.sharding import HOST, check_memory

ATTENTION = ("query", "key", "value", "attention", "attention_out")
"""What the attention of a layer leaves: rotated queries, keys and values, their mixture, and its projection."""

REMAT: dict[str, Callable[..., Any] | None] = {
    "none": None,  # keep everything: fastest where memory allows
    "full": jax.checkpoint_policies.nothing_saveable,  # keep a layer's input alone: least memory, a third more FLOPs
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,  # keep the outputs of weight matmuls
    "attention": jax.checkpoint_policies.save_only_these_names("attention"),  # keep the attention's output alone
    "minimal": jax.checkpoint_policies.save_only_these_names(
        *ATTENTION
    ),  # all but the feed-forward block's wide products
    "offload": jax.checkpoint_policies.save_and_offload_only_these_names(  # the same and the layer's input, on the host
        names_which_can_be_saved=[],
        names_which_can_be_offloaded=["layer_input", *ATTENTION],
        offload_src="device",
        offload_dst=HOST,
    ),
}
"""Name -> policy of ``jax.checkpoint``; None is no checkpoint at all.

Kept values a token and layer, for width D, hidden width F (gated), Q query and K key heads of width H, besides the
layer's input (D): "full" none; "attention" QH; "minimal" 2QH + 2KH + D; "dots" QH + 2KH + D + 2F; "offload" none on
the device, 2QH + 2KH + 2D on the host.
"""


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


def check_remat(name: str, mesh: Any) -> None:
    """Refuses a policy that the devices cannot follow.

    Raises:
      ValueError: an unknown name, or "offload" where devices have no pinned memory of their host.
    """
    if name not in REMAT:
        raise ValueError(unknown_name(name, REMAT, "remat policy"))
    if name == "offload":
        check_memory(mesh, HOST, "remat policy 'offload'")
