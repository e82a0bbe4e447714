"""Both forms of GELU are so close that only a finer tolerance tells them apart."""

from __future__ import annotations

import dataclasses
import pathlib

import numpy as np
import pytest
from safetensors.numpy import load_file

from jaxrefine.conversion.pretrained import load_pretrained
from tests.conversion.cases import CASES
from tests.conversion.checkpoints import tensors_of, write_checkpoint
from tests.conversion.logits import decoder_logits
from tests.conversion.make_reference import REFERENCE, columns_of, tokens_of

FORMS = {
    "gpt2": "gelu_tanh",
    "cerebras-gpt": "gelu",
    "bloom": "gelu_tanh",
    "gpt-j": "gelu_tanh",
    "pythia": "gelu",
    "gpt-neox-20b": "gelu_tanh",
}


@pytest.mark.parametrize("name", FORMS)
def test_the_stored_logits_are_those_of_one_form_of_gelu_only(tmp_path: pathlib.Path, name: str) -> None:
    case = CASES[name]
    stored = load_file(REFERENCE / f"{case.module}.safetensors")
    config, params = load_pretrained(write_checkpoint(tmp_path, case.attributes, tensors_of(case.attributes)))
    assert config.activation == FORMS[name]
    other = dataclasses.replace(config, activation={"gelu": "gelu_tanh", "gelu_tanh": "gelu"}[FORMS[name]])
    right, wrong = (
        np.abs(
            decoder_logits(one, params, tokens_of(config.vocab_size))[..., columns_of(config.vocab_size)] - stored[name]
        ).max()
        / stored[f"{name}/largest"][0]
        for one in (config, other)
    )
    assert right <= 5e-6
    assert wrong >= 2e-5
