"""A random two-layer LLaMA with a tokenizer, as a model directory; and a judge that its noise can please."""

from __future__ import annotations

from pathlib import Path

import jax
import jax.numpy as jnp

from jaxrefine.conversion.pretrained import save_pretrained
from jaxrefine.data.arithmetic import generate
from jaxrefine.data.tokenizer import train_tokenizer
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder


def save_tiny_model(directory: Path, *, seed: int = 0) -> Path:
    """Writes the model directory."""
    tokenizer = train_tokenizer((problem.question for problem in generate("train", 50)), vocab_size=300)
    tokenizer.save(directory / "tokenizer")
    config = TransformerConfig(
        vocab_size=tokenizer.vocab_size, width=32, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8,
        hidden_width=64, max_positions=256,
    )  # fmt: skip
    decoder = Decoder(config, dtype=jnp.float32, attention="dense")
    row = jnp.zeros((1, 8), jnp.int32), jnp.arange(8)[None], jnp.full((1, 8), 8)
    params = jax.jit(lambda key: decoder.init(key, *row, method="trunk")["params"])(jax.random.key(seed))
    return save_pretrained(directory / "model", config, params, tokenizer_dir=directory / "tokenizer")


def even_is_right(text: str, answer: str) -> str:
    """Right where the text has an even number of characters: noise is right about half the time."""
    del answer
    return "right" if len(text) % 2 == 0 else "wrong"
