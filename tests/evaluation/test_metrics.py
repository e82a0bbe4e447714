"""Intervals are what statistics says they are; ranking accuracy is what a hand count says it is."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from jaxrefine.evaluation.metrics import (
    bootstrap,
    make_resamples,
    paired_difference,
    ranking_accuracy,
    smallest_detectable,
)


def test_the_standard_error_over_prompts_is_the_textbook_one() -> None:
    values = np.random.default_rng(1).normal(size=(1, 40))
    estimate = bootstrap(values, make_resamples(1, 40, num_resamples=40000))
    np.testing.assert_allclose(estimate.standard_error, stats.sem(values[0]), rtol=0.02)


def test_the_standard_error_over_few_seeds_is_unbiased() -> None:
    # Prompts alike within a seed: only seeds vary, and the usual bootstrap would give sqrt(2/3) of this.
    values = np.repeat(np.array([[0.2], [0.5], [0.6]]), 8, axis=1)
    estimate = bootstrap(values, make_resamples(3, 8, num_resamples=40000))
    np.testing.assert_allclose(estimate.standard_error, stats.sem([0.2, 0.5, 0.6]), rtol=0.02)


def test_the_interval_agrees_with_scipy_over_many_prompts() -> None:
    values = np.random.default_rng(2).integers(0, 2, size=300).astype(float)
    ours = bootstrap(values[None], make_resamples(1, 300, num_resamples=20000))
    theirs = stats.bootstrap((values,), np.mean, n_resamples=20000, method="percentile", rng=0, batch=1000)
    expected = (theirs.confidence_interval.low, theirs.confidence_interval.high)
    np.testing.assert_allclose((ours.low, ours.high), expected, atol=0.005)


def test_intervals_of_crossed_data_cover_the_truth_at_least_as_often_as_they_promise() -> None:
    generator = np.random.default_rng(3)
    resamples = make_resamples(8, 40, num_resamples=1000)
    covered = 0
    for _ in range(200):
        table = (
            0.3 * generator.normal(size=(8, 1)) + generator.normal(size=(1, 40)) + 0.5 * generator.normal(size=(8, 40))
        )
        estimate = bootstrap(table, resamples)
        covered += estimate.low <= 0.0 <= estimate.high
    assert 0.90 <= covered / 200 <= 1.0


def test_pairing_removes_what_variants_share() -> None:
    generator = np.random.default_rng(4)
    prompts = 3.0 * generator.normal(size=(1, 60))
    control = prompts + 0.1 * generator.normal(size=(3, 60))
    variant = control + 0.5
    resamples = make_resamples(3, 60)
    difference = paired_difference(variant, control, resamples)
    np.testing.assert_allclose((difference.value, difference.low, difference.high), 0.5, rtol=1e-12)
    assert bootstrap(control, resamples).standard_error > 0.2
    assert difference.excludes_zero()


def test_a_variant_against_itself_differs_by_exactly_nothing() -> None:
    values = np.random.default_rng(5).normal(size=(3, 20))
    difference = paired_difference(values, values, make_resamples(3, 20))
    assert (difference.value, difference.low, difference.high, difference.standard_error) == (0.0, 0.0, 0.0, 0.0)
    assert not difference.excludes_zero()


def test_cells_that_do_not_count_change_neither_mean_nor_interval() -> None:
    values = np.array([[1.0, np.nan, 0.0], [1.0, np.nan, 1.0]])
    assert bootstrap(values, make_resamples(2, 3)).value == 0.75
    other = np.array([[np.nan, 5.0, 0.0], [0.0, np.nan, 0.0]])
    assert paired_difference(values, other, make_resamples(2, 3)).value == pytest.approx((0.0 + 1.0 + 1.0) / 3)


def test_a_table_without_a_cell_has_no_value() -> None:
    estimate = bootstrap(np.full((2, 3), np.nan), make_resamples(2, 3))
    assert np.isnan([estimate.value, estimate.low, estimate.high, estimate.standard_error]).all()
    assert not estimate.excludes_zero()


def test_the_same_seed_draws_the_same_intervals() -> None:
    values = np.random.default_rng(6).normal(size=(2, 10))
    assert bootstrap(values, make_resamples(2, 10, seed=7)) == bootstrap(values, make_resamples(2, 10, seed=7))


def test_draws_of_another_shape_are_refused() -> None:
    with pytest.raises(ValueError, match=r"\(2, 3\).*\(2, 4\)"):
        bootstrap(np.zeros((2, 3)), make_resamples(2, 4))
    with pytest.raises(ValueError, match="num_seeds"):
        make_resamples(0, 4)


def test_the_smallest_detectable_difference_is_found_in_four_of_five_repetitions() -> None:
    size = smallest_detectable(1.0)
    assert size == pytest.approx(1.959964 + 0.841621, rel=1e-6)
    estimates = np.random.default_rng(8).normal(loc=size, size=100000)
    np.testing.assert_allclose((estimates > 1.959964).mean(), 0.8, atol=0.005)


@pytest.mark.parametrize(
    ("scores", "labels", "expected"),
    [
        ([3.0, 2.0, 1.0], [1.0, 1.0, 0.0], 1.0),
        ([1.0, 2.0, 3.0], [1.0, 1.0, 0.0], 0.0),
        ([1.0, 3.0, 2.0], [1.0, 1.0, 0.0], 0.5),
        ([2.0, 2.0], [1.0, 0.0], 0.5),
        ([3.0, 1.0, 2.0], [3.0, 2.0, 1.0], 2.0 / 3.0),
        ([1.0, 2.0], [1.0, 1.0], np.nan),
        ([1.0], [1.0], np.nan),
    ],
)
def test_ranking_accuracy_counts_pairs(scores: list[float], labels: list[float], expected: float) -> None:
    np.testing.assert_allclose(ranking_accuracy(np.array(scores), np.array(labels)), expected)


def test_ranking_accuracy_skips_what_is_masked_even_if_it_is_not_a_number() -> None:
    scores = np.array([[2.0, 1.0, np.nan], [1.0, 2.0, 5.0]])
    labels = np.array([[1.0, 0.0, 0.0], [1.0, 0.0, 0.0]])
    where = np.array([[True, True, False], [True, False, False]])
    np.testing.assert_array_equal(ranking_accuracy(scores, labels, where=where), [1.0, np.nan])
