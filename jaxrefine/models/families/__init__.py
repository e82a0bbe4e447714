"""One file a model family: its config.json as ours and back, and its tensors' names."""

from __future__ import annotations

from jaxrefine.config import unknown_name
from jaxrefine.models.families.bloom import BLOOM
from jaxrefine.models.families.encoders import ENCODERS
from jaxrefine.models.families.falcon import FALCON
from jaxrefine.models.families.gemma import GEMMA, GEMMA2
from jaxrefine.models.families.gemma3 import GEMMA3, GEMMA3_WITH_VISION
from jaxrefine.models.families.gpt2 import BTLM, GPT2
from jaxrefine.models.families.gpt_neox import GPT_NEOX
from jaxrefine.models.families.gptj import GPTJ
from jaxrefine.models.families.llama import LLAMA
from jaxrefine.models.families.mistral import MISTRAL
from jaxrefine.models.families.opt import OPT
from jaxrefine.models.families.palm import PALM
from jaxrefine.models.families.qwen import QWEN2, QWEN3
from jaxrefine.models.families.stablelm import STABLELM
from jaxrefine.models.weights import Family

_ALL = (
    BLOOM,
    BTLM,
    FALCON,
    GEMMA,
    GEMMA2,
    GEMMA3,
    GEMMA3_WITH_VISION,
    GPT2,
    GPTJ,
    GPT_NEOX,
    LLAMA,
    MISTRAL,
    OPT,
    PALM,
    QWEN2,
    QWEN3,
    STABLELM,
)

FAMILIES: dict[str, Family] = {name: family for family in _ALL for name in family.names}
"""By ``model_type`` of config.json, and by its other names."""


def family_of(model_type: object, where: str) -> Family:
    """The family of that name, of decoders or encoders.

    Raises:
      ValueError: an unknown one; names ``where``, what is allowed and the nearest.
    """
    families = {**FAMILIES, **ENCODERS}
    if not isinstance(model_type, str) or model_type not in families:
        raise ValueError(f"{where}: {unknown_name(model_type, families, 'model_type')}")
    return families[model_type]
