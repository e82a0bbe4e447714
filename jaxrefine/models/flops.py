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
      pairs: (query, key) that see each other, over all rows, in a layer without a window.
      near: of these, those that see each other in a layer with a window; None where nobody counted them.

    >>> Work(tokens=3, scored=2, pairs=6) + Work(tokens=1, scored=1, pairs=1)
    Work(tokens=4, scored=3, pairs=7, near=None)
    """

    tokens: int
    scored: int
    pairs: int
    near: int | None = None

    def __add__(self, other: Work) -> Work:
        return Work(
            tokens=self.tokens + other.tokens,
            scored=self.scored + other.scored,
            pairs=self.pairs + other.pairs,
            near=None if self.near is None or other.near is None else self.near + other.near,
        )


def num_params(config: TransformerConfig) -> int:
    """Parameters of the decoder, the head counted once if tied.

    >>> config = TransformerConfig(vocab_size=32000, width=4096, num_layers=32, num_heads=32, num_kv_heads=32,
    ...                            head_width=128, hidden_width=11008)
    >>> num_params(config)  # LLaMA-7B
    6738415616
    """
    D, E, V = config.width, config.embedding_width, config.vocab_size
    H, F = config.head_width, config.hidden_width
    queries, keys = config.num_heads * H, config.num_kv_heads * H
    norm = D * (1 + config.norm_bias)
    norms = 4 if config.norm_placement == "sandwich" else 1 if config.shared_norm else 2
    biases = config.qkv_bias * (queries + 2 * keys) + config.o_bias * D
    biases += config.mlp_bias * ((1 + config.gated) * F + D)
    head_norms = 0 if config.qk_norm is None else queries + keys if config.qk_norm == "layer" else 2 * H
    layers = config.num_layers * (_layer_weights(config) + norms * norm + biases + head_norms)
    positions = (config.max_positions + config.position_offset) * D if config.positions == "learned" else 0
    projections = 0 if config.embed_width is None else 2 * D * E
    head = V * E * (not config.tie_embeddings) + V * config.head_bias
    return layers + V * E + positions + projections + (config.embed_norm + config.final_norm) * norm + head


def forward_flops(config: TransformerConfig, work: Work) -> int:
    """2 L W tokens + 4 L Q H pairs + 2 D V scored, with W the weights of a layer.

    Layers with a window count ``work.near`` instead of ``work.pairs``.

    Raises:
      ValueError: the config has a window, and the work was counted without.

    >>> config = TransformerConfig(vocab_size=10, width=4, num_layers=1, num_heads=2, num_kv_heads=1, head_width=2,
    ...                            hidden_width=8)
    >>> forward_flops(config, Work(tokens=1, scored=0, pairs=0))  # 2 (4·4 + 2·4·2 + 4·4 + 3·4·8)
    288
    >>> forward_flops(config, Work(tokens=0, scored=1, pairs=1))  # 2·4·10 + 4·2·2
    96
    """
    weights = 2 * config.num_layers * _layer_weights(config) * work.tokens
    windowed = sum(config.windowed_layers)
    pairs = (config.num_layers - windowed) * work.pairs
    if windowed:
        if work.near is None:
            raise ValueError(
                f"the config has a window of {config.window} positions, and the work was counted without: "
                f"give window={config.window} where it is counted"
            )
        pairs += windowed * work.near
    attention = 4 * config.num_heads * config.head_width * pairs
    projections = 0 if config.embed_width is None else 2 * config.width * config.embed_width
    scored = (2 * config.embedding_width * config.vocab_size + projections) * work.scored
    return weights + attention + projections * work.tokens + scored


def train_flops(config: TransformerConfig, work: Work) -> int:
    """Three forward passes: the backward pass has two products for each of the forward's.

    What rematerialisation and the chunked log-probs compute again is not the model's and not counted.
    """
    return 3 * forward_flops(config, work)


def batch_work(batch: PackedBatch, *, window: int | None = None) -> Work:
    """The work in a packed batch; padding counts for nothing.

    Args:
      batch: on the host (or fetched from the device: not for a training loop's every step).
      window: the config's.
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
    ends = np.where(np.arange(S)[None] < used[:, None], ends, np.arange(S)[None])
    near = None
    if window is not None:
        near = sum(near_pairs(*row, window) for row in zip(ends, np.asarray(batch.positions), strict=True))
    return Work(
        tokens=int(used.sum()),
        scored=int((np.asarray(batch.leaves) >= 0).sum()),
        pairs=visible_pairs(ends),
        near=near,
    )


def visible_pairs(ends: Int[Array, "*batch S"]) -> int:
    """Σ_k ends[k] - k: the queries that see key k.

    >>> visible_pairs(np.array([4, 2, 4, 4]))
    8
    """
    ends = np.asarray(ends, np.int64)
    return int((ends - np.arange(ends.shape[-1]).reshape((1,) * (ends.ndim - 1) + (-1,))).sum())


def near_pairs(ends: Int[Array, " S"], positions: Int[Array, " S"], window: int) -> int:
    """Queries that see a key of their last ``window`` positions, in one row.

    >>> near_pairs(np.array([4, 2, 4, 4]), np.array([0, 1, 1, 2]), 2)
    7
    """
    slots = np.arange(len(ends))
    visible = (slots[None] <= slots[:, None]) & (slots[:, None] < np.asarray(ends)[None])
    return int((visible & (np.asarray(positions)[:, None] - np.asarray(positions)[None] < window)).sum())


def generation_work(prompts: Sequence[int], responses: Sequence[Sequence[int]], *, window: int | None = None) -> Work:
    """The work of sampling: each prompt once; a candidate's last token is never read.

    Args:
      prompts: tokens of each prompt.
      responses: tokens of each of its candidates, EOS included.
      window: the config's.

    >>> generation_work([3], [[2, 1]])  # prompt: 3 tokens, 6 pairs; the first token of the first response: 3 + 1 pairs
    Work(tokens=4, scored=2, pairs=10, near=None)
    """

    def near(first: int, stop: int) -> int | None:
        return None if window is None else sum(min(position + 1, window) for position in range(first, stop))

    total = Work(tokens=0, scored=0, pairs=0, near=near(0, 0))
    for P, lengths in zip(prompts, responses, strict=True):
        total += Work(tokens=P, scored=1, pairs=P * (P + 1) // 2, near=near(0, P))
        for R in lengths:
            pairs = (R - 1) * P + R * (R - 1) // 2
            total += Work(tokens=R - 1, scored=R - 1, pairs=pairs, near=near(P, P + R - 1))
    return total


def _layer_weights(config: TransformerConfig) -> int:
    queries, keys = config.num_heads * config.head_width, config.num_kv_heads * config.head_width
    return config.width * (2 * queries + 2 * keys + (2 + config.gated) * config.hidden_width)
