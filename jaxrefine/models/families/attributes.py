"""Reading someone's config.json strictly: an attribute is handled, known to be harmless, or an error."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from jaxrefine.config import unknown_name

_HARMLESS = """
    _commit_hash _name_or_path architectures dtype model_type name_or_path tokenizer_class torch_dtype torchscript
    transformers_version unsloth_fixed unsloth_version use_cache initializer_range pretraining_tp
    _attn_implementation _attn_implementation_autoset _flash_attn_2_enabled attn_implementation
    output_attentions output_hidden_states output_scores return_dict return_dict_in_generate use_bfloat16
    bos_token_id decoder_start_token_id eos_token_id forced_bos_token_id forced_eos_token_id pad_token_id
    sep_token_id unk_token_id prefix finetuning_task id2label label2id num_labels problem_type task_specific_params
    bad_words_ids begin_suppress_tokens diversity_penalty do_sample early_stopping encoder_no_repeat_ngram_size
    exponential_decay_length_penalty length_penalty max_length min_length no_repeat_ngram_size num_beam_groups
    num_beams num_return_sequences remove_invalid_values repetition_penalty suppress_tokens temperature top_k top_p
    typical_p tf_legacy_loss
"""
HARMLESS = frozenset(_HARMLESS.split())
"""What changes no logit: provenance, token ids, what a forward pass returns, how a sampler is set, labels.

Rates of dropout, whatever their names, are harmless too.
"""

FIXED: dict[str, tuple[Any, ...]] = {
    "add_cross_attention": (False,),
    "chunk_size_feed_forward": (0,),
    "cross_attention_hidden_size": (),
    "is_decoder": (False, True),
    "is_encoder_decoder": (False,),
    "pruned_heads": ({},),
    "tie_encoder_decoder": (False,),
}
"""Mechanisms of every config that our networks do not have, with the values (None beside them) that switch them off."""


def check_known(config: Mapping[str, Any], handled: Iterable[str], where: str) -> None:
    """Refuses a config with an attribute that is neither handled nor known to change nothing.

    Raises:
      ValueError: names the file, the attribute, its value, what is allowed and the nearest.

    >>> check_known({"hiden_size": 8}, ["hidden_size"], "config.json")
    Traceback (most recent call last):
    ValueError: config.json: unknown attribute 'hiden_size' (8); did you mean 'hidden_size'? Allowed: ...
    """
    handled = frozenset(handled)
    for key, value in config.items():
        if key in handled or key in HARMLESS or "dropout" in key or "pdrop" in key:
            continue
        if key not in FIXED:
            message = unknown_name(key, handled | HARMLESS | set(FIXED), "attribute")
            raise ValueError(f"{where}: {message.replace(repr(key), f'{key!r} ({value!r})', 1)}")
        check_value(config, key, (None, *FIXED[key]), where)


def check_value(config: Mapping[str, Any], key: str, allowed: tuple[Any, ...], where: str) -> None:
    """Refuses a value outside ``allowed``."""
    value = config[key]
    if not any(value == one and isinstance(value, bool) == isinstance(one, bool) for one in allowed):
        choices = ", ".join(repr(one) for one in allowed)
        raise ValueError(f"{where}: {key} is {value!r}; allowed here: {choices}")


def integer(config: Mapping[str, Any], key: str, where: str, default: int | None = None) -> int:
    """An integer attribute; None and absence mean ``default``, without which it must be there."""
    value = _present(config, key, where, default)
    if isinstance(value, bool) or not isinstance(value, int):
        raise ValueError(f"{where}: {key} is {value!r}; it must be an integer")
    if abs(value) >= 2**31:  # no size of a model; a layout of so many layers would not even fit in memory
        raise ValueError(f"{where}: {key} is {value:.3g}; it must be below 2^31")
    return value


def number(config: Mapping[str, Any], key: str, where: str, default: float | None = None) -> float:
    """A number; None and absence mean ``default``, without which it must be there."""
    value = _present(config, key, where, default)
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise ValueError(f"{where}: {key} is {value!r}; it must be a number")
    return float(value)


def flag(config: Mapping[str, Any], key: str, where: str, default: bool) -> bool:
    """A boolean; None and absence mean ``default``."""
    value = _present(config, key, where, default)
    if not isinstance(value, bool):
        raise ValueError(f"{where}: {key} is {value!r}; it must be true or false")
    return value


def _present(config: Mapping[str, Any], key: str, where: str, default: Any) -> Any:
    value = config.get(key)
    value = default if value is None else value
    if value is None:
        raise ValueError(f"{where}: attribute {key!r} is missing ({unknown_name(key, config, 'attribute')})")
    return value
