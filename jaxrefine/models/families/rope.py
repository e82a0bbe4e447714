"""Rotary positions in both dialects of config.json.

The older has ``rope_theta`` beside ``rope_scaling`` (whose kind is ``type`` or ``rope_type``) and
``partial_rotary_factor``, the newer has all in ``rope_parameters``. Both are read and, with the same meaning, both are
written, so every transformers loads it.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from jaxrefine.config import unknown_name
from jaxrefine.models.config import RopeScaling, TransformerConfig
from jaxrefine.models.families.attributes import integer, number

ROPE = ("rope_theta", "rope_scaling", "rope_parameters")
"""The attributes that both functions have in common."""

PARTIAL = "partial_rotary_factor"

_SCALING_KEYS: dict[str, tuple[str, ...]] = {
    "default": (),
    "linear": ("factor",),
    "llama3": ("factor", "low_freq_factor", "high_freq_factor", "original_max_position_embeddings"),
}
"""Kinds of rotary scaling, with what each needs."""

_Found = tuple[float | None, RopeScaling | None, float | None]


def read_rope(
    config: Mapping[str, Any], where: str, *, theta: float = 10_000.0, partial: float = 1.0
) -> tuple[float, RopeScaling | None, float]:
    """Base and scaling of the rotary frequencies, and the share of a head that rotates.

    Args:
      config: config.json, in either dialect, or in both if they agree.
      where: the file that errors name.
      theta: if the file gives no base.
      partial: if it gives no share.

    Raises:
      ValueError: an unknown kind of scaling, dialects that disagree; names the key.

    >>> read_rope({"rope_theta": 5e5, "rope_scaling": {"type": "linear", "factor": 2.0}}, "config.json")[0]
    500000.0
    """
    found: dict[str, _Found] = {}
    for key in ("rope_parameters", "rope_scaling"):
        if config.get(key) is not None:
            found[key] = _read_object(config[key], f"{where}: {key}")
    scalings = {scaling for _, scaling, _ in found.values()}
    if len(scalings) > 1:
        raise ValueError(
            f"{where}: rope_parameters and rope_scaling disagree: {config['rope_parameters']!r} and "
            f"{config['rope_scaling']!r}"
        )
    thetas = [base for base, _, _ in found.values()]
    shares = [share for _, _, share in found.values()]
    return (
        _one(config, "rope_theta", thetas, where, theta),
        scalings.pop() if scalings else None,
        _one(config, PARTIAL, shares, where, partial),
    )


def _one(config: Mapping[str, Any], key: str, given: list[float | None], where: str, default: float) -> float:
    """The value that all places agree on."""
    values = {value for value in given if value is not None}
    if config.get(key) is not None:
        values.add(number(config, key, where))
    if len(values) > 1:
        raise ValueError(f"{where}: {key} has several values: {', '.join(map(str, sorted(values)))}")
    return values.pop() if values else default


def _read_object(rope: Any, where: str) -> _Found:
    if not isinstance(rope, dict):
        raise ValueError(f"{where} is {rope!r}; it must be an object")
    kinds = {rope[key] for key in ("rope_type", "type") if isinstance(rope.get(key), str)}
    if len(kinds) > 1:
        raise ValueError(f"{where}: rope_type is {rope['rope_type']!r}, type is {rope['type']!r}; they must agree")
    kind = kinds.pop() if kinds else "default"
    if kind not in _SCALING_KEYS:
        raise ValueError(f"{where}: {unknown_name(kind, _SCALING_KEYS, 'rope_type')}")
    allowed = ("rope_type", "type", "rope_theta", PARTIAL, *_SCALING_KEYS[kind])
    for key in rope:
        if key not in allowed:
            raise ValueError(f"{where}: {unknown_name(key, allowed, f'attribute of rope_type {kind!r}')}")
    theta = None if rope.get("rope_theta") is None else number(rope, "rope_theta", where)
    partial = None if rope.get(PARTIAL) is None else number(rope, PARTIAL, where)
    if kind == "default":
        return theta, None, partial
    if kind == "linear":
        return theta, RopeScaling(kind=kind, factor=number(rope, "factor", where)), partial
    scaling = RopeScaling(
        kind=kind,
        factor=number(rope, "factor", where),
        low_freq_factor=number(rope, "low_freq_factor", where),
        high_freq_factor=number(rope, "high_freq_factor", where),
        original_max_positions=integer(rope, "original_max_position_embeddings", where),
    )
    return theta, scaling, partial


def write_rope(config: TransformerConfig, *, partial: bool = False) -> dict[str, Any]:
    """The same as attributes, in both dialects.

    Args:
      config: ours.
      partial: whether the share of a head that rotates is written.
    """
    scaling: dict[str, Any] | None = None
    if config.rope_scaling is not None:
        values = config.rope_scaling
        scaling = {
            "rope_type": values.kind,
            "factor": values.factor,
            "low_freq_factor": values.low_freq_factor,
            "high_freq_factor": values.high_freq_factor,
            "original_max_position_embeddings": values.original_max_positions,
        }
        scaling = {key: scaling[key] for key in ("rope_type", *_SCALING_KEYS[values.kind])}
    share = {PARTIAL: _share(config.rotated_width, config.head_width)} if partial else {}
    return {
        "rope_theta": config.rope_theta,
        "rope_scaling": scaling,
        "rope_parameters": {"rope_theta": config.rope_theta, **(scaling or {"rope_type": "default"}), **share},
        **share,
    }


def _share(part: int, whole: int) -> float:
    """The share of which readers make the part again, by ``int(whole * share)``."""
    share = part / whole
    return share if int(whole * share) == part else math.nextafter(share, 1.0)
