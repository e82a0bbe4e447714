"""What most families took over from LLaMA: the attributes of the sizes, and the names of the tensors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxrefine.config import unknown_name
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families import rope
from jaxrefine.models.families.attributes import check_value, flag, integer
from jaxrefine.models.weights import Rule

SIZES = (
    "vocab_size hidden_size intermediate_size num_hidden_layers num_attention_heads num_key_value_heads "
    "max_position_embeddings tie_word_embeddings"
)
"""What ``read_sizes`` reads."""

ROPE = " ".join(rope.ROPE)
"""What ``rope_fields`` reads."""

IGNORED = (r"(model\.)?layers\.\d+\.self_attn\.rotary_emb\.inv_freq", r"(model\.)?rotary_emb\.inv_freq")
"""Tables that older versions of transformers stored."""

ACTIVATIONS = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_pytorch_tanh": "gelu_tanh",
    "gelu_new": "gelu_tanh",
    "relu": "relu",
}
"""Their word for an activation -> ours."""

ACTIVATION_NAMES = {"silu": "silu", "gelu": "gelu", "gelu_tanh": "gelu_pytorch_tanh", "relu": "relu"}
"""Ours -> theirs."""


def read_activation(config: Mapping[str, Any], key: str, default: str, where: str) -> str:
    """The activation, in our word."""
    name = default if config.get(key) is None else config[key]
    if not isinstance(name, str) or name not in ACTIVATIONS:
        raise ValueError(f"{where}: {unknown_name(name, ACTIVATIONS, key)}")
    return ACTIVATIONS[name]


def read_sizes(
    config: Mapping[str, Any], where: str, *, head_width: int | None, max_positions: int, tied: bool
) -> dict[str, Any]:
    """The fields of ``TransformerConfig`` that have one name in all these families.

    Args:
      config: config.json.
      where: the file that errors name.
      head_width: if ``head_dim`` is absent; None is the width of the model over its heads.
      max_positions: if ``max_position_embeddings`` is absent.
      tied: if ``tie_word_embeddings`` is absent.
    """
    width, heads = integer(config, "hidden_size", where), integer(config, "num_attention_heads", where)
    if head_width is None and config.get("head_dim") is None:
        if heads < 1 or width % heads:
            raise ValueError(f"{where}: hidden_size is {width}, num_attention_heads is {heads}; they must divide")
        head_width = width // heads
    return {
        "vocab_size": integer(config, "vocab_size", where),
        "width": width,
        "num_layers": integer(config, "num_hidden_layers", where),
        "num_heads": heads,
        "num_kv_heads": integer(config, "num_key_value_heads", where, heads),
        "head_width": integer(config, "head_dim", where, head_width),
        "hidden_width": integer(config, "intermediate_size", where),
        "max_positions": integer(config, "max_position_embeddings", where, max_positions),
        "tie_embeddings": flag(config, "tie_word_embeddings", where, tied),
    }


def write_sizes(config: TransformerConfig) -> dict[str, Any]:
    """The same as attributes, without ``head_dim``."""
    return {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "intermediate_size": config.hidden_width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "num_key_value_heads": config.num_kv_heads,
        "max_position_embeddings": config.max_positions,
        "tie_word_embeddings": config.tie_embeddings,
    }


def rope_fields(
    config: Mapping[str, Any], where: str, head_width: int, *, theta: float = 10_000.0, partial: float | None = None
) -> dict[str, Any]:
    """Base, scaling and extent of the rotation, from either dialect.

    Args:
      config: config.json.
      where: the file that errors name.
      head_width: of which ``partial_rotary_factor`` rotates, rounded down.
      theta: if neither dialect gives the base.
      partial: if neither gives that factor; None where the family has no other than 1.
    """
    base, scaling, share = rope.read_rope(config, where, theta=theta, partial=1.0 if partial is None else partial)
    if partial is None:
        check_value({rope.PARTIAL: share}, rope.PARTIAL, (1.0,), where)
    rope_width = int(head_width * share)
    return {
        "rope_theta": base,
        "rope_scaling": scaling,
        "rope_width": None if rope_width == head_width else rope_width,
    }


def read_windows(config: Mapping[str, Any], where: str, layers: int, default: list[bool]) -> tuple[bool, ...]:
    """Which layers see a window only, from ``layer_types``.

    Args:
      config: config.json.
      where: the file that errors name.
      layers: how many there are.
      default: if ``layer_types`` is absent.
    """
    types = config.get("layer_types")
    if types is None:
        return tuple(default)
    known = {"sliding_attention": True, "full_attention": False}
    if not isinstance(types, list) or len(types) != layers:
        raise ValueError(f"{where}: layer_types is {types!r}; it must be a list of {layers}, one a layer")
    for one in types:
        if one not in known:
            raise ValueError(f"{where}: {unknown_name(one, known, 'layer type')}")
    return tuple(known[one] for one in types)


def window_fields(window: int | None, windowed: tuple[bool, ...]) -> dict[str, Any]:
    """``window`` and ``window_layers``: None where they say nothing."""
    if window is None or not any(windowed):
        return {"window": None, "window_layers": None}
    return {"window": window, "window_layers": None if all(windowed) else windowed}


def layer_types(config: TransformerConfig) -> list[str]:
    """``layer_types`` of a config."""
    return ["sliding_attention" if one else "full_attention" for one in config.windowed_layers]


def layer_rule(theirs: str, ours: str) -> Rule:
    """A tensor of every layer."""
    return Rule(f"model.layers.{{layer}}.{theirs}", f"layers/{ours}")


LINEAR = {
    "self_attn.q_proj": "attention/query",
    "self_attn.k_proj": "attention/key",
    "self_attn.v_proj": "attention/value",
    "self_attn.o_proj": "attention/out",
    "mlp.gate_proj": "feed_forward/gate",
    "mlp.up_proj": "feed_forward/up",
    "mlp.down_proj": "feed_forward/down",
}
"""Linear maps of a layer, their names to ours."""

PRE_NORMS = {"input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm"}
"""LLaMA's two norms a layer; of the second, the name says where it stands and not what it reads."""


def layout_rules(norms: Mapping[str, str] = PRE_NORMS, *, more: Iterable[Rule] = ()) -> tuple[Rule, ...]:
    """All tensors that such a family may have; those whose parameter a config does not make must be absent.

    Args:
      norms: of a layer, their names to ours.
      more: what the family has besides.
    """
    return (
        Rule("model.embed_tokens.weight", "embed/embedding"),
        *(layer_rule(f"{theirs}.weight", f"{ours}/scale") for theirs, ours in norms.items()),
        *(layer_rule(f"{theirs}.bias", f"{ours}/bias") for theirs, ours in norms.items()),
        *(layer_rule(f"{theirs}.weight", f"{ours}/kernel") for theirs, ours in LINEAR.items()),
        *(layer_rule(f"{theirs}.bias", f"{ours}/bias") for theirs, ours in LINEAR.items()),
        *more,
        Rule("model.norm.weight", "norm/scale"),
        Rule("model.norm.bias", "norm/bias"),
        Rule("lm_head.weight", "head/kernel"),
    )


QK_NORMS = (
    layer_rule("self_attn.q_norm.weight", "attention/query_norm/scale"),
    layer_rule("self_attn.k_norm.weight", "attention/key_norm/scale"),
)
"""Norms of queries and keys over a head's features, one scale for all heads."""

NAMES: dict[str, Any] = {
    "ignored": IGNORED,
    "prefix": "model.",
    "tied": ("lm_head.weight", "model.embed_tokens.weight"),
}
"""Arguments of ``Family``."""
