"""What every side reads: one LLaMA of random weights in Hugging Face's layout, its vocabulary, and token ids.

All prompts are P tokens and all responses R, the last of them EOS, so that nobody pads: what sharing prompts saves is
not mixed with what packing saves.
"""

from __future__ import annotations

import dataclasses
import json
import pathlib

import jax
import jax.numpy as jnp
import numpy as np
from tokenizers import AddedToken, Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import WhitespaceSplit

from benchmarks import measure
from jaxrefine.conversion.pretrained import save_pretrained
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.flops import Work

SPECIAL = ("<pad>", "<s>", "</s>", "<unk>")
"""Ids 0 to 3; every other id's word is "w" and the id."""
EOS = 2
ROPE_THETA = 1_000_000.0
"""The one base that tunix's LLaMA has."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Sizes:
    """Of one comparison."""

    groups: int
    candidates: int
    prompt: int
    response: int

    def shared(self) -> Work:
        """Each prompt once: G (P + N R) tokens.

        >>> Sizes(groups=1, candidates=2, prompt=3, response=1).shared()
        Work(tokens=5, scored=2, pairs=14, near=None)
        """
        G, N, P, R = self.groups, self.candidates, self.prompt, self.response
        pairs = P * (P + 1) // 2 + N * (P * R + R * (R + 1) // 2)
        return Work(tokens=G * (P + N * R), scored=G * N * R, pairs=G * pairs)

    def repeated(self, sequences: int) -> Work:
        """So many sequences of P + R tokens, nothing shared.

        >>> Sizes(groups=1, candidates=2, prompt=3, response=1).repeated(2)
        Work(tokens=8, scored=2, pairs=20, near=None)
        """
        L = self.prompt + self.response
        return Work(tokens=sequences * L, scored=sequences * self.response, pairs=sequences * (L * (L + 1) // 2))


def model_config(model: measure.Model, max_positions: int) -> TransformerConfig:
    """Of the LLaMA that all sides load."""
    return dataclasses.replace(model.config(max_positions), rope_theta=ROPE_THETA)


def write_model(directory: pathlib.Path, model: measure.Model, *, max_positions: int, seed: int) -> TransformerConfig:
    """Random weights in fp32 and a vocabulary, as a directory that each side's own loader reads."""
    config = model_config(model, max_positions)
    decoder = Decoder(config, dtype=jnp.float32, attention="dense")
    row = jnp.zeros((1, 8), jnp.int32), jnp.arange(8)[None], jnp.full((1, 8), 8)
    params = jax.jit(lambda key: decoder.init(key, *row, method="trunk")["params"])(jax.random.key(seed))
    save_pretrained(directory, config, params, dtype=jnp.float32)
    write_tokenizer(directory, config.vocab_size)
    return config


def write_tokenizer(directory: pathlib.Path, vocab_size: int) -> None:
    """A vocabulary of words that name their ids, for trainers that insist on reading text."""
    words = [*SPECIAL, *(f"w{number}" for number in range(len(SPECIAL), vocab_size))]
    tokenizer = Tokenizer(WordLevel({word: number for number, word in enumerate(words)}, unk_token="<unk>"))
    tokenizer.pre_tokenizer = WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(word, special=True) for word in SPECIAL])
    tokenizer.save(str(directory / "tokenizer.json"))
    names = {"pad_token": "<pad>", "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    described = {"tokenizer_class": "PreTrainedTokenizerFast", **names}
    (directory / "tokenizer_config.json").write_text(json.dumps(described))


def write_tokens(
    path: pathlib.Path, *, vocab_size: int, groups: int, candidates: int, prompt: int, response: int, seed: int
) -> None:
    """Prompts [G][P] and responses [G][N][R]; a side takes as many as its case says, from the first on."""
    rng = np.random.default_rng((seed, prompt, response))
    prompts = rng.integers(len(SPECIAL), vocab_size, (groups, prompt))
    responses = rng.integers(len(SPECIAL), vocab_size, (groups, candidates, response))
    responses[..., -1] = EOS
    path.write_text(json.dumps({"prompts": prompts.tolist(), "responses": responses.tolist()}))
