from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.data.packing import PackingConfig, TokenGroup, batch_from_groups
from jaxrefine.scoring.terms import best_logprob, likelihood_term, ranking_metrics, routing_metrics, verdict_metrics

GROUPS = (
    TokenGroup(0, (1,), ((5, 2), (5, 6, 7, 2), (2,)), labels=(1.0, 2.0, 2.0), mle_weight=(0.0, 2.0, 1.0)),
    TokenGroup(1, (1,), ((5, 2), (6, 2)), labels=(1.0, 0.0), rank_where=(True, False), mle_weight=(1.0, 0.0)),
)
BATCH = batch_from_groups([GROUPS], PackingConfig.fit(GROUPS, rows=1, slots=32))
SUMS = jnp.array([[[-3.0, -8.0, -1.0], [-6.0, -9.0, 0.0]]])


@pytest.mark.parametrize(
    ("normalize", "expected"),
    [
        ("sum", (2 * 8.0 + 1.0 + 6.0, 2 + 1 + 1)),
        ("mean", (2 * 8.0 / 4 + 1.0 / 1 + 6.0 / 2, 2 + 1 + 1)),
        ("token", (2 * 8.0 + 1.0 + 6.0, 2 * 4 + 1 * 1 + 1 * 2)),
    ],
)
def test_likelihood_sums_and_counts_what_it_is_told_to(normalize, expected):
    assert tuple(map(float, likelihood_term(SUMS, BATCH, normalize))) == expected


def test_ranking_is_right_for_the_share_of_pairs_whose_better_one_scores_higher():
    scores = jnp.array([[[-1.5, -2.0, -1.0], [-3.0, -4.5, 0.0]]])
    metrics = ranking_metrics(scores, BATCH)
    # pairs of group 0: candidates 1 and 2 above 0, leads −0.5 and 0.5; group 1 has one ranked candidate, so no pair
    assert [float(x) for x in metrics["ranking_accuracy"]] == [1.0, 2.0]
    assert [float(x) for x in metrics["score_margin"]] == [0.0, 2.0]
    assert [float(x) for x in metrics["share_with_pair"]] == [1.0, 2.0]


def test_the_best_candidate_is_the_first_of_the_highest_label():
    found = best_logprob(SUMS, BATCH)["best_logprob"]
    assert [float(x) for x in found] == [-8.0 / 4 + -6.0 / 2, 2.0]


def test_verdicts_are_right_where_the_likelier_word_is_true():
    right = jnp.log(jnp.array([[[0.5, 0.5, 0.1], [0.2, 0.9, 0.5]]]))
    wrong = jnp.log(jnp.array([[[0.1, 0.25, 0.3], [0.4, 0.1, 0.5]]]))
    metrics = verdict_metrics(right, wrong, BATCH)
    # labels above 0 are right: found right, right, wrong; wrong; the fifth is not ranked
    assert [float(x) for x in metrics["verdict_accuracy"]] == [2.0, 4.0]
    np.testing.assert_allclose(metrics["verdict_mass"][0], 0.6 + 0.75 + 0.4 + 0.6, rtol=1e-5)


def test_routing_is_right_where_no_known_reward_is_higher():
    logits = jnp.array([[[3.0, 1.0, 2.0], [1.0, 2.0, 3.0], [0.0, 0.0, 0.0]]])
    rewards = jnp.array([[[0.0, 1.0, 2.0], [5.0, 7.0, 6.0], [0.0, 0.0, 0.0]]])
    where = jnp.array([[[False, True, True], [True, True, True], [False, False, False]]])
    metrics = routing_metrics(logits, rewards, where)
    assert [float(x) for x in metrics["routing_accuracy"]] == [1.0, 2.0]
    assert [float(x) for x in metrics["routed_reward"]] == [2.0 + 6.0, 2.0]
