"""Whatever holds a model, opened: its family, config and parameters, which stay in their files until asked for."""

from __future__ import annotations

import contextlib
import dataclasses
import pathlib
from collections.abc import Iterator, Mapping
from typing import Any

from jaxrefine.conversion import apply
from jaxrefine.conversion.classification import SCORE, classifier_shapes, is_classifier, num_labels_of, with_scorer
from jaxrefine.conversion.consolidated import PARAMS, is_consolidated, open_consolidated
from jaxrefine.conversion.orbax import ORBAX, is_orbax, open_orbax
from jaxrefine.conversion.palm import open_palm
from jaxrefine.conversion.pretrained import check_params, read_config
from jaxrefine.conversion.streaming import stored_parameters
from jaxrefine.conversion.tensors import Tensor, has_weights, open_checkpoint
from jaxrefine.models.config import TransformerConfig
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.models.families.llama import LLAMA
from jaxrefine.models.families.palm import PALM
from jaxrefine.models.weights import Family

HUGGING_FACE, META, PALM_FILE, OUR_ORBAX = "Hugging Face", "Meta", "PaLM", "Orbax"
STATED: dict[str, tuple[str, ...]] = {
    HUGGING_FACE: (),
    META: ("max_positions",),
    PALM_FILE: ("gamma_offset", "xpos_base", "qk_scale", "max_positions"),
    OUR_ORBAX: (),
}
"""The layouts, and what nothing in their files tells: see ``load_consolidated`` and ``load_palm``."""
PALM_SUFFIX = ".pt"


@dataclasses.dataclass(frozen=True)
class Source:
    """An open model."""

    layout: str
    """A key of ``STATED``."""
    family: Family
    """With the rule of a classification head where there is one."""
    config: TransformerConfig | EncoderConfig
    attributes: Mapping[str, Any]
    """config.json, or the same made from what is there instead."""
    extra: Mapping[str, Any]
    """What ``config`` does not hold of them."""
    leaves: Mapping[str, Any]
    """By path: arrays, or what has a shape and a dtype and gives one when it is indexed or made an array."""
    classifier: bool
    """Whether it has the head of a sequence classification beside a decoder's body."""


@contextlib.contextmanager
def open_source(path: pathlib.Path, stated: Mapping[str, Any] | None = None) -> Iterator[Source]:
    """A model in any layout of ``STATED``; parameters may be read inside the ``with`` block.

    Args:
      path: a directory, or a PaLM's ``.pt`` file.
      stated: what nothing in the files tells, by the names of ``STATED``; the rest is as in ``load_palm``.

    Raises:
      FileNotFoundError: no model there.
      ValueError: what ``load_pretrained``, ``load_consolidated``, ``load_palm`` and ``open_orbax`` refuse; a directory
        of two layouts; something stated that the files tell.
    """
    layout, said = layout_of(path), dict(stated or {})
    for name in said:
        if name not in STATED[layout]:
            allowed = ", ".join(STATED[layout]) or f"nothing: {path / 'config.json'} tells it all"
            raise ValueError(f"{path} is in {layout}'s layout, of which {name} is not stated; allowed: {allowed}")
    if layout == PALM_FILE:
        attributes, tensors = open_palm(path, **said)
        yield _source(layout, PALM, attributes, tensors, path, str(path))
        return
    if layout == META:
        attributes, tensors = open_consolidated(path, **said)
        yield _source(layout, LLAMA, attributes, tensors, path, str(path / PARAMS))
        return
    family, attributes, where = read_config(path)
    if layout == OUR_ORBAX:
        yield _orbax_source(family, attributes, path, where)
        return
    with open_checkpoint(path) as tensors:
        yield _source(layout, family, attributes, tensors, path, where)


def layout_of(path: pathlib.Path) -> str:
    """The layout of a file or directory, by what is there.

    Raises:
      FileNotFoundError: nothing is there.
      ValueError: a file that is no ``.pt``, a directory of two layouts.
    """
    if path.is_file():
        if path.suffix != PALM_SUFFIX:
            raise ValueError(
                f"{path} is a file; allowed: a directory with config.json (or params.json) and weights, or a PaLM's "
                f"{PALM_SUFFIX} file" + (f": {path.parent}?" if path.suffix in (".safetensors", ".bin", ".pth") else "")
            )
        return PALM_FILE
    if not path.is_dir():
        raise FileNotFoundError(f"{path}: no such directory")
    found = {META: is_consolidated(path), OUR_ORBAX: is_orbax(path), HUGGING_FACE: has_weights(path)}
    layouts = [layout for layout, is_there in found.items() if is_there] or [HUGGING_FACE]
    if META in layouts and HUGGING_FACE in layouts and (path / "config.json").is_file():
        return HUGGING_FACE
    if len(layouts) > 1:
        raise ValueError(f"{path}: models in {' and '.join(layouts)}'s layouts: remove the one that does not belong")
    return layouts[0]


def _source(
    layout: str,
    family: Family,
    attributes: Mapping[str, Any],
    tensors: Mapping[str, Tensor],
    directory: pathlib.Path,
    where: str,
) -> Source:
    config = family.from_hf(attributes, where=where)
    extra = family.extra(attributes)
    classifier = isinstance(config, TransformerConfig) and is_classifier(attributes)
    if classifier:
        abstract = classifier_shapes(config, num_labels_of(attributes, tensors, where))
        family = with_scorer(family)
    else:
        abstract = apply.abstract_params(config)
    shapes = {path: leaf.shape for path, leaf in apply.by_path(abstract).items()}
    assignment = apply.assign(family, family.rules(config), shapes, tensors, str(directory))
    return Source(layout, family, config, attributes, extra, stored_parameters(assignment, shapes), classifier)


def _orbax_source(family: Family, attributes: Mapping[str, Any], directory: pathlib.Path, where: str) -> Source:
    config, extra = family.from_hf(attributes, where=where), family.extra(attributes)
    leaves = open_orbax(directory)
    classifier = isinstance(config, TransformerConfig) and is_classifier(attributes)
    if classifier:
        score = leaves.get(SCORE.ours)
        abstract = classifier_shapes(config, 1 if score is None else score.shape[0])
        family = with_scorer(family)
    else:
        abstract = apply.abstract_params(config)
    try:
        check_params(apply.by_path(abstract), leaves)
    except ValueError as error:
        raise ValueError(f"{directory / ORBAX}: {error}") from error
    return Source(OUR_ORBAX, family, config, attributes, extra, leaves, classifier)
