"""The parameters of a scorer beside a saved model: heads that transformers does not know, in a file of their own."""

from __future__ import annotations

import os
import pathlib
import shutil
from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
import numpy as np
from safetensors import SafetensorError
from safetensors.numpy import load_file, save_file

from jaxrefine.artefacts.atomic import read_json, write_json
from jaxrefine.conversion.apply import by_path, nested
from jaxrefine.typing import Params

SCORER = "jaxrefine_scorer.safetensors"
SCORER_CONFIG = "jaxrefine_scorer.json"


def save_scorer(directory: str | os.PathLike[str], params: Params, config: Mapping[str, Any]) -> None:
    """Writes a scorer's parameters and what describes it into a model directory.

    Args:
      directory: where the model is, or is being written.
      params: a nested dict of arrays; may be empty, as a scorer without parameters has it.
      config: anything that JSON holds, such as the scorer's name and options.
    """
    directory = pathlib.Path(directory)
    arrays = {path: np.ascontiguousarray(leaf) for path, leaf in by_path(params).items()}
    shapes = {path: {"shape": list(array.shape), "dtype": array.dtype.name} for path, array in arrays.items()}
    write_json(directory / SCORER_CONFIG, {"config": dict(config), "parameters": shapes})
    save_file(arrays, directory / SCORER)
    shutil.copymode(directory / SCORER_CONFIG, directory / SCORER)  # safetensors gives it to its owner alone


def load_scorer(directory: str | os.PathLike[str]) -> tuple[dict[str, Any], Params]:
    """What ``save_scorer`` wrote: (config, params).

    Raises:
      FileNotFoundError: the directory has no scorer.
      ValueError: a truncated file, or parameters that are not those that the JSON file lists; names them.
    """
    directory = pathlib.Path(directory)
    for name in (SCORER, SCORER_CONFIG):
        if not (directory / name).is_file():
            raise FileNotFoundError(f"{directory / name}: no such file; save_pretrained(…, scorer=…) writes it")
    described = read_json(directory / SCORER_CONFIG)
    try:
        arrays = load_file(directory / SCORER)
    except SafetensorError as error:
        raise ValueError(f"{directory / SCORER}: no complete safetensors file: {error}") from error
    given = {path: {"shape": list(array.shape), "dtype": array.dtype.name} for path, array in arrays.items()}
    listed = described.get("parameters") if isinstance(described, dict) else None
    if given != listed:
        raise ValueError(f"{directory / SCORER} holds {given}; {SCORER_CONFIG} lists {listed}")
    return described["config"], nested({path: jnp.asarray(array) for path, array in arrays.items()})
