"""DeBERTa-v2 and v3 (mDeBERTa-v3 too) as Hugging Face writes them: disentangled attention, v2-xlarge's convolution."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.config import unknown_name
from jaxrefine.models.encoder_config import Convolution, EncoderConfig, RelativePositions
from jaxrefine.models.families.attributes import check_value, flag, integer
from jaxrefine.models.families.encoder_layout import (
    ACTIVATION_NAMES,
    describe_encoder,
    encoder_rules,
    read_activation,
    read_sizes,
    weight_and_bias,
    write_sizes,
)
from jaxrefine.models.weights import Rule

_TERMS = {"c2p": "content_to_position", "p2c": "position_to_content"}
_TERM_NAMES = {ours: theirs for theirs, ours in _TERMS.items()}
_HANDLED = (
    "relative_attention max_relative_positions position_buckets norm_rel_ebd share_att_key pos_att_type "
    "position_biased_input embedding_size conv_kernel_size conv_groups conv_act pooler_hidden_size"
)


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    sizes = read_sizes(config, where, position_offset=0, token_types=0, eps=1e-7)
    width = sizes["width"]
    if config.get("pooler_hidden_size") is not None:
        check_value(config, "pooler_hidden_size", (width,), where)
    embed_width = integer(config, "embedding_size", where, width)
    biased = flag(config, "position_biased_input", where, True)
    return {
        **sizes,
        "positions": "learned" if biased else "none",
        "embed_width": None if embed_width == width else embed_width,
        "relative": _read_relative(config, where, sizes["max_positions"]),
        "convolution": _read_convolution(config, where),
    }


def _read_relative(config: Mapping[str, Any], where: str, max_positions: int) -> RelativePositions | None:
    names = config.get("pos_att_type") or []
    names = [name.strip() for name in names.lower().split("|")] if isinstance(names, str) else names
    for name in names:
        if name not in _TERMS:
            raise ValueError(f"{where}: {unknown_name(name, _TERMS, 'pos_att_type')}")
    norm = str(config.get("norm_rel_ebd") or "none").lower()
    if not flag(config, "relative_attention", where, False):
        if names or norm != "none":
            raise ValueError(
                f"{where}: relative_attention is false; pos_att_type is {names}, norm_rel_ebd is {norm!r}: both need it"
            )
        return None
    if norm not in ("none", "layer_norm"):
        raise ValueError(f"{where}: {unknown_name(norm, ('none', 'layer_norm'), 'norm_rel_ebd')}")
    farthest = integer(config, "max_relative_positions", where, -1)
    buckets = integer(config, "position_buckets", where, -1)
    return RelativePositions(
        max_distance=farthest if farthest > 0 else max_positions,
        num_buckets=buckets if buckets > 0 else None,
        terms=tuple(_TERMS[name] for name in names),
        shared_projections=flag(config, "share_att_key", where, False),
        norm=norm == "layer_norm",
    )


def _read_convolution(config: Mapping[str, Any], where: str) -> Convolution | None:
    width = integer(config, "conv_kernel_size", where, 0)
    if width <= 0:
        return None
    groups = integer(config, "conv_groups", where, 1)
    return Convolution(width=width, groups=groups, activation=read_activation(config, "conv_act", "tanh", where))


def _write(config: EncoderConfig) -> dict[str, Any]:
    attributes: dict[str, Any] = {
        **write_sizes(config),
        "position_biased_input": config.positions == "learned",
        "relative_attention": config.relative is not None,
    }
    if config.embed_width is not None:
        attributes["embedding_size"] = config.embed_width
    if config.relative is not None:
        relative = config.relative
        attributes |= {
            "max_relative_positions": relative.max_distance,
            "position_buckets": relative.num_buckets or -1,
            "norm_rel_ebd": "layer_norm" if relative.norm else "none",
            "share_att_key": relative.shared_projections,
            "pos_att_type": [_TERM_NAMES[term] for term in relative.terms],
        }
    if config.convolution is not None:
        attributes |= {
            "conv_kernel_size": config.convolution.width,
            "conv_groups": config.convolution.groups,
            "conv_act": ACTIVATION_NAMES[config.convolution.activation],
        }
    return attributes


_OWN = (
    Rule("deberta.embeddings.embed_proj.weight", "embed_projection/kernel"),
    *weight_and_bias("deberta.encoder.layer.{layer}.attention.self.pos_key_proj", "layers/attention/position_key"),
    *weight_and_bias("deberta.encoder.layer.{layer}.attention.self.pos_query_proj", "layers/attention/position_query"),
    Rule("deberta.encoder.rel_embeddings.weight", "relative/embedding"),
    *weight_and_bias("deberta.encoder.LayerNorm", "relative_norm", "scale"),
    *weight_and_bias("deberta.encoder.conv.conv", "convolution"),
    *weight_and_bias("deberta.encoder.conv.LayerNorm", "convolution_norm", "scale"),
    *weight_and_bias("pooler.dense", "pooler"),
    *weight_and_bias("classifier", "classifier"),
)


def _rules(_: EncoderConfig) -> tuple[Rule, ...]:
    return encoder_rules("deberta", "_proj", more=_OWN)


DEBERTA_V2 = describe_encoder(
    "deberta-v2",
    stem="DebertaV2",
    handled=_HANDLED,
    read=_read,
    write=_write,
    rules=_rules,
    pooled_base=False,
    pooler_key="pooler_hidden_act",
    ignored=(
        r"(deberta\.)?embeddings\.position_ids",
        r"(lm_predictions|mask_predictions|cls)\..*",
        r".*\.word_embeddings\._weight",  # what the pre-training of v3 added to a shared embedding
    ),
    optional=(r"pooler\..*", r"classifier\..*", r"(deberta\.)?embeddings\.position_embeddings\..*"),
    prefix="deberta.",
)
