"""Reward models: one number a candidate, read by a head at its last token."""

from __future__ import annotations

import dataclasses
import os
import pathlib
from collections.abc import Collection, Sequence
from typing import Any

import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jax.typing import DTypeLike

from jaxrefine.conversion.classification import is_classifier, load_classifier
from jaxrefine.conversion.encoders import load_encoder
from jaxrefine.conversion.pretrained import load_pretrained, read_config
from jaxrefine.conversion.scorer import SCORER, load_scorer
from jaxrefine.data.examples import Candidates
from jaxrefine.data.tokenizer import load_tokenizer
from jaxrefine.judging.likelihood import dtype_of, label_by
from jaxrefine.judging.local import LocalModel, PackedScorer, Rows
from jaxrefine.judging.provenance import Done, Provenance, Result
from jaxrefine.models.decoder import Decoder
from jaxrefine.models.encoder import Encoder
from jaxrefine.models.families import ENCODERS
from jaxrefine.scoring.reference import params_digest
from jaxrefine.scoring.scorers import RewardHead
from jaxrefine.typing import Array, Float

VERSION = "1"


class RewardJudge:
    """Labels responses by a reward model, each prompt computed once.

    A finished response ends with the end-of-text token, and the head reads there; without it rewards of most models
    mean nothing.

    Args:
        local: the model without its head.
        kernel: of the head.
        offset: a bias, added to every reward.
        rows: limits and sizes.

    Raises:
        ValueError: a head that gives several numbers.
    """

    def __init__(
        self, local: LocalModel, kernel: Float[Array, "labels D"], *, offset: float = 0.0, rows: Rows | None = None
    ) -> None:
        if kernel.shape[0] != 1:
            raise ValueError(
                f"a reward is one number; the head of {local.name!r} gives {kernel.shape[0]}: it is a classifier or a "
                "router"
            )
        rows = Rows() if rows is None else rows
        head = {"kernel": jnp.asarray(kernel, jnp.float32)}
        self._offset = offset
        self.scorer = PackedScorer(local, RewardHead(), rows, scorer_params=head, score_responses=False)
        self.provenance = Provenance(
            judge="reward model",
            version=VERSION,
            model=local.name,
            model_version=local.weights,
            settings={"head": params_digest(head), "offset": offset, "dtype": dtype_of(local), **rows.record()},
        )

    def __call__(
        self, examples: Sequence[Candidates], *, done: Done | None = None, known: Collection[int] = ()
    ) -> list[Result | None]:
        """Labels every example."""
        return label_by(self.scorer, self.provenance, examples, done=done, known=known, offset=self._offset)


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class RewardModel:
    """A reward model as it was loaded."""

    local: LocalModel
    kernel: Any
    """[1 D]."""
    offset: float = 0.0

    def judge(self, *, rows: Rows | None = None) -> RewardJudge:
        """The judge that it makes."""
        return RewardJudge(self.local, self.kernel, offset=self.offset, rows=rows)


def load_reward_model(
    directory: str | os.PathLike[str],
    *,
    name: str = "",
    dtype: DTypeLike = jnp.float32,
    mesh: Mesh | None = None,
    attention: str = "expand",
    pooling: str = "first",
) -> RewardModel:
    """A reward model from its directory.

    What is read: a model of ours saved with its head beside it (``save_pretrained(…, scorer=…)``), or a decoder or
    encoder of transformers' ``…ForSequenceClassification`` with one label.

    Args:
        directory: config.json, weights, tokenizer.
        name: for the provenance; empty is the directory's own.
        dtype: of the computation.
        mesh: where the parameters go; None is the default device.
        attention: of a decoder.
        pooling: of an encoder.

    Raises:
        FileNotFoundError: no directory, config, weights or tokenizer.
        ValueError: a model without such a head, or with one of several numbers.
    """
    directory = pathlib.Path(directory)
    family, attributes, where = read_config(directory)
    encodes, offset = family.model_type in ENCODERS, 0.0
    head: Any = None
    if (directory / SCORER).is_file():
        described, head = load_scorer(directory)
        scorer = described.get("scorer", "reward")
        if scorer != "reward" or "kernel" not in head:
            raise ValueError(f"{directory / SCORER}: holds the head of scorer {scorer!r}, not that of a reward model")
    elif not is_classifier(attributes):
        raise ValueError(f"{where}: architectures is {attributes.get('architectures')}, and no {SCORER} lies beside it")
    if encodes:
        encoder, params = load_encoder(directory, mesh=mesh)
        if head is None:
            head = params["classifier"]
            offset = float(np.asarray(head["bias"])[0])
        params = {part: tree for part, tree in params.items() if part != "classifier"}
        model: Any = Encoder(dataclasses.replace(encoder, num_labels=None), dtype=dtype, pooling=pooling)
    else:
        if head is None:
            decoder, params, head = load_classifier(directory, mesh=mesh)
        else:
            decoder, params = load_pretrained(directory, mesh=mesh)
        model = Decoder(decoder, dtype=dtype, attention=attention)
    kernel = head["kernel"]
    if kernel.shape[0] != 1:
        raise ValueError(f"{directory}: a reward is one number, and this head gives {kernel.shape[0]}")
    local = LocalModel(
        model=model,
        params=params,
        tokenizer=load_tokenizer(directory),
        name=name or directory.resolve().name,
        mesh=mesh,
    )
    return RewardModel(local=local, kernel=kernel, offset=offset)
