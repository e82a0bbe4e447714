"""A two-matrix model with the objective's interface, so that the trainer is tested on its own."""

from __future__ import annotations

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.data.batch import PackedBatch


def make_batch(
    seed: int, *, rows: int = 8, slots: int = 12, groups: int = 1, candidates: int = 2, prompt: int = 3, vocab: int = 16
) -> PackedBatch:
    """Rows of one group: a prompt and candidates of unequal lengths, with one pad at least."""
    rng = np.random.default_rng(seed)
    assert groups == 1
    scored = slots
    shape = (rows, groups, candidates)
    tokens = np.zeros((rows, slots), np.int32)
    positions = np.zeros((rows, slots), np.int32)
    ends = np.broadcast_to(np.arange(1, slots + 1, dtype=np.int32), (rows, slots)).copy()
    sources, targets = np.zeros((rows, scored), np.int32), np.zeros((rows, scored), np.int32)
    leaves = np.full((rows, scored), -1, np.int32)
    last, lengths = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
    longest = (slots - prompt - 1) // candidates
    for row in range(rows):
        slot, t = prompt, 0
        tokens[row, :prompt] = rng.integers(1, vocab, prompt)
        positions[row, :prompt] = np.arange(prompt)
        for n in range(candidates):
            length = int(rng.integers(1, longest + 1))
            words = rng.integers(1, vocab, length)
            tokens[row, slot : slot + length] = words
            positions[row, slot : slot + length] = prompt + np.arange(length)
            ends[row, slot : slot + length] = slot + length
            sources[row, t : t + length] = [prompt - 1, *range(slot, slot + length - 1)]
            targets[row, t : t + length] = words
            leaves[row, t : t + length] = n
            slot, t = slot + length, t + length
            last[row, 0, n], lengths[row, 0, n] = slot - 1, length
        ends[row, :prompt] = slot
    labels = np.broadcast_to(np.arange(candidates, dtype=np.float32)[::-1], shape).copy()
    return PackedBatch(
        tokens=tokens, positions=positions, ends=ends, sources=sources, targets=targets, leaves=leaves, last=last,
        prompt_last=np.full((rows, groups), prompt - 1, np.int32),
        group_ids=(seed * rows + np.arange(rows, dtype=np.int32))[:, None],
        labels=labels, rank_where=np.ones(shape, bool), mle_weight=rng.integers(0, 2, shape).astype(np.float32),
        lengths=lengths, reference_scores=np.zeros(shape, np.float32),
    )  # fmt: skip


class TinyModel(nn.Module):
    """Embedding, one gated block of the decoder's own parameter names, tied head."""

    vocab: int = 16
    width: int = 8
    hidden: int = 16

    @nn.compact
    def __call__(self, tokens: jax.Array) -> jax.Array:
        normal = nn.initializers.normal(0.3)
        embedding = self.param("embed/embedding", normal, (self.vocab, self.width))
        up = self.param("layers/feed_forward/up/kernel", normal, (1, self.hidden, self.width))
        down = self.param("layers/feed_forward/down/kernel", normal, (1, self.width, self.hidden))
        scale = self.param("norm/scale", nn.initializers.ones, (self.width,))
        x = embedding[tokens]
        x = x + jax.nn.silu(x @ up[0].T) @ down[0].T
        return (x * scale[None, None]) @ embedding.T


class TinyObjective(nn.Module):
    """Likelihood of weighted responses (per token) and a hinge between the first two candidates (per group)."""

    hinge: float = 0.5

    def setup(self) -> None:
        self.model = TinyModel()

    def counts(self, batch: PackedBatch) -> dict[str, jax.Array]:
        pair = batch.rank_where[..., 0] & batch.rank_where[..., 1]
        return {
            "likelihood": jnp.sum(batch.mle_weight * batch.lengths.astype(jnp.float32)),
            "hinge": jnp.sum(pair).astype(jnp.float32),
        }

    def __call__(self, batch: PackedBatch):
        logits = jax.nn.log_softmax(self.model(batch.tokens))
        num = batch.labels.shape[-1]

        def row(logits, sources, targets, leaves):
            picked = logits[sources, targets]
            segments = jnp.where(leaves >= 0, leaves, num)
            return jax.ops.segment_sum(jnp.where(leaves >= 0, picked, 0), segments, num + 1)[:num]

        sums = jax.vmap(row)(logits, batch.sources, batch.targets, batch.leaves)[:, None]
        scores = sums / jnp.maximum(batch.lengths, 1).astype(jnp.float32)
        hinges = jax.nn.relu(scores[..., 1] - scores[..., 0] + 1.0)
        pair = batch.rank_where[..., 0] & batch.rank_where[..., 1]
        counts = self.counts(batch)
        terms = {
            "likelihood": (jnp.sum(-sums * batch.mle_weight), counts["likelihood"], 1.0),
            "hinge": (jnp.sum(jnp.where(pair, hinges, 0)), counts["hinge"], self.hinge),
        }
        right = jnp.sum(pair & (scores[..., 0] > scores[..., 1])).astype(jnp.float32)
        return terms, {"ranking_accuracy": (right, counts["hinge"])}


class CountingLoader:
    """Batch i is ``make_batch(i)``; iterators can be saved and set, as those of grain can."""

    def __init__(self, num_batches: int, share: tuple[int, int] = (0, 1)) -> None:
        self.num_batches, self.share = num_batches, share

    def batch(self, index: int) -> PackedBatch:
        share, of = self.share
        return jax.tree.map(lambda x: np.split(x, of)[share], make_batch(index))

    def __iter__(self) -> CountingIterator:
        return CountingIterator(self)


class CountingIterator:
    def __init__(self, loader: CountingLoader) -> None:
        self.loader, self.position = loader, 0

    def __iter__(self) -> CountingIterator:
        return self

    def __next__(self) -> PackedBatch:
        if self.position == self.loader.num_batches:
            raise StopIteration
        batch = self.loader.batch(self.position)
        self.position += 1
        return batch

    def get_state(self) -> dict[str, int]:
        return {"position": self.position}

    def set_state(self, state: dict[str, int]) -> None:
        self.position = state["position"]
