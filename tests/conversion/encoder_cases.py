"""Small encoders: config.json of one a mechanism, and checkpoints of weights that any machine computes alike."""

from __future__ import annotations

import pathlib
from typing import Any

import numpy as np

from jaxrefine.conversion.apply import abstract_params, by_path
from jaxrefine.conversion.exporting import export
from jaxrefine.models.families import ENCODERS
from tests.conversion.checkpoints import wave, write_checkpoint

_SIZES: dict[str, Any] = {
    "vocab_size": 61,
    "hidden_size": 24,
    "num_hidden_layers": 2,
    "num_attention_heads": 3,
    "intermediate_size": 40,
    "hidden_act": "gelu",
    "max_position_embeddings": 64,
    "layer_norm_eps": 1e-7,
    "hidden_dropout_prob": 0.1,
    "attention_probs_dropout_prob": 0.1,
    "pad_token_id": 0,
    "id2label": {"0": "a", "1": "b", "2": "c"},
    "label2id": {"a": 0, "b": 1, "c": 2},
}
_V3: dict[str, Any] = _SIZES | {
    "model_type": "deberta-v2",
    "architectures": ["DebertaV2ForSequenceClassification"],
    "type_vocab_size": 0,
    "position_biased_input": False,
    "relative_attention": True,
    "max_relative_positions": -1,
    "max_position_embeddings": 16,
    "position_buckets": 8,
    "norm_rel_ebd": "layer_norm",
    "share_att_key": True,
    "pos_att_type": "p2c|c2p",
    "pooler_hidden_act": "gelu",
    "pooler_hidden_size": 24,
    "pooler_dropout": 0,
}
_BERT = _SIZES | {
    "model_type": "bert",
    "architectures": ["BertForSequenceClassification"],
    "layer_norm_eps": 1e-12,
    "type_vocab_size": 2,
}
_ROBERTA = _BERT | {
    "model_type": "roberta",
    "architectures": ["RobertaForSequenceClassification"],
    "max_position_embeddings": 66,
    "pad_token_id": 1,
    "type_vocab_size": 1,
}
ENCODER_CASES: dict[str, dict[str, Any]] = {
    "deberta-v3": _V3,
    "deberta-own-maps": _V3
    | {"share_att_key": False, "pos_att_type": ["c2p"], "position_buckets": -1, "norm_rel_ebd": "none"},
    "deberta-p2c": _V3 | {"share_att_key": False, "pos_att_type": ["p2c"], "max_relative_positions": 10},
    "deberta-convolution": _V3
    | {
        "conv_kernel_size": 3,
        "conv_groups": 2,
        "conv_act": "gelu",
        "position_biased_input": True,
        "max_position_embeddings": 64,
        "type_vocab_size": 2,
        "embedding_size": 16,
        "pooler_hidden_act": "tanh",
    },
    "bert": _BERT,
    "bert-relu": _BERT | {"hidden_act": "relu", "num_attention_heads": 2, "layer_norm_eps": 1e-5},
    "roberta": _ROBERTA,
    "xlm-roberta": _ROBERTA
    | {
        "model_type": "xlm-roberta",
        "architectures": ["XLMRobertaForSequenceClassification"],
        "hidden_act": "gelu_new",
        "pad_token_id": 4,
        "max_position_embeddings": 69,
    },
}
"""In the dialect of the hub; each with a classifier of three labels."""

LENGTH = 40
"""More than twice the largest distance of the DeBERTas, so that distances are clipped."""


def encoder_tensors(attributes: dict[str, Any], dtype: Any = np.float32) -> dict[str, np.ndarray]:
    """All tensors of an encoder of these attributes, by their names."""
    family = ENCODERS[attributes["model_type"]]
    config = family.from_hf(attributes)
    leaves = {path: wave(path, leaf.shape) for path, leaf in by_path(abstract_params(config)).items()}
    return dict(export(family.rules(config), leaves, np.dtype(dtype), family.model_type))


def write_encoder(directory: pathlib.Path, attributes: dict[str, Any], **layout: Any) -> pathlib.Path:
    """A checkpoint of these attributes."""
    return write_checkpoint(directory, attributes, encoder_tensors(attributes), **layout)


def encoder_rows(attributes: dict[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Tokens of four rows, and which of them are real: one without padding, two padded right, one padded left."""
    slots = np.arange(LENGTH)
    real = np.stack([slots >= 0, slots < 23, slots < 1, slots >= 9])
    tokens = 5 + (np.arange(4 * LENGTH, dtype=np.int64).reshape(4, LENGTH) * 7919 + 13) % (attributes["vocab_size"] - 5)
    return np.where(real, tokens, attributes["pad_token_id"]), real
