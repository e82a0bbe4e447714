"""One file a model family: its config.json as ours and back, and its tensors' names."""

from __future__ import annotations

from jaxrefine.config import unknown_name
from jaxrefine.models.families.llama import LLAMA
from jaxrefine.models.weights import Family

FAMILIES: dict[str, Family] = {"llama": LLAMA}
"""By ``model_type`` of config.json."""


def family_of(model_type: object, where: str) -> Family:
    """The family of that name.

    Raises:
      ValueError: an unknown one; names ``where``, what is allowed and the nearest.
    """
    if not isinstance(model_type, str) or model_type not in FAMILIES:
        raise ValueError(f"{where}: {unknown_name(model_type, FAMILIES, 'model_type')}")
    return FAMILIES[model_type]
