"""Weights kept in 8 or 4 bits: absolute-maximum scales over groups of inputs, made whole again where they are used.

Only linear maps inside the layers are quantised; embeddings, norms, biases and the head stay as they are. The base of
an adapted model needs no gradient, so the backward pass keeps the few bits and makes the weights again.
"""

from __future__ import annotations

import functools
import re
from typing import Any, Literal, get_args

import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike

from jaxrefine.config import unknown_name
from jaxrefine.typing import Array, Float, Integer, Params

QUANTIZED = "quantized"
"""The collection of quantised weights: ``values`` and ``scales`` where ``params`` would have ``kernel``."""

Bits = Literal["int8", "nf4"]

GROUP_SIZE = 64
"""Inputs that share a scale, or the largest divisor of their number below that."""

NF4 = (
    -1.0, -0.6961928009986877, -0.5250730514526367, -0.39491748809814453, -0.28444138169288635, -0.18477343022823334,
    -0.09105003625154495, 0.0, 0.07958029955625534, 0.16093020141124725, 0.24611230194568634, 0.33791524171829224,
    0.44070982933044434, 0.5626170039176941, 0.7229568362236023, 1.0,
)  # fmt: skip
"""The sixteen values of 4-bit NormalFloat: quantiles of the normal distribution, scaled to [-1, 1], with an exact 0.

Source: Dettmers et al. 2023, QLoRA, arXiv:2305.14314, Appendix E.
"""

_KERNELS = re.compile(r"layers/(attention|feed_forward)/\w+/kernel")


def group_size(inputs: int, at_most: int = GROUP_SIZE) -> int:
    """The largest divisor of ``inputs`` that is not above ``at_most``.

    >>> group_size(4096), group_size(96), group_size(7)
    (64, 48, 7)
    """
    return next(size for size in range(min(inputs, at_most), 0, -1) if inputs % size == 0)


def quantize(
    kernel: Float[Array, "*stacked outputs inputs"], bits: Bits, *, at_most: int = GROUP_SIZE
) -> dict[str, jax.Array]:
    """Weights as few bits and one scale for each group of inputs of each output.

    int8: w ≈ value · scale / 127; nf4: w ≈ NF4[code] · scale; scale = max |w| of the group.

    Args:
      kernel: any float dtype.
      bits: "int8", or "nf4" (two codes a byte, the earlier input in the low half; needs an even number of inputs).
      at_most: inputs of a group, see ``group_size``.

    Returns:
      ``values`` int8 [… out in] or uint8 [… out in/2], and ``scales`` fp32 [… out groups].

    Raises:
      ValueError: an unknown name, or an odd number of inputs in 4 bits.

    >>> kept = quantize(jnp.array([[0.5, -1.0, 0.0, 0.25]]), "int8", at_most=2)
    >>> kept["values"].tolist(), kept["scales"].tolist()
    ([[64, -127, 0, 127]], [[1.0, 0.25]])
    """
    if bits not in get_args(Bits):
        raise ValueError(unknown_name(bits, get_args(Bits), "number format of quantised weights"))
    *outer, inputs = kernel.shape
    size = group_size(inputs, at_most)
    groups = jnp.asarray(kernel, jnp.float32).reshape(*outer, inputs // size, size)
    scales = jnp.max(jnp.abs(groups), axis=-1)
    unit = groups / jnp.where(scales > 0, scales, 1.0)[..., None]
    if bits == "int8":
        values = jnp.round(unit * 127.0).astype(jnp.int8).reshape(kernel.shape)
        return {"values": values, "scales": scales}
    if inputs % 2:
        raise ValueError(f"nf4 packs two inputs a byte, and a kernel of shape {list(kernel.shape)} has an odd number")
    book = np.array(NF4, np.float32)
    codes = jnp.searchsorted(jnp.asarray((book[1:] + book[:-1]) / 2), unit).astype(jnp.uint8).reshape(kernel.shape)
    return {"values": codes[..., 0::2] | (codes[..., 1::2] << 4), "scales": scales}


def dequantize(
    values: Integer[Array, "*stacked outputs packed"], scales: Float[Array, "*stacked outputs groups"], dtype: DTypeLike
) -> Float[Array, "*stacked outputs inputs"]:
    """The weights again, rounded; which format it is, the dtype of ``values`` says.

    >>> [round(float(w), 3) for w in dequantize(**quantize(jnp.array([[1.0, -3.0]]), "nf4"), dtype=jnp.float32)[0]]
    [1.014, -3.0]
    """
    if values.dtype == jnp.int8:
        unit = values.astype(jnp.float32) / 127.0
    else:
        codes = jnp.stack([values & 15, values >> 4], axis=-1).reshape(*values.shape[:-1], 2 * values.shape[-1])
        unit = jnp.asarray(NF4, jnp.float32)[codes]
    groups = unit.reshape(*scales.shape, -1) * scales[..., None]
    return groups.reshape(unit.shape).astype(dtype)


@jax.custom_vjp
def quantized_product(x: Array, values: Array, scales: Array) -> jax.Array:
    """Applies x Wᵀ in the dtype of ``x``, with W as ``quantize`` keeps it; W has no gradient.

    Args:
      x: [… in].
      values: of one map, [out, in] or [out, in/2].
      scales: [out, groups].
    """
    return jnp.einsum("...i,oi->...o", x, dequantize(values, scales, x.dtype))


def _forward(x: Array, values: Array, scales: Array) -> tuple[jax.Array, Any]:
    return quantized_product(x, values, scales), (values, scales)


def _backward(kept: Any, gradient: Array) -> tuple[jax.Array, None, None]:
    values, scales = kept
    return jnp.einsum("...o,oi->...i", gradient, dequantize(values, scales, gradient.dtype)), None, None


quantized_product.defvjp(_forward, _backward)


def quantize_params(params: Params, bits: Bits) -> tuple[Params, Params]:
    """A model's parameters without the linear maps of its layers, and those maps quantised.

    Args:
      params: the tree of a ``Decoder`` or ``Encoder``.
      bits: see ``quantize``.

    Returns:
      Two nested dicts: what is left for the collection ``params``, and the collection ``QUANTIZED``.

    >>> left, kept = quantize_params({"layers": {"attention": {"query": {"kernel": jnp.ones((2, 4, 6))}}}}, "int8")
    >>> left, kept["layers"]["attention"]["query"]["values"].shape
    ({'layers': {'attention': {'query': {}}}}, (2, 4, 6))
    """
    kept: dict[str, Any] = {}

    def walk(tree: Any, path: str, into: dict[str, Any]) -> Any:
        left = {}
        for name, value in tree.items():
            here = f"{path}/{name}" if path else name
            if isinstance(value, dict):
                left[name] = walk(value, here, into.setdefault(name, {}))
                if not into[name]:
                    del into[name]
            elif _KERNELS.fullmatch(here):
                into.update(jax.lax.map(functools.partial(quantize, bits=bits), jnp.asarray(value)))  # layer by layer
            else:
                left[name] = value
        return left

    return walk(params, "", kept), kept


def dequantize_params(params: Params, quantized: Params, dtype: DTypeLike) -> Params:
    """The whole tree again, with the quantised maps in ``dtype``; undoes ``quantize_params`` up to rounding."""
    whole = {name: dict(value) if isinstance(value, dict) else value for name, value in params.items()}
    for name, value in quantized.items():
        if "values" in value and not isinstance(value["values"], dict):
            kernel = dequantize(value["values"], value["scales"], dtype)
            whole[name] = {**whole.get(name, {}), "kernel": kernel}
        else:
            whole[name] = dequantize_params(whole.get(name, {}), value, dtype)
    return whole


def num_bytes(tree: Params) -> int:
    """Bytes of all arrays of a tree, as numpy counts them.

    >>> num_bytes({"kernel": np.zeros((2, 3), np.float32)})
    24
    """
    return sum(leaf.size * leaf.dtype.itemsize for leaf in jax.tree.leaves(tree))
