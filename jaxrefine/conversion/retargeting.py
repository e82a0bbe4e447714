"""An open model as another family would say it: its rules, its config.json, its scales in the weights."""

from __future__ import annotations

import dataclasses
from typing import Any

from jax.typing import DTypeLike

from jaxrefine.conversion.apply import by_path, nested
from jaxrefine.conversion.classification import architecture, with_scorer
from jaxrefine.conversion.folding import fold_scales, has_scales
from jaxrefine.conversion.pretrained import stored_dtype
from jaxrefine.conversion.sources import Source
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.families import ENCODERS, family_of
from jaxrefine.models.families.attributes import HARMLESS


def retargeted(source: Source, family: str | None, *, fold: bool, dtype: DTypeLike | None, where: str) -> Source:
    """The same model for another family's layout.

    Args:
      source: an open model.
      family: its name; None is the source's own.
      fold: moves scales into the weights first (``fold_scales``), of which only those that a scale touches are read.
      dtype: of the weights that are scaled; None keeps theirs.
      where: what errors name.

    Raises:
      ValueError: an unknown family, a mechanism that it lacks, scales that cannot be folded; says so where folding
        would help.
    """
    if fold:
        if not isinstance(source.config, TransformerConfig):
            raise ValueError(f"{where}: an encoder has no scales to fold")
        try:
            config, params = fold_scales(source.config, nested(source.leaves), dtype=dtype)
        except ValueError as error:
            raise ValueError(f"{where}: {error}") from error
        source = dataclasses.replace(source, config=config, leaves=by_path(params))
    if family is None:
        return source
    described = family_of(family, f"{where}: the target's family")
    if described.model_type == source.family.model_type:
        return source
    if isinstance(source.config, EncoderConfig) != (family in ENCODERS):
        kinds = ("a decoder", "an encoder") if family in ENCODERS else ("an encoder", "a decoder")
        raise ValueError(f"{where}: it is {kinds[0]}; a {family} is {kinds[1]}")
    extra = {name: value for name, value in source.extra.items() if name in HARMLESS}
    try:
        described.to_hf(source.config, dtype="float32", extra=extra)
    except ValueError as error:
        helps = not fold and isinstance(source.config, TransformerConfig) and has_scales(source.config)
        hint = "; --fold-scales moves scales into the weights" if helps else ""
        raise ValueError(f"{where}: {error}{hint}") from error
    return dataclasses.replace(source, family=with_scorer(described) if source.classifier else described, extra=extra)


def attributes_of(source: Source, dtype: DTypeLike | None) -> dict[str, Any]:
    """config.json of a source's model, its weights stored in a dtype."""
    attributes = source.family.to_hf(source.config, dtype=stored_dtype(source.leaves, dtype), extra=source.extra)
    if source.classifier:
        attributes["architectures"] = [architecture(attributes, source.family.model_type)]
    return attributes
