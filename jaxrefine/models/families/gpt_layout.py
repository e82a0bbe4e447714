"""What the families older than LLaMA have in common: biased maps, fused queries, keys and values, several names."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.config import unknown_name
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.weights import Part, Rule, Transform

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
"""Their word for an activation -> ours."""

ACTIVATION_NAMES = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu"}
"""Ours -> theirs."""


def read_activation(config: Mapping[str, Any], key: str, default: str, where: str) -> str:
    """The activation, in our word.

    Raises:
      ValueError: one that we do not compute.

    >>> read_activation({"hidden_act": "gelu_fast"}, "hidden_act", "gelu", "config.json")
    'gelu_tanh'
    """
    name = default if config.get(key) is None else config[key]
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(f"{where}: {unknown_name(name, ACTIVATIONS, key)}")
    return ACTIVATIONS[name]


def renamed(config: Mapping[str, Any], names: Mapping[str, str], where: str) -> dict[str, Any]:
    """The config with one name for what it may call by either of two.

    Args:
      config: config.json.
      names: other name -> the name that is read.
      where: the file that errors name.

    Raises:
      ValueError: both names, with different values.

    >>> renamed({"hidden_size": 8}, {"hidden_size": "n_embd"}, "config.json")
    {'n_embd': 8}
    """
    found = {key: value for key, value in config.items() if key not in names}
    for other, name in names.items():
        if config.get(other) is None:
            continue
        if found.get(name) not in (None, config[other]):
            raise ValueError(f"{where}: {name} is {found[name]!r}, {other} is {config[other]!r}; they must agree")
        found[name] = config[other]
    return found


def divided(width: int, heads: int, keys: tuple[str, str], where: str) -> int:
    """The width of a head, of a model that has no other than its own width over its heads.

    Args:
      width: of the model.
      heads: how many.
      keys: what the file calls the two.
      where: the file that errors name.

    Raises:
      ValueError: they do not divide.

    >>> divided(64, 4, ("n_embd", "n_head"), "config.json")
    16
    """
    if heads < 1 or width % heads:
        raise ValueError(f"{where}: {keys[0]} is {width}, {keys[1]} is {heads}; the second must divide the first")
    return width // heads


def norm_rules(theirs: str, ours: str) -> tuple[Rule, Rule]:
    """A norm's weight and bias."""
    return Rule(f"{theirs}.weight", f"{ours}/scale"), Rule(f"{theirs}.bias", f"{ours}/bias")


def linear_rules(theirs: str, ours: str, transform: Transform | None = None) -> tuple[Rule, Rule]:
    """A linear map's weight, and its bias where the config makes one."""
    return Rule(f"{theirs}.weight", f"{ours}/kernel", transform), Rule(f"{theirs}.bias", f"{ours}/bias")


def fused_rules(
    theirs: str, config: TransformerConfig, groups: int, transform: Transform | None = None
) -> tuple[Rule, ...]:
    """One map that gives query, key and value.

    Args:
      theirs: its name without ``.weight``.
      config: as many key-value heads as query heads.
      groups: 1 if all queries come first, then all keys; the number of heads if each head has its three together.
      transform: None for kernels [out, in], ``TRANSPOSE`` for [in, out].
    """
    width = config.num_heads * config.head_width // groups
    rules = []
    for place, name in enumerate(("query", "key", "value")):
        start, stop = place * width, (place + 1) * width
        ours = f"layers/attention/{name}"
        kernel = Part(groups, 3 * width, start, stop, axis=0 if transform is None else 1)
        rules.append(Rule(f"{theirs}.weight", f"{ours}/kernel", transform, kernel))
        if config.qkv_bias:
            rules.append(Rule(f"{theirs}.bias", f"{ours}/bias", None, Part(groups, 3 * width, start, stop)))
    return tuple(rules)
