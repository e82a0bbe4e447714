"""The decoder as a function: causality, packing, padding, remat, published sizes."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.models.attention import ANYWHERE
from jaxrefine.models.blocks import Layer
from jaxrefine.models.choices import Choices
from jaxrefine.models.config import RopeScaling, TransformerConfig
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.flops import num_params
from jaxrefine.models.norms import RMSNorm
from jaxrefine.models.positions import rope_frequencies, rope_tables
from jaxrefine.models.remat import REMAT
from tests.models.tiny import CONFIG, CONFIGS, GROUPS, apart, layout, make, trunk

ROW, CHAINS, USED = layout(GROUPS, 56)


def close(a, b, relative=1e-5):
    jax.tree.map(
        lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=relative * float(np.abs(y).max() + 1e-30)), a, b
    )


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1)
def value_and_grad(decoder, params, row):
    """A generic function of the hidden states of real slots, and its gradient."""
    weights = jax.random.normal(jax.random.key(3), (1, 56, 24))[:, :USED]
    return jnp.sum(jnp.tanh(trunk(decoder, params, row))[:, :USED] * weights)


@functools.partial(jax.jit, static_argnums=0)
@functools.partial(jax.value_and_grad, argnums=1)
def sum_and_grad(decoder, params, row):
    return trunk(decoder, params, row).sum()


@pytest.mark.parametrize("name", ANYWHERE)
def test_no_slot_depends_on_a_slot_it_does_not_see(name):
    decoder, params = make(attention=name)
    table = params["embed"]["embedding"]
    row = {**ROW, "tokens": jnp.arange(56)[None]}  # every slot its own row of the table

    def hidden(table):
        return trunk(decoder, {**params, "embed": {"embedding": table}}, row)[0].sum(-1)

    reach = jnp.abs(jax.jit(jax.jacobian(hidden))(table)[:, :56]).sum(-1)  # [query slot, key slot]
    slots = np.arange(56)
    visible = (slots[None] <= slots[:, None]) & (slots[:, None] < np.asarray(ROW["ends"])[0][None])
    assert ((np.asarray(reach) > 1e-6) == visible)[:USED].all()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_a_packed_row_equals_its_sequences_apart(config):  # expand: by its equality with dense
    decoder, params = make(config)
    packed = np.asarray(trunk(decoder, params, ROW))[0]
    sequences = [np.asarray(ROW["tokens"])[0, chain] for chain in CHAINS]
    separate = np.asarray(trunk(decoder, params, apart(sequences)))
    for hidden, chain in zip(separate, CHAINS, strict=True):
        close(packed[chain], hidden[: len(chain)])


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_expand_equals_dense_in_value_and_gradient(config):
    decoder, params = make(config)
    close(value_and_grad(decoder.clone(attention="expand"), params, ROW), value_and_grad(decoder, params, ROW), 1e-5)


@pytest.mark.parametrize("name", ANYWHERE)
def test_what_padding_holds_changes_nothing(name):
    decoder, params = make(attention=name)
    changed = {**ROW, "tokens": ROW["tokens"].at[:, USED:].set(17), "positions": ROW["positions"].at[:, USED:].set(9)}
    close(value_and_grad(decoder, params, ROW), value_and_grad(decoder, params, changed), 0.0)


@pytest.mark.parametrize("name", ANYWHERE)
def test_a_row_of_padding_alone_is_finite_with_finite_gradients(name):
    decoder, params = make(attention=name)
    row = {"tokens": jnp.zeros((1, 6), jnp.int32), "positions": jnp.zeros((1, 6), jnp.int32)}
    row |= {"ends": jnp.arange(1, 7)[None], "paths": jnp.full((1, 2, 4), -1), "homes": jnp.zeros((1, 6), jnp.int32)}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(sum_and_grad(decoder, params, row)))


@pytest.mark.parametrize("name", ANYWHERE)
def test_a_query_that_sees_nothing_is_finite_with_finite_gradients(name):
    decoder, params = make(attention=name)
    row = {**ROW, "ends": jnp.zeros_like(ROW["ends"])}
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(sum_and_grad(decoder, params, row)))


@pytest.mark.parametrize("remat", [name for name in REMAT if name != "none"])
@pytest.mark.parametrize("name", ANYWHERE)
def test_rematerialisation_changes_no_value_or_gradient(remat, name):
    decoder, params = make(attention=name)
    close(value_and_grad(decoder.clone(remat=remat), params, ROW), value_and_grad(decoder, params, ROW), 1e-6)


def test_full_rematerialisation_needs_less_memory():
    def temporary(remat):
        config = TransformerConfig(
            vocab_size=8, width=32, num_layers=8, num_heads=4, num_kv_heads=4, head_width=8, hidden_width=64
        )
        decoder, params = make(config, remat=remat)
        row = apart([[0] * 128])
        step = jax.jit(jax.grad(lambda params: trunk(decoder, params, row).sum()))
        return step.lower(params).compile().memory_analysis().temp_size_in_bytes

    assert temporary("full") < 0.5 * temporary("none")
    assert temporary("dots") < temporary("none")


def test_the_scan_equals_a_loop_over_layers():
    decoder, params = make()
    row = apart([range(11)])
    S = 11
    causal = np.tril(np.ones((1, S, S), bool))

    def attend(q, k, v, state, rule):
        k, v = np.repeat(k, 2, axis=2), np.repeat(v, 2, axis=2)
        scores = np.where(causal[:, None], np.einsum("bshd,bthd->bhst", q, k) / np.sqrt(8), -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return jnp.asarray(np.einsum("bhst,bthd->bshd", weights / weights.sum(-1, keepdims=True), v)), state

    x, tables = params["embed"]["embedding"][row["tokens"]], rope_tables(row["positions"], CONFIG)
    for index in range(CONFIG.num_layers):
        layer = jax.tree.map(lambda leaf, index=index: leaf[index], params["layers"])
        x, _ = Layer(CONFIG, jnp.float32).apply({"params": layer}, x, None, Choices(), tables, attend)
    close(trunk(decoder, params, row), RMSNorm(1e-5, jnp.float32).apply({"params": params["norm"]}, x))


def test_a_second_call_compiles_nothing():
    decoder, params = make(attention="expand")
    step = jax.jit(lambda params, row: trunk(decoder, params, row))
    step(params, ROW)
    step(params, {**ROW, "tokens": ROW["tokens"] + 1})
    assert step._cache_size() == 1


def test_rms_norm_casts_before_it_scales():
    x, scale = jnp.array([[1.0, 2.0, 3.0]], jnp.bfloat16), jnp.array([1.01, 0.7, 3.3])
    normal = np.array([1.0, 2.0, 3.0]) / np.sqrt(14 / 3 + 1e-5)
    expected = jnp.asarray(normal, jnp.bfloat16) * scale.astype(jnp.bfloat16)[0:3]
    out = RMSNorm(1e-5).apply({"params": {"scale": scale}}, x)
    assert out.dtype == jnp.bfloat16
    assert (out[0] == expected).all()


def test_bfloat16_stays_near_float32():
    decoder, params = make()
    half = trunk(decoder.clone(dtype=jnp.bfloat16), params, ROW)
    assert half.dtype == jnp.bfloat16
    close(half.astype(jnp.float32)[:, :USED], trunk(decoder, params, ROW)[:, :USED], 0.1)


def test_linear_scaling_divides_every_frequency():
    plain, scaled = rope_frequencies(CONFIG), rope_frequencies(CONFIGS["linear scaling"])
    np.testing.assert_allclose(scaled, plain / 4, rtol=1e-6)


def test_llama3_scaling_divides_long_waves_keeps_short_ones_and_mixes_between():
    scaling = RopeScaling(kind="llama3", factor=8.0, original_max_positions=8192)
    config = TransformerConfig(
        vocab_size=8, width=8, num_layers=1, num_heads=1, num_kv_heads=1, head_width=128, hidden_width=8,
        rope_theta=5e5, rope_scaling=scaling,
    )  # fmt: skip
    plain = 5e5 ** -(np.arange(0, 128, 2) / 128)
    wavelength = 2 * np.pi / plain
    ratio = rope_frequencies(config) / plain
    np.testing.assert_allclose(ratio[wavelength < 8192 / 4], 1.0, rtol=1e-6)
    np.testing.assert_allclose(ratio[wavelength > 8192], 1 / 8, rtol=1e-6)
    between = (wavelength >= 8192 / 4) & (wavelength <= 8192)
    kept = (8192 / wavelength[between] - 1) / 3
    np.testing.assert_allclose(ratio[between], (1 - kept) / 8 + kept, rtol=1e-6)
    assert between.any()


NAMES = ("vocab_size", "width", "num_layers", "num_heads", "num_kv_heads", "hidden_width")
SIZES = {
    "LLaMA-7B": ((32000, 4096, 32, 32, 32, 11008), 6_738_415_616),
    "LLaMA-2-70B": ((32000, 8192, 80, 64, 8, 28672), 68_976_648_192),
    "LLaMA-3-8B": ((128256, 4096, 32, 32, 8, 14336), 8_030_261_248),
}


@pytest.mark.parametrize(("sizes", "published"), SIZES.values(), ids=SIZES.keys())
def test_full_size_models_have_the_published_number_of_parameters(sizes, published):
    config = TransformerConfig(head_width=128, **dict(zip(NAMES, sizes, strict=True)))
    row = [jax.ShapeDtypeStruct((1, 8), jnp.int32)] * 3
    decoder = Decoder(config, attention="dense")
    shapes = jax.eval_shape(lambda *row: decoder.init(jax.random.key(0), *row, method="trunk"), *row)["params"]
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == published == num_params(config)
    assert all(leaf.dtype == jnp.float32 for leaf in jax.tree.leaves(shapes))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_the_count_of_parameters_counts_them(config):
    _, params = make(config)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == num_params(config)


def test_parameters_have_hugging_face_orientation_and_stacked_layers():
    _, params = make()
    shapes = jax.tree.map(lambda leaf: leaf.shape, params)
    assert shapes == {
        "embed": {"embedding": (61, 24)},
        "layers": {
            "attention_norm": {"scale": (2, 24)},
            "attention": {
                "query": {"kernel": (2, 32, 24)},
                "key": {"kernel": (2, 16, 24)},
                "value": {"kernel": (2, 16, 24)},
                "out": {"kernel": (2, 24, 32)},
            },
            "feed_forward_norm": {"scale": (2, 24)},
            "feed_forward": {
                "gate": {"kernel": (2, 40, 24)},
                "up": {"kernel": (2, 40, 24)},
                "down": {"kernel": (2, 24, 40)},
            },
        },
        "norm": {"scale": (24,)},
        "head": {"kernel": (61, 24)},
    }


def test_layers_begin_different_and_residual_maps_smaller():
    decoder = Decoder(CONFIG, attention="dense")
    zeros = jnp.zeros((1, 4), jnp.int32)
    init = jax.jit(lambda key: decoder.init(key, zeros, zeros, zeros + 4, method="trunk"))
    params = init(jax.random.key(0))["params"]["layers"]
    gate, down = params["feed_forward"]["gate"]["kernel"], params["feed_forward"]["down"]["kernel"]
    assert not (gate[0] == gate[1]).all()
    np.testing.assert_allclose(gate.std(), np.sqrt(2 / (5 * 24)), rtol=0.1)
    np.testing.assert_allclose(down.std(), np.sqrt(2 / (5 * 24)) / 2, rtol=0.1)


def test_expand_without_paths_says_what_to_do():
    decoder, params = make(attention="expand")
    with pytest.raises(ValueError, match=r"PackingConfig\(expand=True\)"):
        trunk(decoder, params, apart([[1, 2, 3]]))


@pytest.mark.parametrize(
    ("fields", "message"), [({"attention": "dens"}, "did you mean 'dense'"), ({"remat": "ful"}, "did you mean 'full'")]
)
def test_an_unknown_name_is_refused_with_the_nearest(fields, message):
    decoder, params = make()
    with pytest.raises(ValueError, match=message):
        trunk(decoder.clone(**fields), params, ROW)
