"""The table of losses: what each reads and needs, how its values are counted, and which options it takes.

A new loss is a function, a row here, a config, and a value worked by hand in a test; the same table enrols it in the
contract tests.
"""

from __future__ import annotations

import dataclasses
import inspect
import typing
from collections.abc import Callable, Mapping
from typing import Any, Literal

import jax
import jax.numpy as jnp

from jaxrefine.config import unknown_name
from jaxrefine.losses import classification, distillation, pairwise, preference, ranking
from jaxrefine.losses.reduction import REQUIRED, Labels, Mask, as_float, as_mask, has_pair, one_of, pair_count
from jaxrefine.typing import Array, Float, Scalar

NEEDS: Mapping[str, str] = {
    "labels": "a label for each candidate",
    "binary_labels": "right / wrong labels",
    "pairs": "groups of at least two candidates",
    "reference": "scores of a reference model",
    "rewards": "a reward of each model for the query",
    "verdicts": "a verdict after each response",
}
"""What a loss may need of the data, in words for an error."""


@dataclasses.dataclass(frozen=True, kw_only=True)
class Loss:
    """A row of the table."""

    function: Callable[..., Array]
    supervision: Literal["ranking", "pairwise", "classification", "distillation", "preference"]
    needs: frozenset[str]
    """What the data must offer: keys of ``NEEDS``."""
    reads: Literal["scores", "verdicts", "logits"]
    """What the scorer must give: scores, the two log-probs of the verdicts, or the logits of a router."""
    unit: Literal["group", "pair", "candidate"]
    """What a value is made of. A ``"group"`` is listwise; a ``"pair"`` loss gathers the pairs of each group, and can be
    averaged per group or per pair; a ``"candidate"`` loss has one value a candidate."""
    pairs: Literal["mean", "sum"] | None = None
    """For ``unit="pair"``: how the value of a group gathers its pairs."""
    permutation_invariant: bool = True
    """Whether, with its default options, the order of the candidates never matters, even where labels are equal."""
    log_probs: bool = False
    """Whether the scores must be log-probs: a reward head's would mean nothing."""
    length_power: float | None = None
    """The power of the length by which its paper divides sequence log-probs; None where it says nothing of them."""
    citation: str

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the positional array arguments, in order."""
        return tuple(
            name
            for name, parameter in inspect.signature(self.function).parameters.items()
            if parameter.kind is inspect.Parameter.POSITIONAL_OR_KEYWORD
        )

    def options(self) -> dict[str, Any]:
        """The hyper-parameters and their defaults; ``REQUIRED`` for one that has none.

        >>> LOSSES["margin_ranking"].options()
        {'margin': 0.1, 'gaps': 'sum', 'ties': 'index'}
        """
        return {
            name: REQUIRED if parameter.default is inspect.Parameter.empty else parameter.default
            for name, parameter in inspect.signature(self.function).parameters.items()
            if parameter.kind is inspect.Parameter.KEYWORD_ONLY and name != "where"
        }


_LABELS = frozenset({"labels", "pairs"})

LOSSES: dict[str, Loss] = {
    "margin_ranking": Loss(
        function=ranking.margin_ranking, supervision="ranking", needs=_LABELS, reads="scores", unit="pair",
        pairs="sum", permutation_invariant=False, length_power=1.0,
        citation="Tuna, arXiv 2310.13385, Eq. 4-5",
    ),
    "rrhf": Loss(
        function=ranking.rrhf, supervision="ranking", needs=_LABELS, reads="scores", unit="pair",
        pairs="sum", length_power=1.0,
        citation="Yuan et al. 2023, arXiv 2304.05302, Eq. 2",
    ),
    "listwise_softmax": Loss(
        function=ranking.listwise_softmax, supervision="ranking", needs=_LABELS, reads="scores", unit="group",
        citation="Cao et al. 2007, ListNet; Bruch et al. 2019",
    ),
    "list_mle": Loss(
        function=ranking.list_mle, supervision="ranking", needs=_LABELS, reads="scores", unit="group",
        citation="Xia et al. 2008, ListMLE",
    ),
    "pro": Loss(
        function=ranking.pro, supervision="ranking", needs=_LABELS, reads="scores", unit="group", length_power=1.0,
        citation="Song et al. 2023, arXiv 2306.17492, Eq. 5 and its differentiated contrast",
    ),
    "pairwise_hinge": Loss(
        function=pairwise.pairwise_hinge, supervision="pairwise", needs=_LABELS, reads="scores", unit="pair",
        pairs="mean", length_power=0.0,
        citation="arXiv 2310.10047, Eq. 8 and 10",
    ),
    "pairwise_logistic": Loss(
        function=pairwise.pairwise_logistic, supervision="pairwise", needs=_LABELS, reads="scores", unit="pair",
        pairs="mean",
        citation="ART, arXiv 2311.07961, Sec. 3",
    ),
    "slic_hf": Loss(
        function=pairwise.slic_hf, supervision="pairwise", needs=_LABELS, reads="scores", unit="pair",
        pairs="mean", log_probs=True, length_power=0.0,
        citation="Zhao et al. 2023, arXiv 2305.10425, Sec. 2",
    ),
    "verdict_cross_entropy": Loss(
        function=classification.verdict_cross_entropy, supervision="classification",
        needs=frozenset({"binary_labels", "verdicts"}), reads="verdicts", unit="candidate",
        citation="arXiv 2310.10047, Eq. 9",
    ),
    "reward_distillation": Loss(
        function=distillation.reward_distillation, supervision="distillation",
        needs=frozenset({"rewards"}), reads="logits", unit="group",
        citation="ZOOTER, arXiv 2311.08692, router loss",
    ),
    "dpo": Loss(
        function=preference.dpo, supervision="preference", needs=_LABELS | {"reference"}, reads="scores", unit="pair",
        pairs="mean", log_probs=True, length_power=0.0,
        citation="Rafailov et al. 2023, arXiv 2305.18290, Eq. 7",
    ),
    "ipo": Loss(
        function=preference.ipo, supervision="preference", needs=_LABELS | {"reference"}, reads="scores", unit="pair",
        pairs="mean", log_probs=True, length_power=0.0,
        citation="Azar et al. 2023, arXiv 2310.12036, Eq. 17",
    ),
    "simpo": Loss(
        function=preference.simpo, supervision="preference", needs=_LABELS, reads="scores", unit="pair",
        pairs="mean", log_probs=True, length_power=1.0,
        citation="Meng et al. 2024, arXiv 2405.14734, Eq. 6",
    ),
    "orpo": Loss(
        function=preference.orpo, supervision="preference", needs=_LABELS, reads="scores", unit="pair",
        pairs="mean", log_probs=True, length_power=1.0,
        citation="Hong et al. 2024, arXiv 2403.07691, Eq. 7",
    ),
    "cpo": Loss(
        function=preference.cpo, supervision="preference", needs=_LABELS, reads="scores", unit="pair",
        pairs="mean", log_probs=True, length_power=0.0,
        citation="Xu et al. 2024, arXiv 2401.08417, Sec. 3",
    ),
}  # fmt: skip


def get_loss(name: str) -> Loss:
    """The row of a loss.

    Raises:
        ValueError: for an unknown name: given, nearest, allowed.

    >>> get_loss("dpoo")
    Traceback (most recent call last):
    ValueError: unknown loss 'dpoo'; did you mean 'dpo'? Allowed: cpo, dpo, ipo, ...
    """
    if name not in LOSSES:
        raise ValueError(unknown_name(name, LOSSES, "loss"))
    return LOSSES[name]


def check_options(name: str, options: Mapping[str, Any]) -> None:
    """Refuses hyper-parameters that a loss does not take, lacks, or cannot use; computes nothing.

    Args:
        name: of a loss.
        options: its keyword hyper-parameters.

    Raises:
        ValueError: an unknown loss or option (given, nearest, allowed), a missing one, or a value out of range.
        TypeError: a value of the wrong type.

    >>> check_options("margin_ranking", {"margn": 0.2})
    Traceback (most recent call last):
    ValueError: unknown option of margin_ranking 'margn'; did you mean 'margin'? Allowed: gaps, margin, ties
    """
    loss = get_loss(name)
    known = loss.options()
    for option in options:
        if option not in known:
            raise ValueError(unknown_name(option, known, f"option of {name}"))
    missing = [option for option, default in known.items() if default is REQUIRED and option not in options]
    if missing:
        raise ValueError(f"{name} has no default for {', '.join(missing)}: give {{'{missing[0]}': …}}")
    hints = typing.get_type_hints(loss.function)
    for option, value in options.items():
        choices = typing.get_args(hints[option])
        if choices:
            one_of(value, choices, f"{name}: {option}")
        elif isinstance(value, bool) != (hints[option] is bool) or not isinstance(value, (bool, int, float)):
            raise TypeError(f"{name}: {option} is a {hints[option].__name__}, given {value!r}")
    dummies = [jax.ShapeDtypeStruct((2,), jnp.float32)] * len(loss.arrays)
    try:
        jax.eval_shape(lambda *arrays: loss.function(*arrays, **options), *dummies)
    except (TypeError, ValueError) as error:
        raise type(error)(f"{name}: {error}") from None


def counts(
    name: str,
    labels: Labels,
    where: Mask = None,
    *,
    per: Literal["group", "pair"] = "group",
    options: Mapping[str, Any] | None = None,
) -> Float[Array, "*batch"]:
    """Number of units of a loss with anything to learn, in each group: its part of the global denominator.

    ``per="group"``: 1 for a group with a pair, else 0. ``per="pair"``: its number of pairs. For a loss of candidates
    the number of candidates; for the distillation of rewards 1 where at least two rewards are known.

    Args:
        name: of a loss.
        labels: [..., N]; rewards [..., M] for ``reward_distillation``.
        where: [..., N].
        per: ``"pair"`` only for losses whose unit is a pair.
        options: the loss's hyper-parameters: with ``ties="index"`` equal labels are pairs too.

    Returns:
        [...] fp32, from labels and masks alone.

    Raises:
        ValueError: an unknown loss or ``per``, or ``per="pair"`` for a loss that is not made of pairs.

    >>> import jax.numpy as jnp
    >>> labels = jnp.array([[1.0, 0.0, 0.0], [1.0, 1.0, 1.0]])
    >>> counts("dpo", labels).tolist(), counts("dpo", labels, per="pair").tolist()
    ([1.0, 0.0], [2.0, 0.0])
    """
    loss = get_loss(name)
    check_per(name, per)
    if loss.unit == "candidate":
        return jnp.sum(as_mask(where, labels), axis=-1, dtype=jnp.float32)
    if loss.supervision == "distillation":
        return (jnp.sum(as_mask(where, labels), axis=-1) >= 2).astype(jnp.float32)
    ties = {**loss.options(), **(options or {})}.get("ties", "skip")
    if per == "pair":
        return pair_count(labels, where, ties=ties)
    return has_pair(labels, where, ties=ties).astype(jnp.float32)


def check_per(name: str, per: str) -> None:
    """Refuses an average per pair of a loss that is not made of pairs."""
    one_of(per, ("group", "pair"), "per")
    if per == "pair" and get_loss(name).unit != "pair":
        by_pair = sorted(other for other, loss in LOSSES.items() if loss.unit == "pair")
        raise ValueError(f"{name} is not made of pairs: per='group', or one of {', '.join(by_pair)}")


def total(
    name: str,
    values: Float[Array, "*units"],
    labels: Labels,
    where: Mask = None,
    *,
    per: Literal["group", "pair"] = "group",
    options: Mapping[str, Any] | None = None,
) -> tuple[Scalar, Scalar]:
    """The sum and the count of a loss's unreduced values: their ratio is its average per group, pair or candidate.

    Args:
        name: of a loss.
        values: what its function returned: [...], or [..., N] for a loss of candidates.
        labels: [..., N] as for ``counts``.
        where: [..., N].
        per: as for ``counts``: ``"pair"`` weighs each group by its pairs.
        options: the loss's hyper-parameters.

    Returns:
        (sum, count), fp32 scalars; sums and counts of microbatches add up.

    Raises:
        ValueError: as ``counts``.

    >>> import jax.numpy as jnp
    >>> labels = jnp.array([[1.0, 0.0, 0.0], [1.0, 0.0, 1.0], [1.0, 1.0, 1.0]])
    >>> values = jnp.array([2.0, 0.5, 0.0])  # means over 2, 2 and no pairs
    >>> [float(x) for x in total("pairwise_logistic", values, labels)]
    [2.5, 2.0]
    >>> [float(x) for x in total("pairwise_logistic", values, labels, per="pair")]
    [5.0, 4.0]
    """
    count = counts(name, labels, where, per=per, options=options)
    values = as_float(values)
    if per == "pair" and get_loss(name).pairs == "mean":
        values = values * count.astype(values.dtype)
    return jnp.sum(values), jnp.sum(count)
