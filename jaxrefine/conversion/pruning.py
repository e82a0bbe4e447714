"""A smaller model from a larger one: its first layers, with everything around them.

What is left has lost much of what it knew and has to be trained again; it starts far ahead of a new model of its size.
"""

from __future__ import annotations

import dataclasses
import pathlib

import jax

from jaxrefine.conversion.pretrained import load_pretrained, save_pretrained
from jaxrefine.models.config import TransformerConfig
from jaxrefine.typing import Params


def keep_layers(config: TransformerConfig, params: Params, num_layers: int) -> tuple[TransformerConfig, Params]:
    """The config and parameters of a decoder's first layers, its embeddings and final norm kept.

    Args:
        config: of the whole decoder.
        params: its tree; the leaves of ``layers`` have a leading axis over layers.
        num_layers: how many are kept.

    Raises:
        ValueError: none, or more than there are.

    >>> config = TransformerConfig(vocab_size=10, width=4, num_layers=3, num_heads=2, num_kv_heads=1, head_width=2,
    ...                            hidden_width=8)
    >>> keep_layers(config, {"layers": {}}, 2)[0].num_layers
    2
    """
    if not 1 <= num_layers <= config.num_layers:
        raise ValueError(f"layers = {num_layers}: the model has {config.num_layers}; 1 to {config.num_layers} are kept")
    windows = None if config.window_layers is None else config.window_layers[:num_layers]
    kept = {**params, "layers": jax.tree.map(lambda leaf: leaf[:num_layers], params["layers"])}
    return dataclasses.replace(config, num_layers=num_layers, window_layers=windows), kept


def save_first_layers(source: pathlib.Path, directory: pathlib.Path, num_layers: int) -> pathlib.Path:
    """A model directory with the first layers of another one, and its tokenizer.

    Args:
        source: a Hugging Face directory of a decoder.
        directory: where to; a model directory there is replaced.
        num_layers: how many are kept.

    Returns:
        The directory.

    Raises:
        ValueError: none, or more layers than there are.
    """
    config, params = keep_layers(*load_pretrained(source), num_layers)
    return save_pretrained(directory, config, params, tokenizer_dir=source)
