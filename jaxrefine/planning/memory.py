"""What a step will need of a device's memory, by formula: exact for what is kept, an estimate for what is computed.

kept between steps     parameters, moments, frozen weights, from the shapes and their placement
gradients              as large as the trained parameters in fp32, twice with microbatches (a sum and a new part)
saved activations      layers · rows · slots · what the remat policy keeps, of one microbatch
one layer              what its backward pass holds at once, with its weights gathered
log-probs              the head gathered in bf16, one chunk of logits, and the sums of one block of words
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import jax
import jax.numpy as jnp

from jaxrefine.losses.tiles import make_tiles
from jaxrefine.losses.vocabulary import Loop, make_loop
from jaxrefine.models.config import TransformerConfig
from jaxrefine.planning.setup import Setup
from jaxrefine.sharding import ROWS
from jaxrefine.training.full_size import AbstractStep
from jaxrefine.training.memory import device_bytes

_HALF, _WHOLE = 2, 4
"""Bytes of bf16 and fp32."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Predicted:
    """Bytes on one device."""

    parameters: int
    optimizer: int
    frozen: int
    batch: int
    gradients: int
    activations: int
    """Saved for the backward pass, all layers."""
    layer: int
    """At work in one layer, its gathered weights included."""
    logprobs: int

    @property
    def temporaries(self) -> int:
        """Whatever lives inside a step: one layer and the log-probs are never at work at once."""
        return self.gradients + self.activations + max(self.layer, self.logprobs)

    @property
    def total(self) -> int:
        """Everything."""
        return self.parameters + self.optimizer + self.frozen + self.batch + self.temporaries


def predict(setup: Setup, made: AbstractStep) -> Predicted:
    """The formulas of this module for one setup and the abstract step that it makes."""
    shape = made.step.mesh.shape
    shards = math.prod(int(shape[axis]) for axis in ROWS)
    tensor = int(shape["tensor"])
    parameters = device_bytes(made.state.params)
    parts = made.num_microbatches
    trained = device_bytes(jax.tree.map(_in_fp32, made.state.params))
    batch = sum(math.prod(x.shape) * x.dtype.itemsize for x in jax.tree.leaves(made.batch)) // shards
    rows = made.batch.tokens.shape[1] // shards
    tokens = rows * made.batch.tokens.shape[2]
    saved, layer, logprobs = _activations(setup, made, tokens, rows, shards, tensor)
    return Predicted(
        parameters=parameters,
        optimizer=device_bytes(made.state.opt_state),
        frozen=device_bytes(made.state.frozen),
        batch=batch,
        gradients=trained * (2 if parts > 1 else 1),
        activations=saved,
        layer=layer,
        logprobs=logprobs,
    )


def _in_fp32(x: Any) -> Any:
    return jax.ShapeDtypeStruct(x.shape, jnp.float32, sharding=x.sharding)


def _activations(
    setup: Setup, made: AbstractStep, tokens: int, rows: int, shards: int, tensor: int
) -> tuple[int, int, int]:
    """Saved by all layers, at work in one, and of the log-probs, on one device."""
    config: Any = setup.model
    width, hidden = config.width, config.hidden_width
    heads = config.num_heads * config.head_width
    keys = getattr(config, "num_kv_heads", config.num_heads) * config.head_width
    gated = getattr(config, "gated", False)
    scores = _scores(setup, made, rows) * config.num_heads // tensor
    products = (heads + 2 * keys + hidden * (1 + gated)) // tensor + 2 * width
    kept = {
        # As compiled for LLaMA-7B on H100: besides products, fp32 norms, rotations and what lies between them.
        "none": _HALF * tokens * (3 * products + 6 * width) + (_WHOLE + _HALF) * scores,
        "dots": _HALF * tokens * products,
        "minimal": _HALF * tokens * ((2 * heads + 2 * keys) // tensor + 2 * width),
        "offload": 0,
        "attention": _HALF * tokens * (width + heads // tensor),
    }.get(setup.remat, _HALF * tokens * width)
    weights = _HALF * (width * (2 * heads + 2 * keys + (2 + gated) * hidden)) // tensor
    layer = 2 * _HALF * tokens * (products + width) + 2 * (_WHOLE + _HALF) * scores + 2 * weights
    logprobs = 0
    if (loop := logprob_loop(setup, made)) is not None:
        words, local = config.vocab_size // tensor, _scored(made) // shards
        tiles = make_tiles(loop, local, words)
        times = 1 if tiles.words == words else 2  # what is added to, and what is added
        sums = times * _WHOLE * (tiles.words + local) * config.embedding_width
        logprobs = _HALF * words * config.embedding_width + (2 * _WHOLE + _HALF) * loop.rows * words + sums
    return config.num_layers * kept, layer, logprobs


def logprob_loop(setup: Setup, made: AbstractStep) -> Loop | None:
    """The loop over chunks of scored tokens; None without log-probs."""
    if not _scored(made) or not isinstance(setup.model, TransformerConfig):
        return None
    with jax.set_mesh(made.step.mesh):
        return make_loop(
            _scored(made), setup.model.vocab_size, [setup.model.embedding_width], chunk_size=setup.logprob_chunk
        )


def _scored(made: AbstractStep) -> int:
    targets = made.batch.targets
    return 0 if targets is None else int(targets.shape[-1] * targets.shape[-2])


def _scores(setup: Setup, made: AbstractStep, rows: int) -> int:
    """Pairs of query and key, a head, whose scores are there at once; kernels hold tiles alone."""
    if setup.attention == "dense" or not isinstance(setup.model, TransformerConfig):
        return int(rows * made.batch.tokens.shape[2] ** 2)
    if setup.attention == "expand" and made.batch.paths is not None:
        each, length = made.batch.paths.shape[-2:]
        return int(rows * each * length * length)
    return 0
