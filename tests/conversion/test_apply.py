"""Weight rules applied backwards: what is exported, and in what dtype."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxrefine.conversion.exporting import export
from jaxrefine.models.families.llama import WEIGHTS


def test_exported_tensors_are_written_as_floats_only() -> None:
    with pytest.raises(ValueError, match=r"'model\.norm\.weight' is to be written as int32; allowed: float32"):
        list(export(WEIGHTS, {"norm/scale": jnp.ones((3,), jnp.int32)}, None, "llama"))


def test_a_parameter_without_a_rule_is_an_error_that_names_it() -> None:
    with pytest.raises(ValueError, match="'norm/scal'; did you mean 'norm/scale'"):
        list(export(WEIGHTS, {"norm/scal": jnp.ones((3,))}, None, "llama"))


def test_rounding_to_half_precision_is_that_of_the_device() -> None:
    value = jax.random.normal(jax.random.key(0), (1000,))
    (_, written), *_ = export(WEIGHTS, {"norm/scale": value}, jnp.bfloat16, "llama")
    np.testing.assert_array_equal(written, value.astype(jnp.bfloat16))
