"""Writes the logits that transformers computes for every family's cases: parity where torch is absent.

    python -m tests.conversion.make_reference [FAMILY …]

The weights are those of ``checkpoints.wave``, which any machine computes alike, so only logits are stored.
"""

from __future__ import annotations

import pathlib
import sys
import tempfile

import numpy as np
from safetensors.numpy import save_file

from tests.conversion.cases import CASES
from tests.conversion.checkpoints import tensors_of, write_checkpoint
from tests.conversion.oracle import transformers_logits

REFERENCE = pathlib.Path(__file__).with_name("reference")
"""A file a module of ``families``."""
NUM_COLUMNS = 16


def tokens_of(vocab_size: int) -> np.ndarray:
    """Two rows of twelve tokens."""
    return (np.arange(24, dtype=np.int64).reshape(2, 12) * 7919 + 13) % vocab_size


def columns_of(vocab_size: int) -> np.ndarray:
    """The columns of the logits that are stored: evenly spread, the last among them."""
    return np.linspace(0, vocab_size - 1, min(NUM_COLUMNS, vocab_size)).astype(np.int64)


def main(modules: list[str]) -> None:
    """Runs the cases of these modules, or of all, through transformers, in fp32."""
    for module in modules or sorted({case.module for case in CASES.values()}):
        reference = {}
        for name, case in CASES.items():
            if case.module != module or case.oracle is None:
                continue
            with tempfile.TemporaryDirectory() as directory:
                write_checkpoint(pathlib.Path(directory), case.attributes, tensors_of(case.attributes))
                vocab = case.attributes["vocab_size"]
                logits = transformers_logits(pathlib.Path(directory), tokens_of(vocab), None, case.oracle)
            reference[name] = np.ascontiguousarray(logits[..., columns_of(logits.shape[-1])])
            reference[f"{name}/largest"] = np.abs(logits).max(keepdims=True).reshape(1)
        if reference:
            REFERENCE.mkdir(exist_ok=True)
            save_file(reference, REFERENCE / f"{module}.safetensors")
            (REFERENCE / f"{module}.safetensors").chmod(0o644)


if __name__ == "__main__":
    main(sys.argv[1:])
