"""Pure mathematics: scores and labels in, one unreduced value a group out.

Scores and labels: higher is better. ``[..., N]`` in, ``[...]`` out; ``where`` masks candidates; hyper-parameters are
keyword-only; sums, means and denominators are the objective's (``counts``, ``total``).
"""

from jaxrefine.losses.classification import verdict_cross_entropy
from jaxrefine.losses.distillation import TokenHead, reward_distillation, token_divergence
from jaxrefine.losses.likelihood import negative_log_likelihood
from jaxrefine.losses.logprobs import token_logprobs, token_logprobs_and_entropy
from jaxrefine.losses.pairwise import pairwise_hinge, pairwise_logistic, slic_hf
from jaxrefine.losses.preference import cpo, dpo, ipo, orpo, simpo
from jaxrefine.losses.ranking import list_mle, listwise_softmax, margin_ranking, pro, rrhf
from jaxrefine.losses.reduction import REQUIRED, pair_count
from jaxrefine.losses.table import LOSSES, NEEDS, Loss, check_options, check_per, counts, get_loss, total

__all__ = [
    "LOSSES",
    "NEEDS",
    "REQUIRED",
    "Loss",
    "TokenHead",
    "check_options",
    "check_per",
    "counts",
    "cpo",
    "dpo",
    "get_loss",
    "ipo",
    "list_mle",
    "listwise_softmax",
    "margin_ranking",
    "negative_log_likelihood",
    "orpo",
    "pair_count",
    "pairwise_hinge",
    "pairwise_logistic",
    "pro",
    "reward_distillation",
    "rrhf",
    "simpo",
    "slic_hf",
    "token_divergence",
    "token_logprobs",
    "token_logprobs_and_entropy",
    "total",
    "verdict_cross_entropy",
]
