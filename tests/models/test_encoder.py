"""The encoder: packed rows equal sequences by themselves, distances share DeBERTa's buckets, one vector a sequence."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.data.groups import TokenGroup
from jaxrefine.data.packing import PackingConfig, batch_from_groups
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.encoder_config import Convolution, EncoderConfig, RelativePositions
from jaxrefine.models.pooling import POOLINGS, pool, sequence_mask
from jaxrefine.models.relative import disentangled_attend, distance_buckets, table_rows
from jaxrefine.scoring.objectives import ObjectiveConfig, make_objective
from jaxrefine.sharding import MeshConfig, make_mesh, placements

RELATIVE = RelativePositions(max_distance=12, num_buckets=8, shared_projections=True, norm=True)
PLAIN = EncoderConfig(
    vocab_size=61, width=24, num_layers=2, num_heads=3, head_width=8, hidden_width=40, max_positions=32,
    num_token_types=2, position_offset=2, pooler="tanh",
)  # fmt: skip
CONFIGS = {
    "learned positions": PLAIN,
    "distances": dataclasses.replace(PLAIN, positions="none", num_token_types=0, relative=RELATIVE, pooler="gelu"),
    "distances with maps of their own": dataclasses.replace(
        PLAIN, relative=RelativePositions(max_distance=6, terms=("position_to_content",)), embed_width=10, pooler=None
    ),
    "convolution": dataclasses.replace(
        PLAIN, positions="none", relative=RELATIVE, convolution=Convolution(width=5, groups=2), num_labels=4
    ),
}
PAD = 59
SEQUENCES = [[5, 9, 12, 3, 44, 7, 8], [17], [2, 2, 60, 31, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15], [33, 1, 20]]


def make(config: EncoderConfig, **fields):
    """An encoder and parameters far from their initial values."""
    encoder = Encoder(config, **fields)
    zeros = jnp.zeros((1, 4), jnp.int32)
    row = (zeros, zeros, zeros + 4)
    shapes = jax.eval_shape(functools.partial(encoder.init, method="trunk"), jax.random.key(0), *row)["params"]
    return encoder, random_params(shapes)


def random_params(shapes):
    """Of these shapes: scales about 1, all else about 0."""
    rng = np.random.default_rng(1)

    def leaf(path, shape):
        return jnp.asarray((path[-1].key == "scale") + 0.3 * rng.standard_normal(shape.shape), jnp.float32)

    return jax.tree_util.tree_map_with_path(leaf, shapes)


def row_of(sequences: list[list[int]], *, slots: int = 0, before: int = 0):
    """Tokens, positions and ends of one row, and the slots of each sequence."""
    slots = slots or before + sum(map(len, sequences))
    tokens, positions = np.full(slots, PAD, np.int32), np.zeros(slots, np.int32)
    ends = np.arange(1, slots + 1, dtype=np.int32)
    places, start = [], before
    for sequence in sequences:
        place = slice(start, start + len(sequence))
        tokens[place], positions[place], ends[place] = sequence, np.arange(len(sequence)), place.stop
        places.append(place)
        start = place.stop
    return tuple(jnp.asarray(array)[None] for array in (tokens, positions, ends)), places


@functools.partial(jax.jit, static_argnums=(0, 3))
def apply(encoder, params, row, method="trunk"):
    return encoder.apply({"params": params}, *row, method=method)


def together_and_apart():
    """Four rows with all sequences in the first, and four rows with one sequence each, padded on both sides."""
    packed, places = row_of(SEQUENCES, slots=32, before=3)
    empty, _ = row_of([], slots=32)
    together = [jnp.concatenate([one, *[none] * 3]) for one, none in zip(packed, empty, strict=True)]
    alone = [row_of([sequence], slots=32, before=before) for before, sequence in enumerate(SEQUENCES)]
    apart = [jnp.concatenate(arrays) for arrays in zip(*(row for row, _ in alone), strict=True)]
    return together, places, apart, [one for _, (one,) in alone]


@pytest.mark.parametrize("name", CONFIGS)
def test_packed_sequences_equal_each_sequence_by_itself(name: str):
    encoder, params = make(CONFIGS[name])
    together, places, apart, own = together_and_apart()
    packed, alone = apply(encoder, params, together)[0], apply(encoder, params, apart)
    for number, (place, home) in enumerate(zip(places, own, strict=True)):
        np.testing.assert_allclose(packed[place], alone[number, home], atol=2e-5)


@pytest.mark.parametrize("name", ["distances", "convolution"])
def test_gradients_of_packed_sequences_are_those_of_each_by_itself(name: str):
    encoder, params = make(CONFIGS[name])

    @jax.jit
    def gradient(params, row):
        def value(params):
            pooled = encoder.apply({"params": params}, *row, method=lambda m, *r: m.pooled(m.trunk(*r), r[2]))
            return jnp.sum(jnp.where((row[0] != PAD)[..., None], jnp.sin(pooled), 0.0))

        return jax.grad(value)(params)

    together, _, apart, _ = together_and_apart()
    packed, alone = gradient(params, together), gradient(params, apart)
    scale = max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(packed))
    jax.tree.map(lambda ours, theirs: np.testing.assert_allclose(ours, theirs, atol=1e-5 * scale), packed, alone)


@pytest.mark.parametrize("name", CONFIGS)
def test_every_parameter_has_a_place_on_a_mesh(name: str):
    _, left_out = placements(make(CONFIGS[name])[1], make_mesh(MeshConfig(data=2, fsdp=2, tensor=2)))
    assert [str(item) for item in left_out if "no rule" in item.reason] == []


def test_bf16_stays_near_fp32():
    encoder, params = make(CONFIGS["distances"])
    row, _ = row_of(SEQUENCES)
    exact, narrow = apply(encoder, params, row), apply(encoder.clone(dtype=jnp.bfloat16), params, row)
    assert narrow.dtype == jnp.bfloat16
    assert float(jnp.abs(narrow.astype(jnp.float32) - exact).mean()) < 0.1 * float(jnp.abs(exact).mean())


def test_disentangled_attention_is_the_sum_of_its_three_products():
    """Query, key and table by loops over pairs, in float64."""
    rng = np.random.default_rng(0)
    q, k, v = rng.standard_normal((3, 1, 5, 2, 4))
    relative = RelativePositions(max_distance=3)
    keys, queries = rng.standard_normal((2, 6, 2, 4))
    visible = np.array([[[True] * 5, [True] * 5, [True, True, True, False, False], [True] * 5, [True] * 5]])
    expected = np.zeros((1, 5, 2, 4))
    for n in range(2):
        for i in range(5):
            scores = np.full(5, -np.inf)
            for j in range(5):
                row = min(max(i - j + 3, 0), 5)
                products = q[0, i, n] @ k[0, j, n] + q[0, i, n] @ keys[row, n] + k[0, j, n] @ queries[row, n]
                scores[j] = products / np.sqrt(3 * 4) if visible[0, i, j] else -np.inf
            weights = np.exp(scores - scores.max())
            expected[0, i, n] = weights / weights.sum() @ v[0, :, n]
    rows = table_rows(jnp.arange(5)[None], relative)
    tables = {"position_keys": jnp.float32(keys), "position_queries": jnp.float32(queries)}
    ours = disentangled_attend(*map(jnp.float32, (q, k, v)), jnp.asarray(visible), rows=rows, **tables)
    np.testing.assert_allclose(ours, expected, atol=1e-5)


def test_distances_share_logarithmic_buckets():
    """By hand from ceil(log(d / 128) / log(511 / 128) · 127) + 128."""
    buckets = distance_buckets(RelativePositions(max_distance=512, num_buckets=256))
    assert buckets[:129].tolist() == list(range(129))
    assert buckets[[129, 130, 256, 510, 511, 512]].tolist() == [129, 130, 192, 255, 255, 256]


@pytest.mark.torch
@pytest.mark.parametrize(("buckets", "farthest"), [(256, 512), (8, 32), (32, 77)])
def test_rows_of_distances_equal_those_of_transformers_far_beyond_the_largest(buckets: int, farthest: int):
    import torch
    from transformers.models.deberta_v2.modeling_deberta_v2 import make_log_bucket_position

    length = farthest + 90
    signed = torch.arange(length)[None] - torch.arange(length)[:, None][[0, length - 1]]
    theirs = torch.clamp(make_log_bucket_position(signed, buckets, farthest).long() + buckets, 0, 2 * buckets - 1)
    relative = RelativePositions(max_distance=farthest, num_buckets=buckets)
    ours = table_rows(jnp.asarray([[*range(length)]], jnp.int32), relative)[0]
    np.testing.assert_array_equal(ours.T[np.array([0, length - 1])], theirs.numpy())


@pytest.mark.parametrize("how", POOLINGS)
def test_pooling_takes_one_vector_a_sequence(how: str):
    (_, _, ends), places = row_of(SEQUENCES, slots=30)
    hidden = np.random.default_rng(0).standard_normal((1, 30, 3)).astype(np.float32)
    pooled = pool(jnp.asarray(hidden), ends, how)
    for place in places:
        rows = hidden[0, place]
        expected = {"first": rows[0], "last": rows[-1], "mean": rows.mean(0)}[how]
        np.testing.assert_allclose(pooled[0, place], np.tile(expected, (len(rows), 1)), atol=1e-6)


def test_an_unknown_pooling_names_the_nearest():
    with pytest.raises(ValueError, match="'frist'.*did you mean 'first'"):
        pool(jnp.zeros((1, 2, 1)), jnp.array([[2, 2]]), "frist")


def test_the_mask_lets_a_sequence_see_itself_both_ways_and_nothing_else():
    (_, _, ends), places = row_of(SEQUENCES, slots=30, before=1)
    mask = np.asarray(sequence_mask(ends))[0]
    expected = np.eye(30, dtype=bool)
    for place in places:
        expected[place, place] = True
    np.testing.assert_array_equal(mask, expected)


def _one_step(scorer: str, loss: str, batch, **options):
    """Loss before and after one step against the gradient, and the parameters that no gradient reached."""
    encoder = Encoder(CONFIGS["distances"], pooling="mean", remat="full")
    objective = make_objective(ObjectiveConfig(loss=loss, scorer=scorer, **options), encoder)
    params = random_params(jax.eval_shape(objective.init, jax.random.key(0), batch)["params"])

    @jax.jit
    @jax.value_and_grad
    def value(params):
        total, count, weight = objective.apply({"params": params}, batch)[0][loss]
        return weight * total / count

    before, gradient = value(params)
    norm = jnp.sqrt(sum(jnp.sum(leaf**2) for leaf in jax.tree.leaves(gradient)))
    after, _ = value(jax.tree.map(lambda leaf, slope: leaf - 0.05 / norm * slope, params, gradient))
    still = [path for path, leaf in jax.tree_util.tree_leaves_with_path(gradient) if not jnp.any(leaf)]
    return float(before), float(after), [jax.tree_util.keystr(path) for path in still]


def test_an_objective_with_a_router_learns_in_one_step():
    queries = [[TokenGroup(g, tuple(SEQUENCES[g % 4]), (), rewards=(0.1 * g, 1.0, -1.0)) for g in range(3)]]
    batch = batch_from_groups(queries, PackingConfig(rows=1, slots=32, scored=0, groups=4, candidates=0, rewards=3))
    before, after, still = _one_step("router", "reward_distillation", batch, num_models=3)
    assert np.isfinite([before, after]).all()
    assert after < before
    assert still == []


CANDIDATES = [[TokenGroup(0, (3, 4, 5), ((6, 2), (7, 8, 2)), labels=(1.0, 0.0))]]


def test_an_objective_with_rewards_reads_each_candidate_with_a_prompt_of_its_own():
    config = PackingConfig(rows=1, slots=16, scored=8, groups=1, candidates=2, share_prompt=False)
    before, after, _ = _one_step("reward", "pairwise_logistic", batch_from_groups(CANDIDATES, config))
    assert np.isfinite([before, after]).all()
    assert after < before


def test_a_candidate_that_shares_its_prompts_slots_is_no_number():
    batch = batch_from_groups(CANDIDATES, PackingConfig(rows=1, slots=16, scored=8, groups=1, candidates=2))
    encoder, params = make(PLAIN)
    pooled = jax.jit(encoder.apply)({"params": params}, batch)
    assert np.isnan(pooled[0, batch.last[0, 0, 0]]).all()


def test_likelihood_of_an_encoder_is_refused():
    batch = batch_from_groups(CANDIDATES, PackingConfig(rows=1, slots=16, scored=8, groups=1, candidates=2))
    objective = make_objective(ObjectiveConfig(loss="pairwise_logistic", scorer="sequence"), Encoder(PLAIN))
    with pytest.raises(ValueError, match="predicts no next token"):
        jax.eval_shape(objective.init, jax.random.key(0), batch)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"num_buckets": 7}, "num_buckets is 7"),
        ({"num_buckets": 30}, "half of it below"),
        ({"terms": ("content_to_positions",)}, "did you mean 'content_to_position'"),
        ({"terms": ()}, "one or two of"),
        ({"max_distance": 1}, "at least 2"),
    ],
)
def test_distances_that_cannot_be_are_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        RelativePositions(**{"max_distance": 16, **fields})


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"vocab_size": 0}, "EncoderConfig.vocab_size is 0"),
        ({"positions": "learnt"}, "did you mean 'learned'"),
        ({"pooler": "tan"}, "did you mean 'tanh'"),
        ({"activation": "gelu_new"}, "EncoderConfig.activation"),
        ({"convolution": Convolution(width=3, groups=7)}, "must divide width = 24"),
    ],
)
def test_encoders_that_cannot_be_are_refused(fields: dict, message: str):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(PLAIN, **fields)
