"""The linear router learns what words tell, nothing where they tell nothing, and minds which rewards are known."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrefine.selection.features import FeatureConfig, features, fit_features

SMALL = FeatureConfig(num_features=128, penalties=(1e-4, 1.0), max_iterations=40)


def test_a_feature_is_the_log_of_a_words_count_over_the_rows_length() -> None:
    """Two words, three times and once: log 4 and log 2, so 2 : 1."""
    row = features(["Tick tick, TICK tock"], num_features=1 << 16, pairs=False).toarray()
    values = sorted(row[row > 0])
    assert len(values) == 3  # the comma too
    np.testing.assert_allclose(values, np.array([1, 1, 2]) / np.sqrt(6), rtol=1e-12)
    assert features(["a b"], num_features=64, pairs=True).nnz == 3


def test_words_that_decide_are_learned() -> None:
    prompts = [f"{verb} the number {n}" for n in range(10) for verb in ("double", "halve")]
    targets = np.array([[0.9, 0.1], [0.2, 0.8]] * 10)
    router = fit_features(prompts, targets, FeatureConfig(num_features=128, penalties=(1e-4,)))
    found = router.probabilities(["double the number 77", "halve the number 77"])
    np.testing.assert_allclose(found, [[0.9, 0.1], [0.2, 0.8]], atol=0.03)


def test_where_words_tell_nothing_the_mean_target_is_left() -> None:
    """The same words with either target: only the bias can fit, and the strongest penalty is as good as any."""
    router = fit_features(
        ["the same words"] * 40, np.array([[1.0, 0.0], [0.0, 1.0], [1.0, 0.0], [1.0, 0.0]] * 10), SMALL
    )
    np.testing.assert_allclose(router.probabilities(["the same words", "others"]), [[0.75, 0.25]] * 2, atol=0.02)
    assert router.penalty == max(SMALL.penalties)


def test_models_whose_reward_is_unknown_are_left_out_of_the_softmax() -> None:
    """x and y are 3 : 1 where z is unknown; z is as good as both where it is known: 3 : 1 : 4."""
    targets = np.array([[0.75, 0.25, np.nan], [3 / 8, 1 / 8, 0.5]] * 20)
    router = fit_features(["same"] * 40, targets, FeatureConfig(num_features=16, penalties=(1.0,)))
    np.testing.assert_allclose(router.probabilities(["same"]), [[3 / 8, 1 / 8, 0.5]], atol=1e-3)


def test_settings_and_data_that_cannot_be_are_refused() -> None:
    with pytest.raises(ValueError, match="no queries to train a router on"):
        fit_features([], np.zeros((0, 2)), SMALL)
    with pytest.raises(ValueError, match="give at least one, all above 0"):
        FeatureConfig(penalties=(0.0,))
    with pytest.raises(ValueError, match="at least 1"):
        FeatureConfig(num_features=0)
