"""Objectives: model + scorer + loss + likelihood, as one Linen module that the trainer differentiates.

A combination that means nothing (a distillation of rewards without rewards, a loss against a reference without one) is
refused when the config is made, with the reason.
"""

from __future__ import annotations

import dataclasses
import logging
from collections.abc import Iterable, Mapping
from typing import Any, Literal

import flax.linen as nn
import jax
import jax.numpy as jnp

from jaxrefine.config import unknown_name
from jaxrefine.data.batch import PackedBatch
from jaxrefine.data.groups import TokenGroup
from jaxrefine.losses import NEEDS, Loss, check_options, check_per, counts, get_loss, total
from jaxrefine.scoring.scorers import SCORERS, Scores, leaf_sums, normalized
from jaxrefine.scoring.terms import (
    Normalize,
    Pair,
    best_logprob,
    likelihood_term,
    likelihood_weights,
    ranking_metrics,
    routing_metrics,
    verdict_metrics,
)
from jaxrefine.typing import Array, Bool, Float

_log = logging.getLogger(__name__)

Term = tuple[Array, Array, float]
"""(sum, count, coefficient)."""

LIKELIHOOD = "likelihood"
"""Name of the likelihood term; the other term bears its loss's name."""


class Objective(nn.Module):
    """weight · loss(scores of the model's candidates) + mle_weight · likelihood.

    Parameters: ``{"model": the decoder's, "scorer": a head's, if it has one}``.

    Args:
      model: ``__call__(batch) -> [B S D]`` and ``output_embedding() -> [V D]``.
      scorer: one of ``SCORERS``' modules.
      loss: a name of ``LOSSES``; None is likelihood alone.
      loss_options: hyper-parameters of the loss.
      weight: coefficient of the loss.
      mle_weight: λ, coefficient of the likelihood term.
      mle_normalize: "sum", "mean" or "token", see ``likelihood_weights``.
      per: "group" averages a loss over groups, "pair" over pairs; a loss with one value a candidate is averaged over
        candidates always.
    """

    model: Any
    scorer: Any
    loss: str | None = None
    loss_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    weight: float = 1.0
    mle_weight: float = 0.0
    mle_normalize: Normalize = "mean"
    per: Literal["group", "pair"] = "group"

    def __call__(self, batch: PackedBatch) -> tuple[dict[str, Term], dict[str, Pair]]:
        """The terms {name: (sum, count, coefficient)} and the metrics {name: (sum, count)} of a batch."""
        scores = self.score(batch)
        return self.terms(scores, batch), self._metrics(scores, batch)

    def terms(self, scores: Scores, batch: PackedBatch) -> dict[str, Term]:
        """The terms of scores that are there already; reads no parameters."""
        terms: dict[str, Term] = {}
        if self.loss is not None:
            loss = get_loss(self.loss)
            labels, where = _targets(loss, batch)
            values = loss.function(*self._read(loss, scores, batch), labels, where=where, **self.loss_options)
            terms[self.loss] = (
                *total(self.loss, values, labels, where, per=self.per, options=self.loss_options),
                self.weight,
            )
        if self.mle_weight:
            assert scores.sums is not None
            terms[LIKELIHOOD] = (*likelihood_term(scores.sums, batch, self.mle_normalize), self.mle_weight)
        return terms

    def score(self, batch: PackedBatch) -> Scores:
        """What the scorer says of a batch; with summed log-probs of the responses wherever likelihood needs them."""
        hidden = self.model(batch)
        scores: Scores = self.scorer(self.model, hidden, batch)
        if self.mle_weight and scores.sums is None:
            logprobs, sums = leaf_sums(self.model, hidden, batch)
            scores = dataclasses.replace(scores, sums=sums[..., 0], token_logprobs=logprobs)
        return scores

    def counts(self, batch: PackedBatch) -> dict[str, Float[Array, ""]]:
        """The denominators of ``__call__``'s terms, from masks alone."""
        return {name: jnp.sum(count) for name, count in self._counts(batch).items()}

    def learns(self, batch: PackedBatch) -> Bool[Array, "B G"]:
        """Groups with anything to learn from: a pair, a candidate, a token, as the terms have it."""
        found = jnp.zeros(batch.group_ids.shape, bool)
        for count in self._counts(batch).values():
            found |= count > 0 if count.ndim == found.ndim else jnp.any(count > 0, -1)
        return found

    def _counts(self, batch: PackedBatch) -> dict[str, Array]:
        """Of each group, or of each of its candidates."""
        found: dict[str, Array] = {}
        if self.loss is not None:
            labels, where = _targets(get_loss(self.loss), batch)
            found[self.loss] = counts(self.loss, labels, where, per=self.per, options=self.loss_options)
        if self.mle_weight:
            found[LIKELIHOOD] = likelihood_weights(batch, self.mle_normalize)[1]
        return found

    def _read(self, loss: Loss, scores: Scores, batch: PackedBatch) -> tuple[Array, ...]:
        """What the loss reads before its labels."""
        if loss.reads == "verdicts":
            read: tuple[Array | None, ...] = scores.verdicts or (None,)
        else:
            read = (scores.logits if loss.reads == "logits" else scores.scores,)
        if "reference" in loss.needs:
            power = getattr(self.scorer, "length_power", 0.0)
            read += (normalized(jnp.asarray(batch.reference_scores), batch, power),)
        present = tuple(array for array in read if array is not None)
        if len(present) < len(read):
            raise ValueError(f"loss {self.loss!r} reads {loss.reads}, which {type(self.scorer).__name__} does not give")
        return present

    def _metrics(self, scores: Scores, batch: PackedBatch) -> dict[str, Pair]:
        metrics = dict(scores.metrics)
        if scores.scores is not None:
            metrics |= ranking_metrics(scores.scores, batch)
        if scores.sums is not None:
            metrics |= best_logprob(scores.sums, batch)
        if scores.verdicts is not None:
            metrics |= verdict_metrics(*scores.verdicts, batch)
        if scores.logits is not None and batch.rewards is not None and batch.reward_where is not None:
            metrics |= routing_metrics(scores.logits, jnp.asarray(batch.rewards), jnp.asarray(batch.reward_where))
        return jax.lax.stop_gradient(metrics)


def _targets(loss: Loss, batch: PackedBatch) -> tuple[Array, Array]:
    """What a loss learns from, and where: labels of candidates, or rewards of models."""
    if loss.reads != "logits":
        return jnp.asarray(batch.labels), jnp.asarray(batch.rank_where)
    if batch.rewards is None or batch.reward_where is None:
        raise ValueError("this loss reads batch.rewards, and the batch has none: pack with PackingConfig(rewards=M)")
    return jnp.asarray(batch.rewards), jnp.asarray(batch.reward_where)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ObjectiveConfig:
    """What to learn from candidates: any scorer with any loss that it can be read by.

    Raises:
      ValueError: a name, an option or a combination that cannot be, with the reason.

    >>> ObjectiveConfig(loss="pairwise_logistic", scorer="reward").needs == {"labels", "pairs"}
    True
    """

    loss: str | None = None
    """A name of ``LOSSES``; None: likelihood alone."""
    scorer: str = "sequence"
    """A name of ``SCORERS``."""
    length_power: float | None = None
    """β of the sequence scorer: log-probs over length^β. None: what the loss is defined with, else 1."""
    num_models: int | None = None
    """M of the router."""
    loss_options: Mapping[str, float | int | str | bool] = dataclasses.field(default_factory=dict)
    """Hyper-parameters of the loss, by name."""
    weight: float = 1.0
    """Coefficient of the loss."""
    mle_weight: float = 0.0
    """Coefficient λ of the likelihood of the responses that the data marks for it."""
    mle_normalize: Normalize = "mean"
    """Over a response's tokens "sum" or "mean", or per "token" of the batch."""
    per: Literal["group", "pair"] = "group"
    """What a pairwise loss is averaged over."""

    def __post_init__(self) -> None:
        where = "objective"
        if self.scorer not in SCORERS:
            raise ValueError(unknown_name(self.scorer, SCORERS, f"{where}.scorer"))
        for name, allowed in (("mle_normalize", ("sum", "mean", "token")), ("per", ("group", "pair"))):
            if getattr(self, name) not in allowed:
                raise ValueError(unknown_name(getattr(self, name), allowed, f"{where}.{name}"))
        for name in ("weight", "mle_weight"):
            if not 0 <= getattr(self, name) < float("inf"):
                raise ValueError(f"{where}.{name} = {getattr(self, name)} must be finite and not negative")
        if self.length_power is not None and self.scorer != "sequence":
            raise ValueError(f"{where}.length_power is the sequence scorer's; {where}.scorer is {self.scorer!r}")
        if (self.num_models is None) == (self.scorer == "router"):
            raise ValueError(f"{where}.num_models = {self.num_models} and {where}.scorer = {self.scorer!r}: "
                             "the router needs it, no other scorer has it")  # fmt: skip
        if self.loss is None:
            if not self.mle_weight or self.loss_options:
                raise ValueError(f"{where}.loss is None: mle_weight must be positive, and there are no loss_options")
            return
        loss = get_loss(self.loss)
        check_options(self.loss, self.loss_options)
        check_per(self.loss, self.per)
        _check_reads(self, loss)

    @property
    def needs(self) -> frozenset[str]:
        """What the data must offer, see ``offers``."""
        needs = set() if self.loss is None else set(get_loss(self.loss).needs)
        if self.scorer == "verdict":
            needs.add("verdicts")
        if self.mle_weight:
            needs.add("responses")
        return frozenset(needs)

    @property
    def power(self) -> float:
        """β: the one given, else the one of the loss, else 1."""
        if self.length_power is not None:
            return self.length_power
        recommended = None if self.loss is None else get_loss(self.loss).length_power
        return 1.0 if recommended is None else recommended


def _check_reads(config: ObjectiveConfig, loss: Loss) -> None:
    """Whether the loss can read what the scorer gives."""
    kind = SCORERS[config.scorer]
    says = f"objective.loss = {config.loss!r}"
    if loss.reads not in kind.gives:
        able = [name for name, other in SCORERS.items() if loss.reads in other.gives]
        raise ValueError(
            f"{says} reads {loss.reads}, which objective.scorer = {config.scorer!r} does not give; allowed: "
            f"{', '.join(able)}"
        )
    if "reference" in loss.needs and config.scorer != "sequence":
        raise ValueError(
            f"{says} compares log-probs of responses with a reference model's; objective.scorer = {config.scorer!r} "
            "does not give them; allowed: sequence"
        )
    if loss.log_probs and not kind.logprobs:
        able = [name for name, other in SCORERS.items() if other.logprobs and loss.reads in other.gives]
        raise ValueError(
            f"{says} takes scores for log-probs, which those of objective.scorer = {config.scorer!r} are not; allowed: "
            f"{', '.join(able)}"
        )
    if loss.length_power == 0 and config.length_power:
        raise ValueError(
            f"{says} is defined on summed log-probs: its margin or β is in nats of a whole response. "
            f"objective.length_power = {config.length_power}; allowed: 0"
        )


def offers(groups: Iterable[TokenGroup]) -> frozenset[str]:
    """What a data set has for objectives to learn from: the names of ``Loss.needs``, and "responses".

    >>> sorted(offers([TokenGroup(0, (1, 5), ((6, 2), (7, 2)), labels=(1.0, 0.0))]))
    ['binary_labels', 'labels', 'pairs', 'responses']
    """
    found = {"binary_labels"}
    for group in groups:
        labels = {label for label, ranked in zip(group.labels, group.rank_where, strict=True) if ranked}
        if not labels <= {0.0, 1.0}:
            found.discard("binary_labels")
        found |= {name for name, there in (
            ("responses", bool(group.responses) and any(group.mle_weight)),
            ("labels", bool(labels)),
            ("pairs", len(labels) > 1),
            ("reference", any(group.reference_scores)),
            ("verdicts", group.verdicts is not None),
            ("rewards", group.rewards is not None),
        ) if there}  # fmt: skip
    return frozenset(found if "labels" in found else found - {"binary_labels"})


_NEEDS = {**NEEDS, "responses": "responses marked for likelihood"}


def check_offers(config: ObjectiveConfig, offered: frozenset[str]) -> None:
    """Refuses an objective that the data has not what it needs for.

    Raises:
      ValueError: naming each need that is not met, and what is offered.
    """
    if missing := sorted(config.needs - offered):
        wanted = "; ".join(f"{name} ({_NEEDS[name]})" for name in missing)
        raise ValueError(
            f"objective.loss = {config.loss!r} with scorer {config.scorer!r} needs {wanted}. "
            f"The data offers: {', '.join(sorted(offered)) or 'nothing'}"
        )


def make_objective(config: ObjectiveConfig, model: Any, *, offered: frozenset[str] | None = None) -> Objective:
    """The objective of a config.

    Args:
      config: scorer, loss, weights.
      model: a ``Decoder``.
      offered: of ``offers``; None leaves the data unchecked.

    Raises:
      ValueError: the data has not what the objective needs.
    """
    if offered is not None:
        check_offers(config, offered)
    options: dict[str, Any] = {}
    if config.scorer == "sequence":
        options["length_power"] = config.power
    if config.scorer == "router":
        options["num_models"] = config.num_models
    contrasts = config.loss is not None and get_loss(config.loss).supervision in ("ranking", "pairwise")
    if contrasts and config.scorer == "sequence" and not config.mle_weight:
        _log.warning(
            "objective.loss = %r with mle_weight = 0: a ranking loss alone may make every response unlikely; watch the "
            "metric best_logprob",
            config.loss,
        )
    return Objective(
        model=model,
        scorer=SCORERS[config.scorer].module(**options),
        loss=config.loss,
        loss_options=dict(config.loss_options),
        weight=config.weight,
        mle_weight=config.mle_weight,
        mle_normalize=config.mle_normalize,
        per=config.per,
    )
