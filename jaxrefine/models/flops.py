"""Model FLOPs: what the mathematics needs, whatever a backend computes twice or masks away.

A multiply-add is two. Weight matmuls count by real tokens, the head by scored tokens, attention by visible pairs of
query and key. Norms, rotations, softmax and the like (below a percent at usual widths) are left out.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np

from jaxrefine.data.batch import PackedBatch
from jaxrefine.models.config import TransformerConfig
from jaxrefine.typing import Array, Int


@dataclasses.dataclass(frozen=True, kw_only=True)
class Work:
    """What is to be computed: counts, of which FLOPs are a linear function.

    Args:
      tokens: that pass through the layers.
      scored: that meet the output embedding.
      pairs: (query, key) that see each other, over all rows.

    >>> Work(tokens=3, scored=2, pairs=6) + Work(tokens=1, scored=1, pairs=1)
    Work(tokens=4, scored=3, pairs=7)
    """

    tokens: int
    scored: int
    pairs: int

    def __add__(self, other: Work) -> Work:
        return Work(
            tokens=self.tokens + other.tokens, scored=self.scored + other.scored, pairs=self.pairs + other.pairs
        )


def num_params(config: TransformerConfig) -> int:
    """Parameters of the decoder, the head counted once if tied.

    >>> config = TransformerConfig(vocab_size=32000, width=4096, num_layers=32, num_heads=32, num_kv_heads=32,
    ...                            head_width=128, hidden_width=11008)
    >>> num_params(config)  # LLaMA-7B
    6738415616
    """
    D, V = config.width, config.vocab_size
    queries, keys = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    biases = (
        config.qkv_bias * (queries + 2 * keys) + config.o_bias * D + config.mlp_bias * (2 * config.hidden_width + D)
    )
    layer = _layer_weights(config) + 2 * D + biases
    return config.num_layers * layer + D + V * D * (1 if config.tie_embeddings else 2)


def forward_flops(config: TransformerConfig, work: Work) -> int:
    """2 L W tokens + 4 L Q H pairs + 2 D V scored, with W the weights of a layer.

    >>> config = TransformerConfig(vocab_size=10, width=4, num_layers=1, num_heads=2, num_kv_heads=1, head_width=2,
    ...                            hidden_width=8)
    >>> forward_flops(config, Work(tokens=1, scored=0, pairs=0))  # 2 (4·4 + 2·4·2 + 4·4 + 3·4·8)
    288
    >>> forward_flops(config, Work(tokens=0, scored=1, pairs=1))  # 2·4·10 + 4·2·2
    96
    """
    weights = 2 * config.num_layers * _layer_weights(config) * work.tokens
    attention = 4 * config.num_layers * config.num_heads * config.head_width * work.pairs
    return weights + attention + 2 * config.width * config.vocab_size * work.scored


def train_flops(config: TransformerConfig, work: Work) -> int:
    """Three forward passes: the backward pass has two products for each of the forward's.

    What rematerialisation and the chunked log-probs compute again is not the model's and not counted.
    """
    return 3 * forward_flops(config, work)


def batch_work(batch: PackedBatch) -> Work:
    """The work in a packed batch; padding counts for nothing.

    Args:
      batch: on the host (or fetched from the device: not for a training loop's every step).
    """
    ends = np.asarray(batch.ends)
    B, S = ends.shape[0], ends.shape[-1]
    present = np.asarray(batch.group_ids) >= 0
    final = np.where(present, np.asarray(batch.prompt_last), -1).max(-1)
    if batch.num_candidates:
        final = np.maximum(final, np.where(present[..., None], np.asarray(batch.last), -1).max((-1, -2)))
    used = np.zeros(B, np.int64)
    while (unread := used <= final).any():  # trees tile a row from its start
        used = np.where(unread, ends[np.arange(B), np.minimum(used, S - 1)], used)
    return Work(
        tokens=int(used.sum()),
        scored=int((np.asarray(batch.leaves) >= 0).sum()),
        pairs=visible_pairs(np.where(np.arange(S)[None] < used[:, None], ends, np.arange(S)[None])),
    )


def visible_pairs(ends: Int[Array, "*batch S"]) -> int:
    """Σ_k ends[k] - k: the queries that see key k.

    >>> visible_pairs(np.array([4, 2, 4, 4]))
    8
    """
    ends = np.asarray(ends, np.int64)
    return int((ends - np.arange(ends.shape[-1]).reshape((1,) * (ends.ndim - 1) + (-1,))).sum())


def generation_work(prompts: Sequence[int], responses: Sequence[Sequence[int]]) -> Work:
    """The work of sampling: each prompt once; a candidate's last token is never read.

    Args:
      prompts: tokens of each prompt.
      responses: tokens of each of its candidates, EOS included.

    >>> generation_work([3], [[2, 1]])  # prompt: 3 tokens, 6 pairs; the first token of the first response: 3 + 1 pairs
    Work(tokens=4, scored=2, pairs=10)
    """
    total = Work(tokens=0, scored=0, pairs=0)
    for P, lengths in zip(prompts, responses, strict=True):
        total += Work(tokens=P, scored=1, pairs=P * (P + 1) // 2)
        for R in lengths:
            total += Work(tokens=R - 1, scored=R - 1, pairs=(R - 1) * P + R * (R - 1) // 2)
    return total


def _layer_weights(config: TransformerConfig) -> int:
    queries, keys = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    return config.width * (2 * queries + 2 * keys + 3 * config.hidden_width)
