"""Writes the logits that transformers computes for every variant: parity where torch is absent.

    python -m tests.conversion.make_reference

The weights are those of ``checkpoints.wave``, which any machine computes alike, so only logits are stored.
"""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np
from safetensors.numpy import save_file

from tests.conversion.checkpoints import VARIANTS, tensors_of, write_checkpoint

REFERENCE = pathlib.Path(__file__).with_name("reference_logits.safetensors")
NUM_COLUMNS = 64


def tokens_of(vocab_size: int) -> np.ndarray:
    """Two rows of twelve tokens."""
    return (np.arange(24, dtype=np.int64).reshape(2, 12) * 7919 + 13) % vocab_size


def columns_of(vocab_size: int) -> np.ndarray:
    """The columns of the logits that are stored: evenly spread, the last among them."""
    return np.linspace(0, vocab_size - 1, min(NUM_COLUMNS, vocab_size)).astype(np.int64)


def main() -> None:
    """Runs every variant through transformers, in fp32."""
    import torch
    from transformers import LlamaForCausalLM

    reference = {}
    for name, attributes in VARIANTS.items():
        with tempfile.TemporaryDirectory() as directory:
            write_checkpoint(pathlib.Path(directory), attributes, tensors_of(attributes))
            model = LlamaForCausalLM.from_pretrained(directory, dtype=torch.float32).eval()
        with torch.no_grad():
            logits = model(torch.from_numpy(tokens_of(attributes["vocab_size"]))).logits.numpy()
        reference[name] = np.ascontiguousarray(logits[..., columns_of(attributes["vocab_size"])])
        reference[f"{name}/largest"] = np.abs(logits).max(keepdims=True).reshape(1)
    save_file(reference, REFERENCE)


if __name__ == "__main__":
    main()
