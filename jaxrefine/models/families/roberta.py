"""RoBERTa and XLM-RoBERTa as Hugging Face writes them: positions count from behind the padding token's id."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.families.attributes import integer
from jaxrefine.models.families.encoder_layout import (
    describe_encoder,
    encoder_rules,
    read_sizes,
    weight_and_bias,
    write_sizes,
)
from jaxrefine.models.weights import Family, Rule


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    offset = integer(config, "pad_token_id", where, 1) + 1
    return read_sizes(config, where, position_offset=offset, token_types=2, eps=1e-12)


def _write(config: EncoderConfig) -> dict[str, Any]:
    return {**write_sizes(config), "pad_token_id": config.position_offset - 1}


def _rules(config: EncoderConfig) -> tuple[Rule, ...]:
    """The base model's pooler, or the two layers of the head, of which the first is a pooler by another name."""
    if config.num_labels is None:
        return encoder_rules("roberta", more=weight_and_bias("roberta.pooler.dense", "pooler"))
    dense, out = weight_and_bias("classifier.dense", "pooler"), weight_and_bias("classifier.out_proj", "classifier")
    return encoder_rules("roberta", more=(*dense, *out))


def _family(model_type: str, stem: str) -> Family:
    return describe_encoder(
        model_type,
        stem=stem,
        handled="pad_token_id",
        read=_read,
        write=_write,
        rules=_rules,
        pooled_base=True,
        fixed={"position_embedding_type": (None, "absolute")},
        ignored=(r"(roberta\.)?embeddings\.(position_ids|token_type_ids)", r"lm_head\..*"),
        optional=(r"(roberta\.)?pooler\..*", r"(roberta\.)?classifier\..*"),
        prefix="roberta.",
    )


ROBERTA = _family("roberta", "Roberta")
XLM_ROBERTA = _family("xlm-roberta", "XLMRoberta")
