"""Gemma 3's text models: Gemma 2 without soft-caps in attention, with norms of queries and keys and two rotary bases.

The models from 4B on are published with a vision tower, as ``gemma3``: of these the text model alone is read, and it
is written as the text model that it is.

Source: Gemma Team 2025, arXiv:2503.19786.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import check_known, integer
from jaxrefine.models.families.described import describe
from jaxrefine.models.families.gemma import (
    ONE_WAY,
    SANDWICH_NORMS,
    read_sandwich,
    read_shared,
    silent_window,
    soft_cap,
    write_sandwich,
    write_shared,
)
from jaxrefine.models.families.llama_layout import (
    NAMES,
    QK_NORMS,
    ROPE,
    SIZES,
    layout_rules,
    rope_fields,
)
from jaxrefine.models.families.rope import write_rope
from jaxrefine.models.weights import Family

_PATTERN = ("sliding_window_pattern", "_sliding_window_pattern")
_LAYERS = ("full_attention", "sliding_attention")


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    sizes = read_shared(config, where, kv_heads=4, max_positions=131_072)
    patterns = {integer(config, key, where) for key in _PATTERN if config.get(key) is not None} or {6}
    if len(patterns) > 1 or min(patterns) < 1:
        raise ValueError(f"{where}: sliding_window_pattern is {sorted(patterns)}; it must be one positive number")
    sandwich = read_sandwich(config, where, sizes, patterns.pop())
    rope = _read_rope(config, where, sizes["head_width"])
    if sandwich["window"] is None:
        rope["rope_local_theta"] = None
    return {
        **sizes,
        **rope,
        **sandwich,
        "qk_norm": "rms",
        "logit_softcap": soft_cap(config, "final_logit_softcapping", where, None),
    }


def _read_rope(config: Mapping[str, Any], where: str, head_width: int) -> dict[str, Any]:
    """Two rotary tables: ``rope_theta`` and ``rope_local_base_freq``, or an object of ``rope_parameters`` each."""
    both = config.get("rope_parameters")
    if both is None:
        both = {}
    if not isinstance(both, dict) or set(both) - set(_LAYERS):
        raise ValueError(f"{where}: rope_parameters is {both!r}; it must be an object with {' and '.join(_LAYERS)}")
    full = {key: config.get(key) for key in ("rope_theta", "rope_scaling")} | {"rope_parameters": both.get(_LAYERS[0])}
    local = {"rope_theta": config.get("rope_local_base_freq"), "rope_parameters": both.get(_LAYERS[1])}
    fields = rope_fields(full, where, head_width, theta=1_000_000.0)
    of_windows = rope_fields(local, f"{where}: sliding_attention", head_width, theta=10_000.0)
    if of_windows["rope_scaling"] is not None:
        raise ValueError(f"{where}: rope_parameters: sliding_attention has a scaling; allowed: rope_type 'default'")
    return {**fields, "rope_local_theta": of_windows["rope_theta"]}


def _write(config: TransformerConfig) -> dict[str, Any]:
    rope = write_rope(config)
    full = [layer + 1 for layer, windowed in enumerate(config.windowed_layers) if not windowed]
    pattern = full[0] if full else config.num_layers + 1
    regular = full == list(range(pattern, config.num_layers + 1, pattern))
    local = 10_000.0 if config.rope_local_theta is None else config.rope_local_theta
    return {
        **write_shared(config),
        **rope,
        "rope_local_base_freq": local,
        "rope_parameters": {
            _LAYERS[0]: rope["rope_parameters"],
            _LAYERS[1]: {"rope_theta": local, "rope_type": "default"},
        },
        **write_sandwich(config),
        **({"sliding_window_pattern": pattern} if regular else {}),
        "final_logit_softcapping": config.logit_softcap,
    }


GEMMA3 = describe(
    "gemma3_text",
    architecture="Gemma3ForCausalLM",
    handled=(
        f"{SIZES} {ROPE} rope_local_base_freq head_dim rms_norm_eps attention_bias hidden_activation "
        f"query_pre_attn_scalar sliding_window layer_types final_logit_softcapping {' '.join(_PATTERN)}"
    ),
    fixed={**ONE_WAY, "hidden_act": ("gelu_pytorch_tanh", None), "attn_logit_softcapping": (None,)},
    harmless="cache_implementation",
    read=_read,
    write=_write,
    inert=silent_window,
    rules=lambda _: layout_rules(SANDWICH_NORMS, more=QK_NORMS),
    **NAMES,
)

_OF_IMAGES = (
    "vision_config",
    "mm_tokens_per_image",
    "boi_token_index",
    "eoi_token_index",
    "image_token_index",
    "boi_token_id",
    "eoi_token_id",
    "image_token_id",
)
_TEXT_DEFAULTS: dict[str, Any] = {
    "model_type": "gemma3_text",
    "vocab_size": 262_208,
    "hidden_size": 2304,
    "intermediate_size": 9216,
    "num_hidden_layers": 26,
    "num_attention_heads": 8,
}
"""What ``text_config`` may leave out, as transformers fills it in; ``read_shared`` knows the rest."""


def _text_config(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The text model's attributes; the ids of tokens are those of the whole."""
    check_known(config, ("text_config", "tie_word_embeddings", *_OF_IMAGES), where)
    text = config.get("text_config")
    if not isinstance(text, dict):
        raise ValueError(f"{where}: text_config is {text!r}; it must be an object")
    outer = {key: value for key, value in config.items() if key not in ("text_config", "model_type", *_OF_IMAGES)}
    return outer | _TEXT_DEFAULTS | text


def _from_multimodal(config: Mapping[str, Any], *, where: str = "config.json") -> TransformerConfig:
    return GEMMA3.from_hf(_text_config(config, where), where=f"{where}: text_config")


def _extra_of_multimodal(config: Mapping[str, Any]) -> dict[str, Any]:
    return GEMMA3.extra(_text_config(config, "config.json"))


GEMMA3_WITH_VISION = Family(
    model_type="gemma3_text",
    model_types=("gemma3",),
    from_hf=_from_multimodal,
    to_hf=GEMMA3.to_hf,
    extra=_extra_of_multimodal,
    rules=GEMMA3.rules,
    renamed=((r"^language_model\.(model\.|lm_head\.)", r"\1"), (r"^model\.language_model\.", "model.")),
    **{**NAMES, "ignored": (*NAMES["ignored"], r"(model\.)?(vision_tower|multi_modal_projector)\..*")},
)
