"""transformers, as what our logits and gradients are compared with."""

from __future__ import annotations

import inspect
import pathlib
from typing import Any

import numpy as np


def load_transformers(directory: pathlib.Path, oracle: dict[str, Any]) -> Any:
    """The model of a directory in fp32; no tensor of it may be missing, left over or of another shape."""
    import torch
    from transformers import AutoModelForCausalLM

    model, found = AutoModelForCausalLM.from_pretrained(
        directory, dtype=torch.float32, output_loading_info=True, **oracle
    )
    for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"):
        assert not found[kind], (kind, found[kind])
    return model.eval()


def logits_of(model: Any, tokens: np.ndarray, real: np.ndarray | None) -> Any:
    """Logits [B S V] as a torch tensor; ``real`` marks the tokens that are no padding."""
    import torch

    given: dict[str, Any] = {}
    if real is not None:
        given["attention_mask"] = torch.from_numpy(real.astype(np.int64))
        if "position_ids" in inspect.signature(model.forward).parameters:
            given["position_ids"] = torch.from_numpy(np.maximum(real.cumsum(1) - 1, 0))
    return model(torch.from_numpy(tokens), use_cache=False, **given).logits


def transformers_logits(
    directory: pathlib.Path, tokens: np.ndarray, real: np.ndarray | None, oracle: dict[str, Any]
) -> np.ndarray:
    """Logits [B S V] of the model of a directory."""
    import torch

    with torch.no_grad():
        return logits_of(load_transformers(directory, oracle), tokens, real).numpy()
