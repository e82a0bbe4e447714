"""One router: what it learns and what reads the query, a linear map of words or a model, new or from a start."""

from __future__ import annotations

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Literal

import jax
import jax.numpy as jnp
import numpy as np

from jaxrefine.conversion.loaded import Placement
from jaxrefine.conversion.pretrained import save_pretrained
from jaxrefine.data.examples import Routed
from jaxrefine.data.tags import LabelEnhancement, models_of, shares
from jaxrefine.data.tokenizer import train_tokenizer
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.encoder_config import EncoderConfig
from jaxrefine.selection.features import FeatureConfig, fit_features
from jaxrefine.selection.router import save_router
from jaxrefine.training.finetuning import Finetuning, finetune


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
    """One router: what it learns, and what reads the query."""

    name: str
    target: LabelEnhancement = dataclasses.field(default_factory=LabelEnhancement)
    reads: Literal["model", "features"] = "model"
    """A trained model, or a linear map of hashed words (``selection.features``)."""
    sweep: str = ""
    """Its label in the β sweep of the report; empty: it is not part of that."""
    training: Finetuning | None = None
    """Of this router, where it is a model; None is the training of all."""


def train_router(
    recipe: Recipe,
    queries: Sequence[Routed],
    directory: pathlib.Path,
    *,
    start: str,
    encoder: EncoderConfig | None,
    training: Finetuning,
    features: FeatureConfig,
    placement: Placement,
    seed: int,
) -> None:
    """Trains a router and saves it with the names of its models; stopped and called again, it goes on.

    Args:
        recipe: what reads the query.
        queries: with their targets.
        directory: of a linear router; gets ``model``, the directory of one that is a model.
        start: the model that it starts from; empty: ``encoder``, with a tokenizer of the queries.
        encoder: sizes of a model from nothing.
        training: of a model; the number of models to route between is that of the queries.
        features: of a linear router.
        placement: where a model computes.
        seed: added to that of the training; of new parameters.
    """
    models = models_of(queries)
    if recipe.reads == "features":
        targets = np.stack([shares(query) for query in queries])
        save_router(directory, models, features=fit_features([query.prompt for query in queries], targets, features))
        return
    origin = pathlib.Path(start)
    if not start:
        if encoder is None:
            raise ValueError(f"router {recipe.name!r} is a model: give a start, or an encoder's sizes")
        origin = directory / "start"
        new_encoder(origin, encoder, [query.prompt for query in queries], seed=seed)
    objective = dataclasses.replace(training.objective, num_models=len(models))
    config = dataclasses.replace(training, objective=objective, seed=training.seed + seed)
    label = f"router {recipe.name}, {directory.parent.parent.parent.name}"
    trained = finetune(origin, queries, config, directory, placement=placement, description=label)
    save_router(trained, models, max_prompt=config.max_prompt, pooling=placement.pooling)


def new_encoder(directory: pathlib.Path, config: EncoderConfig, texts: Sequence[str], *, seed: int) -> None:
    """Writes an encoder of new parameters with a tokenizer of the texts, as a model directory.

    Args:
        directory: of the model.
        config: sizes; ``vocab_size`` is at most so many.
        texts: that the tokenizer is made from.
        seed: of the parameters.
    """
    if (directory / "config.json").is_file():
        return
    tokenizer = train_tokenizer(texts, config.vocab_size)
    config = dataclasses.replace(config, vocab_size=tokenizer.vocab_size)
    words = directory.with_name(f"{directory.name}-tokenizer")
    tokenizer.save(words)
    row = jnp.zeros((1, 8), jnp.int32), jnp.arange(8, dtype=jnp.int32)[None], jnp.full((1, 8), 8, jnp.int32)
    encoder = Encoder(config, dtype=jnp.float32)
    params = jax.jit(lambda key: encoder.init(key, *row, method="trunk")["params"])(jax.random.key(seed))
    save_pretrained(directory, config, params, tokenizer_dir=words, dtype=jnp.float32, family="deberta-v2")
