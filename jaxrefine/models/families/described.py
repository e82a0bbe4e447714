"""A family from two functions: what its attributes mean, and how ours are said in them.

All else is alike: attributes are read strictly, those that ours does not hold are kept and written back, and what is
written is read again, so a mechanism that the family cannot say is an error and never a silent loss.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import check_known, check_value
from jaxrefine.models.weights import Family, Rule

_ALWAYS_WRITTEN = frozenset({"architectures", "model_type", "torch_dtype", "dtype"})
_NOTHING: Mapping[str, Any] = {}


def describe(
    model_type: str,
    *,
    architecture: str,
    handled: str,
    read: Callable[[Mapping[str, Any], str], dict[str, Any]],
    write: Callable[[TransformerConfig], dict[str, Any]],
    rules: Callable[[TransformerConfig], tuple[Rule, ...]],
    fixed: Mapping[str, tuple[Any, ...]] = _NOTHING,
    harmless: str = "",
    dropped: str = "",
    inert: Callable[[TransformerConfig], str] = lambda _: "",
    **names: Any,
) -> Family:
    """A family.

    Args:
      model_type: as it is written; ``names["model_types"]`` has what is read, if there is more.
      architecture: the class of transformers that has its logits.
      handled: the attributes that ``read`` reads, separated by spaces.
      read: (config.json, the file that errors name) -> fields of ``TransformerConfig``.
      write: its inverse.
      rules: of the tensors.
      fixed: attributes that mean what we compute only at these values; kept as they are.
      harmless: attributes that change no logit; kept as they are.
      dropped: attributes that are neither read nor written.
      inert: of those handled, the ones that say nothing for this config; kept as they are.
      names: further arguments of ``Family``.
    """
    allowed = frozenset(f"{handled} {harmless} {dropped}".split()) | set(fixed)
    model_types = tuple(names.get("model_types", ())) or (model_type,)

    def from_hf(config: Mapping[str, Any], *, where: str = "config.json") -> TransformerConfig:
        check_known(config, allowed, where)
        check_value({"model_type": config.get("model_type")}, "model_type", model_types, where)
        for key, values in fixed.items():
            if key in config:
                check_value(config, key, values, where)
        try:
            return TransformerConfig(**read(config, where))
        except ValueError as error:
            raise error if str(error).startswith(where) else ValueError(f"{where}: {error}") from error

    def extra(config: Mapping[str, Any]) -> dict[str, Any]:
        known = {key: value for key, value in config.items() if key in allowed}
        silent = inert(TransformerConfig(**read(known, "config.json"))).split()
        written = (_ALWAYS_WRITTEN | set(f"{handled} {dropped}".split())) - set(silent)
        return {key: value for key, value in config.items() if key not in written}

    def to_hf(config: TransformerConfig, *, dtype: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        lost = (_ALWAYS_WRITTEN | set(f"{handled} {dropped}".split())) - set(inert(config).split())
        kept = {key: value for key, value in (extra or {}).items() if key not in lost}
        check_known(kept, allowed, "extra")
        attributes = {
            "architectures": [architecture],
            "model_type": model_type,
            **write(config),
            "torch_dtype": dtype,
            **kept,
        }
        _check_same(config, from_hf(attributes, where=f"as a {model_type}"), model_type)
        return attributes

    return Family(model_type=model_type, from_hf=from_hf, to_hf=to_hf, extra=extra, rules=rules, **names)


def _check_same(config: TransformerConfig, said: TransformerConfig, model_type: str) -> None:
    for field in dataclasses.fields(config):
        given, back = getattr(config, field.name), getattr(said, field.name)
        if given != back:
            raise ValueError(
                f"TransformerConfig.{field.name} is {given!r}; a {model_type} with its other mechanisms has {back!r}"
            )
