"""Agreement by hand, against scikit-learn, and on the verdicts that PandaLM's authors published."""

from __future__ import annotations

import gzip
import json
import math

import numpy as np
import pytest

from jaxrefine.evaluation.agreement import VERDICTS, agreement, kappa, majority, standings


def test_kappa_of_two_readers_of_fifty_grants():
    # 20 yes-yes, 5 yes-no, 10 no-yes, 15 no-no: p_o = 0.7, p_e = 0.5 · 0.6 + 0.5 · 0.4 = 0.5
    one = ["yes"] * 25 + ["no"] * 25
    other = ["yes"] * 20 + ["no"] * 5 + ["yes"] * 10 + ["no"] * 15
    assert kappa(one, other) == pytest.approx(0.4)
    assert kappa(other, one) == pytest.approx(0.4)


def test_kappa_is_one_for_equals_below_nought_for_opposites_and_none_for_a_constant():
    assert kappa(["a", "b"], ["a", "b"]) == 1.0
    assert kappa(["a", "b"], ["b", "a"]) == -1.0
    assert kappa(["a", "a"], ["a", "a"]) is None
    assert kappa(["a", "a"], ["b", "b"]) == 0.0
    with pytest.raises(ValueError, match="the same items twice, got 1 and 2"):
        kappa(["a"], ["a", "b"])


TRUTH = ["first"] * 4 + ["second"] * 3 + ["tie"] * 3
SAID = ["first", "first", "second", "unparsable", "second", "second", "tie", "tie", "first", "garbage"]


def test_scores_by_hand():
    found = agreement(TRUTH, SAID)
    assert found.confusion.tolist() == [[2, 1, 0, 1], [0, 2, 1, 0], [1, 0, 1, 1]]
    assert (found.num, found.accuracy, found.unread) == (10, 0.5, 2)
    first, second, tie = (found.by_class[name] for name in VERDICTS)
    assert (first.precision, first.recall) == (2 / 3, 0.5)
    assert (second.precision, second.recall) == (2 / 3, 2 / 3)
    assert (tie.precision, tie.recall) == (0.5, 1 / 3)
    assert found.macro.precision == pytest.approx((2 / 3 + 2 / 3 + 1 / 2) / 3)
    assert found.macro.recall == pytest.approx((1 / 2 + 2 / 3 + 1 / 3) / 3)
    assert found.macro.f1 == pytest.approx((4 / 7 + 2 / 3 + 2 / 5) / 3)
    # chance: (4·3 + 3·3 + 3·2) / 100 = 0.27
    assert found.kappa == pytest.approx((0.5 - 0.27) / 0.73)
    assert found.interval.value == 0.5
    assert 0.15 < found.interval.low < 0.35
    assert 0.65 < found.interval.high < 0.85  # ± 1.96 · sqrt(0.25 / 10) = ± 0.31


def test_what_is_no_verdict_may_be_a_tie_or_left_out():
    as_tie = agreement(TRUTH, SAID, unread="tie")
    assert (as_tie.num, as_tie.accuracy, as_tie.unread) == (10, 0.6, 0)
    without = agreement(TRUTH, SAID, unread="left out")
    assert (without.num, without.accuracy, without.unread) == (8, 5 / 8, 0)


def test_a_class_that_nobody_names_scores_nought():
    found = agreement(["first", "tie"], ["first", "first"])
    assert (found.by_class["tie"].precision, found.by_class["tie"].recall, found.by_class["tie"].f1) == (0, 0, 0)
    assert found.by_class["second"].f1 == 0


@pytest.mark.parametrize(
    ("truth", "said", "options", "message"),
    [
        (["first"], [], {}, "1 true verdicts and 0 predicted ones"),
        (["frist"], ["first"], {}, "unknown true verdict 'frist'; did you mean 'first'"),
        ([], [], {}, "no verdicts to compare"),
        (["tie"], ["?"], {"unread": "left out"}, "no verdicts to compare"),
    ],
)
def test_what_cannot_be_compared_is_refused(truth, said, options, message):
    with pytest.raises(ValueError, match=message):
        agreement(truth, said, **options)


def by_sklearn(truth, said):
    metrics = pytest.importorskip("sklearn.metrics")
    options = {"labels": list(VERDICTS), "average": "macro", "zero_division": 0}
    precision, recall, f1, _ = metrics.precision_recall_fscore_support(truth, said, **options)
    return [metrics.accuracy_score(truth, said), metrics.cohen_kappa_score(truth, said), precision, recall, f1]


def values(found):
    return [found.accuracy, found.kappa, found.macro.precision, found.macro.recall, found.macro.f1]


@pytest.mark.parametrize("seed", range(5))
def test_scores_are_those_of_scikit_learn(seed):
    rng = np.random.default_rng(seed)
    truth = rng.choice(VERDICTS, 60, p=[0.5, 0.3, 0.2]).tolist()
    said = [verdict if rng.random() < 0.6 else rng.choice([*VERDICTS, "none"]) for verdict in truth]
    np.testing.assert_allclose(values(agreement(truth, list(map(str, said)))), by_sklearn(truth, said), rtol=1e-12)


def test_a_majority_is_more_than_half():
    assert majority(["tie"]) == "tie"
    assert majority(["first", "tie", "first"]) == "first"
    assert majority(["first", "tie"]) is None


@pytest.mark.shared_data
def test_verdicts_that_were_published_agree_with_the_majority_as_scikit_learn_says(shared_data):
    def read(name):
        with gzip.open(shared_data / "pandalm" / f"{name}.json.gz", "rt") as file:
            return json.load(file)

    codes = {0: "tie", 1: "first", 2: "second", "Tie": "tie", "1": "first", "2": "second"}
    rows = read("testset-v1")
    votes = [[codes[int(row[f"annotator{n}"])] for n in (1, 2, 3)] for row in rows]
    truth = [majority(said) for said in votes]
    assert len(truth) == 502
    assert None not in truth
    people = [kappa([v[a] for v in votes], [v[b] for v in votes]) for a, b in ((0, 1), (0, 2), (1, 2))]
    assert 0.81 < min(people) < max(people) < 0.88  # published for all 999 rows: 0.85 to 0.88

    pandalm = [codes[int(row["pandalm_result"])] for row in read("pandalm-7b-testset-v1")]
    found = agreement(truth, pandalm)
    np.testing.assert_allclose(values(found), by_sklearn(truth, pandalm), rtol=1e-12)
    assert found.interval.low < 0.6677 < found.interval.high  # published data, all 999 rows

    gpt = [codes.get(row["gpt_result"], "garbage") for row in read("gpt-3.5-turbo-testset-v1")]
    strict, lenient = agreement(truth, gpt), agreement(truth, gpt, unread="tie")
    assert strict.unread == 22
    assert strict.interval.low < 0.6977 < strict.interval.high
    assert lenient.interval.low < 0.7107 < lenient.interval.high
    np.testing.assert_allclose(values(strict), by_sklearn(truth, gpt), rtol=1e-12)


MET = (
    [("a", "b", "first")] * 9 + [("b", "a", "first")] * 3 + [("a", "b", "tie")] * 2
    + [("b", "c", "first")] * 6 + [("c", "b", "second")] * 2 + [("c", "a", "tie")] * 4 + [("a", "c", "?")] * 9
)  # fmt: skip


def test_wins_and_ties_are_counted_for_the_models_whatever_the_order():
    found = standings(MET)
    assert found.models == ("a", "b", "c")
    assert found.wins.tolist() == [[0, 9, 0], [3, 0, 8], [0, 0, 0]]
    assert found.ties.tolist() == [[0, 2, 4], [2, 0, 0], [4, 0, 0]]
    assert found.lead().tolist() == [[0, 6, 0], [-6, 0, 8], [0, -8, 0]]
    np.testing.assert_allclose(found.shares(), [(9 + 1 + 2) / 18, (3 + 8 + 1) / 22, 2 / 12])


def test_a_small_lead_is_none():
    assert standings(MET).edges() == ([("a", "b"), ("b", "c")], [("a", "c")])
    assert standings(MET).edges(least=7) == ([("b", "c")], [("a", "b"), ("a", "c")])
    assert standings(MET).cycle() is None


def test_a_circle_is_found():
    circle = [("a", "b", "first"), ("b", "c", "first"), ("c", "a", "first"), ("d", "a", "first"), ("c", "e", "first")]
    found = standings(circle)
    assert found.cycle() is None  # leads of one are below five
    models = found.cycle(least=1)
    assert sorted(models) == ["a", "b", "c"]
    beats = set(found.edges(least=1)[0])
    assert all(pair in beats for pair in zip(models, models[1:] + models[:1], strict=True))


def test_models_that_never_met_have_no_edge_and_no_share():
    found = standings([("a", "b", "first"), ("c", "d", "unparsable")])
    assert found.edges(least=1) == ([("a", "b")], [])
    assert math.isnan(found.shares()[2])
    with pytest.raises(ValueError, match="a model does not meet itself: 'a'"):
        standings([("a", "a", "tie")])
