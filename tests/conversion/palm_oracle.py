"""PaLM's forward pass in float64 NumPy, one token and one head at a time, from the tensors of a ``.pt`` file."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np


def palm_logits(
    state: Mapping[str, np.ndarray],
    tokens: np.ndarray,
    *,
    heads: int,
    head_width: int,
    gamma_offset: float = 0.0,
    xpos_base: float | None = 512.0,
    score_scale: float | None = None,
) -> np.ndarray:
    """[S V] of one row of tokens.

    xPos as published: position t of S is counted from the middle of the row, t - S // 2, and the pair of features i
    of a query is multiplied by ((2 i + 0.4 H) / 1.4 H) ** (t / base), of a key divided by it.
    """
    state = {name: np.asarray(value, np.float64) for name, value in state.items()}
    S, H = len(tokens), head_width
    x = state["token_emb.weight"][tokens]
    for layer in range(sum(name.endswith("attn_out.weight") for name in state)):
        block = {
            name.removeprefix(f"layers.{layer}.fn."): value
            for name, value in state.items()
            if name.startswith(f"layers.{layer}.fn.")
        }
        fused = _norm(x, block["norm.gamma"] + gamma_offset) @ block["fused_attn_ff_proj.weight"].T
        q, k, v, ff = np.split(fused, np.cumsum([heads * H, H, H]), axis=1)
        keys = [_placed(_unit(k[t], block.get("k_scale")), t, S, xpos_base, -1) for t in range(S)]
        mixed = np.zeros((S, heads * H))
        for head in range(heads):
            columns = slice(head * H, (head + 1) * H)
            for t in range(S):
                query = _placed(_unit(q[t, columns], block.get("q_scale")), t, S, xpos_base, 1)
                scores = np.array([query @ keys[u] for u in range(t + 1)])
                weights = np.exp((scores - scores.max()) * (H**-0.5 if score_scale is None else score_scale))
                mixed[t, columns] = weights / weights.sum() @ v[: t + 1]
        up, gate = np.split(ff, 2, axis=1)
        x = x + mixed @ block["attn_out.weight"].T + (up * gate / (1 + np.exp(-gate))) @ block["ff_out.2.weight"].T
    return _norm(x, state["norm.gamma"] + gamma_offset) @ state["token_emb.weight"].T


def _norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
    centred = x - x.mean(1, keepdims=True)
    return centred / np.sqrt((centred**2).mean(1, keepdims=True) + 1e-5) * scale


def _unit(x: np.ndarray, scale: np.ndarray | None) -> np.ndarray:
    return x if scale is None else x / max(math.sqrt(x @ x), 1e-12) * scale


def _placed(x: np.ndarray, t: int, length: int, base: float | None, sign: int) -> np.ndarray:
    """A head's features as complex numbers x_i + j x_(i + H / 2), turned by their angle and stretched."""
    H = len(x)
    pair = np.arange(H // 2)
    turned = (x[: H // 2] + 1j * x[H // 2 :]) * np.exp(1j * t * 10_000.0 ** (-2 * pair / H))
    if base is not None:
        turned = turned * ((2 * pair + 0.4 * H) / (1.4 * H)) ** (sign * (t - length // 2) / base)
    return np.concatenate([turned.real, turned.imag])
