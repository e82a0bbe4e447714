"""LLaMA 1, 2, 3, 3.1 and 3.2 as Hugging Face writes them: config.json in both dialects, and the tensors' names."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import check_known, check_value, flag, integer, number
from jaxrefine.models.families.llama_layout import LINEAR, layer_rule
from jaxrefine.models.families.rope import PARTIAL, read_rope, write_rope
from jaxrefine.models.weights import Family, Rule

_SIZES = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads head_dim "
    "max_position_embeddings max_sequence_length rms_norm_eps hidden_act attention_bias mlp_bias tie_word_embeddings "
    "rope_theta rope_scaling rope_parameters"
)
_HANDLED = frozenset(_SIZES.split())

_WRITTEN = _HANDLED | {"architectures", "model_type", "torch_dtype", "dtype"}


def from_hf(config: Mapping[str, Any], *, where: str = "config.json") -> TransformerConfig:
    """A LLaMA's config.json as our config.

    Args:
      config: what config.json holds.
      where: the file that errors name.

    Raises:
      ValueError: an attribute that is unknown, missing, of the wrong type, or asks for what we do not compute.

    >>> from_hf({"model_type": "llama", "vocab_size": 32001, "hidden_size": 64, "intermediate_size": 176,
    ...          "num_hidden_layers": 2, "num_attention_heads": 4, "rms_norm_eps": 1e-6}).vocab_size
    32001

    Defaults of absent attributes are those of ``transformers.LlamaConfig``.
    """
    check_known(config, _HANDLED, where)
    check_value({"model_type": config.get("model_type")}, "model_type", ("llama",), where)
    check_value({"hidden_act": config.get("hidden_act") or "silu"}, "hidden_act", ("silu",), where)
    width = integer(config, "hidden_size", where)
    heads = integer(config, "num_attention_heads", where)
    if config.get("head_dim") is None and (heads < 1 or width % heads):
        raise ValueError(f"{where}: hidden_size is {width}, num_attention_heads is {heads}: give head_dim")
    bias = flag(config, "attention_bias", where, False)
    try:
        theta, scaling, partial = read_rope(config, where)
        check_value({PARTIAL: partial}, PARTIAL, (1.0,), where)
        return TransformerConfig(
            vocab_size=integer(config, "vocab_size", where),
            width=width,
            num_layers=integer(config, "num_hidden_layers", where),
            num_heads=heads,
            num_kv_heads=integer(config, "num_key_value_heads", where, heads),
            head_width=integer(config, "head_dim", where, width // heads),
            hidden_width=integer(config, "intermediate_size", where),
            max_positions=_max_positions(config, where),
            norm_eps=number(config, "rms_norm_eps", where, 1e-6),
            rope_theta=theta,
            rope_scaling=scaling,
            activation="silu",
            qkv_bias=bias,
            o_bias=bias,
            mlp_bias=flag(config, "mlp_bias", where, False),
            tie_embeddings=flag(config, "tie_word_embeddings", where, False),
        )
    except ValueError as error:
        raise error if str(error).startswith(where) else ValueError(f"{where}: {error}") from error


def _max_positions(config: Mapping[str, Any], where: str) -> int:
    """``max_position_embeddings``; the first conversions called it ``max_sequence_length``."""
    names = ("max_position_embeddings", "max_sequence_length")
    given = [integer(config, name, where) for name in names if config.get(name) is not None]
    if len(set(given)) > 1:
        raise ValueError(f"{where}: {names[0]} is {given[0]}, {names[1]} is {given[1]}; they must agree")
    return given[0] if given else 2048


def to_hf(config: TransformerConfig, *, dtype: str, extra: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """Our config as a LLaMA's config.json.

    Args:
      config: ours.
      dtype: of the stored weights, such as "bfloat16".
      extra: attributes that ours does not hold, as ``extra_attributes`` keeps them.

    Raises:
      ValueError: a mechanism that LLaMA does not have, or an unknown attribute in ``extra``.
    """
    if config.activation != "silu":
        raise ValueError(f"TransformerConfig.activation is {config.activation!r}; a LLaMA has 'silu'")
    if config.qkv_bias != config.o_bias:
        raise ValueError(
            f"TransformerConfig.qkv_bias is {config.qkv_bias}, o_bias is {config.o_bias}; a LLaMA has both or neither"
        )
    if config.width % config.num_heads:
        raise ValueError(
            f"TransformerConfig.width is {config.width}; transformers loads only multiples of "
            f"num_heads = {config.num_heads}"
        )
    kept = {key: value for key, value in (extra or {}).items() if key not in _WRITTEN}
    check_known(kept, (), "extra")
    attributes = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.hidden_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "head_dim": config.head_width,
        "hidden_act": "silu",
        "max_position_embeddings": config.max_positions,
        "rms_norm_eps": config.norm_eps,
        **write_rope(config),
        "attention_bias": config.qkv_bias,
        "mlp_bias": config.mlp_bias,
        "tie_word_embeddings": config.tie_embeddings,
        "torch_dtype": dtype,
        **kept,
    }
    said = from_hf(attributes, where="as a llama")
    for field in dataclasses.fields(config):
        given, back = getattr(config, field.name), getattr(said, field.name)
        if given != back:
            raise ValueError(f"TransformerConfig.{field.name} is {given!r}; a LLaMA has {back!r}")
    return attributes


def extra_attributes(config: Mapping[str, Any]) -> dict[str, Any]:
    """The attributes of a config.json that ``from_hf`` does not read and ``to_hf`` cannot make up."""
    return {key: value for key, value in config.items() if key not in _WRITTEN}


WEIGHTS: tuple[Rule, ...] = (
    Rule("model.embed_tokens.weight", "embed/embedding"),
    layer_rule("input_layernorm.weight", "attention_norm/scale"),
    *(layer_rule(f"{theirs}.weight", f"{ours}/kernel") for theirs, ours in LINEAR.items()),
    *(layer_rule(f"{theirs}.bias", f"{ours}/bias") for theirs, ours in LINEAR.items()),
    layer_rule("post_attention_layernorm.weight", "feed_forward_norm/scale"),
    Rule("model.norm.weight", "norm/scale"),
    Rule("lm_head.weight", "head/kernel"),
)
"""All tensors a LLaMA may have; those whose parameter a config does not make must be absent."""

LLAMA = Family(
    model_type="llama",
    from_hf=from_hf,
    to_hf=to_hf,
    extra=extra_attributes,
    rules=lambda config: WEIGHTS,
    ignored=(r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"(model\.)?rotary_emb\.inv_freq"),
    prefix="model.",
    tied=("lm_head.weight", "model.embed_tokens.weight"),
)
