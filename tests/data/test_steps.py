"""Batches of given groups: exactly those of each step, in one shape, whoever reads them and wherever they go on."""

from __future__ import annotations

import numpy as np
import pytest

from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.steps import StepLoader, fit_steps, shuffled_steps

# Slots of a group: 2 of the prompt and 2 of each response.
GROUPS = [TokenGroup(i, (1, 5), ((6, 2),) * (1 + i % 3), labels=tuple(map(float, range(1 + i % 3)))) for i in range(7)]


def ids(batch):
    return sorted(int(number) for number in np.asarray(batch.group_ids).ravel() if number >= 0)


def test_what_a_seed_draws_is_alike_and_differs_between_seeds():
    assert shuffled_steps(20, 6, 4, seed=0) == shuffled_steps(20, 6, 4, seed=0) != shuffled_steps(20, 6, 4, seed=1)
    for steps in (shuffled_steps(7, 20, 3, seed=2), shuffled_steps(3, 9, 8, seed=2)):
        assert all(len(set(step)) == len(step) for step in steps)
    seen = np.bincount([index for step in shuffled_steps(7, 14, 3, seed=0) for index in step])
    assert seen.tolist() == [6] * 7


def test_every_batch_has_the_groups_of_its_step_and_one_shape():
    steps = shuffled_steps(7, 8, 3, seed=3)
    packing = fit_steps([(GROUPS, steps)], slots=8, multiple_of_rows=2)
    batches = list(StepLoader(GROUPS, steps, packing))
    assert [ids(batch) for batch in batches] == [sorted(step) for step in steps]
    assert {batch.tokens.shape for batch in batches} == {(packing.rows, 32)}
    assert packing.rows % 2 == 0


def test_a_shape_holds_what_its_fullest_step_needs_and_no_more():
    # Groups 2 and 5 have three responses: 8 slots, 6 scored tokens, 3 paths each; a row of 32 slots holds both.
    packing = fit_steps([(GROUPS, ((2, 5), (0, 3)))], slots=1)
    assert (packing.rows, packing.slots, packing.groups, packing.paths) == (1, 32, 2, 6)
    assert (packing.candidates, packing.scored, packing.path_length) == (3, 32, 32)


def test_two_processes_read_the_rows_that_one_reads():
    steps = shuffled_steps(7, 3, 7, seed=1)
    packing = fit_steps([(GROUPS, steps)], slots=1, multiple_of_rows=4)
    whole = StepLoader(GROUPS, steps, packing, num_microbatches=2).batch(1)
    shares = [
        StepLoader(GROUPS, steps, packing, num_microbatches=2, process_index=i, process_count=2).batch(1)
        for i in range(2)
    ]
    per_microbatch = packing.rows // 2
    half = per_microbatch // 2
    for number in range(2):
        got = np.concatenate([share.tokens[number * half : (number + 1) * half] for share in shares])
        np.testing.assert_array_equal(got, whole.tokens[number * per_microbatch : (number + 1) * per_microbatch])


def test_it_goes_on_where_it_was():
    steps = shuffled_steps(7, 5, 2, seed=0)
    loader = StepLoader(GROUPS, steps, fit_steps([(GROUPS, steps)], slots=16))
    first = iter(loader)
    next(first), next(first)
    later = iter(loader)
    later.set_state(first.get_state())
    assert [ids(batch) for batch in later] == [sorted(step) for step in steps[2:]]
    assert len(loader) == 5


def test_rows_that_cannot_be_shared_and_no_groups_are_refused():
    packing = fit_steps([(GROUPS, ((0,),))], slots=8)
    with pytest.raises(ValueError, match=r"packing.rows = 1 cannot be shared by 2 microbatches"):
        StepLoader(GROUPS, ((0,),), packing, num_microbatches=2)
    with pytest.raises(ValueError, match="no groups"):
        fit_steps([], slots=8)
