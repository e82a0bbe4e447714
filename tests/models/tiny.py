"""A tiny decoder and rows laid out by hand, apart from the packer."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.models.config import RopeScaling, TransformerConfig
from jaxrefine.models.decoder import Decoder

CONFIG = TransformerConfig(
    vocab_size=61, width=24, num_layers=2, num_heads=4, num_kv_heads=2, head_width=8, hidden_width=40, max_positions=256
)

CONFIGS = {
    "grouped": CONFIG,
    "multi-head, tied": dataclasses.replace(CONFIG, num_kv_heads=4, tie_embeddings=True),
    "multi-query, biases": dataclasses.replace(CONFIG, num_kv_heads=1, qkv_bias=True, o_bias=True, mlp_bias=True),
    "linear scaling": dataclasses.replace(CONFIG, rope_scaling=RopeScaling(kind="linear", factor=4.0)),
    "llama3 scaling": dataclasses.replace(
        CONFIG, rope_theta=5e5, rope_scaling=RopeScaling(kind="llama3", factor=8.0, original_max_positions=32)
    ),
    "gelu, wide heads": dataclasses.replace(CONFIG, activation="gelu_tanh", head_width=10),
}


def make(config: TransformerConfig = CONFIG, **fields):
    """A decoder in fp32 and parameters far from their initial values."""
    decoder = Decoder(config, **{"dtype": jnp.float32, "attention": "dense", **fields})
    return decoder, _params(decoder.clone(attention="dense", remat="none", dtype=jnp.float32))


@functools.partial(jax.jit, static_argnums=0)
def _params(decoder):
    zeros = jnp.zeros((1, 4), jnp.int32)
    params = decoder.init(jax.random.key(0), zeros, zeros, zeros + 4, method="trunk")["params"]
    leaves, tree = jax.tree.flatten(params)
    keys = jax.random.split(jax.random.key(1), len(leaves))
    return tree.unflatten(
        [leaf + 0.3 * jax.random.normal(key, leaf.shape) for leaf, key in zip(leaves, keys, strict=True)]
    )


@functools.partial(jax.jit, static_argnums=0)
def trunk(decoder, params, row):
    return decoder.apply({"params": params}, **row, method="trunk")


@functools.partial(jax.jit, static_argnums=0)
def logits(decoder, params, hidden):
    return decoder.apply({"params": params}, method="logit_form").logits(hidden)


def layout(groups, slots):
    """A row from [(prompt ids, [response ids, …]), …], and for every response the slots of prompt + response."""
    tokens, positions = np.zeros(slots, np.int32), np.zeros(slots, np.int32)
    ends = np.arange(1, slots + 1, dtype=np.int32)
    chains, start = [], 0
    for prompt, responses in groups:
        P = len(prompt)
        total = P + sum(map(len, responses))
        tokens[start : start + P], positions[start : start + P] = prompt, np.arange(P)
        ends[start : start + P] = start + total
        slot = start + P
        chains += [list(range(start, start + P))] if not responses else []
        for response in responses:
            R = len(response)
            tokens[slot : slot + R], positions[slot : slot + R] = response, P + np.arange(R)
            ends[slot : slot + R] = slot + R
            chains.append([*range(start, start + P), *range(slot, slot + R)])
            slot += R
        start += total
    longest = max(map(len, chains)) + 2
    paths, homes = np.full((len(chains) + 1, longest), -1, np.int32), np.zeros(slots, np.int32)
    for e, chain in reversed(list(enumerate(chains))):
        paths[e, : len(chain)] = chain
        homes[chain] = e * longest + np.arange(len(chain))
    row = {"tokens": tokens, "positions": positions, "ends": ends, "paths": paths, "homes": homes}
    return {name: jnp.asarray(array)[None] for name, array in row.items()}, chains, start


def apart(sequences):
    """Each sequence in a row of its own, padded at its end."""
    B, S = len(sequences), max(map(len, sequences))
    tokens, ends = np.zeros((B, S), np.int32), np.tile(np.arange(1, S + 1, dtype=np.int32), (B, 1))
    for b, sequence in enumerate(sequences):
        tokens[b, : len(sequence)], ends[b, : len(sequence)] = sequence, len(sequence)
    positions = np.tile(np.arange(S, dtype=np.int32), (B, 1))
    return {"tokens": jnp.asarray(tokens), "positions": jnp.asarray(positions), "ends": jnp.asarray(ends)}


def random_groups(sizes, vocab=61, seed=0):
    rng = np.random.default_rng(seed)
    return [(rng.integers(0, vocab, P).tolist(), [rng.integers(0, vocab, R).tolist() for R in Rs]) for P, Rs in sizes]


GROUPS = random_groups([(5, [3, 7, 1]), (4, []), (1, [4]), (9, [2, 6])])
