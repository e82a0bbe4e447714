"""Whatever holds a model, opened: its family, config and parameters, which stay in their files until asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jaxrefine.conversion import apply
from jaxrefine.conversion.classification import classifier_shapes, is_classifier, num_labels_of, with_scorer
from jaxrefine.conversion.consolidated import PARAMS, is_consolidated, open_consolidated
from jaxrefine.conversion.pretrained import read_config
from jaxrefine.conversion.streaming import StoredParameter, stored_parameters
from jaxrefine.conversion.tensors import Tensor, open_checkpoint
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.families.llama import LLAMA
from jaxrefine.models.weights import Family


@dataclasses.dataclass(frozen=True)
class Source:
    """An open model."""

    layout: str
    """"Hugging Face" or "Meta"."""
    family: Family
    """With the rule of a classification head where there is one."""
    config: TransformerConfig | EncoderConfig
    attributes: Mapping[str, Any]
    """config.json, or the same made from what is there instead."""
    leaves: Mapping[str, StoredParameter]
    """By path."""
    classifier: bool
    """Whether it has the head of a sequence classification beside a decoder's body."""


@contextlib.contextmanager
def open_source(directory: pathlib.Path) -> Iterator[Source]:
    """A model directory, in Hugging Face's layout or Meta's; parameters may be read inside the ``with`` block.

    Raises:
      FileNotFoundError: no model there.
      ValueError: what ``load_pretrained`` and ``load_consolidated`` refuse.
    """
    if not directory.is_dir():
        raise FileNotFoundError(f"{directory}: no such directory")
    if is_consolidated(directory):
        attributes, tensors = open_consolidated(directory)
        yield _source("Meta", LLAMA, attributes, tensors, directory, str(directory / PARAMS))
        return
    family, attributes, where = read_config(directory)
    with open_checkpoint(directory) as tensors:
        yield _source("Hugging Face", family, attributes, tensors, directory, where)


def _source(
    layout: str,
    family: Family,
    attributes: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    directory: pathlib.Path,
    where: str,
) -> Source:
    config = family.from_hf(attributes, where=where)
    classifier = isinstance(config, TransformerConfig) and is_classifier(attributes)
    if classifier:
        abstract = classifier_shapes(config, num_labels_of(attributes, tensors, where))
        family = with_scorer(family)
    else:
        abstract = apply.abstract_params(config)
    shapes = {path: leaf.shape for path, leaf in apply.by_path(abstract).items()}
    assignment = apply.assign(family, family.rules(config), shapes, tensors, str(directory))
    return Source(layout, family, config, attributes, stored_parameters(assignment, shapes), classifier)
