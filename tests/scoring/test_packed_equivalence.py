"""Packed rows against separate sequences: every loss, every scorer that it can be read by, every N, both backends."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.data.packing import PackingConfig, TokenGroup, batch_from_groups, plan_rows, unpack
from jaxrefine.losses import LOSSES
from jaxrefine.scoring.objectives import ObjectiveConfig, make_objective
from jaxrefine.scoring.scorers import SCORERS

from . import made, separate

N = 8
OPTIONS = {"pairwise_hinge": {"margin": 0.7}}
NORMALIZE = ("sum", "mean", "token")


def _combinations() -> list[ObjectiveConfig]:
    """Every loss with every scorer; those that are refused are the subject of another test."""
    found = []
    for loss, scorer in [(loss, scorer) for loss in LOSSES for scorer in SCORERS]:
        num_models = N if scorer == "router" else None
        try:
            options = OPTIONS.get(loss, {})
            found.append(ObjectiveConfig(loss=loss, scorer=scorer, num_models=num_models, loss_options=options))
        except ValueError:
            continue
    return found


COMBINATIONS = _combinations()


def test_every_loss_goes_with_some_scorer():
    assert {config.loss for config in COMBINATIONS} == set(LOSSES)
    assert {config.scorer for config in COMBINATIONS} == set(SCORERS)


def _configs(scorer: str) -> list[ObjectiveConfig]:
    configs = [config for config in COMBINATIONS if config.scorer == scorer]
    if scorer in ("sequence", "verdict", "reward"):
        pairs = [dataclasses.replace(c, per="pair") for c in configs if c.loss in ("pairwise_logistic", "rrhf")]
        likelihood = [
            ObjectiveConfig(scorer=scorer, mle_weight=0.5, mle_normalize=normalize) for normalize in NORMALIZE
        ]
        configs = [*configs, *pairs, *likelihood]
    return configs


def _packing(scorer: str) -> PackingConfig:
    """One shape for every N: two rows of up to three groups."""
    tail = 2 + 3 if scorer == "verdict" else 0
    candidate = made.LONGEST_RESPONSE + tail
    group = made.LONGEST_PROMPT + N * candidate
    leaves = N * (2 if scorer == "verdict" else 1)
    if scorer == "router":
        return PackingConfig(
            rows=2, slots=16, scored=0, groups=3, candidates=0, rewards=N, paths=3, path_length=made.LONGEST_PROMPT
        )
    return PackingConfig(
        rows=2, slots=2 * group, scored=2 * N * (made.LONGEST_RESPONSE + 3), groups=3, candidates=N,
        verdicts=scorer == "verdict", paths=3 * leaves, path_length=made.LONGEST_PROMPT + candidate,
    )  # fmt: skip


def _total(terms) -> jax.Array:
    return sum(coefficient * value / jnp.maximum(count, 1.0) for value, count, coefficient in terms.values())


def _with_gradients(losses, num: int):
    """(params, data) -> losses [num], scores, gradients [num ...]; compiled fast rather than well."""

    def run(params, data):
        values, pull, scores = jax.vjp(lambda p: losses(p, data), params, has_aux=True)
        return values, scores, jax.vmap(pull)(jnp.eye(num))[0]

    return jax.jit(run, compiler_options={"xla_backend_optimization_level": 0})


@functools.cache
def _packed(scorer: str, attention: str):
    """(params, batch) -> every objective's loss and its gradient, and the scores: compiled once for all N."""
    configs = _configs(scorer)
    objectives = [make_objective(config, made.decoder(attention)) for config in configs]

    powers = sorted({config.power for config in configs})
    by_power = {
        power: make_objective(
            dataclasses.replace(
                configs[0],
                mle_weight=1.0,  # so that a head's objective has log-probs too
                **({"loss": None, "loss_options": {}, "length_power": power} if scorer == "sequence" else {}),
            ),
            made.decoder(attention),
        )
        for power in powers
    }
    if scorer == "router":
        by_power = {1.0: objectives[0]}

    def losses(params, batch):
        scores = {power: by_power[power].apply({"params": params}, batch, method="score") for power in powers}
        values = [
            _total(objective.terms(scores[config.power], batch))
            for config, objective in zip(configs, objectives, strict=True)
        ]
        first = scores[powers[-1]]
        return jnp.stack(values), first.logits if scorer == "router" else first.scores

    return _with_gradients(losses, len(configs))


@functools.cache
def _separate(scorer: str):
    """The same from separate sequences and plain averages over groups, candidates, pairs or tokens."""
    configs = _configs(scorer)

    def losses(params, data):
        model, labels, where = params["model"], data["labels"], data["where"]
        size = labels.shape
        sums = verdicts = None
        if scorer == "router":
            hidden = separate.last_hidden(model, made.CONFIG, data["tokens"], data["ends"])
            scores = hidden @ params["scorer"]["kernel"].T
        else:
            sums = separate.span_logprobs(model, made.CONFIG, **data["response"]).reshape(size)
        if scorer == "reward":
            response = data["response"]
            hidden = separate.last_hidden(model, made.CONFIG, response["tokens"], response["ends"])
            scores = (hidden @ params["scorer"]["kernel"][0]).reshape(size)
        if scorer == "verdict":
            verdicts = [
                separate.span_logprobs(model, made.CONFIG, **data[word]).reshape(size) for word in ("right", "wrong")
            ]
            scores = verdicts[0] - jnp.logaddexp(*verdicts)
        different = jnp.any(
            (labels[:, :, None] != labels[:, None, :]) & where[:, :, None] & where[:, None, :], axis=(1, 2)
        )
        values = []
        for config in configs:
            if config.loss is None:
                weight, length = data["mle_weight"], data["lengths"]
                per_response = {"sum": -sums, "mean": -sums / jnp.maximum(length, 1), "token": -sums}
                count = weight * length if config.mle_normalize == "token" else weight
                value = jnp.sum(weight * per_response[config.mle_normalize]) / jnp.maximum(jnp.sum(count), 1)
                values.append(config.mle_weight * value)
                continue
            loss = LOSSES[config.loss]
            read = scores if scorer != "sequence" else sums / jnp.maximum(data["lengths"], 1) ** config.power
            arrays = verdicts if loss.reads == "verdicts" else [read]
            if "reference" in loss.needs:
                arrays = [*arrays, data["reference"]]
            found = loss.function(*arrays, labels, where=where, **config.loss_options)
            if loss.unit == "candidate":
                values.append(jnp.sum(jnp.where(where, found, 0)) / jnp.maximum(jnp.sum(where.astype(jnp.float32)), 1))
                continue
            counted = different
            if loss.supervision == "distillation":
                counted = jnp.sum(where, -1) >= 2
            if config.loss == "margin_ranking":  # its default ranks equal labels by index
                counted = jnp.sum(where, -1) >= 2
            weight = counted.astype(jnp.float32)
            num = jnp.sum(weight)
            if config.per == "pair":
                pairs = jnp.sum(
                    (labels[:, :, None] > labels[:, None, :]) & where[:, :, None] & where[:, None, :], axis=(1, 2)
                ).astype(jnp.float32)
                num = jnp.sum(pairs)
                weight = pairs if config.loss == "pairwise_logistic" else weight  # a mean, or a sum already
            values.append(jnp.sum(weight * found) / jnp.maximum(num, 1))
        if scorer == "sequence":
            scores = sums / jnp.maximum(data["lengths"], 1)
        return jnp.stack(values), scores

    return _with_gradients(losses, len(configs))


def _data(groups: list[TokenGroup], scorer: str) -> dict:
    length = _packing(scorer).longest_path
    if scorer == "router":
        tokens, ends = separate.sequences([group.prompt for group in groups], len(groups), length)
        return {
            "tokens": tokens, "ends": ends,
            "labels": np.array([group.rewards for group in groups], np.float32),
            "where": np.array([group.reward_where for group in groups]),
        }  # fmt: skip
    data = {
        "response": separate.spans(groups, N, length),
        "labels": separate.per_candidate(groups, N, "labels", 0.0),
        "where": separate.per_candidate(groups, N, "rank_where", False),
        "mle_weight": separate.per_candidate(groups, N, "mle_weight", 0.0),
        "reference": separate.per_candidate(groups, N, "reference_scores", 0.0),
        "lengths": separate.lengths(groups, N),
    }
    if scorer == "verdict":
        data |= {"right": separate.spans(groups, N, length, 0), "wrong": separate.spans(groups, N, length, 1)}
    return data


def _groups(scorer: str, num: int) -> list[TokenGroup]:
    rng = np.random.default_rng(num)
    if scorer != "router":
        return made.groups(rng, [num, max(1, num - 1), num, max(1, num // 2)], binary=scorer == "verdict")
    return [
        TokenGroup(
            i, tuple(rng.integers(3, 17, rng.integers(1, made.LONGEST_PROMPT + 1)).tolist()),
            rewards=tuple(rng.normal(size=N).tolist()), reward_where=tuple((np.arange(N) < num).tolist()),
        )
        for i in range(4)
    ]  # fmt: skip


def _params(scorer: str) -> dict:
    params = {"model": made.params()}
    rows = {"reward": 1, "router": N}.get(scorer)
    if rows:
        params["scorer"] = {"kernel": jax.random.normal(jax.random.key(1), (rows, made.CONFIG.width))}
    return params


def _batch(groups: list[TokenGroup], packing: PackingConfig):
    rows = plan_rows([packing.measure(group) for group in groups], packing)
    assert len(rows) <= packing.rows
    assert max(map(len, rows)) > 1  # several groups a row
    return batch_from_groups([[groups[i] for i in row] for row in rows], packing)


@pytest.mark.slow
@pytest.mark.parametrize("num", range(1, N + 1))
@pytest.mark.parametrize("attention", ["dense", "expand"])
@pytest.mark.parametrize("scorer", SCORERS)
def test_scores_losses_and_gradients_are_those_of_separate_sequences(scorer, attention, num):
    groups, params, packing = _groups(scorer, num), _params(scorer), _packing(scorer)
    batch = _batch(groups, packing)
    values, scores, gradients = jax.device_get(_packed(scorer, attention)(params, batch))
    expected, expected_scores, expected_gradients = jax.device_get(_separate(scorer)(params, _data(groups, scorer)))

    if scorer == "router":
        found = {
            int(batch.group_ids[b, g]): scores[b, g] for b, g in zip(*np.nonzero(batch.group_ids >= 0), strict=True)
        }
    else:
        found = unpack(scores, batch)
    size = np.abs(expected_scores).max()
    for group in groups:
        want = expected_scores[group.group_id][: N if scorer == "router" else len(group.responses)]
        np.testing.assert_allclose(found[group.group_id], want, rtol=0, atol=1e-5 * size)

    names = [f"{config.loss} {config.per} {config.mle_normalize}" for config in _configs(scorer)]
    largest = np.max([np.abs(leaf).reshape(len(names), -1).max(1) for leaf in jax.tree.leaves(expected_gradients)], 0)
    if num == N:
        assert (largest > 0).all(), [name for name, size in zip(names, largest, strict=True) if not size]
    for k, name in enumerate(names):
        # A loss of differences of scores keeps their rounding, however small the difference is.
        np.testing.assert_allclose(values[k], expected[k], rtol=1e-5, atol=1e-6 * size, err_msg=name)
        for path, leaf in jax.tree_util.tree_leaves_with_path(gradients):
            want = functools.reduce(lambda tree, key: tree[key.key], path, expected_gradients)[k]
            np.testing.assert_allclose(
                leaf[k], want, rtol=0, atol=1e-5 * largest[k], err_msg=f"{name} {jax.tree_util.keystr(path)}"
            )
