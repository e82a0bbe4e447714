from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from jaxrefine.data.packing import (
    PackingConfig,
    Refused,
    Size,
    TokenGroup,
    batch_from_groups,
    pack,
    plan_rows,
    reasons,
    unpack,
    usage,
)

from .words import random_groups

LAYOUTS = [
    {},
    {"verdicts": True},
    {"share_prompt": False},
    {"verdicts": True, "share_prompt": False},
    {"verdicts": True, "score_responses": False},
    {"expand": False},
]


def _packed(seed: int, **options):
    groups = random_groups(seed, 25, verdicts=options.get("verdicts", False))
    config = PackingConfig.fit(groups, rows=3, slots=160, **options)
    return groups, config, list(pack(groups, config))


def _context(batch, row: int, slot: int) -> list[int]:
    """Slots that ``slot`` sees, by the definition of ``ends``."""
    return [k for k in range(slot + 1) if slot < batch.ends[row, k]]


def _expected(group: TokenGroup, n: int, leaf: int) -> tuple[list[int], int]:
    """The whole sequence of a leaf, and how many tokens at its end are scored."""
    response = group.responses[n]
    if leaf == 0:
        return [*group.prompt, *response], len(response)
    word = group.verdicts[leaf - 1]
    return [*group.prompt, *response, *group.suffix, *word], len(word)


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
def test_every_scored_token_is_predicted_from_exactly_what_precedes_it(options):
    groups, config, batches = _packed(0, **options)
    num_leaves = config.num_leaves_per_candidate
    seen = {}
    for batch in batches:
        for row, t in zip(*np.nonzero(batch.leaves >= 0), strict=True):
            candidate, leaf = divmod(int(batch.leaves[row, t]), num_leaves)
            g, n = divmod(candidate, config.candidates)
            context = _context(batch, row, batch.sources[row, t])
            assert batch.positions[row, context].tolist() == list(range(len(context)))
            prefix = batch.tokens[row, context].tolist()
            key = int(batch.group_ids[row, g]), n, leaf
            seen.setdefault(key, []).append([*prefix, int(batch.targets[row, t])])
    expected = {}
    leaves = range(num_leaves) if config.score_responses else range(1, num_leaves)
    for group in groups:
        for n in range(len(group.responses)):
            for leaf in leaves:
                whole, scored = _expected(group, n, leaf)
                expected[group.group_id, n, leaf] = [whole[:i] for i in range(len(whole) - scored + 1, len(whole) + 1)]
    assert seen == expected


@pytest.mark.parametrize("options", [layout for layout in LAYOUTS if layout.get("expand", True)], ids=str)
def test_paths_are_the_sequences_and_every_slot_has_its_home_on_one(options):
    groups, config, batches = _packed(1, **options)
    found, expected = [], []
    for batch in batches:
        for row in range(config.rows):
            for path in batch.paths[row]:
                path = path[path >= 0]
                if path.size:
                    assert path.tolist() == _context(batch, row, path[-1])
                    found.append(tuple(batch.tokens[row, path].tolist()))
            used = np.flatnonzero(batch.tokens[row])
            assert batch.paths[row].reshape(-1)[batch.homes[row, used]].tolist() == used.tolist()
    for group in groups:
        for n in range(len(group.responses)):
            leaves = (1, 2) if config.verdicts else (0,)
            expected += [tuple(_expected(group, n, leaf)[0]) for leaf in leaves]
    assert sorted(found) == sorted(expected)


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
def test_padding_sees_itself_alone_and_is_seen_by_nothing(options):
    _, _, batches = _packed(2, **options)
    for batch in batches:
        for row, slot in zip(*np.nonzero(batch.tokens == 0), strict=True):
            assert batch.ends[row, slot] == slot + 1
        used = (batch.tokens != 0).sum(-1)
        assert all(batch.tokens[row, :num].all() for row, num in enumerate(used))  # filled from the left


@pytest.mark.parametrize("options", LAYOUTS, ids=str)
def test_heads_find_the_last_tokens(options):
    groups, _, batches = _packed(3, **options)
    by_id = {group.group_id: group for group in groups}
    for batch in batches:
        for row, g in zip(*np.nonzero(batch.group_ids >= 0), strict=True):
            group = by_id[int(batch.group_ids[row, g])]
            context = _context(batch, row, batch.prompt_last[row, g])
            assert batch.tokens[row, context].tolist() == list(group.prompt)
            for n, response in enumerate(group.responses):
                context = _context(batch, row, batch.last[row, g, n])
                assert batch.tokens[row, context].tolist() == [*group.prompt, *response]
            assert batch.present[row, g].sum() == len(group.responses)


def test_a_shared_prompt_is_laid_out_once_and_an_unshared_one_for_every_candidate():
    group = TokenGroup(0, (1, 5, 6), ((7, 2), (8, 9, 2)))
    shared = PackingConfig(rows=1, slots=16, scored=8, groups=1, candidates=2)
    apart = dataclasses.replace(shared, share_prompt=False)
    assert batch_from_groups([[group]], shared).tokens[0, :9].tolist() == [1, 5, 6, 7, 2, 8, 9, 2, 0]
    assert batch_from_groups([[group]], apart).tokens[0, :12].tolist() == [1, 5, 6, 7, 2, 1, 5, 6, 8, 9, 2, 0]
    assert (shared.measure(group).slots, apart.measure(group).slots) == (8, 11)


def test_a_row_by_hand():
    group = TokenGroup(4, (1, 5), ((7, 2), (8,)), suffix=(6,), verdicts=((11,), (12, 13)), labels=(1.0, 0.0))
    config = PackingConfig(rows=1, slots=14, scored=10, groups=1, candidates=2, verdicts=True, path_length=8)
    batch = batch_from_groups([[group]], config)
    assert batch.tokens.tolist() == [[1, 5, 7, 2, 6, 11, 12, 13, 8, 6, 11, 12, 13, 0]]
    assert batch.positions.tolist() == [[0, 1, 2, 3, 4, 5, 5, 6, 2, 3, 4, 4, 5, 0]]
    assert batch.ends.tolist() == [[13, 13, 8, 8, 8, 6, 8, 8, 13, 13, 11, 13, 13, 14]]
    assert batch.sources.tolist() == [[1, 2, 4, 4, 6, 1, 9, 9, 11, 0]]
    assert batch.targets.tolist() == [[7, 2, 11, 12, 13, 8, 11, 12, 13, 0]]
    assert batch.leaves.tolist() == [[0, 0, 1, 2, 2, 3, 4, 5, 5, -1]]
    assert (batch.last.tolist(), batch.lengths.tolist()) == ([[[3, 8]]], [[[2, 1]]])


def test_queries_without_responses_are_groups_of_their_prompt_alone():
    queries = [TokenGroup(i, (1, 5 + i), rewards=(0.5, 2.0), reward_where=(True, i == 0)) for i in range(3)]
    config = PackingConfig.fit(queries, rows=1, slots=8)
    assert (config.scored, config.candidates, config.rewards, config.groups) == (0, 0, 2, 3)
    batch = next(pack(queries, config))
    assert batch.sources.shape == (1, 0)
    assert batch.labels.shape == (1, 3, 0)
    assert batch.rewards.tolist() == [[[0.5, 2.0]] * 3]
    assert batch.reward_where.tolist() == [[[True, True], [True, False], [True, False]]]
    assert batch.paths[0, :3, :2].tolist() == [[0, 1], [2, 3], [4, 5]]


def test_results_come_back_by_group_in_the_order_of_its_responses():
    groups, _, batches = _packed(5)
    found = {}
    for batch in batches:
        found |= unpack(batch.lengths, batch)
    assert {group_id: values.tolist() for group_id, values in found.items()} == {
        group.group_id: [len(response) for response in group.responses] for group in groups
    }


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.tuples(st.integers(1, 20), st.integers(0, 10), st.integers(1, 4)), max_size=40),
    st.integers(1, 5),
)
def test_a_plan_places_every_group_once_within_every_capacity(sizes, groups):
    config = PackingConfig(rows=1, slots=20, scored=12, groups=groups, candidates=4, paths=6)
    rows = plan_rows([Size(slots, scored, paths, slots) for slots, scored, paths in sizes], config)
    assert sorted(index for row in rows for index in row) == list(range(len(sizes)))
    for row in rows:
        slots, scored, paths = (sum(sizes[index][k] for index in row) for k in range(3))
        assert slots <= 20
        assert scored <= 12
        assert paths <= 6
        assert 1 <= len(row) <= groups


def test_the_best_fitting_row_is_chosen_and_not_the_first():
    config = PackingConfig(rows=1, slots=10, scored=9, groups=9, candidates=1)
    sizes = [Size(slots, 0, 1, 1) for slots in (6, 8, 5, 2)]
    assert plan_rows(sizes, config) == [[1, 3], [0], [2]]  # 8 leaves 2, 6 leaves 4, 5 leaves 5: the 2 goes to the 8
    sizes = [Size(slots, 0, 1, 1) for slots in (7, 6, 4, 2)]
    assert plan_rows(sizes, config) == [[0, 3], [1, 2]]  # 7 has room for the 4? no; 6 + 4, then 7 + 2


def test_packing_is_deterministic_and_of_one_shape():
    _, _, first = _packed(6)
    _, _, second = _packed(6)
    for a, b in zip(first, second, strict=True):
        for field in dataclasses.fields(a):
            np.testing.assert_array_equal(getattr(a, field.name), getattr(b, field.name))
    assert len({batch.tokens.shape for batch in first}) == 1


def test_more_groups_in_a_window_leave_less_padding():
    groups = random_groups(7, 400)
    config = PackingConfig.fit(groups, rows=4, slots=96)
    shares = [np.mean([usage(batch)["slots"] for batch in pack(groups, config, window=w)]) for w in (4, 400)]
    assert shares[1] > shares[0]
    assert shares[1] > 0.9


REFUSALS = [
    (TokenGroup(1, (1, 5), ((6,),) * 3), "more candidates than packing.candidates = 2"),
    (TokenGroup(1, (1,) * 30, ((6,),)), "longer than packing.slots = 20, packing.path_length = 16"),
    (TokenGroup(1, (1, 5), ((6,) * 9,)), "longer than packing.scored = 8"),
]


@pytest.mark.parametrize(("group", "reason"), REFUSALS)
def test_a_group_that_fits_no_row_is_refused_and_kept_with_its_reason(group, reason):
    config = PackingConfig(rows=1, slots=20, scored=8, groups=2, candidates=2, path_length=16)
    good = TokenGroup(0, (1, 5), ((6, 2),))
    refused: list[Refused] = []
    (batch,) = pack([good, group, Refused(7, "a response is empty and did not finish")], config, refused=refused)
    assert refused == [Refused(1, reason), Refused(7, "a response is empty and did not finish")]
    assert reasons(refused)[reason] == 1
    assert batch.group_ids.tolist() == [[0, -1]]
    with pytest.raises(ValueError, match=r"group 1: "):
        list(pack([good, group], config))


def test_a_group_without_verdict_words_is_refused_where_they_are_read():
    config = PackingConfig(rows=1, slots=20, scored=8, groups=2, candidates=2, verdicts=True)
    assert "no verdict words" in config.refusal(TokenGroup(0, (1,), ((5,),)))


BAD = [
    ({"prompt": ()}, "prompt is empty"),
    ({"responses": ((5,), ())}, r"responses \[1\] are empty"),
    ({"labels": (1.0,)}, "1 labels for 2 responses"),
    ({"verdicts": ((4,), (4,))}, "verdict words"),
    ({"group_id": -1}, "group_id is -1"),
]


@pytest.mark.parametrize(("change", "reason"), BAD)
def test_a_group_that_cannot_be_is_an_error(change, reason):
    fields = {"group_id": 0, "prompt": (1, 3), "responses": ((5, 2), (6, 2)), **change}
    with pytest.raises(ValueError, match=reason):
        TokenGroup(**fields)


def test_the_fitted_shape_holds_everything_tightly():
    groups = random_groups(8, 60, verdicts=True)
    config = PackingConfig.fit(groups, rows=2, verdicts=True, multiple=1)
    sizes = [config.measure(group) for group in groups]
    assert config.slots == max(size.slots for size in sizes)
    assert config.longest_path == max(size.longest for size in sizes)
    assert all(config.refusal(group) is None for group in groups)
    used = [usage(batch) for batch in pack(groups, config)]
    assert max(share["groups"] for share in used) <= 1
