"""BERT as Hugging Face writes it: learned positions, token types, a tanh pooler."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.families.encoder_layout import (
    describe_encoder,
    encoder_rules,
    read_sizes,
    weight_and_bias,
    write_sizes,
)
from jaxrefine.models.weights import Rule


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    return read_sizes(config, where, position_offset=0, token_types=2, eps=1e-12)


def _rules(_: EncoderConfig) -> tuple[Rule, ...]:
    pooler, classifier = weight_and_bias("bert.pooler.dense", "pooler"), weight_and_bias("classifier", "classifier")
    return encoder_rules("bert", more=(*pooler, *classifier))


BERT = describe_encoder(
    "bert",
    stem="Bert",
    handled="",
    read=_read,
    write=write_sizes,
    rules=_rules,
    pooled_base=True,
    fixed={"position_embedding_type": (None, "absolute")},
    ignored=(r"(bert\.)?embeddings\.(position_ids|token_type_ids)", r"cls\..*"),
    optional=(r"(bert\.)?pooler\..*", r"classifier\..*"),
    prefix="bert.",
)
