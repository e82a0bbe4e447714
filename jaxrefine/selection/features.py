"""A router without a network: hashed words and pairs of words of the query, and a linear map, trained by the same KL.

It is what a trained model must beat, and enough where queries are few. Words are hashed (no vocabulary is kept), so a
router is one matrix; how strongly it is held to zero is chosen by cross-validation on the training queries.
"""

from __future__ import annotations

import dataclasses
import itertools
import re
import zlib
from collections import Counter
from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize
from scipy.sparse import csr_matrix

from jaxrefine.typing import Array, Float

_WORD = re.compile(r"[^\W\d_]+|\d+|[^\w\s]")
_FOLDS = 3


@dataclasses.dataclass(frozen=True, kw_only=True)
class FeatureConfig:
    """What the features are, and how far the map may be from none."""

    num_features: int = 2048
    """Words share them by hash."""
    pairs: bool = True
    """Whether neighbouring words count together too."""
    penalties: tuple[float, ...] = (1e-3, 1e-2, 1e-1)
    """λ of λ/2 · |map|², of which cross-validation chooses one; the bias is free."""
    max_iterations: int = 50
    """Of L-BFGS."""

    def __post_init__(self) -> None:
        if self.num_features < 1 or self.max_iterations < 1:
            raise ValueError("FeatureConfig: num_features and max_iterations must be at least 1")
        if not self.penalties or min(self.penalties) <= 0:
            raise ValueError(f"FeatureConfig.penalties is {self.penalties}; give at least one, all above 0")


@dataclasses.dataclass(frozen=True, eq=False)
class FeatureRouter:
    """A linear router: softmax(features · kernel + bias)."""

    kernel: Float[np.ndarray, "F M"]
    bias: Float[np.ndarray, " M"]
    pairs: bool
    penalty: float
    """The λ that was chosen."""

    def probabilities(self, prompts: Sequence[str]) -> Float[Array, "Q M"]:
        """Of each model, for each query."""
        hashed = features(prompts, num_features=len(self.kernel), pairs=self.pairs)
        return _softmax(hashed @ self.kernel + self.bias)


def features(prompts: Sequence[str], *, num_features: int, pairs: bool = True) -> csr_matrix:
    """log(1 + count) of each hashed word and pair of words; every row has length 1.

    >>> features(["one and one"], num_features=64).shape
    (1, 64)
    """
    data: list[float] = []
    columns: list[int] = []
    starts = [0]
    for prompt in prompts:
        words = [word.lower() for word in _WORD.findall(prompt)]
        terms = words + [f"{first} {second}" for first, second in itertools.pairwise(words) if pairs]
        counts = Counter(zlib.crc32(term.encode()) % num_features for term in terms)
        values = np.log1p(np.array(list(counts.values()), np.float64))
        data += (values / max(float(np.linalg.norm(values)), 1e-12)).tolist()
        columns += counts.keys()
        starts.append(len(columns))
    return csr_matrix((data, columns, starts), shape=(len(prompts), num_features))


def fit_features(
    prompts: Sequence[str], targets: Float[Array, "Q M"], config: FeatureConfig, *, seed: int = 0
) -> FeatureRouter:
    """Trains a linear router by forward KL to the targets.

    Args:
        prompts: of the training queries.
        targets: shares that sum to 1 over the models whose reward is known; NaN elsewhere. The router's softmax is
            over the same models, as in ``reward_distillation``.
        config: features and penalties.
        seed: of the folds.

    Raises:
        ValueError: no queries.

    >>> router = fit_features(["add it"] * 5 + ["halve it"] * 5, np.array([[1.0, 0.0]] * 5 + [[0.0, 1.0]] * 5),
    ...                       FeatureConfig(num_features=64, penalties=(1e-2,)))
    >>> router.probabilities(["add it", "halve it"]).argmax(1).tolist()
    [0, 1]
    """
    if not prompts:
        raise ValueError("no queries to train a router on")
    table = np.asarray(targets, np.float64)
    hashed = features(prompts, num_features=config.num_features, pairs=config.pairs)
    penalty = config.penalties[0]
    if len(config.penalties) > 1 and len(prompts) >= _FOLDS:
        folds = np.random.default_rng(seed).permutation(len(prompts)) % _FOLDS
        errors = [_error(hashed, table, folds, config, value) for value in config.penalties]
        # Of equals (to a thousandth) the strongest: where nothing can be learned from words, none should be.
        good = min(errors) * (1.0 + 1e-3)
        penalty = max(value for value, error in zip(config.penalties, errors, strict=True) if error <= good)
    kernel, bias = _fit(hashed, table, penalty, config.max_iterations)
    return FeatureRouter(kernel, bias, config.pairs, penalty)


def _error(hashed: csr_matrix, targets: np.ndarray, folds: np.ndarray, config: FeatureConfig, penalty: float) -> float:
    total = 0.0
    for fold in range(_FOLDS):
        kernel, bias = _fit(hashed[folds != fold], targets[folds != fold], penalty, config.max_iterations)
        held = folds == fold
        total += float(_cross_entropy(hashed[held] @ kernel + bias, targets[held])[0])
    return total


def _fit(hashed: csr_matrix, targets: np.ndarray, penalty: float, iterations: int) -> tuple[np.ndarray, np.ndarray]:
    num, width, models = len(targets), hashed.shape[1], targets.shape[1]

    def loss(flat: np.ndarray) -> tuple[float, np.ndarray]:
        kernel, bias = flat[: width * models].reshape(width, models), flat[width * models :]
        value, slope = _cross_entropy(hashed @ kernel + bias, targets)
        gradient = np.concatenate([(hashed.T @ slope / num + penalty * kernel).ravel(), slope.sum(0) / num])
        return value / num + 0.5 * penalty * float((kernel**2).sum()), gradient

    start = np.zeros(width * models + models)
    found = minimize(loss, start, jac=True, method="L-BFGS-B", options={"maxiter": iterations})
    return found.x[: width * models].reshape(width, models), found.x[width * models :]


def _cross_entropy(logits: np.ndarray, targets: np.ndarray) -> tuple[float, np.ndarray]:
    """Summed over queries, and its gradient; over the models whose target is known."""
    known = ~np.isnan(targets)
    shares = _softmax(np.where(known, logits, -np.inf))
    wanted = np.where(known, targets, 0.0)
    value = -float((wanted * np.log(np.where(known, np.maximum(shares, 1e-300), 1.0))).sum())
    return value, np.where(known, shares * wanted.sum(1, keepdims=True) - wanted, 0.0)


def _softmax(logits: np.ndarray) -> np.ndarray:
    raised = np.exp(logits - logits.max(1, keepdims=True))
    return raised / raised.sum(1, keepdims=True)
