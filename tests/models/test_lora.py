"""Low-rank adapters: the product by hand, merging, dropout, and which maps are meant."""

from __future__ import annotations

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.conversion.apply import abstract_params, by_path
from jaxrefine.models.layers import Linear
from jaxrefine.models.lora import ADAPTERS, LoraConfig, adapted_maps, applied, init_adapters, linear_maps, merged
from tests.models.mechanisms import MECHANISMS
from tests.models.test_mechanisms import make
from tests.models.tiny import CONFIG, GROUPS, layout

ROW, _, USED = layout(GROUPS, 56)
LORA = LoraConfig(rank=3, alpha=12.0, targets=(".*",))


def drawn(params, lora=LORA):
    """Adapters far from zero."""
    rng = np.random.default_rng(0)
    adapters = jax.eval_shape(lambda: init_adapters(jax.random.key(0), params, lora))
    return jax.tree.map(lambda x: jnp.asarray(0.2 * rng.normal(size=x.shape), jnp.float32), adapters)


@jax.jit
def linear(variables, x):
    return Linear(2, jax.nn.initializers.zeros, dtype=jnp.float32).apply(variables, x)


def test_a_map_with_an_adapter_by_hand():
    """W = [[1, 0], [0, 1]], A = [[1, 2]], B = [[3], [-1]], s = 12 / 3: x Wᵀ + s (x Aᵀ) Bᵀ of x = (1, 1)."""
    adapters = {"layers": {"attention": {"query": {"a": jnp.array([[1.0, 2.0]]), "b": jnp.array([[3.0], [-1.0]])}}}}
    own = applied(adapters, LORA)["layers"]["attention"]["query"]
    found = linear({"params": {"kernel": jnp.eye(2)}, ADAPTERS: own}, jnp.ones(2))
    np.testing.assert_array_equal(found, [1 + 4 * 3 * 3, 1 - 4 * 3 * 1])


@pytest.mark.parametrize("name", ["post-norm, projected embedding", "sandwich, caps, windows by turns"])
def test_the_merged_model_equals_the_adapted_one(name):
    """Of other mechanisms the maps are the same: ``test_every_linear_map_of_a_decoder_can_be_adapted``."""
    decoder, params = make(MECHANISMS[name])
    adapters = drawn(params)
    run = jax.jit(lambda variables: decoder.apply(variables, **ROW, method="trunk")[0, :USED])
    adapted = run({"params": params, ADAPTERS: applied(adapters, LORA)})
    whole = run({"params": merged(params, adapters, LORA)})
    largest = np.abs(whole).max()
    np.testing.assert_allclose(adapted, whole, rtol=0, atol=1e-5 * largest)
    assert np.abs(adapted - run({"params": params})).max() > 0.01 * largest


def test_merging_adds_the_product_and_keeps_the_dtype():
    _, params = make(CONFIG)
    params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), params)
    adapters = drawn(params)
    found, before = by_path(merged(params, adapters, LORA)), by_path(params)
    for name, (_, outputs, inputs) in linear_maps(params).items():
        own = adapters["layers"][name.split("/")[0]][name.split("/")[1]]
        a, b = (np.asarray(own[leaf], np.float64) for leaf in "ab")
        w = np.asarray(before[f"layers/{name}/kernel"], np.float64)
        expected = w + 4.0 * np.einsum("lor,lri->loi", b, a)
        kernel = found[f"layers/{name}/kernel"]
        assert (kernel.dtype, kernel.shape[1:]) == (jnp.bfloat16, (outputs, inputs))
        # within one place of bf16 of the exact value: 8 bits
        np.testing.assert_allclose(np.asarray(kernel, np.float64), expected, rtol=2**-8, atol=2**-8)
    for path in set(found) - {f"layers/{name}/kernel" for name in linear_maps(params)}:
        np.testing.assert_array_equal(found[path], before[path])


def test_new_adapters_change_nothing_to_the_bit_and_depend_on_their_map_alone():
    decoder, params = make(CONFIG)
    every = init_adapters(jax.random.key(3), params, LORA)
    few = init_adapters(jax.random.key(3), params, dataclasses.replace(LORA, targets=("attention/key",)))
    run = jax.jit(lambda variables: decoder.apply(variables, **ROW, method="trunk"))
    np.testing.assert_array_equal(run({"params": params, ADAPTERS: applied(every, LORA)}), run({"params": params}))
    assert by_path(few).keys() == {"layers/attention/key/a", "layers/attention/key/b"}
    np.testing.assert_array_equal(by_path(few)["layers/attention/key/a"], by_path(every)["layers/attention/key/a"])
    a = np.asarray(by_path(every)["layers/attention/query/a"])
    bound = 1 / np.sqrt(CONFIG.width)
    assert 0.9 * bound < np.abs(a).max() <= bound  # uniform: 144 draws


def test_dropout_is_for_training_and_keeps_the_mean():
    lora = dataclasses.replace(LORA, dropout=0.25)
    layer = Linear(3, jax.nn.initializers.zeros, dtype=jnp.float32)
    rng = np.random.default_rng(0)
    a, b = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((3, 64), (3, 3)))
    own = applied({"project_in": {"a": a, "b": b}}, lora)["project_in"]
    variables = {"params": {"kernel": jnp.zeros((3, 64))}, ADAPTERS: own}
    x = jnp.asarray(rng.normal(size=64), jnp.float32)
    whole = layer.apply(variables, x)
    np.testing.assert_allclose(whole, 4.0 * np.asarray(b, np.float64) @ (np.asarray(a, np.float64) @ x), rtol=1e-5)
    draws = jax.vmap(lambda key: layer.apply(variables, x, rngs={"dropout": key}))(
        jax.random.split(jax.random.key(0), 4000)
    )
    # y = Σ_i m_i w_i / 0.75 with w the terms of the product: variance Σ w² · 0.25 / 0.75
    terms = 4.0 * np.asarray(b, np.float64) @ (np.asarray(a, np.float64) * np.asarray(x))
    deviation = np.sqrt((terms**2).sum(1) * 0.25 / 0.75)
    np.testing.assert_array_less(np.abs(draws.mean(0) - whole), 5 * deviation / np.sqrt(4000))
    np.testing.assert_allclose(draws.std(0), deviation, rtol=0.1)


def test_dropout_differs_from_layer_to_layer_and_map_to_map():
    decoder, params = make(CONFIG)
    lora = dataclasses.replace(LORA, dropout=0.5)
    variables = {"params": params, ADAPTERS: applied(drawn(params), lora)}
    run = jax.jit(lambda key: decoder.apply(variables, **ROW, method="trunk", rngs={"dropout": key}))
    one, same, other = run(jax.random.key(0)), run(jax.random.key(0)), run(jax.random.key(1))
    np.testing.assert_array_equal(one, same)
    assert np.abs(one - other).max() > 0.01


@pytest.mark.parametrize("name", MECHANISMS)
def test_every_linear_map_of_a_decoder_can_be_adapted(name):
    params = abstract_params(MECHANISMS[name])
    found = linear_maps(params)
    kernels = {path for path, leaf in by_path(params).items() if path.endswith("/kernel")} - {"head/kernel"}
    assert {f"{'layers/' if '/' in one else ''}{one}/kernel" for one in found} == kernels
    assert adapted_maps(params, LORA) == found


def test_a_pattern_that_names_nothing_is_refused_with_the_maps_that_there_are():
    with pytest.raises(ValueError, match=r"'attention/q_proj'.*attention/query"):
        adapted_maps(abstract_params(CONFIG), LoraConfig(targets=("attention/q_proj",)))


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"rank": 0}, "lora.rank = 0"),
        ({"alpha": float("nan")}, "lora.alpha = nan"),
        ({"dropout": 1.0}, "lora.dropout = 1.0"),
        ({"targets": ()}, "lora.targets is empty"),
        ({"targets": ("(",)}, "is no regular expression"),
    ],
)
def test_a_wrong_setting_is_refused(fields, message):
    with pytest.raises(ValueError, match=message):
        LoraConfig(**fields)


def test_an_adapter_of_other_sizes_is_refused_when_it_is_merged():
    _, params = make(CONFIG)
    adapters = drawn(params)
    adapters["layers"]["attention"]["query"]["b"] = jnp.zeros((2, 7, 3))
    with pytest.raises(ValueError, match=r"adapter of attention/query: .*\[2, 7, 3\].*\[2, 32, 24\]"):
        merged(params, adapters, LORA)
    with pytest.raises(ValueError, match="did you mean 'attention/query'"):
        merged(params, {"layers": {"attention": {"qeury": {"a": jnp.zeros(1), "b": jnp.zeros(1)}}}}, LORA)
