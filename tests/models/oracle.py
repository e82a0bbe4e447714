"""A decoder with every mechanism in float64 NumPy: one sequence, one head, one query at a time.

Written apart from the decoder: rotations are products of complex numbers, ALiBi takes key positions alone, scores are
scaled one by one, norms divide by a root.
"""

from __future__ import annotations

import math

import ml_dtypes
import numpy as np

erf = np.vectorize(math.erf)

ACTIVATIONS = {
    "silu": lambda x: x / (1 + np.exp(-x)),
    "gelu": lambda x: x * (1 + erf(x / math.sqrt(2))) / 2,
    "gelu_tanh": lambda x: x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))) / 2,
    "relu": lambda x: np.maximum(x, 0),
}


def tree(params, index=None):
    """The nested dict in float64; one layer of it."""
    if isinstance(params, dict):
        return {name: tree(value, index) for name, value in params.items()}
    return np.asarray(params if index is None else params[index], np.float64)


def normed(config, p, x):
    if config.norm == "layer":
        x = x - x.mean(-1, keepdims=True)
    x = x / np.sqrt((x**2).mean(-1, keepdims=True) + config.norm_eps)
    return x * (p["scale"] + (1 if config.norm_unit_offset else 0)) + p.get("bias", 0)


def linear(p, x):
    return x @ p["kernel"].T + p.get("bias", 0)


def head_normed(config, p, x):
    """One head of one token [H], its scale [H]."""
    if config.qk_norm == "l2":
        return x / math.sqrt((x**2).sum()) * p
    if config.qk_norm == "layer":
        x = x - x.mean()
        return x / math.sqrt((x**2).mean() + config.norm_eps) * p
    return x / math.sqrt((x**2).mean() + config.norm_eps) * (p + (1 if config.norm_unit_offset else 0))


def turned(config, x, position, windowed, sign):
    """One head of one token, rotated; sign is 1 for queries, -1 for keys."""
    if config.positions != "rope":
        return x
    width = config.rope_width or len(x)
    exponents = np.arange(width // 2) * 2 / width
    if windowed and config.rope_local_theta is not None:
        frequencies = config.rope_local_theta**-exponents
    else:
        frequencies = config.rope_theta**-exponents
        if config.rope_scaling is not None:
            assert config.rope_scaling.kind == "linear"
            frequencies = frequencies / config.rope_scaling.factor
    part = x[:width]
    real, imaginary = (part[0::2], part[1::2]) if config.rope_interleaved else (part[: width // 2], part[width // 2 :])
    z = (real + 1j * imaginary) * np.exp(1j * position * frequencies)
    if config.xpos_base is not None:
        z = z * ((exponents + 0.4) / 1.4) ** (sign * position / config.xpos_base)
    out = np.array(x)
    if config.rope_interleaved:
        out[0:width:2], out[1:width:2] = z.real, z.imag
    else:
        out[: width // 2], out[width // 2 : width] = z.real, z.imag
    return out


def slopes(heads):
    power = 2 ** int(math.log2(heads))
    plain = [2 ** (-8 * (n + 1) / power) for n in range(power)]
    return plain if power == heads else plain + slopes(2 * power)[0::2][: heads - power]


def attention(config, p, x, index):
    S, H = len(x), config.head_width
    windowed = config.window is not None and (config.window_layers is None or config.window_layers[index])
    scale = config.attention_scale or H**-0.5
    if config.attention_scale_by_layer:
        scale /= index + 1
    q, k, v = (linear(p[name], x).reshape(S, -1, H) for name in ("query", "key", "value"))
    for name, heads in (("query_norm", q), ("key_norm", k)):
        for h in range(heads.shape[1] if config.qk_norm else 0):
            of_head = p[name]["scale"][h] if config.qk_norm == "layer" else p[name]["scale"]
            for i in range(S):
                heads[i, h] = head_normed(config, of_head, heads[i, h])
    mixed = np.zeros((S, config.num_heads, H))
    for h in range(config.num_heads):
        kv = h // (config.num_heads // config.num_kv_heads)
        for i in range(S):
            first = max(0, i - config.window + 1) if windowed else 0
            scores = []
            for j in range(first, i + 1):
                query, key = turned(config, q[i, h], i, windowed, 1), turned(config, k[j, kv], j, windowed, -1)
                score = query @ key * scale
                if config.attention_softcap is not None:
                    score = config.attention_softcap * math.tanh(score / config.attention_softcap)
                if config.positions == "alibi" and config.alibi_prescaled:
                    slope = np.float64(ml_dtypes.bfloat16(slopes(config.num_heads)[h]))
                    score += np.float64(ml_dtypes.bfloat16(slope * j)) * scale
                elif config.positions == "alibi":
                    score += slopes(config.num_heads)[h] * j
                scores.append(score)
            weights = np.exp(np.array(scores) - max(scores))
            mixed[i, h] = weights / weights.sum() @ v[first : i + 1, kv]
    return linear(p["out"], mixed.reshape(S, -1))


def feed_forward(config, p, x):
    activate = ACTIVATIONS[config.activation]
    hidden = activate(linear(p["gate"], x)) * linear(p["up"], x) if config.gated else activate(linear(p["up"], x))
    return linear(p["down"], hidden)


def layer(config, p, x, index):
    if config.parallel:
        first = normed(config, p["attention_norm"], x)
        second = first if config.shared_norm else normed(config, p["feed_forward_norm"], x)
        return x + attention(config, p["attention"], first, index) + feed_forward(config, p["feed_forward"], second)
    for name in ("attention", "feed_forward"):
        block = feed_forward if name == "feed_forward" else lambda *args: attention(*args, index)
        if config.norm_placement == "post":
            x = normed(config, p[f"{name}_norm"], x + block(config, p[name], x))
            continue
        change = block(config, p[name], normed(config, p[f"{name}_norm"], x))
        if config.norm_placement == "sandwich":
            change = normed(config, p[f"{name}_out_norm"], change)
        x = x + change
    return x


def hidden_states(config, params, tokens):
    """[S D] of a sequence whose first token has position 0."""
    others = tree({name: value for name, value in params.items() if name != "layers"})
    x = others["embed"]["embedding"][list(tokens)] * config.embed_scale
    if config.embed_width is not None:
        x = linear(others["project_in"], x)
    if config.positions == "learned":
        rows = np.arange(len(tokens)) + config.position_offset
        x = x + others["positions"]["embedding"][rows] * config.position_scale
    if config.embed_norm:
        x = normed(config, others["embed_norm"], x)
    for index in range(config.num_layers):
        x = layer(config, tree(params["layers"], index), x, index)
    if config.final_norm:
        x = normed(config, others["norm"], x)
    return linear(others["project_out"], x) if config.embed_width is not None else x


def logits(config, params, hidden):
    """[S V]."""
    head = tree(params.get("head", {}))
    table = tree(params["embed"]["embedding"]) if config.tie_embeddings else head["kernel"]
    out = config.logit_scale * np.asarray(hidden, np.float64) @ table.T + head.get("bias", 0)
    cap = config.logit_softcap
    return out if cap is None else cap * np.tanh(out / cap)
