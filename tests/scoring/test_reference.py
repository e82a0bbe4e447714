from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import pytest

from jaxrefine.data.packing import PackingConfig
from jaxrefine.scoring import reference
from jaxrefine.scoring.objectives import ObjectiveConfig, make_objective
from jaxrefine.scoring.reference import make_score, score_groups, with_reference_scores
from jaxrefine.sharding import make_mesh

from . import made, separate

GROUPS = made.groups(np.random.default_rng(0), [3, 1, 2, 3, 2, 3])
PACKING = PackingConfig(rows=2, slots=20, scored=16, groups=2, candidates=3, expand=False)


_span_logprobs = jax.jit(lambda params, **spans: separate.span_logprobs(params, made.CONFIG, **spans))


@functools.cache
def _expected() -> dict[int, np.ndarray]:
    spans = separate.spans(GROUPS, 3, 12)
    sums = np.asarray(_span_logprobs(made.params(), **spans)).reshape(-1, 3)
    return {group.group_id: sums[i, : len(group.responses)] for i, group in enumerate(GROUPS)}


def test_reference_scores_are_the_summed_log_probs_of_each_response(tmp_path):
    found = with_reference_scores(GROUPS, made.decoder(), made.params(), PACKING, tmp_path)
    for group, expected in zip(found, _expected().values(), strict=True):
        np.testing.assert_allclose(group.reference_scores, expected, rtol=1e-5)
    assert [
        dataclasses.replace(group, reference_scores=GROUPS[i].reference_scores) for i, group in enumerate(found)
    ] == GROUPS


def test_scores_come_back_in_order_from_a_mesh_too():
    objective = make_objective(ObjectiveConfig(mle_weight=1.0), made.decoder())
    score = make_score(objective, mesh=make_mesh(devices=jax.devices()[:2]))
    found = score_groups(score, {"model": made.params()}, GROUPS[::-1], PACKING)
    assert list(found) == [group.group_id for group in GROUPS[::-1]]
    for group in GROUPS:
        means = _expected()[group.group_id] / [len(response) for response in group.responses]
        np.testing.assert_allclose(found[group.group_id], means, rtol=1e-5)


def test_what_is_known_is_not_computed_again_and_a_stopped_run_ends_alike(tmp_path, monkeypatch):
    whole = with_reference_scores(GROUPS, made.decoder(), made.params(), PACKING, tmp_path / "whole")
    (file,) = (tmp_path / "whole").iterdir()
    content = file.read_bytes()

    stopped = tmp_path / "stopped" / file.name
    stopped.parent.mkdir()
    stopped.write_bytes(b"".join(content.splitlines(keepends=True)[:3]))
    assert with_reference_scores(GROUPS, made.decoder(), made.params(), PACKING, tmp_path / "stopped") == whole
    assert stopped.read_bytes() == content

    def never(*_, **__):
        return lambda *_: pytest.fail("computed again")

    monkeypatch.setattr(reference, "make_score", never)
    assert with_reference_scores(GROUPS, made.decoder(), made.params(), PACKING, tmp_path / "whole") == whole


@pytest.mark.parametrize("change", ["params", "groups", "packing"])
def test_another_model_or_other_data_has_a_file_of_its_own(tmp_path, change):
    with_reference_scores(GROUPS, made.decoder(), made.params(), PACKING, tmp_path)
    groups = GROUPS[1:] if change == "groups" else GROUPS
    params = made.params(1) if change == "params" else made.params()
    packing = dataclasses.replace(PACKING, slots=24) if change == "packing" else PACKING
    with_reference_scores(groups, made.decoder(), params, packing, tmp_path)
    assert len(list(tmp_path.iterdir())) == 2


def test_a_packing_that_scores_no_responses_is_refused(tmp_path):
    packing = dataclasses.replace(PACKING, score_responses=False)
    with pytest.raises(ValueError, match="score_responses is off"):
        with_reference_scores(GROUPS, made.decoder(), made.params(), packing, tmp_path)


def test_groups_that_share_an_id_are_refused():
    objective = make_objective(ObjectiveConfig(mle_weight=1.0), made.decoder())
    twice = [GROUPS[0], GROUPS[0]]
    with pytest.raises(ValueError, match="2 groups have only 1 ids"):
        score_groups(make_score(objective), {"model": made.params()}, twice, PACKING)
