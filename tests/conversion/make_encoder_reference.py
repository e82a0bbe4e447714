"""Writes what transformers computes for every small encoder: parity where torch is absent.

python -m tests.conversion.make_encoder_reference
"""

from __future__ import annotations

import pathlib
import tempfile

import numpy as np
from safetensors.numpy import save_file

from tests.conversion.encoder_cases import ENCODER_CASES, encoder_rows, write_encoder

REFERENCE = pathlib.Path(__file__).with_name("reference_encoders.safetensors")
FEATURES = 4
"""Of the last hidden state, as many as are stored."""


def encoder_outputs(directory: pathlib.Path, tokens: np.ndarray, real: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The last hidden states and the classifier's logits of transformers, in fp32."""
    import torch
    from transformers import AutoModelForSequenceClassification

    model = AutoModelForSequenceClassification.from_pretrained(directory, dtype=torch.float32).eval()
    arguments = {"attention_mask": torch.from_numpy(real.astype(np.int64))}
    if model.config.model_type in ("bert", "deberta-v2"):  # the others find positions in the mask
        arguments["position_ids"] = torch.from_numpy(np.maximum(real.cumsum(1) - 1, 0))
    with torch.no_grad():
        outputs = model(torch.from_numpy(tokens), output_hidden_states=True, **arguments)
    return outputs.hidden_states[-1].numpy(), outputs.logits.numpy()


def main() -> None:
    """Runs every case through transformers."""
    reference = {}
    for name, attributes in ENCODER_CASES.items():
        with tempfile.TemporaryDirectory() as directory:
            path = write_encoder(pathlib.Path(directory), attributes)
            hidden, logits = encoder_outputs(path, *encoder_rows(attributes))
        reference[f"{name}/hidden"] = np.ascontiguousarray(hidden[..., :FEATURES])
        reference[f"{name}/logits"] = logits
    save_file(reference, REFERENCE)


if __name__ == "__main__":
    main()
