"""One value of every loss, worked by hand; the arithmetic is in the comment."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.losses import LOSSES, negative_log_likelihood

LN2, LN3 = np.log(2.0), np.log(3.0)

VALUES = [
    # scores in rank order −.5 −.7 −.6 −1.0, margin .1. Hinges s_k − s_j + .1·distance:
    #   distance 1: −.7+.5+.1 = −.1 → 0;   −.6+.7+.1 = .2;   −1+.6+.1 = −.3 → 0
    #   distance 2: −.6+.5+.2 = .1;   −1+.7+.2 = −.1 → 0        distance 3: −1+.5+.3 = −.2 → 0
    # sum .2 + .1 = .3;   mean of each distance .2/3 + .1/2 + 0 = .116667
    ("margin_ranking", [[-0.5, -0.7, -0.6, -1.0], [4, 3, 2, 1]], {}, 0.3),
    ("margin_ranking", [[-0.5, -0.7, -0.6, -1.0], [4, 3, 2, 1]], {"gaps": "mean"}, 0.2 / 3 + 0.1 / 2),
    # the same candidates given in another order: the labels say the ranking
    ("margin_ranking", [[-1.0, -0.6, -0.5, -0.7], [1, 2, 4, 3]], {}, 0.3),
    # right, wrong, wrong: (0,1): −.9+1+.1 = .2, (0,2): −2+1+.1 < 0, one step in dense rank both; (1,2) is no pair
    ("margin_ranking", [[-1.0, -0.9, -2.0], [1, 0, 0]], {"ties": "skip"}, 0.2),
    # by index candidate 2 is third: (0,1): .2, (0,2): −2+1+.2 < 0, (1,2): −2+.9+.1 < 0; with scores −2, −.9 swapped
    # (0,1): −2+1+.1 < 0, (0,2): −.9+1+.2 = .3, (1,2): −.9+2+.1 = 1.2: 1.5
    ("margin_ranking", [[-1.0, -2.0, -0.9], [1, 0, 0]], {"ties": "index"}, 1.5),
    # labels 2 0 0 1 0, all scores 0, margin 1, dense ranks 0 2 2 1 2: three pairs two apart give 2 each, (0,3) and
    # (3,1), (3,2), (3,4) one apart give 1 each: sum 6 + 4 = 10; means 2 + 1 = 3
    ("margin_ranking", [[0, 0, 0, 0, 0], [2, 0, 0, 1, 0]], {"ties": "skip", "margin": 1.0}, 10.0),
    ("margin_ranking", [[0, 0, 0, 0, 0], [2, 0, 0, 1, 0]], {"ties": "skip", "margin": 1.0, "gaps": "mean"}, 3.0),
    # (0,1): −.5+1 = .5;  (0,2): −2+1 < 0;  (1,2): −2+.5 < 0
    ("rrhf", [[-1.0, -0.5, -2.0], [2, 1, 0]], {}, 0.5),
    # softmax(ln 3, 0) = (3/4, 1/4); log softmax(0, ln 3) = (−ln 4, ln 3 − ln 4): ¾·2ln2 + ¼·(2ln2 − ln 3)
    ("listwise_softmax", [[0.0, LN3], [LN3, 0.0]], {}, 2 * LN2 - LN3 / 4),
    # labels 1 1 0 0 → (½, ½, 0, 0); softmax(0, ln 3, ln 3, 0) = (1, 3, 3, 1)/8: ½·ln 8 + ½·(ln 8 − ln 3)
    ("listwise_softmax", [[0.0, LN3, LN3, 0.0], [1, 1, 0, 0]], {"targets": "normalize"}, 3 * LN2 - LN3 / 2),
    # in rank order exp(s) = 1, 3, 4: log((1+3+4)/1) + log((3+4)/3) + 0 = log 8 + log(7/3)
    ("list_mle", [[LN3, 2 * LN2, 0.0], [1, 0, 2]], {}, np.log(8 * 7 / 3)),
    # right 1 and 3, wrong 4: log((1+4)/1) + log((3+4)/3), the right ones do not compete
    ("list_mle", [[0.0, 2 * LN2, LN3], [1, 0, 1]], {}, np.log(5 * 7 / 3)),
    # by index they do, 1 before 3, and 4 is last: log((1+3+4)/1) + log((3+4)/3)
    ("list_mle", [[0.0, 2 * LN2, LN3], [1, 0, 1]], {"ties": "index"}, np.log(8 * 7 / 3)),
    # labels 3 2 0, scores 0, ln 3, ln 2. k = 0: gaps 1 and 3, own 3·0 → exp 1, rivals exp(1·ln 3) = 3, exp(3 ln 2) = 8:
    # log(12/1).  k = 1: gap 2, own exp(2 ln 3) = 9, rival exp(2 ln 2) = 4: log(13/9)
    ("pro", [[0.0, LN3, LN2], [3, 2, 0]], {}, np.log(12 * 13 / 9)),
    # without temperatures log((1+3+2)/1) + log((3+2)/3)
    ("pro", [[0.0, LN3, LN2], [3, 2, 0]], {"differentiated": False}, np.log(6 * 5 / 3)),
    # right −3; wrong −1: −1+3+.5 = 2.5, wrong −2: −2+3+.5 = 1.5; mean 2
    ("pairwise_hinge", [[-1.0, -3.0, -2.0], [0, 1, 0]], {"margin": 0.5}, 2.0),
    # two right, one wrong: s_j − s_k = ln 3 and −ln 3: −log σ = log(1 + 1/3) and log(1 + 3): mean ½ log(16/3)
    ("pairwise_logistic", [[LN3, 0.0, -LN3], [1, 0, 1]], {}, 0.5 * np.log(16 / 3)),
    # −4.5 + 4 + 1 = .5
    ("slic_hf", [[-4.0, -4.5], [1, 0]], {}, 0.5),
    # right: −log p(correct) = .5;  wrong: −log p(incorrect) = 3
    ("verdict_cross_entropy", [[-0.5, -0.25], [-2.0, -3.0], [1, 0]], {}, [0.5, 3.0]),
    # p = (3/4, 1/4), z = (½, ½): Σ p log p + ln 2 = ¾ ln 3 − 2 ln 2 + ln 2
    ("reward_distillation", [[0.0, 0.0], [LN3, 0.0]], {}, 0.75 * LN3 - LN2),
    # Σ z (log z − log p) = −ln 2 − ½ (ln 3 − 2 ln 2) + ½ · 2 ln 2 = ln 2 − ½ ln 3
    ("reward_distillation", [[0.0, 0.0], [LN3, 0.0]], {"direction": "reverse"}, LN2 - LN3 / 2),
    # temperature ½ squares the odds: p = (9, 1)/10: .9 ln 9 − ln 10 + ln 2
    ("reward_distillation", [[0.0, 0.0], [LN3, 0.0]], {"temperature": 0.5}, 0.9 * 2 * LN3 - np.log(5)),
    # log-ratios 1 and −1, β 10·… : β·2 with β = ln(3)/2 is ln 3: −log σ(ln 3) = log(4/3)
    ("dpo", [[-10.0, -12.0], [-11.0, -11.0], [1, 0]], {"beta": LN3 / 2}, np.log(4 / 3)),
    # (2 − 1/(2·.1))² = (2 − 5)²
    ("ipo", [[-10.0, -12.0], [-11.0, -11.0], [1, 0]], {}, 9.0),
    # 2·(−1 + 1.5) − 1 = 0: −log σ(0) = ln 2
    ("simpo", [[-1.0, -1.5], [1, 0]], {}, LN2),
    # odds of 3/4 and 1/4: 3 and 1/3; −log σ(log 9) = log(1 + 1/9)
    ("orpo", [[np.log(0.75), np.log(0.25)], [1, 0]], {}, np.log(10 / 9)),
    # three candidates, one right of probability ½ (odds 1), two wrong of ¾ and ¼: mean of log(1 + 3), log(1 + 1/3)
    ("orpo", [np.log([0.75, 0.5, 0.25]).tolist(), [0, 1, 0]], {}, 0.5 * np.log(16 / 3)),
    # ½·(−10 + 12) with β = ½ ln 3 … as dpo with a uniform reference: log(4/3)
    ("cpo", [[-10.0, -12.0], [1, 0]], {"beta": LN3 / 2}, np.log(4 / 3)),
]


@pytest.mark.parametrize(("name", "arrays", "options", "value"), VALUES, ids=lambda x: str(x))
def test_values_worked_by_hand(name, arrays, options, value):
    function = jax.jit(functools.partial(LOSSES[name].function, **options))
    got = function(*(jnp.asarray(x, jnp.float32) for x in arrays))
    np.testing.assert_allclose(got, value, rtol=1e-5)


def test_every_loss_has_a_value_worked_by_hand():
    assert {name for name, *_ in VALUES} == set(LOSSES)


# log-probs −1, −2, −4 and a masked −9: sum 7, mean 7/3
@pytest.mark.parametrize(("normalize", "value"), [("sum", 7.0), ("mean", 7 / 3), ("token", [1.0, 2.0, 4.0, 0.0])])
def test_negative_log_likelihood_in_its_three_forms(normalize, value):
    got = negative_log_likelihood(
        jnp.array([-1.0, -2.0, -4.0, -9.0]), where=jnp.array([True, True, True, False]), normalize=normalize
    )
    np.testing.assert_allclose(got, value, rtol=1e-6)


@pytest.mark.parametrize("normalize", ["sum", "mean", "token"])
def test_negative_log_likelihood_of_nothing_is_zero(normalize):
    got = negative_log_likelihood(jnp.full((2, 3), jnp.nan), where=jnp.zeros((2, 3), bool), normalize=normalize)
    np.testing.assert_array_equal(got, np.zeros_like(got))
