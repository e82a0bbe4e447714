"""What every loss of the table owes: one test a property, run over all of them."""

from __future__ import annotations

import functools
import zlib

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.losses import LOSSES, counts
from tests.losses.oracles import CASES, ORACLES

every_loss = pytest.mark.parametrize(("name", "options"), CASES, ids=lambda value: str(value) if value else "")
kinds_of_labels = pytest.mark.parametrize("kind", ["strict", "binary", "levels"])


def make_arrays(name, *, kind="levels", shape=(3, 5), seed=0):
    """Positional arrays of a loss, as NumPy: log-probs for scores, labels last."""
    rng = np.random.default_rng([seed, zlib.crc32(name.encode())])
    loss = LOSSES[name]
    arrays = [-rng.gamma(2.0, 1.0, shape) for _ in loss.arrays[:-1]]
    if loss.reads == "logits":
        return [rng.normal(size=shape), rng.normal(size=shape)]
    if kind == "strict":
        labels = rng.permuted(np.broadcast_to(np.arange(shape[-1]) * 0.5, shape), axis=-1)
    else:
        labels = rng.integers(0, 2 if kind == "binary" else 4, shape).astype(float)
    return [*arrays, labels]


def make_where(name, shape=(3, 5)):
    where = np.random.default_rng(zlib.crc32(name.encode())).random(shape) < 0.7
    where[..., :2] = True
    return where


@functools.cache
def _jitted(name, options):
    """(values, gradients of the summed loss by every array but the labels), compiled once a shape."""
    function = functools.partial(LOSSES[name].function, **dict(options))
    num_inputs = len(LOSSES[name].arrays) - 1
    total = lambda *arrays, where: jnp.sum(function(*arrays, where=where))  # noqa: E731
    return jax.jit(function), jax.jit(jax.grad(total, argnums=tuple(range(num_inputs))))


def _run(which, name, arrays, options, where, dtype):
    where = None if where is None else jnp.asarray(where)
    return _jitted(name, tuple(options.items()))[which](*(jnp.asarray(x, dtype) for x in arrays), where=where)


def call(name, arrays, options, where=None, dtype=jnp.float32):
    return _run(0, name, arrays, options, where, dtype)


def gradients(name, arrays, options, where=None, dtype=jnp.float32):
    return _run(1, name, arrays, options, where, dtype)


def expected(name, arrays, options, where):
    rows = zip(*(x.reshape(-1, x.shape[-1]).tolist() for x in [*arrays, where]), strict=True)
    values = np.array([ORACLES[name](*row, **options) for row in rows])
    return values.reshape(arrays[0].shape[:-1] + values.shape[1:])


def test_the_cases_cover_the_table():
    assert {name for name, _ in CASES} == set(LOSSES) == set(ORACLES)


@every_loss
@kinds_of_labels
def test_values_agree_with_the_formula_in_float64_loops(name, options, kind):
    arrays, where = make_arrays(name, kind=kind), make_where(name)
    np.testing.assert_allclose(
        call(name, arrays, options, where), expected(name, arrays, options, where), rtol=1e-5, atol=1e-6
    )


@every_loss
@kinds_of_labels
def test_gradients_agree_with_finite_differences_of_the_loops(name, options, kind):
    arrays, where = make_arrays(name, kind=kind, seed=3), make_where(name)
    step = 1e-5
    for index, gradient in enumerate(gradients(name, arrays, options, where)):
        if LOSSES[name].arrays[index] == "reference_scores":
            assert not np.any(gradient)  # a reference learns nothing
            continue
        for place in np.ndindex(arrays[index].shape):
            moved = []
            for sign in (1, -1):
                shifted = [x.copy() for x in arrays]
                shifted[index][place] += sign * step
                moved.append(expected(name, shifted, options, where).sum())
            np.testing.assert_allclose(gradient[place], (moved[0] - moved[1]) / (2 * step), rtol=1e-4, atol=1e-5)


@every_loss
def test_a_masked_candidate_is_as_good_as_removed(name, options):
    arrays = make_arrays(name)
    where = np.broadcast_to(np.array([True, False, True, False, True]), (3, 5))
    kept = call(name, [x[:, where[0]] for x in arrays], options)
    masked = call(name, arrays, options, where)
    np.testing.assert_allclose(masked[:, where[0]] if masked.ndim == 2 else masked, kept, rtol=1e-6)


@every_loss
@pytest.mark.parametrize("junk", [np.nan, np.inf, -np.inf, 1e30])
def test_nothing_behind_a_mask_reaches_value_or_gradient(name, options, junk):
    arrays, where = make_arrays(name), make_where(name)
    spoilt = [np.where(where, x, junk) for x in arrays]
    np.testing.assert_array_equal(call(name, spoilt, options, where), call(name, arrays, options, where))
    for got, clean in zip(
        gradients(name, spoilt, options, where), gradients(name, arrays, options, where), strict=True
    ):
        np.testing.assert_array_equal(got, clean)
        assert not np.any(np.asarray(got)[~where])


@every_loss
def test_all_masked_groups_have_value_zero_and_zero_gradients(name, options):
    arrays = make_arrays(name)
    where = np.zeros((3, 5), bool)
    assert not np.any(call(name, arrays, options, where))
    for gradient in gradients(name, arrays, options, where):
        np.testing.assert_array_equal(gradient, np.zeros((3, 5)))


@every_loss
def test_one_candidate_alone_teaches_nothing(name, options):
    if LOSSES[name].unit == "candidate":
        pytest.skip("a loss of candidates learns from one")
    arrays = make_arrays(name, shape=(3, 1))
    np.testing.assert_array_equal(call(name, arrays, options), np.zeros(3))
    np.testing.assert_array_equal(gradients(name, arrays, options)[0], np.zeros((3, 1)))
    np.testing.assert_array_equal(counts(name, jnp.asarray(arrays[-1]), options=options), np.zeros(3))


@every_loss
@pytest.mark.parametrize("label", [0.0, 1.0])
def test_equal_labels_teach_nothing_unless_ties_go_by_index(name, options, label):
    if LOSSES[name].unit == "candidate" or LOSSES[name].reads == "logits":
        pytest.skip("learns without comparing labels")
    *inputs, labels = make_arrays(name)
    arrays = [*inputs, np.full_like(labels, label)]
    ties = {**LOSSES[name].options(), **options}.get("ties", "skip")
    assert np.all(np.asarray(counts(name, jnp.asarray(arrays[-1]), options=options)) == (ties == "index"))
    if ties == "skip":
        np.testing.assert_array_equal(call(name, arrays, options), np.zeros(3))
        np.testing.assert_array_equal(gradients(name, arrays, options)[0], np.zeros((3, 5)))


@every_loss
@kinds_of_labels
def test_groups_that_count_for_nothing_have_value_zero(name, options, kind):
    arrays = make_arrays(name, kind=kind, shape=(40, 5))
    where = np.random.default_rng(1).random((40, 5)) < 0.4
    count = np.asarray(counts(name, jnp.asarray(arrays[-1], jnp.float32), jnp.asarray(where), options=options))
    values = np.asarray(call(name, arrays, options, where)).reshape(40, -1)
    assert (count == 0).any()
    assert (count > 0).any()
    np.testing.assert_array_equal(values[count == 0], np.zeros_like(values[count == 0]))


@every_loss
@pytest.mark.parametrize("size", [1e4, -1e4, 0.0])
@kinds_of_labels
def test_extreme_scores_give_finite_values_and_gradients(name, options, size, kind):
    *inputs, labels = make_arrays(name, kind=kind)
    signs = np.array([1.0, -1.0, 1.0, 1.0, -1.0])
    for pattern in (signs, np.ones(5), -signs):
        arrays = [*(np.broadcast_to(size * pattern, x.shape) for x in inputs), labels]
        assert np.all(np.isfinite(call(name, arrays, options)))
        assert all(np.all(np.isfinite(g)) for g in gradients(name, arrays, options))


@every_loss
def test_extreme_labels_give_finite_values_and_gradients(name, options):
    *inputs, labels = make_arrays(name)
    arrays = [*inputs, 1e4 * (labels - 1.0)]
    assert np.all(np.isfinite(call(name, arrays, options)))
    assert all(np.all(np.isfinite(g)) for g in gradients(name, arrays, options))


@every_loss
def test_distinct_labels_in_any_order_give_the_same_value(name, options):
    arrays, where = make_arrays(name, kind="strict"), make_where(name)
    order = np.random.default_rng(5).permutation(5)
    shuffled = call(name, [x[:, order] for x in arrays], options, where[:, order])
    value = call(name, arrays, options, where)
    np.testing.assert_allclose(shuffled, value[:, order] if value.ndim == 2 else value, rtol=1e-5)


@every_loss
@pytest.mark.parametrize("kind", ["binary", "levels"])
def test_equal_labels_in_any_order_give_the_same_value_where_the_table_says_so(name, options, kind):
    arrays = make_arrays(name, kind=kind, shape=(40, 5))
    order = np.random.default_rng(5).permutation(5)
    shuffled = call(name, [x[:, order] for x in arrays], options)
    value = call(name, arrays, options)
    value = value[:, order] if value.ndim == 2 else value
    invariant = {**LOSSES[name].options(), **options}.get("ties", "skip") == "skip"
    if not options:
        assert invariant == LOSSES[name].permutation_invariant
    if invariant:
        np.testing.assert_allclose(shuffled, value, rtol=1e-5, atol=1e-6)
    else:
        assert np.any(np.abs(shuffled - value) > 1e-3)


@every_loss
def test_bfloat16_inputs_are_computed_in_fp32(name, options):
    arrays = [np.asarray(jnp.asarray(x, jnp.bfloat16).astype(jnp.float32)) for x in make_arrays(name)]
    got = call(name, arrays, options, dtype=jnp.bfloat16)
    assert got.dtype == jnp.float32
    np.testing.assert_allclose(got, call(name, arrays, options), rtol=1e-6, atol=1e-7)
    assert all(g.dtype == jnp.bfloat16 for g in gradients(name, arrays, options, dtype=jnp.bfloat16))


@every_loss
def test_any_mix_of_dtypes_gives_fp32(name, options):
    *inputs, labels = make_arrays(name, kind="binary")
    for dtype in (jnp.float32, jnp.bfloat16, jnp.float16):
        for label_dtype in (jnp.float32, jnp.bfloat16, jnp.int32, jnp.bool_):
            if LOSSES[name].reads == "logits" and not jnp.issubdtype(label_dtype, jnp.floating):
                continue  # rewards are floats
            arrays = [*(jnp.asarray(x, dtype) for x in inputs), jnp.asarray(labels, label_dtype)]
            value = jax.eval_shape(functools.partial(LOSSES[name].function, **options), *arrays)
            assert value.dtype == jnp.float32


@every_loss
def test_boolean_labels_are_labels(name, options):
    if LOSSES[name].reads == "logits":
        pytest.skip("rewards are floats")
    *inputs, labels = make_arrays(name, kind="binary")
    same = _jitted(name, tuple(options.items()))[0](
        *(jnp.asarray(x, jnp.float32) for x in inputs), jnp.asarray(labels, bool), where=None
    )
    np.testing.assert_allclose(same, call(name, [*inputs, labels], options), rtol=1e-6, atol=1e-7)


@every_loss
def test_leading_dimensions_are_free(name, options):
    arrays, where = make_arrays(name), make_where(name)
    value = call(name, arrays, options, where)
    assert value.shape == ((3, 5) if LOSSES[name].unit == "candidate" else (3,))
    first = call(name, [x[0] for x in arrays], options, where[0])
    np.testing.assert_allclose(first, value[0], rtol=1e-6, atol=1e-7)
    twice = call(name, [np.stack([x, x[::-1]]) for x in arrays], options, np.stack([where, where[::-1]]))
    np.testing.assert_allclose(twice, np.stack([value, value[::-1]]), rtol=1e-6, atol=1e-7)
    none = [jnp.zeros((2, 0, 5)) for _ in arrays]
    shape = jax.eval_shape(functools.partial(LOSSES[name].function, **options), *none).shape
    assert shape == (2, 0, *value.shape[1:])


@every_loss
def test_vmap_changes_nothing(name, options):
    arrays, where = make_arrays(name), make_where(name)
    function = lambda *xs: LOSSES[name].function(*xs[:-1], where=xs[-1], **options)  # noqa: E731
    inputs = [*(jnp.asarray(x, jnp.float32) for x in arrays), jnp.asarray(where)]
    mapped = jax.jit(jax.vmap(function))(*inputs)
    np.testing.assert_allclose(mapped, call(name, arrays, options, where), rtol=1e-6, atol=1e-7)


@every_loss
def test_numpy_arrays_do_as_well(name, options):
    arrays, where = [x.astype(np.float32) for x in make_arrays(name)], make_where(name)
    value = jax.jit(lambda: LOSSES[name].function(*arrays, where=where, **options))()
    np.testing.assert_allclose(value, call(name, arrays, options, where), rtol=1e-6, atol=1e-7)


@every_loss
def test_float64_stays_float64(name, options):
    with _float64():
        arrays, where = make_arrays(name), make_where(name)
        value = call(name, arrays, options, where, dtype=jnp.float64)
        assert value.dtype == jnp.float64
        np.testing.assert_allclose(value, expected(name, arrays, options, where), rtol=1e-12, atol=1e-12)


def _float64():
    if hasattr(jax, "enable_x64"):
        return jax.enable_x64(True)
    from jax.experimental import enable_x64  # its place before jax 0.8

    return enable_x64(True)


@every_loss
def test_a_better_ranking_is_cheaper(name, options):
    if LOSSES[name].reads != "scores":
        pytest.skip("does not read scores")
    labels = np.array([2.0, 1.0, 0.0])
    good, bad = np.array([-0.5, -1.0, -3.0]), np.array([-3.0, -1.0, -0.5])
    between = [np.zeros(3)] if "reference" in LOSSES[name].needs else []
    assert call(name, [good, *between, labels], options) < call(name, [bad, *between, labels], options)
