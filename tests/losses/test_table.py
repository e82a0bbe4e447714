"""The table's rows: what they say, what their options are, how their values are counted."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.losses import LOSSES, NEEDS, REQUIRED, check_options, check_per, counts, pair_count, total
from tests.losses.oracles import CASES


@pytest.mark.parametrize("name", LOSSES)
def test_rows_need_what_their_arrays_are(name):
    loss = LOSSES[name]
    assert loss.needs <= set(NEEDS)
    assert ("reference" in loss.needs) == ("reference_scores" in loss.arrays)
    assert ("rewards" in loss.needs) == ("rewards" in loss.arrays) == (loss.reads == "logits")
    assert ("verdicts" in loss.needs) == ("log_p_correct" in loss.arrays) == (loss.reads == "verdicts")
    assert ("labels" in loss.needs or "binary_labels" in loss.needs) == ("labels" in loss.arrays)
    assert (loss.unit == "pair") == (loss.pairs is not None)
    assert loss.citation
    assert loss.function.__name__ == name
    assert "Source:" in loss.function.__doc__


@pytest.mark.parametrize(("name", "options"), CASES, ids=str)
def test_every_case_passes_the_check_of_options(name, options):
    check_options(name, options)


def test_options_are_the_keyword_hyper_parameters():
    assert LOSSES["simpo"].options() == {"beta": 2.0, "margin": 1.0}
    assert LOSSES["pairwise_hinge"].options() == {"margin": REQUIRED}
    assert LOSSES["orpo"].options() == {}


@pytest.mark.parametrize(
    ("name", "options", "error", "message"),
    [
        ("dppo", {}, ValueError, r"unknown loss 'dppo'; did you mean 'dpo'\? Allowed: .*simpo"),
        ("dpo", {"bta": 1.0}, ValueError, r"unknown option of dpo 'bta'; did you mean 'beta'\?"),
        ("dpo", {"where": 1.0}, ValueError, "unknown option of dpo 'where'"),
        ("pairwise_hinge", {}, ValueError, "pairwise_hinge has no default for margin"),
        ("dpo", {"beta": 0.0}, ValueError, "dpo: beta is a finite number > 0, given 0.0"),
        ("dpo", {"beta": float("inf")}, ValueError, "finite"),
        ("dpo", {"beta": float("nan")}, ValueError, "finite"),
        ("dpo", {"beta": "0.1"}, TypeError, "dpo: beta is a float, given '0.1'"),
        ("dpo", {"beta": True}, TypeError, "dpo: beta is a float, given True"),
        ("slic_hf", {"margin": -1.0}, ValueError, "slic_hf: margin is a finite number >= 0, given -1.0"),
        ("margin_ranking", {"gaps": "means"}, ValueError, r"margin_ranking: gaps 'means'; did you mean 'mean'\?"),
        ("margin_ranking", {"ties": "skipp"}, ValueError, "margin_ranking: ties 'skipp'; did you mean 'skip'"),
        ("list_mle", {"ties": 3}, ValueError, "list_mle: ties 3. Allowed: index, skip"),
        ("pro", {"differentiated": "no"}, TypeError, "pro: differentiated is a bool, given 'no'"),
        ("reward_distillation", {"temperature": 0}, ValueError, "temperature is a finite number > 0"),
    ],
    ids=str,
)
def test_wrong_options_are_refused_with_the_reason(name, options, error, message):
    with pytest.raises(error, match=message):
        check_options(name, options)


LABELS = jnp.array([[2.0, 1.0, 0.0, 0.0], [1.0, 1.0, 1.0, 1.0], [1.0, 0.0, 0.0, 1.0], [1.0, 0.0, 0.0, 1.0]])
WHERE = jnp.array([[True] * 4, [True] * 4, [True, True, True, False], [True, False, False, True]])


def test_pairs_are_those_of_which_one_label_is_higher():
    # 2 > 1, 0, 0 and 1 > 0, 0: five; none; 1 > 0, 0 with the last masked; the two that are left are equal
    np.testing.assert_array_equal(pair_count(LABELS, WHERE), [5, 0, 2, 0])
    # by index every two candidates are a pair: 4·3/2, 4·3/2, 3·2/2, 2·1/2
    np.testing.assert_array_equal(pair_count(LABELS, WHERE, ties="index"), [6, 6, 3, 1])
    np.testing.assert_array_equal(pair_count(LABELS), [5, 0, 4, 4])


@pytest.mark.parametrize("name", [name for name, loss in LOSSES.items() if loss.unit != "candidate"])
def test_groups_without_a_pair_count_for_nothing(name):
    if LOSSES[name].reads == "logits":
        np.testing.assert_array_equal(counts(name, LABELS, WHERE), [1, 1, 1, 1])
        return
    index = LOSSES[name].options().get("ties") == "index"
    np.testing.assert_array_equal(counts(name, LABELS, WHERE), [1, index, 1, index])


def test_counts_per_pair_are_numbers_of_pairs():
    np.testing.assert_array_equal(counts("dpo", LABELS, WHERE, per="pair"), [5, 0, 2, 0])
    ranking = {"ties": "skip"}
    np.testing.assert_array_equal(counts("margin_ranking", LABELS, WHERE, per="pair", options=ranking), [5, 0, 2, 0])
    np.testing.assert_array_equal(counts("margin_ranking", LABELS, WHERE, per="pair"), [6, 6, 3, 1])


def test_candidates_count_one_by_one():
    np.testing.assert_array_equal(counts("verdict_cross_entropy", LABELS, WHERE), [4, 4, 3, 2])


def test_a_query_counts_where_two_rewards_are_known():
    where = jnp.array([[True, True, False], [True, False, False], [False] * 3])
    np.testing.assert_array_equal(counts("reward_distillation", jnp.zeros((3, 3)), where), [1, 0, 0])


@pytest.mark.parametrize("name", ["list_mle", "verdict_cross_entropy", "reward_distillation"])
def test_losses_that_are_not_made_of_pairs_refuse_an_average_per_pair(name):
    with pytest.raises(ValueError, match=rf"{name} is not made of pairs: .*margin_ranking"):
        check_per(name, "pair")
    with pytest.raises(ValueError, match="unknown value of per 'pairs'; did you mean 'pair'"):
        check_per(name, "pairs")


@pytest.mark.parametrize(("name", "options"), [("pairwise_logistic", {}), ("margin_ranking", {"ties": "skip"})])
def test_per_pair_is_the_average_over_all_pairs_of_the_batch(name, options):
    scores = jnp.asarray(-np.random.default_rng(0).random((4, 4)), jnp.float32)
    values = LOSSES[name].function(scores, LABELS, where=WHERE, **options)
    summed, count = total(name, values, LABELS, WHERE, per="pair", options=options)
    scores, labels, where = np.asarray(scores, np.float64), np.asarray(LABELS), np.asarray(WHERE)
    each = []
    for g, j, k in np.ndindex(4, 4, 4):
        if where[g, j] and where[g, k] and labels[g, j] > labels[g, k]:
            behind = scores[g, k] - scores[g, j]
            distance = labels[g, j] - labels[g, k]  # these labels step by one: dense ranks do as well
            each.append(np.log1p(np.exp(behind)) if name != "margin_ranking" else max(0.0, behind + 0.1 * distance))
    assert count == len(each) == 7
    np.testing.assert_allclose(summed / count, np.mean(each), rtol=1e-5)


def test_per_group_is_the_average_over_groups_with_a_pair():
    values = jnp.array([3.0, 0.0, 1.0, 0.0])
    summed, count = total("dpo", values, LABELS, WHERE)
    assert (float(summed), float(count)) == (4.0, 2.0)


def test_sums_and_counts_of_parts_add_up_to_those_of_the_whole():
    values = jnp.array([3.0, 0.0, 1.0, 0.0])
    for per in ("group", "pair"):
        whole = total("dpo", values, LABELS, WHERE, per=per)
        parts = [total("dpo", values[i : i + 2], LABELS[i : i + 2], WHERE[i : i + 2], per=per) for i in (0, 2)]
        np.testing.assert_allclose(whole, np.sum(parts, axis=0))


def test_pro_without_temperatures_is_list_mle_that_skips_ties():
    rng = np.random.default_rng(1)
    scores, labels = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32), jnp.asarray(rng.integers(0, 3, (6, 5)))
    np.testing.assert_allclose(
        LOSSES["pro"].function(scores, labels, differentiated=False), LOSSES["list_mle"].function(scores, labels)
    )


def test_both_orders_of_ties_agree_where_there_are_none():
    rng = np.random.default_rng(2)
    scores = jnp.asarray(rng.normal(size=(6, 5)), jnp.float32)
    labels = jnp.asarray(rng.permuted(np.tile(np.arange(5.0), (6, 1)), axis=1), jnp.float32)
    for name in ("margin_ranking", "list_mle"):
        by_index, skipped = (LOSSES[name].function(scores, labels, ties=ties) for ties in ("index", "skip"))
        np.testing.assert_array_equal(by_index, skipped)
