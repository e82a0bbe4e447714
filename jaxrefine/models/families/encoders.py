"""The families of encoders, by name."""

from __future__ import annotations

from jaxrefine.models.families.bert import BERT
from jaxrefine.models.families.deberta_v2 import DEBERTA_V2
from jaxrefine.models.families.roberta import ROBERTA, XLM_ROBERTA
from jaxrefine.models.weights import Family

ENCODERS: dict[str, Family] = {family.model_type: family for family in (BERT, DEBERTA_V2, ROBERTA, XLM_ROBERTA)}
"""By ``model_type`` of config.json."""
