from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.examples import Instruction
from jaxrefine.data.groups import Refused, tokenize_group
from jaxrefine.data.loader import Loader, Mapped
from jaxrefine.data.packing import PackingConfig

from .words import Words, random_groups

GROUPS = random_groups(0, 90)
PACKING = PackingConfig.fit(GROUPS, rows=8, slots=96)
OPTIONS = {"seed": 3, "epochs": 2, "window": 40}


def _ids(batch: PackedBatch) -> list[list[int]]:
    return [[int(i) for i in row if i >= 0] for row in batch.group_ids]


def _same(a: PackedBatch, b: PackedBatch) -> bool:
    return all(np.array_equal(getattr(a, f.name), getattr(b, f.name)) for f in dataclasses.fields(a))


def test_every_group_comes_once_an_epoch_in_an_order_of_its_own():
    seen = [i for batch in Loader(GROUPS, PACKING, **OPTIONS) for row in _ids(batch) for i in row]
    first, second = seen[:90], seen[90:]
    assert sorted(first) == sorted(second) == list(range(90))
    assert first != second


def test_a_seed_gives_one_order_and_another_seed_another():
    first, same, other = ([_ids(batch) for batch in Loader(GROUPS, PACKING, seed=seed, epochs=1)] for seed in (3, 3, 4))
    assert first == same
    assert first != other


def test_without_shuffling_each_epoch_is_alike():
    loader = Loader(GROUPS, PACKING, seed=0, epochs=2, shuffle=False)
    rows = [row for batch in loader for row in _ids(batch) if row]
    assert rows[: len(rows) // 2] == rows[len(rows) // 2 :]


@pytest.mark.parametrize("num_microbatches", [1, 2])
@pytest.mark.parametrize("process_count", [1, 2, 4])
def test_the_global_batch_does_not_depend_on_the_number_of_processes(process_count, num_microbatches):
    whole = list(Loader(GROUPS, PACKING, **OPTIONS))
    shares = [
        list(
            Loader(
                GROUPS, PACKING, **OPTIONS,
                process_index=index, process_count=process_count, num_microbatches=num_microbatches,
            )
        )
        for index in range(process_count)
    ]  # fmt: skip
    assert {len(share) for share in shares} == {len(whole)}
    for k, batch in enumerate(whole):
        # each process gives [A, B / A / processes] rows; the mesh puts them side by side in each microbatch
        parts = [share[k].tokens.reshape(num_microbatches, -1, PACKING.slots) for share in shares]
        np.testing.assert_array_equal(np.concatenate(parts, 1).reshape(batch.tokens.shape), batch.tokens)


def test_a_process_reads_its_own_rows_alone():
    class Counting:
        def __init__(self):
            self.read = []

        def __len__(self):
            return len(GROUPS)

        def __getitem__(self, index):
            self.read.append(index)
            return GROUPS[index]

    source = Counting()
    loader = Loader(source, PACKING, seed=0, process_index=1, process_count=2)
    assert source.read == list(range(90))  # once, for the lengths
    source.read.clear()
    batch = next(iter(loader))
    assert sorted(source.read) == sorted(i for row in _ids(batch) for i in row)


@pytest.mark.parametrize("epochs", [2, None])
@pytest.mark.parametrize("window", [7, 40, 4096])
def test_going_on_from_a_state_gives_the_batches_that_would_have_come(window, epochs):
    loader = Loader(GROUPS, PACKING, seed=5, epochs=epochs, window=window)
    iterator, batches, states = iter(loader), [], []
    for _ in range(14 if epochs is None else len(list(loader))):
        states.append(json.dumps(iterator.get_state()))
        batches.append(next(iterator))
    for k, state in enumerate(states):
        again = iter(Loader(GROUPS, PACKING, seed=5, epochs=epochs, window=window))
        again.set_state(json.loads(state))
        assert all(_same(next(again), batch) for batch in batches[k:])


def test_a_finished_iterator_stays_finished_from_its_state():
    loader = Loader(GROUPS, PACKING, **OPTIONS)
    iterator = iter(loader)
    list(iterator)
    again = iter(loader)
    again.set_state(json.loads(json.dumps(iterator.get_state())))
    assert next(again, None) is None


def test_the_last_rows_are_padded_or_dropped_as_asked():
    padded, dropped = (list(Loader(GROUPS, PACKING, **OPTIONS, last=last)) for last in ("pad", "drop"))
    assert len(padded) == len(dropped) + 1
    assert all(_same(a, b) for a, b in zip(padded, dropped, strict=False))
    assert [] in _ids(padded[-1])
    assert all(row for batch in dropped for row in _ids(batch))


def test_every_batch_has_the_one_static_shape():
    batches = list(Loader(GROUPS, PACKING, **OPTIONS))
    assert {batch.tokens.shape for batch in batches} == {(8, 96)}


def test_refused_groups_are_counted_and_kept_with_their_reasons(caplog):
    groups = [*GROUPS, Refused(90, "a response is empty and did not finish")]
    narrow = dataclasses.replace(PACKING, candidates=3)
    loader = Loader(groups, narrow, seed=0, epochs=1)
    too_many = sum(len(group.responses) > 3 for group in GROUPS)
    assert 0 < too_many < 90
    assert len(loader.refused) == too_many + 1
    assert loader.num_groups == 90 - too_many
    assert f"{too_many + 1} of 91 groups are left out" in caplog.text


def test_a_source_may_tokenise_when_it_is_read():
    examples = [Instruction(str(i), f"{10 + i} 11", f"{20 + i}") for i in range(6)]
    source = Mapped(
        examples, lambda example, i: tokenize_group(example, Words(), group_id=i, max_prompt=8, max_response=8)
    )
    packing = PackingConfig(rows=2, slots=10, scored=4, groups=2, candidates=1)
    batches = list(Loader(source, packing, seed=0, epochs=1))
    assert sorted(i for batch in batches for row in _ids(batch) for i in row) == list(range(6))


ERRORS = [
    ({"process_count": 3}, "cannot be shared"),
    ({"num_microbatches": 16}, "cannot be shared"),
    ({"process_index": 2, "process_count": 2}, "is not among 2 processes"),
    ({"epochs": 0}, "at least 1"),
]


@pytest.mark.parametrize(("change", "reason"), ERRORS)
def test_what_cannot_be_is_refused_at_once(change, reason):
    with pytest.raises(ValueError, match=reason):
        Loader(GROUPS, PACKING, **{"seed": 0, **change})


def test_a_data_set_of_which_nothing_is_left_says_why():
    with pytest.raises(ValueError, match=r"none of 90 groups is left: .*packing\.slots = 1"):
        Loader(GROUPS, PackingConfig(rows=1, slots=1, scored=0, groups=1, candidates=4), seed=0)
