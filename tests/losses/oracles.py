"""Every loss once more, for one group, in float64 Python loops over its paper's formula: the slow second opinion."""

from __future__ import annotations

import math


def _kept(where, *rows):
    return [[x for x, keep in zip(row, where, strict=True) if keep] for row in rows]


def _log_sigmoid(x):
    return -math.log1p(math.exp(-x)) if x > 0 else x - math.log1p(math.exp(x))


def _pairs(labels):
    return [(j, k) for j in range(len(labels)) for k in range(len(labels)) if labels[j] > labels[k]]


def _mean(values):
    return sum(values) / len(values) if values else 0.0


def _log_softmax(x):
    top = max(x)
    return [v - top - math.log(sum(math.exp(u - top) for u in x)) for v in x]


def margin_ranking(scores, labels, where, *, margin=0.1, gaps="sum", ties="index"):
    scores, labels = _kept(where, scores, labels)
    if ties == "index":
        order = sorted(range(len(labels)), key=lambda j: (-labels[j], j))
        rank = [order.index(j) for j in range(len(labels))]
    else:
        rank = [sorted(set(labels), reverse=True).index(label) for label in labels]
    hinges = {}
    for j in range(len(labels)):
        for k in range(len(labels)):
            if rank[j] < rank[k]:
                d = rank[k] - rank[j]
                hinges.setdefault(d, []).append(max(0.0, scores[k] - scores[j] + margin * d))
    return sum(sum(at) if gaps == "sum" else _mean(at) for at in hinges.values())


def rrhf(scores, labels, where):
    scores, labels = _kept(where, scores, labels)
    return sum(max(0.0, scores[k] - scores[j]) for j, k in _pairs(labels))


def listwise_softmax(scores, labels, where, *, targets="softmax"):
    scores, labels = _kept(where, scores, labels)
    if not _pairs(labels):
        return 0.0
    if targets == "softmax":
        p = [math.exp(x) for x in _log_softmax(labels)]
    else:
        p = [label / sum(labels) for label in labels]
    return -sum(p_j * log_z for p_j, log_z in zip(p, _log_softmax(scores), strict=True))


def list_mle(scores, labels, where, *, ties="skip"):
    scores, labels = _kept(where, scores, labels)
    value = 0.0
    for k in range(len(labels)):
        below = [
            i
            for i in range(len(labels))
            if labels[i] < labels[k] or (ties == "index" and labels[i] == labels[k] and i > k)
        ]
        value -= _log_softmax([scores[k], *(scores[i] for i in below)])[0]
    return value


def pro(scores, labels, where, *, differentiated=True):
    scores, labels = _kept(where, scores, labels)
    value = 0.0
    for k in range(len(labels)):
        below = [i for i in range(len(labels)) if labels[i] < labels[k]]
        if below:
            temperature = {i: 1 / (labels[k] - labels[i]) if differentiated else 1.0 for i in below}
            own = scores[k] / min(temperature.values())
            value -= _log_softmax([own, *(scores[i] / temperature[i] for i in below)])[0]
    return value


def pairwise_hinge(scores, labels, where, *, margin):
    scores, labels = _kept(where, scores, labels)
    return _mean([max(0.0, scores[k] - scores[j] + margin) for j, k in _pairs(labels)])


def slic_hf(scores, labels, where, *, margin=1.0):
    return pairwise_hinge(scores, labels, where, margin=margin)


def pairwise_logistic(scores, labels, where):
    scores, labels = _kept(where, scores, labels)
    return _mean([-_log_sigmoid(scores[j] - scores[k]) for j, k in _pairs(labels)])


def verdict_cross_entropy(log_p_correct, log_p_incorrect, labels, where):
    rows = zip(log_p_correct, log_p_incorrect, labels, where, strict=True)
    return [-(c if label > 0 else i) if keep else 0.0 for c, i, label, keep in rows]


def reward_distillation(logits, rewards, where, *, temperature=1.0, direction="forward"):
    logits, rewards = _kept(where, logits, rewards)
    if not logits:
        return 0.0
    z, p = _log_softmax(logits), _log_softmax([r / temperature for r in rewards])
    first, second = (p, z) if direction == "forward" else (z, p)
    return sum(math.exp(a) * (a - b) for a, b in zip(first, second, strict=True))


def _ratio_pairs(scores, reference, labels, where):
    scores, reference, labels = _kept(where, scores, reference, labels)
    return [(scores[j] - reference[j]) - (scores[k] - reference[k]) for j, k in _pairs(labels)]


def dpo(scores, reference, labels, where, *, beta=0.1):
    return _mean([-_log_sigmoid(beta * h) for h in _ratio_pairs(scores, reference, labels, where)])


def ipo(scores, reference, labels, where, *, beta=0.1):
    return _mean([(h - 1 / (2 * beta)) ** 2 for h in _ratio_pairs(scores, reference, labels, where)])


def simpo(scores, labels, where, *, beta=2.0, margin=1.0):
    scores, labels = _kept(where, scores, labels)
    return _mean([-_log_sigmoid(beta * (scores[j] - scores[k]) - margin) for j, k in _pairs(labels)])


def orpo(scores, labels, where):
    scores, labels = _kept(where, scores, labels)
    odds = [math.exp(s) / (1 - math.exp(s)) for s in scores]
    return _mean([-_log_sigmoid(math.log(odds[j] / odds[k])) for j, k in _pairs(labels)])


def cpo(scores, labels, where, *, beta=0.1):
    scores, labels = _kept(where, scores, labels)
    return _mean([-_log_sigmoid(beta * (scores[j] - scores[k])) for j, k in _pairs(labels)])


ORACLES = {
    function.__name__: function
    for function in (
        margin_ranking, rrhf, listwise_softmax, list_mle, pro, pairwise_hinge, pairwise_logistic, slic_hf,
        verdict_cross_entropy, reward_distillation, dpo, ipo, simpo, orpo, cpo,
    )
}  # fmt: skip

CASES = [
    ("margin_ranking", {}),
    ("margin_ranking", {"gaps": "mean"}),
    ("margin_ranking", {"ties": "skip"}),
    ("margin_ranking", {"ties": "skip", "gaps": "mean", "margin": 0.7}),
    ("rrhf", {}),
    ("listwise_softmax", {}),
    ("listwise_softmax", {"targets": "normalize"}),
    ("list_mle", {}),
    ("list_mle", {"ties": "index"}),
    ("pro", {}),
    ("pro", {"differentiated": False}),
    ("pairwise_hinge", {"margin": 0.3}),
    ("pairwise_logistic", {}),
    ("slic_hf", {}),
    ("verdict_cross_entropy", {}),
    ("reward_distillation", {}),
    ("reward_distillation", {"direction": "reverse", "temperature": 0.5}),
    ("dpo", {}),
    ("ipo", {}),
    ("simpo", {}),
    ("orpo", {}),
    ("cpo", {}),
]
"""Every loss of the table, with every named variant; a test holds this list to the table."""
