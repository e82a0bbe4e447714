"""What encoders took over from BERT: attributes of config.json, names of tensors, and how a family is made of them."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from jaxrefine.config import unknown_name
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.families.attributes import check_known, check_value, integer, number
from jaxrefine.models.weights import Family, Rule

SIZES = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads max_position_embeddings "
    "hidden_act type_vocab_size layer_norm_eps"
)
_LABELS = frozenset({"num_labels", "id2label", "label2id"})
_ALWAYS_WRITTEN = frozenset({"architectures", "model_type", "torch_dtype", "dtype"})
_HARMLESS_NAMES = """
    attention_probs_dropout_prob classifier_dropout cls_dropout directionality gradient_checkpointing
    hidden_dropout_prob legacy output_past pooler_dropout pooler_fc_size pooler_num_attention_heads
    pooler_num_fc_layers pooler_size_per_head pooler_type tie_word_embeddings
"""
_HARMLESS = frozenset(_HARMLESS_NAMES.split())
"""Of training, of a masked language model's head, of tools long gone: nothing that an encoder computes with."""

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
    "tanh": "tanh",
}
"""Their word for an activation -> ours."""

ACTIVATION_NAMES = {"gelu": "gelu", "gelu_tanh": "gelu_new", "relu": "relu", "silu": "silu", "tanh": "tanh"}
"""Ours -> theirs."""


RENAMED = ((r"LayerNorm\.gamma$", "LayerNorm.weight"), (r"LayerNorm\.beta$", "LayerNorm.bias"))
"""Names that the first files have."""


def read_activation(config: Mapping[str, Any], key: str, default: str, where: str) -> str:
    """The activation, in our word."""
    name = default if config.get(key) is None else config[key]
    if name not in ACTIVATIONS:
        raise ValueError(f"{where}: {unknown_name(name, ACTIVATIONS, key)}")
    return ACTIVATIONS[name]


def read_sizes(
    config: Mapping[str, Any], where: str, *, position_offset: int, token_types: int, eps: float
) -> dict[str, Any]:
    """The fields of ``EncoderConfig`` that have one name in all these families.

    Args:
      config: config.json.
      where: the file that errors name.
      position_offset: rows of the table of positions before position 0.
      token_types: if ``type_vocab_size`` is absent.
      eps: if ``layer_norm_eps`` is absent.
    """
    width, heads = integer(config, "hidden_size", where), integer(config, "num_attention_heads", where)
    if heads < 1 or width % heads:
        raise ValueError(f"{where}: hidden_size is {width}, num_attention_heads is {heads}; they must divide")
    return {
        "vocab_size": integer(config, "vocab_size", where),
        "width": width,
        "num_layers": integer(config, "num_hidden_layers", where),
        "num_heads": heads,
        "head_width": width // heads,
        "hidden_width": integer(config, "intermediate_size", where),
        "max_positions": integer(config, "max_position_embeddings", where, 512) - position_offset,
        "norm_eps": number(config, "layer_norm_eps", where, eps),
        "activation": read_activation(config, "hidden_act", "gelu", where),
        "position_offset": position_offset,
        "num_token_types": integer(config, "type_vocab_size", where, token_types),
    }


def write_sizes(config: EncoderConfig) -> dict[str, Any]:
    """The same as attributes."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.hidden_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "max_position_embeddings": config.max_positions + config.position_offset,
        "hidden_act": ACTIVATION_NAMES[config.activation],
        "type_vocab_size": config.num_token_types,
        "layer_norm_eps": config.norm_eps,
    }


def describe_encoder(
    model_type: str,
    *,
    stem: str,
    handled: str,
    read: Callable[[Mapping[str, Any], str], dict[str, Any]],
    write: Callable[[EncoderConfig], dict[str, Any]],
    rules: Callable[[EncoderConfig], tuple[Rule, ...]],
    pooled_base: bool,
    pooler_key: str | None = None,
    fixed: Mapping[str, tuple[Any, ...]] | None = None,
    **names: Any,
) -> Family:
    """A family of encoders.

    ``architectures`` says whether there is a head: ``…ForSequenceClassification`` has a pooler and a classifier.

    Args:
      model_type: in config.json.
      stem: of transformers' class names.
      handled: the attributes that ``read`` reads besides ``SIZES``, separated by spaces.
      read: (config.json, the file that errors name) -> fields of ``EncoderConfig`` without the head's.
      write: its inverse.
      rules: of the tensors.
      pooled_base: ``…Model`` has a pooler.
      pooler_key: the attribute with the pooler's activation; None: it is tanh.
      fixed: attributes that mean what we compute only at these values.
      names: further arguments of ``Family``.
    """
    read_here = frozenset(f"{SIZES} {handled} {pooler_key or ''}".split())
    values = {"is_decoder": (None, False), **(fixed or {})}
    allowed = read_here | _HARMLESS | set(values)
    base, classifying = f"{stem}Model", f"{stem}ForSequenceClassification"

    def from_hf(config: Mapping[str, Any], *, where: str = "config.json") -> EncoderConfig:
        check_known(config, allowed, where)
        check_value({"model_type": config.get("model_type")}, "model_type", (model_type,), where)
        for key, choices in values.items():
            if key in config:
                check_value(config, key, choices, where)
        architectures = config.get("architectures") or []
        pooler = num_labels = None
        if classifying in architectures or (pooled_base and base in architectures):
            pooler = read_activation(config, pooler_key, "gelu", where) if pooler_key else "tanh"
        if classifying in architectures:
            num_labels = _num_labels(config, where)
        try:
            return EncoderConfig(**read(config, where), pooler=pooler, num_labels=num_labels)
        except ValueError as error:
            raise error if str(error).startswith(where) else ValueError(f"{where}: {error}") from error

    def extra(config: Mapping[str, Any]) -> dict[str, Any]:
        written = _ALWAYS_WRITTEN | read_here
        if classifying in (config.get("architectures") or []):
            written |= {"num_labels"}
        return {key: value for key, value in config.items() if key not in written}

    def to_hf(config: EncoderConfig, *, dtype: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
        kept = {key: value for key, value in (extra or {}).items() if key not in _ALWAYS_WRITTEN | read_here}
        check_known(kept, allowed, "extra")
        attributes = {"model_type": model_type, **write(config)}
        if config.num_labels is not None:
            attributes["architectures"] = [classifying]
            labels = kept.get("id2label")
            if not isinstance(labels, Mapping) or len(labels) != config.num_labels:
                kept = {key: value for key, value in kept.items() if key not in _LABELS}
                attributes["id2label"] = {str(i): f"LABEL_{i}" for i in range(config.num_labels)}
                attributes["label2id"] = {f"LABEL_{i}": i for i in range(config.num_labels)}
        elif pooled_base == (config.pooler is not None):
            attributes["architectures"] = [base]
        if pooler_key and config.pooler is not None:
            attributes[pooler_key] = ACTIVATION_NAMES[config.pooler]
        attributes |= {"torch_dtype": dtype, **kept}
        _check_same(config, from_hf(attributes, where=f"as a {model_type}"), model_type)
        return attributes

    return Family(
        model_type=model_type, from_hf=from_hf, to_hf=to_hf, extra=extra, rules=rules, renamed=RENAMED, **names
    )


def _num_labels(config: Mapping[str, Any], where: str) -> int:
    """Labels of the classifier: ``num_labels``, or as many as have names, or 2."""
    names = config.get("id2label")
    named = len(names) if isinstance(names, Mapping) else None
    given = integer(config, "num_labels", where, named or 2)
    if named is not None and given != named:
        raise ValueError(f"{where}: num_labels is {given}, id2label names {named}")
    return given


def _check_same(config: EncoderConfig, said: EncoderConfig, model_type: str) -> None:
    for field in dataclasses.fields(config):
        given, back = getattr(config, field.name), getattr(said, field.name)
        if given != back:
            raise ValueError(
                f"EncoderConfig.{field.name} is {given!r}; a {model_type} with its other mechanisms has {back!r}"
            )


def weight_and_bias(theirs: str, ours: str, weight: str = "kernel") -> tuple[Rule, Rule]:
    """The two tensors of a linear map, or of a norm with ``weight="scale"``."""
    return Rule(f"{theirs}.weight", f"{ours}/{weight}"), Rule(f"{theirs}.bias", f"{ours}/bias")


def encoder_rules(prefix: str, suffix: str = "", *, more: Iterable[Rule] = ()) -> tuple[Rule, ...]:
    """The tensors that all these families have.

    Args:
      prefix: of every name, such as ``bert``.
      suffix: of the names of queries, keys and values.
      more: what the family has besides.
    """
    layer = f"{prefix}.encoder.layer.{{layer}}"
    return (
        Rule(f"{prefix}.embeddings.word_embeddings.weight", "embed/embedding"),
        Rule(f"{prefix}.embeddings.position_embeddings.weight", "positions/embedding"),
        Rule(f"{prefix}.embeddings.token_type_embeddings.weight", "token_types/embedding"),
        *weight_and_bias(f"{prefix}.embeddings.LayerNorm", "embed_norm", "scale"),
        *(
            rule
            for name in ("query", "key", "value")
            for rule in weight_and_bias(f"{layer}.attention.self.{name}{suffix}", f"layers/attention/{name}")
        ),
        *weight_and_bias(f"{layer}.attention.output.dense", "layers/attention/out"),
        *weight_and_bias(f"{layer}.attention.output.LayerNorm", "layers/attention_norm", "scale"),
        *weight_and_bias(f"{layer}.intermediate.dense", "layers/feed_forward/up"),
        *weight_and_bias(f"{layer}.output.dense", "layers/feed_forward/down"),
        *weight_and_bias(f"{layer}.output.LayerNorm", "layers/feed_forward_norm", "scale"),
        *more,
    )
