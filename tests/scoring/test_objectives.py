from __future__ import annotations

import dataclasses
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.data.packing import PackingConfig, TokenGroup, batch_from_groups, plan_rows
from jaxrefine.losses import LOSSES
from jaxrefine.scoring.objectives import ObjectiveConfig, check_offers, make_objective, offers
from jaxrefine.scoring.scorers import SCORERS

from . import made

MARGIN = {"margin": 0.5}

REFUSED = [
    ({"loss": "margin_rankin"}, "did you mean 'margin_ranking'"),
    ({"loss": "dpo", "scorer": "sequense"}, "did you mean 'sequence'"),
    ({"loss": "dpo", "weight": -1.0}, "must be finite and not negative"),
    ({"loss": "dpo", "mle_weight": math.inf}, "must be finite and not negative"),
    ({}, "mle_weight must be positive"),
    ({"mle_weight": 1.0, "loss_options": MARGIN}, "there are no loss_options"),
    ({"loss": "verdict_cross_entropy"}, "reads verdicts, which .* 'sequence' does not give; allowed: verdict"),
    ({"loss": "reward_distillation"}, "reads logits, which .* 'sequence' does not give; allowed: router"),
    ({"loss": "rrhf", "scorer": "router", "num_models": 2}, "reads scores, which .* 'router' does not give"),
    ({"loss": "dpo", "scorer": "reward"}, "compares log-probs of responses with a reference model's"),
    ({"loss": "ipo", "scorer": "verdict"}, "compares log-probs of responses with a reference model's"),
    ({"loss": "orpo", "scorer": "reward"}, "takes scores for log-probs, .* allowed: sequence, verdict"),
    ({"loss": "pairwise_hinge", "loss_options": MARGIN, "length_power": 1.0}, "defined on summed log-probs"),
    ({"loss": "dpo", "length_power": 0.5}, "defined on summed log-probs"),
    ({"loss": "rrhf", "scorer": "reward", "length_power": 1.0}, "is the sequence scorer's"),
    ({"loss": "reward_distillation", "scorer": "router"}, "the router needs it"),
    ({"loss": "rrhf", "num_models": 3}, "no other scorer has it"),
    ({"loss": "pairwise_hinge"}, "no default for margin"),
    ({"loss": "margin_ranking", "loss_options": {"margn": 0.2}}, "did you mean 'margin'"),
    ({"loss": "margin_ranking", "loss_options": {"gaps": "summ"}}, "did you mean 'sum'"),
    ({"loss": "list_mle", "per": "pair"}, "list_mle is not made of pairs"),
]


@pytest.mark.parametrize(("fields", "reason"), REFUSED, ids=lambda value: str(value)[:60])
def test_nonsense_is_refused_when_the_config_is_made(fields, reason):
    with pytest.raises(ValueError, match=reason):
        ObjectiveConfig(**fields)


def test_a_value_outside_a_choice_is_refused_where_annotations_are_not_checked():
    config = ObjectiveConfig(loss="dpo")
    object.__setattr__(config, "mle_normalize", "tokens")  # the tests' own checker would refuse it in the constructor
    with pytest.raises(ValueError, match="did you mean 'token'"):
        config.__post_init__()


RIGHT_WRONG = TokenGroup(0, (1, 5), ((6, 2), (7, 2)), labels=(1.0, 0.0))
ALIKE = dataclasses.replace(RIGHT_WRONG, labels=(1.0, 1.0))
GRADED = dataclasses.replace(RIGHT_WRONG, labels=(0.5, 0.25))
SPOKEN = dataclasses.replace(GRADED, verdicts=((11,), (12,)))
ROUTED = TokenGroup(0, (1, 5), rewards=(0.5, 1.0))

MISSING = [
    ({"loss": "dpo"}, RIGHT_WRONG, "reference"),
    ({"loss": "rrhf"}, ALIKE, "pairs"),
    ({"loss": "rrhf"}, ROUTED, "labels"),
    ({"loss": "verdict_cross_entropy", "scorer": "verdict"}, RIGHT_WRONG, "verdicts"),
    ({"loss": "verdict_cross_entropy", "scorer": "verdict"}, SPOKEN, "binary_labels"),
    ({"loss": "rrhf", "scorer": "verdict"}, RIGHT_WRONG, "verdicts"),
    ({"loss": "reward_distillation", "scorer": "router", "num_models": 2}, RIGHT_WRONG, "rewards"),
    ({"mle_weight": 1.0}, ROUTED, "responses"),
    ({"mle_weight": 1.0}, dataclasses.replace(RIGHT_WRONG, mle_weight=(0.0, 0.0)), "responses"),
]


@pytest.mark.parametrize(("fields", "group", "need"), MISSING)
def test_an_objective_is_refused_by_data_that_lacks_what_it_needs(fields, group, need):
    with pytest.raises(ValueError, match=rf"needs (.*; )?{need} \(.*The data offers: "):
        check_offers(ObjectiveConfig(**fields), offers([group]))


def test_data_offers_what_any_of_its_groups_has():
    scored = dataclasses.replace(RIGHT_WRONG, reference_scores=(-1.0, -2.0))
    assert offers([ALIKE, scored]) == {"labels", "binary_labels", "pairs", "responses", "reference"}
    assert offers([GRADED]) == {"labels", "pairs", "responses"}
    assert offers([ROUTED]) == {"rewards"}


def test_a_ranking_loss_without_likelihood_is_warned_of(caplog):
    with caplog.at_level(logging.WARNING):
        make_objective(ObjectiveConfig(loss="rrhf", mle_weight=1.0), made.decoder())
        make_objective(ObjectiveConfig(loss="rrhf", scorer="reward"), made.decoder())
        assert not caplog.records
        make_objective(ObjectiveConfig(loss="rrhf"), made.decoder())
    assert "best_logprob" in caplog.text


@pytest.mark.parametrize(("loss", "power"), [("dpo", 0.0), ("simpo", 1.0), ("list_mle", 1.0), (None, 1.0)])
def test_the_power_of_the_length_is_the_losss_own_unless_given(loss, power):
    assert ObjectiveConfig(loss=loss, mle_weight=1.0).power == power
    if power:
        assert ObjectiveConfig(loss=loss, mle_weight=1.0, length_power=1.3).power == 1.3


def _batch(num: int = 4, rows: int = 2):
    groups = made.groups(np.random.default_rng(0), [3] * num, binary=True)
    packing = PackingConfig(
        rows=rows, slots=120, scored=80, groups=2, candidates=3, verdicts=True, paths=12, path_length=16
    )
    plan = plan_rows([packing.measure(group) for group in groups], packing)
    return batch_from_groups([[groups[i] for i in row] for row in plan], packing)


def _params(scorer: str) -> dict:
    head = {"scorer": {"kernel": jnp.ones((1, made.CONFIG.width))}} if scorer == "reward" else {}
    return {"model": made.params(), **head}


CONFIGS = [
    ObjectiveConfig(loss="margin_ranking", mle_weight=0.5, mle_normalize="token"),
    ObjectiveConfig(loss="pairwise_logistic", scorer="reward", mle_weight=2.0, per="pair", weight=3.0),
    ObjectiveConfig(loss="verdict_cross_entropy", scorer="verdict", mle_weight=0.5, mle_normalize="sum"),
]


@pytest.mark.parametrize("config", CONFIGS, ids=lambda config: str(config.loss))
def test_counts_from_masks_are_those_of_the_terms_and_add_up_over_rows(config):
    objective = make_objective(config, made.decoder())
    batch = _batch()
    apply = jax.jit(lambda batch: objective.apply({"params": _params(config.scorer)}, batch)[:2])
    terms, metrics = apply(batch)
    counts = objective.counts(batch)
    assert {name: float(count) for name, (_, count, _) in terms.items()} == {k: float(v) for k, v in counts.items()}
    assert {name: term[2] for name, term in terms.items()} == {
        config.loss: config.weight,
        "likelihood": config.mle_weight,
    }
    assert "best_logprob" in metrics
    rows = [jax.tree.map(lambda x: x[i : i + 1], batch) for i in range(2)]  # noqa: B023
    parts = [apply(row)[0] for row in rows]
    for name, (value, count, _) in terms.items():
        np.testing.assert_allclose(value, sum(part[name][0] for part in parts), rtol=1e-5)
        assert float(count) == sum(float(part[name][1]) for part in parts)


def test_a_batch_of_empty_rows_has_no_counts_and_finite_gradients():
    packing = PackingConfig(rows=1, slots=8, scored=4, groups=1, candidates=2, verdicts=True)
    batch = batch_from_groups([], packing)
    for config in CONFIGS:
        objective = make_objective(config, made.decoder())
        assert all(float(count) == 0 for count in objective.counts(batch).values())

        def total(params, objective=objective):
            return sum(value for value, _, _ in objective.apply({"params": params}, batch)[0].values())

        value, gradients = jax.jit(jax.value_and_grad(total))(_params(config.scorer))
        assert float(value) == 0
        assert all(not np.any(leaf) for leaf in jax.tree.leaves(gradients))


def test_an_unshared_prompt_gives_the_same_terms():
    groups = made.groups(np.random.default_rng(1), [3, 2])
    objective = make_objective(CONFIGS[0], made.decoder())
    shared = PackingConfig(rows=1, slots=80, scored=40, groups=2, candidates=3)
    batches = [
        batch_from_groups([groups], dataclasses.replace(shared, share_prompt=share_prompt))
        for share_prompt in (True, False)
    ]
    apply = jax.jit(lambda batch: objective.apply({"params": _params("sequence")}, batch)[0])
    terms = [apply(batch) for batch in batches]
    for name in terms[0]:
        np.testing.assert_allclose(terms[0][name][0], terms[1][name][0], rtol=1e-5)
        assert float(terms[0][name][1]) == float(terms[1][name][1])


def test_new_parameters_are_the_decoders_and_the_heads():
    batch = _batch()
    for scorer, kind in SCORERS.items():
        config = ObjectiveConfig(
            loss=next(name for name, loss in LOSSES.items() if loss.reads in kind.gives),
            scorer=scorer,
            num_models=2 if scorer == "router" else None,
        )
        if scorer == "router":
            packing = PackingConfig(rows=1, slots=8, scored=0, groups=1, candidates=0, rewards=2)
            batch = batch_from_groups([[ROUTED]], packing)
        shapes = jax.eval_shape(make_objective(config, made.decoder()).init, jax.random.key(0), batch)["params"]
        heads = {"reward": (1, made.CONFIG.width), "router": (2, made.CONFIG.width)}
        assert set(shapes) == ({"model", "scorer"} if scorer in heads else {"model"})
        if scorer in heads:
            assert shapes["scorer"]["kernel"].shape == heads[scorer]
        assert jax.tree.map(jnp.shape, shapes["model"]) == jax.tree.map(jnp.shape, made.params())
