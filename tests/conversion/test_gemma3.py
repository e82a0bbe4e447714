"""Gemma 3 with a vision tower: its text model is read, whichever way its tensors are called."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import numpy as np
import pytest

from jaxrefine.conversion.apply import by_path
from jaxrefine.conversion.pretrained import load_config, load_pretrained, save_pretrained
from tests.conversion.checkpoints import tensors_of, write_checkpoint
from tests.conversion.families.gemma import CASES
from tests.conversion.logits import decoder_logits, relative_error

TEXT = CASES["gemma-3"]
WHOLE: dict[str, Any] = {
    "model_type": "gemma3",
    "architectures": ["Gemma3ForConditionalGeneration"],
    "text_config": TEXT,
    "vision_config": {
        "model_type": "siglip_vision_model",
        "hidden_size": 16,
        "intermediate_size": 16,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "image_size": 32,
        "patch_size": 8,
    },
    "mm_tokens_per_image": 4,
    "boi_token_index": 104,
    "eoi_token_index": 105,
    "image_token_index": 106,
    "eos_token_id": [1, 3],
}
OLDER = {"model.": "language_model.model."}
NEWER = {"model.": "model.language_model."}


@pytest.mark.parametrize("names", [OLDER, NEWER], ids=["older", "newer"])
def test_the_text_model_is_read_and_the_rest_passed_over(tmp_path: pathlib.Path, names: dict[str, str]) -> None:
    tensors = tensors_of(TEXT)
    config, params = load_pretrained(write_checkpoint(tmp_path / "text", TEXT, tensors))
    (prefix,) = names.values()
    whole = {name.replace("model.", prefix, 1): value for name, value in tensors.items()}
    whole |= {f"{one}.weight": np.ones((2, 2), np.float32) for one in ("vision_tower.x", "multi_modal_projector.y")}
    again, same = load_pretrained(write_checkpoint(tmp_path / "whole", WHOLE, whole))
    assert again == config
    assert all(np.array_equal(leaf, by_path(params)[path]) for path, leaf in by_path(same).items())


def test_it_is_written_as_the_text_model_that_it_is(tmp_path: pathlib.Path) -> None:
    config, params = load_pretrained(write_checkpoint(tmp_path / "text", TEXT, tensors_of(TEXT)))
    (tmp_path / "whole").mkdir()
    (tmp_path / "whole" / "config.json").write_text(json.dumps(WHOLE))
    same, extra = load_config(tmp_path / "whole")
    assert same == config
    written = save_pretrained(tmp_path / "out", config, params, family="gemma3", extra=extra)
    attributes = json.loads((written / "config.json").read_text())
    assert attributes["model_type"] == "gemma3_text"
    assert attributes["eos_token_id"] == TEXT["eos_token_id"]
    assert load_config(written)[0] == config


@pytest.mark.torch
def test_logits_of_text_equal_those_of_the_whole_model(tmp_path: pathlib.Path) -> None:
    import torch
    from transformers import Gemma3Config, Gemma3ForConditionalGeneration

    torch.manual_seed(0)
    model = Gemma3ForConditionalGeneration(Gemma3Config.from_dict(json.loads(json.dumps(WHOLE)))).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.normal_(0.0, 0.3)
    model.save_pretrained(tmp_path)
    config, params = load_pretrained(tmp_path)
    tokens = np.arange(24).reshape(2, 12)
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens)).logits.numpy()
    assert relative_error(decoder_logits(config, params, tokens), theirs) <= 1e-4
