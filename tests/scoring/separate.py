"""The oracle: every candidate a sequence of its own, plain causal attention, log_softmax over the whole vocabulary.

Nothing of the packed path is used: no packing, no tree mask, no shared prompt, no chunked log-probs.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.data.packing import TokenGroup
from jaxrefine.models.config import TransformerConfig


def sequences(lists: Sequence[Sequence[int]], rows: int, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Token lists as [rows length] and their lengths."""
    tokens, lengths = np.zeros((rows, length), np.int32), np.ones(rows, np.int32)
    for i, ids in enumerate(lists):
        tokens[i, : len(ids)], lengths[i] = ids, len(ids)
    return tokens, lengths


def hidden_states(params: dict, config: TransformerConfig, tokens: jax.Array) -> jax.Array:
    """[C X] -> [C X D], each row by itself."""
    C, X = tokens.shape
    heads, width = config.num_heads, config.head_width
    angles = np.arange(X)[:, None] * config.rope_theta ** -(np.arange(0, width, 2) / width)
    cos, sin = (jnp.asarray(f(angles), jnp.float32)[None, :, None] for f in (np.cos, np.sin))
    causal = jnp.asarray(np.tril(np.ones((X, X), bool)))[None, None]

    def norm(x, scale):
        return x / jnp.sqrt(jnp.mean(x * x, -1, keepdims=True) + config.norm_eps) * scale[None, None]

    def turn(x):
        a, b = jnp.split(x, 2, -1)
        return jnp.concatenate([a * cos - b * sin, b * cos + a * sin], -1)

    x = params["embed"]["embedding"][tokens]
    for i in range(config.num_layers):
        layer = jax.tree.map(lambda leaf: leaf[i], params["layers"])  # noqa: B023
        attention, mlp = layer["attention"], layer["feed_forward"]
        h = norm(x, layer["attention_norm"]["scale"])
        q, k, v = ((h @ attention[name]["kernel"].T).reshape(C, X, -1, width) for name in ("query", "key", "value"))
        k, v = (jnp.repeat(y, heads // config.num_kv_heads, 2) for y in (turn(k), v))
        weights = jnp.einsum("cqhd,ckhd->chqk", turn(q), k) / math.sqrt(width)
        weights = jax.nn.softmax(jnp.where(causal, weights, -jnp.inf), -1)
        x = x + jnp.einsum("chqk,ckhd->cqhd", weights, v).reshape(C, X, -1) @ attention["out"]["kernel"].T
        h = norm(x, layer["feed_forward_norm"]["scale"])
        gated = jax.nn.silu(h @ mlp["gate"]["kernel"].T) * (h @ mlp["up"]["kernel"].T)
        x = x + gated @ mlp["down"]["kernel"].T
    return norm(x, params["norm"]["scale"])


def span_logprobs(params: dict, config: TransformerConfig, tokens, starts, ends) -> jax.Array:
    """Σ log p of the tokens at starts … ends - 1 of each row, by plain log_softmax: [C]."""
    table = params["head"]["kernel"] if "head" in params else params["embed"]["embedding"]
    logprobs = jax.nn.log_softmax(hidden_states(params, config, tokens) @ table.T, -1)
    picked = jnp.take_along_axis(logprobs[:, :-1], tokens[:, 1:, None], -1)[..., 0]
    places = jnp.arange(1, tokens.shape[1])[None]
    return jnp.sum(jnp.where((places >= starts[:, None]) & (places < ends[:, None]), picked, 0.0), -1)


def last_hidden(params: dict, config: TransformerConfig, tokens, ends) -> jax.Array:
    """The hidden state of each row's last token: [C D]."""
    hidden = hidden_states(params, config, tokens)
    return jnp.take_along_axis(hidden, (ends - 1)[:, None, None], 1)[:, 0]


def spans(groups: Sequence[TokenGroup], candidates: int, length: int, word: int | None = None) -> dict:
    """Sequences of all candidates [groups · candidates, length], and the span to score: the response, or a verdict."""
    lists, starts, ends = [], [], []
    for group, n in itertools.product(groups, range(candidates)):
        response = group.responses[n] if n < len(group.responses) else ()
        tail = (*group.suffix, *group.verdicts[word]) if response and word is not None else ()
        ids = (*group.prompt, *response, *tail) if response else (0,)
        lists.append(ids)
        scored = len(response) if word is None else len(group.verdicts[word])
        starts.append(len(ids) - scored if response else 1)
        ends.append(len(ids))
    tokens, _ = sequences(lists, len(lists), length)
    return {"tokens": tokens, "starts": np.array(starts, np.int32), "ends": np.array(ends, np.int32)}


def per_candidate(groups: Sequence[TokenGroup], candidates: int, name: str, default: float) -> np.ndarray:
    """A field of every candidate: [groups, candidates], absent ones at their default."""
    values = [[*getattr(group, name), *[default] * (candidates - len(group.responses))] for group in groups]
    return np.array(values, bool if name == "rank_where" else np.float32)


def lengths(groups: Sequence[TokenGroup], candidates: int) -> np.ndarray:
    """Tokens of every response: [groups, candidates], absent ones 0."""
    rows = [[len(r) for r in group.responses] + [0] * (candidates - len(group.responses)) for group in groups]
    return np.array(rows, np.float32)
