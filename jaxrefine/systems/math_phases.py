"""The paper's trainings as phases: solutions, verdicts on samples, and both together.

Neither λ, nor α1 to α3, nor learning rates are published: those that a config does not give are ours.

A margin between logarithms of S (Eq. 8) has no gradient where S is 1 for every solution: so it is for a model that
never saw the verdict's words, of which the longer one is then much less likely. Such a model learns the words first, by
a few steps of cross-entropy (Eq. 9), whose gradient does not vanish; ``start`` of the phases here says so.
"""

from __future__ import annotations

import dataclasses

from jaxrefine.scoring.objectives import ObjectiveConfig
from jaxrefine.selection.examples import ExampleChoice
from jaxrefine.systems.math_settings import GIVEN, Phase
from jaxrefine.training.finetuning import Finetuning

SOLUTIONS = ObjectiveConfig(mle_weight=1.0, mle_normalize="sum")
"""L_mle, Eq. 2–4: a sum over tokens."""
VERDICT_MARGIN = ObjectiveConfig(loss="pairwise_hinge", loss_options={"margin": 1.0}, scorer="verdict")
"""L_cls-margin, Eq. 8."""
VERDICT_CROSS_ENTROPY = ObjectiveConfig(loss="verdict_cross_entropy", scorer="verdict")
"""L_cls-xent, Eq. 9."""
SEQUENCE_CONTRAST = ObjectiveConfig(
    loss="pairwise_hinge", loss_options={"margin": 1.0}, length_power=0.0, mle_weight=1.0, mle_normalize="sum"
)
"""L_ctr, Eq. 10–11 with α1 = 1."""


def with_likelihood(objective: ObjectiveConfig, weight: float) -> ObjectiveConfig:
    """The objective with weight · L_mle beside it: Eq. 12 of `VERDICT_MARGIN`, Eq. 13 of `VERDICT_CROSS_ENTROPY`.

    >>> with_likelihood(VERDICT_MARGIN, 0.1).mle_weight
    0.1
    """
    return dataclasses.replace(objective, mle_weight=weight, mle_normalize="sum")


def solving(name: str, *sources: str, training: Finetuning, start: str = GIVEN, best_epoch: bool = False) -> Phase:
    """SSFT: a generator learns from the solutions of sources.

    Args:
        name: of the model.
        *sources: names of them.
        training: for how long and how; its objective is not read.
        start: whose weights it goes on from.
        best_epoch: whether the validation problems choose the epoch.

    >>> solving("again", "MATH", training=Finetuning(objective=SOLUTIONS), start="margin").generates
    True
    """
    chosen = dataclasses.replace(training, objective=SOLUTIONS, keep_epochs=best_epoch)
    return Phase(name=name, start=start, solutions=sources, training=chosen, best_epoch=best_epoch)


def evaluating(
    name: str,
    objective: ObjectiveConfig,
    *,
    of: str,
    training: Finetuning,
    start: str | None = None,
    examples: ExampleChoice | None = None,
    scores: tuple[str, ...] = (),
    re_ranks: bool = True,
) -> Phase:
    """An evaluator learns from a generator's graded samples.

    Args:
        name: of the model.
        objective: `VERDICT_MARGIN` or `VERDICT_CROSS_ENTROPY`.
        of: the generator.
        training: for how long and how; its objective is not read.
        start: whose weights it goes on from; None is the generator's.
        examples: which samples; None is the default.
        scores: other generators that it re-ranks.
        re_ranks: False where it is but a start for another evaluator.

    >>> evaluating("margin", VERDICT_MARGIN, of="both", training=Finetuning(objective=SOLUTIONS)).targets
    ('both',)
    """
    return Phase(
        name=name,
        start=of if start is None else start,
        samples_of=of,
        training=dataclasses.replace(training, objective=objective),
        examples=ExampleChoice() if examples is None else examples,
        scores=scores,
        re_ranks=re_ranks,
    )


def together(
    name: str,
    objective: ObjectiveConfig,
    *sources: str,
    of: str,
    training: Finetuning,
    start: str | None = None,
    examples: ExampleChoice | None = None,
) -> Phase:
    """A contrast of a generator's samples with the likelihood of solutions beside it.

    Args:
        name: of the model.
        objective: with likelihood.
        *sources: whose solutions.
        of: the generator.
        training: for how long and how; its objective is not read.
        start: whose weights it goes on from; None is the generator's.
        examples: which samples; None is the default.

    >>> phase = together("all", SEQUENCE_CONTRAST, "MATH", of="both", training=Finetuning(objective=SOLUTIONS))
    >>> phase.generates, phase.evaluates
    (True, False)
    """
    return Phase(
        name=name,
        start=of if start is None else start,
        solutions=sources,
        samples_of=of,
        training=dataclasses.replace(training, objective=objective, mle_on="original"),
        examples=ExampleChoice() if examples is None else examples,
    )
