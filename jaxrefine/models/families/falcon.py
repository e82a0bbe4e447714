"""Falcon: RW (ALiBi, one block after the other), 7B (multi-query, parallel), 40B and 180B (two norms), 11B (one norm).

Queries, keys and values are one tensor: a group for each key head, its queries first. ``RefinedWeb`` and
``RefinedWebModel`` are what the first releases say of 40B and of the others; their ``auto_map`` named code that
transformers has since taken over.

Sources: Almazrouei et al. 2023, arXiv:2311.16867; Penedo et al. 2023, arXiv:2306.01116 (RW).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.families.attributes import flag, integer, number
from jaxrefine.models.families.described import describe
from jaxrefine.models.families.llama_layout import (
    ACTIVATION_NAMES,
    ROPE,
    read_activation,
    rope_fields,
)
from jaxrefine.models.families.rope import write_rope
from jaxrefine.models.weights import Part, Rule

_EITHER = {
    "n_layer": "num_hidden_layers",
    "n_head": "num_attention_heads",
    "n_head_kv": "num_kv_heads",
    "n_embed": "hidden_size",
}
"""The older words for attributes, with the newer."""


def _newer(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    """The newer dialect of either; in the older, only the 40B form counts its key heads."""
    newer = {key: value for key, value in config.items() if key not in _EITHER}
    for old, new in _EITHER.items():
        if config.get(old) is None:
            continue
        if newer.setdefault(new, config[old]) != config[old]:
            raise ValueError(f"{where}: {old} is {config[old]!r}, {new} is {newer[new]!r}; they must agree")
    if config.get("n_head_kv") is not None:
        newer.setdefault("new_decoder_architecture", True)
    return newer


def _read(config: Mapping[str, Any], where: str) -> dict[str, Any]:
    config = _newer(config, where)
    width, heads = integer(config, "hidden_size", where), integer(config, "num_attention_heads", where)
    if heads < 1 or width % heads:
        raise ValueError(f"{where}: hidden_size is {width}, num_attention_heads is {heads}; they must divide")
    bias, alibi = flag(config, "bias", where, False), flag(config, "alibi", where, False)
    return {
        **_read_block(config, where, heads),
        **({} if alibi else rope_fields(config, where, width // heads)),
        "vocab_size": integer(config, "vocab_size", where),
        "width": width,
        "num_layers": integer(config, "num_hidden_layers", where),
        "num_heads": heads,
        "head_width": width // heads,
        "hidden_width": integer(config, "ffn_hidden_size", where, 4 * width),
        "max_positions": integer(config, "max_position_embeddings", where, 2048),
        "gated": False,
        "activation": read_activation(config, "activation", "gelu", where),
        "norm": "layer",
        "norm_bias": True,
        "norm_eps": number(config, "layer_norm_epsilon", where, 1e-5),
        "positions": "alibi" if alibi else "rope",
        "alibi_prescaled": alibi,
        "qkv_bias": bias,
        "o_bias": bias,
        "mlp_bias": bias,
        "tie_embeddings": flag(config, "tie_word_embeddings", where, True),
    }


def _read_block(config: Mapping[str, Any], where: str, heads: int) -> dict[str, Any]:
    """How attention and feed-forward stand to each other, and the key heads."""
    parallel = flag(config, "parallel_attn", where, True)
    if flag(config, "new_decoder_architecture", where, False):
        norms = integer(config, "num_ln_in_parallel_attn", where, 2)
        if norms not in (1, 2) or not parallel:
            raise ValueError(
                f"{where}: num_ln_in_parallel_attn is {norms}, parallel_attn is {parallel}; the new decoder "
                "architecture is parallel, with 1 norm or 2"
            )
        keys = integer(config, "num_kv_heads", where, heads)
        return {"num_kv_heads": keys, "parallel": True, "shared_norm": norms == 1}
    norms = integer(config, "num_ln_in_parallel_attn", where, 1)
    if norms != 1:
        raise ValueError(f"{where}: num_ln_in_parallel_attn is {norms}; only new_decoder_architecture has 2")
    keys = 1 if flag(config, "multi_query", where, True) else heads
    given = integer(config, "num_kv_heads", where, keys)
    if keys != 1 and given != keys:
        raise ValueError(f"{where}: num_kv_heads is {given}; without multi_query it is num_attention_heads = {heads}")
    return {"num_kv_heads": keys, "parallel": parallel, "shared_norm": parallel}


def _is_new(config: TransformerConfig) -> bool:
    """Whether only the new architecture has it: two norms in parallel, or fewer key heads than heads but several."""
    return config.parallel and (not config.shared_norm or config.num_kv_heads not in (1, config.num_heads))


def _write(config: TransformerConfig) -> dict[str, Any]:
    new = _is_new(config)
    attributes = {
        "vocab_size": config.vocab_size,
        "hidden_size": config.width,
        "num_hidden_layers": config.num_layers,
        "num_attention_heads": config.num_heads,
        "ffn_hidden_size": config.hidden_width,
        "max_position_embeddings": config.max_positions,
        "activation": ACTIVATION_NAMES[config.activation],
        "layer_norm_epsilon": config.norm_eps,
        "alibi": config.positions == "alibi",
        "new_decoder_architecture": new,
        "multi_query": config.num_kv_heads < config.num_heads,
        "parallel_attn": config.parallel,
        "bias": config.qkv_bias,
        "tie_word_embeddings": config.tie_embeddings,
        **(write_rope(config) if config.positions == "rope" else {}),
    }
    if new:
        attributes["num_ln_in_parallel_attn"] = 1 if config.shared_norm else 2
    if new or config.num_kv_heads > 1:
        attributes["num_kv_heads"] = config.num_kv_heads
    return attributes


def _silent(config: TransformerConfig) -> str:
    """Key heads are not counted where ``multi_query`` says that there is one; with ALiBi nothing rotates."""
    one = not _is_new(config) and config.num_kv_heads == 1
    return f"{'num_kv_heads' if one else ''} {ROPE if config.positions == 'alibi' else ''}"


def _rules(config: TransformerConfig) -> tuple[Rule, ...]:
    if config.parallel and not config.shared_norm:
        norms = {"ln_attn": "attention_norm", "ln_mlp": "feed_forward_norm"}
    else:
        norms = {"input_layernorm": "attention_norm", "post_attention_layernorm": "feed_forward_norm"}
    linear = {
        "self_attention.dense": "attention/out",
        "mlp.dense_h_to_4h": "feed_forward/up",
        "mlp.dense_4h_to_h": "feed_forward/down",
    }
    last = config.queries_per_key * config.head_width
    size = last + 2 * config.head_width
    ends = {"query": (0, last), "key": (last, last + config.head_width), "value": (last + config.head_width, size)}
    fused = tuple(
        _layer(
            f"self_attention.query_key_value.{theirs}",
            f"attention/{name}/{ours}",
            Part(groups=config.num_kv_heads, size=size, start=start, stop=stop),
        )
        for theirs, ours in (("weight", "kernel"), ("bias", "bias"))
        for name, (start, stop) in ends.items()
    )
    return (
        Rule("transformer.word_embeddings.weight", "embed/embedding"),
        *(_layer(f"{theirs}.weight", f"{ours}/scale") for theirs, ours in norms.items()),
        *(_layer(f"{theirs}.bias", f"{ours}/bias") for theirs, ours in norms.items()),
        *fused,
        *(_layer(f"{theirs}.weight", f"{ours}/kernel") for theirs, ours in linear.items()),
        *(_layer(f"{theirs}.bias", f"{ours}/bias") for theirs, ours in linear.items()),
        Rule("transformer.ln_f.weight", "norm/scale"),
        Rule("transformer.ln_f.bias", "norm/bias"),
        Rule("lm_head.weight", "head/kernel"),
    )


def _layer(theirs: str, ours: str, part: Part | None = None) -> Rule:
    return Rule(f"transformer.h.{{layer}}.{theirs}", f"layers/{ours}", part=part)


FALCON = describe(
    "falcon",
    model_types=("falcon", "RefinedWeb", "RefinedWebModel"),
    architecture="FalconForCausalLM",
    handled=(
        "vocab_size hidden_size num_hidden_layers num_attention_heads num_kv_heads num_ln_in_parallel_attn "
        "layer_norm_epsilon alibi new_decoder_architecture multi_query parallel_attn bias max_position_embeddings "
        f"ffn_hidden_size activation tie_word_embeddings {ROPE} {' '.join(_EITHER)}"
    ),
    fixed={"apply_residual_connection_post_layernorm": (False, None)},
    harmless="ff_factor",
    dropped="auto_map",
    read=_read,
    write=_write,
    inert=_silent,
    rules=_rules,
    ignored=(r"(transformer\.)?(h\.\d+\.self_attention\.(maybe_)?rotary|rotary_emb)(_emb)?\.inv_freq",),
    prefix="transformer.",
    tied=("lm_head.weight", "transformer.word_embeddings.weight"),
)
