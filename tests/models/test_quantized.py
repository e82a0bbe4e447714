"""Weights in 8 and 4 bits: values by hand, bounds of the rounding, and what the backward pass keeps."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats

from jaxrefine.conversion.apply import by_path
from jaxrefine.models.quantized import (
    NF4,
    QUANTIZED,
    dequantize,
    dequantize_params,
    group_size,
    num_bytes,
    quantize,
    quantize_params,
    quantized_product,
)
from tests.models.mechanisms import MECHANISMS
from tests.models.test_mechanisms import make
from tests.models.tiny import GROUPS, layout

ROW, _, USED = layout(GROUPS, 56)


def test_the_sixteen_values_are_the_papers_quantiles():
    """Eight quantiles above 0 and seven below, even steps of probability, scaled by the largest."""
    offset = 0.9677083
    above = scipy.stats.norm.ppf(np.linspace(offset, 0.5, 9)[:-1])
    below = -scipy.stats.norm.ppf(np.linspace(offset, 0.5, 8)[:-1])
    expected = np.sort(np.concatenate([above, [0.0], below]))
    np.testing.assert_allclose(NF4, expected / expected.max(), atol=2e-7)


def test_four_bits_by_hand():
    """Scale 2: units -1, 0.1, 0.5, 1 are nearest -1 (code 0), 0.0796 (8), 0.4407 (12), 1 (15)."""
    kept = quantize(jnp.array([[-2.0, 0.2, 1.0, 2.0]]), "nf4")
    assert kept["values"].tolist() == [[0 | 8 << 4, 12 | 15 << 4]]
    assert kept["scales"].tolist() == [[2.0]]
    np.testing.assert_allclose(dequantize(**kept, dtype=jnp.float32), [[-2.0, 2 * NF4[8], 2 * NF4[12], 2.0]], rtol=1e-6)


@pytest.mark.parametrize(("bits", "gap"), [("int8", 1 / 127), ("nf4", max(np.diff(NF4)))])
def test_no_weight_moves_further_than_half_a_step_of_its_group(bits, gap):
    rng = np.random.default_rng(0)
    kernel = rng.normal(size=(2, 5, 96)).astype(np.float32) * np.exp(rng.normal(size=(2, 5, 1))).astype(np.float32)
    kernel[1, 2] = 0.0
    found = np.asarray(dequantize(**quantize(jnp.asarray(kernel), bits), dtype=jnp.float32))
    groups = np.abs(kernel.reshape(2, 5, 2, 48)).max(-1, keepdims=True)
    error = np.abs(found - kernel).reshape(2, 5, 2, 48)
    assert (error <= groups * gap / 2 * (1 + 1e-5)).all()
    assert error.max() > groups.min() * gap / 20  # it does round
    np.testing.assert_array_equal(found[1, 2], 0.0)


def test_a_group_never_goes_beyond_a_row():
    assert [group_size(inputs) for inputs in (4096, 100, 6, 128, 13)] == [64, 50, 6, 64, 13]


@pytest.mark.parametrize("bits", ["int8", "nf4"])
def test_the_product_and_its_gradient_are_those_of_the_rounded_weights(bits):
    rng = np.random.default_rng(1)
    kernel, x, g = (jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in ((7, 64), (3, 64), (3, 7)))
    kept = quantize(kernel, bits)
    rounded = np.asarray(dequantize(**kept, dtype=jnp.float32), np.float64)
    y, pull = jax.vjp(lambda x: quantized_product(x, kept["values"], kept["scales"]), x)
    np.testing.assert_allclose(y, np.asarray(x, np.float64) @ rounded.T, rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(pull(g)[0], np.asarray(g, np.float64) @ rounded, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("name", "bits"), [("post-norm, projected embedding", "int8"), ("sandwich, caps, windows by turns", "nf4")]
)
def test_a_decoder_runs_on_few_bits_as_on_its_rounded_weights(name, bits):
    decoder, params = make(MECHANISMS[name])
    left, kept = quantize_params(params, bits)
    rounded = dequantize_params(left, kept, jnp.float32)
    run = jax.jit(lambda variables: decoder.apply(variables, **ROW, method="trunk")[0, :USED])
    found, expected = run({"params": left, QUANTIZED: kept}), run({"params": rounded})
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-6 * np.abs(expected).max())
    assert by_path(rounded).keys() == by_path(params).keys()
    maps = [path for path in by_path(params) if path.startswith("layers/") and path.endswith("/kernel")]
    assert {path for path, leaf in by_path(rounded).items() if not np.array_equal(leaf, by_path(params)[path])} == {
        *maps
    }


@pytest.mark.parametrize(("bits", "per_weight"), [("int8", 1 + 4 / 64), ("nf4", 0.5 + 4 / 64)])
def test_bytes_of_the_quantised_maps(bits, per_weight):
    kernel = {"layers": {"feed_forward": {"up": {"kernel": jnp.ones((2, 8, 128))}}}}
    assert num_bytes(quantize_params(kernel, bits)[1]) == 2 * 8 * 128 * per_weight


def test_the_backward_pass_keeps_the_bits_and_not_the_weights():
    L, D = 8, 128
    kept = quantize(jnp.ones((L, D, D)), "nf4")

    def loss(x, kept):
        return jnp.sum(jax.lax.scan(lambda x, one: (jnp.tanh(quantized_product(x, **one)), None), x, kept)[0])

    compiled = jax.jit(jax.grad(loss)).lower(jnp.ones((1, D)), kept).compile()
    assert compiled.memory_analysis().temp_size_in_bytes < 2.5 * D * D * 4  # one layer's weights at a time, of eight


def test_odd_inputs_in_four_bits_are_refused():
    with pytest.raises(ValueError, match=r"\[2, 5\] has an odd number"):
        quantize(jnp.ones((2, 5)), "nf4")
