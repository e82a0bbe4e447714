"""Every mechanism against float64 NumPy: packed rows, both backends, cached decoding, logits."""

from __future__ import annotations

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.losses.logprobs import token_logprobs
from jaxrefine.models.attention_scores import alibi_slopes
from jaxrefine.models.cache import candidate_cache
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.flops import num_params
from jaxrefine.models.logits import LogitForm
from jaxrefine.models.norms import LayerNorm, RMSNorm
from jaxrefine.sharding import MeshConfig, make_mesh, placements
from tests.models import oracle
from tests.models.mechanisms import FIELDS, MECHANISMS
from tests.models.tiny import CONFIG, GROUPS, layout, logits, trunk

ROW, CHAINS, USED = layout(GROUPS, 56)
TOKENS = np.asarray(ROW["tokens"])[0]
BY_POSITION = [
    "prescaled linear bias, window in one layer",
    "local base, scaled global one, normalised heads",
    "decaying rotations, unit queries and keys",
]


@functools.cache
def make(config):
    """A decoder in fp32 and parameters drawn with NumPy."""
    decoder, rng = Decoder(config, dtype=jnp.float32, attention="dense"), np.random.default_rng(0)
    zeros = jnp.zeros((1, 4), jnp.int32)
    shapes = jax.eval_shape(functools.partial(decoder.init, method="trunk"), jax.random.key(0), zeros, zeros, zeros + 4)

    def draw(path, leaf):
        mean = 1.0 if path[-1].key == "scale" else 0.0
        return jnp.asarray(mean + 0.3 * rng.normal(size=leaf.shape), jnp.float32)

    return decoder, jax.tree_util.tree_map_with_path(draw, shapes["params"])


def near(ours, theirs, relative=1e-5):
    np.testing.assert_allclose(ours, theirs, rtol=0, atol=relative * np.abs(theirs).max())


@pytest.mark.parametrize("name", MECHANISMS)
def test_a_packed_row_equals_numpy_on_each_sequence(name):
    config = MECHANISMS[name]
    decoder, params = make(config)
    hidden = trunk(decoder, params, ROW)
    along_paths = trunk(decoder.clone(attention="expand"), params, ROW) if name in BY_POSITION else hidden
    ours = logits(decoder, params, hidden)[0]
    for chain in CHAINS:
        expected = oracle.hidden_states(config, params, TOKENS[chain])
        near(np.asarray(hidden)[0][chain], expected)
        near(np.asarray(along_paths)[0][chain], expected)
        near(np.asarray(ours)[chain], oracle.logits(config, params, expected))


@pytest.mark.parametrize("name", MECHANISMS)
def test_cached_decoding_equals_numpy(name):
    config = MECHANISMS[name]
    decoder, params = make(config)
    prompts, responses = [[3, 1, 4, 1, 5, 9], [2, 6]], [[[5, 3, 5, 8], [9, 7, 9, 3]], [[2, 3, 8, 4], [6, 2, 6, 4]]]
    lengths = jnp.array([6, 2], jnp.int32)
    padded = jnp.array([prompt + [0] * (7 - len(prompt)) for prompt in prompts], jnp.int32)
    apply = jax.jit(lambda params, *args, method: decoder.apply({"params": params}, *args, method=method),
                    static_argnames="method")  # fmt: skip
    hidden, prompt_cache = apply(params, padded, lengths, method="prefill")
    cache = candidate_cache(config, prompts=2, candidates=2, length=5, dtype=jnp.float32)
    steps = []
    for step in range(4):
        tokens = jnp.array([[text[step] for text in texts] for texts in responses], jnp.int32)
        state, cache = apply(params, tokens, jnp.int32(step), prompt_cache, lengths, cache, method="decode")
        steps.append(state)
    decoded = np.stack(steps, axis=2)
    for c, prompt in enumerate(prompts):
        for n, response in enumerate(responses[c]):
            expected = oracle.hidden_states(config, params, prompt + response)
            near(np.asarray(hidden)[c], expected[len(prompt) - 1])
            near(decoded[c, n], expected[len(prompt) :])


@pytest.mark.parametrize("name", BY_POSITION[:2])
def test_gradients_of_both_backends_agree(name):
    decoder, params = make(MECHANISMS[name])

    def gradient(attention):
        weights = jax.random.normal(jax.random.key(3), (USED, 24))
        f = lambda params: jnp.sum(jnp.tanh(trunk(decoder.clone(attention=attention), params, ROW))[0, :USED] * weights)  # noqa: E731
        return jax.jit(jax.grad(f))(params)

    dense, expand = gradient("dense"), gradient("expand")
    jax.tree.map(lambda a, b: near(np.asarray(a), np.asarray(b)), expand, dense)


SAME_SHAPES = [
    "position_scale",
    "embed_scale",
    "attention_scale_by_layer",
    "attention_scale",
    "alibi_prescaled",
    "attention_softcap",
    "logit_softcap",
    "logit_scale",
    "rope_width",
    "rope_interleaved",
    "rope_theta",
    "rope_scaling",
    "rope_local_theta",
    "xpos_base",
    "window",
    "window_layers",
    "position_offset",
]
CHANGES = [(name, field) for name, fields in FIELDS.items() for field in SAME_SHAPES if field in fields]


@pytest.mark.parametrize(("name", "field"), CHANGES)
def test_each_field_changes_the_logits_of_the_oracle(name, field):
    config = MECHANISMS[name]
    _, params = make(config)
    default = getattr(CONFIG, field)
    others = {"window_layers": None, "rope_local_theta": None} if field == "window" else {}
    changed = dataclasses.replace(config, **{**others, field: default})
    tokens = TOKENS[CHAINS[0]]
    with_it, without = (
        oracle.logits(each, params, oracle.hidden_states(each, params, tokens)) for each in (config, changed)
    )
    assert np.abs(with_it - without).max() > 1e-3 * np.abs(with_it).max()


@pytest.mark.parametrize("name", MECHANISMS)
def test_the_count_of_parameters_counts_them_and_each_has_a_place(name):
    config = MECHANISMS[name]
    _, params = make(config)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_params(config)
    _, left_out = placements(params, make_mesh(MeshConfig(fsdp=2, tensor=2)))
    assert [str(item) for item in left_out if "no rule" in item.reason or "more axes" in item.reason] == []


def test_what_a_slot_holds_depends_on_positions_and_not_on_slots():
    decoder, params = make(MECHANISMS["prescaled linear bias, window in one layer"])
    shift = 5
    tokens = jnp.zeros((1, 20), jnp.int32).at[:, shift:].set(jnp.arange(15)[None])
    positions = jnp.zeros((1, 20), jnp.int32).at[:, shift:].set(jnp.arange(15)[None])
    ends = jnp.full((1, 20), 20).at[:, :shift].set(jnp.arange(1, shift + 1)[None])
    moved = trunk(decoder, params, {"tokens": tokens, "positions": positions, "ends": ends})
    near(np.asarray(moved)[0, shift:], oracle.hidden_states(decoder.config, params, range(15)))


def test_window_and_bias_follow_positions_with_gaps():
    config = dataclasses.replace(CONFIG, num_layers=1, positions="none", window=3)
    decoder, params = make(config)
    row = {"tokens": jnp.arange(6)[None], "ends": jnp.full((1, 6), 6)}
    far = trunk(decoder, params, {**row, "positions": jnp.array([[0, 1, 2, 3, 10, 11]])})
    alone = trunk(decoder, params, {"tokens": jnp.arange(4, 6)[None], "ends": jnp.full((1, 2), 2),
                                    "positions": jnp.array([[10, 11]])})  # fmt: skip
    near(np.asarray(far)[:, 4:], np.asarray(alone))


def test_slopes_of_heads_that_are_no_power_of_two():
    np.testing.assert_allclose(alibi_slopes(6), [2**-2, 2**-4, 2**-6, 2**-8, 2**-1, 2**-3], rtol=1e-7)
    np.testing.assert_allclose(alibi_slopes(12), oracle.slopes(12), rtol=1e-7)


def test_log_probs_of_targets_are_those_of_the_logits():
    rng = np.random.default_rng(0)
    hidden, embedding, bias = rng.normal(size=(5, 8)), rng.normal(size=(11, 8)), rng.normal(size=11)
    form = LogitForm(jnp.asarray(embedding, jnp.float32), jnp.asarray(bias, jnp.float32), scale=0.4, softcap=2.5)
    targets = rng.integers(0, 11, 5)
    expected = 2.5 * np.tanh((0.4 * hidden @ embedding.T + bias) / 2.5)
    near(np.asarray(form.logits(jnp.asarray(hidden, jnp.float32))), expected)
    expected = expected - np.log(np.exp(expected).sum(-1, keepdims=True))
    states, table, options = form.folded(jnp.asarray(hidden, jnp.float32))
    near(np.asarray(token_logprobs(states, table, jnp.asarray(targets), **options)), expected[np.arange(5), targets])


def test_norms_with_a_unit_offset_add_it_before_the_cast():
    x, scale = jnp.array([[1.0, 2.0, 3.0]], jnp.bfloat16), jnp.array([2**-9, 0.3, -0.2])
    root = np.sqrt(14 / 3 + 1e-5)
    expected = jnp.asarray(np.array([1.0, 2.0, 3.0]) / root * (1 + np.asarray(scale)), jnp.bfloat16)
    out = RMSNorm(1e-5, unit_offset=True).apply({"params": {"scale": scale}}, x)
    assert (out[0] == expected).all()
    centred = LayerNorm(1e-5, jnp.float32, unit_offset=True).apply({"params": {"scale": scale}}, x)
    near(np.asarray(centred)[0], np.array([-1, 0, 1]) / np.sqrt(2 / 3 + 1e-5) * (1 + np.asarray(scale)))
