"""Files that torch itself writes give the logits of the model that wrote them."""

from __future__ import annotations

import json
import pathlib
from typing import Any

import pytest

from jaxrefine.conversion.pretrained import load_pretrained
from tests.conversion.cases import CASES
from tests.conversion.logits import decoder_logits, relative_error
from tests.conversion.make_reference import tokens_of

TOLERANCE = 1e-4


@pytest.mark.torch
@pytest.mark.parametrize("num_files", [1, 3])
@pytest.mark.parametrize("name", ["llama-3.1", "gpt2"])
def test_bin_files_of_torch_give_the_same_logits(tmp_path: pathlib.Path, name: str, num_files: int) -> None:
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    attributes = CASES[name].attributes
    (tmp_path / "config.json").write_text(json.dumps(attributes))
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(AutoConfig.from_pretrained(tmp_path)).eval()
    state: dict[str, Any] = dict(model.state_dict())
    files = {f"pytorch_model-{i + 1:05d}-of-{num_files:05d}.bin": list(state)[i::num_files] for i in range(num_files)}
    if num_files == 1:
        files = {"pytorch_model.bin": list(state)}
    else:
        weight_map = {name: file for file, names in files.items() for name in names}
        (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    for file, names in files.items():
        torch.save({name: state[name] for name in names}, tmp_path / file)
    config, params = load_pretrained(tmp_path)
    tokens = tokens_of(config.vocab_size)
    with torch.no_grad():
        theirs = model(torch.from_numpy(tokens)).logits.numpy()
    assert relative_error(decoder_logits(config, params, tokens), theirs) <= TOLERANCE
