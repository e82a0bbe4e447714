"""T13: conversions that run without an error and are wrong, and whether the check of logits notices.

The logits compared with are those that transformers computed for the small models of ``tests/conversion/families``;
they are stored, so neither torch nor transformers is needed here.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import pathlib
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from safetensors.numpy import load_file

from benchmarks.faults.trial import Fault, Outcome
from jaxrefine.conversion.apply import by_path, nested
from jaxrefine.conversion.pretrained import load_pretrained
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.decoder import Decoder
from tests.conversion.cases import CASES, FIRST_KNOWN
from tests.conversion.checkpoints import tensors_of, wave, write_checkpoint
from tests.conversion.make_reference import REFERENCE, columns_of, tokens_of

TOLERANCE = 1e-4
"""Of the largest logit: what the tests of conversion allow."""
Leaves = dict[str, np.ndarray]
Mutant = Callable[[TransformerConfig, Leaves], tuple[TransformerConfig, Leaves] | None]
"""(config, parameters by path) -> the wrong ones; None where the family has no such part."""


def _no_rope_permutation(config: TransformerConfig, leaves: Leaves) -> tuple[TransformerConfig, Leaves] | None:
    """Features that rotate together are taken for neighbours, or no longer for such."""
    if config.positions != "rope":
        return None
    return dataclasses.replace(config, rope_interleaved=not config.rope_interleaved), leaves


def _gate_and_up_swapped(config: TransformerConfig, leaves: Leaves) -> tuple[TransformerConfig, Leaves] | None:
    gate, up = "layers/feed_forward/gate/kernel", "layers/feed_forward/up/kernel"
    return (config, {**leaves, gate: leaves[up], up: leaves[gate]}) if gate in leaves else None


def _transposed_kernel(config: TransformerConfig, leaves: Leaves) -> tuple[TransformerConfig, Leaves] | None:
    """Only a square one goes unnoticed by its shape."""
    square = [
        path for path, x in leaves.items() if path.endswith("/kernel") and x.ndim == 3 and x.shape[1] == x.shape[2]
    ]
    return (config, {**leaves, square[0]: leaves[square[0]].swapaxes(1, 2)}) if square else None


def _off_by_one_layer(config: TransformerConfig, leaves: Leaves) -> tuple[TransformerConfig, Leaves] | None:
    return config, {path: np.roll(x, 1, 0) if path.startswith("layers/") else x for path, x in leaves.items()}


def _head_tied_otherwise(config: TransformerConfig, leaves: Leaves) -> tuple[TransformerConfig, Leaves] | None:
    """A tied head that got new weights, or a head of its own that was taken for the embedding."""
    changed = dataclasses.replace(config, tie_embeddings=not config.tie_embeddings)
    if config.tie_embeddings:
        return changed, {**leaves, "head/kernel": wave("lm_head.weight", leaves["embed/embedding"].shape)}
    return (changed, {k: x for k, x in leaves.items() if not k.startswith("head/")}) if not config.head_bias else None


MUTANTS: dict[str, Mutant] = {
    "no RoPE permutation": _no_rope_permutation,
    "gate and up swapped": _gate_and_up_swapped,
    "transposed kernel": _transposed_kernel,
    "off-by-one layer": _off_by_one_layer,
    "head tied otherwise": _head_tied_otherwise,
}


@functools.cache
def _loaded(name: str) -> tuple[TransformerConfig, Leaves]:
    attributes = CASES[name].attributes
    with tempfile.TemporaryDirectory() as directory:
        write_checkpoint(pathlib.Path(directory), attributes, tensors_of(attributes))
        config, params = load_pretrained(directory)
        return config, {path: np.array(leaf) for path, leaf in by_path(params).items()}


@functools.cache
def _compiled(config: TransformerConfig) -> Callable[..., jax.Array]:
    decoder = Decoder(config, dtype=jnp.float32, attention="dense")

    @jax.jit
    def logits(params: Any, tokens: jax.Array) -> jax.Array:
        slots = jnp.broadcast_to(jnp.arange(tokens.shape[1], dtype=jnp.int32), tokens.shape)
        hidden = decoder.apply({"params": params}, tokens, slots, jnp.full_like(slots, tokens.shape[1]), method="trunk")
        form: Any = decoder.apply({"params": params}, method="logit_form")
        return form.logits(hidden)

    return logits


def _differences(name: str, config: TransformerConfig, leaves: Leaves) -> tuple[float, float]:
    """Largest absolute difference from transformers' logits, and that over the largest logit."""
    stored = load_file(REFERENCE / f"{CASES[name].module}.safetensors")
    tokens = jnp.asarray(tokens_of(config.vocab_size), jnp.int32)
    with jax.default_matmul_precision("highest"):
        logits = np.asarray(_compiled(config)(nested(leaves), tokens))
    difference = float(np.abs(logits[..., columns_of(config.vocab_size)] - stored[name]).max())
    return difference, difference / float(stored[f"{name}/largest"][0])


_ORDER = ["llama-1", *(name for name in FIRST_KNOWN if name != "llama-1")]
_PAIRS = [
    (name, mutant)
    for name in _ORDER
    for mutant in MUTANTS
    if not (mutant == "no RoPE permutation" and CASES[name].module in ("bloom", "gpt2", "opt"))
    and not (
        mutant == "gate and up swapped" and CASES[name].module in ("bloom", "falcon", "gpt2", "gpt_neox", "gptj", "opt")
    )
    and not (mutant == "transposed kernel" and CASES[name].module == "gemma")  # none is square: refused by its shape
    and not (mutant == "head tied otherwise" and CASES[name].module == "gptj")  # its head has a bias: refused by name
]


def _turns(_: pathlib.Path) -> Iterator[tuple[str, str]]:
    return itertools.cycle(_PAIRS)


def _killed(turns: Iterator[tuple[str, str]], generator: np.random.Generator, place: pathlib.Path) -> Outcome:
    name, mutant = next(turns)
    config, leaves = _loaded(name)
    made = MUTANTS[mutant](config, leaves)
    if made is None:
        return Outcome(passed=False, detail=f"{name} has nothing that {mutant!r} could change")
    absolute, sound = _differences(name, config, leaves)
    _, mutated = _differences(name, *made)
    problems = [f"the sound conversion differs by {sound:.2g}"] if not sound <= TOLERANCE else []
    problems += [f"the mutant differs by {mutated:.2g} only"] if not mutated > TOLERANCE else []
    return Outcome(
        passed=not problems,
        detail=f"{name}, {mutant}: {'; '.join(problems)}",
        figures={
            f"largest_logit_difference_of_{CASES[name].module}": absolute,
            "tolerance_over_a_mutants_difference": TOLERANCE / mutated,
        },
    )


FAULTS = (
    Fault(
        name="T13",
        title="a conversion without RoPE's permutation, with gate and up swapped, a square kernel transposed, layers "
        "off by one, the head tied otherwise, for each of 11 families that has such a part",
        criterion=f"logits differ from transformers' by more than {TOLERANCE:g} of the largest; those of the sound "
        "conversion by less",
        trial=_killed,
        prepare=_turns,
        num_trials=len(_PAIRS),
        num_fast=5,
        baseline="published: MaxText#1774, a conversion that runs without errors and is wrong",
    ),
)
